"""What the hidden half of real cells costs, and the sentences about it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import cdt_lite as cdt
from cdt_lite import figures
from cdt_lite import teaching as teach
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.figures import accounting, cost
from cdt_lite.teaching.guessing import Guesses


@pytest.fixture(scope="module")
def guessed():
    """A fresh model, whose cells and controls are of one perturbation."""
    screen = simulate_screen(20, 4, 400)
    checkpoint = cdt.start(cdt.get_preset("lite"), screen)
    return checkpoint, screen, teach.guess(checkpoint, screen, n_sets=3, cells_per_set=2)


def test_half_is_hidden_and_what_is_visible_is_the_cell(guessed):
    checkpoint, _, found = guessed
    assert found.tokens.shape == (3, 2, 20) and 0.3 < found.hidden.float().mean() < 0.7
    assert (found.tokens[found.hidden] == checkpoint.tokenizer.mask_id).all()
    assert torch.equal(found.tokens[~found.hidden], found.batch.tokens[~found.hidden])
    assert (found.batch.perturbation.sign != 0).all(), "perturbed cells alone"


def test_costs_are_mean_surprise_of_the_hidden_genes(guessed):
    checkpoint, screen, found = guessed
    histogram = teach.histogram_of(checkpoint, screen[screen.obs["target_gene"] == CONTROL].copy())
    np.testing.assert_allclose(histogram.sum(1), 1)
    costs = found.costs(histogram)
    tokens, hidden = found.batch.tokens[1, 0].numpy(), found.hidden[1, 0].numpy()
    p = found.logits[1, 0].softmax(-1).numpy()
    genes = np.flatnonzero(hidden)
    by_hand = [np.mean([-np.log2(law[gene, tokens[gene]]) for gene in genes]) for law in (p, histogram)]
    np.testing.assert_allclose(costs.iloc[2], by_hand, rtol=1e-5)


def test_an_even_guess_costs_the_log_of_the_bins(guessed):
    _, _, found = guessed
    even = Guesses(found.batch, found.hidden, found.tokens, torch.zeros_like(found.logits))
    costs = even.costs(np.full(found.logits.shape[-2:], 1 / 63))
    np.testing.assert_allclose(costs, np.log2(63), rtol=1e-6)


def test_the_genes_that_are_drawn_are_hidden_and_loud(guessed):
    checkpoint, screen, found = guessed
    laws, truth = found.loudest(screen.var_names, teach.histogram_of(checkpoint, screen), 3)
    places = screen.var_names.get_indexer(list(truth))
    level = found.batch.controls[0].float().mean(0).numpy()
    hidden = found.hidden[0, 0].numpy()
    assert hidden[places].all() and level[places].min() >= np.delete(level * hidden, places).max()
    assert list(truth.values()) == found.batch.tokens[0, 0].numpy()[places].tolist()
    figure = figures.guesses(laws, truth)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == list(truth)
    plt.close(figure)


@pytest.mark.parametrize("gap, verdict", [(-0.1, "guesses better than"), (0.1, "guesses worse than"),
                                          (0.0, "guesses as well as")])
def test_the_cheaper_one_guesses_better(gap, verdict):
    rng = np.random.default_rng(0)
    rival = pd.Series(rng.normal(1, 0.2, 200))
    noise = rng.normal(0, 0.05, 200)
    costs = pd.DataFrame({"capsule": rival + gap + noise - noise.mean(), "histogram": rival})
    said = teach.cheaper(costs)
    assert f"The capsule {verdict} the histogram" in said and "Over 200 held-out cells" in said


def test_sinks_are_genes_that_everyone_reads():
    names = pd.Index([f"G{i}" for i in range(20)])
    even = np.full((20, 20), 1 / 20)
    assert "read nearly alike" in teach.sinks(even, names)
    sink = np.full((20, 20), 0.4 / 18)
    sink[:, [3, 4]] = 0.3
    said = teach.sinks(sink, names)
    assert "they are sinks" in said and "G3 6.0 times an equal share" in said and "receive 60%" in said
    some = even.copy()
    some[:10] = sink[:10]
    assert "depends on who asks" in teach.sinks(some, names)


def test_intensities_are_flops_over_bytes_of_each_part():
    config = cdt.PRESETS["v1"]
    found = cost.intensities(config, n_sets=2)
    assert (found["share"] > 0.01).all() and found["share"].sum() <= 1
    ffn = [product for product in accounting.products(config, n_sets=2) if product.part == "FFN"]
    expected = sum(p.flops for p in ffn) / sum(p.bytes for p in ffn)
    assert found["intensity"]["FFN"] == pytest.approx(expected)
