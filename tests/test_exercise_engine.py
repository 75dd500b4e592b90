"""The machinery of the exercises: nothing that a learner's function does may hurt it, or fool it."""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cdt_lite import files
from cdt_lite.errors import CDTError
from cdt_lite.teaching import guard, progress
from cdt_lite.teaching.check import exercise
from cdt_lite.teaching.compare import short

engine = importlib.import_module("cdt_lite.teaching.check")  # the package's own name `check` is the function


@exercise("9.1", "Scale it", difficulty=1, minutes=2, objective="scale a vector", misconception="that n is always two",
          hints=("a", "b"))
def demo(x, n):
    """Returns x times n."""
    return x * n


@demo.requires("two times")
def _(fn):
    """You forgot n."""
    return torch.tensor([2.0, 4.0]), fn(torch.tensor([1.0, 2.0]), 2)


@demo.requires("many")
def _(fn):
    """You did one
    entry only.
    """
    return 3.0 * torch.arange(20), fn(torch.arange(20) * 1.0, 3)


scale = demo.reference
over = threading.Event()  # the test is over: what no check can end, ends now


@pytest.fixture(autouse=True)
def only_the_demo(monkeypatch, tmp_path):
    """One small exercise, and a record of its own."""
    monkeypatch.setattr(engine, "all_exercises", lambda: (demo,))
    monkeypatch.setenv("CDT_LITE_PROGRESS", str(tmp_path))
    monkeypatch.delenv("CDT_STRICT", raising=False)
    engine._LAST.clear()
    over.clear()
    yield
    over.set()


def test_an_exercise_is_made_of_functions_and_their_docstrings():
    assert demo.reference(2, 3) == 6 and demo.hints == ("a", "b")
    assert [(prop.claim, prop.hint) for prop in demo.properties] == [
        ("two times", "You forgot n."), ("many", "You did one entry only.")]


def in_place(x, n):
    x *= n
    return x


def endless(x, n):
    while True:
        pass


def endless_and_deaf(x, n):
    while not over.is_set():
        with contextlib.suppress(BaseException):
            time.sleep(0.001)


def asleep(x, n):
    time.sleep(1.5)  # outside Python, where no exception arrives


@pytest.mark.parametrize("answer, told", [
    (lambda x, n: x + n, "You forgot n."),
    (lambda x: x, "Your function takes (x), the exercise calls it with (x, n)"),
    (lambda x, n, more: x, "Your function takes (x, n, more)"),
    (lambda x, n: (x * n).numpy(), "array of float (2,)"),
    (lambda x, n: (x * n).long(), "tensor of integer (2,)"),
    (lambda x, n: (x * n)[None], "tensor of float (1, 2)"),
    (lambda x, n: (x * n).tolist(), "list"),
    (lambda x, n: None, "None"),
    (lambda x, n: 1 / 0, "ZeroDivisionError: division by zero"),
    (lambda x, n: undefined, "NameError"),
    (lambda x, n: sys.exit("bye"), "SystemExit"),
    (lambda x, n: lambda: x, "function"),
    (in_place, "You changed x in place"),
    (3, "Give the function itself"),
    (scale(1, 2), "Give the function itself"),
])
def test_a_bad_answer_fails_and_is_told_why(answer, told, capsys):
    assert engine.check("9.1", answer) is False
    rows = engine.examine("9.1", answer)
    assert any(told in part for row in rows for part in (row.yours, row.hint))
    printed = "".join(capsys.readouterr().out.split())  # the table wraps what is wider than its columns
    assert all("".join(row.hint.split()) in printed for row in rows if not row.holds)


@pytest.mark.parametrize("answer", [scale, lambda x, n: n * x, lambda x, n: sum([x] * n),
                                    lambda x, n=2: x * n, lambda *inputs: inputs[0] * inputs[1],
                                    lambda x, n: (x.double() * n)])
def test_right_answers_pass_also_a_copy_of_the_reference(answer, capsys):
    assert engine.check("9.1", answer) is True
    assert "2 of 2 hold. Well done." in capsys.readouterr().out


@pytest.mark.parametrize("answer", [endless, endless_and_deaf, asleep])
def test_an_endless_loop_is_stopped(answer, capsys):
    begin = time.monotonic()
    assert engine.check("9.1", answer, seconds=0.3) is False
    assert time.monotonic() - begin < 1.4
    assert "does not come to an end" in capsys.readouterr().out


def ended(before):
    """Whether all threads that are new since then are over, after five seconds at most."""
    end = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.01)
    return not set(threading.enumerate()) - before


def test_the_thread_of_an_endless_loop_ends():
    before = set(threading.enumerate())
    engine.examine("9.1", endless, seconds=0.2)
    assert ended(before)


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl+C there")
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_pressing_stop_ends_the_thread_even_while_it_starts(delay):
    before = set(threading.enumerate())

    def pressed():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)
        endless(1, 2)

    for _ in range(20 if delay == 0 else 1):
        with pytest.raises(KeyboardInterrupt):
            guard.limited(pressed, 10.0)
        assert ended(before)


def test_an_error_names_the_line_of_the_cell():
    cell = {}
    exec(compile("def broken(x, n):\n    y = x\n    return y / 0 + undefined\n", "/tmp/ipykernel_1/2.py", "exec"), cell)
    first, second = engine.examine("9.1", cell["broken"])
    assert first.hint.startswith("NameError: name 'undefined' is not defined, line 3 of your cell. If the message")
    assert second.hint == "The same error. You did one entry only."


def test_only_failing_rows_carry_a_hint(capsys):
    engine.check("9.1", lambda x, n: x * 2)
    out = capsys.readouterr().out
    assert "You did one entry only." in out and "You forgot n." not in out
    assert "ok   two times" in out and "NO   many" in out and "property" in out and "expected" in out
    assert "at [1]: 3" in out and "at [1]: 2" in out  # the first entry that differs
    assert "Begin with this row" not in out


def test_of_several_failures_the_first_is_named_and_nothing_is_wider_than_a_screen(capsys):
    engine.check("9.1", lambda x, n: (x + n).reshape(1, -1).double().numpy())
    lines = capsys.readouterr().out.splitlines()
    begin = [i for i, line in enumerate(lines) if "Begin with this row" in line]
    assert len(begin) == 1 and any("NO   two times" in line for line in lines[:begin[0]])
    assert any("NO   many" in line for line in lines[begin[0]:])
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("stub", [lambda x, n: ..., lambda x, n: (..., 1), ..., None])
def test_an_untouched_stub_is_not_attempted(stub, capsys):
    assert engine.check("9.1", stub) is False
    assert "not attempted yet" in capsys.readouterr().out
    assert not list(progress.folder().iterdir())  # and it is not a try


@pytest.mark.parametrize("answer", [lambda x, n: x, lambda x, n: ..., endless])
def test_strict_mode_raises(answer, monkeypatch):
    monkeypatch.setenv("CDT_STRICT", "1")
    with pytest.raises(AssertionError, match="Exercise 9.1"):
        engine.check("9.1", answer, seconds=0.3)
    assert engine.check("9.1", scale)


def test_catch_up_keeps_later_cells_alive(capsys):
    def own(x, n):
        return x * n

    assert engine.catch_up("9.1", own) is own and capsys.readouterr().out == ""
    engine.check("9.1", own)
    capsys.readouterr()
    for wrong in (lambda x, n: x, lambda x, n: ..., ...):
        assert engine.catch_up("9.1", wrong) is scale
        assert "reference answer" in capsys.readouterr().out


def test_a_number_without_quotes_is_understood():
    assert engine.check(9.1, scale) and engine.catch_up(9.1, scale) is scale
    assert record() == {"9.1": {"passed": 1, "tries": 1}}


def test_an_unknown_number_names_the_known_ones():
    with pytest.raises(CDTError, match=r"no exercise '9.11'; did you mean '9.1'.*notebook 9 has: 9.1"):
        engine.check("9.11", scale)
    with pytest.raises(CDTError, match="notebook 8 has: none"):
        engine.find("8.1")


def test_a_check_leaves_random_numbers_alone():
    def draws(x, n):
        return x * n + 0 * (torch.rand(1) + np.random.rand() + random.random())

    np.random.seed(1), torch.manual_seed(1)
    first = np.random.rand(), torch.rand(1).item()
    np.random.seed(1), torch.manual_seed(1)
    assert engine.passes(engine.examine("9.1", draws))
    assert (np.random.rand(), torch.rand(1).item()) == first
    state, chance = random.getstate(), guard.own_chance()
    with chance:  # the shapes' checker of these tests draws from `random` too, so the state itself is compared
        random.random()
        inside = random.getstate()
    assert inside != state and random.getstate() != inside


# ---- copies in, changes noticed


@pytest.mark.parametrize("value, spoil", [
    (torch.zeros(3), lambda v: v.add_(1)), (np.zeros(3), lambda v: v.fill(1)), ([1, 2], lambda v: v.append(3)),
    ({"a": np.zeros(2)}, lambda v: v["a"].fill(2)), ({"a": 1}, lambda v: v.update(b=2)),
    ((torch.zeros(2), 1), lambda v: v[0].add_(1)), ([torch.zeros(2)], lambda v: v[0].mul_(-1)),
], ids=lambda v: type(v).__name__)
def test_changes_are_noticed_and_never_reach_the_original(value, spoil):
    before = short(value)
    altered = set()
    guard.guarded(lambda x: None, ["x"], altered)(value)
    assert not altered
    guard.guarded(spoil, ["x"], altered)(value)
    assert altered == {"x"} and short(value) == before


def test_a_generator_is_handed_on_and_moves_on():
    generator = torch.Generator().manual_seed(0)
    draw = guard.guarded(lambda g: torch.rand(1, generator=g), ["g"], set())
    assert draw(generator) != draw(generator)


def test_gradients_flow_through_the_copies():
    x = torch.ones(2, requires_grad=True)
    guard.guarded(lambda x: (x * 3).sum(), ["x"], set())(x).backward()
    assert x.grad.tolist() == [3, 3]


# ---- the record of what is solved


def record():
    return json.loads((progress.folder() / "progress.json").read_text(encoding="utf-8"))["exercises"]


def test_the_record_counts_tries_and_never_forgets(capsys):
    engine.check("9.1", lambda x, n: x)
    assert record() == {"9.1": {"passed": 0, "tries": 1}}
    engine.check("9.1", scale)
    engine.check("9.1", lambda x, n: x)
    assert record() == {"9.1": {"passed": 1, "tries": 3}}
    assert "Solved so far: 1 of 1" in capsys.readouterr().out
    assert os.listdir(progress.folder()) == ["progress.json"]  # nothing half-written lies about


def test_exercises_that_are_gone_do_not_count(capsys):
    path = progress.folder() / "progress.json"
    gone = {"9.2": {"passed": 1, "tries": 1}, "7.1": {"passed": 1, "tries": 4}}
    path.write_text(json.dumps({"schema": progress.SCHEMA, "exercises": gone}), encoding="utf-8")
    engine.check("9.1", scale)
    assert "Solved so far: 1 of 1 exercises." in capsys.readouterr().out
    assert record().keys() == {"7.1", "9.1", "9.2"}  # and nothing that was solved is forgotten


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 99, "exercises": {}}', '{"schema": 1}', "\x00\xff",
                                     '{"schema": 1, "exercises": {"9.1": 3}}', '{"schema": 1, "exercises": []}'])
def test_an_unreadable_record_is_set_aside_in_one_line(content, capsys):
    path = progress.folder() / "progress.json"
    path.write_bytes(content.encode("latin-1"))
    assert engine.check("9.1", scale)
    said = [line for line in capsys.readouterr().out.splitlines() if "progress" in line]
    assert len(said) == 1 and "progress.unreadable.json" in said[0]
    assert (progress.folder() / "progress.unreadable.json").read_bytes() == content.encode("latin-1")
    assert record() == {"9.1": {"passed": 1, "tries": 1}}
    engine.check("9.1", scale)
    assert "unreadable" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_costs_only_the_record(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CDT_LITE_PROGRESS", str(tmp_path / "file"))
    assert engine.check("9.1", scale)
    assert "could not be saved" in capsys.readouterr().out


def test_the_record_lies_in_the_output_folder_of_a_checkout(monkeypatch):
    monkeypatch.delenv("CDT_LITE_PROGRESS")
    assert progress.folder().name == "output" and (progress.folder().parent / "run.py").is_file()


NOTE_SIXTY = """
import sys
from cdt_lite.teaching import progress
for i in range(60):
    progress.note(f"{sys.argv[1]}.{i}", True)
"""


def test_two_notebooks_at_once_lose_nothing():
    running = [subprocess.Popen([sys.executable, "-c", NOTE_SIXTY, number]) for number in ("1", "2")]
    assert [program.wait(60) for program in running] == [0, 0]
    assert len(record()) == 120 and all(entry == {"passed": 1, "tries": 1} for entry in record().values())


def test_a_notebook_that_never_lets_go_costs_only_the_record(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    with files.locked(progress.folder(), "progress", "a test"):
        assert engine.check("9.1", scale)
    assert "could not be saved (CDTError)" in capsys.readouterr().out


@pytest.mark.parametrize("made", [True, False], ids=["with output", "without"])
def test_a_shared_checkout_that_is_read_only_records_in_the_learners_own_folder(monkeypatch, tmp_path, made):
    shared, home = tmp_path / "shared", tmp_path / "home"
    (shared / "cdt_lite" / "teaching").mkdir(parents=True)
    (shared / "run.py").touch()
    if made:
        (shared / "output").mkdir()
    monkeypatch.delenv("CDT_LITE_PROGRESS")
    monkeypatch.setattr(progress, "__file__", str(shared / "cdt_lite" / "teaching" / "progress.py"))
    monkeypatch.setattr(progress.Path, "home", lambda: home)
    assert progress.folder() == shared / "output"
    monkeypatch.setattr(progress.os, "access", lambda path, mode: not Path(path).is_relative_to(shared))
    assert engine.check("9.1", scale) and record() == {"9.1": {"passed": 1, "tries": 1}}
    assert progress.folder() == home / ".cdt-lite" and not list(shared.rglob("*.json"))


def test_a_learner_without_a_home_can_check(monkeypatch, capsys):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CDT_LITE_PROGRESS")
    monkeypatch.setattr(progress.os, "access", lambda path, mode: False)
    monkeypatch.setattr(progress.Path, "home", no_home)
    assert engine.check("9.1", scale)
    assert "could not be saved (RuntimeError)" in capsys.readouterr().out
