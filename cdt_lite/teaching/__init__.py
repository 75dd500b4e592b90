"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.judging import (
    field,
    flattered,
    furthest,
    in_the_field,
    leaders,
    right_way,
    shown_before,
    silence,
    told_apart,
    top,
    why,
    written,
)
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
from cdt_lite.teaching.verdict import all_scores, averages, judgeable, plates, questions, verdicts
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "all_scores", "apart", "as_html", "averages", "begin", "beside", "catch_up", "check",
    "differences_of_controls", "dud_guides", "explained", "explains", "field", "flattered", "furthest", "guides_of",
    "held_out", "in_short", "in_the_field", "judgeable", "leaders", "levels", "listed", "moved", "plates", "questions",
    "right_way", "shown_before", "silence", "tipped", "told_apart", "top", "verdicts", "what_it_does", "why",
    "with_bar", "written",
]
