"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.guessing import cheaper, guess, histogram_of, sinks
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.sentences import (
    apart,
    beside,
    dud_guides,
    explained,
    explains,
    in_short,
    levels,
    listed,
    moved,
    tipped,
    what_it_does,
)
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "apart", "as_html", "begin", "beside", "catch_up", "cheaper", "check",
    "differences_of_controls", "dud_guides", "explained", "explains", "guess", "guides_of", "held_out",
    "histogram_of", "in_short", "levels", "listed", "moved", "sinks", "tipped", "what_it_does", "with_bar",
]
