"""From each tracked notebook, the one source, its copies: student and instructor (tracked, in workshop/), and slides.

Called by `python3 run.py copies`, which also writes the pages that are made of the notebooks.
"""

import re
import shutil
from copy import deepcopy
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from cdt_lite.teaching.check import Exercise
from tools import pages
from tools.environment import ROOT
from tools.execute import KERNEL, LANGUAGE

START, END = "# solution", "# end of solution"
NOT_YOURS = "return ...  # your code here"


def sources() -> list[Path]:
    """The tracked notebooks, in order."""
    return sorted((ROOT / "notebooks").glob("0*.ipynb"))


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def stub(source: str) -> str:
    """Returns an exercise's code with what is between its two marks replaced; ValueError where these are not right."""
    solution = re.compile(rf"^( *){START}$.*?^ *{END}$", re.DOTALL | re.MULTILINE)
    left, found = solution.subn(rf"\1{NOT_YOURS}", source)
    lines = [line.strip() for line in source.splitlines()]
    if not 0 < found == lines.count(START) == lines.count(END):
        raise ValueError(f"an exercise needs the lines {START!r} and {END!r} around its solution:\n{source}")
    return left


def bare(notebook: NotebookNode) -> NotebookNode:
    """Returns a copy without outputs, whose relative links still work two folders down."""
    copy = deepcopy(notebook)
    copy.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in copy.cells:
        kept = {key: value for key, value in cell.metadata.items() if key in ("tags", "exercise")}
        for kind in tags(cell) & {"slide", "subslide"}:
            kept["slideshow"] = {"slide_type": kind}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            continue
        source = re.sub(r"""(\]\(|src="|href=")\.\./""", r"\1../../", cell.source)
        source = re.sub(r"\]\((\w+\.md)", r"](../../notebooks/\1", source)  # the glossary, the start page
        cell.source = re.sub(r"^The outputs below: .*\n", "", source, flags=re.MULTILINE)  # there are none
    return copy


def student(notebook: NotebookNode) -> NotebookNode:
    """Returns the copy to work in: stubs for solutions, no outputs."""
    copy = bare(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code" and "exercise" in tags(cell):
            cell.source = stub(cell.source)
    return copy


def notes(text: str) -> dict[str, str]:
    """Reads a file of workshop/notes: what to tell the instructor, by the heading below which it stands."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {heading.strip(): note.strip() for heading, note in zip(parts[::2], parts[1::2], strict=True)}


def instructor(notebook: NotebookNode, exercises: tuple[Exercise, ...], told: dict[str, str]) -> NotebookNode:
    """Returns the copy to teach from: solutions in sight, notes, a front page made of the exercises.

    ValueError where a note's heading is not one of the notebook.
    """
    copy = bare(notebook)
    left, cells = dict(told), []
    for cell in copy.cells:
        cells.append(cell)
        found = re.findall(r"^#{1,3} +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        for heading in left.keys() & set(found):
            cells.append(_for_instructors(f"**Instructor.** {left.pop(heading)}", cell.id))
    if left:
        raise ValueError(f"notes stand below headings that the notebook does not have: {list(left)}")
    front = _for_instructors(pages.LOOKS.front(exercises).rstrip(), "front")
    copy.cells = [cells[0], front, *cells[1:]]  # after the title card
    return copy


def _for_instructors(text: str, place: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text, id=f"instructor-{place}", metadata={"tags": ["instructor"]})


def slides(notebook: NotebookNode) -> str:
    """Returns slides: one HTML page that holds its pictures, style and script, and asks nothing of a network.

    A cell tagged `slide` or `subslide` begins one, `fragment` goes on. Without a heading, a slide says the one above.
    """
    shown, heading = deepcopy(notebook), ""
    for cell in shown.cells:
        cell.source = re.sub(r"^\[!\[Open in .*\n", "", cell.source, flags=re.MULTILINE)  # badges are on other hosts
        cell.metadata.begins = bool(tags(cell) & {"slide", "subslide"})
        cell.metadata.where = heading
        cell.metadata.drawn = "image/png" in str(cell.get("outputs"))
        headings = re.findall(r"^#{1,3} +(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            cell.metadata.where, heading = "", headings[-1]
    shown.metadata.title = shown.cells[0].source.splitlines()[0].strip("# ")
    shown.cells = [cell for cell in shown.cells if tags(cell) & {"slide", "subslide", "fragment"}]
    page = HTMLExporter(
        template_file=str(ROOT / "tools" / "slides.html.j2"),
        embed_images=True,
        exclude_anchor_links=True,
    )
    return page.from_notebook_node(shown, {"metadata": {"path": str(ROOT / "notebooks")}})[0]


def tracked_copies() -> dict[Path, str]:
    """Returns every tracked file that is made from the notebooks, with what it must contain."""
    made, cards = {}, []
    for path in sources():
        notebook = nbformat.read(path, as_version=4)
        cards.append(pages.read(path.name, notebook))
        told = notes((ROOT / "workshop" / "notes" / f"{path.name[:2]}.md").read_text(encoding="utf-8"))
        copies = {"student": student(notebook), "instructor": instructor(notebook, cards[-1].exercises, told)}
        for kind, copy in copies.items():
            card = copy.cells[0]
            card.source = card.source.replace(f"/notebooks/{path.name}", f"/workshop/{kind}/{path.name}")  # badges
            made[ROOT / "workshop" / kind / path.name] = nbformat.writes(copy) + "\n"
    return made | pages.pages(cards)


def set_aside(path: Path, answers: Path) -> bool:
    """Keeps a student copy that was worked in (it has outputs) before it is written anew; says whether it did."""
    if path.parent.name != "student" or not path.is_file():
        return False
    cells = nbformat.read(path, as_version=4).cells
    if not any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
        return False
    answers.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, answers)
    return True


def main() -> None:
    """Writes all copies."""
    made = tracked_copies()
    for path in sources():
        page = slides(nbformat.read(path, as_version=4))
        made[ROOT / "output" / "slides" / f"{path.stem}.html"] = page
    kept = [path.name for path in made if set_aside(path, ROOT / "output" / "answers")]
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    (ROOT / "figures" / "knockout.png").write_bytes(pages.front_picture())
    print(f"Written: {len(made)} copies, slides (output/slides) and pages")
    if kept:
        print(f"Student copies that were worked in are kept in output/answers: {', '.join(kept)}")


if __name__ == "__main__":
    main()
