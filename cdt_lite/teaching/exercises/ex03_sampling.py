"""Exercises of notebook 03, second part: the cheapest schedule for a measured curve, and guidance."""

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdt_lite.teaching.check import Answer, Pair, exercise

C, ZERO = torch.tensor([0.6, 0.4]), torch.tensor([0.8, 0.2])  # with and without the perturbation


@exercise(
    "3.4", "The cheapest schedule", difficulty=5, minutes=20,
    objective="find the best sampling schedule for a measured H curve by dynamic programming",
    misconception="making each step cheap, one after the other, makes the schedule cheap",
    hints=("Let f_s(m) be the least cost of knowing m genes after s steps. f_0(0) = 0, all else is infinite.",
           "f_s(m) = min over j < m of f_{s-1}(j) + (m - j) * h[G - j - 1]. Note the j that wins.",
           "Start at m = G after n_steps steps and follow the winners back to 0; the differences are the counts."),
)
def best_counts(h: Float[np.ndarray, " G"], n_steps: int) -> Int[np.ndarray, " n_steps"]:
    """Returns how many genes each step reveals in the cheapest schedule: at least 1 each, G together.

    A step that reveals n genes while m are known costs n * H(G - m), and H(k) is h[k - 1]. The schedule costs the sum
    of its steps.
    """
    n_genes = len(h)
    least = np.append(0.0, np.full(n_genes, np.inf))  # least cost at which m genes are known
    origins = []
    for _ in range(n_steps):
        after, origin = np.full(n_genes + 1, np.inf), np.zeros(n_genes + 1, int)
        for m in range(1, n_genes + 1):
            cost = least[:m] + (m - np.arange(m)) * h[n_genes - np.arange(m) - 1]
            origin[m] = cost.argmin()
            after[m] = cost.min()
        least = after
        origins.append(origin)
    path = [n_genes]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.diff(path[::-1])


def _cost(h: np.ndarray, counts: Int[np.ndarray, " n"]) -> float:
    known = np.cumsum(counts) - counts
    return float(counts @ h[len(h) - known - 1])

@best_counts.requires("5 steps reveal 23 genes, at least 1 each")
def _(fn: Answer) -> Pair:
    """Your counts do not add up: n_steps whole numbers, each at least 1, with sum len(h)."""
    counts = fn(np.linspace(1, 2, 23) ** 3, 5)
    return [5, 23, True], [len(counts), sum(counts), min(counts) >= 1]

@best_counts.requires("another curve, another schedule")
def _(fn: Answer) -> Pair:
    """Your schedule takes no notice of h: equal groups suit one curve only. Or it reads h at the known genes."""
    late, early = np.repeat([0.0, 1.0], [8, 2]), np.repeat([0.0, 1.0], [3, 7])
    return True, list(fn(late, 2)) != list(fn(early, 2))

@best_counts.requires("H = 0, 1, 1, 1, 9, 9 in 3 steps: [2, 3, 1]")
def _(fn: Answer) -> Pair:
    """You priced a step by what is known. H takes the number of hidden genes: with m known it is h[G - m - 1]."""
    return [2, 3, 1], fn(np.array([0.0, 1, 1, 1, 9, 9]), 3)

@best_counts.requires("H(k) = k, 9 genes, 3 steps: [3, 3, 3]")
def _(fn: Answer) -> Pair:
    """You chose one step at a time: keep the least cost for every number of known genes, and go back at the end."""
    return [3, 3, 3], fn(np.arange(1.0, 10.0), 3)

@best_counts.requires("H(k) = k, 120 genes, 8 steps: 15 each, in good time")
def _(fn: Answer) -> Pair:
    """Trying all schedules is too slow: there are 57 billion of these, and the next cell has 300 genes.

    Keep the least cost for every number of known genes instead.
    """
    return [15] * 8, fn(np.arange(1.0, 121.0), 8)

@best_counts.requires("as cheap as the best of all 120")
def _(fn: Answer) -> Pair:
    """A cheaper schedule exists: minimise the sum of n * H(G - m) over all schedules."""
    h = np.array([0.1, 0.15, 0.7, 0.72, 0.75, 0.8, 1.9, 2.0, 2.6, 4.0, 4.1])
    best = np.inf
    for cuts in combinations(range(1, 11), 3):
        best = min(best, _cost(h, np.diff([0, *cuts, 11])))
    return best, _cost(h, np.asarray(fn(h, 4)))


@exercise(
    "3.5", "Guidance over data bins", difficulty=2, minutes=5,
    objective="mix two predictions so that a condition counts more than once",
    misconception="guidance mixes probabilities, and [MASK] may take part",
    hints=("Cut both to [..., :n_bins] first, then take log_softmax of each.",
           "Shorter: softmax undoes whatever constant a gene's logits carry, so one softmax at the end is enough."),
)
def guided(logits: Float[Tensor, "*cells V"], unconditional: Float[Tensor, "*cells V"], weight: float, n_bins: int
           ) -> Float[Tensor, "*cells n_bins"]:
    """Returns guided probabilities over the data bins: softmax of weight * log p_c + (1 - weight) * log p_0.

    p_c knows the perturbation (logits), p_0 does not (unconditional). Logits from n_bins on are no data bins ([MASK]).
    """
    log_c = logits[..., :n_bins].log_softmax(-1)
    log_0 = unconditional[..., :n_bins].log_softmax(-1)
    return (weight * log_c + (1 - weight) * log_0).softmax(-1)

@guided.requires("weight 0 gives p_0, weight 1 gives p_c")
def _(fn: Answer) -> Pair:
    """You exchanged the two: the weight belongs to the perturbation (p_c), 1 - weight to p_0."""
    both = torch.cat([fn(C.log(), ZERO.log(), 0.0, 2), fn(C.log(), ZERO.log(), 1.0, 2)])
    return torch.cat([ZERO, C]), both

@guided.requires("weight 2 of (0.6, 0.4) over (0.8, 0.2)")
def _(fn: Answer) -> Pair:
    """Guidance adds logarithms: the result is proportional to p_c^g * p_0^(1 - g), here 0.45 to 0.8."""
    return torch.tensor([0.36, 0.64]), fn(C.log(), ZERO.log(), 2.0, 2)  # 0.36 / 0.8 against 0.16 / 0.2

@guided.requires("no negative probability at weight 3")
def _(fn: Answer) -> Pair:
    """You mixed probabilities, and beyond weight 1 they leave [0, 1]: mix their logarithms."""
    strong = fn(torch.tensor([0.1, 0.9]).log(), torch.tensor([0.6, 0.4]).log(), 3.0, 2)
    return True, min(strong) >= 0

@guided.requires("probabilities of each cell sum to 1")
def _(fn: Answer) -> Pair:
    """You did not normalise: p_c^g * p_0^(1 - g) sums to 1 only after a softmax over the bins."""
    noise = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return torch.ones(3, 4), fn(noise[0], noise[1], 1.7, 6).sum(-1)

@guided.requires("[MASK] takes no part")
def _(fn: Answer) -> Pair:
    """[MASK] kept a part of the probability: cut the logits to the n_bins data bins before you normalise."""
    mask = torch.tensor([2.0])
    return torch.tensor([0.36, 0.64]), fn(torch.cat([C.log(), mask]), torch.cat([ZERO.log(), mask / 4]), 2.0, 2)
