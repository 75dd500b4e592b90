"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.escapees import answers, shares_with_intervals
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.realism import (
    against_half,
    auc_in_classes,
    components,
    densities,
    gene_by_gene,
    mixing,
    same_depth,
    strength,
    way,
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
from cdt_lite.teaching.verdicts import (
    are_they_cells,
    between,
    centre_told,
    depths_told,
    escapees_told,
    guides_told,
    mixing_told,
    priced,
    still_apart,
    told_apart,
)
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "against_half", "answers", "apart", "are_they_cells", "as_html", "auc_in_classes",
    "begin", "beside", "between", "catch_up", "centre_told", "check", "components", "densities", "depths_told",
    "differences_of_controls", "dud_guides", "escapees_told", "explained", "explains", "gene_by_gene", "guides_of",
    "guides_told", "held_out", "in_short", "levels", "listed", "mixing", "mixing_told", "moved", "priced",
    "same_depth", "shares_with_intervals", "still_apart", "strength", "tipped", "told_apart", "way", "what_it_does",
    "with_bar",
]
