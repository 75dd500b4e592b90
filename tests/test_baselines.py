"""Baselines in worlds where the right answer is known."""

import numpy as np
import pytest
from scipy import sparse

from cdt_lite.data.expression import gene_means, gene_sds, log1p_counts
from cdt_lite.evaluation.baselines import (
    BASELINES,
    Linear,
    NearestNeighbours,
    Responses,
    additive,
    dispersed_cells,
    gene_scores,
    perturbed_mean,
    replicate_mean,
)

RNG = np.random.default_rng


def responses(targets, effects, signs=None, genes=None):
    effects = np.array(effects, dtype=float)
    genes = genes or [f"g{i}" for i in range(effects.shape[1])]
    signs = [-1] * len(targets) if signs is None else signs
    return Responses(np.array(genes), np.array(targets), np.array(signs), effects)


def linear_world(rng, n_train=24, n_genes=60, rank=3):
    """Effects that are exactly linear in a vector of the target gene, which also says how that gene answers."""
    vectors, w, shift = rng.normal(size=(n_genes, rank)), rng.normal(size=(rank, rank)), rng.normal(size=n_genes)
    effects = shift[:, None] + vectors @ w @ vectors.T  # column j: what perturbing gene j does
    rows = rng.permutation(n_genes)[: n_train + 8]
    everything = responses([f"g{i}" for i in rows], effects.T[rows])
    train = responses(everything.targets[:n_train], everything.effects[:n_train])
    return train, list(everything.targets[n_train:]), everything.effects[n_train:]


def test_linear_recovers_an_exactly_linear_world():
    train, unseen, truth = linear_world(RNG(0))
    model = Linear().fit(train)
    assert model.chosen < 1e-3  # without noise nothing should be shrunk
    for target, effect in zip(unseen, truth, strict=True):
        np.testing.assert_allclose(model.effect(str(target)), effect, atol=0.01 * np.abs(effect).max())


def test_the_number_is_tuned_against_noise():
    train, unseen, truth = linear_world(RNG(1), n_train=10)
    noisy = responses(train.targets, train.effects + 6 * RNG(2).normal(size=train.effects.shape))

    def error(predictor):
        return np.mean([(predictor(str(t), -1) - e) ** 2 for t, e in zip(unseen, truth, strict=True)])

    tuned = Linear().fit(noisy)
    assert tuned.chosen > 1e-3
    assert error(tuned.effect) < error(Linear(value=1e-6).fit(noisy).effect)
    assert error(tuned.effect) < 1.2 * error(BASELINES["perturbed mean"](noisy))  # nothing to learn: it is the mean


def test_linear_gives_the_mean_to_a_target_that_the_panel_does_not_measure():
    train, _, _ = linear_world(RNG(3))
    np.testing.assert_allclose(Linear().fit(train).effect("elsewhere"), train.effects.mean(0))
    np.testing.assert_allclose(NearestNeighbours().fit(train).effect("elsewhere"), train.effects.mean(0))


def test_linear_and_knn_use_the_vectors_they_are_given():
    rng = RNG(4)
    vectors = {f"t{i}": rng.normal(size=2) for i in range(30)}
    readout = rng.normal(size=(2, 40))
    train = responses([f"t{i}" for i in range(25)], np.array([vectors[f"t{i}"] @ readout for i in range(25)]))
    for model, at_least in ((Linear(vectors=vectors), 0.999), (NearestNeighbours(vectors=vectors), 0.8)):
        model.fit(train)
        for i in range(25, 30):
            truth = vectors[f"t{i}"] @ readout
            assert np.corrcoef(model.effect(f"t{i}"), truth)[0, 1] > at_least, model


def test_the_mean_is_of_the_others_of_the_same_sign():
    effects = np.arange(12.0).reshape(4, 3)
    train = responses(["g0", "g1", "g2", "g0"], effects, [-1, -1, 1, 1])
    np.testing.assert_array_equal(perturbed_mean(train, "g0", -1), effects[1])  # never its own row, nor the other sign
    np.testing.assert_array_equal(perturbed_mean(train, "new", -1), effects[:2].mean(0))
    np.testing.assert_array_equal(perturbed_mean(train, "g2", 1), effects[3])
    only = responses(["g0"], effects[:1])
    assert perturbed_mean(only, "g0", -1) is None
    np.testing.assert_array_equal(perturbed_mean(only, "new", 1), effects[0])  # no other sign to learn from


def test_a_mirrored_world_is_learned_from_both_signs():
    train, unseen, truth = linear_world(RNG(5), n_train=20)
    centre = train.effects.mean(0)
    sign = np.tile([-1, 1], 10)
    mixed = responses(train.targets, -sign[:, None] * (train.effects - centre), sign)
    model = Linear().fit(mixed)
    error = [np.abs(model.effect(str(t), s) + s * (e - centre)).max()
             for t, e in zip(unseen, truth, strict=True) for s in (-1, 1)]
    assert np.median(error) < 0.5 * np.abs(truth - centre).max()


def test_replicate_mean_and_pairs():
    effects = RNG(6).normal(size=(3, 5))
    train = responses(["A", "B", "A+B"], effects)
    np.testing.assert_array_equal(replicate_mean(train, "B", -1), effects[1])
    assert replicate_mean(train, "C", -1) is None and replicate_mean(train, "B", 1) is None
    np.testing.assert_allclose(additive(train, "A+B", -1), effects[0] + effects[1])
    np.testing.assert_allclose(BASELINES["matching mean"](train)("B+A", -1), (effects[0] + effects[1]) / 2)
    assert additive(train, "A", -1) is None and additive(train, "A+C", -1) is None


def test_knn_finds_the_twin_and_never_itself():
    rng = RNG(7)
    base, genes = rng.normal(size=(2, 30)), [f"g{i}" for i in range(30)]
    effects = np.repeat(base, 4, axis=0) + 0.05 * rng.normal(size=(8, 30))
    effects[:4, :4], effects[:4, 4:8], effects[4:, :4], effects[4:, 4:8] = 3, -3, -3, 3  # targets answer in families
    train = responses(genes[:8], effects)
    model = NearestNeighbours(value=1.0).fit(train)
    guess = model.effect("g1")
    assert any(np.array_equal(guess, effects[i]) for i in (0, 2, 3))
    assert NearestNeighbours().fit(train).chosen <= 3  # the other family is no help


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_keeps_to_the_common_shape(name):
    train, _, _ = linear_world(RNG(8), n_train=6)
    answer = BASELINES[name](train)(str(train.targets[0]), -1)
    if name in ("matching mean", "additive", "pathway neighbour"):
        assert answer is None  # no pair, and nobody said which targets are alike
    else:
        assert answer.shape == (60,) and (name != "control" or not answer.any())


def test_gene_scores_span_the_centred_effects():
    train, _, _ = linear_world(RNG(9))
    scores, centred = gene_scores(train), train.effects - train.effects.mean(0)
    fit = scores @ np.linalg.lstsq(scores, centred.T, rcond=None)[0]
    np.testing.assert_allclose(fit.T, centred, atol=1e-8)
    assert np.mean(scores**2) == pytest.approx(1.0)


def cells(rng, n=500, g=60):
    return rng.poisson(rng.gamma(8, 0.3, (n, 1)) * rng.gamma(0.7, 0.8, g)).astype(np.float32)


def test_dispersed_cells_have_the_mean_that_was_asked_for_and_vary_like_cells():
    rng = RNG(10)
    control = cells(rng)
    log1p = log1p_counts(control, 80.0)
    change = np.r_[np.full(20, 0.3), np.ones(20), np.full(20, 2.5)]
    goal = gene_means(log1p_counts(rng.poisson(control[rng.permutation(500)] * change + 0.01).astype(float), 80.0))
    out = dispersed_cells(sparse.csr_matrix(control), goal, 80.0, RNG(11))
    assert out.shape == control.shape and out.dtype == np.float32
    assert (out.data > 0).all() and (out.data % 1 == 0).all()
    made = log1p_counts(out, 80.0)
    error, before = np.abs(gene_means(made) - goal), np.abs(gene_means(log1p) - goal)
    assert error.mean() < 0.03 and error.max() < 0.12  # what 500 cells leave to chance
    assert before.mean() > 0.2 and before.max() > 0.5
    assert gene_sds(made).sum() == pytest.approx(gene_sds(log1p).sum(), rel=0.25)  # cells, not a mean tiled


def test_dispersed_cells_follow_the_seed():
    control = cells(RNG(12), n=30)
    goal = gene_means(log1p_counts(control, 50.0)) * 1.3
    first, again, other = (dispersed_cells(control, goal, 50.0, RNG(s)).toarray() for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
