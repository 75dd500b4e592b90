"""Runs the notebooks in order, into output/, with a bar for each, and ends with a table of time and memory.

For maintainers: --write fills the tracked notebooks, cleaned of what changes from run to run, --budget only the time
and memory in their title cards. Both want every check in the notebook to pass.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from tqdm import tqdm

from tools import pages
from tools.environment import ROOT

OUTPUT = ROOT / "output"
CELL_SECONDS = 900  # longer than any cell takes: a kernel silent for so long will not answer any more
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass
class Report:
    """What one notebook took, and what was wrong with it."""

    name: str
    cells: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    failed: bool = False
    silent: bool = False  # the kernel died or stopped answering, which need not be the notebook's fault
    problems: list[str] = field(default_factory=list)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def watch(report: Report, bar: tqdm, done: threading.Event) -> None:
    """Notes the largest memory and the computing of all child processes, and keeps the bar's clock moving."""
    computed: dict[int, float] = {}
    while not done.wait(0.25):
        memory = 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                memory += process.memory_info().rss
                computed[process.pid] = sum(process.cpu_times()[:2])
        report.peak_mb = max(report.peak_mb, memory / 2**20)
        report.cpu_seconds = sum(computed.values())
        if sys.stdout.isatty():
            bar.refresh()


def execute(notebook: NotebookNode, report: Report, strict: bool = False, folder: str = "notebooks") -> None:
    """Executes a notebook in place, in a folder of the project; fills in the report, also when a cell fails.

    With `strict`, a check that does not pass is an error (CDT_STRICT=1).
    """
    code, begun = code_cells(notebook), []
    # a size of its own: tqdm shows nothing where a terminal tells none
    bar = tqdm(code, report.name, unit="cell", file=sys.stdout, ncols=80, nrows=24, disable=None)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no talk of the kernel's own on the terminal
        resources={"metadata": {"path": str(ROOT / folder)}},
        on_cell_execute=lambda cell, cell_index: begun.append(cell),
        on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(),
    )
    start, done = time.monotonic(), threading.Event()
    watcher = threading.Thread(target=watch, args=(report, bar, done), daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory() as progress:  # a run of ours solves nothing in the learner's record
        variables = os.environ | {"CDT_LITE_PROGRESS": progress}
        if strict:
            variables["CDT_STRICT"] = "1"
        try:
            client.execute(env=variables)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            report.failed = True
            report.silent = not isinstance(error, CellExecutionError)
            report.problems.append(what_failed(begun[-1], code.index(begun[-1]) + 1, error))
        finally:
            done.set()
            watcher.join()
            bar.close()
    CoalesceStreamsPreprocessor().preprocess(notebook, {})  # of a redrawn bar, its last state
    report.cells, report.seconds = len(code), time.monotonic() - start
    if not sys.stdout.isatty():
        print(f"{report.name}: {report.cells} code cells, {report.seconds:.1f} s", flush=True)


def what_failed(cell: NotebookNode, number: int, error: Exception) -> str:
    """Names the cell that failed and shows it, with the end of its traceback."""
    reason, shown = str(error), cell.source
    if isinstance(error, CellTimeoutError):
        reason = f"no answer from the kernel within {CELL_SECONDS} s"
    if isinstance(error, CellExecutionError):
        reason = f"{error.ename}: {error.evalue}"
        shown = "\n".join([shown, *strip_ansi(error.traceback).splitlines()[-12:]])
    return f"code cell {number} failed with {reason}\n{textwrap.indent(shown, '    ')}"


def complaints(notebook: NotebookNode, tracked: bool) -> list[str]:
    """Finds what must not stand in an executed notebook: stderr; in a tracked one, a path of this machine."""
    found = []
    places = {str(ROOT), str(Path.home()), sys.prefix} - {"/"}
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                found.append(f"code cell {number} wrote to stderr: {output.text.strip()[:160]}")
            data = output.get("data", {})
            shown = [output.get("text", ""), *(str(data[kind]) for kind in data if kind != "image/png")]
            if tracked and any(place in text for place in places for text in shown):
                found.append(f"code cell {number} shows a path of this machine")
    return found


def clean(notebook: NotebookNode) -> None:
    """Takes out what changes from run to run or cannot be shown again: times, versions, live widgets."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in code_cells(notebook):
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def run_one(path: Path, write: bool, budget: bool = False) -> Report:
    """Executes one notebook into output/; if all is well, `write` fills the tracked one, `budget` its budget alone."""
    notebook = nbformat.read(path, as_version=4)
    report = Report(path.stem)
    execute(notebook, report, strict=write or budget)
    report.problems += complaints(notebook, tracked=write)
    nbformat.write(notebook, OUTPUT / path.name)
    for problem in report.problems:
        print(f"  {path.name}: {problem}", flush=True)
    if report.problems or not (write or budget):
        return report
    if not write:
        notebook = nbformat.read(path, as_version=4)
    clean(notebook)
    pages.fill(notebook, path.name, report.seconds, report.peak_mb * 2**20 / 1e9, executed=write)
    nbformat.write(notebook, path)
    return report


def run_all(paths: list[Path], write: bool, budget: bool = False) -> list[Report]:
    """Executes notebooks in order; none after one whose cell failed."""
    reports: list[Report] = []
    for path in paths:
        stopped = any(report.failed for report in reports)
        reports.append(Report(path.stem, problems=["not run"]) if stopped else run_one(path, write, budget))
    return reports


def table(reports: list[Report]) -> str:
    """One line a notebook: code cells, seconds, peak memory of the kernel and its children, problems."""
    rows = pd.DataFrame(reports)[["name", "cells", "seconds", "peak_mb", "problems"]]
    rows["problems"] = rows["problems"].map(len)
    rows.loc[len(rows)] = ["all", rows.cells.sum(), rows.seconds.sum(), rows.peak_mb.max(), rows.problems.sum()]
    rows.columns = ["notebook", "code cells", "seconds", "peak memory, MB", "problems"]
    return rows.to_markdown(index=False, floatfmt=("", "", ".1f", ",.0f", ""))


def main(first: str, *flags: str) -> int:
    """Runs the notebooks whose names begin so, draws the figures, prints the table; returns the exit status."""
    write, budget = "--write" in flags, "--budget" in flags
    paths = sorted((ROOT / "notebooks").glob(f"{first}*.ipynb"))
    if not paths:
        sys.exit(f"run.py: no notebook in notebooks/ begins with {first!r}")
    OUTPUT.mkdir(exist_ok=True)
    print(f"Running {len(paths)} notebooks with profile {os.environ.get('CDT_PROFILE', 'laptop')}", flush=True)
    reports = run_all(paths, write, budget)
    wrong = []
    for report in reports:
        wrong += [f"{report.name}: {problem.splitlines()[0]}" for problem in report.problems]
    if first == "0" and not budget:
        folder = str(ROOT / "figures" if write else OUTPUT / "figures")
        print("figures", flush=True)
        command = [sys.executable, "-m", "cdt_lite.cli", "figures", "--preset", "v1", "--out", folder]
        if subprocess.call(command, cwd=ROOT):
            wrong.append("figures: `cdt-lite figures` failed")
    print(f"\n{table(reports)}\n")
    if wrong:
        print("Not everything worked:", *wrong, sep="\n  ")
        return 1
    print(f"Everything worked; it is in {'notebooks/, figures/' if write else 'output/'}. Open it with: run.py lab")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
