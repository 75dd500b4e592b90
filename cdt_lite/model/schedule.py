"""How many genes to reveal at each sampling step: what a schedule costs, and the cheapest one for a measured model.

H(k) is the mean cross-entropy per hidden gene when k of G genes are hidden, nats; `h[k - 1]` holds H(k). Its mean over
k is the negative ELBO per gene, and it prices every sampling schedule as well.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.errors import CDTError, require_whole


def full_curve(shares: Sequence[float], nats: Sequence[float], n_genes: int) -> Float[np.ndarray, " G"]:
    """Returns H(k) for every k = 1..G from a curve measured at a few shares of hidden genes.

    Straight lines between the points, flat beyond the first and the last. More hidden genes cannot make a gene easier
    to guess on average, so a dip in the measured points is noise and is levelled.

    Args:
        shares: Shares of hidden genes, rising, in (0, 1].
        nats: H at each share, nats per gene.
        n_genes: G.

    Raises:
        CDTError: Shares that do not rise or lie outside (0, 1].
    """
    if len(shares) != len(nats) or not len(shares):
        raise CDTError(f"one value a share is needed, not {len(nats)} values for {len(shares)} shares.")
    if min(shares) <= 0 or max(shares) > 1 or (np.diff(shares) <= 0).any():
        raise CDTError(f"shares must rise within (0, 1], not {list(shares)}")
    return np.interp(np.arange(1, n_genes + 1) / n_genes, shares, np.maximum.accumulate(nats))


def schedule_error(h: Float[np.ndarray, " G"], counts: Sequence[int] | np.ndarray) -> float:
    """Returns what revealing several genes at once costs: sum_s n_s H(G - m_s) - sum_k H(k), nats per cell.

    m_s genes are known before step s, which reveals n_s of them independently given the known ones. For an exact
    denoiser this is the KL divergence between the data and the sampler, averaged over random orders; the law of the
    sampler itself, a mixture over orders, is no further away. One gene a step costs nothing.

    Source: the chain rule of entropy, applied step by step; tested on a case small enough to enumerate.
    """
    counts = np.asarray(counts)
    if counts.sum() != len(h) or (counts < 1).any():
        raise CDTError(f"a schedule reveals each of the {len(h)} genes once, at least one a step; this one: {counts}")
    known = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return float(counts @ h[len(h) - known - 1] - h.sum())


def best_schedule(h: Float[np.ndarray, " G"], n_steps: int) -> Int[np.ndarray, " n_steps"]:
    """Returns the counts of the schedule with the smallest `schedule_error`, by dynamic programming.

    After s steps, m genes are known at a least cost of f_s(m) = min over j < m of f_{s-1}(j) + (m - j) H(G - j).

    Args:
        h: H(k) for k = 1..G.
        n_steps: Steps; more than G become G.
    """
    n_genes, n_steps = len(h), min(n_steps, len(h))
    before, after = np.arange(n_genes), np.arange(1, n_genes + 1)
    price = np.where(after > before[:, None], (after - before[:, None]) * h[n_genes - before - 1][:, None], np.inf)
    cost, came_from = np.full(n_genes + 1, np.inf), []
    cost[0] = 0.0
    for _ in range(n_steps):
        total = cost[:-1, None] + price  # (known before, known after)
        came_from.append(total.argmin(0))
        cost = np.concatenate([[np.inf], total.min(0)])
    path = [n_genes]
    for step in reversed(came_from):
        path.append(int(step[path[-1] - 1]))
    return np.diff(path[::-1])


@lru_cache(maxsize=16)
def learned_counts(curve: tuple[tuple[float, float], ...], n_genes: int, n_steps: int) -> tuple[int, ...]:
    """Returns `best_schedule` for a curve of (share hidden, nats per gene) points, as a checkpoint stores it."""
    shares, nats = zip(*curve, strict=True)
    return tuple(best_schedule(full_curve(shares, nats, n_genes), n_steps).tolist())


def uniform_counts(n_genes: int, n_steps: int) -> Int[np.ndarray, " n_steps"]:
    """Returns equal counts: a share u of the genes is known after a share u of the steps."""
    return _counts(_shares(n_genes, n_steps), n_genes)


def cosine_counts(n_genes: int, n_steps: int) -> Int[np.ndarray, " n_steps"]:
    """Returns few at first: a share 1 - cos(pi / 2 u) of the genes is known after a share u of the steps."""
    u = _shares(n_genes, n_steps)
    return _counts(1 - np.cos(u * np.pi / 2), n_genes)


def _shares(n_genes: int, n_steps: int) -> Float[np.ndarray, " n"]:
    """Shares of the steps that are done, after each of them; there are no more steps than genes."""
    n_genes, n_steps = require_whole("n_genes", n_genes, 1), require_whole("n_steps", n_steps, 1)
    return np.linspace(0, 1, min(n_steps, n_genes) + 1)


def _counts(known: Float[np.ndarray, " n"], n_genes: int) -> Int[np.ndarray, " n_steps"]:
    """Turns known shares into whole counts: at least one gene a step, and enough left for the steps to come."""
    total = np.rint(known * n_genes).astype(int)
    n_steps = len(known) - 1
    for i in range(1, n_steps + 1):
        total[i] = np.clip(total[i], total[i - 1] + 1, n_genes - (n_steps - i))
    return np.diff(total)
