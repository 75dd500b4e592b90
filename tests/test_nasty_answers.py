"""Answers that no lesson expects: each is told what is wrong (or passes), in time, and the notebook does not notice."""

import asyncio
import atexit
import builtins
import ctypes
import gc
import importlib
import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch

from cdt_lite.teaching import guard
from cdt_lite.teaching.check import exercise

engine = importlib.import_module("cdt_lite.teaching.check")  # the package's own name `check` is the function
SECONDS = 0.4
ONLY_A_PROCESS = pytest.mark.skipif(not guard.CAN_FORK, reason="only a process can be ended from outside")


@exercise("9.1", "Scale it", difficulty=1, minutes=2, objective="scale a vector", misconception="n is always two",
          hints=("a", "b"))
def scale(x, n):
    """Returns x times n."""
    return x * n


@scale.requires("two times")
def _(fn):
    """You forgot n."""
    return torch.tensor([2.0, 4.0]), fn(torch.tensor([1.0, 2.0]), 2)


@scale.requires("three times")
def _(fn):
    """You did one entry only."""
    return torch.tensor([3.0, 6.0]), fn(torch.tensor([1.0, 2.0]), 3)


@pytest.fixture(autouse=True)
def only_this_exercise(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "all_exercises", lambda: (scale,))
    monkeypatch.setattr(guard, "MEMORY", 2**28)
    monkeypatch.setenv("CDT_LITE_PROGRESS", str(tmp_path))
    monkeypatch.delenv("CDT_STRICT", raising=False)
    engine._LAST.clear()


def settings():
    """What an answer could change in this process, as text or as the objects themselves."""
    return {
        "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(), "cwd": os.getcwd(),
        "torch": torch.get_rng_state().tolist(), "numpy": repr(np.random.get_state()),  # `random` serves beartype here
        "numpy's errors": np.geterr(), "numpy's print": np.get_printoptions(), "filters": list(warnings.filters),
        "variables": dict(os.environ), "matplotlib": dict(mpl.rcParams), "depth": sys.getrecursionlimit(),
        "streams": (sys.stdout, sys.stderr, sys.stdout.closed), "path": list(sys.path), "grad": torch.is_grad_enabled(),
        "builtins": dict(vars(builtins)), "mean": np.mean, "softmax": torch.softmax, "sleep": time.sleep,
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "trace": (sys.gettrace(), sys.settrace), "gc": gc.isenabled(), "log": logging.getLogger().level,
    }


# ---- answers that are right, and change what is not theirs; the last part of each name is the setting


def patch_numpy(x, n):
    np.mean = np.sum
    return x * n


def patch_torch(x, n):
    torch.softmax = None
    return x * n


def patch_time(x, n):
    time.sleep = time.monotonic = None
    return x * n


def patch_json(x, n):
    json.loads = None
    return x * n


def delete_builtins(x, n):
    for name in ("len", "print", "isinstance", "ValueError"):
        delattr(builtins, name)
    return x * n


def close_stdout(x, n):
    sys.stdout.close()
    return x * n


def replace_stdout(x, n):
    sys.stdout = sys.stderr = None
    return x * n


def trace(x, n):
    sys.setprofile(lambda *_: None)
    return x * n


def empty_path(x, n):
    sys.path.clear()
    return x * n


def log_everything(x, n):
    logging.getLogger().setLevel(1)
    return x * n


def no_collector(x, n):
    gc.disable()
    return x * n


def ignore_stop(x, n):
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return x * n


def at_exit(x, n):
    atexit.register(os._exit, 3)
    return x * n


def leave_threads(x, n):
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(30,)).start()
    return x * n


def leave_a_program(x, n):
    subprocess.Popen(["sleep", "30"])
    return x * n


def fork(x, n):
    os.fork()
    return x * n


def print_a_lot(x, n):
    print("y" * 10**6)
    return x * n


def write_to_the_terminal(x, n):
    os.write(1, b"straight to the file")
    return x * n


def warn(x, n):
    print("mind the gap", file=sys.stderr)
    return x * n


def set_dtype(x, n):
    torch.set_default_dtype(torch.float64)
    return x * n


def set_threads(x, n):
    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)
    return x * n


def no_gradients(x, n):
    torch.set_grad_enabled(False)
    return x * n


def change_folder(x, n):
    os.chdir("/")
    return x * n


def set_seeds(x, n):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    return x * n


def ignore_errors(x, n):
    np.seterr(all="ignore")
    return x * n


def print_short(x, n):
    np.set_printoptions(precision=1)
    return x * n


def ignore_warnings(x, n):
    warnings.simplefilter("ignore")
    return x * n


def clear_variables(x, n):
    os.environ.clear()
    os.environ["HOME"] = "/nowhere"
    return x * n


def draw_badly(x, n):
    mpl.rcParams["font.size"] = 99
    return x * n


def recurse_deeper(x, n):
    sys.setrecursionlimit(5000)
    return x * n


# ---- answers that are wrong, and say so in an odd way


class Odd:
    """Raises whatever is asked of it."""

    def raise_it(self, *_):
        raise RuntimeError("do not ask")

    __eq__ = __repr__ = __bool__ = __len__ = __iter__ = __str__ = __float__ = __array__ = __hash__ = raise_it


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("do not ask")


class OddTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *_, **__):
        raise RuntimeError("do not ask")


class Endless(list):
    def __iter__(self):
        while True:
            pass


class NoSignature:
    @property
    def __signature__(self):
        raise RuntimeError("do not ask")

    def __call__(self, x, n):
        return x


def raise_from(error):
    def answer(x, n):
        raise error

    return answer


def recursion(x, n):
    return recursion(x, n)


def generator(x, n):
    while True:
        yield x


async def coroutine(x, n):
    await asyncio.sleep(9)


def stubborn(x, n):
    try:
        return 1 / 0
    finally:
        raise SystemExit(0)


def close_the_files(x, n):
    os.closerange(3, 200)
    return x


def big_array(x, n):
    return np.ones(2**36)


def big_list(x, n):
    grown = [0]
    while True:
        grown += grown


def big_text(x, n):
    return "x" * 2**40


def big_tensor(x, n):
    return torch.ones(2**36)


def prints_for_ever(x, n):
    while True:
        print("y" * 1000)


WRONG = {
    "exits": lambda x, n: sys.exit(), "exits with a word": lambda x, n: exit("bye"), "quits": lambda x, n: quit(),
    "raises an exit in finally": stubborn, "is stopped": raise_from(KeyboardInterrupt()),
    "ends its generator": raise_from(GeneratorExit()), "has an error without words": raise_from(OddError()),
    "raises a group": raise_from(ExceptionGroup("many", [OddError(), ValueError()])),
    "recurses": recursion, "is a generator": generator, "is a coroutine": coroutine,
    "gives an odd object": lambda x, n: Odd(), "gives odd objects": lambda x, n: [Odd(), Odd()],
    "gives an odd tensor": lambda x, n: x.as_subclass(OddTensor), "gives its class": lambda x, n: Odd,
    "gives a list in itself": lambda x, n: (a := [], a.append(a), a)[2], "has no signature": NoSignature(),
    "gives not-a-number": lambda x, n: x * float("nan"), "asks the user": lambda x, n: input("how much? "),
    "needs much memory": big_array, "gives a long text": big_text, "makes a large tensor": big_tensor,
    "grows a list": big_list, "reads a missing file": lambda x, n: Path("/nowhere").read_text(),
    "deletes its input": lambda x, n: x.resize_(0), "frees it": lambda x, n: x.set_(), "is no function": Odd(),
    "prints for ever": prints_for_ever, "is an endless list": Endless([1, 2]),
    "gives an endless list": lambda x, n: Endless([1]),
    "asserts": raise_from(AssertionError()), "stops an iteration": raise_from(StopIteration()),
}


def endless_thread_and_loop(x, n):
    for _ in range(2):
        threading.Thread(target=deaf, args=(x, n)).start()
    deaf(x, n)


def deaf(x, n):
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


def waits_for_a_program(x, n):
    subprocess.run(["sleep", "30"])


def hears_nothing(x, n):
    own = socket.create_server(("127.0.0.1", 0))
    own.accept()


def deadlock(x, n):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def stops_itself(x, n):
    os.kill(os.getpid(), signal.SIGSTOP)


ENDLESS = {
    "loops": lambda x, n: sum(1 for _ in iter(int, 1)), "loops and is deaf": deaf,
    "sums in C": lambda x, n: sum(range(10**10)),
    "raises to a power": lambda x, n: 10 ** (10**8), "backtracks": lambda x, n: re.match(r"(a+)+$", "a" * 60 + "b"),
    "has deaf threads": endless_thread_and_loop, "sleeps": lambda x, n: time.sleep(30), "waits": waits_for_a_program,
    "hears nothing": hears_nothing, "locks itself": deadlock, "stops itself": stops_itself,
    "sorts in C": lambda x, n: sorted(range(10**7), key=lambda i: -i) * 10**4,
    "asks a pipe": lambda x, n: os.read(os.pipe()[0], 1),
    "multiplies matrices": lambda x, n: [torch.ones(2000, 2000).matrix_power(10**9) for _ in range(99)],
}
GONE = {
    "ends Python": lambda x, n: os._exit(0), "aborts": lambda x, n: os.abort(),
    "reads at 0": lambda x, n: ctypes.string_at(0),
    "kills itself": lambda x, n: os.kill(os.getpid(), signal.SIGKILL),
    "kills its group": lambda x, n: os.killpg(0, signal.SIGTERM),
    "becomes another program": lambda x, n: os.execv(shutil.which("true"), ["true"]),
    "closes all files": close_the_files, "deletes what the check itself needs": delete_builtins,
}
RIGHT = [patch_numpy, patch_torch, patch_time, patch_json, close_stdout, replace_stdout, trace,
         empty_path, log_everything, no_collector, ignore_stop, at_exit, leave_threads, leave_a_program, fork,
         print_a_lot, write_to_the_terminal, warn]
SETTINGS = [set_dtype, set_threads, no_gradients, change_folder, set_seeds, ignore_errors, print_short, ignore_warnings,
            clear_variables, draw_badly, recurse_deeper]


def examined(answer):
    """The rows, after it was seen that nothing of this process changed, and that it took little time."""
    before, threads, begin = settings(), threading.active_count(), time.monotonic()
    rows = engine.examine("9.1", answer, SECONDS)
    assert time.monotonic() - begin < 8
    after = settings()
    assert [name for name in before if before[name] != after[name]] == []
    assert threading.active_count() <= threads
    return rows


def test_there_are_many():
    assert len(WRONG) + len(ENDLESS) + len(GONE) + len(RIGHT) + len(SETTINGS) >= 55


@ONLY_A_PROCESS
@pytest.mark.parametrize("answer", RIGHT + SETTINGS)
def test_what_an_answer_changes_ends_with_it(answer):
    assert engine.passes(examined(answer))


@pytest.mark.parametrize("answer", SETTINGS)
def test_a_thread_puts_settings_back(answer, monkeypatch):
    monkeypatch.setattr(guard, "CAN_FORK", False)
    assert engine.passes(examined(answer))


@ONLY_A_PROCESS
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_told(name):
    rows = examined(WRONG[name])
    assert rows and not engine.passes(rows) and all(row.hint != engine.GONE for row in rows)
    json.dumps(rows)


@ONLY_A_PROCESS
@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_answer_is_ended(name):
    rows = examined(ENDLESS[name])
    assert [row.hint for row in rows] == [engine.ENDLESS] and rows[0].claim == "two times"


@ONLY_A_PROCESS
@pytest.mark.parametrize("name", GONE)
def test_an_answer_that_ends_python_ends_its_own(name):
    rows = examined(GONE[name])
    assert [row.hint for row in rows] == [engine.GONE] and rows[0].yours == "Python has ended"


@ONLY_A_PROCESS
def test_what_an_answer_prints_is_shown_and_cut(capfd):
    engine.examine("9.1", print_a_lot)
    engine.examine("9.1", write_to_the_terminal)
    engine.examine("9.1", warn)
    out, err = capfd.readouterr()
    assert out == "y" * guard.SHOWN + "straight to the file" * 2
    assert "mind the gap" in err


@ONLY_A_PROCESS
def test_a_program_that_an_answer_started_ends(tmp_path):
    def answer(x, n):
        program = subprocess.Popen(["sleep", "30"])
        (tmp_path / "number").write_text(str(program.pid))
        return x * n

    assert engine.passes(engine.examine("9.1", answer))
    state = Path(f"/proc/{(tmp_path / 'number').read_text()}/stat")
    end = time.monotonic() + 5
    while state.is_file() and state.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.01)
    assert not state.is_file() or state.read_text().split()[2] == "Z"


@ONLY_A_PROCESS
def test_threads_of_openmp_in_the_notebook_do_not_hold_a_check():
    """OpenMP's threads do not survive a fork: without care the first parallel loop of an answer would wait for ever."""
    code = """
import torch
from cdt_lite.teaching.check import examine, find, passes
torch.set_num_threads(4)
x = torch.randn(2**20, requires_grad=True)
(x * 2).exp().sum().backward()
for number in ("2.1", "4.3"):
    assert passes(examine(number, find(number).reference))
def answer(q, k, v):
    y = torch.randn(2**20, requires_grad=True)
    (y * 2).exp().sum().backward()
    return find("2.1").reference(q, k, v)
assert passes(examine("2.1", answer)) and torch.get_num_threads() == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "4"})


def test_a_loaded_machine_fails_no_right_answer(monkeypatch):
    """What counts is the time of computing: waiting for a core is not the answer's fault."""
    def waits(x, n):
        time.sleep(0.3)
        return x * n

    for can_fork in {guard.CAN_FORK, False}:
        monkeypatch.setattr(guard, "CAN_FORK", can_fork)
        assert engine.passes(engine.examine("9.1", waits, seconds=0.5))


@ONLY_A_PROCESS
def test_pressing_stop_ends_the_process():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        engine.examine("9.1", deaf, 20.0)
    assert not multiprocessing.active_children()


@ONLY_A_PROCESS
def test_a_fork_beside_threads_warns_nobody(recwarn):
    """Python 3.12 and later warn of it, since the threads do not come along: here nobody waits for them."""
    warnings.simplefilter("error")
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    assert engine.passes(engine.examine("9.1", scale.reference))
    waiting.set()
    thread.join()
    assert not recwarn.list


@pytest.mark.parametrize("name", ["loops", "sleeps briefly"])
def test_a_thread_ends_too_where_it_can(name, monkeypatch):
    monkeypatch.setattr(guard, "CAN_FORK", False)
    before = threading.active_count()
    answers = ENDLESS | {"sleeps briefly": lambda x, n: time.sleep(2.5)}
    begin = time.monotonic()
    rows = engine.examine("9.1", answers[name], SECONDS)
    assert [row.hint for row in rows] == [engine.ENDLESS] and time.monotonic() - begin < 5
    while threading.active_count() > before and time.monotonic() - begin < 15:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_a_right_answer_and_a_stub_in_a_thread(monkeypatch):
    monkeypatch.setattr(guard, "CAN_FORK", False)
    assert engine.passes(engine.examine("9.1", scale.reference))
    assert engine.examine("9.1", lambda x, n: ...) == []
    assert not engine.passes(engine.examine("9.1", raise_from(KeyboardInterrupt())))
