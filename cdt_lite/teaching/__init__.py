"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.bits import Rivals, cheaper, token_shares
from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.guessing import guess, sinks, surer
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out, held_out_sets
from cdt_lite.teaching.histograms import asked, histograms, intervals, saved
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.masks import (
    from_masks,
    hidden_bits,
    masks_cost,
    steps_cost,
    total_variation,
    walk,
    walked,
    with_errors,
)
from cdt_lite.teaching.mixture import Mixture, shows, tried, with_spread
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
from cdt_lite.teaching.small import bits_curve, small_network
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "Mixture", "Rivals", "ahead_of", "apart", "as_html", "asked", "begin", "beside", "bits_curve",
    "catch_up", "cheaper", "check", "differences_of_controls", "does_it_help", "dud_guides", "explained", "explains",
    "from_masks", "guess", "guides_of", "held_out", "held_out_sets", "hidden_bits", "histograms", "in_short",
    "intervals", "kept_runs", "levels", "listed", "masks_cost", "moved", "neighbours_tell", "passed", "same_losses",
    "saved", "shows", "sinks", "small_network", "steps_cost", "surer", "tipped", "token_shares", "total_variation",
    "tried", "walk", "walked", "what_it_does", "with_and_without", "with_bar", "with_errors", "with_spread",
]
