"""Runs a learner's function without being hurt by it: copies in, a time limit, chance of its own."""

import ctypes
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
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


def guarded(fn: Callable[..., Any], names: list[str], altered: set[str]) -> Callable[..., Any]:
    """Wraps a learner's function: it gets copies of its inputs, and `altered` collects the names of those it changed.

    Raises:
        NotAttempted: On the call, if the function returns an ellipsis.
    """

    def call(*inputs: Any) -> Any:
        handed = copied(inputs)
        result = fn(*handed)
        if result is Ellipsis or (isinstance(result, tuple) and any(part is Ellipsis for part in result)):
            raise NotAttempted
        for name, before, after in zip(names, inputs, handed, strict=False):  # arguments may have defaults
            if changed(before, after):
                altered.add(name)
        return result

    return call


def limited(call: Callable[[], Any], seconds: float) -> Any:
    """Calls a function in a thread of its own, and raises TimeUp if its time is over.

    Threads take exceptions on every system, unlike signals; only code that waits outside Python does not notice them.
    """
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # a learner's exit() must not end the check either
            future.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()  # in here: an interrupt that comes while it starts must end it, too
        wait([future], max(seconds, 0.05))  # not thread.join: interrupted, it takes the thread for ended
    finally:  # the time is over, or the learner pressed stop
        for _ in range(10):  # again and again, in case that the code in it catches everything
            if not future.done():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeUp))
                wait([future], 0.05)
    if not future.done():
        raise TimeUp
    return future.result()


@contextmanager
def own_chance(seed: int = 0) -> Iterator[None]:
    """Seeds all random generators inside, and puts them back after: a check leaves later cells' numbers alone."""
    with torch.random.fork_rng(devices=[]), ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        yield
