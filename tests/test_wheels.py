"""A folder of wheels for rooms without a network: what is set, what is refused."""

import pytest

import run
from tools import environment, wheels


@pytest.fixture
def called(monkeypatch, tmp_path):
    """What run.py would start: environments of its commands, nothing installed."""
    found = []
    monkeypatch.setattr(environment, "set_up", lambda: tmp_path / "bin" / "python")
    monkeypatch.setattr(run.subprocess, "call", lambda command, cwd, env: found.append(env) or 0)
    return found


@pytest.fixture
def pip_variables(monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "CDT_LITE_MIRROR", "CDT_WHEELS"):
        monkeypatch.setenv(name, "")  # so that what the code sets is taken back after the test
        monkeypatch.delenv(name)


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_folder_of_wheels_keeps_pip_off_the_network(called, pip_variables, monkeypatch, tmp_path, how):
    (tmp_path / "a-1-py3-none-any.whl").touch()
    (tmp_path / "cells.rda").touch()
    if how == "variable":
        monkeypatch.setenv("CDT_WHEELS", str(tmp_path))
    run.main(["copies", "--wheels", str(tmp_path)] if how == "argument" else ["copies"])
    env = called[0]
    assert env["PIP_NO_INDEX"] == "1" and env["PIP_FIND_LINKS"] == str(tmp_path) == env["CDT_LITE_MIRROR"]


def test_a_folder_without_wheels_is_refused(pip_variables, tmp_path):
    with pytest.raises(SystemExit, match=r"run\.py wheels"):
        environment.use_wheels(str(tmp_path))
    environment.use_wheels("")
    assert "PIP_NO_INDEX" not in environment.os.environ


def test_wheels_for_another_python_are_named_when_pip_fails(pip_variables, monkeypatch, tmp_path):
    (tmp_path / "a-1-py3-none-any.whl").touch()
    environment.use_wheels(str(tmp_path))
    assert environment.made_for() == ""
    (tmp_path / "MADE_FOR.txt").write_text("Linux x86_64, Python 3.9.1\n", encoding="utf-8")
    assert "made for Linux x86_64, Python 3.9.1, and this is" in environment.made_for()
    (tmp_path / "MADE_FOR.txt").write_text(environment.kind(), encoding="utf-8")
    assert environment.made_for() == ""


def test_the_room_gets_the_real_cells_checked(monkeypatch, tmp_path, real_screen_dir):
    monkeypatch.setenv("CDT_LITE_MIRROR", str(real_screen_dir))
    assert "the real cells: " in wheels.fetch_screen(tmp_path)
    file = next(tmp_path.glob("*.rda"))
    file.write_bytes(file.read_bytes()[:-1])
    assert "damaged" in wheels.fetch_screen(tmp_path) and not file.exists()
