"""Cells that fine-tuning sets aside, and how far the table is trusted by what they say."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import opened, tiny, toy_screen
from hypothesis import given
from hypothesis import strategies as st

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.store import TokenStore, set_aside
from cdt_lite.model.diffusion import SHARES
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.training import train as training
from cdt_lite.training import trust as module
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import Generation, predict, predict_mean
from cdt_lite.training.start import start
from cdt_lite.training.train import train
from cdt_lite.training.trust import CHOICES, Changes, best_share, change, denoiser, trust, trusting

CONFIG = tiny("lite")


@pytest.fixture(scope="module")
def tuned():
    screen = toy_screen()
    checkpoint = start(CONFIG, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    data = SetSampler(store, CONFIG.finetune)
    list(train(checkpoint, data, steps=3))
    return checkpoint, data, store


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 1), st.integers(0, 3)), min_size=1, unique=True),
       st.floats(0, 1))
def test_no_perturbation_loses_all_its_cells_or_two_of_its_parts(labels, share):
    keys = np.array(sorted((target, sign, part, part) for target, sign, part in labels))
    aside = set_aside(keys, share)
    assert not aside[keys[:, 1] == 0].any()
    parts = {}
    for key, out in zip(keys.tolist(), aside.tolist(), strict=True):
        parts.setdefault(tuple(key[:2]), []).append(out)
    perturbed = {name: out for name, out in parts.items() if name[1]}
    assert all(sum(out) <= 1 and (sum(out) < len(out) or not sum(out)) for out in perturbed.values())
    possible = sum(len(out) > 1 for out in perturbed.values())
    wanted = max(1, round(share * (keys[:, 1] != 0).sum())) if share else 0
    assert aside.sum() == min(possible, wanted)


def test_training_never_draws_the_cells_that_validation_draws(tuned):
    _, data, store = tuned
    drawn = {}
    for name, sampler in (("training", data), ("validation", data.validation())):
        told = [sampler.batch(i).perturbation for i in range(200)]
        own, fold = (torch.cat([getattr(p, part) for p in told]).tolist() for part in ("own", "replicate"))
        drawn[name] = {pair for pair in zip(own, fold, strict=True) if pair[0] >= 0}
    keys, _ = store.groups()
    perturbed = {(target, fold) for target, sign, _, fold in keys.tolist() if sign}
    assert drawn["training"] | drawn["validation"] == perturbed
    assert not drawn["training"] & drawn["validation"]
    assert len(drawn["validation"]) == 1


def test_validation_withholds_nothing_and_another_seed_judges_by_the_same_cells(tuned):
    _, data, _ = tuned
    other = SetSampler(data.stores, replace(data.config, seed=5)).validation()
    for sampler in (data.validation(), other):
        told = sampler.batch(0).perturbation
        assert (told.target >= 0).all()
        assert set(told.own.tolist()) == set(data.validation().batch(1).perturbation.own.tolist())


def test_while_training_goes_on_the_table_makes_no_use_of_what_was_set_aside(tuned):
    _, data, store = tuned
    keys, _ = store.groups()
    aside = set_aside(keys, 0.1)[keys[:, 1] != 0]
    checkpoint = start(CONFIG, toy_screen())
    whole = effect_table(store, checkpoint.tokenizer).effect
    known = [len(checkpoint.model.effect.effect) for _ in train(checkpoint, data, steps=3)]
    assert known == [(~aside).sum()] * 2 + [len(whole)] and aside.any()
    running = start(CONFIG, toy_screen())
    next(train(running, data, steps=3))
    np.testing.assert_allclose(running.model.effect.effect, whole[~aside], rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_network_the_table_and_all_between(tuned, share):
    checkpoint, data, _ = tuned
    tokenizer, model = checkpoint.tokenizer, opened(checkpoint.model)
    batch = replace(data.validation().batch_of(0), log_depth=torch.tensor([[-0.7, 0.7]] * 3))
    target, sign = batch.perturbation.own[:1].tolist(), batch.perturbation.sign[:1].tolist()
    one = replace(batch, tokens=batch.tokens[:1], controls=batch.controls[:1], log_depth=batch.log_depth[:1],
                  perturbation=Perturbation.of(target, sign, [float("nan")]))
    model.effect.fill(effect_table(data.stores[0], tokenizer))
    told = model.effect.look_up(one.perturbation, one.gene_ids).effect
    network = change(model, one, tokenizer).mean(1)
    assert (told - network).abs().max() > 0.05
    model.effect.trusted.fill_(share)
    using = replace(checkpoint, model=model)
    changed = module.one_step_mean(trusting(using, one, "a"), one, tokenizer)
    plain = replace(one, perturbation=Perturbation.none(1))
    changed = (changed - module.one_step_mean(denoiser(model, plain), plain, tokenizer)).mean(1)
    torch.testing.assert_close(changed, network + share * (told - network), atol=2e-3, rtol=0.01)
    answering, means = model.response.responders.sigmoid().item(), []
    for state in (True, False):  # of cells in the making, each is in one state
        choice = partial(torch.full_like, fill_value=state, dtype=torch.bool)
        means.append(module.one_step_mean(trusting(using, one, "a", choice), one, tokenizer))
    made = answering * means[0] + (1 - answering) * means[1]
    made = (made - module.one_step_mean(denoiser(model, plain), plain, tokenizer)).mean(1)
    torch.testing.assert_close(made, network + share * (told - network), atol=2e-3, rtol=0.01)


def test_where_training_saw_nothing_perturbed_the_table_is_trusted_whole():
    screen = toy_screen()
    learned = screen[(screen.obs["batch"] == "a") | (screen.obs["target_gene"] == CONTROL)].copy()
    checkpoint = start(CONFIG, learned)
    store = TokenStore.from_adata(learned, checkpoint.tokenizer, checkpoint.vocabulary)
    data = SetSampler(store, CONFIG.finetune)
    list(train(checkpoint, data, steps=3))
    opened(checkpoint.model).effect.fill(effect_table(store, checkpoint.tokenizer))
    controls = learned[learned.obs["target_gene"] == CONTROL].copy()

    def mean_and_notes(replicate, share, target="G3"):
        controls.obs["batch"] = replicate
        checkpoint.model.effect.trusted.fill_(share)
        made = predict(checkpoint, controls, target, n_cells=2).uns["cdt_lite"]
        return predict_mean(checkpoint, controls, target, n_cells=20), " ".join(made["notes"])

    whole, no_note = mean_and_notes("a", 1.0)
    partly, _ = mean_and_notes("a", 0.25)
    for new in ("b", "c"):  # one with controls, and one that training never met
        mean, note = mean_and_notes(new, 0.25)
        np.testing.assert_allclose(mean, whole)
        assert f"no perturbed cell of {new}" in note and "no perturbed cell" not in no_note
        assert "no perturbed cell" not in mean_and_notes(new, 0.25, CONTROL)[1]
    assert np.abs(partly - whole).max() > 0.01
    checkpoint.card["validation"] = {}  # validation_share 0: nothing was learned of trust
    np.testing.assert_allclose(mean_and_notes("b", 0.25)[0], partly)


@pytest.mark.parametrize(("truth", "share"), [("network", 0.0), ("table", 1.0), ("beyond", 1.0), ("against", 0.0)])
def test_the_better_of_the_two_is_trusted_and_neither_is_overdone(tuned, monkeypatch, truth, share):
    checkpoint, data, _ = tuned
    rng = np.random.default_rng(0)
    network, table = rng.normal(size=(2, 4, 12))
    real = {"network": network, "table": table, "beyond": 2 * table - network, "against": 2 * network - table}[truth]
    monkeypatch.setattr(module, "_changes", lambda *_: Changes(real, network, table, rng.uniform(1, 9, 4)))
    found, card = trust(checkpoint, data)
    np.testing.assert_allclose(found, share, atol=1e-12)
    better = card["seen"]["table" if share else "network"]
    assert card["seen"]["mixture"] == pytest.approx(better, abs=1e-12)


def test_on_the_cells_it_is_judged_by_the_mixture_is_never_worse_than_the_table(tuned):
    card = tuned[0].card["validation"]
    for asked in ("seen", "unseen"):
        found = card[asked]
        assert found["mixture"] <= min(found["network"], found["table"]) + 1e-9  # one group: nothing to tell it from
        assert found["groups"] == 1 and set(found["discrimination"].values()) == {1.0}


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_no_share_with_a_smaller_error_tells_perturbations_apart_as_the_table_does(seed, n):
    rng = np.random.default_rng(seed)
    found = Changes(*rng.normal(size=(3, n, 8)), rng.uniform(1, 9, n))
    best = best_share(found)
    alone, chosen = found.mixture(1.0), found.mixture(best)
    assert found.discrimination(chosen) >= found.discrimination(alone)
    assert found.error(chosen) <= found.error(alone)
    for share in CHOICES:
        nearer = found.error(found.mixture(share)) < found.error(chosen)
        assert not nearer or found.discrimination(found.mixture(share)) < found.discrimination(alone)


def test_a_network_that_takes_one_perturbation_for_another_is_not_trusted_however_near_it_is():
    special, common = np.eye(6), np.ones((6, 6))
    real = np.hstack([special, 0 * common])
    near = np.hstack([0.1 * special[::-1], 0 * common])  # and takes each for another
    far = np.hstack([special, 6 * common])  # but knows who is who
    found = Changes(real, near, far, np.ones(6))
    errors = [found.error(found.mixture(share)) for share in CHOICES]
    assert np.argmin(errors) == 0 and found.discrimination(near) < found.discrimination(far) == 1
    assert best_share(found) == pytest.approx(0.1)  # from 1 / 11 each is nearest to itself


def test_a_noisy_group_says_less(tuned, monkeypatch):
    checkpoint, data, _ = tuned
    network, table = np.zeros((2, 1)), np.ones((2, 1))
    weight = np.array([3.0, 1.0])  # one group agrees with the table, the other with the network
    monkeypatch.setattr(module, "_changes", lambda *_: Changes(np.array([[1.0], [0.0]]), network, table, weight))
    found, _ = trust(checkpoint, data)
    np.testing.assert_allclose(found, 0.75)


def test_nothing_set_aside_by_choice_means_the_network_alone_and_no_curve(tuned):
    _, _, store = tuned
    screen = toy_screen()
    checkpoint = start(CONFIG, screen)
    list(train(checkpoint, SetSampler(store, replace(CONFIG.finetune, validation_share=0.0)), steps=1))
    assert not checkpoint.model.effect.trusted.any()
    assert checkpoint.config.diffusion == CONFIG.diffusion


def test_a_fine_tuned_model_samples_by_its_own_curve(tuned, tmp_path):
    checkpoint, *_ = tuned
    diffusion = checkpoint.config.diffusion
    assert diffusion.sampling_schedule == "learned"
    assert [share for share, _ in diffusion.loss_curve] == list(SHARES)
    assert checkpoint.process.config == diffusion
    loaded = type(checkpoint).load(checkpoint.save(tmp_path))
    assert loaded.process.counts(12) == checkpoint.process.counts(12)
    assert loaded.config.diffusion == diffusion


def begun(tmp_path, steps=4):
    screen = toy_screen()
    checkpoint = start(CONFIG, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    data = SetSampler(store, CONFIG.finetune)
    return checkpoint, data, lambda model: list(train(model, data, steps=steps, out=tmp_path / "run"))


def parts(checkpoint):
    return {name: part.clone() for name, part in checkpoint.model.named_buffers()}


def test_going_on_with_a_run_that_is_done_changes_nothing(tmp_path):
    checkpoint, _, run = begun(tmp_path)
    run(checkpoint)
    again = type(checkpoint).load(tmp_path / "run", resume=True)
    assert run(again) == []
    for name, part in parts(checkpoint).items():
        torch.testing.assert_close(parts(again)[name], part, rtol=0, atol=0)
    assert again.card["validation"] == checkpoint.card["validation"]
    assert again.process.config == checkpoint.process.config


@pytest.mark.parametrize("where", ["trust", "validation_curve", "effect_table"])
def test_a_run_that_is_stopped_while_it_is_judged_is_judged_when_it_is_gone_on_with(tmp_path, monkeypatch, where):
    whole, _, run = begun(tmp_path / "whole")
    run(whole)
    checkpoint, _, run = begun(tmp_path)
    original, calls = getattr(training, where), []

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) > (where == "effect_table"):  # which is called once when training begins
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(training, where, stopped)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint)
    monkeypatch.undo()
    again = type(checkpoint).load(tmp_path / "run", resume=True)
    assert again.step == 4 and "validation" not in again.card
    assert run(again) == []
    for name, part in parts(whole).items():
        torch.testing.assert_close(parts(again)[name], part, rtol=0, atol=0)
    assert again.card["validation"] == whole.card["validation"]


def test_of_several_stores_the_first_alone_sets_cells_aside(tuned):
    _, _, store = tuned
    both = SetSampler([store, store], CONFIG.finetune)
    assert len(both._sources[1].target) == len(both._sources[0].target) + 1


def test_genes_that_are_revealed_together_vary_together(tuned):
    """Half of the cells answer, six genes fall silent in them, all in one step: only a shared state correlates them."""
    checkpoint, _, store = tuned
    model = opened(checkpoint.model)
    table = effect_table(store, checkpoint.tokenizer)
    effect = np.where(np.arange(12) < 6, -0.5, 0.0) * (table.shares @ table.values)
    model.effect.fill(replace(table, effect=np.tile(effect, (len(table.effect), 1)),
                              weights=np.eye(1, len(table.effect)).repeat(len(table.weights), 0)))
    with torch.no_grad():
        model.response.responders.zero_()
        model.response.trust.bias.zero_()
        model.response.trust.weight.zero_()
    target = checkpoint.trained_targets[0]
    made = predict(checkpoint, toy_screen(), target, n_cells=600, options=Generation(steps=1))
    pairs = np.corrcoef(np.log1p(made.X.toarray()[:, :6]).T)[np.triu_indices(6, 1)]
    assert pairs.mean() > 0.15
