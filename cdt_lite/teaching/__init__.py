"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.bits import Rivals, cheaper, token_shares
from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.guessing import guess, sinks, surer
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out, held_out_sets
from cdt_lite.teaching.histograms import asked, histograms, intervals, saved
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
from cdt_lite.teaching.verdict import all_scores, averages, judgeable, plates, questions, verdicts
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "Mixture", "Rivals", "ahead_of", "all_scores", "apart", "as_html", "asked", "averages",
    "begin", "beside", "bits_curve", "catch_up", "cheaper", "check", "differences_of_controls", "does_it_help",
    "dud_guides", "explained", "explains", "field", "flattered", "from_masks", "furthest", "guess", "guides_of",
    "held_out", "held_out_sets", "hidden_bits", "histograms", "in_short", "in_the_field", "intervals", "judgeable",
    "kept_runs", "leaders", "levels", "listed", "masks_cost", "moved", "neighbours_tell", "passed", "plates",
    "questions", "right_way", "same_losses", "saved", "shown_before", "shows", "silence", "sinks", "small_network",
    "steps_cost", "surer", "tipped", "token_shares", "told_apart", "top", "total_variation", "tried", "verdicts",
    "walk", "walked", "what_it_does", "why", "with_and_without", "with_bar", "with_errors", "with_spread", "written",
]
