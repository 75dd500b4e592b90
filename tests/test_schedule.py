"""Schedules against a world small enough to enumerate: 4 genes, 2 bins, a joint law known exactly."""

from dataclasses import replace
from itertools import combinations, permutations, product
from math import comb

import numpy as np
import pytest
import torch

from cdt_lite.errors import CDTError
from cdt_lite.model.config import PRESETS, Config, DiffusionConfig
from cdt_lite.model.diffusion import reveal_counts, sample
from cdt_lite.model.schedule import best_schedule, full_curve, schedule_error

G, MASK = 4, 2
CELLS = np.array(list(product(range(2), repeat=G)))
LAW = np.random.default_rng(7).dirichlet(np.full(len(CELLS), 0.3))


def conditional(known: tuple[int, ...], cell: np.ndarray, gene: int) -> float:
    """p(gene = its value in `cell` | the genes in `known` as in `cell`), from the table."""
    same = (CELLS[:, list(known)] == cell[list(known)]).all(1)
    return LAW[same & (CELLS[:, gene] == cell[gene])].sum() / LAW[same].sum()


def exact_h() -> np.ndarray:
    """H(k): mean over all sets of k hidden genes of the mean conditional entropy of a hidden gene."""
    h = np.zeros(G)
    for k in range(1, G + 1):
        for hidden in combinations(range(G), k):
            known = tuple(set(range(G)) - set(hidden))
            h[k - 1] -= sum(p * np.mean([np.log(conditional(known, c, g)) for g in hidden])
                            for p, c in zip(LAW, CELLS, strict=True)) / comb(G, k)
    return h


def law_given_order(order: tuple[int, ...], counts: tuple[int, ...]) -> np.ndarray:
    """The law of a sampler that reveals genes in a fixed order, `counts` of them at a time, independently."""
    law, known = np.ones(len(CELLS)), 0
    for n in counts:
        for gene in order[known: known + n]:
            law *= [conditional(order[:known], c, gene) for c in CELLS]
        known += n
    return law


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


SCHEDULES = [(4,), (2, 2), (1, 3), (3, 1), (1, 1, 2), (2, 1, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize("counts", SCHEDULES, ids=str)
def test_the_error_is_the_divergence_averaged_over_orders_and_bounds_the_samplers_own(counts):
    laws = [law_given_order(order, counts) for order in permutations(range(G))]
    assert np.mean([divergence(LAW, law) for law in laws]) == pytest.approx(schedule_error(exact_h(), counts), abs=1e-6)
    own = divergence(LAW, np.mean(laws, axis=0))
    assert own <= schedule_error(exact_h(), counts) + 1e-12
    assert np.mean(laws, axis=0).sum() == pytest.approx(1)


def test_one_gene_a_step_is_free_and_more_hidden_genes_are_never_easier():
    h = exact_h()
    assert schedule_error(h, (1,) * G) == pytest.approx(0, abs=1e-12)
    assert (np.diff(h) >= 0).all()
    assert h.mean() * G == pytest.approx(-(LAW * np.log(LAW)).sum())  # the NELBO of an exact model is the entropy


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
def test_best_schedule_beats_every_other(n_steps):
    rng = np.random.default_rng(n_steps)
    h = np.sort(rng.random(9))
    cuts = combinations(range(1, 9), n_steps - 1)
    others = [np.diff([0, *c, 9]) for c in cuts]
    assert schedule_error(h, best_schedule(h, n_steps)) == pytest.approx(min(schedule_error(h, o) for o in others))


def test_a_flat_curve_makes_every_schedule_free():
    assert schedule_error(np.full(50, 1.3), best_schedule(np.full(50, 1.3), 5)) == pytest.approx(0)


def test_full_curve_passes_through_its_points_and_levels_dips():
    h = full_curve((0.1, 0.5, 1.0), (1.0, 0.9, 2.0), 10)
    assert h[0] == h[4] == 1.0 and h[-1] == 2.0 and (np.diff(h) >= 0).all()


@pytest.mark.parametrize("shares", [(0.5, 0.2), (0.0, 1.0), (0.5, 1.5)])
def test_full_curve_refuses_shares_that_do_not_rise_or_lie_outside(shares):
    with pytest.raises(CDTError, match="rise within"):
        full_curve(shares, (1.0, 1.0), 10)


def test_error_refuses_a_schedule_that_does_not_cover_the_genes():
    with pytest.raises(CDTError, match="each of the 4 genes once"):
        schedule_error(exact_h(), (2, 1))


def test_the_sampler_follows_the_learned_schedule_and_the_checkpoint_keeps_it():
    curve = ((0.1, 0.2), (0.5, 0.9), (1.0, 1.0))
    config = DiffusionConfig(sampling_schedule="learned", sampling_steps=4, loss_curve=curve)
    counts = reveal_counts(config, 40)
    assert counts.tolist() == best_schedule(full_curve((0.1, 0.5, 1.0), (0.2, 0.9, 1.0), 40), 4).tolist()
    whole = replace(PRESETS["lite"], diffusion=config)
    assert Config.from_dict({k: listed(v) for k, v in whole.to_dict().items()}) == whole
    with pytest.raises(CDTError, match="loss_curve"):
        DiffusionConfig(sampling_schedule="learned")


def listed(value):
    if isinstance(value, dict):
        return {k: listed(v) for k, v in value.items()}
    return [listed(v) for v in value] if isinstance(value, tuple) else value


def test_entropy_order_reveals_the_surest_gene_first_and_keeps_the_exact_law():
    """Gene 0 is a fair coin and gene 1 its copy with 10 % noise; gene 2 is nearly always 1: it goes first."""
    turns = []

    def denoise(xt, t):
        hidden = xt[0] == MASK
        turns.append(hidden.clone())
        p1 = torch.full(xt.shape[1:], 0.5)
        p1[:, 2] = 0.97
        for gene, other in ((0, 1), (1, 0)):
            seen = xt[0, :, other]
            p1[:, gene] = torch.where(seen == MASK, 0.5, torch.where(seen == 1, 0.9, 0.1))
        return torch.stack([1 - p1, p1], -1).log()[None]

    config = DiffusionConfig(order="entropy", sampling_steps=3, sampling_schedule="uniform")
    cells = sample(denoise, config, (1, 20_000, 3), MASK, torch.Generator().manual_seed(0))[0]
    assert (~turns[1][:, 2]).all() and turns[1][:, :2].all()  # after the first step only gene 2 is known
    assert (cells != MASK).all()
    assert cells[:, 2].float().mean().item() == pytest.approx(0.97, abs=0.01)
    assert (cells[:, 0] == cells[:, 1]).float().mean().item() == pytest.approx(0.9, abs=0.01)
