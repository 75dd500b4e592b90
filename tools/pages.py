"""Pages made from the notebooks' own cards: notebooks/START.md, where JupyterLab opens, and workshop/schedules.md.

`python3 run.py copies` writes them; a test says when they are out of date.
"""

import math
import re
from dataclasses import dataclass

from nbformat import NotebookNode

from cdt_lite.teaching.check import all_exercises, find
from tools import cards

QUIZ = 10  # minutes for a notebook's three quiz items and the room's questions
UNMEASURED_COMPUTE = 3  # minutes planned for a notebook whose card has no time yet


@dataclass(frozen=True)
class Entry:
    """One notebook, as these pages list it."""

    name: str
    title: str
    promise: str
    reading: int
    exercises: int
    seconds: float | None
    gigabytes: float | None

    @property
    def number(self) -> str:
        """Its two digits."""
        return self.name[:2]

    @property
    def compute(self) -> int:
        """Whole minutes of computing on a laptop, rounded up."""
        return UNMEASURED_COMPUTE if self.seconds is None else math.ceil(self.seconds / 60)


def entry(name: str, notebook: NotebookNode) -> Entry:
    """Reads a notebook's title card; minutes are counted from its text and its exercises."""
    source = notebook.cells[0].source
    title = re.sub(r"^# 0\d[ ·:]*", "", source.splitlines()[0]).strip()
    promise = re.search(r"^\*\*(.+?)\*\*", source, re.MULTILINE | re.DOTALL)
    row = cards.read(source).rows.get("laptop")
    return Entry(name, title, " ".join(promise[1].split()) if promise else "", cards.minutes_to_read(notebook),
                 cards.minutes_of_exercises(name[:2]), row.seconds if row else None, row.gigabytes if row else None)


# ------------------------------------------------------------------------------------------------ START.md

START = """# Start here

A small model reads a perturbation screen, cell by cell, and predicts what a knockout does. In seven notebooks you build
it, train it, and find out how far it can be trusted. No GPU is needed.

## What to open

* **To learn:** the copies to work in, one after the other, beginning with
  [00 The whole picture](../workshop/student/{first}). The exercises are stubs that you fill in, and `check` tells you
  at once what holds.
* **To read:** the finished notebooks in this folder, with outputs and solutions, linked in the table.
* **To teach:** [the workshop kit](../workshop/README.md).

| notebook | what you do there | work in it | reading | exercises | computing |
|---|---|---|---:|---:|---:|
{rows}

Minutes: reading counts 200 words a minute; computing is measured on two cores, profile `laptop`. Every notebook also
runs alone: begin anywhere. Words are explained in the [glossary](GLOSSARY.md).

## If you have less time

* **You know scanpy, and transformers are new:** {biologist}. Skip 02 at first: its first figure is enough.
* **You know transformers, and cells are new:** {learner}.
* **You run it for others:** {engineer}, then [the command line](../README.md#the-package).

## How to work

* Run a cell with Shift + Enter. If something looks odd: *Kernel, Restart Kernel and Run All Cells*.
* An exercise that you leave alone does no harm: the cells below use a right answer instead, and say so.
* In a terminal, `cdt-lite doctor` says whether this machine is ready, and what to do if it is not. In JupyterLab:
  *File, New, Terminal*.
* `CDT_PROFILE` sets the size of every run, and is read when a notebook starts: `ci` takes seconds, `laptop` (the
  default) minutes, `gpu` wants a graphics card. The code is the same; cells, genes and training steps are fewer or
  more. On a slow laptop, stop JupyterLab and start it again with `python3 run.py lab --profile ci` (Windows:
  `py run.py lab --profile ci`).
* To begin the student copies anew, close them and run `python3 run.py copies`: it writes all of them again and
  keeps the old ones in `output/answers`. Your record of solved exercises is `output/progress.json`.
"""


def start_page(entries: list[Entry]) -> str:
    """Writes notebooks/START.md."""
    by = {e.number: e for e in entries}

    def way(*numbers: str) -> str:
        return ", ".join(f"[{n}](../workshop/student/{by[n].name})" for n in numbers if n in by)

    rows = [f"| [{e.number} {e.title}]({e.name}) | {e.promise} | [student copy](../workshop/student/{e.name}) "
            f"| {e.reading} min | {e.exercises} min | "
            f"{'not measured' if e.seconds is None else f'{e.seconds / 60:.1f} min'} |" for e in entries]
    rows.append(f"| all | | | {sum(e.reading for e in entries)} min | {sum(e.exercises for e in entries)} min | |")
    return START.format(first=entries[0].name, rows="\n".join(rows), biologist=way("00", "01", "03", "05", "06"),
                        learner=way("00", "01", "02", "03", "06"), engineer=way("00", "04", "05"))


# ------------------------------------------------------------------------------------------------ schedules.md

Plan = list[tuple[str, str | int]]  # ("03", "3.1 3.2"): a notebook and its exercises; ("Lunch", 60): anything else
EVERYTHING = "all"
PLANS: dict[str, tuple[str, list[tuple[str, Plan]]]] = {
    "Half a day": (
        "What the model is, how it fails, and how one finds out. 02 is shown as slides, 04 is told in one sentence.", [
            ("9:00 to 13:00", [
                ("Welcome; everyone runs `cdt-lite doctor`", 10), ("00", "0.1"), ("01", "1.1"), ("02", ""),
                ("Break", 15), ("03", "3.1"), ("05", "5.2"), ("Break", 10), ("06", "6.1 6.2"),
                ("What to take home; feedback form", 10)])]),
    "One day": (
        "Every notebook, with the exercises that carry it.", [
            ("9:00 to 17:30", [
                ("Welcome; everyone runs `cdt-lite doctor`", 10), ("00", "0.1"), ("01", "1.1 1.2"), ("Break", 15),
                ("02", "2.1 2.2 2.4"), ("Lunch", 60), ("03", "3.1 3.2 3.3 3.5"), ("04", "4.1 4.4"), ("Break", 15),
                ("05", "5.2 5.3 5.5"), ("Break", 10), ("06", "6.1 6.2 6.3 6.4"),
                ("What to take home; feedback form", 15)])]),
    "Two days": (
        "Every exercise, and an afternoon with the room's own data.", [
            ("9:00 to 17:30", [
                ("Welcome; everyone runs `cdt-lite doctor`", 15), ("00", EVERYTHING), ("01", EVERYTHING), ("Break", 15),
                ("02", EVERYTHING), ("Lunch", 60), ("03", EVERYTHING), ("Break", 20), ("04", EVERYTHING),
                ("Questions of the first day", 15)]),
            ("9:00 to 17:00", [
                ("What was hard yesterday", 15), ("05", EVERYTHING), ("Break", 20), ("06", EVERYTHING), ("Lunch", 60),
                ("Your own screen: `cdt.load_screen(\"my_screen.h5ad\")`, its baselines first", 90), ("Break", 20),
                ("Three groups show one result and one doubt", 45), ("What to take home; feedback form", 15)])]),
}


@dataclass(frozen=True)
class Block:
    """One line of a schedule; a notebook's minutes are reading + exercises + computing + quiz."""

    text: str
    minutes: int
    parts: str = ""


def blocks(plan: Plan, entries: dict[str, Entry]) -> list[Block]:
    """Turns a plan into lines, a notebook's minutes taken from its card.

    Raises:
        CDTError: A plan names an exercise that is not there.
    """
    made = []
    for what, more in plan:
        if isinstance(more, int):
            made.append(Block(what, more))
            continue
        e = entries[what]
        own = [x.number for x in all_exercises() if x.number.split(".")[0].zfill(2) == what]
        chosen = [find(number) for number in (own if more == EVERYTHING else more.split())]
        exercises = sum(x.minutes for x in chosen)
        names = ", ".join(x.number for x in chosen)
        parts = f"{e.reading} reading + {exercises} exercises + {e.compute} computing + {QUIZ} quiz and questions"
        link = f"[{what} {e.title}](../notebooks/{e.name})"
        made.append(Block(f"{link}: {names}", e.reading + exercises + e.compute + QUIZ, parts) if chosen else
                    Block(f"{link}, as slides", e.reading, f"{e.reading} reading"))
    return made


def clock(minutes: int) -> str:
    """Minutes after midnight as "9:05"."""
    return f"{minutes // 60}:{minutes % 60:02d}"


def day_limits(hours: str) -> tuple[int, int]:
    """Reads "9:00 to 13:00" as minutes after midnight."""
    first, last = (int(h) * 60 + int(m) for h, m in re.findall(r"(\d+):(\d\d)", hours))
    return first, last


def schedules(entries: list[Entry]) -> str:
    """Writes workshop/schedules.md."""
    by = {e.number: e for e in entries}
    lines = ["# Schedules", "", "Written by `python3 run.py copies` from the notebooks' title cards and the exercises; "
             "the plans are in `tools/pages.py`. A notebook's minutes are its reading (200 words a minute: told, with "
             "slides, it takes about as long), the exercises named, its computing in the profile `laptop`, and "
             f"{QUIZ} minutes for the quiz and questions. Exercise times hold for people who know NumPy; what is spare "
             "at the end is for everyone else."]
    for name, (told, days) in PLANS.items():
        lines += ["", f"## {name}", "", told]
        for i, (hours, plan) in enumerate(days, 1):
            now, last = day_limits(hours)
            lines += ["", f"Day {i}, {hours}" if len(days) > 1 else f"From {hours}", "",
                      "| from | minutes | what | made up of |", "|---:|---:|---|---|"]
            for block in blocks(plan, by):
                lines.append(f"| {clock(now)} | {block.minutes} | {block.text} | {block.parts} |")
                now += block.minutes
            lines.append(f"| {clock(now)} | {last - now} | Spare | |")
    return "\n".join([*lines, ""])
