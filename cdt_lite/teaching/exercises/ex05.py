"""The exercises of notebook 05: curriculum, controls, split, target dropout, and a model that does not listen."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cdt_lite.teaching.check import Answer, Pair, exercise

NO_TARGET, UNKNOWN = -1, -2  # as in the package: nothing was perturbed; something was, and not known what


@exercise(
    "5.1", "The curriculum", difficulty=1, minutes=5,
    objective="write the original's mask ratio as a function of the training step",
    misconception="the ratio climbs from start to ceiling, or for ever",
    hints=("One line: a straight line in step, and a min.",
           "min(ceiling, start + gain * step / steps)"),
)
def curriculum(step: int, start: float, gain: float, ceiling: float, steps: int) -> float:
    """v1's mask ratio: `start`, and `gain` more over `steps` training steps, never above `ceiling`."""
    return min(ceiling, start + gain * step / steps)

@curriculum.requires("step 0 begins at `start`")
def _(fn: Answer) -> Pair:
    """You begin at zero: the ratio begins at `start`, and the gain comes on top of it."""
    return 0.3, fn(0, 0.3, 0.6, 0.9, 100_000)

@curriculum.requires("half way, half of the gain")
def _(fn: Answer) -> Pair:
    """The climb is a straight line: at step n, n / steps of the gain has been added."""
    return 0.6, fn(50_000, 0.3, 0.6, 0.9, 100_000)

@curriculum.requires("long after the last step, still the ceiling")
def _(fn: Answer) -> Pair:
    """You forgot the ceiling: without min the ratio climbs past 1, and no share of genes is larger than 1."""
    return 0.9, fn(1_000_000, 0.3, 0.6, 0.9, 100_000)

@curriculum.requires("other numbers: gain is what is added")
def _(fn: Answer) -> Pair:
    """You climb from start to ceiling, right for v1 by chance: `gain` is what `steps` steps add."""
    return 0.35, fn(3, 0.2, 0.5, 0.6, 10)

@curriculum.requires("a ceiling that comes early")
def _(fn: Answer) -> Pair:
    """The ceiling holds from where the line meets it, not from the last step on."""
    return 0.6, fn(9, 0.2, 0.5, 0.6, 10)


@exercise(
    "5.2", "Controls of the same replicate", difficulty=2, minutes=8,
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

@matched_controls.requires("all drawn cells are controls")
def _(fn: Answer) -> Pair:
    """You drew perturbed cells too: only cells marked in is_control may be drawn."""
    return True, IS_CONTROL[_drawn(fn)].all()

@matched_controls.requires("all come from the set's own replicate")
def _(fn: Answer) -> Pair:
    """You drew from the controls of all replicates: what sets replicates apart would look like an effect."""
    return ["rep_2"], np.unique(PLATE[_drawn(fn)]).tolist()

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

@matched_controls.requires("another seed, other controls")
def _(fn: Answer) -> Pair:
    """You always take the same ones: draw with rng, or the model learns these few cells by heart."""
    draws = np.stack([_drawn(fn, 2, seed) for seed in range(8)])
    return True, len(np.unique(draws, axis=0)) > 1


@exercise(
    "5.3", "Split first, fit afterwards", difficulty=3, minutes=8,
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
    """Splits twelve cells. Gene 4 varies only if C is there, gene 2 if the controls are; 3 is large."""
    counts = np.random.default_rng(0).integers(0, 3, (12, 5)).astype(float)
    counts[:, 0] = np.where(TARGET == "A", 9.0, 0.0)
    counts[:, 2] = np.where(TARGET == "non-targeting", 12.0, 1.0)
    counts[:, 3] += 20.0
    counts[:, 4] = np.where(TARGET == "C", 50.0, 1.0)
    return fn(counts, TARGET, list(unseen), n_top)

@split_and_select.requires("no cell of an unseen target trains")
def _(fn: Answer) -> Pair:
    """Is your mask inverted? If not: You split cells at random.

    Cells of one perturbation are alike, those in training give away those in the test: split by perturbation.
    """
    return 0, sum(_split(fn)[0][TARGET == "C"])

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
    target = np.array(["STAT1", "STAT10", "NTC", "STAT10"])
    return [False, True, True, True], fn(np.eye(4), target, ["STAT1"], 2)[0]

@split_and_select.requires("two unseen targets, three genes")
def _(fn: Answer) -> Pair:
    """`unseen` may name several targets: np.isin marks the cells of all of them."""
    train, genes = _split(fn, ("B", "C"), 3)
    return [0, 3], [sum(train[np.isin(TARGET, ["B", "C"])]), len(genes)]

@split_and_select.requires("nothing unseen: the largest variance comes first")
def _(fn: Answer) -> Pair:
    """You sorted the wrong way: np.argsort sorts upwards, so sort the negative. And the variance, not the mean."""
    return [4, 2, 0], _split(fn, (), 3)[1]

@split_and_select.requires("genes are picked on training cells")
def _(fn: Answer) -> Pair:
    """You picked genes on all cells: that is a leak. Pick after the split, on counts[train]."""
    return [0, 2], sorted(_split(fn)[1])


@exercise(
    "5.4", "Forgetting the target", difficulty=2, minutes=5,
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

@drop_targets.requires("dropped means unknown, not unperturbed")
def _(fn: Answer) -> Pair:
    """You wrote NO_TARGET: that tells the model that perturbed cells are controls.

    UNKNOWN (-2) says that something was perturbed, and not what.
    """
    return 2, sum(_dropped(fn, [4, 4], [0.0, 0.0], 1.0) != NO_TARGET)

@drop_targets.requires("every set decides for itself")
def _(fn: Answer) -> Pair:
    """You decided once for the whole batch, which is then all known or all unknown. Use each set's own draw."""
    return 1, sum(_dropped(fn, [9, 9], [0.0, 0.9], 0.5) == UNKNOWN)

@drop_targets.requires("share 0.3 drops the sets that drew less")
def _(fn: Answer) -> Pair:
    """Compare each draw with the share: a set is dropped where draw < share, so that 0.3 drops 3 in 10."""
    return [UNKNOWN, 3, 7, UNKNOWN], _dropped(fn, [7, 3, 7, 5], [0.1, 0.5, 0.9, 0.2], 0.3)

@drop_targets.requires("high draws drop nothing, whatever their order")
def _(fn: Answer) -> Pair:
    """You dropped a share of the sets by the order of their draws: each is dropped by its own draw alone."""
    return [9, 4], _dropped(fn, [9, 4], [0.9, 0.8], 0.5)

@drop_targets.requires("control sets stay as they are")
def _(fn: Answer) -> Pair:
    """You dropped control sets too: nothing was perturbed there, so NO_TARGET is known and stays."""
    return [NO_TARGET, NO_TARGET], _dropped(fn, [NO_TARGET, NO_TARGET], [0.1, 0.9], 0.3)

@drop_targets.requires("gene 0 is a target like any other")
def _(fn: Answer) -> Pair:
    """You left gene 0 out: ids begin at 0, so a set has a named target where target >= 0."""
    return [UNKNOWN, 0], _dropped(fn, [0, 0], [0.1, 0.9], 0.3)

@drop_targets.requires("share 0 drops nothing, share 1 all")
def _(fn: Answer) -> Pair:
    """The ends are off: with share 0 not even a draw of 0 drops, with share 1 every set is dropped."""
    none, every = _dropped(fn, [4, 4], [0.0, 0.99], 0.0), _dropped(fn, [4, 4], [0.0, 0.99], 1.0)
    return [4, 4, UNKNOWN, UNKNOWN], [*none, *every]
