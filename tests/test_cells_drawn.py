"""Figures of cells as they come: what is drawn is what was given."""

import numpy as np
import pandas as pd
import pytest

from cdt_lite.figures import by_depth, on_components, plots, variation
from cdt_lite.figures.cells import REPLICATES, SHOWN


@pytest.fixture
def cells():
    rng, n = np.random.default_rng(0), 4000
    target = rng.choice(["non-targeting", "A", "B"], n)
    batch = rng.choice(["rep_1", "rep_2"], n)
    numbers = {name: rng.normal(size=n) for name in ("PC1", "PC2")}
    counted = {"total_counts": rng.integers(20, 900, n), "n_genes_by_counts": rng.integers(9, 99, n)}
    return pd.DataFrame({"target_gene": target, "batch": batch, **numbers, **counted})


def test_cells_on_components_are_drawn_by_replicate_and_the_target_beside_controls_alone(cells):
    left, right = on_components(cells, "A").axes
    drawn = [len(ax.collections[0].get_offsets()) for ax in (left, right)]
    some = cells.sample(SHOWN, random_state=0)
    assert drawn == [SHOWN, some["target_gene"].isin(["non-targeting", "A"]).sum()]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["rep_1", "rep_2"]
    assert {text.get_text() for text in right.get_legend().get_texts()} == {"control", "A"}
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    for ax in (left, right):  # no name lies among the cells
        assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_no_replicate_has_the_hue_of_a_kind_of_cell(cells):
    assert not set(REPLICATES) & set(plots.KINDS.values())
    for ax in by_depth(cells).axes:
        assert ax.get_legend().get_title().get_text() == "replicate"


def test_the_curves_of_a_genes_variance_are_the_two_laws():
    mean = np.array([0.1, 1.0, 4.0])
    ax = variation(mean, mean + 0.5 * mean**2, 0.5).axes[0]
    binomial, poisson = ax.get_lines()
    x, y = poisson.get_data()
    np.testing.assert_allclose(y, x)
    np.testing.assert_allclose(binomial.get_ydata(), x + 0.5 * x**2)
    assert ax.collections[0].get_offsets().tolist() == np.column_stack([mean, mean + 0.5 * mean**2]).tolist()
