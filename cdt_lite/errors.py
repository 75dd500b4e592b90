"""Errors at the door: one exception type, and close matches for a misspelt name."""

from collections.abc import Iterable
from difflib import get_close_matches


class CDTError(ValueError):
    """Bad input: the message says what was expected, what came and what to do."""


class CDTWarning(UserWarning):
    """Input that was read otherwise than it is written, or that promises less than it seems to."""


def suggest(name: str, candidates: Iterable[str], n: int = 3) -> str:
    """Returns "; did you mean 'A', 'B'?" for names close to `name`, ignoring case, or an empty string."""
    by_lower = {str(c).lower(): str(c) for c in candidates}
    close = get_close_matches(str(name).lower(), by_lower, n=n, cutoff=0.6)
    return f"; did you mean {', '.join(repr(by_lower[c]) for c in close)}?" if close else ""
