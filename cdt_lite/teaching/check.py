"""Exercises, and `check`: does a learner's function have the properties that the exercise asks for?

A property compares the learner's result with a hand value or an independent formula, never with the learner's own code.
"""

import importlib
import inspect
import os
import pkgutil
import textwrap
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

from cdt_lite.errors import CDTError, suggest
from cdt_lite.teaching import exercises, progress
from cdt_lite.teaching.compare import compare, type_name
from cdt_lite.teaching.guard import Guarded, NotAttempted, TimeUp, limited, own_chance

Answer = Callable[..., Any]
Pair = tuple[Any, Any]
Run = Callable[[Answer], Pair]
SECONDS = 10.0  # a check takes well under 2 s; a busy laptop gets five times that before a loop counts as endless
CLAIM, WIDTH, HINT = 44, 18, 88  # columns of the table and its hints: it fits a browser window of 1280 pixels
_LAST: dict[str, tuple[Answer, bool]] = {}  # the answer checked last, so that catch_up need not check it again


@dataclass(frozen=True)
class Property:
    """One row of the table that `check` prints.

    Args:
        claim: What must hold, in a few words: "the counts sum to n_genes".
        run: Takes the learner's function; returns (expected, yours). Changed inputs, errors and loops are noticed
            around it: it need not test for them.
        hint: Shown if it does not hold; names the misconception.
    """

    claim: str
    run: Run
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise, with what its card says.

    Args:
        number: "3.2": notebook and place.
        title: A few words.
        difficulty: 1 to 5.
        minutes: How long a learner needs.
        objective: What one can do after it.
        misconception: What it cures.
        reference: A right answer; its signature is the stub's, and `catch_up` hands it out.
        properties: What `check` tests.
        hints: The ladder of growing hints that the notebook shows folded.
    """

    number: str
    title: str
    difficulty: int
    minutes: int
    objective: str
    misconception: str
    reference: Answer
    properties: list[Property]
    hints: tuple[str, ...]

    def requires(self, claim: str) -> Callable[[Run], Run]:
        """Makes a property of the function below: it returns (expected, yours), and its docstring is the hint."""

        def add(run: Run) -> Run:
            hint = " ".join((run.__doc__ or "").split())
            self.properties.append(Property(claim, run, hint))
            return run

        return add


def exercise(number: str, title: str, *, difficulty: int, minutes: int, objective: str, misconception: str,
             hints: tuple[str, ...]) -> Callable[[Answer], Exercise]:
    """Makes an exercise of the function below, which is its reference answer; arguments as of Exercise."""

    def make(reference: Answer) -> Exercise:
        return Exercise(number, title, difficulty, minutes, objective, misconception, reference, [], hints)

    return make


@dataclass(frozen=True)
class Row:
    """One property's verdict."""

    claim: str
    holds: bool
    expected: str
    yours: str
    hint: str = ""


@dataclass(frozen=True)
class Verdict:
    """What `check` found; `attempted` is false for an untouched stub."""

    exercise: Exercise
    rows: list[Row] = field(default_factory=list)
    attempted: bool = True

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return self.attempted and all(row.holds for row in self.rows)


def all_exercises() -> tuple[Exercise, ...]:
    """Returns every exercise, in the order of the notebooks."""
    found: list[Exercise] = []
    for file in pkgutil.iter_modules(exercises.__path__):
        module = importlib.import_module(f"{exercises.__name__}.{file.name}")
        found += [value for value in vars(module).values() if isinstance(value, Exercise)]
    return tuple(found)


def find(number: str) -> Exercise:
    """Returns one exercise by its number, such as "3.2".

    Raises:
        CDTError: No exercise has this number.
    """
    number = str(number)
    notebook = number.split(".")[0]
    near = {}
    for candidate in all_exercises():
        if candidate.number == number:
            return candidate
        if candidate.number.split(".")[0] == notebook:
            near[candidate.number] = candidate
    known = ", ".join(near) or "none"
    raise CDTError(f"no exercise {number!r}{suggest(number, near)}; notebook {notebook} has: {known}")


def examine(number: str, fn: Any, seconds: float = SECONDS) -> Verdict:
    """Runs every property of an exercise on a function, and prints nothing."""
    exercise = find(number)
    if fn is None or fn is Ellipsis:
        return Verdict(exercise, attempted=False)
    if row := _unfit(fn, exercise):
        return Verdict(exercise, [row])
    try:
        with own_chance():
            return Verdict(exercise, _rows(fn, exercise, seconds))
    except NotAttempted:
        return Verdict(exercise, attempted=False)


def _unfit(fn: Any, exercise: Exercise) -> Row | None:
    """Says if a value cannot be called with the arguments that the reference takes."""
    if not callable(fn):
        hint = f"Give the function itself, without calling it: check({exercise.number!r}, your_function)."
        return Row("it is a function", False, "a function", type(fn).__name__, hint)
    wanted = inspect.signature(exercise.reference).parameters
    needed = [parameter for parameter in wanted.values() if parameter.default is parameter.empty]
    try:
        own = inspect.signature(fn)
    except (TypeError, ValueError):  # built-in functions may not tell theirs; the call itself will
        return None
    try:
        own.bind(*needed)
    except TypeError:
        stub, yours = ", ".join(wanted), ", ".join(own.parameters) or "nothing"
        hint = f"Your function takes ({yours}), the exercise calls it with ({stub}): keep the first line."
        return Row("it takes the arguments of the stub", False, stub, yours, hint)
    return None


def _rows(fn: Answer, exercise: Exercise, seconds: float) -> list[Row]:
    """Tries one property after the other, all within the given time."""
    rows: list[Row] = []
    told: set[str] = set()
    answer = Guarded(fn, list(inspect.signature(exercise.reference).parameters))
    end = time.monotonic() + seconds
    for prop in exercise.properties:
        try:
            expected, yours = limited(partial(prop.run, answer), end - time.monotonic())
        except (NotAttempted, KeyboardInterrupt):
            raise
        except TimeUp:
            hint = ("Your function does not come to an end: look for a loop whose condition never becomes false. The "
                    "properties after this one were not tried.")
            rows.append(Row(prop.claim, False, "an answer", f"none after {seconds:g} s", hint))
            break
        except BaseException as error:  # a learner's exit() is an error like any other
            rows.append(_failed(prop, error, told))
        else:
            rows.append(_judged(prop, expected, yours))
    if answer.altered:
        names = ", ".join(sorted(answer.altered))
        hint = (f"You changed {names} in place, and later cells still need it: work on a copy (.clone() of a tensor, "
                ".copy() of an array).")
        rows.append(Row("its inputs stay as they were", False, "unchanged", f"{names} changed", hint))
    return rows


def _failed(prop: Property, error: BaseException, told: set[str]) -> Row:
    """Turns an exception from the learner's code into a row that names it and its line, at length the first time."""
    kind = type(error).__name__
    said = textwrap.shorten(f"{kind}: {error}", 200, placeholder="...")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "ipykernel" in frame.filename or frame.filename.startswith("<ipython"):
            said += f", line {frame.lineno} of your cell"
            break
    first = "The same error." if said in told else f"{said}. If the message does not help:"
    told.add(said)
    return Row(prop.claim, False, "a result", f"raised {kind}", f"{first} {prop.hint}")


def _judged(prop: Property, expected: Any, yours: Any) -> Row:
    """Compares expected and yours; a value that cannot be compared is a wrong value, not an error."""
    try:
        holds, wanted, got = compare(expected, yours)
    except Exception as error:
        holds, wanted, got = False, "a comparable value", f"{type(yours).__name__} ({type(error).__name__})"
    if holds:
        return Row(prop.claim, True, wanted, got)
    only_types = wanted == type_name(expected) and got == type_name(yours)
    hint = f"Compare type and shape first. {prop.hint}" if only_types else prop.hint
    return Row(prop.claim, False, wanted, got, hint)


def report(verdict: Verdict) -> str:
    """Writes the table: property | expected | yours, and under each row that fails its hint."""
    head = f"Exercise {verdict.exercise.number}: {verdict.exercise.title}"
    if not verdict.attempted:
        return f"{head}: not attempted yet. Replace the dots in the stub, run its cell, then this one."
    failed = [row for row in verdict.rows if not row.holds]
    praise = "" if failed else ". Well done."
    lines = [f"{head}: {len(verdict.rows) - len(failed)} of {len(verdict.rows)} hold{praise}",
             f"     {'property':<{CLAIM}} | {'expected':<{WIDTH}} | {'yours':<{WIDTH}} | hint"]
    for row in verdict.rows:
        columns = [["ok" if row.holds else "NO"], textwrap.wrap(row.claim, CLAIM), textwrap.wrap(row.expected, WIDTH),
                   textwrap.wrap(row.yours, WIDTH)]
        for mark, claim, expected, yours in zip_longest(*columns, fillvalue=""):
            lines.append(f"{mark:<4} {claim:<{CLAIM}} | {expected:<{WIDTH}} | {yours}")
        if row.holds:
            continue
        sure = "hint" if row is failed[0] else "maybe"
        lines += textwrap.wrap(f"{sure}: {row.hint}", HINT, initial_indent=" " * 5, subsequent_indent=" " * 11)
        if row is failed[0] and len(failed) > 1:
            lines.append("     (Begin with this row: those below may follow from it, and their hints may not fit.)")
    return "\n".join(lines)


def check(number: str, fn: Any, seconds: float = SECONDS) -> bool:
    """Tests an answer and prints a table: property | expected | yours, with a hint under each row that fails.

    Args:
        number: The exercise, such as "3.2".
        fn: Your function (the function itself, not its result).
        seconds: When an answer counts as endless.

    Returns:
        Whether all properties hold. An untouched stub gives False and a friendly line.

    Raises:
        AssertionError: Not all hold, and CDT_STRICT=1 is set (as in the tests of this project).
        CDTError: No exercise has this number.
    """
    verdict = examine(number, fn, seconds)
    text = report(verdict)
    if callable(fn):
        _LAST[number] = fn, verdict.passed
    if os.environ.get("CDT_STRICT", "0") not in ("", "0"):
        assert verdict.passed, text
    print(text)
    if verdict.attempted:
        solved, trouble = progress.note(number, verdict.passed)
        if verdict.passed:
            known = {exercise.number for exercise in all_exercises()}  # a record may name some that are gone
            print(f"Solved so far: {len(known & solved)} of {len(known)} exercises.")
        if trouble:
            print(trouble)
    return verdict.passed


def catch_up(number: str, fn: Any) -> Answer:
    """Returns your function if it passes its check, else a right one, so that later cells work; says which."""
    checked, passed = _LAST.get(number, (None, False))
    if fn is not checked:
        passed = examine(number, fn).passed
    if passed:
        return fn
    print(f"Exercise {number}: the cells below use the reference answer until yours passes.")
    return find(number).reference
