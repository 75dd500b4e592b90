"""Runs a learner's function without being hurt by it: copies in, limits, chance of its own, a process where that works.

A process takes everything with it that the function did: settings, patches, threads, memory, an exit. On Linux it is
forked, which takes milliseconds and knows all that the notebook knows. Elsewhere, and once CUDA is in use, libraries do
not survive a fork: there a thread has to do, and the best-known settings are put back.
"""

import ctypes
import faulthandler
import gc
import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from unittest.mock import patch

import numpy as np
import torch

from cdt_lite.teaching.compare import changed

Tell = Callable[[Any], None]
Streams = tuple[IO[bytes], IO[bytes]]
CAN_FORK = sys.platform == "linux" and Path("/proc/self/statm").is_file()
PATIENCE = 3  # seconds on the clock for one of computing: a loaded machine is not the learner's fault
MEMORY, FILE = 2 * 2**30, 2**26  # bytes: how far the process may grow, and the longest file that it may write
SHOWN = 10_000  # bytes of what it prints
OUT_OF_TIME = (signal.SIGPROF, signal.SIGALRM) if CAN_FORK else ()


class NotAttempted(BaseException):
    """The stub was called: it still returns an ellipsis. Not an Exception, so that no check can swallow it."""


class TimeUp(BaseException):
    """The time of a call is over; also raised inside its thread, to end it."""


class Died(BaseException):
    """The process of a call has ended before its work: an exit, a crash, or no memory left."""


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


def apart(work: Callable[[Tell], None], hear: Tell, seconds: float) -> None:
    """Does work apart from the notebook, with limits on time and memory and with chance of its own.

    Args:
        work: Gets a function, and calls it with what there is to tell: anything that JSON can hold.
        hear: Gets what was told, in order, as it comes.
        seconds: Of computing; on the clock it may be PATIENCE times as long.

    Raises:
        TimeUp: The time is over; what was told before has been heard.
        Died: The same, for a process that ended early.
    """
    if not CAN_FORK or torch.cuda.is_initialized():
        with kept(), own_chance():
            limited(partial(work, hear), seconds)
        return
    fork: Any = get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    with ours, theirs, TemporaryFile() as out, TemporaryFile() as err:
        child = fork.Process(target=_alone, args=(work, theirs, (out, err), seconds))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads: see _alone
            child.start()
        try:
            os.setpgid(child.pid, child.pid)  # with all that it starts, so that all of it can be ended
            theirs.close()
            _listen(ours, hear, PATIENCE * seconds + 1)
        except (EOFError, OSError, ValueError):  # the pipe is closed, or spoilt
            child.join(1)
            raise (TimeUp if -(child.exitcode or 0) in OUT_OF_TIME else Died) from None
        finally:
            with suppress(ProcessLookupError):  # it has ended, and so has all that it started
                os.killpg(child.pid, signal.SIGKILL)
            child.join()
            for file, stream in ((out, sys.stdout), (err, sys.stderr)):
                file.seek(0)
                stream.write(file.read(SHOWN).decode(errors="replace"))


def _listen(pipe: Connection, hear: Tell, seconds: float) -> None:
    """Hands on what the process tells, until it says that this is all."""
    end = time.monotonic() + seconds
    while pipe.poll(max(0.0, end - time.monotonic())):
        told = json.loads(pipe.recv_bytes())
        if not told:
            return
        hear(*told)
    raise TimeUp


def _alone(work: Callable[[Tell], None], pipe: Connection, printed: Streams, seconds: float) -> None:
    """What the process does: of the notebook's threads only this one came along, so that it waits for no other."""
    faulthandler.disable()  # it would write this process's end into the notebook's own log
    gc.freeze()  # what the notebook left to the collector is the notebook's: files, sockets, folders
    torch.set_num_threads(1)  # OpenMP's threads are not here, and it would wait for them for ever
    for number, file in enumerate(printed, 1):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, "utf-8", "replace", closefd=False) for number in (1, 2))
    own = os.getpid()

    def tell(*told: Any) -> None:
        if os.getpid() != own:  # a copy that the learner's function made of this process
            os._exit(0)
        pipe.send_bytes(json.dumps(told).encode())

    _bound(seconds)
    with own_chance():
        work(tell)
    tell()
    os._exit(0)  # at once: nothing of the notebook's is to be written or closed here


def _bound(seconds: float) -> None:
    """Sets limits to what this process may use: the system ends it, whatever it is doing."""
    import resource  # Windows has none

    grown = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    for kind, most in ((resource.RLIMIT_AS, grown), (resource.RLIMIT_FSIZE, FILE), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError):  # an administrator's own limit is lower still
            resource.setrlimit(kind, (most, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory ends, this goes, not the notebook
    for number in OUT_OF_TIME:
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of computing
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)


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
    end, computed = time.monotonic() + PATIENCE * seconds, time.process_time() + seconds
    try:
        thread.start()  # in here, since even this may be interrupted
        while not future.done() and time.monotonic() < end and time.process_time() < computed:
            wait([future], 0.05)  # not thread.join: interrupted, it takes the thread for ended
    finally:  # the time is over, or the learner pressed stop
        for _ in range(10):  # again and again, in case that the code in it catches everything
            if not future.done():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeUp))
                wait([future], 0.05)
    if not future.done():
        raise TimeUp
    return future.result()


@contextmanager
def kept() -> Iterator[None]:
    """Puts back the settings of this process that code inside may have changed."""
    with ExitStack() as after:
        after.enter_context(warnings.catch_warnings())
        after.enter_context(patch.dict(os.environ))
        after.enter_context(chdir(os.getcwd()))
        after.enter_context(redirect_stdout(sys.stdout))
        after.enter_context(redirect_stderr(sys.stderr))
        if "matplotlib" in sys.modules:
            after.enter_context(sys.modules["matplotlib"].rc_context())
        after.callback(torch.set_default_dtype, torch.get_default_dtype())
        after.callback(torch.set_num_threads, torch.get_num_threads())
        after.callback(sys.setrecursionlimit, sys.getrecursionlimit())
        after.callback(np.seterr, **np.geterr())
        yield


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
