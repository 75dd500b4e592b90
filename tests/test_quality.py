"""Densities and statistics of task 4: exact where the answer is known, and no better than it can be."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import opened, tiny, toy_screen
from scipy import stats

from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.errors import CDTError
from cdt_lite.report import quality as q
from cdt_lite.training.start import start


@pytest.fixture(scope="module")
def model():
    checkpoint = start(tiny(n_genes=12), toy_screen())
    opened(checkpoint.model)
    checkpoint.trained_targets = ["G3", "G5"]
    return checkpoint


def parts(screen):
    counts = screen.X.toarray()
    return counts, counts.sum(1), screen.obs["target_gene"].astype(str).to_numpy(str)


def test_a_model_that_knows_nothing_costs_log_k_whatever_is_hidden(model):
    screen = toy_screen()
    blank = start(tiny(n_genes=12), screen)  # a fresh head is random; zeroed, every bin is as likely as another
    blank.model.head.weight.data.zero_()
    blank.model.head.bias.data.zero_()
    blank.trained_targets = ["G3", "G5"]
    cells, controls = screen[:40], screen[(screen.obs["target_gene"] == "non-targeting").to_numpy()]
    nats, hidden = q.token_nats(blank, cells, controls)
    np.testing.assert_allclose(nats, np.log(63), rtol=1e-5)
    assert hidden.min() >= 1 and hidden.max() <= 12
    assert set(hidden.ravel()) == set(range(1, 13))  # every share is drawn


def test_a_control_variate_keeps_the_mean_and_takes_noise_away(model):
    screen = toy_screen()
    cells, controls = screen[:100], screen[(screen.obs["target_gene"] == "non-targeting").to_numpy()]
    rng = np.random.default_rng(0)
    plain, _ = q.token_nats(model, cells, controls, n_draws=40)
    first, _ = q.token_nats(model, cells, controls, rng.normal(5, 1, cells.shape), n_draws=40)
    assert first.mean() == pytest.approx(plain.mean(), abs=4 * plain.std() / np.sqrt(plain.size) + 0.05)


def test_depth_marginals_are_frequencies_and_nearly_the_entropy():
    rng = np.random.default_rng(1)
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])  # two genes, three bins
    tokens = np.stack([rng.choice(3, 40_000, p=row) for row in p], 1)
    depth, label = rng.uniform(1, 2, 40_000), np.full(40_000, "all")
    fit = q.DepthMarginals(tokens[:20_000], depth[:20_000], label[:20_000], 3)
    cost = fit.nats(tokens[20_000:], depth[20_000:], label[20_000:])
    np.testing.assert_allclose(cost.mean(0), [stats.entropy(row) for row in p], atol=0.01)
    every = fit.nats(np.array([[0, 0], [1, 1], [2, 2]]), np.full(3, 1.5), np.full(3, "all"))
    np.testing.assert_allclose(np.exp(-every).sum(0), 1.0)  # a distribution


def test_a_marginal_uses_the_depth_and_the_condition_where_they_tell_something():
    rng = np.random.default_rng(2)
    depth = rng.uniform(5, 50, 8000)
    label = rng.choice(["a", "b"], 8000)
    rate = np.where(label == "a", 0.1, 0.02)[:, None] * depth[:, None] * np.ones(3)
    tokens = np.minimum(rng.poisson(rate), 19)
    new, costs = slice(4000, None), {}
    for name, d, given in (("none", np.ones(8000), "a"), ("depth", depth, "a"), ("both", depth, label)):
        given = np.broadcast_to(np.asarray(given), 8000)
        fit = q.DepthMarginals(tokens[:4000], d[:4000], given[:4000], 20)
        costs[name] = fit.nats(tokens[new], d[new], given[new]).mean()
    assert costs["both"] + 0.1 < costs["depth"] < costs["none"] - 0.02
    nowhere = q.DepthMarginals(tokens[:4000], depth[:4000], label[:4000], 20)
    assert np.isfinite(nowhere.nats(tokens[new], depth[new], np.full(4000, "c"))).all()  # unknown: leans on all


def test_the_negative_binomial_finds_its_own_parameters_and_its_bins_sum_to_one():
    rng = np.random.default_rng(3)
    label, depth, n = rng.choice(["a", "b"], 4000), rng.uniform(200, 400, 4000), 100
    share = np.where(label == "a", 1.0, np.linspace(0.3, 1.7, n)[:, None]).T / n
    mean, alpha = depth[:, None] * share, np.where(np.arange(n) % 2, 0.1, 1.0)
    counts = rng.poisson(rng.gamma(1 / alpha, mean * alpha)).astype(np.float32)
    fit = q.NegativeBinomial(counts, label)
    for planted in (0.1, 1.0):
        assert np.median(fit.dispersion[alpha == planted]) == pytest.approx(planted, rel=0.35)
    tokenizer = Tokenizer(tiny().tokenizer, 200.0)
    one = np.arange(63)[:, None].repeat(n, 1)
    total = np.exp(-fit.nats(one, np.full(63, 300.0), np.full(63, "a"), tokenizer)).sum(0)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    r, m = 1 / fit.dispersion, fit.mean(np.array([300.0]), np.array(["a"]))[0]
    exact = -stats.nbinom.logpmf(7, r, r / (r + m))
    found = fit.nats(np.full((1, n), 7), np.array([300.0]), np.array(["a"]), tokenizer)[0]
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    again = fit.draw(depth, label, rng)
    np.testing.assert_allclose(again[label == "a"].mean(0), counts[label == "a"].mean(0), rtol=0.25)


def test_bits_per_gene_lists_every_density_beside_the_model(model):
    screen = toy_screen(400)
    held_out = screen[(screen.obs["target_gene"] != "non-targeting") & (screen.obs["batch"] == "b")].copy()
    train = screen[~screen.obs_names.isin(held_out.obs_names)].copy()
    bits, curve = q.bits_per_gene(model, train, held_out)
    assert list(bits) == ["model", "per gene", "per gene and replicate", "per gene and condition", "negative binomial",
                          "negative binomial, condition"]
    assert bits["model"][1:] == [0, 0, 0]
    for value, gap, low, high in bits.values():
        assert 0 < value < 20 and low <= gap <= high
    assert bits["negative binomial, condition"][0] < bits["negative binomial"][0] < bits["model"][0]  # untrained
    assert len(curve["share_hidden"]) == len(curve["bits_per_hidden_gene"]) == 10
    assert np.mean(curve["bits_per_hidden_gene"]) == pytest.approx(bits["model"][0], rel=0.05)  # the area
    with pytest.raises(CDTError, match="held-out replicates"):
        q.bits_per_gene(model, train[(train.obs["target_gene"] != "G3").to_numpy()].copy(), held_out)


def test_real_cells_lie_in_the_band_and_independent_genes_do_not():
    rng = np.random.default_rng(5)
    common = rng.normal(0, 0.8, (1200, 1)) * np.where(np.arange(20) % 2, 1, -1)  # genes that rise and fall together
    counts = rng.poisson(np.exp(1.0 + common)).astype(np.float32)
    obs = pd.DataFrame({"target_gene": "T", "sign": -1, "batch": "a"}, index=[f"c{i}" for i in range(1200)])
    real, twin = ad.AnnData(counts[:600], obs[:600]), ad.AnnData(counts[600:], obs[600:])
    alone = ad.AnnData(np.stack([rng.permutation(c) for c in counts[600:].T], 1), obs[600:])
    found = q.likeness(real, {"twin": twin, "alone": alone}, 50.0, n_splits=8)
    for statistic in ("gene-gene correlations, agreement", "gene-gene correlations, mean difference"):
        band = found[statistic]["real"]
        assert abs(found[statistic]["twin"][0] - band[0]) < 3 * (band[2] - band[1])
        assert abs(found[statistic]["alone"][0] - band[0]) > 5 * abs(found[statistic]["twin"][0] - band[0])
    assert abs(found["energy distance"]["twin"][0]) < found["energy distance"]["alone"][0]
