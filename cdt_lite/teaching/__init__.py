"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.leaning import bits_without, leans, worth
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.listening import (
    dial,
    direction,
    does_it_listen,
    emptied,
    table_alone,
    told,
    trusted,
    untrained,
    who_listens,
)
from cdt_lite.teaching.relatives import (
    by_sets,
    every_target,
    gate,
    relatives_of,
    sets_of,
    told_by_relatives,
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
    "HeldOut", "Lesson", "apart", "as_html", "begin", "beside", "bits_without", "by_sets", "catch_up",
    "check", "dial", "differences_of_controls", "direction", "does_it_listen", "dud_guides", "emptied", "every_target",
    "explained", "explains", "gate", "guides_of", "held_out", "in_short", "leans", "levels", "listed", "moved",
    "relatives_of", "sets_of", "table_alone", "tipped", "told", "told_by_relatives", "trusted", "untrained",
    "what_it_does", "who_listens", "with_bar", "worth",
]
