"""The house in numbers and in a picture: how large each folder is, and who may import whom.

python tests/house.py            prints the table of sizes
python tests/house.py --write    draws figures/house.svg, .png and .dot from the contract and the folders' docstrings
"""

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cdt_lite"
FIRST_EDITION = 299_584  # bytes of code in cdt_lite without exercises at commit 4c1e37f, counted as here
WIDE = 100


def files() -> dict[str, list[Path]]:
    """Folder -> its Python files, for everything but the tests."""
    found: dict[str, list[Path]] = {"cdt_lite": sorted(PACKAGE.glob("*.py"))}
    for folder in sorted(path.parent for path in PACKAGE.rglob("__init__.py")):
        if folder != PACKAGE:
            found[folder.relative_to(ROOT).as_posix()] = sorted(folder.glob("*.py"))
    found["run.py, tools"] = [ROOT / "run.py", *sorted((ROOT / "tools").glob("*.py"))]
    found["benchmarks"] = sorted((ROOT / "benchmarks").glob("*.py"))
    return found


def code_lines(source: str) -> list[str]:
    """Returns the lines that hold code, without comments: no blank ones, no docstrings."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    comment_at = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment_at[token.start[0]] = token.start[1]
    lines = []
    for number, line in enumerate(source.splitlines(), 1):
        code = line[: comment_at.get(number)].rstrip()
        if code and number not in documented:
            lines.append(code)
    return lines


def content(source: str) -> int:
    """Counts the bytes of code without comments, docstrings and layout: breaking or joining lines changes nothing."""
    total = 0
    for token in tokenize.generate_tokens(io.StringIO("\n".join(code_lines(source))).readline):
        total += len(token.string.strip().encode())
    return total


def comprehensions(source: str) -> int:
    """Counts comprehensions and generator expressions."""
    kinds = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    return sum(isinstance(node, kinds) for node in ast.walk(ast.parse(source)))


def sizes() -> pd.DataFrame:
    """Returns, for every folder, lines, lines of code, bytes of code, their mean width, the share of wide ones."""
    rows = {}
    for folder, paths in files().items():
        sources = [path.read_text(encoding="utf-8") for path in paths]
        code = [line for source in sources for line in code_lines(source)]
        rows[folder] = {
            "lines": sum(source.count("\n") for source in sources),
            "code": len(code),
            "bytes": sum(map(content, sources)),
            "width": sum(map(len, code)),
            "wide": sum(len(line) > WIDE for line in code),
            "comprehensions": sum(map(comprehensions, sources)),
        }
    table = pd.DataFrame(rows).T
    table.loc["all"] = table.sum()
    table["mean width"] = (table["width"] / table["code"]).round(1)
    table["wide, %"] = (100 * table["wide"] / table["code"]).round(1)
    table["comprehensions in 100"] = (100 * table["comprehensions"] / table["code"]).round(1)
    return table.drop(columns=["width", "wide", "comprehensions"])


def layers() -> list[list[str]]:
    """Returns the layers of the contract in pyproject.toml, the highest first, each a list of folders or modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["id"] == "house")
    return [[name.strip() for name in layer.replace("|", ":").split(":")] for layer in contract["layers"]]


def purpose(name: str) -> str:
    """Returns the first sentence of a folder's or module's docstring, without its last stop."""
    path = PACKAGE / name / "__init__.py"
    if not path.is_file():
        path = PACKAGE / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].rstrip(".")


def picture():
    """Draws the contract: a box for every folder with what it is for, and arrows down to what it may import."""
    from cdt_lite.figures.sketch import Diagram

    diagram = Diagram("house", "Who may import whom in cdt_lite: a folder imports from those below it only")
    groups = ["other", "control", "condition", "condition", "token", "token", "head", "other"]
    above: list[str] = []
    for layer, group in zip(layers(), groups, strict=True):
        for name in layer:
            is_folder = (PACKAGE / name).is_dir()
            diagram.box(name, f"{name}/" if is_folder else f"{name}.py", *wrapped(purpose(name)), group=group)
        diagram.ranks.append(layer)
        for name in above:
            diagram.link(name, layer[len(layer) // 2], kind="stream")
        above = layer
    return diagram


def wrapped(text: str, width: int = 44) -> list[str]:
    """Cuts a sentence into lines."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(sizes().to_string())
    if "--write" in sys.argv:
        from cdt_lite.figures.sketch import render

        house = picture()
        (ROOT / "figures" / "house.dot").write_text(house.dot, encoding="utf-8")
        for form in ("svg", "png"):
            (ROOT / "figures" / f"house.{form}").write_bytes(render(house, form))
