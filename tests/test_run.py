"""run.py: what it decides, without installing anything."""

import shutil
import sys
from pathlib import Path

import pytest

import run
from tools import environment

FOLDER = Path("somewhere") / ".venv"


def refused_call():
    raise AssertionError("this must not be asked")


# ---- the Python that runs it


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 0), (3, 10, 14)])
def test_an_older_python_is_refused_with_both_versions_named(version):
    message = run.python_refusal(version)
    assert "3.11" in message and f"{version[0]}.{version[1]}" in message


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 14, 0), (4, 0, 0)])
def test_python_3_11_and_newer_are_taken(version):
    assert run.python_refusal(version) == ""


def test_the_refusal_comes_before_anything_else(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(environment, "set_up", refused_call)
    with pytest.raises(SystemExit, match=r"needs Python 3\.11"):
        run.main([])


@pytest.mark.parametrize("name", ["run.py", "tools/environment.py"])
def test_run_py_imports_the_standard_library_only(name):
    import ast

    tree = ast.parse((environment.ROOT / name).read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names | {"tools"}


# ---- which build of torch


def torch(**changes):
    situation = {
        "version": "2.13.0",
        "system": "Linux",
        "nvidia": False,
        "choice": "",
        "local": lambda: False,
        "reachable": lambda: True,
    }
    return environment.torch_arguments(**situation | changes)


def test_linux_without_a_driver_asks_the_cpu_index_for_the_cpu_build():
    assert torch() == ["torch==2.13.0+cpu", "--extra-index-url", environment.TORCH_CPU_INDEX]


def test_a_local_wheel_is_taken_without_asking_the_network():
    assert torch(local=lambda: True, reachable=refused_call) == ["torch==2.13.0+cpu"]


def test_an_unreachable_index_is_left_out_but_cuda_is_still_not_allowed():
    assert torch(reachable=lambda: False) == ["torch==2.13.0+cpu"]


@pytest.mark.parametrize(
    "changes", [{"system": "Darwin"}, {"system": "Windows"}, {"nvidia": True}, {"choice": "default"}]
)
def test_elsewhere_the_plain_build_is_taken_and_nothing_is_probed(changes):
    assert torch(local=refused_call, reachable=refused_call, **changes) == ["torch==2.13.0"]


def test_only_a_cpu_wheel_of_this_release_and_this_python_counts_as_local(tmp_path):
    configuration = f"global.index-url='x'\n:env:.find-links='{tmp_path}'\n"
    tag = "cp{}{}".format(*sys.version_info[:2])
    for other in (
        f"torch-2.12.0+cpu-{tag}-{tag}-linux.whl",
        f"torch-2.13.0-{tag}-{tag}-linux.whl",
        "torch-2.13.0+cpu-cp39-cp39-x.whl",
    ):
        (tmp_path / other).touch()
    assert not environment.local_torch("2.13.0", configuration)
    (tmp_path / f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_x86_64.whl").touch()
    assert environment.local_torch("2.13.0", configuration)
    assert not environment.local_torch("2.13.0", "global.index-url='x'")


def test_the_probe_answers_on_loopback_and_gives_up_quickly():
    import http.server
    import threading
    import time

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/good/torch/" else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert environment.index_answers(f"{address}/good")
        assert not environment.index_answers(f"{address}/bad")
        server.shutdown()
    begin = time.monotonic()
    assert not environment.index_answers(address, seconds=1)  # nobody listens any more
    assert time.monotonic() - begin < 2


# ---- the virtual environment


def recipes(*names, root=False):
    return [name for name, _ in environment.venv_recipes(FOLDER, root, lambda name: name in names)]


def test_ways_to_make_an_environment_come_in_order():
    assert recipes("ensurepip", "virtualenv", "uv", "apt-get", root=True) == ["venv", "virtualenv", "uv"]
    bare = recipes("apt-get", "virtualenv", "uv", root=True)
    assert bare[0].startswith("apt-get install") and bare[1:] == ["virtualenv", "uv"]
    assert recipes("apt-get", "uv") == ["uv"]  # without root the system is left alone
    assert recipes("apt-get") == []


def test_every_way_makes_the_same_folder_with_this_python():
    for _, commands in environment.venv_recipes(FOLDER, True, lambda name: True):
        assert str(FOLDER) in commands[-1] and sys.executable in commands[-1]


def test_a_folder_that_is_no_environment_is_never_cleared(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(SystemExit, match="not a virtual environment"):
        environment.make_venv(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_no_way_at_all_ends_in_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "have", lambda name: False)
    with pytest.raises(SystemExit, match="virtualenv or uv"):
        environment.make_venv(tmp_path / "none")


def test_windows_keeps_python_elsewhere():
    assert environment.venv_python(FOLDER, "Windows") == FOLDER / "Scripts" / "python.exe"
    assert environment.venv_python(FOLDER, "Linux") == FOLDER / "bin" / "python"


def test_cdt_venv_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CDT_VENV", str(tmp_path))
    assert environment.venv_folder() == tmp_path
    monkeypatch.delenv("CDT_VENV")
    assert environment.venv_folder() == environment.ROOT / ".venv"


# ---- the stamp


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_the_stamp_changes_with_what_is_installed_and_only_then(tmp_path, name):
    for file in ("pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(environment.ROOT / ("LICENSE" if file == "README.md" else file), tmp_path / file)
    before = environment.stamp(tmp_path)
    (tmp_path / "README.md").write_text("other", encoding="utf-8")
    assert environment.stamp(tmp_path) == before
    with (tmp_path / name).open("a", encoding="utf-8") as file:
        file.write("\n# a change\n")
    assert environment.stamp(tmp_path) != before


def test_a_second_call_installs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CDT_VENV", str(tmp_path))
    python = environment.venv_python(tmp_path)
    python.parent.mkdir()
    python.touch()
    (tmp_path / "cdt-lite.stamp").write_text(environment.stamp(), encoding="utf-8")
    monkeypatch.setattr(environment, "make_venv", refused_call)
    assert environment.set_up() == python


def test_a_failed_installation_leaves_no_stamp(tmp_path, monkeypatch):
    monkeypatch.setenv("CDT_VENV", str(tmp_path))
    monkeypatch.setattr(environment, "make_venv", environment.venv_python)
    monkeypatch.setattr(environment, "install_torch", lambda python: None)
    monkeypatch.setattr(environment, "pip", lambda *arguments: "no space left on device")
    with pytest.raises(SystemExit, match="no space left"):
        environment.set_up()
    assert not (tmp_path / "cdt-lite.stamp").exists()


# ---- the command line


@pytest.mark.parametrize(
    ("arguments", "command", "rest"),
    [
        ([], "notebooks", []),
        (["test"], "test", []),
        (["test", "-k", "mask", "tests/test_run.py"], "test", ["-k", "mask", "tests/test_run.py"]),
        (["lab", "--no-browser"], "lab", ["--no-browser"]),
        (["browser", "00", "03"], "browser", ["00", "03"]),
        (["trial", "notebooks"], "trial", ["notebooks"]),
        (["wheels", "stick"], "wheels", ["stick"]),
    ],
)
def test_arguments_go_where_they_belong(arguments, command, rest):
    options, left = run.parse(arguments)
    assert (options.command, left) == (command, rest)


@pytest.mark.parametrize("arguments", [["--wirte"], ["notebook"], ["--profile", "huge"], ["copies", "03"]])
def test_a_misspelt_argument_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        run.parse(arguments)
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "given", "profile"),
    [
        (["test"], "", "ci"),
        ([], "", "laptop"),
        ([], "gpu", "gpu"),
        (["--profile", "ci"], "gpu", "ci"),
    ],
)
def test_profile_is_the_argument_else_the_variable_else_the_commands_own(monkeypatch, arguments, given, profile):
    seen = []
    monkeypatch.setenv("CDT_PROFILE", given)
    monkeypatch.setattr(environment, "set_up", lambda: Path("bin") / "python")
    monkeypatch.setattr(run.subprocess, "call", lambda command, cwd, env: seen.append(env["CDT_PROFILE"]) or 0)
    assert run.main(arguments) == 0
    assert set(seen) == {profile}


def test_all_steps_run_and_one_failure_fails_the_whole(monkeypatch, capsys):
    called = []

    def call(command, cwd, env):
        called.append((command, env))
        return 1 if "mypy" in command else 0

    monkeypatch.setattr(run.subprocess, "call", call)
    assert run.run_tests("python", [], {}, ".") == 1
    kinds = [[Path(word).name for word in command] for command, _ in called]
    assert [kind[2] for kind in kinds] == ["ruff", "mypy", "pytest", "pytest", "python"]
    assert kinds[4] == ["python", "offline.py", "python", "trial.py", "student", "instructor"]
    assert [env.get("CDT_STRICT") for _, env in called] == [None, None, None, "1", None]
    assert all(env["CDT_LITE_PROGRESS"] for _, env in called)
    assert "failed: mypy" in capsys.readouterr().out


@pytest.fixture
def called(monkeypatch, tmp_path):
    """What run.py would start: commands and their environments, nothing installed."""
    found = []
    monkeypatch.setattr(environment, "set_up", lambda: tmp_path / "bin" / "python")
    monkeypatch.setattr(environment, "add_extra", lambda python, extra: found.append(([extra], {})))
    monkeypatch.setattr(run.subprocess, "call", lambda command, cwd, env: found.append((command, env)) or 0)
    monkeypatch.delenv("CDT_PROFILE", raising=False)
    return found


def test_lab_opens_at_the_page_that_says_where_to_start(called):
    assert run.main(["lab", "--no-browser"]) == 0
    command, _ = called[0]
    assert "--LabApp.default_url=/lab/tree/notebooks/START.md" in command and "--no-browser" in command


@pytest.mark.parametrize("arguments, script, last", [
    (["copies"], "copies.py", "copies.py"), (["wheels"], "wheels.py", "wheels.py"),
    (["trial"], "trial.py", "instructor"), (["trial", "notebooks"], "trial.py", "notebooks"),
    (["browser", "03"], "browser.py", "03"), (["--budget"], "execute.py", "--budget"),
])
def test_every_helper_calls_its_tool(called, arguments, script, last):
    assert run.main(arguments) == 0
    command = called[-1][0]
    assert script in [Path(word).name for word in command] and Path(command[-1]).name == last
    assert all((environment.ROOT / "tools" / Path(word).name).is_file() for word in command if word.endswith(".py"))


def test_the_browser_brings_its_own_extra(called):
    run.main(["browser"])
    assert called[0] == (["browser"], {}) and called[1][1]["CDT_PROFILE"] == "ci"
