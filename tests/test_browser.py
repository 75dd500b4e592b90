"""tools/browser.py: what can be said about it without a browser. `python3 run.py browser` is the real trial."""

import importlib
import inspect
import json
import re
from types import SimpleNamespace

import nbformat
import pytest

from cdt_lite.teaching.check import find
from tools import browser
from tools.copies import sources


def test_a_missing_browser_is_one_clear_line(monkeypatch):
    monkeypatch.delenv("CDT_BROWSER", raising=False)
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"no browser found.*apt-get install chromium.*CDT_BROWSER"):
        browser.find_browser()
    monkeypatch.setenv("CDT_BROWSER", "/nowhere/chrome")
    with pytest.raises(SystemExit, match="/nowhere/chrome"):
        browser.find_browser()


def test_the_room_holds_copies_of_the_copies(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "old.txt").touch()
    browser.room(tmp_path / "room")
    found = {path.name for path in (tmp_path / "room" / "workshop" / "student").glob("*.ipynb")}
    assert found == {path.name for path in sources()} and not (tmp_path / "room" / "old.txt").exists()
    assert (tmp_path / "room" / "notebooks" / "START.md").is_file()


def test_every_call_is_a_function_of_the_script():
    script = (browser.ROOT / "tools" / "browser.js").read_text(encoding="utf-8")
    defined = set(re.findall(r"^  (\w+): (?:async )?\(", script, re.MULTILINE))
    used = set(re.findall(r'call\("(\w+)"', inspect.getsource(browser)))
    assert used and used <= defined
    assert all(isinstance(json.loads(text), dict) for text in browser.SETTINGS.values())


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_every_copy_has_an_exercise_that_can_be_answered_wrongly_in_two_ways(path):
    visit = browser.Visit(SimpleNamespace(), browser.ROOT / "workshop" / "student" / path.name)
    at = visit.index("exercise")
    number = str(visit.notebook.cells[at].metadata["exercise"])
    below = visit.index("check", exercise=number)
    assert below > at and f'check("{number}", ' in visit.notebook.cells[below].source
    module = importlib.import_module(f"exercises.ex_{number.replace('.', '_')}")
    wrong = [value for name, value in vars(module).items() if name.startswith("wrong_")][:2]
    hints = {inspect.getdoc(value) for value in wrong}
    told = " ".join(prop.hint for prop in find(number).properties)
    assert len(hints) == 2 and all(hint.split(".")[0][:20] in told for hint in hints)
    solved = nbformat.read(path, as_version=4)
    assert any(cell.id == visit.notebook.cells[at].id for cell in solved.cells)


def test_problems_are_collected():
    visit = browser.Visit(SimpleNamespace(), browser.ROOT / "workshop" / "student" / sources()[0].name)
    visit.expect(True, "nothing")
    visit.expect(False, "something")
    assert visit.problems == ["something"]
