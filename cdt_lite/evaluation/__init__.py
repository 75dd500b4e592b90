"""How a prediction is judged, beside its baselines."""

# Imported at once, not when first used: `evaluate` is a function here, and a file of that name would hide it.

from cdt_lite.evaluation.baselines import BASELINES, Linear, Responses
from cdt_lite.evaluation.cells import Changes
from cdt_lite.evaluation.comparison import Comparison
from cdt_lite.evaluation.differential import differential_expression
from cdt_lite.evaluation.evaluate import check_unseen, control_halves, evaluate
from cdt_lite.evaluation.guides import guide_effects
from cdt_lite.evaluation.metrics import (
    METRICS,
    cell_sd_ratio,
    discrimination_score,
    energy_distance,
    library_size_sd_ratio,
    mae,
    pearson_delta,
    systema_pearson,
    two_sample_auc,
    two_sample_scores,
)
from cdt_lite.evaluation.power import cells_needed, detection_power, power_curve, smallest_change
from cdt_lite.evaluation.search import drawn_changes, hit_rate, mean_effects, places, search, similarity
from cdt_lite.evaluation.suites import suite_scores
from cdt_lite.evaluation.summary import bootstrap_means, compare, summarise

__all__ = [
    "BASELINES", "Changes", "Comparison", "Linear", "METRICS", "Responses", "bootstrap_means", "cell_sd_ratio",
    "cells_needed", "check_unseen", "compare", "control_halves", "detection_power", "differential_expression",
    "discrimination_score", "drawn_changes", "energy_distance", "evaluate", "guide_effects", "hit_rate",
    "library_size_sd_ratio", "mae", "mean_effects", "pearson_delta", "places", "power_curve", "search", "similarity",
    "smallest_change", "suite_scores", "summarise", "systema_pearson", "two_sample_auc", "two_sample_scores",
]
