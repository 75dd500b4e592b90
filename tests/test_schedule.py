"""Schedules against a world small enough to enumerate: 4 genes, 2 bins, a joint law known exactly."""

from itertools import combinations, permutations, product
from math import comb

import numpy as np
import pytest

from cdt_lite.errors import CDTError
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.model.diffusion import MaskedDiffusion
from cdt_lite.model.schedule import best_schedule, full_curve, schedule_error

G = 4
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
            for p, cell in zip(LAW, CELLS, strict=True):
                nats = [-np.log(conditional(known, cell, gene)) for gene in hidden]
                h[k - 1] += p * np.mean(nats) / comb(G, k)
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
    laws, divergences = [], []
    for order in permutations(range(G)):
        laws.append(law_given_order(order, counts))
        divergences.append(divergence(LAW, laws[-1]))
    own, error = np.mean(laws, axis=0), schedule_error(exact_h(), counts)
    assert np.mean(divergences) == pytest.approx(error, abs=1e-6)
    assert divergence(LAW, own) <= error + 1e-12
    assert own.sum() == pytest.approx(1)


def test_one_gene_a_step_is_free_and_more_hidden_genes_are_never_easier():
    h = exact_h()
    assert schedule_error(h, (1,) * G) == pytest.approx(0, abs=1e-12)
    assert (np.diff(h) >= 0).all()
    assert h.mean() * G == pytest.approx(-(LAW * np.log(LAW)).sum())  # the NELBO of an exact model is the entropy


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
def test_best_schedule_beats_every_other(n_steps):
    rng = np.random.default_rng(n_steps)
    h = np.sort(rng.random(9))
    errors = []
    for cuts in combinations(range(1, 9), n_steps - 1):
        errors.append(schedule_error(h, np.diff([0, *cuts, 9])))
    assert schedule_error(h, best_schedule(h, n_steps)) == pytest.approx(min(errors))


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


def test_the_process_follows_the_learned_schedule():
    shares, nats = (0.1, 0.5, 1.0), (0.2, 0.9, 1.0)
    curve = tuple(zip(shares, nats, strict=True))
    config = DiffusionConfig(sampling_schedule="learned", sampling_steps=4, loss_curve=curve)
    expected = best_schedule(full_curve(shares, nats, 40), 4)
    assert MaskedDiffusion(config, 63).counts(40) == expected.tolist()
    assert MaskedDiffusion(config, 63).counts(40, steps=1) == [40]
