"""What notebook 03 says and draws is what its numbers say, whichever side wins; its laws are what they claim to be."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny
from matplotlib import pyplot as plt

from cdt_lite import start
from cdt_lite.data import fit_tokenizer
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.figures import h_curves, in_27_cells, step_prices
from cdt_lite.model import MaskedDiffusion, nelbo
from cdt_lite.teaching import (
    Mixture,
    Rivals,
    cheaper,
    first_and_last,
    from_masks,
    hidden_bits,
    lost,
    masks_cost,
    shows,
    steps_cost,
    total_variation,
    tried,
    walk,
    walked,
    with_errors,
    with_spread,
)
from cdt_lite.teaching.bits import counts_in_bins, interval
from cdt_lite.teaching.mixture import against_exact
from cdt_lite.teaching.small import bits_curve, held_out_sets, small_network


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=24, n_targets=6, n_cells=900)


# ---- a cell on its way


def test_a_walk_counts_what_is_hidden_and_what_has_come(screen):
    tokenizer = fit_tokenizer(tiny("lite").tokenizer, screen)
    states = [np.full(4, 63), np.array([2, 63, 63, 63]), np.array([2, 0, 5, 1])]
    table = walk(states, tokenizer)
    assert table["hidden"].tolist() == [4, 3, 0] and table["counts"].tolist() == [0, 2, 8]
    said = "Of 4 genes the first step reveals 1, fewer than the last (3). The cell ends with 8 counts"
    assert walked(table, 9).startswith(said)
    assert "3, more than the last (1)" in walked(table.assign(hidden=[4, 1, 0]), 9)
    assert "2, as many as the last (2)" in walked(table.assign(hidden=[4, 2, 0]), 9)


def test_total_variation_is_zero_of_the_same_and_one_of_disjoint_laws():
    laws = pd.DataFrame({"a": [0.5, 0.5, 0.0], "b": [0.5, 0.25, 0.25], "c": [0.0, 0.0, 1.0]})
    assert total_variation(laws).to_numpy().tolist() == [[0, 0.25, 1], [0.25, 0, 0.75], [1, 0.75, 0]]


def test_hidden_bits_are_those_of_the_nelbo():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, (2, 3, 5), generator=generator)
    logits, mask = torch.randn(2, 3, 5, 4, generator=generator), torch.rand(2, 3, 5, generator=generator) < 0.5
    mask[..., 0] = True
    bits = hidden_bits(lambda _: logits, tokens, mask, 4) / mask.sum(-1)
    torch.testing.assert_close(bits.mean() * np.log(2), nelbo(logits, tokens, mask))


def test_an_estimate_is_off_by_so_many_standard_errors():
    table = with_errors({"x": torch.tensor([1.0, 3.0, 1.0, 3.0])}, truth=1.0)
    assert table.loc["x", "off by, standard errors"] == pytest.approx(1 / (np.std([1, 3, 1, 3], ddof=1) / 2))


# ---- what steps and masks cost


def prices(learned=1.0, uniform=1.2, cosine=1.5):
    steps = np.arange(1, 17)
    return pd.DataFrame({"uniform": uniform * 4 / steps, "cosine": cosine * 4 / steps, "learned": learned * 4 / steps},
                        steps)


def test_what_steps_cost_is_told_beside_v1_whichever_is_the_cheaper():
    said = steps_cost(prices(), 260.0, (9, 0.5))
    assert "In 4, 8, 12 and 16 steps the learned schedule loses 1.00, 0.50, 0.33 and 0.25 bits of the 260" in said
    assert "v1's 9 steps lose 0.50; learned loses no more in 8." in said and "uniform is the cheaper throughout" in said
    assert "learned loses more in all of these" in steps_cost(prices(), 260.0, (9, 0.1))
    assert "cosine is the cheaper throughout" in steps_cost(prices(cosine=1.1), 260.0, (9, 0.5))
    mixed = prices()
    mixed.loc[4, "cosine"] = 0.1
    assert "uniform is the cheaper in 8, 12 and 16 steps, cosine in the others" in steps_cost(mixed, 260.0, (9, 0.5))


def test_few_first_is_said_of_the_schedule_that_begins_so():
    said = first_and_last([2, 3, 4], [1, 3, 5], "cosine")
    assert "first reveals 2 genes and its last 4, fewer at first; cosine has 1 and 5: few first, but by more" in said
    assert "4 genes and its last 2, more at first;" in first_and_last([4, 3, 2], [1, 3, 5], "cosine")
    assert "as many as the last; cosine has 3 and 3." in first_and_last([3, 3, 3], [3, 3, 3], "cosine")


def curves(few, every):
    """H of two laws by two seeds; the first is behind by so much, by seed."""
    index = pd.MultiIndex.from_product([["ours", "v1's"], [0, 1]])
    base = pd.DataFrame(1.0, index, [0.05, 0.5, 1.0])
    for seed in (0, 1):
        base.loc[("v1's", seed), [0.05, 1.0]] += few[seed], every[seed]
    return base


def test_masks_are_behind_where_every_seed_says_so():
    said = masks_cost(curves((0.01, 0.02), (0.03, 0.05)), "v1's", "ours")
    assert "behind with 5% of the genes hidden (by 0.010 to 0.020 bits" in said
    assert "behind with all hidden (by 0.030 to 0.050" in said
    assert said.endswith("the gap is the wider where all are hidden.")
    said = masks_cost(curves((-0.03, -0.02), (-0.01, -0.01)), "v1's", "ours")
    assert said.count("ahead") == 2 and said.endswith("the gap is the wider where few are hidden.")
    said = masks_cost(curves((-0.01, 0.02), (0.01, 0.01)), "v1's", "ours")
    assert "now behind, now ahead with 5%" in said and said.endswith("depends on the seed.")


@pytest.mark.parametrize(("gap", "side"), [
    (-0.05, "less than"), (0.05, "more than"), (0.0, "neither less nor more than")])
def test_the_answer_names_the_cheaper_side(gap, side):
    rng = np.random.default_rng(0)
    rival = rng.uniform(0.8, 1.0, 12)
    bits = pd.DataFrame({"capsule": rival + gap + 0.01 * rng.normal(size=12), "histogram": rival + 0.1, "law": rival})
    said = from_masks(np.linspace(2.59, 2.61, 100), prices()["learned"], (9, 0.5), bits, "law")
    assert f", {side} the law" in said and (("No more than 0.010 of it comes" in said) == (gap < 0))
    steep = from_masks(np.linspace(2.0, 3.2, 100), prices()["learned"], (9, 0.5), bits, "law")
    assert (("0.600, is what it gets" in steep) == (gap < 0)) and "No more" not in steep
    assert "0.25 of the 260 bits of a cell's tokens in 16 steps, 0.50 in v1's 9, and 4.00 in one" in said
    assert f"and {'as much as' if gap == 0 else side} by the law" in cheaper(bits, "capsule")


def test_an_interval_is_students():
    low, high = interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.30265 / np.sqrt(3), 2 + 4.30265 / np.sqrt(3)), rel=1e-4)


# ---- rivals


def test_rivals_are_the_laws_that_they_say(screen):
    tokenizer = fit_tokenizer(tiny("lite").tokenizer, screen)
    counts = screen.X.toarray()
    tokens, depth = tokenizer.tokenize(counts), counts.sum(1)
    rivals = Rivals(counts, tokenizer)
    np.testing.assert_allclose(rivals.shares.sum(1), 1)
    every = np.arange(63)[:, None].repeat(24, 1)
    p = rivals.negative_binomial(every, np.full(63, depth[0]))
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    paid = -np.log2(rivals.negative_binomial(tokens, depth)).mean()
    poisson = Rivals(counts, tokenizer)
    poisson.phi = np.full(24, 1e-3)
    assert paid < -np.log2(poisson.negative_binomial(tokens, depth)).mean()


def test_bins_hold_so_many_counts(screen):
    width = counts_in_bins(fit_tokenizer(tiny("lite").tokenizer, screen))
    assert (width[:40] == 1).all() and (width[45:-1] > 1).all() and width[-1] == 1


# ---- the mixture


def two_states():
    """Genes that are all 0 or all 1, with a little noise."""
    rng = np.random.default_rng(0)
    state = rng.random(4000) < 0.3
    return np.where(rng.random((4000, 6)) < 0.05, ~state[:, None], state[:, None]).astype(np.uint8)


def test_the_mixture_tells_the_state_by_what_is_revealed_and_its_cells_follow_its_law():
    tokens = two_states()
    mixture = Mixture(tokens, n_states=2)
    hidden = mixture(torch.full((1, 1, 6), 63))[0, 0].exp()
    np.testing.assert_allclose(hidden[:, 1], tokens.mean(0), atol=0.02)
    told = mixture(torch.tensor([[[1, 1, 63, 63, 63, 63]]]))[0, 0].exp()
    assert (told[2:, 1] > 0.8).all()
    made = mixture.cells(2000, torch.Generator().manual_seed(0))
    assert made.shape == (1, 2000, 6)
    np.testing.assert_allclose(made[0].float().mean(0), tokens.mean(0), atol=0.04)
    assert np.corrcoef(made[0].numpy().T)[0, 1] > 0.5


def test_one_step_shows_in_the_cells_and_one_gene_a_step_does_not():
    mixture = Mixture(two_states(), n_states=2)
    rows = tried(mixture, {"1 step": [6], "6 steps": [1] * 6}, lambda x: x.astype(float), 300, 4)
    assert set(rows.index.get_level_values(0)) == {"exact cells", "1 step", "6 steps", "v1's coins"}
    said = shows(rows, "spread of depth")
    told, level = said.split(" from exact cells")
    assert "1 step" in told and "6 steps" in level
    assert "What 1 step loses shows in" in lost(rows, "1 step") and "spread of depth" in lost(rows, "1 step")
    assert with_spread(rows).shape == (4, 4) and " ± " in with_spread(rows).iloc[0, 0]


def test_samplers_that_cannot_be_told_apart_are_called_so():
    index = pd.MultiIndex.from_product([["exact cells", "a", "b"], [0, 1, 2]])
    rows = pd.DataFrame({"x": [1.0, 1.1, 0.9, 1.0, 1.1, 0.95, 0.9, 1.0, 1.1]}, index)
    assert shows(rows, "x") == "By the x none of the samplers can be told from exact cells (1.00)."
    rows.loc[["a", "b"], "x"] = [3.0, 3.1, 3.2, 4.0, 4.1, 4.2]
    assert shows(rows, "x") == "By the x one can tell a (3.10), b (4.10) from exact cells (1.00)."
    both = rows.assign(y=[1.0, 1.1, 0.9] * 3)
    assert lost(both, "a") == "What a loses shows in the x, not in the y."
    assert lost(both[["y"]], "a") == "What a loses shows in none of these numbers."


def test_the_curve_of_the_mixture_climbs_from_its_genes_within_a_state_to_its_genes_apart():
    tokens = two_states()
    mixture = Mixture(tokens, n_states=2)
    H = mixture.curve(3000, (1 / 6, 0.5, 1.0))
    apart = np.mean([-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) for p in tokens.mean(0)])
    assert H.shape == (6,) and H[-1] == pytest.approx(apart, abs=0.05) and H[0] < 0.6 * apart


# ---- a network small enough


def test_a_small_network_is_trained_by_the_process_that_is_given_and_by_its_seed(screen):
    seen = []

    class Noted(MaskedDiffusion):
        def loss(self, denoise, tokens, generator, stage, step):
            seen.append(step)
            return super().loss(denoise, tokens, generator, stage, step)

    nets = [small_network(screen, Noted, seed, 2, "x") for seed in (0, 0, 1)]
    assert seen == [0, 1] * 3
    first, again, other = (net.model.head.weight.detach() for net in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)
    curve = bits_curve(nets[0], screen, (0.5, 1.0), 1)
    assert curve.shape == (2,) and 0 < curve[0] < 8
    batch = held_out_sets(nets[0], screen).batch(0)
    assert (batch.perturbation.target >= 0).all() and batch.perturbation.magnitude.isnan().all()


def test_what_the_capsule_and_its_rivals_give_has_the_shape_of_the_cells(screen):
    net = start(tiny("lite"), screen)
    rivals = Rivals(screen.X.toarray(), net.tokenizer)
    batch = held_out_sets(net, screen).batch(0)
    p, width, hidden = rivals.beside(net, batch, seed=0)
    assert list(p) == ["capsule", "histogram", "negative binomial"]
    assert {x.shape for x in (*p.values(), width, hidden)} == {(batch.log_depth.numel(), 24)}
    assert all(((x > 0) & (x <= 1)).all() for x in p.values()) and hidden.any(1).all()


# ---- figures


def test_figures_draw_what_they_are_given():
    laws = pd.DataFrame({"the law": [0.5, 0.5], "1 step": [0.25, 0.75]}, ["000", "001"])
    assert [bar.get_height() for bar in in_27_cells(laws).axes[0].patches] == [0.5, 0.5, 0.25, 0.75]
    left, right = step_prices(np.array([1.0, 2.0]), [(0.5, 1.0), (1.0, 2.0)], prices(), (9, 0.5)).axes
    assert left.get_lines()[0].get_ydata().tolist() == [1.0, 2.0]
    assert [line.get_label() for line in right.get_lines()] == ["uniform", "cosine", "learned", "v1's 9 steps"]
    both = {(law, seed): [1.0, 2.0 + seed] for law in ("ours", "v1's") for seed in (0, 1)}
    ax = h_curves(both, (0.5, 1.0)).axes[0]
    runs = [line for line in ax.get_lines() if len(line.get_xdata())]
    assert len({(line.get_color(), line.get_marker()) for line in runs}) == 4  # each run is told by colour and mark
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["ours", "v1's", "seed 0", "seed 1"]
    plt.close("all")


def test_a_gene_that_does_not_vary_in_few_cells_warns_nobody_and_goes_with_no_other(recwarn):
    exact = np.random.default_rng(0).poisson(2.0, (200, 4))
    counts = exact[:20].copy()
    counts[:, 1] = 3  # by chance, among twenty
    found = against_exact(counts, exact)
    assert np.isfinite(list(found.values())).all() and not recwarn.list
