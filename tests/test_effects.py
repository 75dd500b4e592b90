"""What training cells say about a perturbation: the table of mean effects, who may read which row, what is saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import inputs, opened, tiny, toy_screen
from scipy.optimize import minimize

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation.baselines import Linear, Responses
from cdt_lite.figures.accounting import flops_by_part, parameters_by_part
from cdt_lite.model.cdt import CDT
from cdt_lite.model.mean_effect import GUESSED, LIMIT, EffectTable, MeanEffect, tilts
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.training.changes import table_changes, wanted_cells
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table, worth_in_cells
from cdt_lite.training.predict import predict_mean
from cdt_lite.training.start import start
from cdt_lite.training.train import train

CONFIG = tiny("lite", mean_effect=True)


def stored(screen, config=CONFIG):
    checkpoint = start(config, screen)
    return checkpoint, TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)


@pytest.fixture(scope="module")
def trained():
    screen = toy_screen()
    checkpoint, store = stored(screen)
    for _ in train(checkpoint, SetSampler(store, CONFIG.finetune), steps=3):
        pass
    return screen, checkpoint


VALUES = np.log1p(np.arange(CONFIG.model.n_bins))
SHARES = np.full((3, CONFIG.model.n_bins), 1 / CONFIG.model.n_bins)


@pytest.fixture
def module():
    """Targets 3 (replicates 0 and 1) and 5 (replicate 0), and a guess for each and for 7; three genes: 10, 11, 12."""
    effect = np.array([[1.0, 0, 0], [4, 0, 0], [0, 6, 0], [0, 0, 3], [0, 0, 5], [0, 0, 7]])
    table = EffectTable(np.array([3, 3, 5, 3, 5, 7]), np.full(6, -1), np.array([0, 1, 0, *[GUESSED] * 3]),
                        np.array([10.0, 20, 8, 1, 1, 1]), effect, SHARES, np.array([10, 11, 12]), VALUES)
    module = MeanEffect(CONFIG.model)
    module.fill(table)
    return module.eval()


GENES = torch.tensor([10, 11, 12])


def looked_up(module, target, guess=NO_TARGET, replicate=(), sign=-1, genes=GENES, own=()):
    effect, tilt = module.look_up(Perturbation.of([target], [sign], [0.0], [guess], replicate, own), genes)
    p = np.exp(tilt[0, :, None].numpy() * VALUES)
    moved = p @ VALUES / p.sum(1) - VALUES.mean()
    within = (tilt[0].abs() < LIMIT).numpy()
    np.testing.assert_allclose(moved[within], effect[0].numpy()[within], atol=1e-3)
    return effect[0].tolist()


def test_a_seen_target_has_the_mean_of_its_cells_and_of_its_guess(module):
    assert looked_up(module, 3) == pytest.approx([90 / 31, 0, 3 / 31])  # (10 x 1 + 20 x 4) and one cell of the guess


def test_in_training_a_set_is_not_told_the_effect_of_its_own_replicate(module):
    assert looked_up(module, 3, replicate=[1]) == pytest.approx([90 / 31, 0, 3 / 31])  # not while judging
    module.train()
    assert looked_up(module, 3, replicate=[1]) == pytest.approx([10 / 11, 0, 3 / 11])
    assert looked_up(module, 5, replicate=[0]) == pytest.approx([0, 0, 5])  # measured nowhere else: the guess


def test_an_unknown_target_is_guessed_or_the_average_of_targets_and_never_what_was_measured(module):
    assert looked_up(module, UNKNOWN_TARGET, guess=3) == pytest.approx([0, 0, 3])
    assert looked_up(module, UNKNOWN_TARGET, guess=7) == pytest.approx([0, 0, 7])
    assert looked_up(module, UNKNOWN_TARGET) == pytest.approx([1.5, 3, 0])  # each target once, however many cells
    assert looked_up(module, UNKNOWN_TARGET, guess=9) == pytest.approx([1.5, 3, 0])


def test_in_training_an_average_leaves_the_sets_own_target_out(module):
    assert looked_up(module, UNKNOWN_TARGET, own=[3]) == pytest.approx([1.5, 3, 0])  # not while judging
    module.train()
    assert looked_up(module, UNKNOWN_TARGET, own=[3]) == pytest.approx([0, 6, 0])
    assert looked_up(module, UNKNOWN_TARGET, own=[NO_TARGET]) == pytest.approx([1.5, 3, 0])


def test_a_mean_of_effects_is_made_by_its_own_tilt_not_by_the_mean_of_tilts(module):
    """A replicate that holds none of a rare gene needs the tilt -LIMIT; a mean of tilts would silence the gene."""
    rare = np.array([0.98, 0.02] + [0.0] * (CONFIG.model.n_bins - 2))
    effect = np.array([[-0.02 * np.log(2)], [0.0]])
    table = EffectTable(np.array([3, 3]), np.full(2, -1), np.array([0, 1]), np.ones(2), effect, rare[None],
                        np.array([10]), VALUES)
    module.fill(table)
    tilt = module.look_up(Perturbation.of([3], [-1], [0.0]), torch.tensor([10]))[1].item()
    p = rare * np.exp(tilt * VALUES)
    assert p @ VALUES / p.sum() == pytest.approx(0.01 * np.log(2), rel=1e-3)  # half of what it was
    p = rare * np.exp(-LIMIT / 2 * VALUES)
    assert p @ VALUES / p.sum() < 0.002 * np.log(2)  # what the mean of the two tilts would have made


def test_no_perturbation_has_no_effect_and_other_genes_are_zero(module):
    assert looked_up(module, NO_TARGET, sign=0) == [0, 0, 0]
    assert looked_up(module, 3, sign=1) == [0, 0, 0]  # nothing of this sign is known
    assert looked_up(module, 5, genes=torch.tensor([12, 99, 11])) == pytest.approx([5 / 9, 0, 48 / 9])
    assert not any(said.any() for said in MeanEffect(CONFIG.model).look_up(Perturbation.none(2), GENES))  # empty table


def test_the_table_is_mean_log1p_minus_that_of_the_same_replicates_controls(trained):
    screen, checkpoint = trained
    table = effect_table(TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary),
                         checkpoint.tokenizer)
    counts = screen.X.toarray()
    assert counts.max() < 40  # one bin a count: nothing is lost
    log1p = np.log1p(counts / counts.sum(1, keepdims=True) * checkpoint.tokenizer.target_depth)
    batches = sorted(set(screen.obs["batch"]))
    measured = table.replicate != GUESSED
    assert measured.sum() == 4
    for i in np.flatnonzero(measured):
        here = (screen.obs["batch"] == batches[table.replicate[i]]).to_numpy()
        name = checkpoint.vocabulary.symbols[table.target[i]]
        groups = [log1p[here & (screen.obs["target_gene"] == who).to_numpy()] for who in (name, "non-targeting")]
        assert table.cells[i] == len(groups[0])
        np.testing.assert_allclose(table.effect[i], groups[0].mean(0) - groups[1].mean(0), atol=1e-5)


def test_a_guess_is_a_ridge_on_coexpression_that_has_not_seen_the_target():
    screen = simulate_screen(n_genes=32, n_targets=10, n_cells=6000, seed=3, n_batches=1)
    checkpoint, store = stored(screen, tiny(n_genes=32, n_total_genes=120, mean_effect=True))
    table = effect_table(store, checkpoint.tokenizer)
    measured = np.flatnonzero(table.replicate != GUESSED)
    train_on = Responses(table.gene_ids.astype(str), table.target[measured].astype(str), table.sign[measured],
                         table.effect[measured])
    counts = screen.X.toarray()
    log1p = np.log1p(counts / counts.sum(1, keepdims=True) * checkpoint.tokenizer.target_depth)
    _, values, directions = np.linalg.svd((log1p - log1p.mean(0)) / log1p.std(0) / np.sqrt(6000), full_matrices=False)
    kept = values**2 > (1 + np.sqrt(32 / 6000)) ** 2
    assert 1 < kept.sum() < 10
    vectors = dict(zip(train_on.genes, directions[kept].T * values[kept], strict=True))
    ridge = Linear(vectors=vectors).fit(train_on).chosen
    for row in np.flatnonzero(table.replicate == GUESSED):
        target, sign = str(table.target[row]), int(table.sign[row])
        others = train_on.drop(np.flatnonzero(train_on.targets == target))
        guess = Linear(ridge, vectors=vectors).fit(others).effect(target, sign)
        np.testing.assert_allclose(table.effect[row], guess, atol=2e-4)  # depths are stored in single precision
    asked = {(t, s) for t, s, r in zip(table.target, table.sign, table.replicate, strict=True) if r == GUESSED}
    assert asked >= {(int(g), s) for g in store.gene_ids for s in (-1, 1)}


@pytest.mark.parametrize("half", [False, True])
def test_the_table_is_saved_with_the_model(trained, tmp_path, half):
    screen, checkpoint = trained
    checkpoint.save(tmp_path, half=half)
    loaded = Checkpoint.load(tmp_path)
    before, after = (c.model.embed.effect for c in (checkpoint, loaded))
    assert torch.equal(before.replicate, after.replicate) and torch.equal(before.target, after.target)
    torch.testing.assert_close(before.effect, after.effect, atol=2e-3 if half else 0, rtol=0)
    one, two = (predict_mean(c, screen, "G3", n_cells=8) for c in (checkpoint, loaded))
    np.testing.assert_allclose(one, two, atol=0.05 if half else 1e-6)


def test_training_resumes_exactly_with_a_table(tmp_path):
    screen, at_once, in_two = toy_screen(), [], []
    checkpoint, store = stored(screen)
    data = SetSampler(store, CONFIG.finetune)
    at_once = [p.loss for p in train(checkpoint, data, steps=4)]
    other, _ = stored(screen)
    for p in train(other, data, steps=4, out=tmp_path):
        in_two.append(p.loss)
        if p.step == 2:
            break
    in_two += [p.loss for p in train(Checkpoint.load(tmp_path, resume=True), data, steps=4, out=tmp_path)]
    assert at_once == in_two


def test_the_effect_reaches_the_output_and_every_weight_learns(module):
    model, given = opened(CDT(CONFIG.model)), inputs(CONFIG)
    ids = given["gene_ids"].numpy()
    effect, values = np.random.default_rng(0).normal(size=(2, len(ids))), np.log1p(np.arange(CONFIG.model.n_bins))
    shares = np.full((len(ids), len(values)), 1 / len(values))
    model.embed.effect.fill(EffectTable(np.array([3, 5]), np.array([-1, 1]), np.array([0, 0]), np.ones(2), effect,
                                        shares, ids, values))
    with_table = model(**given)
    with_table.square().mean().backward()
    learning = [*model.embed.effect.parameters(), *model.trust.parameters()]
    assert all(p.grad is not None and p.grad.any() for p in learning)
    model.embed.effect.fill(EffectTable(*(np.zeros(0, int),) * 3, np.zeros(0), np.zeros((0, 0)),
                                        np.zeros((0, len(values))), np.zeros(0, int), values))
    assert not torch.allclose(model(**given), with_table, atol=1e-3)


def test_a_guess_is_worth_the_variance_of_a_cell_over_the_variance_of_what_it_misses():
    rng, rows, guesses = np.random.default_rng(0), [], {}
    for target in range(40):
        guesses[target, -1] = rng.normal(size=300)
        truth = guesses[target, -1] + 0.1 * rng.normal(size=300)
        rows += [(target, -1, r, float(n), truth + 0.8 * rng.normal(size=300) / np.sqrt(n))
                 for r, n in enumerate((20, 50, 80))]
    assert worth_in_cells(rows, guesses) == pytest.approx(0.8**2 / 0.1**2, rel=0.15)
    assert worth_in_cells(rows[::3], guesses) == 0  # measured once: nothing to judge by


def test_a_tilt_moves_the_mean_by_what_was_asked_and_no_distribution_with_that_mean_is_nearer():
    values = np.log1p(np.arange(6.0))
    share = np.array([[0.5, 0.2, 0.15, 0.1, 0.04, 0.01], [0.96, 0.02, 0.01, 0.005, 0.004, 0.001]])
    change = np.array([[0.3, 0.1], [-0.4, -0.02], [0.0, 0.0]])
    def asked_for(wanted):
        return tilts(*(torch.tensor(x, dtype=torch.float32) for x in (share, values, wanted))).numpy()

    tilted = share * np.exp(asked_for(change)[..., None] * values)
    tilted /= tilted.sum(-1, keepdims=True)
    np.testing.assert_allclose(tilted @ values, share @ values + change, atol=1e-4)
    asked = minimize(lambda q: (q * np.log(q / share[0])).sum(), np.full(6, 1 / 6), bounds=[(1e-9, 1)] * 6, tol=1e-12,
                     constraints=[{"type": "eq", "fun": lambda q: q.sum() - 1},
                                  {"type": "eq", "fun": lambda q: q @ values - tilted[0, 0] @ values}])
    np.testing.assert_allclose(tilted[0, 0], asked.x, atol=1e-4)
    assert (np.abs(asked_for(np.array([[9.0, -9.0]]))) == LIMIT).all()  # cannot be reached: the limit


@pytest.mark.parametrize("time_input, unhidden", [("none", 1.0), ("mask_ratio", 0.5)])
def test_an_untrained_model_follows_the_table(trained, time_input, unhidden):
    screen, checkpoint = trained
    model, values = checkpoint.model, np.log1p(checkpoint.tokenizer.centres)
    fresh = CDT(replace(CONFIG.model, time_input=time_input)).eval()
    fresh.embed.effect.fill(effect_table(TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary),
                                         checkpoint.tokenizer))
    ids = model.embed.effect.gene_ids
    asked = Perturbation.of([int(model.embed.effect.target[0])], [int(model.embed.effect.sign[0])], [float("nan")])
    h = torch.randn(1, 2, len(ids), CONFIG.model.dim)
    shift, half = (fresh.tilt(h, torch.full((1, 2), t), asked, ids) for t in (1.0, 0.0))
    expected = fresh.embed.effect.look_up(asked, ids)[1][0, :, None] * torch.tensor(values, dtype=torch.float32)
    torch.testing.assert_close(shift, expected.expand_as(shift))
    torch.testing.assert_close(half, shift * unhidden)
    ones = torch.ones(1, 2)
    assert fresh.tilt(h, ones, Perturbation.none(1), ids).abs().max() < 1e-5
    with torch.no_grad():
        fresh.trust.bias.fill_(-1)
    assert not fresh.tilt(h, ones, asked, ids).any()  # trust nothing: the network is on its own


def test_the_sampler_lets_half_of_the_unknown_be_guessed(trained):
    screen, checkpoint = trained
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    data = SetSampler(store, replace(CONFIG.finetune, target_dropout=0.5, control_share=0.0))
    asked = [data.batch(i).perturbation for i in range(200)]
    unknown = torch.cat([p.target == UNKNOWN_TARGET for p in asked])
    guessed = torch.cat([p.guess >= 0 for p in asked])
    assert not (guessed & ~unknown & torch.cat([p.target >= 0 for p in asked])).any()
    assert 0.4 < (guessed & unknown).sum() / unknown.sum() < 0.6
    assert set(torch.cat([p.replicate for p in asked]).tolist()) == {0, 1}


def test_its_cost_is_counted():
    plain = replace(CONFIG.model, mean_effect=False)
    d, genes = CONFIG.model.dim, CONFIG.model.n_genes
    assert flops_by_part(CONFIG.model)["mean effect MLP"] == 2 * genes * (d + d * d)
    assert parameters_by_part(CONFIG.model)["mean effect MLP"] == 2 * d + d * d + d
    assert sum(flops_by_part(CONFIG.model).values()) > sum(flops_by_part(plain).values())


def test_the_table_alone_says_what_was_measured_or_guesses(trained):
    screen, checkpoint = trained
    table = effect_table(TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary),
                         checkpoint.tokenizer)
    wanted = wanted_cells(screen[(screen.obs["sign"] != 0).to_numpy()])
    wanted["G7", -1, "a"] = 8
    said = table_changes(checkpoint, wanted)
    assert ("G7", -1) in said.index and len(said) == 3  # two pairs are too few for a ridge: the mean of the others
    for target, sign in said.index:
        rows = (table.target == checkpoint.vocabulary.id(target)) & (table.sign == sign)
        rows &= (table.replicate == GUESSED) == (target not in checkpoint.trained_targets)
        expected = (np.average(table.effect[rows], axis=0, weights=table.cells[rows]) if rows.any() else
                    np.mean([said.loc[key] for key in said.index if key != (target, sign)], axis=0))
        np.testing.assert_allclose(said.loc[(target, sign)], expected, atol=1e-5)
