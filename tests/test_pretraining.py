"""Histograms, costs under the same masks, and what 04 says of them: what the numbers say, whichever side wins."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.figures import beside_histograms, joined, losses, plots
from cdt_lite.teaching import (
    ahead_of,
    asked,
    at_looks,
    does_it_help,
    histograms,
    intervals,
    kept_runs,
    neighbours_tell,
    passed,
    same_losses,
    saved,
    trials,
    with_and_without,
)
from cdt_lite.training import loss_of_step
from cdt_lite.training.start import start
from cdt_lite.training.train import train, validation_curve
from cdt_lite.training.trust import denoiser

BINS, MASK = 63, 63


@pytest.fixture(scope="module")
def ready():
    screen, config = toy_screen(), tiny("lite")
    checkpoint = start(config, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    return checkpoint, SetSampler(store, config.pretrain, "pretrain")


def test_the_loss_of_a_step_is_the_one_that_training_sees(ready):
    checkpoint, data = ready
    checkpoint.model.train()
    first = loss_of_step(checkpoint, data, 0).item()
    assert loss_of_step(checkpoint, data, 1).item() != first == loss_of_step(checkpoint, data, 0).item()
    fresh = start(checkpoint.config, toy_screen())
    assert next(train(fresh, data, steps=5)).loss == first


def test_a_histogram_says_how_often_a_token_came_and_by_depth_in_which_cells(ready):
    _, data = ready
    store, batch = data.stores[0], data.batch(0)
    plain, by_depth = (histograms(store, BINS, n) for n in (1, 4))
    share = plain.given(batch)(None).exp()
    assert share.shape == (*batch.tokens.shape, BINS)
    torch.testing.assert_close(share.sum(-1), torch.ones(batch.tokens.shape))
    token = int(store.tokens[0, 0])
    assert float(share[0, 0, 0, token]) == pytest.approx((store.tokens[:, 0] == token).mean(), abs=0.02)
    deep, shallow = replace(batch, log_depth=batch.log_depth * 0 + 9), replace(batch, log_depth=batch.log_depth * 0 - 9)
    zeros = [float(by_depth.given(each)(None)[..., 0].exp().mean()) for each in (shallow, deep)]
    assert zeros[0] > zeros[1]  # a deep cell lacks fewer genes
    torch.testing.assert_close(plain.given(deep)(None), plain.given(shallow)(None))


def test_models_are_asked_for_the_same_genes_and_a_histogram_costs_the_same_whatever_is_hidden(ready):
    _, data = ready
    plain = histograms(data.stores[0], BINS)
    costs = asked(data, {"a": plain.given, "b": plain.given}, MASK, 2, shares=(0.5, 1.0))
    assert set(costs) == {(0.5, "a"), (0.5, "b"), (1.0, "a"), (1.0, "b")}
    for (nats, mask), (other, same) in zip(costs[0.5, "a"], costs[1.0, "a"], strict=True):
        assert same.all() and (mask.sum(-1) == round(mask.shape[-1] / 2)).all()
        torch.testing.assert_close(nats, other)
    for (_, mask), (_, same) in zip(costs[0.5, "a"], costs[0.5, "b"], strict=True):
        assert torch.equal(mask, same)
    assert not torch.equal(costs[0.5, "a"][0][0], costs[0.5, "a"][1][0])


def mean(pairs):
    return float(torch.stack([nats[mask].mean() for nats, mask in pairs]).mean())


def test_what_is_saved_is_the_rivals_cost_minus_ones_own_in_bits():
    def costing(nats):
        return [(torch.full((2, 3), nats), torch.ones(2, 3, dtype=torch.bool))] * 2

    costs = {(0.5, "ours"): costing(1.0), (0.5, "theirs"): costing(2.0), (1.0, "ours"): costing(2.0),
             (1.0, "theirs"): costing(1.5)}
    table = saved(costs, mean, "ours", "theirs")
    assert table[0.5].tolist() == pytest.approx([1 / np.log(2)] * 2)
    assert table[1.0].tolist() == pytest.approx([-0.5 / np.log(2)] * 2)


def test_an_interval_is_students():
    row = intervals(pd.DataFrame({"x": [1.0, 2.0, 3.0]})).loc["x"]
    assert (row["mean"], row["high"] - row["mean"]) == (2.0, pytest.approx(4.302653 / np.sqrt(3)))
    assert row["mean"] - row["low"] == pytest.approx(row["high"] - row["mean"])


def savings(*means, spread=0.001):
    rows = [[value + spread * sign for value in means] for sign in (-1, 0, 1)]
    return pd.DataFrame(rows, columns=[0.05, 0.5, 1.0][: len(means)])


@pytest.mark.parametrize(("means", "said"), [
    ((0.03, 0.02, 0.01), "the capsule is ahead at every share;"),
    ((-0.03, -0.02, -0.01), "the capsule is behind at every share;"),
    ((0.03, 0.0, -0.01), "ahead with 5% hidden, level with 50% hidden and behind with 100% hidden;")])
def test_shares_at_which_a_model_is_ahead_are_named(means, said):
    sentence = ahead_of(savings(*means), "the capsule", "histograms")
    assert said in sentence and sentence.startswith("Beside histograms, the capsule is")
    assert f"{means[0]:.3f} [".replace("-", "−") in sentence


def test_what_other_genes_tell_is_the_difference_of_the_two_ends():
    told = neighbours_tell(savings(0.03, 0.02, 0.01) * 1.01, 1.0, "it")
    assert "95% of a cell's genes in view" in told and "0.020 [" in told and "is 2.0% of its cost" in told
    assert "may be noise" in neighbours_tell(savings(0.01, 0.0, 0.01), 1.0, "it")
    assert "may be noise" in neighbours_tell(savings(0.0, 0.0, 0.02), 1.0, "it")


def curve(*nats):
    return pd.Series(nats, [100, 200, 300, 400])


@pytest.mark.parametrize(("nats", "said"), [
    (curve(0.9, 0.7, 0.6, 0.5), "from the look after 300 cells on; after 400 cells it costs 23.1% less"),
    (curve(0.6, 0.7, 0.6, 0.5), "from the look after 300 cells on"),  # it was above again in between
    (curve(0.6, 0.5, 0.5, 0.5), "from the look after 100 cells on"),
    (curve(0.9, 0.6, 0.7, 0.7), "did not pass histograms: after 400 cells it costs 7.7% more")])
def test_when_pretraining_passed_histograms(nats, said):
    assert said in passed(nats, 0.65, "histograms")


def test_losses_are_the_same_to_the_last_bit_or_not():
    losses = [1.0, 2.0, 3.0]
    assert "1.0000, 2.0000 and 3.0000 nats, equal to the last bit" in same_losses(losses, losses, "Yours")
    assert "apart by 2.2e-16 at most" in same_losses([1.0], [1.0 + 2**-52], "Yours")


def runs(gain, rival=0.4):
    without = np.array([0.1, 0.2, 0.3])
    spread = np.array([-0.01, 0.0, 0.01])
    return pd.DataFrame({"with": without + gain + spread, "without": without, "rival": rival})


@pytest.mark.parametrize(("gain", "verdict", "answer"), [
    (0.2, ": better, difference 0.20", "Yes, where it is asked what an unseen knockout does:"),
    (-0.2, ": worse, difference −0.20", "No, it harms, where"),
    (0.0, ": which is better, one cannot tell, difference", "These runs cannot tell, where")])
@pytest.mark.parametrize(("end", "cells"), [
    (0.6, "at a cost 7.7% lower"), (0.7, "at a cost 7.7% higher")])
def test_the_answer_names_the_side_that_wins(gain, verdict, answer, end, cells):
    assert verdict in with_and_without(runs(gain))
    sentence = does_it_help(curve(1.0, 0.9, 0.8, end), 0.65, runs(gain))
    assert answer in sentence and f"Shown is less: once pretrained, a network guesses a hidden gene {cells}" in sentence
    assert "was not tried" in sentence and "has 0.40" in sentence


def test_an_r_below_zero_is_said_to_be_so():
    assert "below zero" not in with_and_without(runs(0.2))
    assert "The r with pretraining is below zero" in with_and_without(runs(-0.4))
    assert "Both r of the model are below zero" in with_and_without(runs(0.0) - 1)


def test_a_histogram_is_judged_as_the_capsule_was_at_its_looks(ready):
    checkpoint, data = ready
    theirs = validation_curve(checkpoint, data, n_batches=2).mean()
    assert at_looks(data, partial(denoiser, checkpoint.model), MASK, 2) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("screen", ["papalexi2021", "simulated"])
def test_kept_runs_are_three_seeds_of_each_screen(screen, tmp_path, monkeypatch):
    table = kept_runs(screen)
    assert list(table) == ["with", "without", "rival"] and table.index.tolist() == [0, 1, 2]
    assert table.notna().all(axis=None)
    with pytest.raises(CDTError, match="no run of the screen 'mine'"):
        kept_runs("mine")
    monkeypatch.setattr(trials, "RECORDS", tmp_path)
    with pytest.raises(CDTError, match="checkout"):
        kept_runs(screen)


def test_the_figure_of_the_files_marks_genes_that_the_first_has_too(ready):
    checkpoint, _ = ready
    first = toy_screen()
    other = first[:, ::2].copy()
    left, right, _ = joined({"screen": first, "other": other}, checkpoint.vocabulary).axes
    marked = [sorted(mark[0, 0] for mark in marks.get_segments()) for marks in left.collections]
    assert marked == [[], sorted(checkpoint.vocabulary.ids(list(other.var_names)))]
    unmeasured = np.ma.getmaskarray(left.images[0].get_array())
    assert unmeasured.sum(1).tolist() == [len(checkpoint.vocabulary) - file.n_vars for file in (first, other)]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["screen", "other"]


def test_histograms_are_drawn_as_baselines():
    bits = pd.DataFrame({"histograms by depth": [0.9, 0.9], "histograms": [1.0, 1.0], "net": [0.8, 0.9]}, [0.5, 1.0])
    left, right = beside_histograms(bits, {"net": intervals(savings(0.03, 0.02))}).axes
    colors = [line.get_color() for line in left.get_lines()]
    assert colors[:2] == [plots.KINDS["baseline"]] * 2 and colors[2] != colors[0]
    assert right.get_lines()[0].get_ydata() == pytest.approx([0.03, 0.02])
    lines = losses({"run": (np.arange(1, 4), [0.9, 0.7, 0.6])}, {"histograms by depth": 0.65}).axes[0].get_lines()
    assert [line.get_color() == plots.KINDS["baseline"] for line in lines] == [False, True]
