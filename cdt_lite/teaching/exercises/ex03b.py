"""Exercises of notebook 03, second part: the cheapest schedule for a measured curve, and guidance."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdt_lite.teaching.check import Exercise, Property

Pair = tuple[Any, Any]
C, ZERO = torch.tensor([0.6, 0.4]), torch.tensor([0.8, 0.2])  # with and without the perturbation


def best_counts(h: Float[np.ndarray, " G"], n_steps: int) -> Int[np.ndarray, " n_steps"]:
    """Returns how many genes each step reveals in the cheapest schedule.

    A step that reveals n genes while m are known costs n * H(G - m). The schedule costs the sum of its steps.

    Args:
        h: H(k) for k = 1..G hidden genes, so that h[k - 1] is H(k).
        n_steps: Steps, at most G.

    Returns:
        Whole numbers, each at least 1, which sum to G.
    """
    n_genes = len(h)
    least, origins = np.append(0.0, np.full(n_genes, np.inf)), []  # least cost at which m genes are known
    for _ in range(n_steps):
        after, origin = np.full(n_genes + 1, np.inf), np.zeros(n_genes + 1, int)
        for m in range(1, n_genes + 1):
            cost = least[:m] + (m - np.arange(m)) * h[n_genes - np.arange(m) - 1]
            origin[m] = cost.argmin()
            after[m] = cost[origin[m]]
        least = after
        origins.append(origin)
    path = [n_genes]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.diff(path[::-1])


def guided(logits: Float[Tensor, "*cells V"], unconditional: Float[Tensor, "*cells V"], weight: float, n_bins: int
           ) -> Float[Tensor, "*cells n_bins"]:
    """Returns guided probabilities over the data bins: softmax of weight * log p_c + (1 - weight) * log p_0.

    Args:
        logits: With the perturbation (c). Entries from n_bins on ([MASK]) are no data bins and take no part.
        unconditional: The same without it (0).
        weight: 1 is plain, 0 ignores the perturbation, above 1 exaggerates it.
        n_bins: K.
    """
    log_c, log_0 = (x[..., :n_bins].log_softmax(-1) for x in (logits, unconditional))
    return (weight * log_c + (1 - weight) * log_0).softmax(-1)


def _cost(h: np.ndarray, counts: list[int]) -> float:
    known, total = 0, 0.0
    for n in counts:
        total, known = total + n * h[len(h) - known - 1], known + n
    return total


def _cheapest(fn: Callable) -> Pair:
    h = np.array([0.1, 0.15, 0.7, 0.72, 0.75, 0.8, 1.9, 2.0, 2.6, 4.0, 4.1])
    all_counts = [np.diff([0, *cuts, 11]).tolist() for cuts in combinations(range(1, 11), 3)]
    return min(_cost(h, counts) for counts in all_counts), _cost(h, [int(n) for n in fn(h, 4)])


def _whole(fn: Callable) -> Pair:
    counts = [int(n) for n in fn(np.linspace(1, 2, 23) ** 3, 5)]
    return [5, 23, True], [len(counts), sum(counts), min(counts) >= 1]


def _straight(fn: Callable) -> Pair:
    return [3, 3, 3], [int(n) for n in fn(np.arange(1.0, 10.0), 3)]


def _reads_curve(fn: Callable) -> Pair:
    late, early = np.append(np.zeros(8), np.ones(2)), np.append(np.zeros(3), np.ones(7))
    return True, list(fn(late, 2)) != list(fn(early, 2))


def _by_hand(fn: Callable) -> Pair:
    return [2, 3, 1], [int(n) for n in fn(np.array([0.0, 1, 1, 1, 9, 9]), 3)]


def _ends(fn: Callable) -> Pair:
    return torch.stack([ZERO, C]), torch.stack([fn(C.log(), ZERO.log(), g, 2) for g in (0.0, 1.0)])


def _double(fn: Callable) -> Pair:
    return torch.tensor([0.36, 0.64]), fn(C.log(), ZERO.log(), 2.0, 2)  # 0.36 / 0.8 against 0.16 / 0.2


def _never_negative(fn: Callable) -> Pair:
    strong = fn(torch.tensor([0.1, 0.9]).log(), torch.tensor([0.6, 0.4]).log(), 3.0, 2)
    return [True, True], [bool(x >= 0) for x in strong]


def _sums(fn: Callable) -> Pair:
    noise = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return torch.ones(3, 4), fn(noise[0], noise[1], 1.7, 6).sum(-1)


def _no_mask(fn: Callable) -> Pair:
    with_mask = [torch.cat([p.log(), torch.tensor([extra])]) for p, extra in ((C, 2.0), (ZERO, 0.5))]
    return torch.tensor([0.36, 0.64]), fn(*with_mask, 2.0, 2)


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "3.4", "The cheapest schedule", 5, 20,
        "find the best sampling schedule for a measured H curve by dynamic programming",
        "making each step cheap, one after the other, makes the schedule cheap",
        best_counts,
        (
            Property("5 steps reveal 23 genes, at least 1 each", _whole,
                     "Your counts do not add up: n_steps whole numbers, each at least 1, with sum len(h)."),
            Property("another curve, another schedule", _reads_curve,
                     "Your schedule takes no notice of h: equal groups, or a fixed shape, suit one curve only. Or "
                     "it reads h at the known genes instead of the hidden ones."),
            Property("H = 0, 1, 1, 1, 9, 9 in 3 steps: [2, 3, 1]", _by_hand,
                     "You priced a step by what is known. H takes the number of hidden genes: with m known it is "
                     "H(G - m) = h[G - m - 1]. (Or your counts are in reverse order.)"),
            Property("H(k) = k, 9 genes, 3 steps: [3, 3, 3]", _straight,
                     "You chose one step at a time. A cut that is best now can be wrong once others follow: keep the "
                     "least cost for every number of known genes, and go back along it at the end."),
            Property("as cheap as the best of all 120", _cheapest,
                     "A cheaper schedule exists: minimise the sum of n * H(G - m) over all schedules."),
        ),
        ("Let f_s(m) be the least cost of knowing m genes after s steps. f_0(0) = 0, all else is infinite.",
         "f_s(m) = min over j < m of f_{s-1}(j) + (m - j) * h[G - j - 1]. Note the j that wins.",
         "Start at m = G after n_steps steps and follow the winners back to 0; the differences are the counts."),
    ),
    Exercise(
        "3.5", "Guidance over data bins", 2, 5,
        "mix two predictions so that a condition counts more than once",
        "guidance mixes probabilities, and [MASK] may take part",
        guided,
        (
            Property("weight 0 gives p_0, weight 1 gives p_c", _ends,
                     "You exchanged the two: the weight belongs to the perturbation (p_c), 1 - weight to p_0."),
            Property("weight 2 of (0.6, 0.4) over (0.8, 0.2)", _double,
                     "Guidance adds logarithms: the result is proportional to p_c^g * p_0^(1 - g), here 0.45 to 0.8."),
            Property("no negative probability at weight 3", _never_negative,
                     "You mixed probabilities, and beyond weight 1 they leave [0, 1]: mix their logarithms."),
            Property("probabilities of each cell sum to 1", _sums,
                     "You did not normalise: p_c^g * p_0^(1 - g) sums to 1 only after a softmax over the bins."),
            Property("[MASK] takes no part", _no_mask,
                     "[MASK] kept a part of the probability: cut the logits to the n_bins data bins before you "
                     "normalise."),
        ),
        ("Cut both to [..., :n_bins] first, then take log_softmax of each.",
         "Shorter: softmax undoes whatever constant a gene's logits carry, so one softmax at the end is enough."),
    ),
)
