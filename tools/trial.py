"""Executes every notebook of some folders in fresh kernels, writes nothing back, and says what is wrong.

    python tools/trial.py workshop/student workshop/instructor

Beside an error in a cell, these fail: text on stderr, a picture without alt text or table, a path of this machine, a
file that grows too large, and more time or memory than a notebook may take. Student copies keep their untouched stubs
and must still reach their end; everywhere else every check must pass. A notebook whose kernel dies or stops answering
is begun once more, and only once: a pause of the machine does that, and an endless cell does it again.
"""

import os
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import execute, rules  # noqa: E402

AFTER = (rules.quiet_outputs, rules.figures, rules.no_machine_path, rules.size)
MOST_MB = 3000
MOST_CPU_SECONDS = 120  # a minute on two cores, whatever else the machine does meanwhile


def over_budget(report: execute.Report) -> list[str]:
    """Says if a notebook took more than it may (in the profile ci, which is made to be small)."""
    wrong = [f"{report.peak_mb:,.0f} MB of memory, more than {MOST_MB:,}"] if report.peak_mb > MOST_MB else []
    if report.cpu_seconds > MOST_CPU_SECONDS and os.environ.get("CDT_PROFILE") == "ci":
        wrong.append(f"{report.cpu_seconds:.0f} s of computing, more than {MOST_CPU_SECONDS}")
    return wrong


def try_one(path: Path, folder: str) -> execute.Report:
    """Executes one notebook as a learner would meet it, and applies the rules for outputs."""
    for _ in range(2):
        notebook = nbformat.read(path, as_version=4)
        report = execute.Report(f"{Path(folder).name}/{path.stem.split('_')[0]}")
        execute.execute(notebook, report, strict=Path(folder).name != "student", folder=folder)
        if not report.silent:
            break
        print(f"  {folder}/{path.name}: {report.problems[0].splitlines()[0]}", flush=True)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            execute.settle(cell)
    if not report.failed:
        report.problems += [what for rule in AFTER for what in rule(notebook)] + over_budget(report)
    report.size_mb = round(len(nbformat.writes(notebook).encode()) / 1e6, 2)
    for problem in report.problems:
        print(f"  {folder}/{path.name}: {problem}", flush=True)
    return report


def main(folders: list[str]) -> int:
    """Tries every notebook, each even if another failed; returns the exit status."""
    os.environ.pop("CDT_STRICT", None)
    pairs = [(path, folder) for folder in folders for path in sorted((ROOT / folder).glob("*.ipynb"))]
    if not pairs:
        sys.exit(f"run.py: no notebook in {', '.join(folders) or 'no folder'}")
    reports = [try_one(path, folder) for path, folder in pairs]
    print(f"\n{execute.table(reports)}\n")
    return 1 if any(report.problems for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
