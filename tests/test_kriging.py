"""Kriging of mean effects: against a dense Gaussian, and at the ends where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from cdt_lite.errors import CDTError
from cdt_lite.training.kriging import Kriging, Measured

PARAMETERS = (0.3, 0.05, 1.5, 0.1)


def likeness(n=6, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


def measured(cells=40.0, n_genes=5, seed=1, gene=(0, 0, 1, 2, 2, 3), sign=(-1, -1, -1, 1, 1, -1)):
    rng = np.random.default_rng(seed)
    n = len(gene)
    replicate = np.array([0, 1, 0, 0, 1, 1])[:n]
    return Measured(np.array(gene), np.array(sign), replicate, replicate, np.full(n, cells),
                    np.array([50.0, 80.0, 50.0, 50.0, 80.0, 80.0])[:n], rng.normal(size=(n, n_genes)))


def dense(rows, alike, gene, sign, parameters=PARAMETERS):
    """The joint covariance of the truth asked for and the measured rows, entry by entry."""
    a, b, c, d = parameters

    def prior(p, s, q, t):
        return s * t * (a * np.sinh(c * alike[p, q]) / np.sinh(c) + d * (p == q)) + b * (s == t)

    n = len(rows.gene)
    total, cross = np.zeros((n, n)), np.zeros(n)
    for i in range(n):
        cross[i] = prior(gene, sign, rows.gene[i], rows.sign[i])
        for j in range(n):
            total[i, j] = prior(rows.gene[i], rows.sign[i], rows.gene[j], rows.sign[j])
            if i == j:
                total[i, j] += 1 / rows.cells[i]
            if rows.replicate[i] == rows.replicate[j]:
                total[i, j] += 1 / rows.controls[i]
    return total, cross, prior(gene, sign, gene, sign)


def fit(rows, alike, sd=None, parameters=PARAMETERS):
    return Kriging(rows, alike[:, rows.gene], np.ones(5) if sd is None else sd, parameters)


def known(kriging, gene, sign, hidden=None, named=True):
    """The expected effect of one perturbation, and the share of its variance that is left."""
    weights, left = kriging.known(np.array([gene]), np.array([sign]), hidden, named)
    return weights[0] @ kriging.measured.effect, left[0]


@pytest.mark.parametrize("gene, sign", [(0, -1), (2, 1), (4, -1), (5, 1)])
def test_it_is_the_mean_of_a_gaussian_given_what_was_measured(gene, sign):
    rows, alike = measured(), likeness()
    total, cross, own = dense(rows, alike, gene, sign)
    effect, left = known(fit(rows, alike), gene, sign)
    np.testing.assert_allclose(effect, cross @ np.linalg.solve(total, rows.effect), atol=1e-10)
    assert left == pytest.approx(1 - cross @ np.linalg.solve(total, cross) / own)


def test_rows_that_are_hidden_might_as_well_not_be_there():
    rows, alike = measured(), likeness()
    hidden = (rows.gene == 0) & (rows.replicate == 1)
    less = Measured(*(part[~hidden] for part in vars(rows).values()))
    whole = known(fit(rows, alike), 0, -1, hidden)
    alone = known(fit(less, alike), 0, -1)
    np.testing.assert_allclose(whole[0], alone[0], atol=1e-10)
    assert whole[1] == pytest.approx(alone[1])


def test_the_likelihood_is_that_of_a_gaussian():
    rows, alike = measured(), likeness()
    sd = np.array([0.5, 1.0, 2.0, 1.0, 1.5])
    total, _, _ = dense(rows, alike, 0, -1)
    gaussian = multivariate_normal(np.zeros(6), total)
    expected = sum(gaussian.logpdf(rows.effect[:, g] / sd[g]) for g in range(5))
    constant = 5 * 6 / 2 * np.log(2 * np.pi)
    assert fit(rows, alike, sd).log_likelihood == pytest.approx(expected + constant)


def test_many_cells_say_their_own_mean_and_none_the_shrunken_mean_of_all():
    alike = np.eye(6)
    many = replace(measured(cells=1e9), controls=np.full(6, 1e9))
    kriging = fit(many, alike)
    effect, left = known(kriging, 0, -1)
    np.testing.assert_allclose(effect, many.effect[:2].mean(0), atol=1e-6)
    assert left < 1e-6
    stranger, _ = known(kriging, 5, -1)
    nameless, _ = known(kriging, 0, -1, many.gene == 0, named=False)
    of_sign = np.array([many.effect[:2].mean(0), many.effect[2], many.effect[5]])
    a, b, _, d = PARAMETERS
    np.testing.assert_allclose(stranger, of_sign.sum(0) * b / (3 * b + a + d), atol=1e-6)
    np.testing.assert_allclose(nameless, of_sign[1:].sum(0) * b / (2 * b + a + d), atol=1e-6)


def test_the_parameters_come_back_from_effects_drawn_with_them():
    rng = np.random.default_rng(3)
    alike = likeness(60)
    genes, n_genes = np.arange(40), 400
    rows = Measured(genes, np.full(40, -1), np.zeros(40, int), np.zeros(40, int), np.full(40, 200.0), np.full(40, 1e4),
                    np.zeros((40, n_genes)))
    truth = (0.05, 0.01, 1.0, 0.005)
    blank = fit(rows, alike, np.ones(n_genes), truth)
    covariance = blank.prior(rows.gene, rows.sign, truth) + rows.noise()
    drawn = np.linalg.cholesky(covariance) @ rng.normal(size=(40, n_genes))
    rows = replace(rows, effect=drawn)
    right = fit(rows, alike, np.ones(n_genes), None)
    np.testing.assert_allclose(right.parameters[:2], truth[:2], rtol=0.3)
    shuffled = rng.permutation(60)
    wrong = fit(rows, alike[np.ix_(shuffled, shuffled)], np.ones(n_genes), None)
    assert right.log_likelihood > wrong.log_likelihood + 100
    assert wrong.parameters[0] < 0.2 * right.parameters[0]  # likeness of others: hardly anything is taken from it


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), logs=st.tuples(*[st.floats(-14, 4)] * 4), width=st.integers(1, 4))
def test_it_is_a_covariance_whatever_is_known_of_genes(seed, logs, width):
    """The sine's series has positive terms only, and an entrywise power of a covariance is one (Schur)."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(8, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = measured(gene=tuple(rng.integers(0, 8, 6)), sign=tuple(rng.choice([-1, 1], 6)))
    parameters = tuple(np.exp(logs))
    prior = fit(rows, vectors @ vectors.T, None, parameters).prior(rows.gene, rows.sign, parameters)
    assert np.linalg.eigvalsh(prior).min() > -1e-9 * np.trace(prior)


def test_a_likeness_that_is_no_covariance_is_refused():
    """Shared or not, as 1 or 0, is none: A is like B, B like C, but A not like C."""
    three = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    with pytest.raises(CDTError, match="eigenvalue"):
        Kriging(measured(gene=(0, 1, 2), sign=(-1, -1, -1)), three, np.ones(5), PARAMETERS)


def test_the_likelihood_is_asked_of_a_bounded_number_of_rows_whole_targets_each(monkeypatch):
    rng, n = np.random.default_rng(0), 300
    gene, sign = np.repeat(np.arange(n // 3), 3), np.full(n, -1)
    rows = Measured(gene, sign, np.tile([0, 1, 2], n // 3), np.tile([0, 1, 2], n // 3), np.full(n, 50.0),
                    np.full(n, 400.0), 0.1 * rng.normal(size=(n, 8)))
    assert rows.drawn(10**6).all()
    few = rows.drawn(60)
    assert few.sum() == 60 and set(np.bincount(gene[few], minlength=100)) == {0, 3}
    sizes = []
    misfit = Kriging._misfit
    monkeypatch.setattr("cdt_lite.training.kriging.ROWS", 60)
    monkeypatch.setattr(Kriging, "_misfit", lambda self, logs: (sizes.append(len(self.measured.gene)),
                                                                misfit(self, logs))[1])
    Kriging(rows, np.eye(n // 3)[:, gene], np.ones(8))
    assert set(sizes) == {60}


def test_numbers_found_on_a_part_are_near_those_of_all():
    rng, n_genes = np.random.default_rng(1), 60
    alike = likeness(n_genes, seed=3)
    gene = np.repeat(np.arange(n_genes), 2)
    part = np.tile([0, 1], n_genes)
    truth = np.linalg.cholesky(0.2 * alike + 0.05 * np.eye(n_genes)) @ rng.normal(size=(n_genes, 200))
    effect = truth[gene] + rng.normal(size=(len(gene), 200)) / np.sqrt(30)
    rows = Measured(gene, np.full(len(gene), -1), part, part, np.full(len(gene), 30.0), np.full(len(gene), 1e6), effect)
    whole = Kriging(rows, alike[:, gene], np.ones(200))
    some = rows.drawn(60)
    partial = Kriging(rows.of(some), alike[:, gene[some]], np.ones(200))
    a, b, _, d = whole.parameters
    assert a + d == pytest.approx(sum(np.array(partial.parameters)[[0, 3]]), rel=0.3)
    assert a == pytest.approx(0.2, rel=0.4) and b < 0.05
