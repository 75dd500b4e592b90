"""tools/environment.py: what it would install where, without installing anything."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import environment

PYTHON = Path("bin/python")

# ---- which build of torch, and how it is installed


class Calls(list):
    """What would be run; a command fails that holds one of the words in `failing`."""

    failing = ("uv",)

    def fault(self, *command):
        self.append(list(command))
        return "it failed" if set(self.failing) & set(command) else ""

    def of_pip(self):
        return [command[3:-2] for command in self if command[1:3] == ["-m", "pip"]]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Nothing is run; the machine is one with Linux and without uv and an NVIDIA driver."""
    found = Calls()
    monkeypatch.setattr(environment, "fault", found.fault)
    monkeypatch.setattr(environment, "NVIDIA", tmp_path / "none")
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    for name in ("CDT_TORCH", "CDT_WHEELS", "PIP_NO_INDEX", "PIP_FIND_LINKS", "CDT_LITE_MIRROR"):
        monkeypatch.setenv(name, "")  # so that what the code sets is taken back after the test
        monkeypatch.delenv(name)
    return found


CPU = "torch==2.13.0+cpu"
INDEX = ["--extra-index-url", environment.TORCH_CPU_INDEX]
PROJECT = ["install", "-e", ".[test]", "-c", "constraints.txt"]


def test_the_cpu_build_is_taken_from_where_pip_looks_before_anything_that_would_pull_torch(calls):
    environment.install(PYTHON, "test")
    assert calls.of_pip() == [["install", CPU], PROJECT]


def test_else_the_cpu_build_comes_from_pytorchs_own_index_and_never_cuda(calls):
    calls.failing = ("uv", CPU)
    with pytest.raises(SystemExit, match="CDT_TORCH=default"):
        environment.install(PYTHON, "test")
    assert calls.of_pip() == [["install", CPU], ["install", CPU, *INDEX]]


@pytest.mark.parametrize("where", ["Darwin", "Windows", "nvidia", "default"])
def test_elsewhere_the_plain_build_is_taken(calls, monkeypatch, where):
    if where == "nvidia":
        environment.NVIDIA.touch()
    elif where == "default":
        monkeypatch.setenv("CDT_TORCH", "default")
    else:
        monkeypatch.setattr(environment.platform, "system", lambda: where)
    environment.install(PYTHON, "test")
    assert calls.of_pip() == [["install", "torch==2.13.0"], PROJECT]
    assert where != "default" or not [command for command in calls if command[0] == "uv"]


def test_a_rooms_wheels_hold_the_cpu_build_even_where_there_is_a_driver(calls):
    environment.NVIDIA.touch()
    environment.pip_with_torch(PYTHON, "download", cpu=True)
    assert calls.of_pip() == [["download", CPU]]


def test_uv_does_it_in_one_go_where_it_is_at_hand(calls):
    calls.failing = ()
    environment.install(PYTHON, "test")
    uv = ["uv", "pip", "install", "--python", str(PYTHON), "--torch-backend=auto"]
    assert calls == [uv + PROJECT[1:]]


def test_a_project_that_cannot_be_installed_ends_with_pips_last_lines(calls):
    calls.failing = ("uv", "-e")
    with pytest.raises(SystemExit, match=r"could not install the project\. Its last lines:\nit failed"):
        environment.install(PYTHON, "test")


@pytest.mark.parametrize(("code", "said"), [("print(1)", ""), ("raise SystemExit('no space left')", "no space left")])
def test_a_command_that_fails_tells_its_last_lines(code, said):
    assert said in environment.fault(sys.executable, "-c", code)
    assert bool(environment.fault(sys.executable, "-c", code)) == bool(said)
    assert environment.fault("no-such-command")


# ---- the virtual environment


@pytest.mark.parametrize("maker", ["uv", "venv", "virtualenv"])
def test_the_first_way_that_works_makes_the_environment_with_this_python(calls, monkeypatch, tmp_path, maker):
    made = []

    def fault(*command):
        if maker in command:
            made.append(command)
        return "" if made else "it failed"

    monkeypatch.setattr(environment, "fault", fault)
    assert environment.make_venv(tmp_path / "new") == environment.venv_python(tmp_path / "new")
    assert sys.executable in made[0] and made[0][-2:] == ("--clear", str(tmp_path / "new"))


def test_no_way_at_all_ends_in_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "fault", lambda *command: "it failed")
    with pytest.raises(SystemExit, match=r"python3\.\d+-venv.*virtualenv or uv"):
        environment.make_venv(tmp_path / "none")


def test_a_folder_that_is_no_environment_is_never_cleared(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(SystemExit, match="not a virtual environment"):
        environment.make_venv(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_windows_keeps_python_elsewhere(tmp_path):
    assert environment.venv_python(tmp_path, "Windows") == tmp_path / "Scripts" / "python.exe"
    assert environment.venv_python(tmp_path, "Linux") == tmp_path / "bin" / "python"


# ---- the stamp


@pytest.mark.parametrize("name", environment.MADE_FROM)
def test_the_stamp_changes_with_what_is_installed_and_only_then(tmp_path, name):
    (tmp_path / "cdt_lite").mkdir()
    for file in (*environment.MADE_FROM, "README.md"):
        shutil.copy(environment.ROOT / file, tmp_path / file)
    before = environment.stamp(tmp_path)
    (tmp_path / "README.md").write_text("other", encoding="utf-8")
    assert environment.stamp(tmp_path) == before
    with (tmp_path / name).open("a", encoding="utf-8") as file:
        file.write("\n# a change\n")
    assert environment.stamp(tmp_path) != before


@pytest.fixture
def made(calls, tmp_path, monkeypatch):
    """An environment that is never really made: its Python, and the notes of two packages, appear as they would."""
    folder = tmp_path / "venv"
    notes = folder / "lib" / "python3.11" / "site-packages"

    def make(folder, fresh=False):
        calls.append(["made anew" if fresh else "made"])
        for name in ("numpy-2.0.dist-info", "torch-2.13.0.dist-info"):
            (notes / name).mkdir(parents=True, exist_ok=True)
        python = environment.venv_python(folder)
        python.parent.mkdir(exist_ok=True)
        python.touch()
        return python

    monkeypatch.setenv("CDT_VENV", str(folder))
    monkeypatch.setattr(environment, "make_venv", make)
    monkeypatch.setattr(environment, "claim", lambda folder: None)
    return notes


def test_a_second_call_installs_nothing_and_an_interrupted_first_one_is_finished(calls, made):
    calls.failing = ("uv", "-e")
    with pytest.raises(SystemExit, match="it failed"):
        environment.set_up()
    calls.failing = ()
    python = environment.set_up()
    calls.clear()
    assert environment.set_up() == python == environment.venv_python(made.parents[2]) and not calls


def test_a_package_that_is_missing_is_noticed_and_installed(calls, made):
    environment.set_up()
    (made / "numpy-2.0.dist-info").rmdir()
    (made / "more-1.0.dist-info").mkdir()  # the learner's own is nobody's business
    calls.clear()
    environment.set_up()
    assert ["made"] in calls and [command for command in calls if "install" in command]
    calls.clear()
    environment.set_up()
    assert not calls


def test_an_environment_is_made_anew_when_asked(calls, made):
    environment.set_up()
    calls.clear()
    environment.set_up(fresh=True)
    assert ["made anew"] in calls


def test_a_fresh_environment_takes_the_place_of_one_that_works(calls, tmp_path):
    calls.failing = ()
    environment.make_venv(tmp_path)
    assert not [command for command in calls if "--clear" in command]
    environment.make_venv(tmp_path, fresh=True)
    assert calls[-2][-2:] == ["--clear", str(tmp_path)]


# ---- what stands in the way


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"cannot write into .*venv \(Not a directory\).*CDT_VENV"):
        environment.claim(tmp_path / "file" / "venv")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_full_disk_and_a_read_only_one_are_told_apart(monkeypatch, tmp_path, error):
    def refuse(dir):
        raise error

    monkeypatch.setattr(environment.tempfile, "TemporaryFile", refuse)
    with pytest.raises(SystemExit, match=rf"cannot write into .* \({error.strerror}\)"):
        environment.claim(tmp_path / "venv")


@pytest.mark.parametrize("said", ["No space left on device (os error 28)", "There is not enough space on the disk"])
def test_a_disk_that_fills_up_is_not_taken_for_a_missing_build_of_torch(said):
    with pytest.raises(SystemExit, match=rf"(?s)the disk is full.*{re.escape(said)}"):
        environment.fault(sys.executable, "-c", f"raise SystemExit({said!r})")


CLAIM = """
import sys, time
from pathlib import Path
from tools import environment
environment.claim(Path(sys.argv[1]))
print("mine", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(environment.os.name != "posix", reason="only there a folder can be held")
def test_of_two_runs_at_once_the_second_is_told_and_none_stays_in_the_way(tmp_path):
    folder = tmp_path / "venv"
    command = [sys.executable, "-c", CLAIM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=environment.ROOT) as first:
        assert first.stdout.readline() == "mine\n"
        with pytest.raises(SystemExit, match="another run is making"):
            environment.claim(folder)
        first.kill()
    environment.claim(folder)
    assert not list(tmp_path.rglob("*.lock")) and not list(folder.iterdir())


# ---- a folder of wheels


def test_a_folder_of_wheels_keeps_pip_off_the_network(calls, tmp_path):
    (tmp_path / "a-1-py3-none-any.whl").touch()
    (tmp_path / "cells.rda").touch()
    environment.use_wheels(str(tmp_path))
    variables = environment.child_variables(PYTHON, "ci")
    assert variables["PIP_NO_INDEX"] == "1"
    assert variables["PIP_FIND_LINKS"] == tmp_path.as_uri() and variables["CDT_LITE_MIRROR"] == str(tmp_path)
    environment.install(PYTHON, "test")
    assert not [command for command in calls if command[0] == "uv"]  # which would not know of it


def test_a_folder_without_wheels_is_refused(calls, tmp_path):
    with pytest.raises(SystemExit, match=r"run\.py wheels"):
        environment.use_wheels(str(tmp_path))
    environment.use_wheels("")
    assert "PIP_NO_INDEX" not in environment.os.environ


@pytest.mark.parametrize("name", ["wheels", "wheels on a stick"])
def test_wheels_for_another_python_are_named_when_pip_fails(calls, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "a-1-py3-none-any.whl").touch()
    environment.use_wheels(str(folder))
    assert " " not in environment.os.environ["PIP_FIND_LINKS"] and environment.made_for() == ""
    (folder / "MADE_FOR.txt").write_text("Linux x86_64, Python 3.9.1\n", encoding="utf-8")
    calls.failing = ("-e",)
    with pytest.raises(SystemExit, match=r"made for Linux x86_64, Python 3\.9\.1, and this is"):
        environment.install(PYTHON, "test")
    (folder / "MADE_FOR.txt").write_text(environment.kind(), encoding="utf-8")
    assert environment.made_for() == ""


def test_filling_a_folder_leaves_the_project_itself_out_and_says_what_it_is_for(calls, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environment, "fetch_public", lambda folder: "no cells")
    (tmp_path / "cdt_lite-0.1.0-py3-none-any.whl").touch()
    (tmp_path / "numpy-1-py3-none-any.whl").touch()
    assert environment.fill_wheels(PYTHON, str(tmp_path)) == 0
    assert calls.of_pip()[0][:3] == ["download", "--dest", str(tmp_path)] and CPU in calls.of_pip()[0]
    assert (tmp_path / "MADE_FOR.txt").read_text(encoding="utf-8").strip() == environment.kind()
    assert "1 wheels; no cells" in capsys.readouterr().out and not list(tmp_path.glob("cdt*"))


def test_the_room_gets_the_real_cells_checked(monkeypatch, tmp_path, real_screen_dir):
    monkeypatch.setenv("CDT_LITE_MIRROR", str(real_screen_dir))
    assert environment.fetch_public(tmp_path).startswith("papalexi2021: ")
    assert {path.name for path in tmp_path.iterdir()} == {"lowmoi_example_data.rda", "default_gene_sets.json"}
    file = next(tmp_path.glob("*.rda"))
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setenv("CDT_LITE_MIRROR", str(tmp_path))
    (tmp_path / "new").mkdir()
    assert "damaged" in environment.fetch_public(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["default_gene_sets.json"]


@pytest.mark.parametrize(("own", "wanted"), [
    ({}, ("PASSIVE", "1000")),
    ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
])
def test_threads_of_openmp_that_wait_soon_sleep_unless_told_otherwise(monkeypatch, own, wanted):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    variables = environment.child_variables(PYTHON, "ci")
    assert (variables["OMP_WAIT_POLICY"], variables.get("GOMP_SPINCOUNT")) == wanted
