"""What the hidden half of real cells costs, and the sentences about it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import cdt_lite as cdt
from cdt_lite import figures
from cdt_lite import teaching as teach
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.figures import accounting, cost
from cdt_lite.teaching.guessing import Guesses


@pytest.fixture(scope="module")
def guessed():
    """A fresh model, whose cells and controls are of one perturbation."""
    screen = simulate_screen(20, 4, 400)
    checkpoint = cdt.start(cdt.get_preset("lite"), screen)
    return checkpoint, screen, teach.guess(checkpoint, screen, n_sets=3, cells_per_set=2)


def histogram_of(checkpoint, screen):
    return teach.token_shares(checkpoint.tokenizer.tokenize(screen.X.toarray()))


def test_half_is_hidden_and_what_is_visible_is_the_cell(guessed):
    checkpoint, _, found = guessed
    assert found.tokens.shape == (3, 2, 20) and 0.3 < found.hidden.float().mean() < 0.7
    assert (found.tokens[found.hidden] == checkpoint.tokenizer.mask_id).all()
    assert torch.equal(found.tokens[~found.hidden], found.batch.tokens[~found.hidden])
    assert (found.batch.perturbation.sign != 0).all(), "perturbed cells alone"


def test_costs_are_mean_surprise_of_the_hidden_genes(guessed):
    checkpoint, screen, found = guessed
    histogram = histogram_of(checkpoint, screen)
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
    laws, truth = found.loudest(screen.var_names, histogram_of(checkpoint, screen), 3)
    places = screen.var_names.get_indexer(list(truth))
    level = found.batch.controls[0].float().mean(0).numpy()
    hidden = found.hidden[0, 0].numpy()
    assert hidden[places].all() and level[places].min() >= np.delete(level * hidden, places).max()
    assert list(truth.values()) == found.batch.tokens[0, 0].numpy()[places].tolist()
    figure = figures.guesses(laws, truth)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == list(truth)
    plt.close(figure)


def test_the_head_may_read_the_stream_before_its_end(guessed):
    checkpoint, _, found = guessed
    stages = found.stages(checkpoint.model)
    costs = list(stages.values())
    assert len(stages) == len(checkpoint.model.blocks) + 2
    assert costs[-1] == pytest.approx(costs[-2], rel=1e-5), "a fresh model has no tilt, so the last block's is its own"
    assert costs[0] == pytest.approx(costs[-1], rel=1e-5), "and its blocks add nothing"


def test_a_gene_is_guessed_better_by_whom_its_hidden_value_is_given_more():
    p = pd.DataFrame({"capsule": [0.5, 0.1, 0.3], "histogram": [0.2, 0.4, 0.2]}, list("ABC"))
    assert teach.surer(p).endswith("the capsule gives more probability than the histogram for A and C.")
    assert teach.surer(p.loc[["B"]]).endswith("for none.")
    assert teach.surer(p.loc[["A", "C"]]).endswith("for A and C, for all.")


def test_a_sink_is_read_by_everyone():
    names = pd.Index([f"G{i}" for i in range(20)])
    even = np.full((20, 20), 1 / 20)
    assert "read nearly alike" in teach.sinks(even, names)
    sink = np.full((20, 20), 0.7 / 19)
    sink[:, 3] = 0.3
    said = teach.sinks(sink, names)
    assert "G3 receives 30.0%, 6 times an equal share" in said and "a sink, read whatever is asked" in said
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
