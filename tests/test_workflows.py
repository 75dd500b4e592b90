"""What the public host will read: right by its schemas, safe by zizmor, and in step with what the project promises."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers import linter

import run
from tools import environment

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_PYTHON = "Programming Language :: Python :: "


def parsed(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_have_the_hosts_schemas(schema):
    """The schemas come with check-jsonschema: no network is asked."""
    assert SCHEMAS[schema]
    done = linter("check-jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_that_breaks_its_schema_is_found(tmp_path):
    wrong = tmp_path / "bug.yml"
    wrong.write_text("name: Bug\ndescription: A\nbody:\n  - type: textfield\n", encoding="utf-8")
    done = linter("check-jsonschema", "--builtin-schema", "vendor.github-issue-forms", wrong)
    assert done.returncode == 1


def audit(folder):
    """The strictest persona; rules that would ask the host are left out."""
    return linter("zizmor", "--offline", "--no-progress", "--persona=auditor", folder)


def test_zizmor_finds_nothing():
    done = audit(GITHUB)
    assert done.returncode == 0 and "No findings" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("before", "after", "rule"), [
    (r"@[0-9a-f]{40} # v6.0.1", "@v6", "unpinned-uses"),
    (r"permissions: \{\}", "permissions: write-all", "excessive-permissions"),
    (r"persist-credentials: false", "persist-credentials: true", "artipacked"),
    (r"run: python run.py setup", "run: echo ${{ github.head_ref }}", "template-injection"),
])
def test_zizmor_would_find_what_is_wrong(tmp_path, before, after, rule):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (GITHUB / "workflows" / "test.yml").read_text(encoding="utf-8")
    wrong = re.sub(before, after, text)
    assert wrong != text
    (folder / "test.yml").write_text(wrong, encoding="utf-8")
    done = audit(tmp_path)
    assert done.returncode != 0 and rule in done.stdout


def test_every_action_is_named_by_one_hash_with_its_version_beside_it():
    named = {}
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses:" in line:
                found = re.search(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$", line)
                assert found, f"{path.name}: {line.strip()}"
                assert named.setdefault(found[1], found.groups()) == found.groups(), path.name


def test_commands_call_what_is_there():
    """Every file and every command of run.py that a workflow names exists."""
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"python run\.py (\w+)", text):
            assert name in run.COMMANDS, f"{path.name}: {name}"
        for name in re.findall(r"(?:tests|\.github)/\w+\.py", text):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


# ---- promises in step


def matrix():
    return parsed(GITHUB / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]


def test_the_matrix_has_every_python_that_is_promised_and_no_other():
    classified = [line.removeprefix(OF_PYTHON) for line in PROJECT["classifiers"] if line.startswith(OF_PYTHON + "3.")]
    assert matrix()["python"] == classified
    oldest = f">={classified[0]}"
    assert PROJECT["requires-python"] == oldest
    assert f"python{oldest}" in parsed(ROOT / "environment.yml")["dependencies"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert re.search(rf"Python {', '.join(classified[:-1])} (and|or) {classified[-1]}", readme)
    assert tuple(map(int, classified[0].split("."))) == environment.OLDEST_PYTHON


def test_the_matrix_has_every_system_that_the_readme_names():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {"ubuntu-latest": "Linux", "macos-latest": "macOS", "windows-latest": "Windows"}
    assert matrix()["os"] == list(names) and all(name in readme for name in names.values())


def test_the_weekly_run_takes_the_oldest_and_the_newest_python_and_no_pins():
    latest = GITHUB / "workflows" / "latest.yml"
    pythons = matrix()["python"]
    assert parsed(latest)["jobs"]["test"]["strategy"]["matrix"]["python"] == [pythons[0], pythons[-1]]
    steps = [step.get("run", "") for step in parsed(latest)["jobs"]["test"]["steps"]]
    assert not any("constraints" in step or "run.py" in step for step in steps)


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_every_form_asks_for_the_doctors_lines(form):
    fields = {field.get("id"): field for field in parsed(form)["body"]}
    assert "`cdt-lite doctor`" in fields["doctor"]["attributes"]["description"]
    assert fields["doctor"]["validations"]["required"] and fields["doctor"]["attributes"]["render"] == "text"


def test_a_release_is_tried_before_it_is_published_and_only_then_announced():
    jobs = parsed(GITHUB / "workflows" / "release.yml")["jobs"]
    commands = " ".join(step.get("run", "") for step in jobs["build"]["steps"])
    for needed in ("release.py", "test_wheel.py", "python -m build", "twine check --strict"):
        assert needed in commands
    assert jobs["publish"]["needs"] == "build" and jobs["announce"]["needs"] == "publish"
    may_write = [name for name, job in jobs.items() if "write" in job["permissions"].values()]
    assert may_write == ["publish", "announce"]
    assert not any("run" in step for step in jobs["publish"]["steps"])  # nothing of ours runs with that right


def test_hooks_are_local_and_run_the_same_linters():
    (source,) = parsed(ROOT / ".pre-commit-config.yaml")["repos"]
    assert source["repo"] == "local"
    entries = [hook["entry"] for hook in source["hooks"]]
    assert all(hook["language"] == "system" and not hook.get("additional_dependencies") for hook in source["hooks"])
    for name in ("ruff check", "mypy", "codespell", "lint-imports", "check-jsonschema", "zizmor --offline"):
        assert any(entry.startswith(name) for entry in entries), name
