"""The exercises of notebook 06: a score, a baseline, discrimination, an interval, and honest controls."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.teaching.check import Exercise, Property

Pair = tuple[Any, Any]
Vector = Float[np.ndarray, " G"]


def pearson_of_change(real: Vector, predicted: Vector, control: Vector, own: int | None) -> float:
    """Pearson correlation of real and predicted change from control, the target's own gene left out.

    `own` is the position of the target's own gene, None where it is not measured. NaN if nothing changes.
    """
    a, b = real - control, predicted - control
    if own is not None:
        a, b = np.delete(a, own), np.delete(b, own)
    a, b = a - a.mean(), b - b.mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 1e-12 else float("nan")


def _score(fn: Callable, change: Sequence, guess: Sequence, own: int | None, level: float = 0.0) -> float:
    """Scores two changes on top of a control mean, by default one of nothing but zeros."""
    control = np.arange(len(change), 0, -1.0) * level
    return float(fn(control + change, control + guess, control, own))


_PEARSON = (
    Property("by hand: [1 2 3] against [1 3 2]", lambda f: (0.5, _score(f, [1, 2, 3], [1, 3, 2], None)),
             "Pearson correlates two centred vectors: sum of products over the product of their lengths."),
    Property("changes count, not levels", lambda f: (-0.5, _score(f, [1, 2, 3], [2, 3, 1], None, 50.0)),
             "You correlated expression itself: highly expressed genes stay high in every cell. Subtract the control "
             "mean from both first."),
    Property("both changes are centred", lambda f: (-1.0, _score(f, [11, 12, 13], [13, 12, 11], None)),
             "You took the cosine: subtract each change's own mean, or a shift of all genes looks like agreement."),
    Property("the own gene is left out", lambda f: (0.5, _score(f, [1, -9, 2, 3], [1, -9, 3, 2], 1)),
             "You kept the target's own gene: a knockout silences it by design, and it alone can carry the score."),
    Property("left out, not set to zero", lambda f: (0.5, _score(f, [11, 0, 12, 13], [1, 0, 3, 2], 1, 3.0)),
             "You set the own gene to zero: a zero is still a point and pulls the correlation. Delete it."),
    Property("position 0 is a gene too", lambda f: (0.5, _score(f, [-9, 1, 2, 3], [-9, 1, 3, 2], 0)),
             "Position 0 is false to Python: ask `own is not None`, or the first gene is never left out."),
    Property("no change at all: NaN", lambda f: (float("nan"), _score(f, [1, 2, 3], [0, 0, 0], None)),
             "A prediction of no change has no direction: return NaN, neither 0 nor an error."),
)


def perturbed_mean(effects: Float[np.ndarray, "P G"], target: np.ndarray, sign: Int[np.ndarray, " P"],
                   asked: str, asked_sign: int) -> Vector:
    """What the other perturbations of the same sign do on average; of any sign, where none has this one."""
    other = target != asked
    same = other & (sign == asked_sign)
    return effects[same if same.any() else other].mean(0)


# The three knockouts have a median equal to their mean: only the last row tells the two apart.
_EFFECTS = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [-8.0, 4.0], [2.0, 9.0]])
_TARGETS, _SIGNS = np.array(["A", "B", "C", "D", "A"]), np.array([-1, -1, -1, 1, 1])
_MEAN = (
    Property("knockout of A: the mean of B and C",
             lambda f: (np.array([4.0, 3.0]), f(_EFFECTS[:3], _TARGETS[:3], _SIGNS[:3], "A", -1)),
             "You let A predict itself: the asked target must be left out, or the baseline knows the answer."),
    Property("a target never seen: the mean of A, B and C",
             lambda f: (np.array([3.0, 2.0]), f(_EFFECTS, _TARGETS, _SIGNS, "Z", -1)),
             "You mixed signs: an activation says little about a knockout, so average rows of the asked sign only."),
    Property("one sign only: the last resort is all others",
             lambda f: (np.array([4.0, 3.0]), f(_EFFECTS[:3], _TARGETS[:3], _SIGNS[:3], "A", 1)),
             "There is no other row of this sign and you averaged nothing, or A: fall back to all other targets."),
    Property("A in both signs: neither row may help",
             lambda f: (np.array([-8.0, 4.0]), f(_EFFECTS, _TARGETS, _SIGNS, "A", 1)),
             "The opposite perturbation of A is A as well: leave the target out, not only the (target, sign) pair."),
    Property("a mean, not a median", lambda f: (np.array([10.0]), f(np.array([[0.0], [0.0], [30.0]]), np.array(
        ["B", "C", "D"]), np.array([-1, -1, -1]), "A", -1)),
             "The baseline of the field is the mean: a median hides the one strong perturbation that a mean spreads."),
)


def discrimination(guess: Vector, real: Float[np.ndarray, "P G"], index: int, own: int | None) -> float:
    """1 - rank / P: the rank counts real changes that lie nearer to the guess than the right one, row `index`.

    Distance is the sum of absolute differences, the target's own gene left out; ties share their mean rank.
    """
    difference = np.abs(real - guess)
    if own is not None:
        difference = np.delete(difference, own, axis=1)
    distance = difference.sum(1)
    tied = np.isclose(distance, distance[index])
    rank = ((distance < distance[index]) & ~tied).sum() + (tied.sum() - 1) / 2
    return float(1 - rank / len(real))


_REAL = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [5.0, 5.0, 0.0], [9.0, 9.0, 9.0]])
_RANK = (
    Property("the nearest of all: 1", lambda f: (1.0, float(f(np.array([2.1, 0.0, 0.0]), _REAL, 1, None))),
             "The best rank is 0: count the perturbations that are nearer, and the right one is not nearer than "
             "itself."),
    Property("the furthest of four: 1/4", lambda f: (0.25, float(f(np.array([0.0, 0.0, 0.1]), _REAL, 3, None))),
             "Divide the rank by P, the number of perturbations, the right one included."),
    Property("distance adds up over genes",
             lambda f: (1.0, float(f(np.zeros(3), np.array([[3.0, 0, 0], [2.0, 2.0, 0]]), 0, None))),
             "You squared the differences: this score adds absolute ones (L1), so three in one gene is less than two "
             "in two."),
    Property("the own gene is left out",
             lambda f: (0.5, float(f(np.array([0.0, -9.0, 1.0]), np.array([[0.0, -9.0, 9.0], [0.0, 0.0, 1.0]]), 0, 1))),
             "You kept the own gene: every knockout is recognised by the gene that it silences, without knowing "
             "anything else."),
    Property("alike to all four: ties share the rank",
             lambda f: (0.625, float(f(np.zeros(2), np.array([[1.0, 0], [-1.0, 0], [0, 1.0], [0, -1.0]]), 2, None))),
             "A tie is no win: those at the same distance share the mean of their ranks, or a constant answer scores "
             "1."),
)


def paired_interval(a: Float[np.ndarray, " P"], b: Float[np.ndarray, " P"], n_draws: int, rng: np.random.Generator
                    ) -> tuple[float, float]:
    """The 95 % bootstrap interval of mean(a - b): perturbations drawn again with replacement, the same for both."""
    rows = rng.integers(len(a), size=(n_draws, len(a)))
    low, high = np.quantile((a - b)[rows].mean(1), [0.025, 0.975])
    return float(low), float(high)


_A = np.random.default_rng(1).normal(size=400)
_B = np.random.default_rng(2).normal(size=400)
_EIGHT = np.array([-1.5, -1.0, -0.5, -0.5, 0.5, 0.5, 1.0, 1.5])
# A redrawn mean of these is how often the 12 was drawn, Binomial(12, 1/12): P(0) = 0.35, P(<= 2) = 0.93 and
# P(<= 3) = 0.986, so the quantiles are 0 and 3 whatever the random numbers; mean -+ 1.96 errors is -0.9 to 2.9.
_SKEWED = np.array([12.0] + [0.0] * 11)


def _interval(fn: Callable, a: np.ndarray, b: np.ndarray, n_draws: int = 2000) -> tuple[float, float]:
    low, high = fn(a, b, n_draws, np.random.default_rng(0))
    return float(low), float(high)


def _near(expected: float, yours: float, within: float) -> Pair:
    """A random number counts as right within a margin; then it is shown as the expected one."""
    return expected, expected if abs(yours - expected) <= within else yours


def _width(fn: Callable) -> Pair:
    low, high = _interval(fn, _A, _B)
    return _near(round(2 * 1.95996 * float(np.std(_A - _B)) / 20, 4), high - low, 0.012)


_BOOTSTRAP = (
    Property("a is ahead by 0.2 everywhere: 0.2 to 0.2",
             lambda f: ([0.2, 0.2], [round(x, 6) for x in _interval(f, 3 * _A + 0.2, 3 * _A)]),
             "You drew perturbations for each method by itself: the same draw must serve both, then what is hard for "
             "both cancels."),
    Property("the sign: a minus b", lambda f: (True, _interval(f, _A, _A + 1 + 0.1 * _B)[1] < 0),
             "You subtracted the wrong way round: positive must mean that a is ahead."),
    Property("the centre is the mean difference",
             lambda f: _near(round(float((_A - _B).mean()), 4), sum(_interval(f, _A, _B)) / 2, 0.01),
             "The interval lies around mean(a - b): average each redrawn table before taking quantiles."),
    Property("width, 400 perturbations: 2 x 1.96 sd / sqrt(P)", _width,
             "The width is off: quantiles 0.025 and 0.975 of the redrawn mean differences (no difference of two "
             "quantiles), each of P perturbations drawn with replacement."),
    Property("few perturbations, wide interval",
             lambda f: _near(round(2 * 1.96 * 3 * float(_EIGHT.std()) / 8**0.5, 2),
                             round(float(np.subtract(*_interval(f, 4 * _EIGHT, _EIGHT)[::-1])), 2), 0.6),
             "Each redraw has as many perturbations as there are: a larger one pretends to more evidence than you "
             "have."),
    Property("skewed: one of 12 ahead by 12, eleven equal",
             lambda f: ([0.0, 3.0], [round(x, 6) for x in _interval(f, _SKEWED + _A[:12], _A[:12])]),
             "A skewed sample has a skewed interval: take the quantiles of the redrawn means themselves, not the mean "
             "plus or minus 1.96 standard errors."),
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


_REPLICATE = np.repeat(["r1", "r2", "r3"], [12, 8, 20])
_ODD = np.repeat(["r1", "r2", "r3"], [7, 5, 3])


def _halves(fn: Callable, seed: int = 0, replicate: np.ndarray = _REPLICATE) -> tuple[np.ndarray, np.ndarray]:
    truth, ours = fn(replicate, np.random.default_rng(seed))
    return np.asarray(truth), np.asarray(ours)


def _null_target(fn: Callable) -> Pair:
    """A perturbation without effect, and a prediction that knows nothing: the mean correlation over 20 experiments."""
    scores = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        control, real, guess = (rng.normal(size=(n, 200)) for n in (40, 400, 400))
        truth, ours = _halves(fn, seed)
        change, answer = real.mean(0) - control[truth].mean(0), guess.mean(0) - control[ours].mean(0)
        scores.append(np.corrcoef(change, answer)[0, 1])
    return _near(0.0, round(float(np.mean(scores)), 3), 0.08)


_SPLIT = (
    Property("no control on both sides", lambda f: (0, len(np.intersect1d(*_halves(f)))),
             "A control stands on both sides: its noise is subtracted from the truth and from the prediction, and "
             "correlates with itself. (Row numbers are asked for, not masks.)"),
    Property("every control is used once", lambda f: (list(range(40)), sorted(np.concatenate(_halves(f)).tolist())),
             "Some controls are lost or stand twice: deal all of them out, without replacement."),
    Property("odd replicates, 7 + 5 + 3: all 15 are used",
             lambda f: (15, len(np.unique(np.concatenate(_halves(f, replicate=_ODD))))),
             "A replicate of 7 has no equal halves and you dropped a control: three go to one side, four to the "
             "other."),
    Property("half of every replicate on each side",
             lambda f: ([6, 4, 10], [int((_REPLICATE[_halves(f)[0]] == r).sum()) for r in ("r1", "r2", "r3")]),
             "Your halves differ in their replicates: then the difference between replicates passes for an effect. "
             "Split within each replicate."),
    Property("another seed, another split",
             lambda f: (True, len({tuple(sorted(_halves(f, seed)[0].tolist())) for seed in range(4)}) > 1),
             "You cut the list in the middle: cells often lie in the order of the run. Shuffle with rng first."),
    Property("a null target scores 0 on average", _null_target,
             "Nothing was perturbed and yet the score is not zero: what correlates is the controls' own noise."),
)
EXERCISES: tuple[Exercise, ...] = (
    Exercise("6.1", "Pearson of the change", 2, 8, "compute the field's main score, own gene left out",
             "correlating expression, or keeping the silenced gene, measures the prediction",
             pearson_of_change, _PEARSON,
             ("Two changes first: real - control and predicted - control.",
              "np.delete(change, own) leaves a gene out, but only if own is not None.",
              "Centre both, then a @ b over the product of their np.linalg.norm.")),
    Exercise("6.2", "The perturbed mean", 2, 6, "build the baseline that most models lose to",
             "a mean over all perturbations, the asked one included, is a fair rival", perturbed_mean, _MEAN,
             ("Two masks: another target, and the same sign.",
              "If the two together leave nothing, use the first alone.")),
    Exercise("6.3", "The discrimination score", 3, 10,
             "score whether a prediction is recognised among all perturbations",
             "a constant answer can do no harm to a rank", discrimination, _RANK,
             ("One distance per row of `real`: np.abs(real - guess).sum(1).",
              "The rank is the number of rows strictly nearer than row `index`.",
              "Rows as near as the right one count half: (number of ties, itself not counted) / 2.")),
    Exercise("6.4", "A paired bootstrap interval", 3, 10, "say how sure a difference between two methods is",
             "two separate intervals that overlap mean no difference", paired_interval, _BOOTSTRAP,
             ("One table of drawn rows, (n_draws, P), serves both methods.",
              "Average each redraw, then np.quantile(..., [0.025, 0.975]).")),
    Exercise("6.5", "Splitting the controls", 3, 10, "keep the noise of control cells from flattering a score",
             "the same controls may stand on both sides", split_controls, _SPLIT,
             ("For each replicate: find its rows, shuffle them with rng.permutation.",
              "The first half is for the truth, the rest for us; join the replicates with np.concatenate.")),
)
