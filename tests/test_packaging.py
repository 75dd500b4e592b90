"""The files that describe the environment agree with each other, and with what the package imports."""

import ast
import importlib
import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "graphviz": "python-graphviz", "matplotlib": "matplotlib-base"}
PIP_ONLY = {"graphviz-pure"}  # only on the Python index
CONDA_OWN = {"python", "pip", "graphviz"}  # what a conda environment needs beside the project's own list
IMPORT_NAMES = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "IPython": "ipython"}


def requirements(*extras):
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {r.name: r for r in map(Requirement, lines) if r.name != PROJECT["name"]}


WANTED = requirements("notebooks", "figures", "test")


def conda_lists():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    from_conda = {r.name: r for r in map(Requirement, (entry for entry in listed if isinstance(entry, str)))}
    from_pip = {r.name: r for r in map(Requirement, (entry for entry in by_pip if not entry.startswith("-")))}
    return from_conda, from_pip


@pytest.mark.parametrize("name", sorted(WANTED))
def test_environment_yml_names_every_requirement_with_the_same_range(name):
    from_conda, from_pip = conda_lists()
    found = from_pip.get(name) if name in PIP_ONLY else from_conda.get(CONDA_NAMES.get(name, name))
    assert found is not None, f"environment.yml lacks {name}"
    assert found.specifier == WANTED[name].specifier


def test_environment_yml_names_nothing_else():
    from_conda, from_pip = conda_lists()
    assert set(from_pip) == PIP_ONLY
    assert set(from_conda) == {CONDA_NAMES.get(name, name) for name in set(WANTED) - PIP_ONLY} | CONDA_OWN
    assert str(from_conda["python"].specifier) == PROJECT["requires-python"]


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_hold_names_and_versions_only():
    for line in constraints():
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*==[0-9][\w.+!]*( ; [^/@]+)?", line), line


def test_constraints_never_ask_for_cuda():
    assert not [line for line in constraints() if re.match(r"nvidia|cuda|triton|cupy", line)]


@pytest.mark.parametrize("python", ["3.11.9", "3.12.4", "3.13.1"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_constraints_pin_every_direct_requirement_within_its_range(python, system):
    place = default_environment() | {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": system,
        "os_name": "nt" if system == "win32" else "posix",
    }
    pinned: dict[str, str] = {}
    for line in map(Requirement, constraints()):
        if line.marker is None or line.marker.evaluate(place):
            assert line.name not in pinned, f"{line.name} is pinned twice for {python} on {system}"
            pinned[line.name] = next(iter(line.specifier)).version
    for name, requirement in (WANTED | requirements("eval", "browser", "docs")).items():
        assert name in pinned, f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{requirement} against {pinned[name]}"


def third_party_imports(folder):
    found = set()
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    own = {"cdt_lite", "benchmarks", "tools", "run", "helpers", "conftest", "fuzz"}
    own |= {path.stem for path in (ROOT / folder).glob("*.py")}
    return {IMPORT_NAMES.get(name, name) for name in found - own - sys.stdlib_module_names}


def with_what_they_bring(declared):
    """What is declared, and what scanpy and pytest themselves always bring (scikit-learn, umap, packaging)."""
    return set(declared) | {"scikit-learn", "umap", "packaging"}


def test_the_package_imports_only_what_it_declares():
    declared = with_what_they_bring(requirements(*PROJECT["optional-dependencies"]))
    undeclared = {name.replace("_", "-") for name in third_party_imports("cdt_lite")} - declared
    assert not undeclared, f"imported, but in no list of pyproject.toml: {sorted(undeclared)}"


@pytest.mark.parametrize("folder", ["tests", "tools"])
def test_tests_and_tools_import_only_what_run_py_installs(folder):
    undeclared = {name.replace("_", "-") for name in third_party_imports(folder)} - with_what_they_bring(WANTED)
    undeclared -= {"cell-eval", "cell-eval2", *requirements("browser", "docs")}
    assert not undeclared, f"not installed by run.py: {sorted(undeclared)}"


def test_licences_are_stated_and_there():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["license"] == "BSD-3-Clause"
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Creative Commons Attribution 4.0" in (ROOT / "LICENSE-TEXT").read_text(encoding="utf-8")
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_console_script_exists():
    module, _, function = PROJECT["scripts"]["cdt-lite"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_public_address_is_one_setting_and_points_nowhere_while_it_is_empty():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cdt-lite"]
    assert set(settings) == {"repository"}
    assert settings["repository"] == "" or re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", settings["repository"])
    cards = [path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert any("colab-badge" in text for text in cards) == bool(settings["repository"])


def test_the_container_is_made_by_the_same_command():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads("\n".join(line for line in text.splitlines() if not line.startswith("//")))
    assert container["postCreateCommand"] == "python3 run.py setup" and "not tried" in text


def test_the_image_is_made_by_the_same_command_for_a_user_without_rights():
    """The rules of a Dockerfile that matter here; hadolint itself, run by hand, had nothing to say."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    steps = [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    said = [name for name, _ in steps]
    (image,) = [words for name, words in steps if name == "FROM"]
    assert re.fullmatch(r"python:3\.1\d-slim-\w+", image), "a tag that says which, never latest"
    assert "ADD" not in said and "sudo" not in text and "apt-get" not in text
    user, set_up = said.index("USER"), next(i for i, (_, words) in enumerate(steps) if words.endswith("run.py setup"))
    assert steps[user][1].isdigit() and steps[user][1] != "0" and "USER" not in said[user + 1 :] and user < set_up
    assert all(words.startswith("/") for name, words in steps if name == "WORKDIR")
    assert all(words.startswith("--chown=1000:1000 ") for name, words in steps if name == "COPY")
    command = json.loads(next(words for name, words in steps if name == "CMD"))
    assert command[:3] == ["python3", "run.py", "lab"]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "output"} <= set(ignored)
