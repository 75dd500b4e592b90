"""Every figure, drawn from the live model.

Drawing libraries are heavy: a name, or a module, is loaded when it is first used.
"""

from cdt_lite._lazy import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {
    "accounting": [],
    "answers": ["with_intervals"],
    "cells": ["by_depth", "on_components", "variation"],
    "charts": [],
    "cost": ["account"],
    "diagrams": ["DIAGRAMS"],
    "fitting": ["beside_one", "memory_over_cells", "parts_of_a_batch", "weighed"],
    "folder": ["make_figures"],
    "generation": ["h_curves", "in_27_cells", "step_prices"],
    "hidden": ["guesses"],
    "judged": ["over_real", "scored", "side_by_side", "standings"],
    "likeness": ["clouds", "come_so_far", "correlations", "escapees", "priced", "quality"],
    "measured": ["animated", "attention_maps", "attention_weights", "down_and_up", "example"],
    "own_screen": ["hits_over_cells", "power_over_cells", "values_of_x", "what_a_panel_keeps"],
    "plots": [],
    "pretraining": ["beside_histograms", "joined", "losses"],
    "sketch": ["Diagram"],
    "trace": [],
})
