"""Every figure, drawn from the live model.

Drawing libraries are heavy: a name is loaded when it is first used. Notebooks also take the modules `plots`,
`accounting` and `cost` from here.
"""

from cdt_lite._lazy import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {
    "cells": ["by_depth", "on_components", "variation"],
    "cost": ["account"],
    "diagrams": ["DIAGRAMS"],
    "folder": ["make_figures"],
    "measured": ["attention_weights", "example"],
    "own_screen": ["hits_over_cells", "power_over_cells", "values_of_x", "what_a_panel_keeps"],
    "sketch": ["Diagram"],
})
