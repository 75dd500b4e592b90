"""The first exercises of notebook 05: controls, split, target dropout."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cdt_lite.teaching.check import Answer, Pair, exercise

NO_TARGET, UNKNOWN = -1, -2  # as in the package: nothing was perturbed; something was, and not known what


@exercise(
    "5.1", "Controls of the same replicate", difficulty=2, minutes=8,
    objective="match control cells to a set by replicate",
    misconception="any control is as good as another",
    hints=("First the pool: np.flatnonzero of two conditions at once.",
           "np.setdiff1d(pool, own) takes the set's own cells out.",
           "rng.choice(pool, n, replace=...): replace only where the pool is smaller than n."),
)
def matched_controls(own: Int[np.ndarray, " S"], replicate: np.ndarray, is_control: Bool[np.ndarray, " N"], n: int,
                     rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Draws n control cells of the replicate of the set's own cells, none of them in the set."""
    pool = np.flatnonzero(is_control & (replicate == replicate[own[0]]))
    pool = np.setdiff1d(pool, own)
    return rng.choice(pool, n, replace=len(pool) < n)


PLATE = np.repeat(["rep_1", "rep_2", "rep_3"], 20)  # sixty cells
IS_CONTROL = np.arange(60) % 4 == 0


def _drawn(fn: Answer, n: int = 4, seed: int = 0, own: Sequence[int] = (21, 22)) -> np.ndarray:
    return np.sort(fn(np.array(own), PLATE, IS_CONTROL, n, np.random.default_rng(seed)))

@matched_controls.requires("controls are drawn, all of the set's own replicate")
def _(fn: Answer) -> Pair:
    """Draw rows where is_control holds and the replicate is that of row own[0]: return their row numbers."""
    drawn = np.concatenate([_drawn(fn, 4, seed) for seed in range(12)])
    kinds = np.where(IS_CONTROL[drawn], "control of ", "perturbed of ")
    everywhere = [f"control of rep_{i}" for i in (1, 2, 3)]
    return ["control of rep_2"], sorted(set(np.char.add(kinds, PLATE[drawn]).tolist())), {
        "You drew perturbed cells too: only cells marked in is_control may be drawn.":
            ["control of rep_2", "perturbed of rep_2"],
        "You drew from the controls of all replicates: what sets replicates apart would look like an effect.":
            everywhere,
        "These are places in your pool, not rows of the screen: draw from the pool itself, rng.choice(pool, ...).":
            ["control of rep_1", "perturbed of rep_1"],
        "You drew from the other replicates: the pool is where the replicate equals that of own[0].": everywhere[::2],
    }

@matched_controls.requires("no control twice where there are enough")
def _(fn: Answer) -> Pair:
    """You drew with replacement: a control that stands in the set twice counts twice."""
    return 5, len(np.unique(_drawn(fn, n=5)))

@matched_controls.requires("n are drawn even from a small pool")
def _(fn: Answer) -> Pair:
    """A replicate may hold fewer than n controls: then, and only then, draw with replacement."""
    return (9,), np.shape(_drawn(fn, n=9))

@matched_controls.requires("a small pool is not filled up with other replicates")
def _(fn: Answer) -> Pair:
    """Where a replicate holds too few, you took controls of others: draw some of its own twice instead."""
    return ["rep_2"], np.unique(PLATE[_drawn(fn, n=9)]).tolist()

@matched_controls.requires("the same rng, the same controls")
def _(fn: Answer) -> Pair:
    """Chance came from elsewhere (np.random): draw with the `rng` that is given, so that a run can be repeated."""
    return True, np.array_equal(_drawn(fn, 3, 7), _drawn(fn, 3, 7))

@matched_controls.requires("a set of controls is not its own control")
def _(fn: Answer) -> Pair:
    """Your set met itself: leave its own cells out of the pool, or the model can copy the answer."""
    drawn = np.concatenate([_drawn(fn, 3, seed, own=(20, 24)) for seed in range(6)])
    return [], np.intersect1d(drawn, [20, 24])

@matched_controls.requires("another seed, other controls: two of five, all ten pairs")
def _(fn: Answer) -> Pair:
    """You drew a block of neighbours, so most sets of controls never come up: draw each by itself, rng.choice."""
    draws = np.stack([_drawn(fn, 2, seed) for seed in range(100)])
    return 10, len(np.unique(draws, axis=0)), {
        "You always take the same ones: draw with rng, or the model learns these few cells by heart.": 1}


@exercise(
    "5.2", "Split first, fit afterwards", difficulty=3, minutes=8,
    objective="split a screen by perturbation and fit on training cells only",
    misconception="a random split of cells is a fair test, and choosing genes is not fitting",
    hints=("np.isin(target, unseen) marks the test cells.",
           "Variance of counts[train], then np.argsort of its negative."),
)
def split_and_select(counts: Float[np.ndarray, "N G"], target: np.ndarray, unseen: Sequence[str], n_top: int
                     ) -> tuple[Bool[np.ndarray, " N"], Int[np.ndarray, " n_top"]]:
    """Marks the training cells, and picks the n_top genes of largest variance among them, largest first."""
    train = ~np.isin(target, list(unseen))
    return train, np.argsort(-counts[train].var(0), kind="stable")[:n_top]


TARGET = np.array(["non-targeting", "A", "B", "C"] * 3)


def _split(fn: Answer, unseen: Sequence[str] = ("C",), n_top: int = 2) -> tuple[np.ndarray, np.ndarray]:
    return fn(_counts(), TARGET, list(unseen), n_top)


def _counts() -> np.ndarray:
    """Twelve cells, five genes: 4 varies only if C is there, 2 if the controls are; 3 and 4 are large."""
    counts = np.random.default_rng(0).integers(0, 3, (12, 5)).astype(float)
    counts[:, 0] = np.where(TARGET == "A", 9.0, 0.0)
    counts[:, 2] = np.where(TARGET == "non-targeting", 60.0, 1.0)
    counts[:, 3] += 20.0
    counts[:, 4] = np.where(TARGET == "C", 149.0, 100.0)
    return counts

@split_and_select.requires("no cell of an unseen target trains")
def _(fn: Answer) -> Pair:
    """You split cells at random.

    Cells of one perturbation are alike, those in training give away those in the test: split by perturbation.
    """
    train = _split(fn)[0]
    if np.asarray(train).dtype != bool:
        return [0, True], "no mask", {
            "The first value is a mask, True or False for each cell, not row numbers.": "no mask"}
    return [0, True], [sum(train[TARGET == "C"]), bool(train[TARGET != "C"].any())], {
        "Your mask is inverted: True marks the cells that train.": [3, False]}

@split_and_select.requires("the controls stay in training")
def _(fn: Answer) -> Pair:
    """You left the controls out: without unperturbed cells in training there is nothing to compare with."""
    return 3, sum(_split(fn)[0][TARGET == "non-targeting"])

@split_and_select.requires("all other targets train in full")
def _(fn: Answer) -> Pair:
    """You withheld cells of targets that are not on the list: only `unseen` is held out."""
    return 6, sum(_split(fn)[0][np.isin(TARGET, ["A", "B"])])

@split_and_select.requires("STAT10 trains although STAT1 is unseen")
def _(fn: Answer) -> Pair:
    """You found one name inside another: compare whole names, np.isin or ==."""
    return [False, True, True, True], fn(np.eye(4), np.array(["STAT1", "STAT10", "NTC", "STAT10"]), ["STAT1"], 2)[0]

@split_and_select.requires("two unseen targets, three genes")
def _(fn: Answer) -> Pair:
    """`unseen` may name several targets: np.isin marks the cells of all of them."""
    train, genes = _split(fn, ("B", "C"), 3)
    return [0, 3], [sum(train[np.isin(TARGET, ["B", "C"])]), len(genes)]

@split_and_select.requires("nothing unseen: the largest variance comes first")
def _(fn: Answer) -> Pair:
    """Rank genes by the variance of their counts, the largest first: np.argsort of the negative."""
    counts = _counts()
    spread, mean = counts.var(0), counts.mean(0)
    return [2, 4, 0], _split(fn, (), 3)[1], {
        "You sorted the wrong way: np.argsort sorts upwards, so sort the negative.": np.argsort(spread)[-3:],
        "You took the genes that vary least: np.argsort sorts upwards, so sort the negative.": np.argsort(spread)[:3],
        "The right genes in the wrong order: the largest variance first, not the lowest number.": [0, 2, 4],
        "And the variance, not the mean: a gene that is high in all cells tells none apart.": np.argsort(-mean)[:3],
        "Take the variance of the counts themselves, not of their logarithms.":
            np.argsort(-np.log1p(counts).var(0))[:3],
        "Take the variance itself: you divided it by the mean.": np.argsort(-spread / mean)[:3],
    }

@split_and_select.requires("genes are picked on training cells")
def _(fn: Answer) -> Pair:
    """You picked genes on all cells: that is a leak. Pick after the split, on counts[train]."""
    return [0, 2], sorted(_split(fn)[1])


@exercise(
    "5.3", "Forgetting the target", difficulty=2, minutes=5,
    objective="write target dropout",
    misconception="an unknown target is the same as no target",
    hints=("Two conditions must hold: the set has a named target, and its draw is below the share.",
           "np.where(condition, UNKNOWN_TARGET, target)"),
)
def drop_targets(target: Int[np.ndarray, " B"], draw: Float[np.ndarray, " B"], share: float) -> Int[np.ndarray, " B"]:
    """Replaces a share of the named targets by UNKNOWN (-2); draw holds a uniform number in [0, 1) for every set."""
    return np.where((target >= 0) & (draw < share), UNKNOWN, target)


def _dropped(fn: Answer, target: list[int], draw: list[float], share: float) -> np.ndarray:
    return fn(np.array(target), np.array(draw), share)

@drop_targets.requires("share 0.3, four sets, the third of controls")
def _(fn: Answer) -> Pair:
    """A set is dropped where it has a named target (target >= 0) and its own draw is below the share."""
    return [UNKNOWN, 3, NO_TARGET, UNKNOWN], _dropped(fn, [7, 3, NO_TARGET, 5], [0.1, 0.5, 0.2, 0.25], 0.3), {
        "You wrote NO_TARGET: that tells the model that perturbed cells are controls. UNKNOWN (-2) says that something "
        "was perturbed, and not what.": [NO_TARGET, 3, NO_TARGET, NO_TARGET],
        "Compare each draw with the share: a set is dropped where draw < share.": [7, UNKNOWN, NO_TARGET, 5],
        "You dropped control sets too: nothing was perturbed there, so NO_TARGET is known and stays.":
            [UNKNOWN, 3, UNKNOWN, UNKNOWN],
        "You decided once for the whole batch, which is then all known or all unknown. Use each set's own draw.":
            [UNKNOWN, UNKNOWN, NO_TARGET, UNKNOWN],
        "You dropped a share of the sets by the order of their draws: each is dropped by its own draw alone.":
            [UNKNOWN, 3, NO_TARGET, 5],
    }

@drop_targets.requires("high draws drop nothing, whatever their order")
def _(fn: Answer) -> Pair:
    """You dropped a share of the sets by the order of their draws: each is dropped by its own draw alone."""
    return [9, 4], _dropped(fn, [9, 4], [0.9, 0.8], 0.5)

@drop_targets.requires("gene 0 is a target like any other")
def _(fn: Answer) -> Pair:
    """You left gene 0 out: ids begin at 0, so a set has a named target where target >= 0."""
    return [UNKNOWN, 0], _dropped(fn, [0, 0], [0.1, 0.9], 0.3)

@drop_targets.requires("share 0 drops nothing, share 1 all")
def _(fn: Answer) -> Pair:
    """The ends are off: with share 0 not even a draw of 0 drops, with share 1 every set is dropped."""
    none, every = _dropped(fn, [4, 4], [0.0, 0.99], 0.0), _dropped(fn, [4, 4], [0.0, 0.99], 1.0)
    return [4, 4, UNKNOWN, UNKNOWN], [*none, *every]
