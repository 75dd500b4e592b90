"""The site: pages and notebooks, gathered into one folder as a reader shall see them, and built by Sphinx.

Called by `python3 run.py site`. How it looks, and what of the package its API pages show, is in docs/conf.py.
"""

import ast
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from cdt_lite.cli import parser
from tools.copies import sources, stub, tags
from tools.environment import ROOT
from tools.pages import put

FOLDERS = ("benchmarks", "cdt_lite", "docs", "figures", "notebooks", "tests", "tools", "workshop")
AWAY = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "capsules", "conf.py", "_static")
BUTTONS = """
{{.buttons}}
{{download}}`Notebook, with outputs <../original/{0}>` {{download}}`Student copy, to work in <../workshop/student/{0}>`

An exercise shows its stub here, and the answer is folded below it. The outputs are those of the solved notebook.
"""


def downloads(found: re.Match[str]) -> str:
    """Returns a link to a workshop copy as one to download it; to their folder, as links to all of them."""
    words, folder, name = found.groups()
    if name:
        return f"{{download}}`{words} <{folder}/{name}>`"
    every = [f"{{download}}`{path.name[:2]} <{folder}/{path.name}>`" for path in sources()]
    return f"{words} ({', '.join(every)})"


def shown(text: str, deep: int) -> str:
    """Returns a page, `deep` folders down, as the site shows it.

    Badges are words, since their pictures are on other hosts; copies are not pages, but files; what is folded is read
    as Markdown, too, which wants empty lines around it; the README is the site's front page.
    """
    text = re.sub(r"!\[([^\]]*)\]\(https?://[^)]*\)", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\(((?:[\w.]+/)*(?:student|instructor))/?(\w+\.ipynb)?\)", downloads, text)
    text = re.sub(r"(</summary>)(?=\S)|(?<=\S)(</details>)", r"\1\n\n\2", text)
    up = "../" * deep
    return text.replace(f"]({up}README.md", f"]({up}index.md")


def page(notebook: NotebookNode, name: str) -> NotebookNode:
    """Turns a tracked notebook into its page: stubs for solutions, which stay folded below; nothing for instructors."""
    notebook.cells = [cell for cell in notebook.cells if "instructor" not in tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = shown(cell.source, 1)
            continue
        if "exercise" in tags(cell):
            cell.source = stub(cell.source)
        for output in cell.outputs:
            for about in output.get("metadata", {}).values():
                cell.metadata["mystnb"] = {"image": {"alt": about.get("alt", "")}}
            table = output.get("data", {}).get("text/html", "")
            if table:  # an empty corner is no heading
                output.data["text/html"] = table.replace("<th></th>", "<td></td>")
    title, _, rest = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = f"{title}\n{BUTTONS.format(name)}{rest}"
    return notebook


def eager(source: str, package: str) -> str:
    """Returns a package's first file with plain imports in place of names that are imported when first used.

    What reads the package without running it finds its public names in these.
    """
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("lazily(")):
            continue
        homes = ast.literal_eval(node.value.args[1])  # type: ignore[attr-defined]
        plain = [f"from {package}.{module} import {', '.join(names)}" for module, names in homes.items() if names]
        plain.append(f"__all__ = {[name for names in homes.values() for name in names]}")
        lines[node.lineno - 1 : node.end_lineno] = plain
    return "\n".join(lines)


def alone(source: str) -> str:
    """Returns a file without its imports, the standard library's apart: what reads it need not follow them."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if (module or "").split(".")[0] not in sys.stdlib_module_names:
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or 0) - node.lineno + 1)
    return "\n".join(lines)


def commands() -> str:
    """Returns what every command of `cdt-lite` says of itself."""
    os.environ.update(COLUMNS="86", NO_COLOR="1")
    named: Any = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    return "\n".join(f"## {name}\n\n```text\n{one.format_help()}```\n" for name, one in named.items())


def gather(folder: Path) -> None:
    """Fills a new folder with all that the site shows or links to, laid out as the repository is."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=AWAY)
    (folder / "data").mkdir()
    for path in [*ROOT.glob("*.*"), *ROOT.glob("LICENSE*"), ROOT / "data" / "README.md"]:
        if path.is_file():
            shutil.copy(path, folder / path.relative_to(ROOT))
    shutil.copytree(ROOT / "notebooks", folder / "original", ignore=AWAY)
    contents = (folder / "docs" / "contents.md").read_text(encoding="utf-8")
    front = (ROOT / "README.md").read_text(encoding="utf-8") + contents
    (folder / "index.md").write_text(front, encoding="utf-8")
    for path in folder.rglob("*.md"):
        deep = len(path.relative_to(folder).parts) - 1
        text = put(path.read_text(encoding="utf-8"), "commands", commands())
        path.write_text(shown(text, deep), encoding="utf-8")
    for path in sources():
        nbformat.write(page(nbformat.read(path, as_version=4), path.name), folder / "notebooks" / path.name)
    for path in (ROOT / "cdt_lite").rglob("*.py"):
        source, place = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        plain = eager(source, ".".join(place.parts[:-1])) if path.name == "__init__.py" else alone(source)
        (folder / "plain" / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "plain" / place).write_text(plain, encoding="utf-8")


def build(out: Path) -> int:
    """Builds the site into a folder, from what is gathered beside it; any warning is an error."""
    from sphinx.cmd.build import build_main

    source = out.with_name(f"{out.name}-source")
    gather(source)
    shutil.rmtree(out, ignore_errors=True)
    words = ["-W", "--keep-going", "-q", "-c", str(ROOT / "docs"), "-d", str(source / ".doctrees")]
    return build_main([*words, str(source), str(out)])


if __name__ == "__main__":
    target = ROOT / "output" / "site"
    status = build(target)
    print(f"The site is in {target}: open index.html there")
    sys.exit(status)
