"""The last exercises of notebook 06: an interval, and honest controls."""

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "6.4", "A paired bootstrap interval", difficulty=3, minutes=10,
    objective="say how sure a difference between two methods is",
    misconception="two separate intervals that overlap mean no difference",
    hints=("One table of drawn rows, (n_draws, P), serves both methods.",
           "Average each redraw, then np.quantile(..., [0.025, 0.975])."),
)
def paired_interval(a: Float[np.ndarray, " P"], b: Float[np.ndarray, " P"], n_draws: int, rng: np.random.Generator
                    ) -> tuple[float, float]:
    """The 95 % bootstrap interval of mean(a - b): perturbations drawn again with replacement, the same for both."""
    rows = rng.integers(len(a), size=(n_draws, len(a)))
    low, high = np.quantile((a - b)[rows].mean(1), [0.025, 0.975])
    return float(low), float(high)


A, B = np.random.default_rng(1).normal(size=(2, 400))
EIGHT = np.array([-1.5, -1.0, -0.5, -0.5, 0.5, 0.5, 1.0, 1.5])


LAST = "The last perturbation is never drawn: rng.integers(P) ends before P by itself."


def _interval(fn: Answer, a: np.ndarray, b: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.asarray(fn(a, b, 2000, np.random.default_rng(seed)), float)


def _near(expected: float, yours: float, within: float) -> Pair:
    """A random number counts as right within a margin; then it is shown as the expected one."""
    expected = round(expected, 4)
    return expected, expected if abs(yours - expected) <= within else yours


def _typical(expected: float, yours: float, within: float) -> float | None:
    """Yours, if it is about what a typical mistake gives; else nothing that could agree with it."""
    return yours if abs(yours - expected) <= within else None

@paired_interval.requires("a is ahead by 0.2 everywhere: 0.2 to 0.2")
def _(fn: Answer) -> Pair:
    """You drew perturbations for each method by itself: with one draw for both, what is hard for both cancels."""
    return [0.2, 0.2], _interval(fn, 3 * A + 0.2, 3 * A), {
        "You subtracted the wrong way round: positive must mean that a is ahead.": [-0.2, -0.2],
        "The interval lies around mean(a - b), not around 0: do not subtract the mean.": [0.0, 0.0],
        "That is one number: return both ends, (low, high).": 0.2,
    }

@paired_interval.requires("the sign: a minus b")
def _(fn: Answer) -> Pair:
    """You subtracted the wrong way round: positive must mean that a is ahead."""
    return True, _interval(fn, A, A + 1 + 0.1 * B)[1] < 0

@paired_interval.requires("the centre is the mean difference")
def _(fn: Answer) -> Pair:
    """The interval lies around mean(a - b): average each redrawn table before taking quantiles."""
    return _near((A - B).mean(), _interval(fn, A, B).mean(), 0.01)

@paired_interval.requires("width, 400 perturbations: 2 x 1.96 sd / sqrt(P)")
def _(fn: Answer) -> Pair:
    """The width is off: quantiles 0.025 and 0.975 of redrawn mean differences, of P values drawn with replacement."""
    low, high = _interval(fn, A, B)
    one, width = np.std(A - B) / 400**0.5, high - low
    return *_near(2 * 1.96 * one, width, 0.015), {
        "A redraw without replacement is a new order of the same values: draw P of them with replacement.":
            _typical(0.0, width, 1e-9),
        "The width is that of a 90 % interval: take quantiles 0.025 and 0.975.":
            _typical(2 * 1.645 * one, width, 0.012),
        "Those are quantiles of single perturbations: average each redraw first.": _typical(80 * one, width, 12 * one),
        "The low end comes first: return (low, high).": _typical(-2 * 1.96 * one, width, 0.012),
        "You took the median of each redraw: the mean is asked for.": _typical(2.45 * 1.96 * one, width, 0.06),
    }

@paired_interval.requires("the same rng, the same interval")
def _(fn: Answer) -> Pair:
    """Chance came from elsewhere (np.random): take it from the `rng` that is given, so that it can be repeated."""
    return True, np.array_equal(_interval(fn, A, B), _interval(fn, A, B))

@paired_interval.requires("few perturbations, wide interval")
def _(fn: Answer) -> Pair:
    """Each redraw has as many perturbations as there are: a larger one pretends to more evidence than you have."""
    low, high = _interval(fn, 4 * EIGHT, EIGHT)
    return *_near(2 * 1.96 * 3 * EIGHT.std() / 8**0.5, high - low, 0.6), {
        LAST: _typical(2 * 1.96 * 3 * EIGHT[:-1].std() / 8**0.5, high - low, 0.2)}

@paired_interval.requires("skewed: one of 12 ahead by 12, eleven equal")
def _(fn: Answer) -> Pair:
    """Take the quantiles of the redrawn means themselves, not the mean plus or minus 1.96 standard errors."""
    # A redrawn mean is how often the 12 was drawn, Binomial(12, 1/12): P(0) = 0.35, P(<= 2) = 0.93, P(<= 3) = 0.986,
    # so the quantiles are 0 and 3 whatever the random numbers; mean -+ 1.96 errors is -0.9 to 2.9.
    skewed = np.append(np.zeros(11), 12.0)
    return [0.0, 3.0], _interval(fn, skewed + A[:12], A[:12]), {
        LAST: [0.0, 0.0],
        "Each redraw has as many perturbations as there are: you drew one fewer.": [0.0, 36 / 11],
        "That is the basic interval, twice the mean minus a quantile: return the quantiles themselves.": [-1.0, 2.0],
    }

@paired_interval.requires("another rng, another interval")
def _(fn: Answer) -> Pair:
    """You made an rng of your own: draw with the one that is given, or every call draws the same."""
    return False, np.array_equal(_interval(fn, A, B, 1), _interval(fn, A, B, 2))

@paired_interval.requires("n_draws = 1: both ends are that one mean")
def _(fn: Answer) -> Pair:
    """You wrote the number of draws into your function: redraw `n_draws` times."""
    low, high = fn(A, B, 1, np.random.default_rng(0))
    return 0.0, float(high - low)


@exercise(
    "6.5", "Splitting the controls", difficulty=3, minutes=10,
    objective="keep the noise of control cells from flattering a score",
    misconception="the same controls may stand on both sides",
    hints=("For each replicate: find its rows, shuffle them with rng.permutation.",
           "The first half is for the truth, the rest for us; join the replicates with np.concatenate."),
)
def split_controls(replicate: np.ndarray, rng: np.random.Generator
                   ) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, " B"]]:
    """Deals control cells out into two halves at random, within every replicate: rows for the truth, rows for us."""
    truth, ours = [], []
    for name in np.unique(replicate):
        rows = rng.permutation(np.flatnonzero(replicate == name))
        truth.append(rows[: len(rows) // 2])
        ours.append(rows[len(rows) // 2:])
    return np.concatenate(truth), np.concatenate(ours)


REPLICATE = np.repeat(["r1", "r2", "r3"], [12, 8, 20])


def _halves(fn: Answer, seed: int = 0, replicate: np.ndarray = REPLICATE) -> tuple[np.ndarray, np.ndarray]:
    return fn(replicate, np.random.default_rng(seed))

@split_controls.requires("no control on both sides")
def _(fn: Answer) -> Pair:
    """A control stands on both sides: its noise correlates with itself."""
    first, second = _halves(fn)
    masks, both = np.asarray(first).dtype == bool, np.intersect1d(first, second)
    return [], both, {
        "Row numbers are asked for, not masks: np.flatnonzero makes the one of the other.": both if masks else None,
        "These are places within a replicate, not row numbers: shuffle the rows themselves.":
            both if max(*first, *second) < 20 else None,
    }

@split_controls.requires("every control is used once")
def _(fn: Answer) -> Pair:
    """Some controls are lost or stand twice: deal all of them out, without replacement."""
    return np.arange(40), np.sort(np.concatenate(_halves(fn)))

@split_controls.requires("odd replicates, 7 + 5 + 3: all 15 are used")
def _(fn: Answer) -> Pair:
    """A replicate of 7 has no equal halves and you dropped a control: three go to one side, four to the other."""
    odd = np.repeat(["r1", "r2", "r3"], [7, 5, 3])
    return 15, len(np.unique(np.concatenate(_halves(fn, replicate=odd))))

@split_controls.requires("half of every replicate on each side")
def _(fn: Answer) -> Pair:
    """Your halves differ in their replicates, which passes for an effect: split within each replicate."""
    _, counts = np.unique(REPLICATE[_halves(fn)[0]], return_counts=True)
    return [6, 4, 10], counts

@split_controls.requires("another seed, another split")
def _(fn: Answer) -> Pair:
    """You shuffle, and always alike: a seed of your own makes one split of them all. Shuffle with the `rng` given."""
    splits = np.stack([np.sort(_halves(fn, seed)[0]) for seed in range(4)])
    middle = np.r_[0:6, 12:16, 20:30]  # the upper half of each
    one = len(np.unique(splits, axis=0)) == 1
    kinds = {"the upper half": middle, "the lower half": np.setdiff1d(np.arange(40), middle),
             "every second": np.arange(0, 40, 2), "every other": np.arange(1, 40, 2)}
    found = [word for word, rows in kinds.items() if one and np.array_equal(rows, splits[0])]
    cut, second = ("You cut the list in the middle: cells often lie in the order of the run. Shuffle with rng first.",
                   "You took every second cell, which is not by chance: shuffle with rng first.")
    return "four splits", (found or ["one split" if one else "four splits"])[0], {
        cut: found[0] if found and "half" in found[0] else None, second: found[0] if found else None}

@split_controls.requires("the same rng, the same split")
def _(fn: Answer) -> Pair:
    """Chance came from elsewhere (np.random): take it from the `rng` that is given, so that a split can be repeated."""
    first, second = (np.sort(_halves(fn, 5)[0]) for _ in range(2))
    return True, np.array_equal(first, second)

@split_controls.requires("a null target scores 0 on average")
def _(fn: Answer) -> Pair:
    """Nothing was perturbed and yet the score is not zero: what correlates is the controls' own noise."""
    scores = []
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(840, 200))
        real, guess, control = np.split(noise, [400, 800])  # no effect, and a prediction that knows nothing
        truth, ours = _halves(fn, seed)
        change, answer = real.mean(0) - control[truth].mean(0), guess.mean(0) - control[ours].mean(0)
        scores.append(np.corrcoef(change, answer)[0, 1])
    return True, bool(abs(np.mean(scores)) < 0.08)

@split_controls.requires("replicates are shuffled each by itself")
def _(fn: Answer) -> Pair:
    """You shuffle all replicates in one and the same order (one seed for each): go on drawing from `rng`."""
    alike = []
    for seed in range(6):
        first = np.sort(_halves(fn, seed, np.repeat(["r1", "r2"], 20))[0])
        alike.append(np.array_equal(first[first < 20], first[first >= 20] - 20))
    return False, all(alike)
