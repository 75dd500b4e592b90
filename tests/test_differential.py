"""The rank-sum test and differential expression against scipy, pdex and planted truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from cdt_lite.data.expression import gene_means
from cdt_lite.evaluation.differential import differential_expression
from cdt_lite.evaluation.metrics import overlap_at_n, significant_gene_ratio

RNG = np.random.default_rng


def counts(rng, n=60, g=25, rate=0.7):
    return rng.poisson(rate * rng.gamma(2, 0.5, (n, 1)) * rng.gamma(1, 1, g)).astype(np.float64)


def test_means_are_summed_in_double_precision():
    X = np.full((100_000, 1), 0.1, dtype=np.float32)
    X[0] = 1e4
    for Y in (X, sparse.csr_matrix(X)):
        assert gene_means(Y)[0] == pytest.approx(X.astype(np.float64).mean(), rel=1e-9)


def test_the_test_is_a_rank_sum_of_every_gene_in_double_precision_corrected_over_genes():
    rng = RNG(10)
    x, y = counts(rng, 50, 40), counts(rng, 33, 40, rate=0.9)
    x[:, 0] = y[:, 0] = 0  # never varies
    x[:, 1], y[:, 1] = 0, 3  # separates perfectly
    p = [1.0, *(stats.mannwhitneyu(a, b, method="asymptotic").pvalue for a, b in zip(x.T[1:], y.T[1:], strict=True))]
    for a, b in ((x, y), (sparse.csr_matrix(x, dtype=np.float32), sparse.csc_matrix(y, dtype=np.float32))):
        de = differential_expression(a, b)
        np.testing.assert_allclose(de.fdr, stats.false_discovery_control(p), rtol=1e-9)
        assert de.log2_fold_change[0] == 0 and de.log2_fold_change[1] == -np.inf
    left_out = differential_expression(x, y, (1, 4))
    kept = np.delete(np.arange(40), (1, 4))
    np.testing.assert_allclose(left_out.fdr[kept], stats.false_discovery_control(np.array(p)[kept]), rtol=1e-9)
    assert (left_out.fdr[[1, 4]] == 1).all() and (left_out.log2_fold_change[[1, 4]] == 0).all()


def test_differential_expression_finds_what_was_planted_and_little_else():
    rng = RNG(11)
    rate = np.full(200, 1.5)
    x, y = rng.poisson(rate, (150, 200)), rng.poisson(np.r_[rate[:20] * 2.5, rate[20:]], (150, 200))
    de = differential_expression(np.log1p(y), np.log1p(x))
    found = de.significant()
    assert set(range(20)) <= set(found) and len(found) <= 26  # a false discovery rate of 5 %
    assert (de.log2_fold_change[:20] > 0.5).all()
    assert list(np.abs(de.log2_fold_change[found])) == sorted(np.abs(de.log2_fold_change[found]), reverse=True)
    assert overlap_at_n(de, de) == 1.0 and significant_gene_ratio(de, de) == 1.0


def test_zero_variance_cells_make_every_gene_significant():
    rng = RNG(18)
    x, y = np.log1p(rng.poisson(0.3, (2, 200, 100)))
    tiled = np.tile(y.mean(0), (200, 1))  # nothing changed at all, but every cell is the mean
    assert len(differential_expression(y, x).significant()) <= 2
    assert len(differential_expression(tiled, x).significant()) == 100


@pytest.mark.slow
def test_differential_expression_agrees_with_pdex():
    pdex = pytest.importorskip("pdex", reason="extra [eval]")
    anndata = pytest.importorskip("anndata")
    rng = RNG(25)
    X = np.log1p(np.concatenate([counts(rng, 60, 40), counts(rng, 50, 40, 1.1)]))
    obs = pd.DataFrame({"t": ["non-targeting"] * 60 + ["p"] * 50}, index=[f"c{i}" for i in range(110)])
    theirs = pdex.pdex(anndata.AnnData(X, obs=obs), groupby="t", is_log1p=True, epsilon=0.0, threads=1)
    ours = differential_expression(X[60:], X[:60])
    np.testing.assert_allclose(ours.fdr, theirs["fdr"].to_numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.log2_fold_change, theirs["log2_fold_change"].to_numpy(), rtol=1e-4, atol=1e-4)
