"""The public address, written wherever it belongs: `repository` under [tool.cdt-lite] in pyproject.toml sets it.

python .github/address.py     writes badges, links and clone lines; takes them out where the setting is empty

It stands between two marks, `<!-- address -->` and `<!-- /address -->`, in TOML and YAML `# address` and `# /address`;
in the title cards of the notebooks at the budget's top. `python3 run.py copies` then renews the workshop copies.
"""

import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.pages import LOOKS  # noqa: E402

HOST = "https://github.com/"
COLAB = '''On Colab add this as the first cell (not tried there); two notebooks read records of the checkout:

    !git clone --quiet {address} cdt && pip install --quiet "./cdt[notebooks]"
    import os, sys
    sys.path.insert(0, "cdt")              # the checkout, with its records
    os.environ["CDT_PROFILE"] = "laptop"   # "gpu" with a GPU runtime

The site: {site}
'''
URLS = '''[project.urls]
Repository = "{address}"
Documentation = "{site}"
Changelog = "{address}/blob/main/CHANGELOG.md"
Issues = "{address}/issues"
'''
README = '''[![tests]({address}/actions/workflows/test.yml/badge.svg)]({address}/actions/workflows/test.yml)
{badges}
**The site, to read: {site}**
'''
CONTACTS = '''contact_links:
  - name: A weakness
    url: {address}/security/advisories/new
    about: Please report it privately
  - name: The site
    url: {site}
    about: Notebooks, glossary and how-to pages, to read
'''
PARTS = {
    ("README.md", "address"): README,
    ("README.md", "clone"): "    git clone {address}\n    cd {name}\n",
    ("workshop/adapt.md", "address"): COLAB,
    ("pyproject.toml", "address"): URLS,
    ("CITATION.cff", "address"): 'repository-code: "{address}"\nurl: "{site}"\n',
    (".github/ISSUE_TEMPLATE/config.yml", "address"): CONTACTS,
    (".github/SECURITY.md", "address"): "The form: {address}/security/advisories/new\n",
}


def setting(root: Path = ROOT) -> str:
    """Returns the address; empty while there is none.

    Raises:
        ValueError: It is no address such as https://github.com/OWNER/NAME.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["tool"]["cdt-lite"]["repository"].rstrip("/")
    if address and not re.fullmatch(re.escape(HOST) + r"[\w-]+/[\w.-]+", address):
        raise ValueError(f"repository must be empty or such as {HOST}OWNER/NAME, not {address!r}")
    return address


def put(text: str, mark: str, content: str) -> str:
    """Replaces what stands between two marks.

    Raises:
        ValueError: The marks are not there, or more than once.
    """
    marked = rf"((?:<!--|#) {mark}(?: -->)?\n).*?((?:<!--|#) /{mark}(?: -->)?\n)"
    changed, found = re.subn(marked, lambda match: match[1] + content + match[2], text, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"the marks of {mark!r} stand there {found} times, not once")
    return changed


def with_badges(card: str, place: str, name: str) -> str:
    """Returns a notebook's title card with its badges, or without any where no place is named."""
    badges = LOOKS.badges(place, f"notebooks/{name}")
    return re.sub(r"(<!-- budget -->\n)(?:\[!\[.*\n)*\n?", lambda match: match[1] + badges, card)


def write(root: Path = ROOT) -> list[str]:
    """Writes the address to every place, and returns the files that changed.

    Raises:
        ValueError: The setting is no address, or a file has lost its marks.
    """
    address = setting(root)
    place = address.removeprefix(HOST)
    owner, _, name = place.partition("/")
    words = {"address": address, "name": name, "site": f"https://{owner.lower()}.github.io/{name}/",
             "badges": LOOKS.badges(place, "notebooks/00_the_whole_picture.ipynb")}
    changed: dict[str, None] = {}
    for (file, mark), content in PARTS.items():
        text = (root / file).read_text(encoding="utf-8")
        wanted = put(text, mark, content.format(**words) if address else "")
        if wanted != text:
            (root / file).write_text(wanted, encoding="utf-8")
            changed[file] = None
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        before = notebook.cells[0].source
        notebook.cells[0].source = with_badges(before, place, path.name)
        if notebook.cells[0].source != before:
            nbformat.write(notebook, path)
            changed[f"notebooks/{path.name}"] = None
    return list(changed)


if __name__ == "__main__":
    try:
        print("\n".join(write()) or "nothing to change")
    except ValueError as error:
        sys.exit(f"address.py: {error}")
