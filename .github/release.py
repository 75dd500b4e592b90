"""What a release needs: the notes from CHANGELOG.md, and a look whether every file names the same version.

python .github/release.py            prints the notes of this version, as they are now
python .github/release.py v0.2.0     the same for a tag; exit status 1 if a file names another version, or none is dated
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = r"^## (\S+) \(([^)]+)\)(?:: ([^\n]+))?\n"


def versions(root: Path = ROOT) -> dict[str, str]:
    """Returns the version that each file names: the package's, which is the one place, and the three that repeat it."""
    patterns = {
        "cdt_lite/__init__.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": HEADING,  # the topmost
    }
    found = {}
    for name, pattern in patterns.items():
        text = (root / name).read_text(encoding="utf-8")
        match = re.search(pattern, text, re.MULTILINE)
        found[name] = match[1] if match else "none"
    zenodo = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    return found | {".zenodo.json": zenodo["version"]}


def section(changelog: str, version: str) -> tuple[str, str]:
    """Returns when a version was released ("unreleased" before), and its notes: a title, if it has one, and its lines.

    Raises:
        ValueError: The changelog has no section of that version.
    """
    for found in re.finditer(HEADING + r"(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL):
        if found[1] == version:
            title = f"# {found[3][0].upper()}{found[3][1:]}\n\n" if found[3] else ""
            return found[2], f"{title}{found[4].strip()}\n"
    raise ValueError(f"CHANGELOG.md has no section of {version}")


def main(tag: str = "", root: Path = ROOT) -> str:
    """Returns the notes of this version.

    Args:
        tag: Of the release, such as v0.2.0; empty before there is one.
        root: Folder of the repository.

    Raises:
        ValueError: There is a tag, and a file names another version, or the changelog or the citation no date for it.
    """
    named = versions(root)
    version = named["cdt_lite/__init__.py"]
    wrong = {name: other for name, other in named.items() if f"v{other}" != tag}
    if tag and wrong:
        raise ValueError(f"the tag is {tag}, but these name another version: {wrong}")
    date, notes = section((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if not tag:
        return notes
    cited = f"date-released: {date}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    if not (re.fullmatch(r"\d{4}-\d\d-\d\d", date) and cited):
        raise ValueError(f"CHANGELOG.md and CITATION.cff must both give the day of {version}; the changelog: {date!r}")
    return notes


if __name__ == "__main__":
    try:
        sys.stdout.write(main("".join(sys.argv[1:2])))
    except ValueError as error:
        sys.exit(f"release.py: {error}")
