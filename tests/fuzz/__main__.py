"""The long form of the fuzzer, by hand."""

import argparse
import itertools
import sys
import time
from collections import Counter

from . import KINDS
from .pool import attempt, run, table, work


def main() -> int:
    """Tries cases and prints every one that is bare, wrong, a crash or a hang, then a table of counts."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--cases", type=int, default=10_000, help="of all kinds together")
    options.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    options.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    options.add_argument("--number", type=int, help="try this one case in this process")
    options.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        work()
        return 0
    if given.number is not None:
        for kind in given.only:
            print(kind, given.number, *attempt(kind, given.number), sep=" | ")
        return 0
    counts: Counter = Counter()
    end = time.monotonic() + 60 * given.minutes
    numbers = itertools.islice(itertools.count(given.first), -(-given.cases // len(given.only)))
    cases = ((kind, number) for number in numbers for kind in given.only)
    for kind, number, outcome in run(cases):
        counts[kind, outcome.verdict] += 1
        if outcome.verdict not in ("right", "named"):
            print(kind, number, *outcome, sep=" | ", flush=True)
        if time.monotonic() > end:
            break
    print(table(counts))
    return int(any(verdict in ("wrong", "crash", "hang") for _, verdict in counts))


sys.exit(main())
