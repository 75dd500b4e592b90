"""Densities and statistics of task 4: exact where the answer is known, and no better than it can be."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import opened, tiny, toy_screen
from scipy import stats

from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.model.config import PRESETS
from cdt_lite.report import densities as d
from cdt_lite.report import quality as q
from cdt_lite.training.start import start


def cells_of(counts, condition="T", batch="a", depth=None, bins=None):
    """Cells as densities read them."""
    names = [f"c{i}" for i in range(len(counts))]
    obs = pd.DataFrame({"condition": condition, "batch": batch, "nothing": ""}, index=names)
    obs["depth"] = np.asarray(counts).sum(1) if depth is None else depth
    return ad.AnnData(counts, obs, layers={"bins": np.asarray(counts if bins is None else bins)})


@pytest.fixture(scope="module")
def sides():
    """A tiny model that knows nothing yet, training cells, and cells of a replicate that was held out."""
    screen = toy_screen(400)
    held_out = screen[(screen.obs["target_gene"] != "non-targeting") & (screen.obs["batch"] == "b")].copy()
    checkpoint = start(tiny(n_genes=12), screen)
    opened(checkpoint.model)
    checkpoint.trained_targets = ["G3", "G5"]
    return checkpoint, screen[~screen.obs_names.isin(held_out.obs_names)].copy(), held_out


def test_prepared_cells_say_their_depth_bins_and_condition():
    screen, tokenizer = toy_screen(), Tokenizer(PRESETS["lite"].tokenizer, 100.0)
    cells = d.prepared(screen, tokenizer)
    assert (cells.layers["bins"] == tokenizer.tokenize(screen.X.toarray())).all()
    np.testing.assert_array_equal(cells.obs["depth"], screen.X.toarray().sum(1))
    assert set(cells.obs["condition"]) == {"non-targeting 0", "G3 -1", "G5 -1"}
    assert cells.var_names.equals(screen.var_names)


def test_a_model_that_knows_nothing_costs_log_k_whatever_is_hidden(sides):
    _, train, held_out = sides
    blank = start(tiny(n_genes=12), train)  # a fresh head is random; zeroed, every bin is as likely as another
    blank.model.head.weight.data.zero_()
    blank.model.head.bias.data.zero_()
    old, new = (d.prepared(side, blank.tokenizer) for side in (train, held_out))
    curves = q.hidden_nats(blank, old[old.obs["sign"] == "0"], new, seed=0)
    assert curves.shape == (held_out.n_obs, len(q.SHARES))
    np.testing.assert_allclose(curves, np.log(63), rtol=1e-5)


def test_depth_marginals_are_frequencies_and_nearly_the_entropy():
    rng = np.random.default_rng(1)
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])  # two genes, three bins
    bins = np.stack([rng.choice(3, 40_000, p=row) for row in p], 1)
    cells = cells_of(bins.astype(np.float32), depth=rng.uniform(1, 2, 40_000), bins=bins)
    fit = d.DepthMarginals(cells[:20_000], "nothing", 3)
    cost = fit.nats(cells[20_000:])
    np.testing.assert_allclose(cost.mean(0), [stats.entropy(row) for row in p], atol=0.01)
    every = np.array([[0, 0], [1, 1], [2, 2]])
    np.testing.assert_allclose(np.exp(-fit.nats(cells_of(every, depth=np.full(3, 1.5)))).sum(0), 1.0)  # a distribution


def test_a_marginal_uses_the_depth_and_the_condition_where_they_tell_something():
    rng = np.random.default_rng(2)
    depth = rng.uniform(5, 50, 8000)
    condition = rng.choice(["a", "b"], 8000)
    rate = np.where(condition == "a", 0.1, 0.02)[:, None] * depth[:, None] * np.ones(3)
    bins = np.minimum(rng.poisson(rate), 19)
    told, blind = (cells_of(bins.astype(np.float32), condition, depth=x, bins=bins) for x in (depth, np.ones(8000)))
    costs = {}
    for name, cells, by in (("none", blind, "nothing"), ("depth", told, "nothing"), ("both", told, "condition")):
        costs[name] = d.DepthMarginals(cells[:4000], by, 20).nats(cells[4000:]).mean()
    assert costs["both"] + 0.1 < costs["depth"] < costs["none"] - 0.02
    fit = d.DepthMarginals(told[:4000], "condition", 20)
    strange = told[4000:].copy()
    strange.obs["condition"] = "c"
    assert np.isfinite(fit.nats(strange)).all()  # never seen: leans on all


def test_the_negative_binomial_finds_its_own_parameters_and_its_bins_sum_to_one():
    rng = np.random.default_rng(3)
    condition, depth, n = rng.choice(["a", "b"], 4000), rng.uniform(200, 400, 4000), 100
    share = np.where(condition == "a", 1.0, np.linspace(0.3, 1.7, n)[:, None]).T / n
    mean, alpha = depth[:, None] * share, np.where(np.arange(n) % 2, 0.1, 1.0)
    counts = rng.poisson(rng.gamma(1 / alpha, mean * alpha)).astype(np.float32)
    cells = cells_of(counts, condition)
    fit = d.NegativeBinomial(cells, "condition")
    for planted in (0.1, 1.0):
        assert np.median(fit.dispersion[alpha == planted]) == pytest.approx(planted, rel=0.35)
    every = np.arange(63)[:, None].repeat(n, 1)
    one = cells_of(every.astype(np.float32), "a", depth=300.0, bins=every)
    for preset, atol in (("lite", 1e-6), ("v1", 1e-6)):  # bins of counts, and of counts scaled to a depth
        tokenizer = Tokenizer(PRESETS[preset].tokenizer, 200.0)
        np.testing.assert_allclose(np.exp(-fit.nats(one, tokenizer)).sum(0), 1.0, atol=atol)
    size, m = 1 / fit.dispersion, fit.mean(one)[7]
    found = fit.nats(one, Tokenizer(PRESETS["lite"].tokenizer, 200.0))[7]
    np.testing.assert_allclose(found, -stats.nbinom.logpmf(7, size, size / (size + m)), rtol=1e-6)
    again = fit.draw(cells, rng)
    np.testing.assert_allclose(again[condition == "a"].mean(0), counts[condition == "a"].mean(0), rtol=0.25)


def test_task_4_lists_every_density_beside_the_model(sides):
    checkpoint, train, held_out = sides
    found = q.quality(checkpoint, 0, train, held_out, held_out)
    bits, curve = found["bits"], found["curve"]
    assert list(bits) == ["model", "per gene", "per gene and replicate", "per gene and condition", "negative binomial",
                          "negative binomial, condition"]
    assert bits["model"][1:] == [0, 0, 0]
    for value, gap, low, high in bits.values():
        assert 0 < value < 20 and low <= gap <= high
    assert bits["negative binomial, condition"][0] < bits["negative binomial"][0] < bits["model"][0]  # untrained
    assert len(curve["share_hidden"]) == len(curve["bits_per_hidden_gene"]) == 10
    assert np.mean(curve["bits_per_hidden_gene"]) == pytest.approx(bits["model"][0])  # the area
    assert all(list(row) == ["real", "capsule", "negative binomial, condition"] for row in found["likeness"].values())


def test_over_training_seeds_numbers_are_means_and_intervals_hold_every_one():
    one = {"bits": {"model": [1.0, 0.5, 0.2, 0.7]}, "curve": {"at": [0.1, 0.2]}, "likeness": {"x": {"real": [3, 2, 4]}}}
    two = {"bits": {"model": [3.0, 0.7, 0.1, 0.9]}, "curve": {"at": [0.3, 0.4]}, "likeness": {"x": {"real": [5, 1, 6]}}}
    assert q.over_models([one]) == one
    found = q.over_models([one, two])
    assert found["bits"]["model"] == pytest.approx([2.0, 0.6, 0.1, 0.9])
    assert found["curve"]["at"] == pytest.approx([0.2, 0.3])
    assert found["likeness"]["x"]["real"] == [4, 1, 6]


def test_real_cells_lie_in_the_band_and_independent_genes_do_not(monkeypatch):
    monkeypatch.setattr(q, "N_SPLITS", 8)
    rng = np.random.default_rng(5)
    common = rng.normal(0, 0.8, (1200, 1)) * np.where(np.arange(20) % 2, 1, -1)  # genes that rise and fall together
    counts = rng.poisson(np.exp(1.0 + common)).astype(np.float32)
    real, twin = cells_of(counts[:600]), cells_of(counts[600:])
    alone = cells_of(np.stack([rng.permutation(c) for c in counts[600:].T], 1))
    found = q.likeness(real, {"twin": twin, "alone": alone}, 50.0, seed=0)
    for statistic in ("gene-gene correlations, agreement", "gene-gene correlations, mean difference"):
        band = found[statistic]["real"]
        assert abs(found[statistic]["twin"][0] - band[0]) < 3 * (band[2] - band[1])
        assert abs(found[statistic]["alone"][0] - band[0]) > 5 * abs(found[statistic]["twin"][0] - band[0])
    assert abs(found["energy distance"]["twin"][0]) < found["energy distance"]["alone"][0]
