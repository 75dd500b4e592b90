"""What the model is told of a perturbation: its name as a vector, and what is known of mean effects."""

import numpy as np
import pytest
import torch
from helpers import inputs, network, opened, tiny
from scipy.optimize import minimize

from cdt_lite.errors import CDTError
from cdt_lite.model.mean_effect import GUESSED, LIMIT, EffectTable, MeanEffect, tilts
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation

CONFIG = tiny("lite")
BINS = CONFIG.model.n_bins
VALUES = np.log1p(np.arange(BINS))
GENES = torch.tensor([10, 11, 12])


def told(model, target, sign, magnitude):
    return model.perturbation(Perturbation.of([target], [sign], [magnitude]), model.gene_table)


@pytest.mark.parametrize("preset", ["v1", "lite"])
def test_magnitude_is_clipped_and_an_unknown_one_is_not_a_zero_one(preset):
    model = opened(network(tiny(preset)))
    assert torch.equal(told(model, 3, -1, -5.0), told(model, 3, -1, -50.0))
    assert not torch.allclose(told(model, 3, -1, float("nan")), told(model, 3, -1, 0.0))


def test_no_target_unknown_target_and_a_gene_are_three_things():
    model = opened(network(CONFIG))
    vectors = []
    for target in (NO_TARGET, UNKNOWN_TARGET, 0, 1):
        vector = told(model, target, -1, 0.0)
        for other in vectors:
            assert not torch.allclose(vector, other, atol=1e-3)
        vectors.append(vector)


def test_a_sign_outside_the_three_is_refused():
    with pytest.raises(CDTError, match="sign must be"):
        Perturbation.of([1], [2], [0.0])
    with pytest.raises(CDTError, match="target must be"):
        Perturbation.of([-7], [1], [0.0])


@pytest.fixture
def module():
    """Targets 3 (replicates 0 and 1) and 5 (replicate 0), and a guess for each and for 7; three genes: 10, 11, 12."""
    table = EffectTable(
        target=np.array([3, 3, 5, 3, 5, 7]),
        sign=np.full(6, -1),
        replicate=np.array([0, 1, 0, GUESSED, GUESSED, GUESSED]),
        cells=np.array([10.0, 20, 8, 1, 1, 1]),
        share=np.array([1 / 3, 2 / 3, 1, 1, 1, 1]),
        effect=np.array([[1.0, 0, 0], [4, 0, 0], [0, 6, 0], [0, 0, 3], [0, 0, 5], [0, 0, 7]]),
        shares=np.full((3, BINS), 1 / BINS),
        gene_ids=GENES.numpy(),
        values=VALUES,
        highest=np.full(3, BINS - 1),
    )
    module = MeanEffect(CONFIG.model)
    module.fill(table)
    return module.eval()


def looked_up(module, target, guess=NO_TARGET, replicate=None, sign=-1, genes=GENES, own=None):
    """The effect on each gene, after checking that the tilt makes just that effect."""
    asked = Perturbation.of([target], [sign], [0.0], [guess], replicate, own)
    effect, tilt = (part[0].numpy() for part in module.look_up(asked, genes))
    p = np.exp(tilt[:, None] * VALUES)
    moved = p @ VALUES / p.sum(1) - VALUES.mean()
    within = np.abs(tilt) < LIMIT
    np.testing.assert_allclose(moved[within], effect[within], atol=1e-3)
    return effect.tolist()


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


def test_no_perturbation_has_no_effect_and_other_genes_are_zero(module):
    assert looked_up(module, NO_TARGET, sign=0) == [0, 0, 0]
    assert looked_up(module, 3, sign=1) == [0, 0, 0]  # nothing of this sign is known
    assert looked_up(module, 5, genes=torch.tensor([12, 99, 11])) == pytest.approx([5 / 9, 0, 48 / 9])
    empty = MeanEffect(CONFIG.model).look_up(Perturbation.none(2), GENES)
    assert not empty.effect.any() and not empty.tilt.any()


def tilted(share, tilt, values):
    p = share * np.exp(tilt * values)
    return p / p.sum(-1, keepdims=True)


def test_a_tilt_moves_the_mean_by_what_was_asked_and_no_distribution_with_that_mean_is_nearer():
    values = np.log1p(np.arange(6.0))
    share = np.array([[0.5, 0.2, 0.15, 0.1, 0.04, 0.01], [0.96, 0.02, 0.01, 0.005, 0.004, 0.001]])
    change = np.array([[0.3, 0.1], [-0.4, -0.02], [0.0, 0.0]])

    def asked_for(wanted):
        parts = [torch.tensor(x, dtype=torch.float32) for x in (share, values, wanted)]
        return tilts(*parts).numpy()

    ours = tilted(share, asked_for(change)[..., None], values)
    np.testing.assert_allclose(ours @ values, share @ values + change, atol=1e-4)
    conditions = [
        {"type": "eq", "fun": lambda q: q.sum() - 1},
        {"type": "eq", "fun": lambda q: q @ values - ours[0, 0] @ values},
    ]
    nearest = minimize(
        lambda q: (q * np.log(q / share[0])).sum(), np.full(6, 1 / 6), bounds=[(1e-9, 1)] * 6, tol=1e-12,
        constraints=conditions,
    )
    np.testing.assert_allclose(ours[0, 0], nearest.x, atol=1e-4)
    out_of_reach = np.array([[9.0, -9.0]])
    assert (np.abs(asked_for(out_of_reach)) == LIMIT).all()


def test_a_mean_of_effects_is_made_by_its_own_tilt_not_by_the_mean_of_tilts(module):
    """A replicate that holds none of a rare gene needs the tilt -LIMIT; a mean of tilts would silence the gene."""
    rare = np.zeros((1, BINS))
    rare[0, :2] = 0.98, 0.02
    effect = np.array([[-0.02 * np.log(2)], [0.0]])
    ids, even = np.array([3, 3]), np.ones(2)
    table = EffectTable(ids, -np.ones(2, int), np.array([0, 1]), even, even / 2, effect, rare, np.array([10]), VALUES,
                        np.array([1]))
    module.fill(table)
    known = module.look_up(Perturbation.of([3], [-1], [0.0]), torch.tensor([10]))
    half = tilted(rare[0], known.tilt.item(), VALUES)
    assert half @ VALUES == pytest.approx(0.01 * np.log(2), rel=1e-3)
    silenced = tilted(rare[0], -LIMIT / 2, VALUES)  # by the mean of the two tilts
    assert silenced @ VALUES < 0.002 * np.log(2)


def test_an_untrained_model_follows_the_table():
    fresh, given = network(CONFIG).eval(), inputs(CONFIG)
    without = fresh(**given)
    fresh.embed.effect = opened(network(CONFIG)).effect
    assert not torch.allclose(fresh(**given), without, atol=1e-3)
    values, h = fresh.effect.values, torch.randn(2, 3, 12, CONFIG.model.dim)
    known = fresh.effect.look_up(given["perturbation"], given["gene_ids"])
    nothing = fresh.effect.look_up(Perturbation.none(2), given["gene_ids"])
    shift = fresh.trust(h, known, values)
    torch.testing.assert_close(shift, (known.tilt[:, None, :, None] * values).expand_as(shift))
    assert fresh.trust(h, nothing, values).abs().max() < 1e-5
    with torch.no_grad():
        fresh.trust.bias.fill_(-1)
    assert not fresh.trust(h, known, values).any()  # trust nothing: the network is on its own
