"""Exercises of notebook 03, second part: the sampler's loop, the cheapest schedule, and bits per count."""

from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cdt_lite.model import draw, sample_steps
from cdt_lite.teaching.check import Answer, Pair, exercise
from cdt_lite.teaching.guard import TimeUp, limited

ENOUGH = 1.5  # seconds: dynamic programming takes a tenth, all schedules take years


@exercise(
    "3.3", "The sampler's loop", difficulty=3, minutes=12,
    objective="make cells from nothing but masks, a few genes a step",
    misconception="a step may redraw what is revealed, or choose genes by the value that was drawn for them",
    hints=("Begin with torch.full(shape, mask_id). A step asks the denoiser about the current state, once.",
           "now = (turn >= known) & (turn < known + n) are the genes of this step, if `known` were revealed before.",
           "xt = torch.where(now, nets.draw(logits[..., :mask_id], generator), xt), then known += n."),
)
def sample(denoise: Callable[[Tensor], Tensor], counts: list[int], shape: tuple[int, int, int], mask_id: int,
           generator: torch.Generator) -> Int[Tensor, "B S G"]:
    """Makes cells from masks; step s reveals counts[s] genes of every cell, in the order of their turns.

    denoise takes a state (B, S, G) and returns logits (B, S, G, K); some models give [MASK] as a class behind the bins.
    Values are drawn by `draw`, once a step, for all genes.
    """
    turn = torch.rand(shape, generator=generator).argsort(-1).argsort(-1)
    xt, known = torch.full(shape, mask_id), 0
    for n in counts:
        drawn = draw(denoise(xt)[..., :mask_id], generator)
        xt = torch.where((turn >= known) & (turn < known + n), drawn, xt)
        known += n
    return xt


def _walk(fn: Answer, p: tuple[float, ...], n_cells: int, counts: list[int], mask_id: int = 2) -> list[Tensor]:
    """The states that the denoiser is asked about, and the cells, where every gene has the law p, whatever is known."""
    states: list[Tensor] = []

    def denoise(xt: Tensor) -> Tensor:
        states.append(xt.clone())
        return torch.tensor(p).log().expand(*xt.shape, len(p))

    shape = (2, n_cells // 2, sum(counts))
    made = fn(denoise, counts, shape, mask_id, torch.Generator().manual_seed(0))
    return [*states, made]

@sample.requires("cells come back, and nothing is left hidden")
def _(fn: Answer) -> Pair:
    """A gene is still [MASK]: keep each cell's turns for the whole loop, and reveal those from known to known + n."""
    made = _walk(fn, (0.5, 0.5), 40, [1, 2, 3])[-1]
    return [2, 20, 6, 0], [*made.shape, (made == 2).sum()]

@sample.requires("counts 1, 2, 3: it is asked with 6, 5, 3 hidden")
def _(fn: Answer) -> Pair:
    """Ask once a step about the current state, and reveal just counts[s] genes of every cell (-1: cells differ)."""
    asked = []
    for state in _walk(fn, (0.5, 0.5), 40, [1, 2, 3])[:-1]:
        hidden = (state == 2).sum(-1)
        asked.append(int(hidden[0, 0]) if len(hidden.unique()) == 1 else -1)
    faults = {
        "You always ask about nothing but masks: hand the denoiser the state as it is now.": [6, 6, 6],
        "You asked once and revealed all: genes of later steps are to know those of earlier ones.": [6],
        "You begin with tokens, not with masks: torch.full(shape, mask_id).": [0, 0, 0],
        "You took the counts from their end: the first step reveals counts[0].": [6, 3, 1],
        "You reveal one gene too many a step: turns run from 0, so the last of this step is known + n - 1.": [6, 4, 2],
    }
    return [6, 5, 3], asked, faults

@sample.requires("what was revealed stays as it is")
def _(fn: Answer) -> Pair:
    """You draw revealed genes anew: change only those whose turn it is in this step."""
    states = _walk(fn, (0.5, 0.5), 40, [1, 2, 3])
    return True, all(bool(((a == 2) | (a == b)).all()) for a, b in pairwise(states))

@sample.requires("any gene may come first, in any cell")
def _(fn: Answer) -> Pair:
    """All cells reveal the same genes first: use the turn of each gene in its own cell, which the stub draws."""
    first = (_walk(fn, (0.5, 0.5), 3000, [1, 5])[1] != 2).float().mean((0, 1))
    return True, bool(((first - 1 / 6).abs() < 0.04).all())

@sample.requires("bin 1 has 0.4: it comes as often")
def _(fn: Answer) -> Pair:
    """You choose genes by the values drawn for them, so the likely values win: a turn is drawn beforehand."""
    often = _walk(fn, (0.6, 0.4), 3000, [1, 2, 3])[-1].float().mean()
    return 0.4, round(float(often), 1), {
        "Bin 1 never comes. You take the likeliest value (draw one, by its probability), or [..., :-1] cuts off a bin "
        "where no [MASK] is offered (cut at mask_id).": 0.0}

@sample.requires("a model that offers [MASK] is not followed")
def _(fn: Answer) -> Pair:
    """[MASK] is no answer: cut the logits to [..., :mask_id] before you draw."""
    return 0, (_walk(fn, (0.1, 0.1, 0.8), 40, [1, 2, 3])[-1] == 2).sum()

@sample.requires("two genes that copy each other: alike in two steps, by chance in one")
def _(fn: Answer) -> Pair:
    """Genes of a later step must know those of earlier ones: hand the denoiser the state as it is now."""

    def copies(xt: Tensor) -> Tensor:
        other = xt.flip(-1)
        sure = torch.nn.functional.one_hot(other.clamp(max=1), 2).float()
        return torch.where((other == 2)[..., None], torch.tensor(0.5), sure).clamp(min=1e-30).log()

    made = [fn(copies, counts, (1, 2000, 2), 2, torch.Generator().manual_seed(1)) for counts in ([1, 1], [2])]
    return [1.0, 0.5], [round(float((x[..., 0] == x[..., 1]).float().mean()), 1) for x in made]

@sample.requires("the same generator gives the package's cells")
def _(fn: Answer) -> Pair:
    """If only this row fails: your law is right, chance is used in another order. One `draw` a step, of all genes."""
    weight = torch.randn(9, 9, 4, generator=torch.Generator().manual_seed(3))

    def denoise(xt: Tensor) -> Tensor:
        return torch.einsum("bsg,ghk->bshk", xt.float(), weight)

    task = (denoise, [2, 3, 4], (2, 5, 9), 4)
    *_, wanted = sample_steps(*task, torch.Generator().manual_seed(7))
    return wanted, fn(*task, torch.Generator().manual_seed(7))


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
    """The same schedule for both curves. Equal groups take no notice of h.

    Or you keep the dearest path (argmax for argmin).
    """
    late, early = np.repeat([0.0, 1.0], [8, 2]), np.repeat([0.0, 1.0], [3, 7])
    return True, list(fn(late, 2)) != list(fn(early, 2))

@best_counts.requires("H = 0, 1, 1, 1, 9, 9 in 3 steps: [2, 3, 1]")
def _(fn: Answer) -> Pair:
    """You priced a step by what is known. H takes the number of hidden genes: with m known it is h[G - m - 1]."""
    back = ("Your counts stand last step first: you did not turn the path round, or priced a step by what is known. H "
            "takes the number of hidden genes: with m known it is h[G - m - 1].")
    return [2, 3, 1], fn(np.array([0.0, 1, 1, 1, 9, 9]), 3), {back: [1, 3, 2]}

@best_counts.requires("H = 1, 1, 1, 1, 1, 2, 2, 2, 3, 3 in 6 steps: each reveals 1 or more")
def _(fn: Answer) -> Pair:
    """A step of yours reveals nothing: m genes are known after one step more than j only if j < m, not j = m."""
    return True, min(fn(np.array([1.0, 1, 1, 1, 1, 2, 2, 2, 3, 3]), 6)) >= 1

@best_counts.requires("H(k) = k, 9 genes, 3 steps: [3, 3, 3]")
def _(fn: Answer) -> Pair:
    """You chose one step at a time: keep the least cost for every number of known genes, and go back at the end."""
    return [3, 3, 3], fn(np.arange(1.0, 10.0), 3)

@best_counts.requires("H(k) = k, 120 genes, 8 steps: 15 each, in good time")
def _(fn: Answer) -> Pair:
    """Trying all schedules is too slow: there are 57 billion of these, and the next cell has 300 genes.

    Keep the least cost for every number of known genes instead.
    """
    try:
        return [15] * 8, limited(partial(fn, np.arange(1.0, 121.0), 8), ENOUGH)
    except TimeUp:
        return [15] * 8, f"none after {ENOUGH} s"

@best_counts.requires("as cheap as the best of all 120")
def _(fn: Answer) -> Pair:
    """A cheaper schedule exists: minimise the sum of n * H(G - m) over all schedules."""
    h = np.array([0.1, 0.15, 0.7, 0.72, 0.75, 0.8, 1.9, 2.0, 2.6, 4.0, 4.1])
    best = np.inf
    for cuts in combinations(range(1, 11), 3):
        best = min(best, _cost(h, np.diff([0, *cuts, 11])))
    return best, _cost(h, np.asarray(fn(h, 4)))


@exercise(
    "3.5", "Bits per count", difficulty=3, minutes=8,
    objective="bring the costs of different models to one unit, the count",
    misconception="a wide bin is cheap: what it leaves open must be paid, too",
    hints=("Within a bin nothing is known, so each of its n counts has probability p / n.",
           "The cost of one entry is -log2(p / n). Average over entries last."),
)
def bits_per_count(p: Float[np.ndarray, "*shape"], n: Float[np.ndarray, "*shape"]) -> float:
    """Returns what it costs, on average, to name the *count* itself, in bits.

    Of each entry, p is the probability given to the token that came, n the number of counts that its bin holds.
    """
    return float(np.mean(-np.log2(p) + np.log2(n)))

@bits_per_count.requires("bins of one count: p = 1/2 and 1/8 cost 1 and 3 bits, 2 on average")
def _(fn: Answer) -> Pair:
    """A probability of 1/2 costs 1 bit, of 1/8 costs 3: -log2 of each, then the mean."""
    p = np.array([0.5, 0.125])
    faults = {
        "Bits are base-2 logarithms; yours are natural ones.": 2 * np.log(2),
        "Take the logarithm of each entry, then the mean: yours comes after the mean.": -np.log2(p.mean()),
        "You added the entries up: the mean is asked.": 4.0,
        "The logarithm of a probability is negative, its cost is not: change the sign.": -2.0,
    }
    return 2.0, fn(p, np.ones(2)), faults

@bits_per_count.requires("one bin that holds everything, 8 counts wide: 3 bits, not 0")
def _(fn: Answer) -> Pair:
    """The token costs nothing, but which of its n counts it was is still open: log2(n) bits more."""
    faults = {"You counted the cost of the token alone: which of the 8 counts of its bin it was is still open.": 0.0,
              "A count of a wide bin is less likely than its token, not more: p / n, not p * n.": -3.0,
              "You added the width itself: to name one of n counts takes log2(n) bits.": 8.0}
    return 3.0, fn(np.ones(5), np.full(5, 8.0)), faults

@bits_per_count.requires("merging counts that are equally likely changes nothing")
def _(fn: Answer) -> Pair:
    """Merging six equally likely counts into one bin must change nothing: each of the n has p / n."""
    share = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    came = np.random.default_rng(1).choice(7, 500, p=share)
    one_by_one = -np.log2(share[came]).mean()
    return one_by_one, fn(np.where(came == 0, 0.4, 0.6), np.where(came == 0, 1.0, 6.0))

@bits_per_count.requires("cells and genes: one number")
def _(fn: Answer) -> Pair:
    """Average over all entries: one number, whatever the shape."""
    return 2.0, fn(np.full((3, 4), 0.5), np.full((3, 4), 2.0))
