"""The truth that predictions are compared with: which cells stand on which side."""

from dataclasses import replace

import numpy as np
import pytest
from test_evaluation import world

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import Columns
from cdt_lite.evaluation import METRICS, comparison
from cdt_lite.evaluation.cells import read_screen
from cdt_lite.evaluation.comparison import Controls, Prediction, Truth
from cdt_lite.evaluation.differential import differential_expression

KEY = ("X", -1)


def cells(adata=None, columns=Columns(), **options):
    return read_screen(world(**options) if adata is None else adata, "it", columns)


def truth_of(real, split=None):
    return Truth(real, split or real.split_controls(0), 60.0, 0)


@pytest.fixture(scope="module")
def truth():
    return truth_of(cells())


def score(truth, key, prediction):
    return {name: metric.score(truth.compare(key, prediction)) for name, metric in METRICS.items()}


def test_real_cells_as_their_own_prediction_are_best():
    real = cells()
    shared = truth_of(real, (real.control, real.control))
    for key in real.groups:
        for name, value in score(shared, key, shared.from_cells(key, real)).items():
            if name == "energy_distance":
                assert -0.3 <= value <= 0  # every cell meets itself across the groups, never within one
            elif name == "two_sample_auc":
                assert value < 0.5  # a twin of the other label teaches the wrong one
            else:
                assert value == pytest.approx(METRICS[name].best, abs=1e-9), name


def test_control_means_are_mixed_like_the_cells_they_serve():
    real = cells()
    controls = Controls(real, real.counts, real.control)
    a, b = (real.counts[real.control[real.batch[real.control] == x]].toarray().mean(0) for x in "ab")
    np.testing.assert_allclose(controls.mean_like(np.array(["a", "b", "a", "a"])), 0.75 * a + 0.25 * b, rtol=1e-6)


def test_each_side_is_tested_against_its_own_half_of_the_controls(truth):
    other = cells(prefix="again")
    compared = truth.compare(KEY, truth.from_cells(KEY, other))
    batches = truth.real.batch[truth.real.groups[KEY]], other.batch[other.groups[KEY]]
    theirs, ours = (truth.log1p[half.rows_like(batch)]
                    for half, batch in zip((truth.subtracted, truth.given), batches, strict=True))
    expected = differential_expression(truth.log1p[truth.real.groups[KEY]], theirs)
    np.testing.assert_array_equal(compared.real.changed.fdr, expected.fdr)
    expected = differential_expression(log1p_counts(other.counts[other.groups[KEY]], 60.0), ours)
    np.testing.assert_array_equal(compared.predicted.changed.fdr, expected.fdr)
    assert compared.real.changed is truth.real_side(KEY).changed  # tested once, for every method
    assert compared.real.n_changed == len(compared.real.changed.significant())


def test_fewer_than_ten_controls_say_nothing_of_changed_genes():
    real = cells()
    few, many = real.split_controls(0)
    nine = np.concatenate([few[real.batch[few] == label][:n] for label, n in (("a", 5), ("b", 4))])
    assert truth_of(real, (nine, many)).real_side(KEY).changed is None
    assert truth_of(real, (few, many)).real_side(KEY).changed is not None


def test_controls_stand_in_the_proportions_of_the_cells_that_are_tested(truth):
    for half, rows in zip((truth.subtracted, truth.given), truth.real.split_controls(0), strict=True):
        for batches in (["a", "a", "a", "b"], ["b"]):
            like = half.rows_like(np.array(batches))
            assert set(like) <= set(rows) and len(set(like)) == len(like)
            assert np.mean(truth.real.batch[like] == "b") == pytest.approx(batches.count("b") / len(batches), abs=0.02)
        assert len(half.rows_like(np.array(["b"]))) == (truth.real.batch[rows] == "b").sum()  # all there are
        assert len(half.rows_like(np.array(["c"]))) == 0


def test_what_a_row_costs_does_not_grow_with_the_controls_and_means_are_over_all_of_them(monkeypatch):
    monkeypatch.setattr(comparison, "MAX_CONTROLS", 40)
    moved, tested = [], []
    for name, sizes, place in (("dispersed_cells", moved, 0), ("differential_expression", tested, 1)):
        real = getattr(comparison, name)

        def counted(*given, real=real, sizes=sizes, place=place):
            sizes.append(given[place].shape[0])
            return real(*given)

        monkeypatch.setattr(comparison, name, counted)
    truth = truth_of(cells(n_cells=20, n_control=600))
    compared = truth.compare(KEY, truth.from_change(KEY, np.full(30, 0.25)))
    assert np.isfinite([compared.real.n_changed, compared.predicted.n_changed]).all()
    assert len(moved) == 1 and len(tested) == 2 and all(38 <= n <= 40 for n in moved + tested)
    like = truth.given.rows_like(np.array(["a", "a", "a", "b"]))
    assert (truth.real.batch[like] == "a").sum() == 30 and len(like) == 40
    np.testing.assert_array_equal(like, truth_of(truth.real).given.rows_like(np.array(["a", "b", "a", "a"])))
    given = truth.real.split_controls(0)[1]
    in_a = given[truth.real.batch[given] == "a"]
    np.testing.assert_allclose(truth.given.mean_like(np.array(["a"])), truth.log1p[in_a].toarray().mean(0), rtol=1e-5)


def test_one_replicates_cells_are_not_tested_against_other_replicates_controls():
    """Cells of a null target in batch b only: against the controls of both batches, the batch effect looks like one."""
    screen = world(targets=("N1", "N2"), strength=0.0, n_cells=200, n_control=600)
    one = screen[((screen.obs["target_gene"] == "non-targeting") | (screen.obs["batch"] == "b")).to_numpy()]
    matched, pooled = (truth_of(cells(one, Columns(batch=key))) for key in ("batch", None))
    assert matched.real_side(("N1", -1)).n_changed <= 1
    assert pooled.real_side(("N1", -1)).n_changed >= 5


def test_predicted_log1p_is_scored_as_it_is(truth):
    """A method that makes no counts is scored on its own values; what needs counts is NaN."""
    again = cells(prefix="again")
    as_log1p = replace(again, counts=log1p_counts(again.counts, 60.0), is_log1p=True)
    a, b = (score(truth, KEY, truth.from_cells(KEY, made)) for made in (again, as_log1p))
    assert np.isnan(b.pop("library_size_sd_ratio")) and a.pop("library_size_sd_ratio") > 0
    assert a == pytest.approx(b, rel=1e-5)


def test_more_predicted_cells_do_not_buy_more_significant_genes():
    weak, many = (cells(prefix=p, n_cells=n, n_control=900, n_genes=200, strength=0.3)
                  for p, n in (("cell", 60), ("again", 1500)))
    truth = truth_of(weak)
    compared = truth.compare(KEY, truth.from_cells(KEY, many))
    assert compared.predicted.log1p.shape == compared.real.log1p.shape == (60, 200)
    fair = METRICS["significant_gene_ratio"].score(compared)
    controls = truth.log1p[weak.split_controls(0)[1]]
    unfair = differential_expression(log1p_counts(many.counts[many.groups[KEY]], 60.0), controls).significant()
    assert 0.5 < fair < 1.7 < len(unfair) / compared.real.n_changed


def test_matched_controls_come_from_the_predictions_half_and_the_same_batches(truth):
    rows = truth.matched_controls(KEY)
    assert set(rows) <= set(truth.real.split_controls(0)[1]) and len(rows) == len(truth.real.groups[KEY])
    wanted = np.sort(truth.real.batch[truth.real.groups[KEY]])
    np.testing.assert_array_equal(np.sort(truth.real.batch[rows]), wanted)


def test_baselines_cells_are_tested_against_controls_of_their_own_batches(monkeypatch):
    """Batch b differs from a; where there are too many cells, those drawn and their batches must stay together."""
    monkeypatch.setattr(comparison, "MAX_CELLS", 300)
    screen = world(targets=("N1",), strength=0.0, n_cells=600, n_control=900)
    screen.obs_names = [f"{batch}_{i}" for i, batch in enumerate(screen.obs["batch"])]  # names that sort by batch
    truth = truth_of(cells(screen))
    prediction = truth.from_controls(("N1", -1))
    assert len(prediction.batch) == 300
    np.testing.assert_array_equal(prediction.batch, truth.real.batch[truth.matched_controls(("N1", -1))])
    assert truth.compare(("N1", -1), prediction).predicted.n_changed == 0


def test_a_change_stands_on_the_given_controls_and_expression_is_never_negative(truth):
    control = truth.control_means[truth.index[KEY]]
    np.testing.assert_allclose(truth.from_change(KEY, np.full(30, 0.25)).mean, control + 0.25)
    assert (truth.from_change(KEY, np.full(30, -99.0)).mean == 0).all()


def test_a_mean_alone_has_scores_of_means_only(truth):
    found = score(truth, KEY, Prediction(truth.means[truth.index[KEY]]))
    assert {name for name, value in found.items() if np.isnan(value)} == {
        name for name, metric in METRICS.items() if metric.needs_cells}
