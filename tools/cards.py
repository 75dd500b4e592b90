"""The table in each notebook's title card: what it costs to read, to do and to run; measured, never guessed.

It stands between `<!-- budget -->` and `<!-- /budget -->`. `python3 run.py --write` and `--budget` fill it; the row of
a profile that was not run stays as it was.
"""

import json
import math
import os
import platform
import re
import time
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from nbformat import NotebookNode

from cdt_lite.teaching.check import all_exercises

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- budget -->.*?<!-- /budget -->", re.DOTALL)
PROFILES = ("ci", "laptop", "gpu")
WORDS_A_MINUTE = 200
UNMEASURED = "not measured"
NAMED = ("cdt-lite", "torch", "numpy", "scanpy", "anndata")


@dataclass(frozen=True)
class Measured:
    """One profile's row: seconds of computing, largest memory in GB, and when and on how many cores."""

    profile: str
    seconds: float
    gigabytes: float
    when: str = ""


@dataclass(frozen=True)
class Card:
    """What a title card says, read back from its text."""

    reading: int
    exercises: int
    rows: dict[str, Measured]
    executed: str


def prose(source: str) -> str:
    """Returns a text cell's words as a reader meets them: no code, tags, addresses or budget, nothing folded."""
    text = re.sub(r"<details>.*?</details>", " ", BLOCK.sub(" ", source), flags=re.DOTALL)
    text = re.sub(r"```.*?```|<[^>]+>", " ", text, flags=re.DOTALL)
    return re.sub(r"^[-: |]+$|\]\([^)]*\)|https?://\S+|[|#*>]", " ", text, flags=re.MULTILINE)


def minutes_to_read(notebook: NotebookNode) -> int:
    """Minutes for the text, at 200 words a minute, without instructor's notes and without what is folded."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"
             and "instructor" not in cell.metadata.get("tags", [])]
    return math.ceil(sum(len(prose(text).split()) for text in texts) / WORDS_A_MINUTE)


def minutes_of_exercises(number: str) -> int:
    """Minutes of all exercises of notebook "03"."""
    return sum(e.minutes for e in all_exercises() if e.number.split(".")[0].zfill(2) == number)


def today() -> str:
    """The date and the cores of this machine, as the table shows them."""
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores"


def versions() -> str:
    """The versions that a run's outputs come from."""
    return ", ".join([f"Python {platform.python_version()}",
                      *(f"{name} {version(name).split('+')[0]}" for name in NAMED)])


def download() -> str:
    """How much the notebooks fetch, from the list of public files."""
    files = json.loads((ROOT / "data" / "manifest.json").read_text(encoding="utf-8"))
    return f"{sum(each['bytes'] for each in files.values()) / 1e6:.1f} MB, once"


def repository() -> str:
    """The public address of the project, or an empty text while it has none ([tool.cdt-lite] in pyproject.toml)."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cdt-lite"]
    return settings["repository"].rstrip("/")


def badges(address: str, name: str) -> str:
    """The line of badges for one notebook; empty while the project has no public address on GitHub."""
    place = urlsplit(address)
    if place.hostname != "github.com":
        return ""
    colab = f"https://colab.research.google.com/github{place.path}/blob/main/notebooks/{name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n\n"


def read(source: str) -> Card:
    """Reads a title card's budget; what it does not say is 0, missing or empty."""
    found = BLOCK.search(source)
    text = found[0] if found else ""
    times = re.search(r"^\| (\d+) min \| (\d+) min \|", text, re.MULTILINE)
    rows = re.findall(r"^\| (\w+) \| (\d+) s \| ([\d.]+) GB \| (.*?) \|$", text, re.MULTILINE)
    executed = re.search(r"^The outputs below: .*$", text, re.MULTILINE)
    return Card(int(times[1]) if times else 0, int(times[2]) if times else 0,
                {p: Measured(p, float(s), float(gb), when) for p, s, gb, when in rows if p in PROFILES},
                executed[0] if executed else "")


def fill(notebook: NotebookNode, name: str, measured: Measured, executed: bool) -> bool:
    """Writes the budget into a notebook's title card, in place.

    Args:
        notebook: The notebook; without a budget block in its first cell nothing happens.
        name: Its file name, "03_diffusion.ipynb".
        measured: The run just made; only this profile's row changes.
        executed: Whether the notebook's outputs come from this run.

    Returns:
        Whether there was a block to fill.
    """
    if not notebook.cells or not BLOCK.search(notebook.cells[0].source):
        return False
    old = read(notebook.cells[0].source)
    rows = old.rows | {measured.profile: measured}
    said = f"The outputs below: profile {measured.profile}, {measured.when}; {versions()}."
    lines = ["| to read | exercises | to download |", "|---|---|---|",
             f"| {minutes_to_read(notebook)} min | {minutes_of_exercises(name[:2])} min | {download()} |", "",
             "| profile | compute | peak memory | measured |", "|---|---|---|---|"]
    for profile in PROFILES:
        row = rows.get(profile)
        lines.append(f"| {profile} | {row.seconds:.0f} s | {row.gigabytes:.1f} GB | {row.when} |" if row else
                     f"| {profile} | {UNMEASURED} | | |")
    lines += ["", said if executed else old.executed or "The outputs below: none yet."]
    block = "\n".join(["<!-- budget -->", badges(repository(), name) + lines[0], *lines[1:], "<!-- /budget -->"])
    notebook.cells[0].source = BLOCK.sub(lambda _: block, notebook.cells[0].source, count=1)
    return True
