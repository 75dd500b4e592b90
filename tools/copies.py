"""From each tracked notebook, the one source, the three other copies: student, instructor, slides.

Called by `python3 run.py copies`. Student and instructor copies go into workshop/ and are tracked; slides go into
output/slides. Also writes the pages that are made of the notebooks: workshop/exercises.md, workshop/schedules.md and
notebooks/START.md.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cdt_lite.teaching.check import Exercise, all_exercises  # noqa: E402
from tools import pages  # noqa: E402
from tools.execute import KERNEL, LANGUAGE  # noqa: E402
from tools.slides import deck  # noqa: E402

START, END = "# solution", "# end of solution"
NOT_YOURS = "return ...  # your code here"


def sources() -> list[Path]:
    """The tracked notebooks, in order."""
    return sorted((ROOT / "notebooks").glob("0*.ipynb"))


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def stub(source: str) -> str:
    """Returns an exercise's code with everything between its two marks replaced by a line to fill in.

    Raises:
        ValueError: The marks are missing, in the wrong order, or not alone on their lines.
    """
    kept, inside, seen = [], False, 0
    for line in source.splitlines():
        mark = line.strip()
        if mark == START and not inside:
            inside, seen = True, seen + 1
            kept.append(f"{line[: len(line) - len(line.lstrip())]}{NOT_YOURS}")
        elif mark == END and inside:
            inside = False
        elif mark in (START, END):
            raise ValueError(f"a line {mark!r} stands where it does not belong")
        elif not inside:
            kept.append(line)
    if inside or not seen:
        raise ValueError(f"an exercise needs the lines {START!r} and {END!r} around its solution")
    return "\n".join(kept)


def _bare(notebook: NotebookNode) -> NotebookNode:
    """Returns a copy without outputs, whose relative links still work two folders down."""
    copy = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "cells": []})
    copy.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in notebook.cells:
        new = nbformat.from_dict({key: cell[key] for key in ("cell_type", "id", "source")})
        new.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in ("tags", "exercise")})
        if tags(cell) & {"slide", "subslide"}:
            new.metadata["slideshow"] = {"slide_type": "slide" if "slide" in tags(cell) else "subslide"}
        if cell.cell_type == "code":
            new.outputs, new.execution_count = [], None
        else:
            new.source = re.sub(r"""(\]\(|src="|href=")\.\./""", r"\1../../", cell.source)
            new.source = re.sub(r"\]\((\w+\.md)", r"](../../notebooks/\1", new.source)  # the glossary, the start page
            new.source = re.sub(r"^The outputs below: .*\n", "", new.source, flags=re.MULTILINE)  # there are none
        copy.cells.append(new)
    return copy


def student(notebook: NotebookNode) -> NotebookNode:
    """Returns the copy to work in: stubs for solutions, no instructor's notes, no outputs."""
    copy = _bare(notebook)
    copy.cells = [cell for cell in copy.cells if "instructor" not in tags(cell)]
    for cell in copy.cells:
        if cell.cell_type == "code" and "exercise" in tags(cell):
            cell.source = stub(cell.source)
    return copy


def instructor(notebook: NotebookNode, exercises: list[Exercise]) -> NotebookNode:
    """Returns the copy to teach from: solutions in sight, instructor's notes, a front page made of the exercises."""
    copy = _bare(notebook)
    front = nbformat.v4.new_markdown_cell(front_page(exercises), id="instructor-front")
    front.metadata["tags"] = ["instructor"]
    copy.cells.insert(1, front)  # after the title card
    return copy


def front_page(exercises: list[Exercise]) -> str:
    """Writes the table that opens an instructor copy."""
    minutes = sum(exercise.minutes for exercise in exercises)
    rows = [f"| {e.number} {e.title} | {e.objective} | {e.misconception} | {e.difficulty} of 5 | {e.minutes} |"
            for e in exercises]
    plural = "" if len(exercises) == 1 else "s"
    return "\n".join([
        "## For the instructor", "",
        f"{len(exercises)} exercise{plural}, {minutes} minutes of work for the room. Solutions are shown here; the "
        "student copy has stubs. Cells that begin with *Instructor* are in this copy only.", "",
        "| exercise | objective | misconception to listen for | difficulty | minutes |",
        "|---|---|---|---|---:|", *rows])


def exercise_table(exercises: list[Exercise], names: dict[str, str]) -> str:
    """Writes workshop/exercises.md: exercise, notebook, objective, misconception, what the check tests.

    Args:
        exercises: All of them, in order.
        names: "03" -> the notebook's file name.
    """
    def safe(text: str) -> str:
        return text.replace("|", "\\|")

    rows = []
    for e in exercises:
        name = names.get(e.number.split(".")[0].zfill(2), "")
        link = f"[{name[:2]}](../notebooks/{name})" if name else ""
        cells = (f"{e.number} {e.title}", link, f"{e.difficulty}", f"{e.minutes}", e.objective, e.misconception,
                 "; ".join(prop.claim for prop in e.properties))
        rows.append(f"| {' | '.join(safe(text) for text in cells)} |")
    total = sum(e.minutes for e in exercises)
    return "\n".join([
        "# The exercises", "", f"{len(exercises)} exercises, {total} minutes. This table is written by "
        "`python3 run.py copies` from `cdt_lite/teaching/exercises/`; change it there.", "",
        "| exercise | notebook | difficulty | minutes | objective | misconception it cures | what `check` tests |",
        "|---|---|---:|---:|---|---|---|", *rows, ""])


def tracked_copies() -> dict[Path, str]:
    """Returns every tracked file that is made from the notebooks, with what it must contain."""
    everything = list(all_exercises())
    made = {ROOT / "workshop" / "exercises.md": exercise_table(everything, {p.name[:2]: p.name for p in sources()})}
    entries = []
    for path in sources():
        notebook = nbformat.read(path, as_version=4)
        entries.append(pages.entry(path.name, notebook))
        own = [e for e in everything if e.number.split(".")[0].zfill(2) == path.name[:2]]
        try:
            copies = {"student": student(notebook), "instructor": instructor(notebook, own)}
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
        for kind, copy in copies.items():
            made[ROOT / "workshop" / kind / path.name] = nbformat.writes(copy) + "\n"
    made[ROOT / "notebooks" / "START.md"] = pages.start_page(entries)
    made[ROOT / "workshop" / "schedules.md"] = pages.schedules(entries)
    return made


def set_aside(path: Path, answers: Path) -> bool:
    """Keeps a student copy that was worked in (it has outputs) before it is written anew; says whether it did."""
    if path.parent.name != "student" or not path.is_file():
        return False
    cells = nbformat.read(path, as_version=4).cells
    if not any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
        return False
    answers.mkdir(parents=True, exist_ok=True)
    (answers / path.name).write_bytes(path.read_bytes())
    return True


def main() -> int:
    """Writes all copies; returns the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        made = tracked_copies()
    except ValueError as error:
        sys.exit(f"run.py: {error}")
    for path in sources():
        made[ROOT / "output" / "slides" / f"{path.stem}.html"] = deck(nbformat.read(path, as_version=4))
    kept = [path.name for path in made if set_aside(path, ROOT / "output" / "answers")]
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    print(f"Written: {len(sources())} notebooks each in workshop/student, workshop/instructor and output/slides, "
          "workshop/exercises.md, workshop/schedules.md and notebooks/START.md")
    if kept:
        print(f"Student copies that were worked in are kept in output/answers: {', '.join(kept)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
