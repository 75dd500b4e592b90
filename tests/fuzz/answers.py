"""Answers to exercises: right ones that are wrapped, and nasty ones. None may be taken wrongly or leave a trace."""

import contextlib
import io
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cdt_lite.teaching import guard
from cdt_lite.teaching.check import all_exercises, examine, passes, report

from .verdict import Outcome, judge

Answer = Callable[..., Any]
SECONDS = 2.0  # a learner's answer gets these


class Odd:
    """An object that equals everything, and breaks when it is looked at."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise ValueError("no")

    def __len__(self) -> int:
        return -1


class Strange(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise ZeroDivisionError


def case(rng: np.random.Generator, folder: Path) -> Outcome:
    """Checks an answer: a wrapped reference must pass, a nasty one must not; the process stays as it was."""
    exercises = all_exercises()
    exercise = exercises[rng.integers(len(exercises))]
    right = rng.random() < 0.3
    name = str(rng.choice(list(RIGHT if right else NASTY)))
    answer = (RIGHT if right else NASTY)[name](exercise.reference)

    def act() -> Any:
        before = _state()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            rows = examine(exercise.number, answer, SECONDS if not right else 20.0)
        changed = [key for key, value in _state().items() if value != before[key]]
        return passes(rows), report(exercise, rows), changed

    def problem(found: Any) -> str:
        passed, text, changed = found
        if passed != right:
            return f"passes: {passed}. {text[-200:]}"
        return f"changed: {', '.join(changed)}" if changed else ""

    try:
        return judge(f"{exercise.number}: {name}", act, problem)
    finally:
        _put_back()


def _state() -> dict[str, Any]:
    """What an answer might change and later cells would feel."""
    return {
        "dtype": torch.get_default_dtype(), "folder": os.getcwd(), "filters": list(warnings.filters),
        "chance of numpy": np.random.get_state()[1].tolist(), "chance of torch": torch.get_rng_state().tolist(),
        "chance of Python": random.getstate(), "errors of numpy": np.geterr(), "recursion": sys.getrecursionlimit(),
        "environment": dict(os.environ), "gradients": torch.is_grad_enabled()}


def _put_back() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    os.chdir(Path(__file__).parents[2])
    warnings.resetwarnings()
    np.seterr(divide="warn", over="warn", under="ignore", invalid="warn")
    sys.setrecursionlimit(1000)
    os.environ.pop("FUZZ", None)


def _raises(error: BaseException) -> Callable[[Answer], Answer]:
    def answer(*_: Any) -> Any:
        raise error

    return lambda reference: answer


def _gives(value: Any) -> Callable[[Answer], Answer]:
    return lambda reference: lambda *_: value


def _does(act: Callable[[], Any]) -> Callable[[Answer], Answer]:
    """Does something, then answers nothing."""
    return lambda reference: lambda *_: (act(), None)[1]


def _aside(act: Callable[[], Any]) -> Callable[[Answer], Answer]:
    """Does something harmless, then answers rightly."""

    def wrapped(reference: Answer) -> Answer:
        def answer(*given: Any) -> Any:
            act()
            return reference(*given)

        return answer

    return wrapped


def _forever() -> Any:
    while True:
        pass


def _stubborn() -> Any:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def _deep(n: int = 0) -> Any:
    return _deep(n + 1)


def _endless() -> Iterator[int]:
    while True:
        yield 1


def _clears(reference: Answer) -> Answer:
    def answer(*given: Any) -> Any:
        for value in given:
            if isinstance(value, torch.Tensor | np.ndarray) and value.ndim:
                value[...] = 0
            if isinstance(value, list | dict):
                value.clear()

    return answer


RIGHT: dict[str, Callable[[Answer], Answer]] = {
    "the reference": lambda reference: reference,
    "wrapped": _aside(lambda: None),
    "prints": _aside(lambda: print("x" * 1000)),
    "draws": _aside(lambda: (np.random.random(), torch.rand(3), random.random())),
    "seeds": _aside(lambda: (np.random.seed(1), torch.manual_seed(1), random.seed(1))),
}
NASTY: dict[str, Callable[[Answer], Answer]] = {
    "None": _gives(None), "NaN": _gives(float("nan")), "text": _gives("<b>$x$</b>"), "a class": _gives(int),
    "a generator": lambda reference: lambda *_: _endless(),
    "a module": _gives(np), "an empty array": _gives(np.zeros(0)),
    "a large list": _gives([0] * 10**6),
    "itself": lambda reference: _itself(), "an empty tensor": _gives(torch.zeros(0)),
    "an object array": _gives(np.array([None, [1]], object)), "complex": _gives(torch.tensor([1j])),
    "exits": _raises(SystemExit(0)), "ends": _raises(GeneratorExit()), "iteration": _raises(StopIteration()),
    "memory": _raises(MemoryError()), "assertion": _raises(AssertionError()), "recursion": _does(_deep),
    "loops": _does(_forever), "sleeps": _does(lambda: time.sleep(30)), "is stubborn": _does(_stubborn),
    "clears its inputs": _clears, "not callable": lambda reference: 3, "no arguments": lambda reference: lambda: None,
    "many arguments": lambda reference: lambda a, b, c, d, e, f, g: None,
    "threads": _does(lambda: [_thread() for _ in range(5)]),
}
if getattr(guard, "CAN_FORK", False):  # only a process of its own can be ended there, and takes such changes with it
    RIGHT["filters warnings"] = _aside(lambda: warnings.simplefilter("ignore", ImportWarning))
    NASTY |= {
        "meta": _gives(torch.zeros(2, device="meta")),
        "holds the interpreter": _does(lambda: sum(range(10**10))), "a power": _does(lambda: 10**(10**8)),
        "dies": _does(lambda: os._exit(3)), "much memory": _does(lambda: np.ones(2**33)), "stops": _raises(
            KeyboardInterrupt()), "an odd object": _gives(Odd()), "odd error": _raises(Strange()),
        "dtype": _does(lambda: torch.set_default_dtype(torch.float64)), "folder": _does(lambda: os.chdir("/")),
        "numpy's errors": _does(lambda: np.seterr(all="raise")),
        "gradients": _does(lambda: torch.set_grad_enabled(False)),
        "recursion limit": _does(lambda: sys.setrecursionlimit(700)),
        "environment": _does(lambda: os.environ.update(FUZZ="1")), "standard output": _does(lambda: sys.stdout.close()),
    }


def _itself() -> Answer:
    def answer(*_: Any) -> Any:
        return answer

    return answer


def _thread() -> None:
    import threading

    threading.Thread(target=time.sleep, args=(0.1,), daemon=True).start()
