"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.bits import NegativeBinomial, cheaper, counts_in_bins, histograms
from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.masks import masks_cost, steps_cost
from cdt_lite.teaching.mixture import Mixture, shows, tried, with_spread
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
    "HeldOut", "Lesson", "Mixture", "NegativeBinomial", "apart", "as_html", "begin", "beside", "catch_up",
    "cheaper", "check", "counts_in_bins", "differences_of_controls", "dud_guides", "explained", "explains",
    "guides_of", "held_out", "histograms", "in_short", "levels", "listed", "masks_cost", "moved", "shows",
    "steps_cost", "tipped", "tried", "what_it_does", "with_bar", "with_spread",
]
