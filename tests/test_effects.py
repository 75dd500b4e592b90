"""What training cells say about perturbations: the table of mean effects, how it is saved, what is read from it."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CONTROL, tiny, toy_screen
from scipy import sparse

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.gene_sets import memberships
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.model.mean_effect import NAMELESS, OWN, WHOLE
from cdt_lite.model.perturbation import UNKNOWN_TARGET
from cdt_lite.training.changes import table_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table, fitted
from cdt_lite.training.predict import predict_mean
from cdt_lite.training.prior import add_prior
from cdt_lite.training.start import start
from cdt_lite.training.train import train

CONFIG = tiny("lite")
WIDE = tiny("lite", n_genes=40, n_total_genes=200)


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


def test_measured_effects_are_mean_log1p_minus_that_of_the_same_replicates_controls(trained):
    screen, checkpoint, store = trained
    kriging, genes = fitted(store, checkpoint.tokenizer)
    m = kriging.measured
    log1p, target, batch = log1p_of(screen, checkpoint), screen.obs["target_gene"], screen.obs["batch"]
    assert len(m.gene) == 4
    assert screen.X.max() < 40  # one bin a count: nothing is lost
    for i in range(4):
        here = (batch == sorted(set(batch))[m.replicate[i]]).to_numpy()
        perturbed = here & (target == checkpoint.vocabulary.symbols[genes[m.gene[i]]]).to_numpy()
        control = here & (target == CONTROL).to_numpy()
        assert (m.cells[i], m.controls[i]) == (perturbed.sum(), control.sum())
        np.testing.assert_allclose(m.effect[i], log1p[perturbed].mean(0) - log1p[control].mean(0), atol=1e-5)
    of_controls = (target == CONTROL).to_numpy()
    spread = sum(log1p[here].var(0) * here.sum() for here in
                 ((of_controls & (batch == name).to_numpy()) for name in sorted(set(batch)))) / of_controls.sum()
    np.testing.assert_allclose(kriging.sd, np.sqrt(spread), atol=1e-5)


def test_every_row_of_the_table_is_an_answer_of_the_kriging(trained):
    _, checkpoint, store = trained
    table = effect_table(store, checkpoint.tokenizer)
    kriging, genes = fitted(store, checkpoint.tokenizer)
    m = kriging.measured
    assert {(t, s) for t, s, w in zip(table.target, table.sign, table.without, strict=True) if w >= 0} == {
        (genes[gene], sign) for gene, sign in zip(m.gene, m.sign, strict=True)}
    assert set(table.target[table.without == WHOLE]) == {UNKNOWN_TARGET, *store.gene_ids}
    for row, (target, sign, without) in enumerate(zip(table.target, table.sign, table.without, strict=True)):
        named = bool(without != NAMELESS and target != UNKNOWN_TARGET)
        at = np.searchsorted(genes, max(target, 0))
        own = m.gene == at
        hidden = {WHOLE: None, OWN: own, NAMELESS: own}.get(without, own & (m.sign == sign) & (m.part == without))
        weights, left = kriging.known(np.array([at]), np.array([sign]), hidden, named)
        np.testing.assert_allclose(table.weights[row], weights[0], atol=1e-12)
        assert table.left[row] == pytest.approx(left[0])


def test_shares_are_those_of_the_controls_and_nothing_is_impossible(trained):
    screen, checkpoint, store = trained
    shares = effect_table(store, checkpoint.tokenizer).shares
    controls = screen[(screen.obs["target_gene"] == CONTROL).to_numpy()].X.toarray()
    assert shares.sum(1) == pytest.approx(1)
    for gene in range(screen.n_vars):
        found = np.bincount(controls[:, gene].astype(int), minlength=63)
        found = found + np.array([0.5, 0.5] + [0] * 61)
        np.testing.assert_allclose(shares[gene], found / found.sum())


def known_by(screen, prior=None):
    """The table of a screen, with its genes by symbol."""
    checkpoint, store = stored(screen, WIDE)
    if prior is not None:
        add_prior(checkpoint, prior)
    table = effect_table(store, checkpoint.tokenizer, checkpoint.prior)
    whole = table.without == WHOLE
    rows = {}
    for row in np.flatnonzero(whole & (table.target >= 0)):
        rows[checkpoint.vocabulary.symbols[table.target[row]], int(table.sign[row])] = row
    return table, rows


def modules(n_known=12, n_modules=3, seed=5):
    """A screen in which each target does what its module does, and the modules of all targets as gene sets."""
    rng = np.random.default_rng(seed)
    n_genes = 40
    effect = rng.normal(size=(n_modules, n_genes)) * 0.6
    names = [f"T{i}" for i in range(n_known)]
    obs, rates = [], []
    for target in ["non-targeting"] * 4 + names:
        for batch in ("a", "b"):
            log_rate = np.linspace(0.5, 2, n_genes)
            if target != "non-targeting":
                log_rate = log_rate + effect[int(target[1:]) % n_modules]
            obs += [(target, batch)] * 60
            rates.append(np.tile(np.exp(log_rate), (60, 1)))
    counts = sparse.csr_matrix(rng.poisson(np.concatenate(rates)).astype(np.float32))
    obs = pd.DataFrame(obs, columns=["target_gene", "batch"]).rename(index=str)
    screen = ad.AnnData(counts, obs, pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
    sets = {f"module {k}": frozenset(f"T{i}" for i in range(n_known + n_modules) if i % n_modules == k)
            for k in range(n_modules)}
    return screen, sets, effect, n_known


def test_gene_sets_carry_effects_to_targets_that_nobody_perturbed_and_off_the_panel():
    screen, sets, effect, first = modules()
    table, rows = known_by(screen, memberships(sets, ["T0"]))
    shuffled = memberships(sets, ["T0"])
    shuffled.index = np.random.default_rng(1).permutation(shuffled.index)
    other, other_rows = known_by(screen, shuffled)
    right, wrong = [], []
    for k in range(3):
        unseen = f"T{first + k}"
        said = table.weights[rows[unseen, -1]] @ table.effect
        right.append(np.corrcoef(said, effect[(first + k) % 3])[0, 1])
        amiss = other.weights[other_rows[unseen, -1]] @ other.effect
        wrong.append(np.corrcoef(amiss, effect[(first + k) % 3])[0, 1])
        assert table.left[rows[unseen, -1]] < 0.3 < other.left[other_rows[unseen, -1]]
    assert min(right) > 0.95 and max(wrong) < 0.8


def test_the_likelihood_passes_over_a_prior_that_knows_nothing():
    screen, sets, _, _ = modules()
    checkpoint, store = stored(screen, WIDE)
    table = memberships(sets, ["T0"])
    table.index = np.random.default_rng(1).permutation(table.index)
    add_prior(checkpoint, table)
    without, _ = fitted(store, checkpoint.tokenizer)
    given, _ = fitted(store, checkpoint.tokenizer, checkpoint.prior)
    assert given.log_likelihood >= without.log_likelihood
    assert given.log_likelihood < without.log_likelihood + 20


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


def test_the_table_alone_says_what_is_known(trained):
    screen, checkpoint, store = trained
    table = effect_table(store, checkpoint.tokenizer)
    wanted = wanted_cells(screen[(screen.obs["sign"] != 0).to_numpy()])
    wanted["G7", -1, "a"] = 8
    said = table_changes(checkpoint, wanted)
    assert set(said.index) == {("G3", -1), ("G5", -1), ("G7", -1)}
    for gene in ("G3", "G5", "G7"):
        row = (table.target == checkpoint.vocabulary.id(gene)) & (table.without == WHOLE)
        np.testing.assert_allclose(said.loc[gene, -1], table.weights[row][0] @ table.effect, atol=1e-5)
    v1 = start(tiny("v1"), screen)
    assert table_changes(v1, wanted).empty and with_clean_table(v1, screen, screen[:0]).model.effect is None


def test_a_prior_travels_with_the_model(tmp_path):
    screen, sets, _, _ = modules()
    checkpoint = start(WIDE, screen, gene_sets=sets)
    assert "T14" in checkpoint.vocabulary  # off the panel, and nobody perturbed it
    for half in (False, True):
        loaded = Checkpoint.load(checkpoint.save(tmp_path, half=half))
        np.testing.assert_array_equal(loaded.prior.genes, checkpoint.prior.genes)
        np.testing.assert_array_equal(loaded.prior.values.toarray(), checkpoint.prior.values.toarray())
    with pytest.raises(CDTError, match="v1.*no use of gene sets"):
        start(tiny("v1", n_genes=40, n_total_genes=200), screen, gene_sets=sets)


@pytest.mark.parametrize("targets", [[], ["T0"], ["T0", "T1"]])
def test_few_perturbations_are_enough_and_none_is_an_empty_table(targets):
    screen, sets, _, _ = modules()
    few = screen[screen.obs["target_gene"].isin(["non-targeting", *targets])].copy()
    table, rows = known_by(few, memberships(sets, ["T0"]))
    assert len(table.effect) == 2 * len(targets) and bool(rows) == bool(targets)
    for target in targets:
        said = table.weights[rows[target, -1]] @ table.effect
        own = table.effect[2 * int(target[1:]) : 2 * int(target[1:]) + 2].mean(0)
        assert np.corrcoef(said, own)[0, 1] > 0.98
