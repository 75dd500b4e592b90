"""What may become of a case, and who says so."""

import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from cdt_lite.errors import CDTError

VERDICTS = ("right", "named", "bare", "wrong", "crash", "hang")


class Outcome(NamedTuple):
    """`right`: a value that an oracle expects; `named`: a CDTError, or one line and status 2; `bare`: another error;
    `wrong`: a value that no oracle expects. The pool adds `crash` and `hang`.
    """

    verdict: str
    what: str  # was tried
    said: str  # what came


def judge(what: str, act: Callable[[], Any], problem: Callable[[Any], str]) -> Outcome:
    """Does something; `problem` says what is wrong with the result, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = act()
    except CDTError as error:
        return Outcome("named", what, str(error)[:300])
    except BaseException as error:
        return Outcome("bare", what, named(error))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = problem(value)
    except BaseException as error:
        found = f"the oracle failed: {named(error)}"
    return Outcome("wrong" if found else "right", what, found[:300])


def named(error: BaseException) -> str:
    """An error with the place in the package where it rose."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "cdt_lite" in frame.filename] or frames[-1:]
    place = f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:200]}"
