"""Runs with the network blocked, and what the trial of a copy complains about."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import execute, offline, trial

TRY = """
import socket
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname(), timeout=5).close()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except OSError as error:
    print("refused:", type(error).__name__, "blocked" in str(error))
"""


def run(words, environment):
    return subprocess.run([*words, sys.executable, "-c", TRY], capture_output=True, text=True, env=environment,
                          timeout=60, check=False)


def test_the_guard_lets_loopback_through_and_nothing_else(tmp_path):
    environment = offline.variables(dict(os.environ), str(tmp_path), blocked=False)
    done = run([], environment)
    assert done.stdout == "refused: OSError True\n", done.stderr
    assert environment["CDT_LITE_OFFLINE"] == "1" and environment["CDT_LITE_DATA"] == str(tmp_path)


@pytest.mark.skipif(not offline.namespace(), reason="this system makes no network namespace")
def test_the_namespace_lets_loopback_through_and_nothing_else():
    done = run(offline.namespace(), dict(os.environ))
    assert done.stdout.startswith("refused: OSError") or done.stdout.startswith("refused: Timeout"), done.stderr


def test_the_mirror_and_the_cache_are_out_of_reach(tmp_path):
    before = {"CDT_LITE_MIRROR": "m", "CDT_LITE_DATA": "d", "PYTHONPATH": "p", "HOME": "h"}
    assert offline.variables(before, str(tmp_path), blocked=True) == {
        "CDT_LITE_DATA": str(tmp_path), "PYTHONPATH": "p", "HOME": "h"}
    assert offline.variables(before, str(tmp_path), blocked=False)["PYTHONPATH"].endswith(f"blocked{os.pathsep}p")


def test_the_best_way_comes_first_and_none_is_an_answer():
    asked = []
    assert offline.namespace(lambda command: asked.append(command[:3])) == []
    assert [words[:2] for words in asked] == [["unshare", "-n"], ["unshare", "-r"]]
    assert offline.namespace(lambda command: command[1] == "-r")[:3] == ["unshare", "-r", "-n"]


def test_the_exit_status_is_the_commands(monkeypatch):
    monkeypatch.setattr(offline, "namespace", lambda: [])
    assert offline.main([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    with pytest.raises(SystemExit, match="usage"):
        offline.main([])


# ---- the trial of copies


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(trial, "ROOT", tmp_path)
    for name in ("student", "instructor"):
        (tmp_path / name).mkdir()
    return tmp_path


def put(folder, *sources):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 00"), *map(new_code_cell, sources)]), folder / "00_a.ipynb")
    return folder / "00_a.ipynb"


STUB = "from cdt_lite.teaching.lesson import check\ncheck('0.1', lambda adata, gene: ...)"


def test_a_stub_is_fine_for_a_student_and_a_fault_elsewhere(folders):
    paths = {name: put(folders / name, STUB) for name in ("student", "instructor")}
    before = paths["student"].read_bytes()
    assert trial.try_one(paths["student"], "student").problems == []
    assert "AssertionError" in trial.try_one(paths["instructor"], "instructor").problems[0]
    assert paths["student"].read_bytes() == before


def test_stderr_bare_pictures_and_paths_are_faults(folders):
    path = put(folders / "student", "import sys\nprint('oh', file=sys.stderr)", "print('/home/me/x')",
               "from IPython.display import display\ndisplay({'image/png': 'aGk='}, raw=True)")
    found = " ".join(trial.try_one(path, "student").problems)
    assert "stderr" in found and "alt text" in found and "path of a machine" in found


def test_a_kernel_that_stops_answering_gets_one_more_try(folders, monkeypatch):
    monkeypatch.setattr(execute, "CELL_SECONDS", 2)
    mark = folders / "tried"
    once = "import pathlib, time\nmark = pathlib.Path('../tried')\nif not mark.exists():\n    mark.touch()\n    {}"
    path = put(folders / "student", once.format("time.sleep(60)"))
    assert trial.try_one(path, "student").problems == []
    mark.unlink()
    assert trial.try_one(put(folders / "student", once.format("1 / 0")), "student").failed  # an error is final
    always = trial.try_one(put(folders / "student", "while True: pass"), "student")
    assert "no answer" in always.problems[0]


def test_too_much_memory_or_time_is_a_fault(monkeypatch):
    monkeypatch.setenv("CDT_PROFILE", "ci")
    assert trial.over_budget(execute.Report("a", cpu_seconds=119, peak_mb=2999)) == []
    assert len(trial.over_budget(execute.Report("a", cpu_seconds=121, peak_mb=3001))) == 2
    monkeypatch.setenv("CDT_PROFILE", "laptop")
    assert trial.over_budget(execute.Report("a", cpu_seconds=999)) == []


def test_a_folder_without_notebooks_is_refused(folders):
    with pytest.raises(SystemExit, match="no notebook in nowhere"):
        trial.main(["nowhere"])


