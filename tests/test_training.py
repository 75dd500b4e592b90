import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.training import train as training
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start
from cdt_lite.training.train import learning_rate, optimizer_for, train, validation_curve


def ready(preset="lite", stage="finetune", **changes):
    config, screen = tiny(preset), toy_screen()
    checkpoint = start(config, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    return checkpoint, SetSampler(store, replace(getattr(config, stage), **changes), stage)


def weights(checkpoint):
    return torch.cat([p.detach().flatten() for p in checkpoint.model.parameters()])


@pytest.mark.parametrize(("preset", "stage"), [("lite", "finetune"), ("lite", "pretrain"), ("v1", "finetune"),
                                               ("v1", "pretrain")])
def test_one_batch_can_be_learnt_by_heart(preset, stage):
    checkpoint, data = ready(preset, stage, learning_rate=1e-2, ema_decay=0.0)
    one = data.batch(0)
    data.batch = lambda index: one
    losses = [p.loss for p in train(checkpoint, data, steps=80)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_resuming_continues_exactly(tmp_path, preset):
    whole, data = ready(preset)
    losses = [p.loss for p in train(whole, data, steps=6)]
    broken, data = ready(preset)
    first = [p.loss for p in itertools.islice(train(broken, data, steps=6, out=tmp_path), 3)]
    again = Checkpoint.load(tmp_path, resume=True)
    assert again.step == 3
    rest = [p.loss for p in train(again, data, steps=6, out=tmp_path)]
    assert first + rest == losses
    assert torch.equal(weights(whole), weights(again))
    assert torch.equal(weights(Checkpoint.load(tmp_path)), weights(whole))


def test_a_break_saves_and_leaves_a_usable_model(tmp_path):
    checkpoint, data = ready()
    for progress in train(checkpoint, data, steps=50, out=tmp_path):
        if progress.step == 2:
            break
    back = Checkpoint.load(tmp_path)
    assert back.step == 2 and not checkpoint.model.training
    assert torch.equal(weights(back), weights(checkpoint))


def test_an_error_in_the_callers_loop_saves_too(tmp_path):
    checkpoint, data = ready()
    steps = train(checkpoint, data, steps=50, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        for progress in steps:
            if progress.step == 4:
                steps.throw(KeyboardInterrupt)
    assert Checkpoint.load(tmp_path).step == 4


def test_predicting_between_steps_changes_nothing():
    """Judging puts the model in evaluation mode, where a set may read its own replicate's mean effect."""
    losses = []
    for look in (False, True):
        checkpoint, data = ready()
        steps = train(checkpoint, data, steps=4)
        losses.append([])
        for progress in steps:
            losses[-1].append(progress.loss)
            if look:
                checkpoint.model.eval()
    assert losses[0] == losses[1]


def test_a_trained_model_begins_a_stage_of_the_same_name_at_its_first_step(tmp_path):
    checkpoint, data = ready()
    list(train(checkpoint, data, steps=3, out=tmp_path))
    before = weights(checkpoint).clone()
    for again in (checkpoint, Checkpoint.load(tmp_path)):  # at hand, or read without resume
        assert [p.step for p in train(again, data, steps=3)] == [1, 2, 3]
        assert not torch.equal(weights(again), before)
    assert [p.step for p in train(Checkpoint.load(tmp_path, resume=True), data, steps=3)] == []  # that one is done


def test_a_run_is_not_resumed_on_other_cells(tmp_path):
    checkpoint, data = ready()
    list(train(checkpoint, data, steps=2, out=tmp_path))
    other = toy_screen()[::2].copy()
    store = TokenStore.from_adata(other, checkpoint.tokenizer, checkpoint.vocabulary)
    with pytest.raises(CDTError, match="was begun on other cells"):
        next(train(Checkpoint.load(tmp_path, resume=True), SetSampler(store, data.config), steps=5, out=tmp_path))


def test_an_interrupt_in_the_middle_of_an_update_leaves_the_last_save(tmp_path, monkeypatch):
    checkpoint, data = ready(checkpoint_interval=2)
    steps = train(checkpoint, data, steps=6, out=tmp_path)
    whole = [next(steps).loss for _ in range(3)]
    monkeypatch.setattr(training._Loop, "_average", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        next(steps)
    monkeypatch.undo()
    resumed = Checkpoint.load(tmp_path, resume=True)
    assert resumed.step == 2
    assert next(train(resumed, data, steps=6)).loss == whole[2]


def test_stages_and_seeds_draw_their_own_batches_and_masks():
    screen = toy_screen()
    checkpoint = start(tiny(), screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    config = replace(tiny().finetune, controls_dropout=0.0)
    drawn = [SetSampler(store, replace(config, seed=seed), stage).batch(0).tokens
             for seed, stage in ((0, "finetune"), (0, "pretrain"), (1, "finetune"))]
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_moving_average_by_hand():
    checkpoint, data = ready(ema_decay=0.5)
    trail, steps = [], train(checkpoint, data, steps=5)
    start_weights = weights(checkpoint).clone()
    for _ in steps:
        trail.append(weights(checkpoint).clone())
    average = start_weights
    for i, w in enumerate(trail):
        decay = min(0.5, (1 + i) / (10 + i))
        average = decay * average + (1 - decay) * w
    torch.testing.assert_close(weights(checkpoint), average, atol=1e-5, rtol=1e-4)


def test_a_second_stage_starts_anew_with_the_weights_of_the_first():
    checkpoint, data = ready(stage="pretrain")
    list(train(checkpoint, data, steps=3))
    before = weights(checkpoint).clone()
    _, fine = ready()
    steps = train(checkpoint, fine, steps=4)
    assert next(steps).step == 1 and checkpoint.stage == "finetune"
    assert not torch.equal(weights(checkpoint), before)
    assert checkpoint.trained_targets == ["G3", "G5"]


def test_weight_decay_falls_on_linear_matrices_only():
    checkpoint, data = ready()
    decayed, free = optimizer_for(checkpoint.model, data.config).param_groups
    names = {id(p): n for n, p in checkpoint.model.named_parameters()}
    assert all(p.ndim == 2 and "embed.token" not in names[id(p)] and "gene_table" not in names[id(p)]
               for p in decayed["params"])
    assert {names[id(p)] for p in free["params"]} >= {"gene_table.weight", "embed.token.weight", "head.bias"}
    assert free["weight_decay"] == 0 and decayed["weight_decay"] == 0.01


def test_the_learning_rate_warms_up_and_falls_to_zero():
    config = replace(tiny().finetune, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(config, s, 100) for s in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0 and rates[100] == pytest.approx(0)
    assert rates[55] == pytest.approx(0.5)


def test_bf16_trains_and_fp16_needs_a_gpu():
    checkpoint, data = ready(precision="bf16", learning_rate=1e-2)
    losses = [p.loss for p in train(checkpoint, data, steps=40)]
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < np.mean(losses[:5])
    checkpoint, data = ready(precision="fp16")
    with pytest.raises(CDTError, match="fp16 needs a CUDA GPU"):
        next(train(checkpoint, data, steps=1))


def test_training_lowers_the_held_out_curve():
    checkpoint, data = ready(learning_rate=5e-3)
    before = validation_curve(checkpoint, data, n_batches=4)
    list(train(checkpoint, data, steps=60))
    after = validation_curve(checkpoint, data, n_batches=4)
    assert (after < before).all()
    assert before[-1] == pytest.approx(np.log(63), abs=1.0)  # it knew nothing


def test_progress_counts_and_estimates():
    checkpoint, data = ready()
    seen = list(train(checkpoint, data, steps=3))
    assert [p.step for p in seen] == [1, 2, 3] and seen[-1].seconds_left == 0 and seen[0].n_steps == 3
    assert all(p.cells_per_second > 0 for p in seen)
