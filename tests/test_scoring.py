"""The truth that predictions are scored against: which cells stand on which side."""

import numpy as np
import pytest
from test_evaluation import world

from cdt_lite.differential import differential_expression
from cdt_lite.metrics import METRICS, log1p_counts
from cdt_lite.scoring import Arena, BatchMeans, Guess, Names, read_cells

NAMES = Names("target_gene", "non-targeting", "batch", "sign")
KEY = ("X", -1)


@pytest.fixture(scope="module")
def arena():
    real = read_cells(world(), "it", NAMES)
    return Arena(real, log1p_counts(real.counts, 60.0), real.halves(0), 60.0)


def test_control_means_are_mixed_like_the_cells_they_serve():
    real = read_cells(world(), "it", NAMES)
    means = BatchMeans(real, real.counts, real.control)
    a, b = (real.counts[real.control[real.batch[real.control] == x]].toarray().mean(0) for x in "ab")
    np.testing.assert_allclose(means.mix(np.array(["a", "b", "a", "a"])), 0.75 * a + 0.25 * b, rtol=1e-6)


def test_each_side_is_tested_against_its_own_half_of_the_controls(arena):
    other = read_cells(world(prefix="again"), "that", NAMES)
    counts = other.counts[other.groups[KEY]]
    known = arena._cells(KEY, counts, 60)
    truth, ours = (arena.log1p[rows] for rows in arena.halves)
    expected = differential_expression(arena.log1p[arena.groups[KEY]], truth)
    np.testing.assert_array_equal(known["real_de"]().fdr, expected.fdr)
    expected = differential_expression(log1p_counts(counts, 60.0), ours)
    np.testing.assert_array_equal(known["predicted_de"]().fdr, expected.fdr)


def test_more_predicted_cells_do_not_buy_more_significant_genes():
    weak, many = (read_cells(world(prefix=p, n_cells=n, n_control=900, n_genes=200, strength=0.3), "", NAMES)
                  for p, n in (("cell", 60), ("again", 1500)))
    arena = Arena(weak, log1p_counts(weak.counts, 60.0), weak.halves(0), 60.0)
    counts = many.counts[many.groups[KEY]]
    known = arena._cells(KEY, counts, 60)
    assert known["predicted"]().shape == known["real"]().shape == (60, 200)
    ratio = METRICS["significant_gene_ratio"]
    fair = arena.score(KEY, Guess(arena.means[arena.index[KEY]], counts), [ratio])[ratio.name]
    unfair = differential_expression(log1p_counts(counts, 60.0), arena.log1p[arena.halves[1]]).significant()
    assert 0.5 < fair < 1.7 < len(unfair) / len(known["real_de"]().significant())


def test_matched_controls_come_from_our_half_and_the_same_batches(arena):
    rows = arena.matched_controls(KEY)
    assert set(rows) <= set(arena.halves[1]) and len(rows) == len(arena.groups[KEY])
    wanted = np.sort(arena.real.batch[arena.groups[KEY]])
    np.testing.assert_array_equal(np.sort(arena.real.batch[rows]), wanted)
