"""Pages made from the notebooks' cards: every link leads somewhere, and the minutes of every schedule add up."""

import itertools
import re
from dataclasses import replace

import nbformat
import pytest

from cdt_lite.errors import CDTError
from cdt_lite.teaching.check import Property, all_exercises
from tools import pages
from tools.copies import sources, tracked_copies
from tools.environment import ROOT

CARDS = [pages.read(path.name, nbformat.read(path, as_version=4)) for path in sources()]
MADE = {str(path.relative_to(ROOT)): text for path, text in tracked_copies().items()}
DAYS = [(f"{plan['name']} {i}", day) for plan in pages.plans(CARDS) for i, day in enumerate(plan["day"], 1)]
each_day = pytest.mark.parametrize("day", [day for _, day in DAYS], ids=[name for name, _ in DAYS])


def broken(text, folder):
    """The relative links of a page that lead nowhere."""
    links = re.findall(r"\]\(([^)#\s]+)", text)
    local = [link for link in links if not link.startswith(("http", "mailto", "data:"))]
    return [link for link in local if not (ROOT / folder / link).exists()]


@pytest.mark.parametrize("name", MADE)
def test_every_link_of_what_is_made_leads_to_a_file(name):
    text = MADE[name]
    if name.endswith(".ipynb"):
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not broken(text, name.rpartition("/")[0])


@pytest.mark.parametrize("path", sorted((ROOT / "workshop").glob("*.md")), ids=lambda path: path.name)
def test_every_link_of_the_workshop_leads_to_a_file(path):
    assert not broken(path.read_text(encoding="utf-8"), "workshop")


def test_the_search_for_broken_links_can_fail():
    assert broken("[a](START.md) [b](http://x.y) [c](../nowhere.md#d)", "notebooks") == ["../nowhere.md"]


def test_the_landing_page_lists_every_notebook_with_its_minutes():
    page = MADE["notebooks/START.md"]
    for card in CARDS:
        row = next(line for line in page.splitlines() if line.startswith(f"| [{card.name[:2]} {card.title}]"))
        minutes = sum(exercise.minutes for exercise in card.exercises)
        assert f"| {card.reading} min | {minutes} min |" in row and f"../workshop/student/{card.name}" in row
    assert page.count("CDT_PROFILE") == 1


def test_the_exercise_table_lists_every_exercise_once_and_stays_a_table():
    rows = [line for line in MADE["workshop/exercises.md"].splitlines() if re.match(r"\| \d", line)]
    assert [row.split()[1] for row in rows] == [exercise.number for exercise in all_exercises()]
    bar = replace(CARDS[0].exercises[0], properties=[Property("a | b", lambda answer: (1, 1), "")])
    rows += pages.LOOKS.exercises([replace(CARDS[0], exercises=(bar,))]).splitlines()[-2:-1]
    assert "a \\| b" in rows[-1]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 8 for row in rows)


@each_day
def test_a_day_fits_its_hours_and_nobody_works_two_hours_without_a_break(day):
    assert sum(minutes for minutes, _, _ in day["planned"]) <= day["last"] - day["first"]
    since = 0
    for minutes, text, _ in day["planned"]:
        since = 0 if text in ("Break", "Lunch") else since + minutes
        assert since <= 120 + 15, text


@each_day
def test_a_notebooks_minutes_are_its_cards_and_its_exercises(day):
    minutes = {exercise.number: exercise.minutes for exercise in all_exercises()}
    by_number = {card.name[:2]: card for card in CARDS}
    for (what, more), (planned, _, parts) in zip(day["lines"], day["planned"], strict=True):
        if isinstance(more, int):
            assert planned == more
            continue
        chosen = [n for n in minutes if n.split(".")[0].zfill(2) == what] if more == "all" else more.split()
        extra = -(-by_number[what].seconds // 60) + pages.QUIZ if chosen else 0
        assert planned == by_number[what].reading + sum(minutes[n] for n in chosen) + extra
        assert planned == sum(map(int, re.findall(r"\d+", parts)))


def test_printed_times_follow_from_printed_minutes():
    rows = re.findall(r"^\| (\d+):(\d\d) \| (-?\d+) \|", MADE["workshop/schedules.md"], re.MULTILINE)
    assert len(rows) > 30
    for (h, m, minutes), (h2, m2, _) in itertools.pairwise(rows):
        after = int(h) * 60 + int(m) + int(minutes)
        assert after == int(h2) * 60 + int(m2) or (h2, m2) == ("9", "00")
    assert all(int(minutes) >= 0 for _, _, minutes in rows)


def test_two_days_leave_no_exercise_out_and_a_wrong_number_is_refused():
    lines = [line for name, day in DAYS if name.startswith("Two days") for line in day["lines"]]
    assert [what for what, more in lines if more == "all"] == [card.name[:2] for card in CARDS]
    with pytest.raises(CDTError, match=r"no exercise '3\.9'"):
        pages.planned("03", "3.9", CARDS)
