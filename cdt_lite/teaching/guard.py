"""Runs a learner's function without being hurt by it: copies in, a time limit, chance of its own."""

import ctypes
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from cdt_lite.teaching.compare import changed


class NotAttempted(BaseException):
    """The stub was called: it still returns an ellipsis. Not an Exception, so that no check can swallow it."""


class TimeUp(BaseException):
    """The time of a call is over; also raised inside its thread, to end it."""


def copied(value: Any) -> Any:
    """Copies what a function could change in place (tensors, arrays, lists, dicts); hands on all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.clone()  # unlike deepcopy, gradients still flow to the original
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return dict(zip(value, map(copied, value.values()), strict=True))
    return value


class Guarded:
    """A learner's function that gets copies of its inputs; `altered` names those that it changed in place.

    Args:
        fn: The function.
        names: What its arguments are called.
    """

    def __init__(self, fn: Callable[..., Any], names: list[str]) -> None:
        self.fn = fn
        self.names = names
        self.altered: set[str] = set()

    def __call__(self, *inputs: Any) -> Any:
        """Calls it; raises NotAttempted if an ellipsis comes back."""
        handed = copied(inputs)
        result = self.fn(*handed)
        if result is Ellipsis or (isinstance(result, tuple) and any(part is Ellipsis for part in result)):
            raise NotAttempted
        for name, before, after in zip(self.names, inputs, handed, strict=False):  # arguments may have defaults
            if changed(before, after):
                self.altered.add(name)
        return result


def limited(call: Callable[[], Any], seconds: float) -> Any:
    """Calls a function in a thread of its own, and raises TimeUp if its time is over.

    Signals would do it on Linux and macOS only. A thread takes an exception from outside on every system; only code
    that waits outside Python (a sleep, a lock) does not notice it. Such a thread ends with the kernel.
    """
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # a learner's exit() must not end the check either
            future.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(max(seconds, 0.05))
    finally:  # the time is over, or the learner pressed stop
        _stop(thread)
    if not future.done():
        raise TimeUp
    return future.result()


def _stop(thread: threading.Thread, tries: int = 10) -> None:
    """Raises TimeUp inside a thread, again and again in case that the code in it catches everything."""
    for _ in range(tries):
        if thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeUp))
            thread.join(0.05)


@contextmanager
def own_chance(seed: int = 0) -> Iterator[None]:
    """Seeds all random generators inside, and puts them back after: a check leaves later cells' numbers alone."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
