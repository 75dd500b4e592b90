"""Pages made from the notebooks' cards: every link leads somewhere, and the minutes of every schedule add up."""

import itertools
import re

import nbformat
import pytest

from cdt_lite.errors import CDTError
from cdt_lite.teaching.check import all_exercises
from tools import cards, pages
from tools.copies import ROOT, set_aside, sources, tracked_copies

ENTRIES = [pages.entry(path.name, nbformat.read(path, as_version=4)) for path in sources()]
BY = {e.number: e for e in ENTRIES}
DAYS = [(name, hours, plan) for name, (_, days) in pages.PLANS.items() for hours, plan in days]


def test_an_entry_is_read_from_the_title_card():
    source = "# 03 · Diffusion: masks\n\n**In this notebook\nyou hide genes.** More.\n\n" \
             "<!-- budget -->\nx\n<!-- /budget -->"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)])
    cards.fill(notebook, "03_diffusion.ipynb", cards.Measured("laptop", 61.0, 1.2, "today"), executed=True)
    e = pages.entry("03_diffusion.ipynb", notebook)
    assert (e.number, e.title, e.promise) == ("03", "Diffusion: masks", "In this notebook you hide genes.")
    assert e.seconds == 61 and e.compute == 2 and e.reading == 1 and e.gigabytes == 1.2


def links(text):
    return re.findall(r"\]\(([^)#\s]+)", text)


@pytest.mark.parametrize("folder, page", [("notebooks", pages.start_page(ENTRIES)),
                                          ("workshop", pages.schedules(ENTRIES))])
def test_every_link_leads_to_a_file(folder, page):
    found = [link for link in links(page) if not link.startswith("http")]
    assert len(found) > 10 and not [link for link in found if not (ROOT / folder / link).exists()]


@pytest.mark.parametrize("path", sorted((ROOT / "workshop").glob("*.md")), ids=lambda path: path.name)
def test_every_link_of_the_workshop_leads_to_a_file(path):
    local = [link for link in links(path.read_text(encoding="utf-8")) if not link.startswith(("http", "mailto"))]
    assert not [link for link in local if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", [p for p in tracked_copies() if p.suffix == ".ipynb"],
                         ids=lambda path: f"{path.parent.name} {path.stem[:2]}")
def test_every_link_of_a_copy_leads_to_a_file(path):
    cells = nbformat.reads(tracked_copies()[path], as_version=4).cells
    local = [link for cell in cells if cell.cell_type == "markdown" for link in links(cell.source)
             if not link.startswith(("http", "mailto", "data:"))]
    assert not [link for link in local if not (path.parent / link).exists()]


def test_the_landing_page_lists_every_notebook_with_its_minutes():
    page = pages.start_page(ENTRIES)
    for e in ENTRIES:
        row = next(line for line in page.splitlines() if line.startswith(f"| [{e.number} "))
        assert f"| {e.reading} min | {e.exercises} min |" in row and f"../workshop/student/{e.name}" in row
    assert page.count("CDT_PROFILE") == 1


@pytest.mark.parametrize("name, hours, plan", DAYS, ids=[f"{name} {i}" for i, (name, _, _) in enumerate(DAYS)])
def test_a_day_fits_its_hours_and_nobody_works_two_hours_without_a_break(name, hours, plan):
    first, last = pages.day_limits(hours)
    made = pages.blocks(plan, BY)
    total = sum(block.minutes for block in made)
    assert total <= last - first
    since = 0
    for block in made:
        since = 0 if block.text in ("Break", "Lunch") else since + block.minutes
        assert since <= 120 + 15, block.text


@pytest.mark.parametrize("name, hours, plan", DAYS, ids=[f"{name} {i}" for i, (name, _, _) in enumerate(DAYS)])
def test_a_notebooks_minutes_are_its_cards_and_its_exercises(name, hours, plan):
    minutes = {x.number: x.minutes for x in all_exercises()}
    for (what, more), block in zip(plan, pages.blocks(plan, BY), strict=True):
        if isinstance(more, int):
            assert block.minutes == more
            continue
        chosen = [n for n in minutes if n.split(".")[0].zfill(2) == what] if more == pages.EVERYTHING else more.split()
        extra = BY[what].compute + pages.QUIZ if chosen else 0
        assert block.minutes == BY[what].reading + sum(minutes[n] for n in chosen) + extra
        assert block.minutes == sum(map(int, re.findall(r"\d+", block.parts)))


def test_printed_times_follow_from_printed_minutes():
    rows = re.findall(r"^\| (\d+):(\d\d) \| (-?\d+) \|", pages.schedules(ENTRIES), re.MULTILINE)
    assert len(rows) > 30
    for (h, m, minutes), (h2, m2, _) in itertools.pairwise(rows):
        after = int(h) * 60 + int(m) + int(minutes)
        assert after == int(h2) * 60 + int(m2) or (h2, m2) == ("9", "00")
    assert all(int(minutes) >= 0 for _, _, minutes in rows)


def test_two_days_leave_no_exercise_out_and_a_wrong_number_is_refused():
    plan = [item for name, _, day in DAYS if name == "Two days" for item in day]
    assert {what for what, more in plan if more == pages.EVERYTHING} == set(BY)
    with pytest.raises(CDTError, match=r"no exercise '3\.9'"):
        pages.blocks([("03", "3.9")], BY)


def test_a_copy_that_was_worked_in_is_kept_before_it_is_written_anew(tmp_path):
    (tmp_path / "student").mkdir()
    path = tmp_path / "student" / "03_diffusion.ipynb"
    assert not set_aside(path, tmp_path / "answers")
    cell = nbformat.v4.new_code_cell("mine")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    assert not set_aside(path, tmp_path / "answers")
    cell.outputs = [nbformat.v4.new_output("stream", text="done")]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    assert set_aside(path, tmp_path / "answers")
    assert (tmp_path / "answers" / path.name).read_bytes() == path.read_bytes()
