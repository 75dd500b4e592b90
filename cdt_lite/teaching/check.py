"""Exercises, and `check`: does a learner's function have the properties that the exercise asks for?

A property compares the learner's result with a hand value or an independent formula, never with the learner's own code.
"""

import importlib
import inspect
import os
import pkgutil
import re
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

from cdt_lite.errors import CDTError, suggest
from cdt_lite.teaching import exercises, progress
from cdt_lite.teaching.compare import compare, type_name
from cdt_lite.teaching.guard import Died, NotAttempted, Tell, TimeUp, apart, guarded

Answer = Callable[..., Any]
# what is expected, and what the learner's function gave; then, by hint, what typical wrong answers give
Pair = tuple[Any, Any] | tuple[Any, Any, dict[str, Any]]
Run = Callable[[Answer], Pair]
SECONDS = 10.0  # of computing: a check takes well under 2, and more than five times that counts as endless
CLAIM, WIDTH, HINT = 44, 18, 88  # columns of the table and its hints: it fits a browser window of 1280 pixels
ENDLESS = ("Your function does not come to an end: look for a loop whose condition never becomes false. The properties "
           "after this one were not tried.")
GONE = ("Your function ended Python itself: an exit, a crash, or all memory used. The properties after this one were "
        "not tried.")
_LAST: dict[str, tuple[Answer, bool]] = {}  # the answer checked last, so that catch_up need not check it again


class Property(NamedTuple):
    """One row of the table: changed inputs, errors and endless loops are noticed around `run`."""

    claim: str  # what must hold, in a few words: "the counts sum to n_genes"
    run: Run
    hint: str  # shown if it does not hold; names the misconception


@dataclass(frozen=True)
class Exercise:
    """One exercise: what its card says, a right answer, and what is asked of an answer."""

    number: str  # "3.2": notebook and place
    title: str
    difficulty: int  # 1 to 5
    minutes: int
    objective: str  # what one can do after it
    misconception: str  # what it cures
    reference: Answer  # its signature is the stub's, and `catch_up` hands it out
    properties: list[Property]
    hints: tuple[str, ...]  # each says more than the one before; the notebook shows them folded

    def requires(self, claim: str) -> Callable[[Run], Run]:
        """Makes a property of the function below: it returns (expected, yours), and its docstring is the hint.

        A third value, a dict, has hints of their own for what typical wrong answers give.
        """

        def add(run: Run) -> Run:
            self.properties.append(Property(claim, run, " ".join((run.__doc__ or "").split())))
            return run

        return add


def exercise(number: str, title: str, *, difficulty: int, minutes: int, objective: str, misconception: str,
             hints: tuple[str, ...]) -> Callable[[Answer], Exercise]:
    """Makes an exercise, still without properties, of the function below: its reference answer."""
    card = partial(Exercise, number, title, difficulty, minutes, objective, misconception)
    return lambda reference: card(reference, [], hints)


class Row(NamedTuple):
    """What became of one property."""

    claim: str
    holds: bool
    expected: str
    yours: str
    hint: str  # for the case that it does not hold


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
    known = {exercise.number: exercise for exercise in all_exercises()}
    if number in known:
        return known[number]
    notebook = number.split(".")[0]
    near = [name for name in known if name.startswith(f"{notebook}.")]
    told = ", ".join(near) or "none"
    raise CDTError(f"no exercise {number!r}{suggest(number, near)}; notebook {notebook} has: {told}")


def examine(number: str, fn: Any, seconds: float = SECONDS) -> list[Row]:
    """Tries every property of an exercise on a function; returns one row each, none for an untouched stub."""
    exercise = find(number)
    if fn is None or fn is Ellipsis:
        return []
    rows: list[Row] = []
    altered: list[str] = []

    def hear(told: Any) -> None:
        if told is None:
            raise NotAttempted
        row, altered[:] = told
        rows.append(Row(*row))

    ended = None
    try:
        apart(partial(_try_all, exercise, fn), hear, seconds)
    except NotAttempted:
        return []
    except TimeUp:
        ended = "an answer", f"none after {seconds:g} s", ENDLESS
    except Died:
        ended = "an answer", "Python has ended", GONE
    if ended and len(rows) < len(exercise.properties):
        rows.append(Row(exercise.properties[len(rows)].claim, False, *ended))
    if altered:
        names = ", ".join(altered)
        hint = f"You changed {names} in place, and later cells need it: work on a copy (.clone() or .copy())."
        rows.append(Row("its inputs stay as they were", False, "unchanged", f"{names} changed", hint))
    return rows


def _try_all(exercise: Exercise, fn: Any, tell: Tell) -> None:
    """Tells a row for every property, with the names of inputs changed so far; nothing but None for a stub."""
    if row := _unfit(fn, exercise):
        tell([row, []])
        return
    altered: set[str] = set()
    answer = guarded(fn, list(inspect.signature(exercise.reference).parameters), altered)
    rows: list[Row] = []
    for prop in exercise.properties:
        try:
            rows.append(_row(prop, answer, rows))
        except NotAttempted:
            tell(None)
            return
        tell([rows[-1], sorted(altered)])


def passes(rows: list[Row]) -> bool:
    """Says whether every property holds."""
    return bool(rows) and all(row.holds for row in rows)


def _unfit(fn: Any, exercise: Exercise) -> Row | None:
    """Says if a value cannot be called with the arguments that the reference takes."""
    if not callable(fn):
        hint = f"Give the function itself, without calling it: check({exercise.number!r}, your_function)."
        return Row("it is a function", False, "a function", type(fn).__name__, hint)
    wanted = inspect.signature(exercise.reference).parameters
    needed = [parameter for parameter in wanted.values() if parameter.default is parameter.empty]
    try:
        own = inspect.signature(fn)
    except Exception:  # built-in functions may not tell theirs, odd objects raise anything; the call itself will tell
        return None
    try:
        own.bind(*needed)
    except TypeError:
        stub, yours = ", ".join(wanted), ", ".join(own.parameters) or "nothing"
        hint = f"Your function takes ({yours}), the exercise calls it with ({stub}): keep the first line."
        return Row("it takes the arguments of the stub", False, stub, yours, hint)
    return None


def _row(prop: Property, answer: Answer, before: list[Row]) -> Row:
    """Tries one property; an error from the learner's code is named, with its line, at length the first time."""
    try:
        expected, yours, *faults = prop.run(answer)
        holds, wanted, got = compare(expected, yours)
        for fault, value in faults[0].items() if faults and not holds else ():
            if compare(value, yours)[0]:
                return Row(prop.claim, False, wanted, got, fault)
        types = "Compare type and shape first. " if (wanted, got) == (type_name(expected), type_name(yours)) else ""
    except (NotAttempted, TimeUp):
        raise
    except BaseException as error:  # a learner's exit() is an error like any other
        kind = type(error).__name__
        said = textwrap.shorten(f"{kind}: {_words(error)}", 200, placeholder="...")
        frames = traceback.extract_tb(error.__traceback__)
        if cells := [frame.lineno for frame in frames if re.search("ipykernel|ipython", frame.filename)]:
            said += f", line {cells[-1]} of your cell"
        told = any(row.hint.startswith(said) for row in before)
        first = "The same error." if told else f"{said}. If the message does not help:"
        return Row(prop.claim, False, "a result", f"raised {kind}", f"{first} {prop.hint}")
    return Row(prop.claim, holds, wanted, got, types + prop.hint)


def _words(error: BaseException) -> str:
    """Returns an error's message, if it has one that can be shown."""
    try:
        return str(error)
    except Exception:
        return "its message cannot be shown"


def report(exercise: Exercise, rows: list[Row]) -> str:
    """Writes the table: property | expected | yours, and under each row that fails its hint."""
    head = f"Exercise {exercise.number}: {exercise.title}"
    if not rows:
        return f"{head}: not attempted yet. Replace the dots in the stub, run its cell, then this one."
    failed = [row for row in rows if not row.holds]
    lines = [f"{head}: {len(rows) - len(failed)} of {len(rows)} hold{'' if failed else '. Well done.'}",
             f"     {'property':<{CLAIM}} | {'expected':<{WIDTH}} | {'yours':<{WIDTH}} | hint"]
    for row in rows:
        mark = "ok" if row.holds else "NO"
        columns = [mark], *map(textwrap.wrap, (row.claim, row.expected, row.yours), (CLAIM, WIDTH, WIDTH))
        for mark, claim, expected, yours in zip_longest(*columns, fillvalue=""):
            lines.append(f"{mark:<4} {claim:<{CLAIM}} | {expected:<{WIDTH}} | {yours}")
        if row.holds:
            continue
        sure = "hint" if row is failed[0] else "maybe"
        lines += textwrap.wrap(f"{sure}: {row.hint}", HINT, initial_indent=" " * 5, subsequent_indent=" " * 11)
        if row is failed[0] and len(failed) > 1:
            lines.append("     (Begin with this row: those below may follow from it, and their hints may not fit.)")
    return "\n".join(lines)


def check(number: str | float, fn: Any, seconds: float = SECONDS) -> bool:
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
    number = str(number)  # 3.2 is taken for "3.2"
    rows = examine(number, fn, seconds)
    passed = passes(rows)
    text = report(find(number), rows)
    _LAST[number] = fn, passed
    if os.environ.get("CDT_STRICT", "0") not in ("", "0"):
        assert passed, text
    print(text)
    if rows:
        solved, trouble = progress.note(number, passed)
        if passed:
            known = {exercise.number for exercise in all_exercises()}  # a record may name some that are gone
            print(f"Solved so far: {len(known & solved)} of {len(known)} exercises.")
        if trouble:
            print(trouble)
    return passed


def catch_up(number: str | float, fn: Any) -> Answer:
    """Returns your function if it passes its check, else a right one, so that later cells work; says which."""
    number = str(number)
    checked, passed = _LAST.get(number, (None, False))
    if fn is not checked:
        passed = passes(examine(number, fn))
    if passed:
        return fn
    print(f"Exercise {number}: the cells below use the reference answer until yours passes.")
    return find(number).reference
