"""A screen with one replicate: training must be told measured effects, as prediction is."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import tiny, toy_screen
from scipy import sparse

import cdt_lite as cdt
from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.store import FOLDS
from cdt_lite.model.perturbation import NO_TARGET
from cdt_lite.training.effects import effect_table, fitted

STEPS = 400


def stored(screen):
    checkpoint = cdt.start(tiny(n_genes=screen.n_vars, n_total_genes=2 * screen.n_vars), screen)
    return checkpoint, cdt.TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)


def cis_world(n_cells: int = 4000, n_genes: int = 24):
    """Every knockdown moves its own gene alone, by a factor of .15 to .9; one replicate."""
    rng = np.random.default_rng(0)
    targets = [f"G{i}" for i in range(0, n_genes, 4)]
    label = rng.choice(["non-targeting", *targets], n_cells, p=[0.4, *[0.6 / len(targets)] * len(targets)])
    rate = np.tile(rng.gamma(2.0, 3.0, n_genes) + 2, (n_cells, 1)) * rng.lognormal(0, 0.3, (n_cells, 1))
    for target, factor in zip(targets, np.linspace(0.15, 0.9, len(targets)), strict=True):
        rate[label == target, int(target[1:])] *= factor
    obs = pd.DataFrame({"target_gene": label}, index=[f"c{i}" for i in range(n_cells)])
    counts = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])), targets


def test_parts_are_replicates_where_there_are_several_and_random_quarters_where_there_is_one():
    screen = toy_screen()
    _, store = stored(screen)
    np.testing.assert_array_equal(store.folds(), store.group)
    lone = screen[(screen.obs["target_gene"] != "G3") | (screen.obs["batch"] == "a")].copy()
    _, store = stored(lone)
    parted = (lone.obs["target_gene"] == "G3").to_numpy()
    np.testing.assert_array_equal(store.folds()[~parted], store.group[~parted])  # the others, and all controls
    sizes = np.unique(store.folds()[parted], return_counts=True)[1]
    assert len(sizes) == FOLDS and np.ptp(sizes) <= 1
    assert not set(store.folds()[parted]) & set(store.group)
    np.testing.assert_array_equal(store.folds(), store.folds())


def test_a_set_is_told_the_effect_in_the_other_parts_of_its_perturbation():
    screen = toy_screen()
    screen.obs["batch"] = "only"
    checkpoint, store = stored(screen)
    table = effect_table(store, checkpoint.tokenizer)
    kriging, genes = fitted(store, checkpoint.tokenizer)
    m = kriging.measured
    effect = checkpoint.model.train().effect
    effect.fill(table)
    sampler = cdt.SetSampler(store, checkpoint.config.finetune)
    told = 0
    for index in range(30):
        p = sampler.batch(index).perturbation
        for row, fold, target in zip(effect.rows(p).tolist(), p.replicate.tolist(), p.target.tolist(), strict=True):
            if target == NO_TARGET:
                assert row == -1
            elif target >= 0:
                assert (table.target[row], table.without[row]) == (target, fold)
                used = table.weights[row] != 0
                assert used.sum() == 2 * FOLDS - 1 and not used[(m.part == fold) & (genes[m.gene] == target)].any()
                told += 1
    assert told > 20


def test_every_knockdown_lowers_its_own_gene_by_what_it_does():
    screen, targets = cis_world()
    checkpoint, store = stored(screen)
    data = cdt.SetSampler(store, checkpoint.config.finetune)
    for _ in cdt.train(checkpoint, data, steps=STEPS):
        pass
    controls = cdt.predict_mean(checkpoint, screen, "non-targeting", 0)
    log1p = log1p_counts(screen.X, checkpoint.tokenizer.target_depth).toarray()
    is_control = (screen.obs["target_gene"] == "non-targeting").to_numpy()
    real, predicted = [], []
    for target in targets:
        gene = int(target[1:])
        own = (screen.obs["target_gene"] == target).to_numpy()
        real.append(log1p[own, gene].mean() - log1p[is_control, gene].mean())
        predicted.append(cdt.predict_mean(checkpoint, screen, target)[gene] - controls[gene])
    assert np.all(np.array(predicted) < 0)
    assert np.dot(real, predicted) / np.dot(real, real) == pytest.approx(1.0, abs=0.3)
