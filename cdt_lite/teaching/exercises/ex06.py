"""The exercises of notebook 06: a score, a baseline, discrimination."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.teaching.check import Answer, Pair, exercise

Vector = Float[np.ndarray, " G"]


@exercise(
    "6.1", "Pearson of the change", difficulty=2, minutes=8,
    objective="compute the field's main score, own gene left out",
    misconception="correlating expression, or keeping the silenced gene, measures the prediction",
    hints=("Two changes first: real - control and predicted - control.",
           "np.delete(change, own) leaves a gene out, but only if own is not None.",
           "Centre both, then a @ b over the product of their np.linalg.norm."),
)
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


def _score(fn: Answer, change: Sequence[int], guess: Sequence[int], own: int | None = None, level: float = 0) -> float:
    """Scores two changes on top of a control mean, by default one of nothing but zeros."""
    control = np.arange(len(change), 0, -1.0) * level
    return fn(control + change, control + guess, control, own)

@pearson_of_change.requires("by hand: [0 2 7] against [1 0 11]")
def _(fn: Answer) -> Pair:
    """Pearson correlates two centred vectors: sum of products over the product of their lengths."""
    return 41 / np.sqrt(26 * 74), _score(fn, [0, 2, 7], [1, 0, 11]), {
        "You correlated ranks (Spearman): take the values themselves.": 0.5,
        "That is the slope of a line: divide by both lengths, not by one squared.": 41 / 26,
        "That is the slope the other way round: divide by both lengths, not by one squared.": 41 / 74,
        "That is r squared: a correlation keeps its sign.": 41**2 / (26 * 74),
        "You left out a gene that does not move: that it stays is known, too, so it counts.": 1.0,
        "You took the cosine: subtract each change's own mean, or a shift of all genes looks like agreement.":
            77 / np.sqrt(53 * 122),
    }

@pearson_of_change.requires("changes count, not levels")
def _(fn: Answer) -> Pair:
    """You correlated expression itself, which is high in every cell: subtract the control mean from both first."""
    return -0.5, _score(fn, [1, 2, 3], [2, 3, 1], level=50.0), {
        "You dropped the sign: what goes the wrong way has a negative r.": 0.5}

@pearson_of_change.requires("a gene that moves in neither counts, too")
def _(fn: Answer) -> Pair:
    """You left out a gene that does not move: that it stays is known, too, so it counts."""
    return 0.5, _score(fn, [0, 1, 2], [0, 2, 1])

@pearson_of_change.requires("both changes are centred")
def _(fn: Answer) -> Pair:
    """You took the cosine: subtract each change's own mean, or a shift of all genes looks like agreement."""
    return -1.0, _score(fn, [11, 12, 13], [13, 12, 11])

@pearson_of_change.requires("the own gene is left out")
def _(fn: Answer) -> Pair:
    """You kept the target's own gene: a knockout silences it by design, and it alone can carry the score."""
    return 0.5, _score(fn, [1, -9, 2, 3], [1, -9, 3, 2], own=1), {
        "You set the own gene to zero: a zero is still a point and pulls the correlation. Delete it.": 0.8,
        "You centred first: the own gene's fall is still in the mean. Delete, then centre.": 23.6875 / 24.6875,
    }

@pearson_of_change.requires("left out, not set to zero")
def _(fn: Answer) -> Pair:
    """You set the own gene to zero: a zero is still a point and pulls the correlation. Delete it."""
    return 0.5, _score(fn, [11, 0, 12, 13], [1, 0, 3, 2], own=1, level=3.0)

@pearson_of_change.requires("position 0 is a gene too")
def _(fn: Answer) -> Pair:
    """Position 0 is false to Python: ask `own is not None`, or the first gene is never left out."""
    return 0.5, _score(fn, [-9, 1, 2, 3], [-9, 1, 3, 2], own=0)

@pearson_of_change.requires("no change at all: NaN")
def _(fn: Answer) -> Pair:
    """A prediction of no change has no direction: return NaN, neither 0 nor an error."""
    return float("nan"), _score(fn, [1, 2, 3], [0, 0, 0])


@exercise(
    "6.2", "The perturbed mean", difficulty=2, minutes=6,
    objective="build the baseline that most models lose to",
    misconception="a mean over all perturbations, the asked one included, is a fair rival",
    hints=("Two masks: another target, and the same sign.",
           "If the two together leave nothing, use the first alone."),
)
def perturbed_mean(effects: Float[np.ndarray, "P G"], target: np.ndarray, sign: Int[np.ndarray, " P"],
                   asked: str, asked_sign: int) -> Vector:
    """What the other perturbations of the same sign do on average; of any sign, where none has this one."""
    other = target != asked
    same = other & (sign == asked_sign)
    return effects[same if same.any() else other].mean(0)


# The three knockouts have a median equal to their mean: only the last row tells the two apart.
EFFECTS = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [-8.0, 4.0], [2.0, 9.0]])
TARGETS, SIGNS = np.array(["A", "B", "C", "D", "A"]), np.array([-1, -1, -1, 1, 1])

@perturbed_mean.requires("knockout of A: the mean of B and C")
def _(fn: Answer) -> Pair:
    """Average, gene by gene, the rows of the asked sign whose target is another: here B and C."""
    return np.array([4.0, 3.0]), fn(EFFECTS[:3], TARGETS[:3], SIGNS[:3], "A", -1), {
        "You let A predict itself: the asked target must be left out, or the baseline knows the answer.":
            EFFECTS[:3].mean(0),
        "That is A itself: the rival may know everything but the answer.": EFFECTS[0],
        "That is a sum: the baseline is a mean.": EFFECTS[1:3].sum(0),
        "You averaged over genes: a mean over rows, .mean(0), keeps one number a gene.": EFFECTS[1:3].mean(1),
        "You averaged over rows and genes: .mean(0) keeps one number a gene.": EFFECTS[1:3].mean(),
    }

@perturbed_mean.requires("a target never seen: the mean of A, B and C")
def _(fn: Answer) -> Pair:
    """Z is in no row, so all rows of the asked sign are others: average these."""
    return np.array([3.0, 2.0]), fn(EFFECTS, TARGETS, SIGNS, "Z", -1), {
        "You mixed signs: an activation says little about a knockout, so average rows of the asked sign only.":
            EFFECTS.mean(0),
    }

@perturbed_mean.requires("one sign only: the last resort is all others")
def _(fn: Answer) -> Pair:
    """There is no row of this sign: fall back to all other targets, here B and C."""
    return np.array([4.0, 3.0]), fn(EFFECTS[:3], TARGETS[:3], SIGNS[:3], "A", 1), {
        "There is no row of this sign and you averaged nothing: fall back to all other targets.": np.zeros(2),
        "There is no row of this sign, and of none there is no mean: fall back to all other targets.":
            np.full(2, np.nan),
        "You fell back to all rows, A among them: even then the asked target is left out.": EFFECTS[:3].mean(0),
    }

@perturbed_mean.requires("A in both signs: neither row may help")
def _(fn: Answer) -> Pair:
    """The opposite of A is A as well: leave the target out, not only the (target, sign) pair."""
    return np.array([-8.0, 4.0]), fn(EFFECTS, TARGETS, SIGNS, "A", 1)

@perturbed_mean.requires("A alone was activated: the last resort again")
def _(fn: Answer) -> Pair:
    """You asked whether the sign has rows, A's among them: ask whether *other* targets have some of this sign."""
    rows = [0, 1, 2, 4]
    return np.array([4.0, 3.0]), fn(EFFECTS[rows], TARGETS[rows], SIGNS[rows], "A", 1)

@perturbed_mean.requires("a mean, not a median")
def _(fn: Answer) -> Pair:
    """The baseline of the field is the mean: a median hides the one strong perturbation that a mean spreads."""
    return np.array([10.0]), fn(np.array([[0.0], [0.0], [30.0]]), TARGETS[1:4], SIGNS[:3], "A", -1)


@exercise(
    "6.3", "The discrimination score", difficulty=3, minutes=10,
    objective="score whether a prediction is recognised among all perturbations",
    misconception="a constant answer can do no harm to a rank",
    hints=("One distance per row of `real`: np.abs(real - guess).sum(1).",
           "The rank is the number of rows strictly nearer than row `index`.",
           "Rows as near as the right one count half: (number of ties, itself not counted) / 2."),
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


FOUR = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [5.0, 5.0, 0.0], [9.0, 9.0, 9.0]])  # four real changes

@discrimination.requires("the nearest of all: 1")
def _(fn: Answer) -> Pair:
    """Rank the rows of `real` by distance to the guess; row `index` is the nearest here, so its rank is 0."""
    return 1.0, fn(np.array([2.1, 0.0, 0.0]), FOUR, 1, None), {
        "The best rank is 0: count what is nearer than the right one, and that is not nearer than itself.": 0.75,
        "That is the rank itself: the score is 1 - rank / P.": 0.0,
        "You ranked the furthest first: the nearest has rank 0.": 0.25,
    }

@discrimination.requires("the furthest of four: 1/4")
def _(fn: Answer) -> Pair:
    """Three of the four rows are nearer than the right one: 1 - 3 / 4."""
    return 0.25, fn(np.array([0.0, 0.0, 0.1]), FOUR, 3, None), {
        "Divide the rank by P, the number of perturbations, the right one included.": 0.0,
    }

@discrimination.requires("one of three is nearer: 2/3")
def _(fn: Answer) -> Pair:
    """The rank is how many rows are nearer than row `index`, here one."""
    return 2 / 3, fn(np.zeros(2), np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]), 0, None), {
        "np.argsort tells which row is at each rank, not the rank of each row: count the rows that are nearer.": 1 / 3}

@discrimination.requires("distance adds up over genes")
def _(fn: Answer) -> Pair:
    """You squared the differences: absolute ones (L1) add up, so three in one gene is less than two in two."""
    return 1.0, fn(np.zeros(3), np.array([[3.0, 0.0, 0.0], [2.0, 2.0, 0.0]]), 0, None)

@discrimination.requires("the own gene is left out")
def _(fn: Answer) -> Pair:
    """You kept the own gene: every knockout is recognised by the gene that it silences."""
    return 0.5, fn(np.array([0.0, -9.0, 1.0]), np.array([[0.0, -9.0, 9.0], [0.0, 0.0, 1.0]]), 0, 1)

@discrimination.requires("position 0 is a gene too")
def _(fn: Answer) -> Pair:
    """Position 0 is false to Python: ask `own is not None`, or the first gene is never left out."""
    return 0.5, fn(np.array([-9.0, 0.0, 1.0]), np.array([[-9.0, 0.0, 9.0], [0.0, 0.0, 1.0]]), 0, 0)

@discrimination.requires("alike to all four: ties share the rank")
def _(fn: Answer) -> Pair:
    """A tie is no win: those at the same distance share the mean of their ranks, or a constant answer scores 1."""
    return 0.625, fn(np.zeros(2), np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 2, None)
