"""Executes notebooks in fresh kernels, as a learner meets them, and says what is wrong: `python3 run.py trial`.

Not part of the unit tests: its name keeps it out. Beside an error in a cell, these fail: text on stderr, a picture
without alt text or table, a path of a machine, a file that grows too large, and more time or memory than a notebook
may take. Student copies keep their untouched stubs and must still reach their end; everywhere else every check must
pass. A notebook whose kernel dies or stops answering is begun once more, and only once: a pause of the machine does
that, and an endless cell does it again.
"""

import os
from pathlib import Path

import nbformat
import notebook_rules as rules
import pytest

from tools import execute
from tools.environment import ROOT

AFTER = (rules.quiet_outputs, rules.figures, rules.no_machine_path, rules.size)
FOLDERS = ("workshop/student", "workshop/instructor", "notebooks")
NAMES = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.ipynb"))]
MOST_MB = 3000
MOST_CPU_SECONDS = 120  # a minute on two cores, whatever else the machine does meanwhile


def over_budget(report: execute.Report) -> list[str]:
    """Says if a notebook took more than it may (in the profile ci, which is made to be small)."""
    wrong = []
    if report.peak_mb > MOST_MB:
        wrong.append(f"{report.peak_mb:,.0f} MB of memory, more than {MOST_MB:,}")
    if report.cpu_seconds > MOST_CPU_SECONDS and os.environ.get("CDT_PROFILE") == "ci":
        wrong.append(f"{report.cpu_seconds:.0f} s of computing, more than {MOST_CPU_SECONDS}")
    return wrong


def try_one(path: Path) -> execute.Report:
    """Executes one notebook and applies the rules for outputs; nothing is written."""
    folder = path.parent
    for _ in range(2):
        notebook = nbformat.read(path, as_version=4)
        report = execute.Report(f"{folder.name}/{path.name[:2]}")
        execute.execute(notebook, report, strict=folder.name != "student", folder=folder)
        if not report.silent:
            break
        print(f"  {report.name}: {report.problems[0].splitlines()[0]}", flush=True)
    if not report.failed:
        for rule in AFTER:
            report.problems += rule(notebook)
        report.problems += over_budget(report)
    return report


@pytest.fixture(scope="module")
def reports():
    made = []
    yield made
    print(f"\n{execute.table(made)}\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_to_its_end_in_order(name, reports, monkeypatch, tmp_path):
    for variable in ("CDT_STRICT", "CDT_LITE_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path))  # an empty cache
    reports.append(try_one(ROOT / name))
    if reports[-1].problems:
        pytest.fail("\n".join(reports[-1].problems), pytrace=False)
