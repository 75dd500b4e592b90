"""Worker processes that try cases and report, and the table of what came."""

import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from . import KINDS
from .verdict import VERDICTS, Outcome, named

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # after which a case hangs; a loaded machine needs its time
START = 180.0  # for the imports of a worker
MEMORY = 12 * 2**30  # bytes of address space: a case that asks for more gets a MemoryError


def attempt(kind: str, number: int) -> Outcome:
    """Tries one case here."""
    module = importlib.import_module(f"tests.fuzz.{kind}")
    rng = np.random.default_rng([KINDS.index(kind), number])
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return module.case(rng, Path(folder))


def work() -> None:
    """What a worker does: reads cases, writes outcomes; what a case prints goes nowhere."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    for kind in KINDS:
        importlib.import_module(f"tests.fuzz.{kind}")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        try:
            outcome = attempt(*json.loads(line))
        except Exception as error:  # a fault of the fuzzer's own
            outcome = Outcome("wrong", line.strip(), f"the case failed: {named(error)}")
        print(json.dumps(outcome), file=answers, flush=True)


class Worker:
    """A process that tries cases one by one; a new one takes its place when it dies or hangs."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def attempt(self, kind: str, number: int) -> Outcome:
        """Tries a case in the process."""
        if self.process is None:
            self.start()
        self.process.stdin.write(json.dumps([kind, number]) + "\n")
        line = self.line(SECONDS)
        if line:
            return Outcome(*json.loads(line))
        hangs = line is None
        status = self.end()
        last = self.errors.read_text(encoding="utf-8", errors="replace")[-2000:]
        return Outcome("hang" if hangs else "crash", f"{kind} {number}", f"status {status}: {last}")

    def start(self) -> None:
        """Starts the process and waits until it is ready."""
        handle, name = tempfile.mkstemp(prefix="fuzz-", suffix=".txt")
        self.errors = Path(name)
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--worker"], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=handle)
        os.close(handle)
        if self.line(START) != "ready\n":
            self.end()
            raise RuntimeError(f"no worker: {self.errors.read_text(encoding='utf-8')[-3000:]}")

    def line(self, seconds: float) -> str | None:
        """The next line; "" where the process has ended, None where the time has."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else None

    def end(self) -> int:
        """Ends the process; returns its status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.kill()
        status = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None
        return status


def run(cases: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, Outcome]]:
    """Tries cases (kind and number) in a worker."""
    worker = Worker()
    try:
        for kind, number in cases:
            yield kind, number, worker.attempt(kind, number)
    finally:
        worker.end()


def table(counts: Counter) -> str:
    """Counts by kind and verdict, in columns."""
    lines = [f"{'':12s}" + "".join(f"{verdict:>8s}" for verdict in (*VERDICTS, "all"))]
    for kind in (*KINDS, "all"):
        found = []
        for verdict in VERDICTS:
            found.append(sum(n for (k, v), n in counts.items() if v == verdict and kind in (k, "all")))
        lines.append(f"{kind:12s}" + "".join(f"{n:8d}" for n in (*found, sum(found))))
    return "\n".join(lines)
