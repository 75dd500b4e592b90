"""The last exercise of notebook 05: does a model listen to what it is asked?"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "5.5", "Does it listen?", difficulty=4, minutes=15,
    objective="diagnose a model that ignores its condition",
    misconception="a prediction that changes with the question is an answer to it",
    hints=("Stack the answers, one row a target; do the same with the truth.",
           "Subtract the mean over targets (axis 0) from both: what is left is what sets the targets apart.",
           "changes: the largest absolute value left in the answers. right: np.corrcoef of the two tables, ravelled."),
)
def listens(predict: Callable[[str], Float[np.ndarray, " G"]], real: Mapping[str, Float[np.ndarray, " G"]],
            least: float = 0.2) -> tuple[bool, bool]:
    """Asks a predictor about every target: does the answer change with the question, and in the right direction?

    `real` holds the true change of every target. Direction: what sets each target apart from the mean of all,
    predicted and real, must correlate by more than `least`.
    """
    guess, truth = np.stack([predict(name) for name in real]), np.stack(list(real.values()))
    a, b = guess - guess.mean(0), truth - truth.mean(0)
    changes = bool(np.abs(a).max() > 1e-3)
    return changes, changes and bool(np.corrcoef(a.ravel(), b.ravel())[0, 1] > least)


_RNG = np.random.default_rng(0)
SHARED = 2 * _RNG.normal(size=60)  # the shift that four targets share
REAL = {name: SHARED + 0.5 * _RNG.normal(size=60) for name in "ABCD"}


def _noise(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).normal(size=60)

@listens.requires("a good predictor, half as bold as the truth")
def _(fn: Answer) -> Pair:
    """A timid predictor that goes the right way listens: direction is a correlation, not a distance."""
    return [True, True], fn(lambda name: 0.5 * REAL[name], REAL)

@listens.requires("the mean for every target: deaf")
def _(fn: Answer) -> Pair:
    """You compared each answer with its own truth: what all share makes a constant look right. Subtract the mean."""
    return [False, False], fn(lambda name: SHARED, REAL)

@listens.requires("answers that differ by rounding only: deaf")
def _(fn: Answer) -> Pair:
    """You took any difference for listening: two runs differ in the last digits. Ask for a change above 1e-3."""
    return [False, False], fn(lambda name: SHARED + 1e-7 * ord(name), REAL)

@listens.requires("answers that differ at random: not in the right direction")
def _(fn: Answer) -> Pair:
    """A change is not yet an answer: correlate what sets the targets apart, predicted and real."""
    return [True, False], fn(lambda name: SHARED + 0.5 * _noise(name), REAL)

@listens.requires("answers to the wrong questions")
def _(fn: Answer) -> Pair:
    """Targets are mixed up here: hold each answer against the truth of the same target, in the same order."""
    return [True, False], fn(lambda name: REAL["ABCD"["BADC".index(name)]], REAL)

@listens.requires("the truth with its sign turned round: a change, in the wrong direction")
def _(fn: Answer) -> Pair:
    """A knockdown predicted as an activation has a strong correlation, a negative one: leave its sign on."""
    return [True, False], fn(lambda name: -REAL[name], REAL)

@listens.requires("a weak predictor: its correlation of 0.35 is more than 0.2")
def _(fn: Answer) -> Pair:
    """The bar is for the correlation itself: its square is far smaller."""
    names, truth = list(REAL), np.stack(list(REAL.values()))
    b = truth - truth.mean(0)
    noise = np.stack([_noise(name) for name in names])
    noise -= noise.mean(0)
    noise -= b * (noise * b).sum() / (b**2).sum()
    mixed = 0.35 * b / np.linalg.norm(b) + np.sqrt(1 - 0.35**2) * noise / np.linalg.norm(noise)
    return [True, True], fn(lambda name: SHARED + mixed[names.index(name)], REAL)

@listens.requires("one gene of one target is answered, and nothing else")
def _(fn: Answer) -> Pair:
    """You averaged before you asked for a change: the largest one counts, of whatever target and gene."""
    return True, fn(lambda name: SHARED + (name == "D") * np.eye(60)[7] * 0.01, REAL)[0]

@listens.requires("a fair predictor, asked for 0.2 and for 0.95")
def _(fn: Answer) -> Pair:
    """You wrote the bar into your function: compare the correlation with `least`, whatever number is given."""
    answers = [*fn(lambda name: REAL[name] + 0.4 * _noise(name), REAL, 0.2),
               *fn(lambda name: REAL[name] + 0.4 * _noise(name), REAL, 0.95)]
    return [True, True, True, False], answers
