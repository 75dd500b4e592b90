"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.terminal import with_bar

__all__ = ["Lesson", "as_html", "begin", "catch_up", "check", "with_bar"]
