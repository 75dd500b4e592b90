"""Budgets in the title cards: filled by the tool from what was measured, and true of the notebooks that are tracked."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cdt_lite.teaching.check import all_exercises
from tools import pages
from tools.copies import sources

NAME = "03_diffusion.ipynb"
CARD = (
    "# 03 · Diffusion: masks\n\n**In this notebook\nyou hide genes.** More.\n\n"
    "<!-- budget -->\nto be measured\n<!-- /budget -->\n\nYou need a cell."
)


@pytest.fixture
def notebook():
    return new_notebook(cells=[
        new_markdown_cell(CARD),
        new_markdown_cell("word " * 900),
        new_code_cell("x = 'not prose'"),
        new_markdown_cell("<details><summary>Hint 1</summary>" + "hint " * 900 + "</details>"),
    ])


def fill(notebook, profile, seconds, executed=True):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDT_PROFILE", profile)
        pages.fill(notebook, NAME, seconds, 1.234, executed)
    return notebook.cells[0].source


def row(source, profile):
    return re.search(rf"^\| {profile} \|.*$", source, re.MULTILINE)[0]


def test_a_card_is_filled_and_reads_back(notebook):
    source = re.sub(r"(\[!\[Open in .*\n)+\n", "", fill(notebook, "laptop", 96.4))  # badges, once there is an address
    card = pages.read(NAME, notebook)
    assert (card.title, card.promise) == ("Diffusion: masks", "In this notebook you hide genes.")
    assert card.seconds == 96 and card.reading == 5  # 900 words and those of the card, at 200 a minute, rounded up
    assert [e.number for e in card.exercises] == [e.number for e in all_exercises() if e.number.startswith("3.")]
    minutes = sum(exercise.minutes for exercise in card.exercises)
    assert f"<!-- budget -->\n| to read | exercises | to download |\n|---|---|---|\n| 5 min | {minutes} min |" in source
    assert "1.4 MB, once" in source and "The outputs below: profile laptop, " in source and "torch" in source
    assert row(source, "laptop").startswith("| laptop | 96 s | 1.2 GB | 20")
    assert row(source, "ci") == "| ci | not measured | | |"
    assert source.startswith(CARD.split("<!--")[0]) and source.endswith("<!-- /budget -->\n\nYou need a cell.")


def test_another_profile_leaves_the_first_ones_row_and_outputs_alone(notebook):
    before = fill(notebook, "laptop", 96.4)
    after = fill(notebook, "ci", 31.0, executed=False)
    assert row(after, "ci").startswith("| ci | 31 s |")
    assert after.replace(row(after, "ci"), "| ci | not measured | | |") == before


def test_filling_twice_changes_nothing(notebook):
    assert fill(notebook, "laptop", 96.4) == fill(notebook, "laptop", 96.4)


def test_a_notebook_without_marks_is_left_alone():
    assert fill(new_notebook(cells=[new_markdown_cell("# a title")]), "ci", 1.0) == "# a title"


@pytest.mark.parametrize(("address", "shown"), [
    ("", False), ("https://example.org/a", False), ("https://github.com/someone/cdt-lite/", True),
])
def test_badges_stay_out_until_there_is_an_address(notebook, monkeypatch, tmp_path, address, shown):
    (tmp_path / "cdt_lite" / "data").mkdir(parents=True)
    (tmp_path / "cdt_lite" / "data" / "manifest.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(f'[tool.cdt-lite]\nrepository = "{address}"', encoding="utf-8")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    source = fill(notebook, "laptop", 96.4)
    assert ("[![Open in Colab](" in source) == shown
    assert ("github/someone/cdt-lite/blob/main/notebooks/03_d" in source) == shown
    assert fill(notebook, "laptop", 96.4) == source and pages.read(NAME, notebook).reading == 5


def test_what_is_folded_or_code_is_no_prose():
    text = "one <b>two</b> [three](http://x.y/z) <details>4\n5</details>\n```python\nsix = 6\n```\n|---|---|\n| seven |"
    assert pages.prose(text).split() == ["one", "two", "[three", "seven"]


# ---- the tracked notebooks

TRACKED = {path.name: nbformat.read(path, as_version=4) for path in sources()}


@pytest.mark.parametrize("name", TRACKED)
def test_the_minutes_are_those_of_the_text_and_the_exercises(name):
    card = pages.read(name, TRACKED[name])
    told = re.search(r"^\| (\d+) min \| (\d+) min \|", TRACKED[name].cells[0].source, re.MULTILINE)
    assert abs(int(told[1]) - card.reading) <= 1, "python3 run.py --budget writes it again"
    assert int(told[2]) == sum(exercise.minutes for exercise in card.exercises)


@pytest.mark.parametrize("name", TRACKED)
def test_time_and_memory_are_measured_and_within_the_budget(name):
    source = TRACKED[name].cells[0].source
    rows = re.findall(r"^\| (\w+) \| (\d+) s \| ([\d.]+) GB \|", source, re.MULTILINE)
    seconds = {profile: int(taken) for profile, taken, _ in rows}
    assert {"ci", "laptop"} <= set(seconds), "run.py --write and run.py --budget --profile ci measure them"
    assert seconds["ci"] <= 60 and all(float(gigabytes) <= 3 for _, _, gigabytes in rows)
    assert "The outputs below: profile laptop" in source, "the tracked outputs are those of the laptop profile"


def test_the_series_takes_twelve_minutes_on_a_laptop():
    assert sum(pages.read(name, notebook).seconds for name, notebook in TRACKED.items()) <= 12 * 60
