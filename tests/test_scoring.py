"""The truth that predictions are scored against: which cells stand on which side."""

from dataclasses import replace

import numpy as np
import pytest
from test_evaluation import world

from cdt_lite.data.expression import log1p_counts
from cdt_lite.evaluation.cells import Names, read_cells
from cdt_lite.evaluation.comparison import Arena, BatchMeans, Guess
from cdt_lite.evaluation.differential import differential_expression
from cdt_lite.evaluation.evaluate import _disperse
from cdt_lite.evaluation.metrics import METRICS

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
    guess = arena.guess(KEY, other)
    known = arena._cells(KEY, guess, 60)
    batches = arena.real.batch[arena.groups[KEY]], guess.batch
    truth, ours = (arena.log1p[arena.controls_like(side, batch)] for side, batch in enumerate(batches))
    expected = differential_expression(arena.log1p[arena.groups[KEY]], truth)
    np.testing.assert_array_equal(known["real_de"]().fdr, expected.fdr)
    expected = differential_expression(log1p_counts(guess.counts, 60.0), ours)
    np.testing.assert_array_equal(known["predicted_de"]().fdr, expected.fdr)
    assert arena.n_changed(KEY) == len(known["real_de"]().significant())


def test_controls_stand_in_the_proportions_of_the_cells_that_are_tested(arena):
    for side in (0, 1):
        pool = arena.real.batch[arena.halves[side]]
        for batches in (["a", "a", "a", "b"], ["b"]):
            rows = arena.controls_like(side, np.array(batches))
            assert set(rows) <= set(arena.halves[side]) and len(set(rows)) == len(rows)
            assert np.mean(arena.real.batch[rows] == "b") == pytest.approx(batches.count("b") / len(batches), abs=0.02)
        assert len(arena.controls_like(side, np.array(["b"]))) == (pool == "b").sum()  # all there are
        assert len(arena.controls_like(side, np.array(["c"]))) == 0


def test_one_replicates_cells_are_not_tested_against_other_replicates_controls():
    """Cells of a null target in batch b only: against the controls of both batches, the batch effect looks like one."""
    screen = world(targets=("N1", "N2"), strength=0.0, n_cells=200, n_control=600)
    one = screen[((screen.obs["target_gene"] == "non-targeting") | (screen.obs["batch"] == "b")).to_numpy()]
    matched, pooled = (read_cells(one, "it", Names("target_gene", "non-targeting", key, "sign"))
                       for key in ("batch", None))
    changed = [Arena(c, log1p_counts(c.counts, 60.0), c.halves(0), 60.0).n_changed(("N1", -1))
               for c in (matched, pooled)]
    assert changed[0] <= 1 and changed[1] >= 5


def test_predicted_log1p_is_scored_as_it_is():
    """A method that makes no counts is scored on its own values; what needs counts is NaN."""
    real = read_cells(world(), "it", NAMES)
    arena = Arena(real, log1p_counts(real.counts, 60.0), real.halves(0), 60.0)
    again = read_cells(world(prefix="again"), "that", NAMES)
    as_log1p = replace(again, counts=log1p_counts(again.counts, 60.0), log1p_depth=60.0)
    a, b = (arena.score(KEY, arena.guess(KEY, cells), list(METRICS.values())) for cells in (again, as_log1p))
    assert np.isnan(b.pop("library_size_sd_ratio")) and a.pop("library_size_sd_ratio") > 0
    assert a == pytest.approx(b, rel=1e-5)


def test_more_predicted_cells_do_not_buy_more_significant_genes():
    weak, many = (read_cells(world(prefix=p, n_cells=n, n_control=900, n_genes=200, strength=0.3), "", NAMES)
                  for p, n in (("cell", 60), ("again", 1500)))
    arena = Arena(weak, log1p_counts(weak.counts, 60.0), weak.halves(0), 60.0)
    counts = many.counts[many.groups[KEY]]
    guess = Guess(arena.means[arena.index[KEY]], counts, many.batch[many.groups[KEY]])
    known = arena._cells(KEY, guess, 60)
    assert known["predicted"]().shape == known["real"]().shape == (60, 200)
    ratio = METRICS["significant_gene_ratio"]
    fair = arena.score(KEY, guess, [ratio])[ratio.name]
    unfair = differential_expression(log1p_counts(counts, 60.0), arena.log1p[arena.halves[1]]).significant()
    assert 0.5 < fair < 1.7 < len(unfair) / len(known["real_de"]().significant())


def test_matched_controls_come_from_our_half_and_the_same_batches(arena):
    rows = arena.matched_controls(KEY)
    assert set(rows) <= set(arena.halves[1]) and len(rows) == len(arena.groups[KEY])
    wanted = np.sort(arena.real.batch[arena.groups[KEY]])
    np.testing.assert_array_equal(np.sort(arena.real.batch[rows]), wanted)


def test_baselines_cells_are_tested_against_controls_of_their_own_batches():
    """Batch b differs from a; where there are too many cells, those drawn and their batches must stay together."""
    screen = world(targets=("N1",), strength=0.0, n_cells=600, n_control=900)
    screen.obs_names = [f"{batch}_{i}" for i, batch in enumerate(screen.obs["batch"])]  # names that sort by batch
    real = read_cells(screen, "it", NAMES)
    arena = Arena(real, log1p_counts(real.counts, 60.0), real.halves(0), 60.0, max_cells=300)
    key = ("N1", -1)
    guess = _disperse(arena, key, arena.controls[0], unchanged=True)
    np.testing.assert_array_equal(guess.batch, real.batch[arena.matched_controls(key)])
    assert len(arena._cells(key, guess, 300)["predicted_de"]().significant()) == 0
