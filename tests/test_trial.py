"""tests/trial.py: what the trial of a copy complains about, tried on tiny notebooks."""

import nbformat
import pytest
import trial
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import execute

STUB = "from cdt_lite.teaching import check\ncheck('0.1', lambda adata, gene: ...)"
BARE = "from IPython.display import display\ndisplay({'image/png': 'aGk='}, raw=True)"
ONCE = "import pathlib, time\nmark = pathlib.Path('../tried')\nif not mark.exists():\n    mark.touch()\n    "


def put(root, folder, *sources):
    path = root / folder / "00_a.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 00"), *map(new_code_cell, sources)]), path)
    return path


def test_a_stub_is_fine_for_a_student_and_a_fault_elsewhere(tmp_path):
    paths = [put(tmp_path, name, STUB) for name in ("student", "instructor")]
    before = paths[0].read_bytes()
    assert trial.try_one(paths[0]).problems == []
    assert "AssertionError" in trial.try_one(paths[1]).problems[0]
    assert paths[0].read_bytes() == before


def test_stderr_bare_pictures_and_paths_are_faults(tmp_path):
    path = put(tmp_path, "student", "import sys\nprint('oh', file=sys.stderr)", "print('/home/me/x')", BARE)
    found = " ".join(trial.try_one(path).problems)
    assert "stderr" in found and "alt text" in found and "path of a machine" in found


def test_a_kernel_that_stops_answering_gets_one_more_try(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "CELL_SECONDS", 2)
    assert trial.try_one(put(tmp_path, "student", ONCE + "time.sleep(60)")).problems == []
    (tmp_path / "tried").unlink()
    assert trial.try_one(put(tmp_path, "student", ONCE + "1 / 0")).failed  # an error is final
    always = trial.try_one(put(tmp_path, "student", "while True: pass"))
    assert "no answer" in always.problems[0]


def test_too_much_memory_or_time_is_a_fault(monkeypatch):
    monkeypatch.setenv("CDT_PROFILE", "ci")
    assert trial.over_budget(execute.Report("a", cpu_seconds=119, peak_mb=2999)) == []
    assert len(trial.over_budget(execute.Report("a", cpu_seconds=121, peak_mb=3001))) == 2
    monkeypatch.setenv("CDT_PROFILE", "laptop")
    assert trial.over_budget(execute.Report("a", cpu_seconds=999)) == []


@pytest.mark.parametrize("folder", trial.FOLDERS)
def test_every_folder_is_tried_whole(folder):
    names = [name for name in trial.NAMES if name.startswith(f"{folder}/")]
    assert [name.split("/")[-1][:2] for name in names] == [f"{k:02d}" for k in range(10)]
