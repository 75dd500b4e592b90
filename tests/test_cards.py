"""Budgets in the title cards: filled by the tool from what was measured, and true of the notebooks that are tracked."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cdt_lite.teaching.check import all_exercises
from tools import cards
from tools.copies import sources

CARD = "# 03 · Diffusion\n\nA promise.\n\n<!-- budget -->\nto be measured\n<!-- /budget -->\n\nYou need a cell."
LAPTOP = cards.Measured("laptop", 96.4, 1.234, "2026-11-24, 2 cores")
CI = cards.Measured("ci", 31.0, 0.9, "2026-11-25, 2 cores")


def notebook(words=900):
    return new_notebook(cells=[
        new_markdown_cell(CARD), new_markdown_cell("word " * words), new_code_cell("x = 'not prose'"),
        new_markdown_cell("note " * 900, metadata={"tags": ["instructor"]}),
        new_markdown_cell("<details><summary>Hint 1</summary>" + "hint " * 900 + "</details>")])


def test_a_card_is_filled_and_reads_back():
    n = notebook()
    assert cards.fill(n, "03_diffusion.ipynb", LAPTOP, executed=True)
    source = n.cells[0].source
    card = cards.read(source)
    assert card.reading == 5  # 900 words and a card of 10, at 200 a minute, rounded up
    assert card.exercises == sum(e.minutes for e in all_exercises() if e.number.startswith("3."))
    assert card.rows == {"laptop": cards.Measured("laptop", 96, 1.2, "2026-11-24, 2 cores")}
    assert "profile laptop, 2026-11-24" in card.executed and "torch" in card.executed
    assert source.startswith("# 03 · Diffusion\n\nA promise.\n\n<!-- budget -->\n| to read")
    assert source.endswith("<!-- /budget -->\n\nYou need a cell.") and "| ci | not measured | | |" in source
    assert "1.4 MB, once" in source


def test_another_profile_leaves_the_first_ones_row_and_outputs_alone():
    n = notebook()
    cards.fill(n, "03_diffusion.ipynb", LAPTOP, executed=True)
    before = cards.read(n.cells[0].source)
    cards.fill(n, "03_diffusion.ipynb", CI, executed=False)
    after = cards.read(n.cells[0].source)
    assert after.rows["laptop"] == before.rows["laptop"] and after.executed == before.executed
    assert after.rows["ci"].seconds == 31 and list(after.rows) == ["ci", "laptop"]


def test_filling_twice_changes_nothing():
    n = notebook()
    cards.fill(n, "03_diffusion.ipynb", LAPTOP, executed=True)
    first = n.cells[0].source
    cards.fill(n, "03_diffusion.ipynb", LAPTOP, executed=True)
    assert n.cells[0].source == first and first.count("<!-- budget -->") == 1


def test_a_notebook_without_a_block_is_left_alone():
    n = new_notebook(cells=[new_markdown_cell("# a title")])
    assert not cards.fill(n, "03_diffusion.ipynb", LAPTOP, executed=True) and n.cells[0].source == "# a title"
    assert not cards.fill(new_notebook(), "03_diffusion.ipynb", LAPTOP, executed=True)


def test_what_is_not_measured_reads_as_missing():
    card = cards.read("<!-- budget -->\n| ci | to be measured | | |\n<!-- /budget -->")
    assert card == cards.Card(0, 0, {}, "") == cards.read("")


def test_badges_stay_out_until_there_is_an_address(monkeypatch):
    assert cards.badges("", "03_diffusion.ipynb") == cards.badges("https://example.org/a", "03_diffusion.ipynb") == ""
    badge = cards.badges("https://github.com/someone/cdt-lite", "03_diffusion.ipynb")
    assert badge.startswith("[![Open in Colab](") and "github/someone/cdt-lite/blob/main/notebooks/03_d" in badge
    monkeypatch.setattr(cards, "repository", lambda: "https://github.com/someone/cdt-lite")
    n = notebook()
    cards.fill(n, "03_diffusion.ipynb", LAPTOP, executed=True)
    assert "Open in Colab" in n.cells[0].source and cards.read(n.cells[0].source).reading == 5


# ---- the tracked notebooks

TRACKED = {path.name: nbformat.read(path, as_version=4) for path in sources()}


@pytest.mark.parametrize("name", TRACKED)
def test_the_minutes_are_those_of_the_text_and_the_exercises(name):
    card = cards.read(TRACKED[name].cells[0].source)
    assert abs(card.reading - cards.minutes_to_read(TRACKED[name])) <= 1, "python3 run.py --budget writes it again"
    assert card.exercises == cards.minutes_of_exercises(name[:2])


@pytest.mark.parametrize("name", TRACKED)
def test_time_and_memory_are_measured_and_within_the_budget(name):
    card = cards.read(TRACKED[name].cells[0].source)
    assert {"ci", "laptop"} <= set(card.rows), "run.py --write and run.py --budget --profile ci measure them"
    assert card.rows["ci"].seconds <= 60 and all(row.gigabytes <= 3 for row in card.rows.values())
    assert "profile laptop" in card.executed, "the tracked outputs are those of the laptop profile"


def test_the_series_takes_twelve_minutes_on_a_laptop():
    rows = [cards.read(n.cells[0].source).rows.get("laptop") for n in TRACKED.values()]
    assert sum(row.seconds for row in rows if row) <= 12 * 60
