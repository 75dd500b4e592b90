"""What notebooks use: the set-up line, figures with words, exercises and their checks."""

from cdt_lite.teaching.bits import Rivals, cheaper, intervals, token_shares
from cdt_lite.teaching.check import catch_up, check
from cdt_lite.teaching.escapees import answers, shares_with_intervals
from cdt_lite.teaching.fitting import (
    as_fast,
    fits_after_all,
    fits_on,
    grows,
    lighter,
    on_a_card,
    pace,
    pays,
    peaks,
    piled,
    rows_a_second,
    used,
)
from cdt_lite.teaching.guessing import guess, sinks, surer
from cdt_lite.teaching.held_out import HeldOut, differences_of_controls, guides_of, held_out, held_out_sets
from cdt_lite.teaching.histograms import asked, at_looks, histograms, saved
from cdt_lite.teaching.judging import (
    benchmark_summary,
    benchmark_table,
    explain_failure,
    flattered,
    formatted,
    furthest,
    leaders,
    real_cells_score,
    right_way,
    shown_before,
    silence,
    told_apart,
)
from cdt_lite.teaching.leaning import bits_without, leans, worth
from cdt_lite.teaching.lesson import Lesson, as_html, begin
from cdt_lite.teaching.likeness import (
    are_they_cells,
    between,
    centre_told,
    classifier_told,
    densities_told,
    depths_told,
    escapees_told,
    guides_told,
    mixing_told,
    still_apart,
    valley_told,
)
from cdt_lite.teaching.listening import (
    condition_table,
    dial,
    direction,
    does_it_listen,
    emptied,
    table_alone,
    trusted,
    untrained,
    who_listens,
)
from cdt_lite.teaching.loudest import carried, mean_of_others, one_change, others_moved, strongest_two
from cdt_lite.teaching.masks import (
    first_and_last,
    from_masks,
    hidden_bits,
    masks_cost,
    steps_cost,
    total_variation,
    walk,
    walked,
    with_errors,
)
from cdt_lite.teaching.mixture import Mixture, lost, shows, tried, with_spread
from cdt_lite.teaching.own_sentences import agree, cells_for, gives_away, leader, measured, of_use, one_answer, searched
from cdt_lite.teaching.own_tests import (
    all_candidates,
    by_cell_eval,
    hits_by_cells,
    kept_by_panel,
    simulated_genes,
)
from cdt_lite.teaching.pretraining import (
    ahead_of,
    does_it_help,
    kept_runs,
    neighbours_tell,
    passed,
    same_losses,
    with_and_without,
)
from cdt_lite.teaching.realism import (
    against_half,
    auc_in_classes,
    components,
    densities,
    gene_by_gene,
    has_say,
    mixing,
    normalised,
    same_depth,
    strength,
)
from cdt_lite.teaching.relatives import by_sets, every_target, relatives_of, sets_of, sets_used, told_by_relatives
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
from cdt_lite.teaching.strangers import Terminal, knock, strange_files, what_it_holds
from cdt_lite.teaching.together import (
    alone,
    begun,
    equal_batches,
    held_by,
    launch,
    losses_of,
    one_model,
    quicker,
    talk,
    weights_apart,
)
from cdt_lite.teaching.trials import ideas_told, tried_ideas, two_states, two_states_told
from cdt_lite.teaching.verdict import all_scores, averages, judgeable, plates, questions, verdicts
from cdt_lite.terminal import with_bar

__all__ = [
    "HeldOut", "Lesson", "Mixture", "Rivals", "Terminal", "against_half", "agree", "ahead_of", "all_candidates",
    "all_scores", "alone", "answers", "apart", "are_they_cells", "as_fast", "as_html", "asked", "at_looks",
    "auc_in_classes", "averages", "begin", "begun", "benchmark_summary", "benchmark_table", "beside", "between",
    "bits_curve", "bits_without", "by_cell_eval", "by_sets", "carried", "catch_up", "cells_for", "centre_told",
    "cheaper", "check", "classifier_told", "components", "condition_table", "densities", "densities_told",
    "depths_told", "dial", "differences_of_controls", "direction", "does_it_help", "does_it_listen", "dud_guides",
    "emptied", "equal_batches", "escapees_told", "every_target", "explain_failure", "explained", "explains",
    "first_and_last", "fits_after_all", "fits_on", "flattered", "formatted", "from_masks", "furthest",
    "gene_by_gene", "gives_away", "grows", "guess", "guides_of", "guides_told", "has_say", "held_by", "held_out",
    "held_out_sets", "hidden_bits", "histograms", "hits_by_cells", "ideas_told", "in_short", "intervals",
    "judgeable", "kept_by_panel", "kept_runs", "knock", "launch", "leader", "leaders", "leans", "levels", "lighter",
    "listed", "losses_of", "lost", "masks_cost", "mean_of_others", "measured", "mixing", "mixing_told", "moved",
    "neighbours_tell", "normalised", "of_use", "on_a_card", "one_answer", "one_change", "one_model", "others_moved",
    "pace", "passed", "pays", "peaks", "piled", "plates", "questions", "quicker", "real_cells_score",
    "relatives_of", "right_way", "rows_a_second", "same_depth", "same_losses", "saved", "searched", "sets_of",
    "sets_used", "shares_with_intervals", "shown_before", "shows", "silence", "simulated_genes", "sinks",
    "small_network", "steps_cost", "still_apart", "strange_files", "strength", "strongest_two", "surer",
    "table_alone", "talk", "tipped", "token_shares", "told_apart", "told_by_relatives", "total_variation", "tried",
    "tried_ideas", "trusted", "two_states", "two_states_told", "untrained", "used", "valley_told", "verdicts",
    "walk", "walked", "weights_apart", "what_it_does", "what_it_holds", "who_listens", "with_and_without", "with_bar",
    "with_errors", "with_spread", "worth",
]
