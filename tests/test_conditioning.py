"""What the model is told of a perturbation: its name as a vector, and what is known of mean effects."""

import numpy as np
import pytest
import torch
from helpers import inputs, network, opened, tiny
from scipy.optimize import minimize

from cdt_lite.errors import CDTError
from cdt_lite.model.mean_effect import LIMIT, NAMELESS, OWN, WHOLE, EffectTable, MeanEffect, tilts
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
    """Of target 3, two replicates were measured, of 5 one, and 7 is like them; three genes: 10, 11, 12."""
    answers = {  # weights of the three measured effects, by perturbation and what is left out
        (3, WHOLE): [0.3, 0.6, 0], (3, 0): [0, 0.9, 0.1], (3, 1): [0.8, 0, 0.1], (3, OWN): [0, 0, 0.5],
        (3, NAMELESS): [0, 0, 0.2], (5, WHOLE): [0.1, 0, 0.9], (5, 0): [0.2, 0.2, 0], (7, WHOLE): [0.4, 0.4, 0],
        (UNKNOWN_TARGET, WHOLE): [0.1, 0.1, 0.1],
    }
    target, without = np.array(list(answers)).T
    table = EffectTable(
        target=target,
        sign=np.full(len(answers), -1),
        without=without,
        left=np.full(len(answers), 0.5),
        weights=np.array(list(answers.values())),
        effect=np.diag([1.0, 4.0, 6.0]),
        shares=np.full((3, BINS), 1 / BINS),
        gene_ids=GENES.numpy(),
        values=VALUES,
        counted=True,
        highest=np.full(3, BINS - 1),
        trusted=np.zeros(2),
    )
    module = MeanEffect(CONFIG.model)
    module.fill(table)
    return module.eval()


def looked_up(module, target, guess=NO_TARGET, replicate=None, sign=-1, genes=GENES, own=None):
    """The effect on each gene, after checking that the tilt makes just that effect."""
    asked = Perturbation.of([target], [sign], [0.0], [guess], replicate, own)
    known = module.look_up(asked, genes)
    effect = known.effect[0].numpy()
    tilt = tilts(known.shares, known.values, known.effect)[0].numpy()
    p = np.exp(tilt[:, None] * VALUES)
    moved = p @ VALUES / p.sum(1) - VALUES.mean()
    within = np.abs(tilt) < LIMIT
    np.testing.assert_allclose(moved[within], effect[within], atol=1e-3)
    return effect.tolist()


def test_an_effect_is_the_weighted_sum_of_what_was_measured(module):
    assert looked_up(module, 3) == pytest.approx([0.3, 2.4, 0])
    assert looked_up(module, 5, genes=torch.tensor([12, 99, 11])) == pytest.approx([5.4, 0, 0])


def test_in_training_a_set_is_told_what_follows_without_its_own_replicate(module):
    assert looked_up(module, 3, replicate=[1], own=[3]) == pytest.approx([0.3, 2.4, 0])  # not while judging
    module.train()
    assert looked_up(module, 3, replicate=[1], own=[3]) == pytest.approx([0.8, 0, 0.6])
    assert looked_up(module, 3, replicate=[0], own=[3]) == pytest.approx([0, 3.6, 0.6])


def test_a_target_nobody_perturbed_has_what_is_known_of_its_gene_or_of_all(module):
    assert looked_up(module, UNKNOWN_TARGET, guess=7) == pytest.approx([0.4, 1.6, 0])
    assert looked_up(module, UNKNOWN_TARGET, guess=9) == [0, 0, 0]  # a gene that the table does not know
    assert looked_up(module, UNKNOWN_TARGET) == pytest.approx([0.1, 0.4, 0.6])


def test_in_training_a_withheld_name_leaves_all_cells_of_its_target_out(module):
    assert looked_up(module, UNKNOWN_TARGET, guess=3, replicate=[0], own=[3]) == pytest.approx([0.3, 2.4, 0])
    module.train()
    assert looked_up(module, UNKNOWN_TARGET, guess=3, replicate=[0], own=[3]) == pytest.approx([0, 0, 3.0])
    assert looked_up(module, UNKNOWN_TARGET, replicate=[0], own=[3]) == pytest.approx([0, 0, 1.2])


def test_no_perturbation_has_no_effect(module):
    assert looked_up(module, NO_TARGET, sign=0) == [0, 0, 0]
    assert looked_up(module, 3, sign=1) == [0, 0, 0]  # nothing of this sign is known
    empty = MeanEffect(CONFIG.model).look_up(Perturbation.none(2), GENES)
    assert not empty.effect.any()
    assert module.measured() == {(3, -1), (5, -1)}


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
    one = np.array([1])
    halves = np.full((1, 2), 0.5)
    table = EffectTable(3 * one, -one, WHOLE * one, halves[0, :1], halves, effect, rare, 10 * one, VALUES, True,
                        one, np.zeros(2))
    module.fill(table)
    known = module.look_up(Perturbation.of([3], [-1], [0.0]), torch.tensor([10]))
    half = tilted(rare[0], tilts(known.shares, known.values, known.effect).item(), VALUES)
    assert half @ VALUES == pytest.approx(0.01 * np.log(2), rel=1e-3)
    silenced = tilted(rare[0], -LIMIT / 2, VALUES)  # by the mean of the two tilts
    assert silenced @ VALUES < 0.002 * np.log(2)


def test_an_untrained_model_follows_the_table():
    fresh, given = network(CONFIG).eval(), inputs(CONFIG)
    without = fresh(**given)
    fresh.embed.effect = opened(network(CONFIG)).effect
    assert not torch.allclose(fresh(**given), without, atol=1e-3)
