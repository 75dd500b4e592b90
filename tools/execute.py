"""Runs the notebooks in order, with a bar for each, and ends with a table of time and memory.

Called by run.py inside the environment. Executed copies go into output/; with --write, for maintainers, they
go back into the tracked notebooks, cleaned of what changes from run to run; with --budget, only what they took goes
into their title cards. Both want every check in the notebook to pass.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import cards  # noqa: E402

OUTPUT = ROOT / "output"
CELL_SECONDS = 900  # longer than any cell takes; a kernel silent for so long (a machine put to sleep) will not answer
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}


@dataclass
class Report:
    """What one notebook took, and what was wrong with it."""

    name: str
    cells: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    size_mb: float = 0.0
    failed: bool = False
    silent: bool = False  # the kernel died or stopped answering, which need not be the notebook's fault
    problems: list[str] = field(default_factory=list)


class Watch(threading.Thread):
    """Notes the largest memory of the kernel and its children, and keeps the bar's clock moving."""

    def __init__(self, bar: tqdm):
        super().__init__(daemon=True)
        self.bar, self.peak, self.done = bar, 0, threading.Event()
        self.cpu: dict[int, float] = {}

    def run(self) -> None:
        """Looks four times a second until told to stop."""
        while not self.done.wait(0.25):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                    self.cpu[process.pid] = sum(process.cpu_times()[:2])
                except psutil.Error:  # it ended between the two calls
                    continue
            self.peak = max(self.peak, total)
            if sys.stdout.isatty():
                self.bar.refresh()


def execute(notebook: nbformat.NotebookNode, report: Report, strict: bool = False, folder: str = "notebooks") -> None:
    """Executes a notebook in place; fills in the report, also when a cell fails.

    Args:
        notebook: The notebook.
        report: What is filled in.
        strict: Whether a check that does not pass is an error (CDT_STRICT=1).
        folder: Where it runs, below the project's root.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    report.cells = len(code)
    form = "{desc:<24} |{bar:20}| cell {n_fmt} of {total_fmt}, {elapsed}"
    columns, rows = shutil.get_terminal_size()  # tqdm would show nothing where a terminal tells no size
    bar = tqdm(
        total=len(code), desc=report.name, bar_format=form, ncols=columns, nrows=rows, file=sys.stdout, disable=None
    )
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no talk of the kernel's own on the terminal
        resources={"metadata": {"path": str(ROOT / folder)}},
        on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(cell.cell_type == "code"),
    )
    watch, begin = Watch(bar), time.monotonic()
    watch.start()
    try:
        with tempfile.TemporaryDirectory() as progress:  # a run of ours solves nothing in the learner's record
            own = {"CDT_LITE_PROGRESS": progress} | ({"CDT_STRICT": "1"} if strict else {})
            client.execute(env=os.environ | own)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        report.failed, report.silent = True, not isinstance(error, CellExecutionError)
        report.problems.append(where_it_failed(code, error))
    finally:
        watch.done.set()
        watch.join()
        bar.close()
    report.seconds, report.peak_mb = round(time.monotonic() - begin, 1), round(watch.peak / 2**20)
    report.cpu_seconds = round(sum(watch.cpu.values()), 1)
    if not sys.stdout.isatty():
        print(f"{report.name}: {report.cells} code cells, {report.seconds} s", flush=True)


def where_it_failed(code: list[nbformat.NotebookNode], error: Exception) -> str:
    """Names the cell that failed and shows it, with the end of its traceback."""
    number = next(
        (k for k, cell in enumerate(code, 1) if any(o.output_type == "error" for o in cell.outputs)),
        sum(cell.execution_count is not None for cell in code),
    )
    source = code[number - 1].source.splitlines() if number else []
    reason, trace = str(error), []
    if isinstance(error, CellTimeoutError):
        reason = f"no answer from the kernel within {CELL_SECONDS} s"
    if isinstance(error, CellExecutionError):
        reason = f"{error.ename}: {error.evalue}"
        trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).splitlines()[-12:]
    shown = "".join(f"\n    {line}" for line in [*source, *trace] if line.strip())
    return f"code cell {number} failed with {reason}{shown}"


def complaints(notebook: nbformat.NotebookNode, write: bool) -> list[str]:
    """Finds what must not stand in an executed notebook: stderr; in a tracked one, a path of this machine."""
    found = []
    places = [str(ROOT), str(Path.home()), sys.prefix]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                first = output.text.strip().splitlines()[:1]
                found.append(f"code cell {number} wrote to stderr: {''.join(first)[:160]}")
            shown = [output.get("text", ""), *output.get("traceback", [])]
            shown += [value for kind, value in output.get("data", {}).items() if kind != "image/png"]
            if write and any(place in str(text) for place in places for text in shown if len(place) > 1):
                found.append(f"code cell {number} shows a path of this machine")
    return found


def settle(cell: nbformat.NotebookNode) -> None:
    """Joins pieces of one stream and keeps of a redrawn line (a progress bar) what a terminal would show at the end."""
    outputs: list[nbformat.NotebookNode] = []
    for output in cell.outputs:
        if outputs and output.output_type == "stream" == outputs[-1].output_type and output.name == outputs[-1].name:
            outputs[-1].text += output.text
        else:
            outputs.append(output)
    for output in outputs:
        if output.output_type == "stream":
            output.text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in output.text.split("\n"))
    cell.outputs = outputs


def clean(notebook: nbformat.NotebookNode) -> None:
    """Takes out what changes from run to run or cannot be shown again: times, versions, live widgets."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in notebook.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            widget = "application/vnd.jupyter.widget-view+json"
            cell.outputs = [output for output in cell.outputs if widget not in output.get("data", {})]


def run_one(path: Path, write: bool, budget: bool = False) -> Report:
    """Executes one notebook and writes the result.

    Args:
        path: A tracked notebook.
        write: Put outputs and budget into the tracked file, if all is well; otherwise outputs go into output/.
        budget: Put only the budget into the tracked file, if all is well.
    """
    notebook = nbformat.read(path, as_version=4)
    report = Report(path.stem)
    execute(notebook, report, strict=write or budget)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            settle(cell)
    report.problems += complaints(notebook, write)
    keep = write and not report.problems
    if keep:
        clean(notebook)
        cards.fill(notebook, path.name, measured(report), executed=True)
    target = path if keep else OUTPUT / path.name
    nbformat.write(notebook, target)
    if budget and not report.problems:
        tracked = nbformat.read(path, as_version=4)
        if cards.fill(tracked, path.name, measured(report), executed=False):
            nbformat.write(tracked, path)
    report.size_mb = round(target.stat().st_size / 1e6, 2)
    for problem in report.problems:
        print(f"  {path.name}: {problem}", flush=True)
    return report


def measured(report: Report) -> cards.Measured:
    """What a run took, as its title card shows it."""
    return cards.Measured(os.environ.get("CDT_PROFILE", "laptop"), report.seconds, report.peak_mb * 2**20 / 1e9,
                          cards.today())


def draw_figures(folder: Path) -> list[str]:
    """Calls the command line for the generated figures; returns what went wrong."""
    print("figures", flush=True)
    command = [sys.executable, "-m", "cdt_lite.cli", "figures", "--preset", "v1", "--out", str(folder)]
    status = subprocess.call(command, cwd=ROOT)
    return [f"the figures were not drawn: `cdt-lite figures` ended with status {status}"] if status else []


def table(reports: list[Report]) -> str:
    """One line a notebook: cells, seconds, peak memory of the kernel and its children, size of the file."""
    lines = [
        "| notebook | code cells | seconds | peak memory, MB | file, MB | result |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for r in reports:
        result = f"{len(r.problems)} problem(s)" if r.problems else "ok"
        numbers = f"{r.cells} | {r.seconds:.1f} | {r.peak_mb:,.0f} | {r.size_mb:.2f}"
        lines.append(f"| {r.name} | {numbers} | {result} |")
    peak, seconds = max(r.peak_mb for r in reports), sum(r.seconds for r in reports)
    lines.append(f"| all | {sum(r.cells for r in reports)} | {seconds:.1f} | {peak:,.0f} | | |")
    return "\n".join(lines)


def run_all(paths: list[Path], write: bool, budget: bool = False) -> tuple[list[Report], list[Path]]:
    """Executes notebooks in order up to the first whose cell fails; returns the reports and what remained."""
    reports: list[Report] = []
    for k, path in enumerate(paths):
        reports.append(run_one(path, write, budget))
        if reports[-1].failed:
            return reports, paths[k + 1 :]
    return reports, []


def main() -> int:
    """Runs the notebooks, draws the figures, prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--budget", action="store_true")
    options = parser.parse_args()
    paths = sorted((ROOT / "notebooks").glob(f"{options.only or '0'}*.ipynb"))
    if not paths:
        sys.exit(f"run.py: no notebook in notebooks/ begins with {options.only or '0'!r}")
    OUTPUT.mkdir(exist_ok=True)
    figures = ROOT / "figures" if options.write else OUTPUT / "figures"
    names = ", ".join(path.stem.split("_")[0] for path in paths)
    print(f"Running notebooks {names} with profile {os.environ.get('CDT_PROFILE', 'laptop')}", flush=True)
    reports, remained = run_all(paths, options.write, options.budget)
    wrong = [f"{r.name}: {problem.splitlines()[0]}" for r in reports for problem in r.problems]
    wrong += [f"{path.stem}: not run" for path in remained]
    wrong += draw_figures(figures) if not (remained or options.only or options.budget) else []
    (OUTPUT / "report.json").write_text(json.dumps([asdict(r) for r in reports], indent=1), encoding="utf-8")
    print(f"\n{table(reports)}\n")
    if wrong:
        print("Not everything worked:", *wrong, sep="\n  ")
        return 1
    made = "notebooks/ and figures/ (tracked)" if options.write else "output/"
    if options.budget:
        made += " and the title cards of notebooks/"
    drawn = sum(file.is_file() for file in figures.rglob("*")) if figures.exists() else 0
    print(f"Made in {made}: executed notebooks {names}, and {drawn} files of figures.")
    print("Open them with: python3 run.py lab")
    return 0


if __name__ == "__main__":
    sys.exit(main())
