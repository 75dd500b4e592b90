"""run.py: what it decides, without installing anything."""

import ast
import subprocess
import sys

import pytest

import run
from tools import environment


def refused_call(*_):
    raise AssertionError("this must not be asked")


# ---- the Python that runs it


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 0), (3, 10, 14)])
def test_an_older_python_is_refused_with_both_versions_named(version):
    message = run.python_refusal(version)
    assert "3.11" in message and f"{version[0]}.{version[1]}" in message


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (4, 0, 0)])
def test_python_3_11_and_newer_are_taken(version):
    assert run.python_refusal(version) == ""


def test_the_refusal_comes_before_anything_else(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(environment, "set_up", refused_call)
    with pytest.raises(SystemExit, match=r"needs Python 3\.11"):
        run.main([])


@pytest.mark.parametrize("name", ["run.py", "tools/environment.py"])
def test_run_py_imports_the_standard_library_only(name):
    tree = ast.parse((environment.ROOT / name).read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names | {"tools"}


# ---- the command line


@pytest.mark.parametrize(("arguments", "command", "rest"), [
    ([], "notebooks", []),
    (["test", "-k", "mask", "tests/test_run.py"], "test", ["-k", "mask", "tests/test_run.py"]),
    (["lab", "--no-browser"], "lab", ["--no-browser"]),
    (["browser", "00", "03"], "browser", ["00", "03"]),
    (["wheels", "stick"], "wheels", ["stick"]),
    (["setup", "--fresh"], "setup", []),
])
def test_arguments_go_where_they_belong(arguments, command, rest):
    options, left = run.parse(arguments)
    assert (options.command, left) == (command, rest)


@pytest.mark.parametrize("arguments", [["--wirte"], ["notebook"], ["--profile", "huge"], ["copies", "03"]])
def test_a_misspelt_argument_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        run.parse(arguments)
    assert "usage" in capsys.readouterr().err


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What run.py would start: commands and their variables, nothing installed; mypy fails."""
    found = []

    def call(command, cwd, env):
        found.append((command, env))
        return int("mypy" in command)

    monkeypatch.setattr(environment, "set_up", lambda fresh: tmp_path / "bin" / "python")
    monkeypatch.setattr(environment, "install", lambda python, extras: found.append(([extras], {})))
    monkeypatch.setattr(run.subprocess, "call", call)
    monkeypatch.setattr(run, "no_network", lambda: ["blocked"])
    monkeypatch.delenv("CDT_PROFILE", raising=False)
    return found


@pytest.mark.parametrize(("arguments", "given", "profile"), [
    (["test"], "", "ci"),
    (["trial"], "", "ci"),
    ([], "", "laptop"),
    ([], "gpu", "gpu"),
    (["--profile", "ci"], "gpu", "ci"),
])
def test_profile_is_the_argument_else_the_variable_else_the_commands_own(
    monkeypatch, started, arguments, given, profile
):
    monkeypatch.setenv("CDT_PROFILE", given)
    run.main(arguments)
    assert {variables["CDT_PROFILE"] for _, variables in started} == {profile}


def test_all_steps_run_and_one_failure_fails_the_whole(started, capsys):
    assert run.main(["test"]) == 1
    assert [command[2] for command, _ in started] == ["ruff", "mypy", "pytest", "pytest", "-m"]
    assert started[4][0][0] == "blocked" and started[4][0][-1] == "workshop"
    assert [variables.get("CDT_STRICT") for _, variables in started] == [None, None, None, "1", None]
    assert all(variables["CDT_LITE_PROGRESS"] for _, variables in started)
    assert "failed: mypy" in capsys.readouterr().out


PLACE = f"--ServerApp.root_dir={environment.ROOT} --LabApp.default_url=/lab/tree/notebooks/START.md"


@pytest.mark.parametrize(("arguments", "words"), [
    (["lab", "--no-browser"], f"jupyterlab --allow-root {PLACE} --no-browser"),
    (["test", "-k", "mask"], "pytest -k mask"),
    (["copies"], "tools.copies"),
    (["--write", "--only", "03"], "tools.execute 03 --write"),
    (["--budget", "--profile", "ci"], "tools.execute 0 --budget"),
    (["trial"], "pytest tests/trial.py -q -s -k workshop"),
    (["trial", "student/00", "notebooks"], "pytest tests/trial.py -q -s -k student/00 or notebooks"),
    (["browser", "03"], "pytest tests/visit.py -q -s -k 03"),
    (["site"], "pytest tests/crawl.py -q"),
])
def test_every_command_calls_its_tool(started, arguments, words):
    assert run.main(arguments) == 0
    command = started[-1][0]
    assert " ".join(command[command.index("-m") + 1 :]) == words
    assert (command[0] == "blocked") == (arguments[0] == "trial")
    for word in words.split():
        assert not word.startswith("tests/") or (environment.ROOT / word).is_file()


@pytest.mark.parametrize("arguments", [["setup"], ["setup", "--fresh"]])
def test_the_environment_is_made_anew_when_asked(monkeypatch, tmp_path, arguments):
    asked = []
    monkeypatch.setattr(environment, "set_up", lambda fresh: asked.append(fresh) or tmp_path)
    assert run.main(arguments) == 0 and asked == ["--fresh" in arguments]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_folder_of_wheels_is_named_by_argument_or_variable(started, monkeypatch, tmp_path, how):
    found = []
    monkeypatch.setattr(environment, "use_wheels", found.append)
    if how == "variable":
        monkeypatch.setenv("CDT_WHEELS", "stick")
    run.main(["copies", "--wheels", "stick"] if how == "argument" else ["copies"])
    assert found == ["stick"]


@pytest.mark.parametrize(("command", "extra"), [("browser", "browser"), ("site", "docs")])
def test_browser_and_site_bring_their_own_extra(started, command, extra):
    run.main([command])
    assert started[0][0] == [f"notebooks,figures,test,{extra}"]


def test_the_site_is_built_before_it_is_crawled(started):
    run.main(["site"])
    assert [command[2] for command, _ in started[1:]] == ["tools.site", "pytest"]


# ---- no network

TRY = """
import socket
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname(), timeout=5).close()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except OSError as error:
    print("refused")
"""


def test_a_blocked_command_reaches_this_machine_and_nothing_else():
    before = run.no_network()
    if not before:
        pytest.skip("this system makes no network namespace")
    done = subprocess.run([*before, sys.executable, "-c", TRY], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n", done.stderr
    assert subprocess.run([*before, sys.executable, "-c", "raise SystemExit(3)"]).returncode == 3


def test_where_the_network_cannot_be_blocked_one_line_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.no_network() == []
    assert capsys.readouterr().out.count("\n") == 1
