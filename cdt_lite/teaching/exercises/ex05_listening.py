"""The last exercises of notebook 05: a target known by its relatives; does a model listen to what it is asked?"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "5.4", "Predict a knockout from its pathway", difficulty=3, minutes=12,
    objective="predict what nobody has perturbed from the changes of its relatives",
    misconception="a target without a single cell can only be predicted as the average perturbation",
    hints=("For every measured target: the sum of 1 / log(2 + size) over the sets that hold it and the target.",
           "The target's own row weighs 0. Then weights @ changes / weights.sum().",
           "Where all weights are 0: the mean of all rows but the target's own."),
)
def from_relatives(target: str, sets: Mapping[str, frozenset[str]], changes: pd.DataFrame) -> Float[np.ndarray, " G"]:
    """The mean of the changes of other targets, weighted by the gene sets that they share with this one.

    A shared set weighs 1 / log(2 + number of its genes). A target without relatives: the mean of all others.
    """
    others = changes.drop(index=target, errors="ignore")
    weight = np.zeros(len(others))
    for genes in sets.values():
        if target in genes:
            weight += others.index.isin(list(genes)) / np.log(2 + len(genes))
    if not weight.any():
        weight[:] = 1
    return weight @ others.to_numpy() / weight.sum()


SETS = {"JAK-STAT": frozenset(["JAK2", "IFNGR1", "STAT2", "MYC", "SOCS1"]), "interferon": frozenset(["JAK2", "IFNGR1"]),
        "growth": frozenset(["MYC", "CUL3"])}
CHANGES = pd.DataFrame({"PSMB9": [0.0, -0.5, -2.0, 0.25], "CD86": [1.0, 0.0, 0.5, -1.0]},
                       ["MYC", "STAT2", "IFNGR1", "CUL3"])

def _mean(*weights: float | int) -> np.ndarray:
    """The mean change with these weights of MYC, STAT2, IFNGR1 and CUL3."""
    return np.array(weights) @ CHANGES.to_numpy() / sum(weights)

@from_relatives.requires("JAK2 has three relatives, and one of them is of two sets")
def _(fn: Answer) -> Pair:
    """A row weighs the sum of 1 / log(2 + size) over the sets that hold it and JAK2; CUL3 weighs 0."""
    large, small = 1 / np.log(7), 1 / np.log(4)
    return _mean(large, large, large + small, 0), fn("JAK2", SETS, CHANGES.copy()), {
        "That is the mean of all: weigh each row by the sets that it shares with the target.": _mean(1, 1, 1, 1),
        "All relatives weigh alike here: each shared set adds its weight.": _mean(1, 1, 1, 0),
        "A set weighs the same whatever its size here: 1 / log(2 + size).": _mean(1, 1, 2, 0),
        "Large sets weigh more than small ones here: divide by the logarithm, 1 / log(2 + size).":
            _mean(1 / large, 1 / large, 1 / large + 1 / small, 0),
        "Size is the number of genes in the set, those without a measured change among them.":
            _mean(1 / np.log(5), 1 / np.log(5), 1 / np.log(5) + 1 / np.log(3), 0),
        "You left out the 2 of log(2 + size): a set of one gene would divide by zero.":
            _mean(1 / np.log(5), 1 / np.log(5), 1 / np.log(5) + 1 / np.log(2), 0),
        "This is a sum: divide by the sum of the weights.":
            np.array([large, large, large + small, 0]) @ CHANGES.to_numpy(),
    }

@from_relatives.requires("a target that was measured is not its own relative")
def _(fn: Answer) -> Pair:
    """IFNGR1 was predicted from itself: leave its own row out, or leaving one out tells nothing."""
    return _mean(1, 1, 0, 0), fn("IFNGR1", SETS, CHANGES.copy())

@from_relatives.requires("a gene of no set gets the mean of all")
def _(fn: Answer) -> Pair:
    """Nobody is related: without anything to go by, the mean of all is the guess. Neither NaN nor 0."""
    return _mean(1, 1, 1, 1), fn("SMAD4", SETS, CHANGES.copy())

@from_relatives.requires("a measured gene of no set gets the mean of the others")
def _(fn: Answer) -> Pair:
    """Nobody is related, and its own row is in your mean: leave it out there, too."""
    return _mean(1, 1, 1, 0), fn("CUL3", {"interferon": SETS["interferon"]}, CHANGES.copy())

@from_relatives.requires("JAK1 is no relative of a gene in a set of JAK10")
def _(fn: Answer) -> Pair:
    """You found one name inside another: ask whether the gene itself is in the set."""
    changes = pd.DataFrame({"PSMB9": [1.0, 3.0]}, ["JAK1", "JAK10"])
    return [3.0], fn("STAT1", {"a": frozenset(["JAK10", "STAT1"])}, changes).tolist()

@from_relatives.requires("relatives that are many outweigh one that is a little nearer")
def _(fn: Answer) -> Pair:
    """You took the nearest relative alone: all of them have a say, each with its weight."""
    changes = pd.DataFrame({"PSMB9": [4.0, 0.0, 0.0]}, ["A", "B", "C"])
    return [2.0], fn("T", {"one": frozenset("TAB"), "two": frozenset("TAC")}, changes).tolist()


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

@listens.requires("a shift that all answers share, another that all truths share")
def _(fn: Answer) -> Pair:
    """Take from each of the two tables its *own* mean over targets: answers and truth share different things."""
    truth = {name: REAL[name] + 9 * SHARED for name in REAL}
    return [True, True], fn(lambda name: REAL[name] + 9 * _noise("Z"), truth)

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

@listens.requires("the last of four targets alone is told apart")
def _(fn: Answer) -> Pair:
    """You compared some of the targets: whichever of them is answered otherwise counts."""
    return True, fn(lambda name: SHARED + (name == "D") * _noise("D"), REAL)[0]

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

@listens.requires("two strong targets told, two weak ones not")
def _(fn: Answer) -> Pair:
    """You took one correlation a target, and their mean: take one over all, np.corrcoef of the tables, ravelled."""
    truth = {"A": 9 * REAL["A"], "B": -9 * REAL["A"], "C": _noise("C"), "D": _noise("D")}
    return [True, True], fn(lambda name: truth[name] if name in "AB" else _noise(name.lower()), truth, 0.8)

@listens.requires("one gene moves far and is told, all others are noise")
def _(fn: Answer) -> Pair:
    """You correlated ranks (Spearman), to which a gene that moves far is one like any other: take Pearson's r."""
    far = {name: np.eye(60)[7] * way for name, way in zip(REAL, (9, -9, 9, -9), strict=True)}
    return [True, True], fn(lambda name: far[name] + 0.1 * _noise(name.lower()),
                            {name: far[name] + 0.1 * _noise(name) for name in REAL}, 0.5)
