"""Metrics against brute force, scipy and, where it is installed, cell-eval; and what each of them must not notice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from cdt_lite.data.expression import gene_means, gene_sds, log1p_counts
from cdt_lite.evaluation import metrics as m
from cdt_lite.evaluation.comparison import Comparison, Side
from cdt_lite.evaluation.differential import DE, differential_expression

RNG = np.random.default_rng


def counts(rng, n=60, g=25, rate=0.7):
    return rng.poisson(rate * rng.gamma(2, 0.5, (n, 1)) * rng.gamma(1, 1, g)).astype(np.float32)


def test_log1p_by_hand_and_sparse_equals_dense():
    X = np.array([[1.0, 3.0], [0.0, 0.0], [5.0, 0.0]])
    expected = np.log1p([[2.0, 6.0], [0.0, 0.0], [8.0, 0.0]])
    np.testing.assert_allclose(log1p_counts(X, 8.0), expected)
    np.testing.assert_allclose(log1p_counts(sparse.csr_matrix(X), 8.0).toarray(), expected)
    assert X[0, 1] == 3.0  # the input is left alone
    assert log1p_counts(sparse.csr_matrix(X, dtype=np.float32), 8.0).dtype == np.float32


def test_gene_statistics_are_numpys():
    X = counts(RNG(0))
    for Y in (X, sparse.csr_matrix(X)):
        np.testing.assert_allclose(gene_means(Y), X.mean(0), rtol=1e-6)
        np.testing.assert_allclose(gene_sds(Y), X.std(0, ddof=1), rtol=1e-5)


def test_mean_metrics_equal_their_authorities():
    a, b, o = RNG(1).normal(size=(3, 30))
    keep = np.delete(np.arange(30), [4, 9])
    assert m.mae(a, b, (4, 9)) == pytest.approx(np.abs(a - b)[keep].mean())
    assert m.pearson_delta(a, b, (4, 9)) == pytest.approx(stats.pearsonr(a[keep], b[keep])[0])
    assert m.systema_pearson(a, b, o) == pytest.approx(stats.pearsonr(a - o, b - o)[0])
    assert np.isnan(m.pearson_delta(a, np.zeros(30))) and np.isnan(m.systema_pearson(a, o, o))


def test_a_huge_change_of_the_own_gene_is_not_seen():
    a, b = RNG(2).normal(size=(2, 20))
    spiked = b.copy()
    spiked[7] += 100
    rivals = RNG(3).normal(size=(5, 20))
    rivals[2] = a
    assert m.mae(a, spiked, (7,)) == m.mae(a, b, (7,))
    assert m.pearson_delta(a, spiked, (7,)) == pytest.approx(m.pearson_delta(a, b, (7,)))
    assert m.discrimination_score(spiked, rivals, 2, (7,)) == m.discrimination_score(b, rivals, 2, (7,))
    X, Y = counts(RNG(4)), counts(RNG(5))
    Z = Y.copy()
    Z[:, 7] += 50
    for metric in (m.energy_distance, m.cell_sd_ratio, m.library_size_sd_ratio):
        assert metric(X, Z, (7,)) == pytest.approx(metric(X, Y, (7,)))
    assert 7 not in differential_expression(Z, X, (7,)).significant()
    assert 7 in differential_expression(Z, X).significant()


@pytest.mark.parametrize(("metric", "scipy_name"), [("l1", "cityblock"), ("cosine", "cosine")])
def test_discrimination_is_the_rank_of_the_right_one(metric, scipy_name):
    deltas, guess = RNG(6).normal(size=(9, 15)), RNG(7).normal(size=15)
    order = np.argsort(cdist(deltas, guess[None], scipy_name)[:, 0])
    for index in range(9):
        expected = 1 - int(np.flatnonzero(order == index)[0]) / 9
        assert m.discrimination_score(guess, deltas, index, metric=metric) == pytest.approx(expected)
        assert m.discrimination_score(deltas[index], deltas, index, metric=metric) == 1.0


@pytest.mark.parametrize("metric", ["l1", "cosine"])
def test_a_constant_predictor_discriminates_at_chance(metric):
    deltas = RNG(8).normal(size=(40, 60))
    for guess in (np.zeros(60), deltas.mean(0)):
        scores = [m.discrimination_score(guess, deltas, i, metric=metric) for i in range(40)]
        assert np.mean(scores) == pytest.approx(0.5 + 1 / 80)  # ranks 0..39 in some order, or all tied


def test_inflating_a_prediction_is_seen_by_mae_and_not_by_cosine():
    rng = RNG(9)
    deltas = rng.normal(size=(30, 80)) * (rng.random((30, 80)) < 0.2)
    guesses = deltas + 0.3 * rng.normal(size=deltas.shape)

    def discrimination(scale, metric):
        return [m.discrimination_score(scale * g, deltas, i, metric=metric) for i, g in enumerate(guesses)]

    def error(scale):
        return np.mean([m.mae(d, scale * g) for d, g in zip(deltas, guesses, strict=True)])

    assert error(8) > 3 * error(1)
    assert discrimination(8, "cosine") == discrimination(1, "cosine")
    assert np.mean(discrimination(8, "l1")) > 0.9  # the exploit: blown up eight times, still told apart


def test_overlap_by_hand():
    def de(*genes):
        change, fdr = np.zeros(8), np.ones(8)
        for i, g in enumerate(genes):
            change[g], fdr[g] = 10.0 - i, 0.01
        return DE(change, fdr)

    assert m.overlap_at_n(de(0, 1, 2), de(1, 0, 7, 2)) == pytest.approx(2 / 3)  # the top three only
    assert m.overlap_at_n(de(0, 1), de()) == 0.0
    assert np.isnan(m.overlap_at_n(de(), de(0))) and np.isnan(m.significant_gene_ratio(de(), de(0)))
    assert m.significant_gene_ratio(de(0, 1), de(3, 4, 5)) == 1.5


def test_energy_distance_equals_brute_force():
    x, y = RNG(12).normal(size=(13, 6)), RNG(13).normal(0.5, 1, size=(17, 6))
    within = [cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
    assert m.energy_distance(x, y) == pytest.approx(2 * cdist(x, y).mean() - sum(within), abs=1e-12)
    assert m.energy_distance(sparse.csr_matrix(x), y) == pytest.approx(m.energy_distance(x, y))


def test_energy_distance_is_zero_in_expectation_for_two_halves():
    rng = RNG(14)
    values = np.array([m.energy_distance(*np.split(rng.gamma(1, 1, (40, 8)), 2)) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert values.min() < 0 < values.max()
    assert m.energy_distance(rng.gamma(1, 1, (20, 8)), rng.gamma(1, 1, (20, 8)) + 1) > values.max()


def test_energy_distance_of_a_subsample_estimates_the_whole():
    x, y = RNG(15).normal(size=(900, 5)), RNG(16).normal(0.7, 1, size=(900, 5))
    whole = m.energy_distance(x, y, max_cells=900)
    part = m.energy_distance(x, y, max_cells=300)
    assert part == pytest.approx(whole, rel=0.15) and part == m.energy_distance(x, y, max_cells=300)


def test_a_classifier_cannot_tell_halves_apart_but_sees_a_shift_and_a_spread():
    rng = RNG(30)
    X, Y = np.split(np.log1p(counts(RNG(31), 600, 25)), 2)
    assert m.two_sample_auc(X, Y) == pytest.approx(0.5, abs=0.08)
    assert m.two_sample_auc(X, sparse.csr_matrix(Y)) == m.two_sample_auc(X, Y)
    moved = Y + 0.5 * (np.arange(25) < 5)
    assert m.two_sample_auc(X, moved) > 0.75 > m.two_sample_auc(X, moved, tuple(range(5)))
    narrow = Y.mean(0) + 0.3 * (Y - Y.mean(0))  # the mean is right, the cells are not
    assert m.two_sample_auc(X, narrow) > 0.9
    noise = rng.normal(size=(200, 3))  # against the exact area of a linear score on one shifted normal
    assert m.two_sample_auc(noise[:100], noise[100:] + 2.0) == pytest.approx(stats.norm.cdf(2 * 3**0.5 / 2**0.5),
                                                                            abs=0.02)


def test_spread_ratios():
    X = counts(RNG(17), n=400)
    assert m.cell_sd_ratio(X, X) == m.library_size_sd_ratio(X, X) == 1.0
    assert m.cell_sd_ratio(X, X.mean(0) + 0.25 * (X - X.mean(0))) == pytest.approx(0.25)
    tiled = np.tile(X.mean(0), (400, 1))
    assert m.cell_sd_ratio(X, tiled) == pytest.approx(0.0, abs=1e-3)  # a mean has no cells
    assert m.library_size_sd_ratio(X, 3 * X) == pytest.approx(3.0)


def test_spearman_brown_predicts_full_reliability():
    rng, n = RNG(19), 20_000
    truth = rng.normal(size=n)
    a, b, c, d = truth + rng.normal(size=(4, n)) * 1.5
    halves, full = stats.pearsonr(a, c)[0], stats.pearsonr(a + b, c + d)[0]
    assert m.spearman_brown(halves) == pytest.approx(full, abs=0.02)
    assert m.spearman_brown(1.0) == 1.0 and m.spearman_brown(-0.2) == 0 and np.isnan(m.spearman_brown(np.nan))


def test_what_a_loud_program_does_to_all_other_genes_is_no_change_of_theirs():
    """Five loud genes fall silent, nothing else happens: at one depth all others seem to rise, and none does."""
    rng = RNG(40)
    rate = rng.gamma(1.0, 2.0, 60)
    rate[:5] = 12.0
    silent = np.where(np.arange(60) < 5, 0.1, 1.0)
    control, changed = (log1p_counts(rng.poisson(r, (20_000, 60)), 160.0) for r in (rate, rate * silent))
    change, sensitivity = changed.mean(0) - control.mean(0), (1 - np.exp(-control)).mean(0)
    assert (change[5:] > 0).all()
    program, loud = np.where(np.arange(60) < 5, change, 0.0), tuple(range(5))
    assert m.pearson_composition(change, program, sensitivity) > 0.999 > m.pearson_delta(change, program) + 0.01
    everything_rises = 0.3 * sensitivity
    assert m.pearson_delta(change, everything_rises, loud) > 0.95
    assert np.isnan(m.pearson_composition(change, everything_rises, sensitivity, loud))


def test_permuting_genes_and_cells_changes_nothing():
    rng = RNG(20)
    X, Y = counts(rng, 50, 30), counts(rng, 45, 30, rate=1.2)
    genes, own = rng.permutation(30), 6
    moved = (int(np.flatnonzero(genes == own)[0]),)
    x, y = X[rng.permutation(50)][:, genes], Y[rng.permutation(45)][:, genes]
    for metric in (m.energy_distance, m.cell_sd_ratio, m.library_size_sd_ratio):
        assert metric(x, y, moved) == pytest.approx(metric(X, Y, (own,)))
    for metric in (m.mae, m.pearson_delta):
        assert metric(x.mean(0), y.mean(0), moved) == pytest.approx(metric(X.mean(0), Y.mean(0), (own,)))
    before, after = differential_expression(X, Y, (own,)), differential_expression(x, y, moved)
    np.testing.assert_allclose(after.fdr, before.fdr[genes])


def compared(**changes):
    """A comparison of some cells with themselves."""
    X = counts(RNG(21), 80, 30)
    controls = np.log1p(counts(RNG(22), 80, 30, rate=2.0))
    side = Side(np.log1p(X), X, lambda: differential_expression(np.log1p(X), controls, (3,)))
    rivals = RNG(23).normal(size=(4, 30))
    same = {"real_mean": X.mean(0), "predicted_mean": X.mean(0), "real_delta": rivals[1], "predicted_delta": rivals[1],
            "reference": rivals[0], "sensitivity": np.full(30, 0.5), "real_deltas": rivals, "index": 1, "exclude": (3,),
            "real": side, "predicted": side}
    return Comparison(**{**same, **changes})


def test_registry_is_complete_and_its_best_is_best():
    assert list(m.METRICS)[:2] == ["mae", "pearson_delta"] and len(m.METRICS) == 12
    for name, metric in m.METRICS.items():
        value = metric.score(compared())
        if name == "energy_distance":  # a cell meets itself across the two groups, never within one: just below 0
            assert -0.2 < value <= 0
        elif name == "two_sample_auc":  # the same cells with both labels: what a fold learns of its twins is wrong
            assert value <= 0.6
        else:
            assert value == pytest.approx(metric.best), name
        assert metric.needs_cells == (name in list(m.METRICS)[6:])


def test_what_is_missing_or_too_little_is_nan():
    side = compared().real
    without = {"counts": replace(side, counts=None), "controls": replace(side, test=lambda: None),
               "cells": replace(side, log1p=side.log1p[:9], test=lambda: None)}
    lost = {what: {name for name, metric in m.METRICS.items() if np.isnan(metric.score(compared(real=s, predicted=s)))}
            for what, s in without.items()}
    assert lost["counts"] == {"library_size_sd_ratio"}
    assert lost["controls"] == {"overlap_at_n", "significant_gene_ratio"}
    assert lost["cells"] == {name for name, metric in m.METRICS.items() if metric.needs_cells}


def test_mean_metrics_agree_with_cell_eval():
    cell_eval = pytest.importorskip("cell_eval.metrics", reason="extra [eval]")
    anndata = pytest.importorskip("anndata")
    from cell_eval._types import PerturbationAnndataPair

    rng, targets = RNG(24), ["non-targeting", "g3", "g5", "X1", "X2"]
    genes, labels = [f"g{i}" for i in range(25)], np.repeat(targets, 30)

    def made(scale):
        X = log1p_counts(np.concatenate([counts(rng, 30, 25, scale) for _ in targets]), 20.0)
        obs = pd.DataFrame({"target_gene": labels}, index=[f"c{i}" for i in range(len(labels))])
        return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=genes))

    real, predicted = made(0.7), made(0.9)
    pair = PerturbationAnndataPair(real, predicted, "target_gene", "non-targeting")
    means = [{t: a.X[labels == t].mean(0) for t in targets} for a in (real, predicted)]
    deltas = [{t: a[t] - a["non-targeting"] for t in targets[1:]} for a in means]
    order = sorted(targets[1:])
    stacked = np.array([deltas[0][t] for t in order])
    errors, correlations = cell_eval.mae(pair), cell_eval.pearson_delta(pair)
    for t in order:
        assert m.mae(means[0][t], means[1][t]) == pytest.approx(errors[t])
        assert m.pearson_delta(deltas[0][t], deltas[1][t]) == pytest.approx(correlations[t])
    for metric in ("l1", "cosine"):
        theirs = cell_eval.discrimination_score(pair, metric=metric)
        for i, t in enumerate(order):
            own = (genes.index(t),) if t in genes else ()
            assert m.discrimination_score(deltas[1][t], stacked, i, own, metric) == pytest.approx(theirs[t])
