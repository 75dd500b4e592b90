"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.histograms import asked, histograms, interval, saved
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.pretraining import (
    ahead_of,
    does_it_help,
    kept_runs,
    neighbours_tell,
    passed,
    same_losses,
    with_and_without,
)
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
    "HeldOut", "Lesson", "ahead_of", "apart", "as_html", "asked", "begin", "beside", "catch_up", "check",
    "differences_of_controls", "does_it_help", "dud_guides", "explained", "explains", "guides_of", "held_out",
    "histograms", "in_short", "interval", "kept_runs", "levels", "listed", "moved", "neighbours_tell", "passed",
    "same_losses", "saved", "tipped", "what_it_does", "with_and_without", "with_bar",
]
