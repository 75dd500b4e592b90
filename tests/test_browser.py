"""tests/visit.py: what can be said about it without a browser. `python3 run.py browser` is the real trial."""

import inspect
import json
import os
import re
import subprocess
import sys

import pytest
import visit

from cdt_lite.teaching.check import find
from tools.copies import sources
from tools.environment import ROOT


def test_a_missing_browser_is_one_clear_line(monkeypatch):
    monkeypatch.delenv("CDT_BROWSER", raising=False)
    monkeypatch.setattr(visit.shutil, "which", lambda name: None)
    with pytest.raises(pytest.exit.Exception, match=r"no browser found.*apt-get install chromium.*CDT_BROWSER"):
        visit.find_browser()
    monkeypatch.setenv("CDT_BROWSER", "/nowhere/chrome")
    with pytest.raises(pytest.exit.Exception, match="/nowhere/chrome"):
        visit.find_browser()


def test_the_room_holds_copies_of_the_copies(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "old.txt").touch()
    visit.fill_room(tmp_path / "room")
    found = {path.name for path in (tmp_path / "room" / "workshop" / "student").glob("*.ipynb")}
    assert found == {path.name for path in sources()} and not (tmp_path / "room" / "old.txt").exists()
    assert (tmp_path / "room" / "notebooks" / "START.md").is_file()


def test_nothing_of_the_learners_own_is_read_or_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CDT_STRICT", "1")
    made = visit.variables(tmp_path)
    assert made["CDT_LITE_PROGRESS"] == str(tmp_path / "progress") and "CDT_STRICT" not in made
    written = list(tmp_path.rglob("*.jupyterlab-settings"))
    assert len(written) == len(visit.SETTINGS)
    assert all(json.loads(path.read_text(encoding="utf-8")) for path in written)


def test_every_call_is_a_function_of_the_script_and_none_is_idle():
    defined = set(re.findall(r"^  (\w+): (?:async )?\(", visit.SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))
    used = set(re.findall(r'call\("(\w+)"', inspect.getsource(visit)))
    inside = set(re.findall(r"cdt\.(\w+)\(", visit.SCRIPT.read_text(encoding="utf-8")))
    assert used and used <= defined <= used | inside


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_every_copy_has_an_exercise_that_can_be_answered_wrongly_in_two_ways(path):
    guest = visit.Visit(None, path)
    at, below = guest.index("exercise"), guest.index("check")
    number = str(guest.notebook.cells[at].metadata["exercise"])
    assert below > at and f'check("{number}", ' in guest.notebook.cells[below].source
    hints = set(visit.wrong_answers(number)[1].values())
    exercise, told = find(number), []
    for prop in exercise.properties:
        _, _, *faults = prop.run(exercise.reference)
        told += [prop.hint, *(faults[0] if faults else ())]
    assert len(hints) == 2 and all(hint.split(".")[0][:20] in " ".join(told) for hint in hints)


def test_problems_are_collected():
    guest = visit.Visit(None, sources()[0])
    guest.expect(True, "nothing")
    guest.expect(False, "something")
    assert guest.problems == ["something"]


def test_the_server_is_opened_by_nothing_that_can_be_guessed():
    code = "import visit; print(visit.TOKEN)"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "tests",
                           env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert len(visit.TOKEN) >= 32 and len(again.stdout.strip()) >= 32 and again.stdout.strip() != visit.TOKEN
