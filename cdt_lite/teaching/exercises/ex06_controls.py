"""The last exercise of notebook 06: honest controls."""

import numpy as np
from jaxtyping import Int

from cdt_lite.teaching.check import Answer, Pair, exercise


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
    masks = np.asarray(first).dtype == bool
    return [], np.intersect1d(first, second), {
        "Row numbers are asked for, not masks: np.flatnonzero makes the one of the other.":
            np.intersect1d(first, second) if masks else None,
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
    """You cut the list in the middle: cells often lie in the order of the run. Shuffle with rng first."""
    splits = np.stack([np.sort(_halves(fn, seed)[0]) for seed in range(4)])
    return True, len(np.unique(splits, axis=0)) > 1

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
