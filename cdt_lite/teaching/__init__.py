"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.held_out import HeldOut, held_out
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.sentences import beside, levels, listed, moved, what_it_does
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "as_html", "begin", "beside", "catch_up", "check", "held_out", "levels", "listed", "moved",
    "what_it_does", "with_bar",
]
