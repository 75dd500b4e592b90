"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.own_sentences import agree, cells_for, gives_away, leader, searched
from cdt_lite.teaching.own_tests import (
    all_candidates,
    by_cell_eval,
    hits_by_cells,
    kept_by_panel,
    never_trained,
    replicate_means,
    simulated_genes,
    table_alone,
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
from cdt_lite.teaching.strangers import Terminal, knock, strange_files, what_it_holds
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "apart", "as_html", "begin", "beside", "catch_up", "check", "differences_of_controls",
    "dud_guides", "explained", "explains", "guides_of", "held_out", "in_short", "levels", "listed", "moved", "tipped",
    "what_it_does", "with_bar",
    "Terminal", "agree", "all_candidates", "by_cell_eval", "cells_for", "gives_away", "hits_by_cells",
    "kept_by_panel", "knock", "leader", "never_trained", "replicate_means", "searched", "simulated_genes",
    "strange_files", "table_alone", "what_it_holds",
]
