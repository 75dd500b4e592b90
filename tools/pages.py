"""What is written of the notebooks: each title card's budget, START.md, two pages of the workshop kit, the README.

All of it stands between two marks, such as `<!-- budget -->` and `<!-- /budget -->`; what is around them is edited by
hand. How it looks is in looks.md.j2; what a workshop does when is in workshop/plans.toml.
"""

import base64
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
from typing import Any

import jinja2
import nbformat
from nbformat import NotebookNode

from cdt_lite.report.front import how_good
from cdt_lite.teaching.check import Exercise, all_exercises, find
from tools.environment import ROOT

FOLDER = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(loader=FOLDER, trim_blocks=True, lstrip_blocks=True)
LOOKS: Any = TEMPLATES.get_template("looks.md.j2").module
WORDS_A_MINUTE = 200
WORDS_A_LINE = 6  # of code
SECONDS_A_PICTURE = 20  # or a table
QUIZ = 10  # minutes for a notebook's three quiz items and the room's questions
UNMEASURED = 180.0  # seconds planned for a notebook whose card has no time yet
ANSWERS = {  # of what the last section says: which paragraph, and which of its sentences
    "00": (-1, 0, 2),
    "01": (0, 0, 1),
    "02": (-1, 0, 1),
    "03": (0, 1, 2),
    "04": (0, 1, 2),
    "05": (0, 0, 2),
    "06": (-1, 0, 2),
    "07": (0, 0, 2),
    "08": (0, 0, 1),
    "09": (0, 0, 3),
}
NAMED = ("cdt-lite", "torch", "numpy", "scanpy", "anndata")


@dataclass(frozen=True)
class Card:
    """What a title card says, and what its notebook takes: minutes of reading, exercises, seconds of computing."""

    name: str
    title: str
    promise: str
    reading: int
    exercises: tuple[Exercise, ...]
    seconds: float | None
    answer: str = ""


def put(text: str, mark: str, content: str) -> str:
    """Replaces what stands between the marks `<!-- mark -->` and `<!-- /mark -->`."""
    marked = rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)"
    return re.sub(marked, lambda found: found[1] + content + found[2], text, flags=re.DOTALL)


def prose(source: str) -> str:
    """Returns a text cell's words as a reader meets them: no code, tags, addresses or budget, nothing folded."""
    text = re.sub(r"<details>.*?</details>", " ", put(source, "budget", ""), flags=re.DOTALL)
    text = re.sub(r"```.*?```|<[^>]+>", " ", text, flags=re.DOTALL)
    return re.sub(r"^[-: |]+$|\]\([^)]*\)|https?://\S+|[|#*>]", " ", text, flags=re.MULTILINE)


def words(notebook: NotebookNode) -> int:
    """Words of prose, without what is folded."""
    return sum(len(prose(cell.source).split()) for cell in notebook.cells if cell.cell_type == "markdown")


def minutes_to_read(notebook: NotebookNode) -> int:
    """Minutes for prose, code (a line is six words) and what is drawn or tabled (20 seconds each)."""
    n_words, n_shown = words(notebook), 0
    for cell in notebook.cells:
        if cell.cell_type != "code" or "exercise" in cell.metadata.get("tags", []):
            continue
        n_words += WORDS_A_LINE * sum(bool(line.strip()) for line in cell.source.splitlines())
        n_shown += sum("image/png" in out.get("data", {}) or out.output_type == "execute_result"
                       for out in cell.get("outputs", []))
    return math.ceil(n_words / WORDS_A_MINUTE + n_shown * SECONDS_A_PICTURE / 60)


def read(name: str, notebook: NotebookNode) -> Card:
    """Reads a notebook's title card; minutes are counted from its text and its exercises."""
    source = notebook.cells[0].source
    title = re.sub(r"^# 0\d[ ·:]*", "", source.splitlines()[0]).strip()
    promise = re.search(r"^\*\*(.+?)\*\*", source, re.MULTILINE | re.DOTALL)
    told = " ".join(promise[1].split()) if promise else ""
    reading = minutes_to_read(notebook)
    own = tuple(e for e in all_exercises() if e.number.split(".")[0].zfill(2) == name[:2])
    seconds = re.search(r"^\| laptop \| (\d+) s \|", source, re.MULTILINE)
    return Card(name, title, told, reading, own, float(seconds[1]) if seconds else None, answer(name, notebook))


def answer(name: str, notebook: NotebookNode) -> str:
    """Returns what an executed notebook answers to the question of its title, in its own computed words."""
    said: list[str] = []
    for cell in notebook.cells:
        texts = [out.data["text/markdown"] for out in cell.get("outputs", []) if "text/markdown" in out.get("data", {})]
        said = texts or said
    paragraph, first, last = ANSWERS.get(name[:2], (-1, 0, 1))
    if not said:
        return ""
    return " ".join(re.split(r"(?<=[.?]) (?=[A-Z])", said[paragraph])[first:last])


def fill(notebook: NotebookNode, name: str, seconds: float, gigabytes: float, executed: bool) -> None:
    """Writes what a run took into a notebook's title card: its profile's row; if `executed`, what outputs are of."""
    source = notebook.cells[0].source
    profile = os.environ.get("CDT_PROFILE", "laptop")
    when = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores"
    rows = dict(re.findall(r"^(?=\| (ci|laptop|gpu) \|)(.*)$", source, re.MULTILINE))
    rows[profile] = f"| {profile} | {seconds:.0f} s | {gigabytes:.1f} GB | {when} |"
    said = re.search(r"^The outputs below: .*$", source, re.MULTILINE)
    outputs = said[0] if said else "The outputs below: none yet."
    if executed:
        packages = ", ".join(f"{package} {version(package).split('+')[0]}" for package in NAMED)
        python = platform.python_version()
        outputs = f"The outputs below: profile {profile}, {when}; Python {python}, {packages}."
    files = json.loads((ROOT / "cdt_lite" / "data" / "manifest.json").read_text(encoding="utf-8"))
    megabytes = sum(each["bytes"] for kind in files.values() for each in kind.values()) / 1e6
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    repository = settings["tool"]["cdt-lite"]["repository"]  # empty while there is none
    place = re.match(r"https://github.com/(.+?)/?$", repository)
    budget = LOOKS.budget(read(name, notebook), place and place[1], megabytes, rows, outputs)
    notebook.cells[0].source = put(source, "budget", budget)


def planned(what: str, more: str | int, cards: list[Card]) -> tuple[int, str, str]:
    """Minutes of one line of a plan, its text, and what the minutes are made of.

    A notebook is shown as slides (""), or read and worked through with some exercises ("3.1 3.2") or "all".
    """
    if isinstance(more, int):
        return more, what, ""
    card = next(card for card in cards if card.name.startswith(what))
    link = f"[{what} {card.title}](../notebooks/{card.name})"
    if not more:
        return card.reading, f"{link}, as slides", f"{card.reading} reading"
    chosen = card.exercises if more == "all" else [find(number) for number in more.split()]
    work = sum(exercise.minutes for exercise in chosen)
    compute = math.ceil((card.seconds or UNMEASURED) / 60)
    parts = f"{card.reading} reading + {work} exercises + {compute} computing + {QUIZ} quiz and questions"
    numbers = ", ".join(exercise.number for exercise in chosen)
    return card.reading + work + compute + QUIZ, f"{link}: {numbers}", parts


def plans(cards: list[Card]) -> list[dict[str, Any]]:
    """Reads workshop/plans.toml; every day of it gets its minutes after midnight and its planned lines."""
    found = tomllib.loads((ROOT / "workshop" / "plans.toml").read_text(encoding="utf-8"))["plan"]
    for plan in found:
        for day in plan["day"]:
            times = re.findall(r"(\d+):(\d\d)", day["hours"])
            day["first"], day["last"] = [int(hour) * 60 + int(minute) for hour, minute in times]
            day["planned"] = [planned(what, more, cards) for what, more in day["lines"]]
    return found


def pages(cards: list[Card]) -> dict[Path, str]:
    """Returns every page that is made of the notebooks, with what it must contain."""
    parts = {
        "notebooks/START.md": LOOKS.start(cards),
        "workshop/exercises.md": LOOKS.exercises(cards),
        "workshop/schedules.md": LOOKS.schedules(plans(cards)),
    }
    made = {}
    for name, part in parts.items():
        page = (ROOT / name).read_text(encoding="utf-8")
        made[ROOT / name] = put(page, "run.py copies", part)
    return made | {ROOT / "README.md": readme(cards)}


def front_picture() -> bytes:
    """Returns the picture for the README that notebook 00 drew, in its cell tagged `front`."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_the_whole_picture.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "front" in cell.metadata.get("tags", []))
    (picture,) = (out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {}))
    return base64.b64decode(picture)


def readme(cards: list[Card]) -> str:
    """Returns the README with the answers of the notebooks, and what the records say of the model."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    results, densities = (json.loads((ROOT / name).read_text(encoding="utf-8"))
                          for name in ("figures/results.json", "benchmarks/densities.json"))
    page = put(page, "results", how_good(results, densities))
    return put(page, "answers", LOOKS.answers(cards))
