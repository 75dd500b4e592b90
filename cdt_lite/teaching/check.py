"""Exercises as data, and `check`: does a learner's function have the properties that the exercise asks for?

A property compares the learner's result with a hand value or an independent formula, never with the learner's own code.
"""

import importlib
import inspect
import os
import pkgutil
import re
import textwrap
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cdt_lite.errors import CDTError, suggest
from cdt_lite.teaching import exercises, progress
from cdt_lite.teaching.compare import compare, type_name
from cdt_lite.teaching.guard import NotAttempted, guarded, limited, own_chance, remaining

Answer = Callable[..., Any]
SECONDS = 10.0  # a check takes well under 2 s; a busy laptop gets five times that before a loop counts as endless
CLAIM, WIDTH, HINT = 44, 18, 88  # columns of the table and its hints: it fits a browser window of 1280 pixels
MODULE = re.compile(r"ex(\d\d)[a-z]?")
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
    run: Callable[[Answer], tuple[Any, Any]]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

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
    properties: tuple[Property, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One property's verdict."""

    claim: str
    holds: bool
    expected: str
    yours: str
    hint: str = ""


@dataclass
class Verdict:
    """What `check` found; `attempted` is false for an untouched stub."""

    exercise: Exercise
    rows: list[Row] = field(default_factory=list)
    attempted: bool = True

    @property
    def passed(self) -> bool:
        """Whether every property holds."""
        return self.attempted and all(row.holds for row in self.rows)


def _modules() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(exercises.__path__) if MODULE.fullmatch(m.name))


def _load(names: list[str]) -> dict[str, Exercise]:
    found: dict[str, Exercise] = {}
    for name in names:
        for exercise in importlib.import_module(f"cdt_lite.teaching.exercises.{name}").EXERCISES:
            if exercise.number in found:
                raise CDTError(f"two exercises are numbered {exercise.number}")
            found[exercise.number] = exercise
    return found


def all_exercises() -> tuple[Exercise, ...]:
    """Returns every exercise, in the order of notebooks and numbers."""
    found = _load(_modules())
    return tuple(found[n] for n in sorted(found, key=lambda n: [int(part) for part in n.split(".")]))


def find(number: str) -> Exercise:
    """Returns one exercise by its number, such as "3.2".

    Raises:
        CDTError: No exercise has this number.
    """
    notebook = str(number).split(".")[0]
    near = _load([name for name in _modules() if name[2:4] == notebook.zfill(2)])
    if str(number) not in near:
        known = ", ".join(near) or "none"
        raise CDTError(f"no exercise {number!r}{suggest(str(number), near)}; notebook {notebook} has: {known}")
    return near[str(number)]


def _arity(fn: Answer, reference: Answer) -> Row | None:
    """Says if a function cannot be called with the arguments that the reference takes."""
    wanted = inspect.signature(reference)
    needed = [p for p in wanted.parameters.values() if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    try:
        own = inspect.signature(fn)
    except (TypeError, ValueError):  # built-in functions may not tell theirs; the call itself will
        return None
    try:
        own.bind(*[None] * len(needed))
        return None
    except TypeError:
        names = [", ".join(s.parameters) or "nothing" for s in (wanted, own)]
        return Row("it takes the arguments of the stub", False, names[0], names[1],
                   f"Your function takes ({names[1]}), the exercise calls it with ({names[0]}): keep the first line.")


def _failed(prop: Property, error: BaseException, told: set[str]) -> Row:
    """Turns an exception from the learner's code into a row that names it and its line, at length the first time."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if "cdt_lite" not in f.filename
             and ("ipykernel" in f.filename or f.filename.startswith("<"))]
    where = f", line {lines[-1]} of your cell" if lines else ""
    said = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder="...") + where
    first = "The same error." if said in told else f"{said}. If the message does not help:"
    told.add(said)
    return Row(prop.claim, False, "a result", f"raised {type(error).__name__}", f"{first} {prop.hint}")


def examine(number: str, fn: Any, seconds: float = SECONDS) -> Verdict:
    """Runs every property of an exercise on a function, and prints nothing."""
    exercise = find(number)
    verdict = Verdict(exercise)
    if fn is None or fn is Ellipsis:
        verdict.attempted = False
        return verdict
    if not callable(fn):
        verdict.rows.append(Row("it is a function", False, "a function", type(fn).__name__,
                                f"Give the function itself, without calling it: check({number!r}, your_function)."))
        return verdict
    if row := _arity(fn, exercise.reference):
        verdict.rows.append(row)
        return verdict
    altered, told = set[str](), set[str]()
    answer, deadline = guarded(fn, altered), time.monotonic() + seconds
    with own_chance():
        for prop in exercise.properties:
            outcome = limited(partial(prop.run, answer), remaining(deadline))
            if isinstance(outcome.error, NotAttempted):
                verdict.attempted = False
                return verdict
            if outcome.late:
                verdict.rows.append(Row(prop.claim, False, "an answer", f"none after {seconds:g} s",
                                        "Your function does not come to an end: look for a loop whose condition never "
                                        "becomes false. The properties after this one were not tried."))
                break
            verdict.rows.append(_failed(prop, outcome.error, told) if outcome.error else _judged(prop, outcome.value))
    if altered:
        names = ", ".join(sorted(altered))
        verdict.rows.append(Row("its inputs stay as they were", False, "unchanged", f"{names} changed",
                                f"You changed {names} in place, and later cells still need it: work on a copy "
                                "(.clone() of a tensor, .copy() of an array)."))
    return verdict


def _judged(prop: Property, values: tuple[Any, Any]) -> Row:
    """Compares expected and yours; a value that cannot be compared is a wrong value, not an error."""
    expected, yours = values
    try:
        holds, wanted, got = compare(expected, yours)
    except Exception as error:
        holds, wanted, got = False, "a comparable value", f"{type(yours).__name__} ({type(error).__name__})"
    kind = "Compare type and shape first. " if wanted == type_name(expected) and got == type_name(yours) else ""
    return Row(prop.claim, holds, wanted, got, "" if holds else kind + prop.hint)


def report(verdict: Verdict) -> str:
    """Writes the table: property | expected | yours, and under each row that fails its hint."""
    head = f"Exercise {verdict.exercise.number}: {verdict.exercise.title}"
    if not verdict.attempted:
        return f"{head}: not attempted yet. Replace the dots in the stub, run its cell, then this one."
    right = sum(row.holds for row in verdict.rows)
    lines = [f"{head}: {right} of {len(verdict.rows)} hold" + (". Well done." if verdict.passed else ""),
             f"     {'property':<{CLAIM}} | {'expected':<{WIDTH}} | {'yours':<{WIDTH}} | hint"]
    failed = [row for row in verdict.rows if not row.holds]
    for row in verdict.rows:
        columns = [textwrap.wrap(text, width) or [""] for text, width in
                   ((row.claim, CLAIM), (row.expected, WIDTH), (row.yours, WIDTH))]
        for i in range(max(map(len, columns))):
            mark = ("ok  " if row.holds else "NO  ") if i == 0 else "    "
            claim, expected, yours = (column[i] if i < len(column) else "" for column in columns)
            lines.append(f"{mark} {claim:<{CLAIM}} | {expected:<{WIDTH}} | {yours}")
        if row.hint:
            sure = "hint" if row is failed[0] else "maybe"
            lines += textwrap.wrap(f"{sure}: {row.hint}", HINT, initial_indent=" " * 5, subsequent_indent=" " * 11)
        if len(failed) > 1 and row is failed[0]:
            lines.append("     (Begin with this row: those below may follow from it, and their hints may not fit.)")
    return "\n".join(lines)


def _so_far(solved: int) -> str:
    """Writes how many exercises are solved, without those of a record from another version that are gone."""
    known = {exercise.number for exercise in all_exercises()}
    kept, _ = progress.read(progress.folder() / "progress.json")
    gone = sum(entry["passed"] for number, entry in kept.items() if number not in known)
    return f"Solved so far: {solved - gone} of {len(known)} exercises."


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
        solved, said = progress.note(number, verdict.passed)
        notes = [_so_far(solved)] if verdict.passed else []
        print(*notes, *[said] * bool(said), sep="\n", end="\n" if notes or said else "")
    return verdict.passed


def catch_up(number: str, fn: Any) -> Answer:
    """Returns your function if it passes its check, else a right one, so that later cells work; says which."""
    last = _LAST.get(number)
    passed = last[1] if last and last[0] is fn else examine(number, fn).passed
    if passed:
        return fn
    print(f"Exercise {number}: the cells below use the reference answer until yours passes.")
    return find(number).reference
