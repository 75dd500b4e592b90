"""Errors at the door: one exception type, and close matches for a misspelt name."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


class CDTError(ValueError):
    """Bad input: the message says what was expected, what came and what to do."""


class CDTWarning(UserWarning):
    """Input that was read otherwise than it is written, or that promises less than it seems to."""


def require_between(name: str, value: Any, low: int | float, high: int | float = float("inf")) -> None:
    """Raises CDTError for a number outside low..high, and for one that is none."""
    is_number = isinstance(value, Real)
    if not is_number or not low <= value <= high:
        raise CDTError(f"{name} must lie in {low:g} to {high:g}, not {value!r}")


def require_whole(name: str, value: object, low: int = 0, high: int = 2**63 - 1) -> int:
    """Returns a whole number (numpy's, too) that lies in its range. Raises CDTError for another, a fraction or a bool.

    Args:
        name: What the number is called.
        value: The number.
        low: The least that makes sense.
        high: The most.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise CDTError(f"{name} must be a whole number from {low:,} to {high:,}, not {value!r}")
    return int(value)


def suggest(name: str, candidates: Iterable[str], n: int = 3) -> str:
    """Returns "; did you mean 'A', 'B'?" for names close to `name`, ignoring case, or an empty string."""
    by_lower = {str(c).lower(): str(c) for c in candidates}
    close = get_close_matches(str(name).lower(), by_lower, n=n, cutoff=0.6)
    return f"; did you mean {', '.join(repr(by_lower[c]) for c in close)}?" if close else ""
