"""tools/execute.py: runs notebooks, names what is wrong, leaves tracked files alone unless all is well."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import execute


def write(folder, name, *sources):
    notebook = new_notebook(cells=[new_markdown_cell("# a title"), *map(new_code_cell, sources)])
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(execute, "OUTPUT", tmp_path / "output")
    (tmp_path / "output").mkdir()
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def test_a_good_notebook_is_written_back_cleaned_and_measured(folder):
    path = write(folder, "00_good", "x = bytearray(300_000_000)", "import time\ntime.sleep(0.6)\nlen(x)")
    report = execute.run_one(path, write=True)
    assert report.problems == [] and not report.failed
    assert 300 < report.peak_mb < 1000 and 0.6 < report.seconds < 60 and report.cells == 2
    notebook = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert notebook.metadata.kernelspec.name == "python3" and "version" not in notebook.metadata.language_info
    assert all("execution" not in cell.metadata for cell in notebook.cells)


def test_the_first_failing_cell_ends_the_series_and_what_remained_is_named(folder, capsys):
    names = ["00_stderr", "01_fails", "02_after"]
    paths = [
        write(folder, names[0], "import sys\nprint('a warning', file=sys.stderr)"),
        write(folder, names[1], "a = 1", "a / 0", "print('never')"),
        write(folder, names[2], "1"),
    ]
    reports = execute.run_all(paths, write=False)
    assert [report.name for report in reports] == names and reports[2].problems == ["not run"]
    assert reports[0].problems == ["code cell 1 wrote to stderr: a warning"] and not reports[0].failed
    assert reports[1].failed and "code cell 2 failed with ZeroDivisionError" in reports[1].problems[0]
    assert "a / 0" in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in execute.table(reports).splitlines()]
    assert [(row[0], row[-1]) for row in rows[2:]] == [*zip(names, "111", strict=True), ("all", "3")]


def test_a_tracked_notebook_that_shows_a_path_is_not_overwritten(folder):
    path = write(folder, "00_path", "import os\nprint(os.getcwd())")
    before = path.read_bytes()
    assert execute.run_one(path, write=True).problems == ["code cell 1 shows a path of this machine"]
    assert path.read_bytes() == before and (execute.OUTPUT / path.name).exists()
    assert execute.run_one(path, write=False).problems == []  # a learner's own copy may


def test_a_cell_that_does_not_end_is_named_instead_of_waited_for(folder, monkeypatch):
    monkeypatch.setattr(execute, "CELL_SECONDS", 1)
    report = execute.run_one(write(folder, "00_endless", "1", "while True: pass"), write=True)
    assert report.failed and report.silent
    assert report.problems[0].startswith("code cell 2 failed with no answer from the kernel within 1 s")


def test_writing_fills_the_title_card_and_the_budget_alone_leaves_outputs_as_they_were(folder, monkeypatch):
    def fill(notebook, name, seconds, gigabytes, executed):
        notebook.cells[0].source = f"{name}, outputs {executed}, {seconds > 0 < gigabytes}"

    monkeypatch.setattr(execute.pages, "fill", fill)
    path = write(folder, "00_good", "print(6 * 7)")
    assert execute.run_one(path, write=False, budget=True).problems == []
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source == f"{path.name}, outputs False, True" and notebook.cells[1].outputs == []
    execute.run_one(path, write=True)
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source == f"{path.name}, outputs True, True"
    assert notebook.cells[1].outputs[0].text == "42\n"


CHECKED = "from cdt_lite.teaching import check\ncheck('0.1', lambda x, y: None)"


@pytest.mark.parametrize("mode", [{"write": True}, {"write": False, "budget": True}])
def test_a_check_that_fails_keeps_the_tracked_notebook(folder, mode):
    path = write(folder, "00_wrong", CHECKED)
    before = path.read_bytes()
    report = execute.run_one(path, **mode)
    assert report.failed and "AssertionError" in report.problems[0] and path.read_bytes() == before


def test_a_learners_run_may_fail_a_check_and_never_touches_the_record_of_progress(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CDT_LITE_PROGRESS", str(tmp_path / "mine"))
    monkeypatch.delenv("CDT_STRICT", raising=False)
    report = execute.run_one(write(folder, "00_wrong", CHECKED), write=False)
    assert not report.failed and report.problems == [] and not (tmp_path / "mine").exists()


def test_cleaning_keeps_pictures_and_takes_out_times_and_live_widgets():
    cell = new_code_cell("1", metadata={"execution": {"iopub.execute_input": "2026"}, "tags": ["keep"]})
    picture = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"})
    cell.outputs = [picture, widget]
    notebook = new_notebook(
        cells=[cell], metadata={"widgets": {"state": {}}, "kernelspec": {"name": "mine", "display_name": "Mine"}}
    )
    execute.clean(notebook)
    assert notebook.cells[0].outputs == [picture]
    assert notebook.cells[0].metadata == {"tags": ["keep"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_a_redrawn_bar_leaves_its_last_state_only(folder):
    bar = "import sys\nfor k in (0, 50, 100):\n    print(f'\\rbar {k}%', end='', flush=True)\nprint('\\ndone')"
    path = write(folder, "00_bar", bar)
    execute.run_one(path, write=False)
    cell = nbformat.read(execute.OUTPUT / path.name, as_version=4).cells[1]
    assert [(o.name, o.text) for o in cell.outputs] == [("stdout", "bar 100%\ndone\n")]
