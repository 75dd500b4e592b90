"""Runs a learner's function without being hurt by it: copies in, a time limit, every exception caught."""

import copy
import ctypes
import functools
import inspect
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from cdt_lite.teaching.compare import changed


class NotAttempted(BaseException):
    """The stub was called: it still returns an ellipsis. Not an Exception, so that no check can swallow it."""


class TimeUp(BaseException):
    """Raised inside the learner's thread when its time is over."""


@dataclass
class Outcome:
    """What came of one call: a value, an error, or neither because the time was over."""

    value: Any = None
    error: BaseException | None = None
    late: bool = False


def copied(value: Any) -> Any:
    """Copies what a function could change in place (arrays, tensors, tables, lists); hands on all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.clone()  # unlike deepcopy, gradients still flow to the original
    if isinstance(value, np.ndarray | pd.DataFrame | pd.Series) or hasattr(value, "toarray"):
        return value.copy()
    if type(value) in (list, tuple, set):
        return type(value)(copied(v) for v in value)
    if type(value) is dict:
        return {key: copied(v) for key, v in value.items()}
    return copy.copy(value) if isinstance(value, bytearray) else value


def guarded(fn: Callable[..., Any], altered: set[str]) -> Callable[..., Any]:
    """Wraps a learner's function: it gets copies of its inputs, and `altered` collects the names of those it changed.

    Raises:
        NotAttempted: On the call, if the function returns an ellipsis.
    """
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):  # a built-in function may have no signature
        names = []

    @functools.wraps(fn, updated=())
    def call(*inputs: Any, **named: Any) -> Any:
        handed, handed_named = copied(list(inputs)), copied(named)
        result = fn(*handed, **handed_named)
        if result is Ellipsis or (isinstance(result, tuple) and any(part is Ellipsis for part in result)):
            raise NotAttempted
        for i, (before, after) in enumerate(zip(inputs, handed, strict=True)):
            if changed(before, after):
                altered.add(names[i] if i < len(names) else f"argument {i + 1}")
        altered.update(key for key in named if changed(named[key], handed_named[key]))
        return result

    return call


def limited(call: Callable[[], Any], seconds: float) -> Outcome:
    """Calls a function in a thread of its own and stops it when its time is over.

    Signals would do it on Linux and macOS only. A thread takes an exception from outside on every system; only code
    that waits outside Python (a sleep, a lock) does not notice it. Such a thread is left behind and ends with
    the kernel.
    """
    outcome = Outcome()

    def work() -> None:
        try:
            outcome.value = call()
        except BaseException as error:  # a learner's exit() must not end the check either
            outcome.error = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except BaseException:  # the learner pressed stop: so stops the thread
        _stop(thread)
        raise
    if thread.is_alive():
        _stop(thread)
        return Outcome(late=True)
    return outcome


def _stop(thread: threading.Thread, tries: int = 10) -> None:
    """Raises TimeUp inside a thread, again and again in case that the code in it catches everything."""
    for _ in range(tries):
        if not thread.is_alive():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeUp))
        thread.join(0.05)


@contextmanager
def own_chance(seed: int = 0) -> Iterator[None]:
    """Seeds all random generators inside, and puts them back after: a check leaves later cells' numbers alone."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def remaining(deadline: float) -> float:
    """Returns the seconds until a moment of the monotonic clock, never below a small positive number."""
    return max(0.05, deadline - time.monotonic())
