"""What training cells say about perturbations: the table of mean effects, how it is saved, what is read from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CONTROL, tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation.baselines import Linear, Responses
from cdt_lite.model.mean_effect import GUESSED
from cdt_lite.model.perturbation import UNKNOWN_TARGET
from cdt_lite.training.changes import table_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import Row, effect_table, worth_in_cells
from cdt_lite.training.predict import predict_mean
from cdt_lite.training.start import start
from cdt_lite.training.train import train

CONFIG = tiny("lite")


def stored(screen, config=CONFIG):
    checkpoint = start(config, screen)
    return checkpoint, TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)


def trained_for(steps, **changes):
    screen = toy_screen()
    checkpoint, store = stored(screen)
    list(train(checkpoint, SetSampler(store, replace(CONFIG.finetune, **changes)), steps=steps))
    return screen, checkpoint, store


@pytest.fixture(scope="module")
def trained():
    return trained_for(3)


def log1p_of(screen, checkpoint):
    counts = screen.X.toarray()
    return np.log1p(counts / counts.sum(1, keepdims=True) * checkpoint.tokenizer.target_depth)


def test_the_table_is_mean_log1p_minus_that_of_the_same_replicates_controls(trained):
    screen, checkpoint, store = trained
    table = effect_table(store, checkpoint.tokenizer)
    log1p, target, batch = log1p_of(screen, checkpoint), screen.obs["target_gene"], screen.obs["batch"]
    measured = np.flatnonzero(table.replicate != GUESSED)
    assert len(measured) == 4
    assert screen.X.max() < 40  # one bin a count: nothing is lost
    for i in measured:
        here = (batch == sorted(set(batch))[table.replicate[i]]).to_numpy()
        perturbed = here & (target == checkpoint.vocabulary.symbols[table.target[i]]).to_numpy()
        control = here & (target == CONTROL).to_numpy()
        assert table.cells[i] == perturbed.sum()
        expected = log1p[perturbed].mean(0) - log1p[control].mean(0)
        np.testing.assert_allclose(table.effect[i], expected, atol=1e-5)


def test_every_target_counts_once_however_many_its_replicates(trained):
    _, checkpoint, store = trained
    table = effect_table(store, checkpoint.tokenizer)
    measured = table.replicate != GUESSED
    for target in set(table.target[measured]):
        of_target = measured & (table.target == target)
        assert table.share[of_target].sum() == pytest.approx(1)
        np.testing.assert_allclose(table.share[of_target], table.cells[of_target] / table.cells[of_target].sum())


def test_shares_are_those_of_the_controls_and_nothing_is_impossible(trained):
    screen, checkpoint, store = trained
    shares = effect_table(store, checkpoint.tokenizer).shares
    controls = screen[(screen.obs["target_gene"] == CONTROL).to_numpy()].X.toarray()
    assert shares.sum(1) == pytest.approx(1)
    for gene in range(screen.n_vars):
        found = np.bincount(controls[:, gene].astype(int), minlength=63)
        found = found + np.array([0.5, 0.5] + [0] * 61)
        np.testing.assert_allclose(shares[gene], found / found.sum())


def pooled(table, genes):
    """Each perturbation's mean effect over all its cells."""
    measured = table.replicate != GUESSED
    pairs = sorted(set(zip(table.target[measured].tolist(), table.sign[measured].tolist(), strict=True)))
    effects = []
    for target, sign in pairs:
        own = measured & (table.target == target) & (table.sign == sign)
        effects.append(np.average(table.effect[own], axis=0, weights=table.cells[own]))
    targets, signs = np.array(pairs).T
    return Responses(genes, targets.astype(str), signs, np.array(effects))


def test_a_guess_is_a_ridge_on_coexpression_that_has_not_seen_the_target():
    screen = simulate_screen(n_genes=32, n_targets=10, n_cells=6000, seed=3, design=ScreenDesign(n_batches=1))
    checkpoint, store = stored(screen, tiny(n_genes=32, n_total_genes=120))
    table = effect_table(store, checkpoint.tokenizer)
    genes, targets = table.gene_ids.astype(str), table.target.astype(str)
    train_on = pooled(table, genes)
    log1p = log1p_of(screen, checkpoint)
    unit = (log1p - log1p.mean(0)) / log1p.std(0) / np.sqrt(6000)
    _, values, directions = np.linalg.svd(unit, full_matrices=False)
    kept = values**2 > (1 + np.sqrt(32 / 6000)) ** 2
    assert 1 < kept.sum() < 10
    vectors = dict(zip(genes, directions[kept].T * values[kept], strict=True))
    ridge = Linear(vectors=vectors).fit(train_on).chosen
    asked = set()
    for row in np.flatnonzero(table.replicate == GUESSED):
        target, sign = targets[row], int(table.sign[row])
        others = train_on.drop(np.flatnonzero(train_on.targets == target))
        guess = Linear(ridge, vectors=vectors).fit(others).effect(target, sign)
        np.testing.assert_allclose(table.effect[row], guess, atol=2e-4)  # depths are stored in single precision
        asked.add((target, sign))
    for gene in genes:
        assert {(gene, -1), (gene, 1)} <= asked


def test_a_guess_is_worth_the_variance_of_a_cell_over_the_variance_of_what_it_misses():
    rng, rows, guesses = np.random.default_rng(0), [], {}
    for target in range(40):
        guesses[target, -1] = rng.normal(size=300)
        truth = guesses[target, -1] + 0.1 * rng.normal(size=300)
        for replicate, n in enumerate((20.0, 50.0, 80.0)):
            noise = 0.8 * rng.normal(size=300) / np.sqrt(n)
            rows.append(Row(target, -1, replicate, n, truth + noise))
    assert worth_in_cells(rows, guesses) == pytest.approx(0.8**2 / 0.1**2, rel=0.15)
    assert worth_in_cells(rows[::3], guesses) == 0  # measured once: nothing to judge by


def test_the_sampler_lets_half_of_the_unknown_be_guessed(trained):
    _, _, store = trained
    data = SetSampler(store, replace(CONFIG.finetune, target_dropout=0.5, control_share=0.0))
    told = [data.batch(i).perturbation for i in range(200)]
    target, guess = torch.cat([p.target for p in told]), torch.cat([p.guess for p in told])
    unknown, guessed = target == UNKNOWN_TARGET, guess >= 0
    assert not (guessed & (target >= 0)).any()
    assert 0.4 < (guessed & unknown).sum() / unknown.sum() < 0.6
    assert set(torch.cat([p.replicate for p in told]).tolist()) == {0, 1}


@pytest.mark.parametrize("half", [False, True])
def test_the_table_is_saved_with_the_model(trained, tmp_path, half):
    screen, checkpoint, _ = trained
    loaded = Checkpoint.load(checkpoint.save(tmp_path, half=half))
    before, after = (dict(c.model.effect.named_buffers()) for c in (checkpoint, loaded))
    assert len(before["target"])
    for name, part in before.items():
        close = 2e-3 if half and part.is_floating_point() else 0
        torch.testing.assert_close(after[name], part, atol=close, rtol=close)
    one, two = (predict_mean(c, screen, "G3", n_cells=8) for c in (checkpoint, loaded))
    np.testing.assert_allclose(one, two, atol=0.05 if half else 1e-6)


def test_a_model_keeps_a_table_of_its_own(trained):
    _, checkpoint, store = trained
    table = effect_table(store, checkpoint.tokenizer)
    model = start(CONFIG, toy_screen()).model
    model.effect.fill(table)
    for name, part in model.effect.named_buffers():
        mine, before = getattr(table, name), part.clone()
        mine += 1
        assert torch.equal(part, before), f"{name} is shared with the table it was filled from"


def test_a_model_may_be_trained_without_the_table(tmp_path):
    screen, checkpoint, _ = trained_for(2, mean_effects=False)
    clean = with_clean_table(checkpoint, screen, screen[:0])
    for model in (checkpoint, Checkpoint.load(checkpoint.save(tmp_path)), clean):
        assert not len(model.model.effect.target)
    assert np.isfinite(predict_mean(checkpoint, screen, "G3", n_cells=8)).all()


def test_the_table_alone_says_what_was_measured_or_guesses(trained):
    screen, checkpoint, store = trained
    table = effect_table(store, checkpoint.tokenizer)
    wanted = wanted_cells(screen[(screen.obs["sign"] != 0).to_numpy()])
    wanted["G7", -1, "a"] = 8
    said = table_changes(checkpoint, wanted)
    assert set(said.index) == {("G3", -1), ("G5", -1), ("G7", -1)}
    for gene in ("G3", "G5"):
        rows = table.target == checkpoint.vocabulary.id(gene)
        expected = np.average(table.effect[rows], axis=0, weights=table.cells[rows])
        np.testing.assert_allclose(said.loc[gene, -1], expected, atol=1e-5)
    others = said.loc[["G3", "G5"]].mean()  # two pairs are too few for a ridge
    np.testing.assert_allclose(said.loc["G7", -1], others, atol=1e-5)
    v1 = start(tiny("v1"), screen)
    assert table_changes(v1, wanted).empty and with_clean_table(v1, screen, screen[:0]).model.effect is None
