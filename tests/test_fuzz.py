"""The short form of the fuzzer: cases of every kind in a worker of their own; the long one is run by hand."""

from collections import Counter

import pytest
from fuzz import KINDS
from fuzz.pool import Worker
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = {"files": 60, "checkpoints": 60, "arguments": 60, "commands": 40, "answers": 30}


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.end()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_crashes_hangs_or_is_taken_for_what_it_is_not(worker, kind):
    verdicts: Counter = Counter()

    @settings(max_examples=CASES[kind], deadline=None, derandomize=True, database=None)
    @given(number=st.integers(0, 2**31))
    def try_one(number):
        outcome = worker.attempt(kind, number)
        verdicts[outcome.verdict] += 1
        assert outcome.verdict in ("right", "named", "bare"), f"{kind} {number}: {outcome}"

    try_one()
    assert verdicts["bare"] <= 2, verdicts
    assert verdicts["right"] and verdicts["named"] + verdicts["right"] >= CASES[kind] - 2
