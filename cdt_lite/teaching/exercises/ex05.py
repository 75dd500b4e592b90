"""The exercises of notebook 05: curriculum, controls, split, target dropout, and a model that does not listen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cdt_lite.teaching.check import Exercise, Property

Pair = tuple[Any, Any]
NO_TARGET, UNKNOWN = -1, -2  # as in cdt_lite.conditioning


def curriculum(step: int, start: float, gain: float, ceiling: float, steps: int) -> float:
    """v1's mask ratio: `start`, and `gain` more over `steps` training steps, never above `ceiling`."""
    return min(ceiling, start + gain * step / steps)


_CURRICULUM = (
    Property("step 0 begins at `start`", lambda f: (0.3, f(0, 0.3, 0.6, 0.9, 100_000)),
             "You begin at zero: the ratio begins at `start`, and the gain comes on top of it."),
    Property("half way, half of the gain", lambda f: (0.6, f(50_000, 0.3, 0.6, 0.9, 100_000)),
             "The climb is a straight line: at step n, n / steps of the gain has been added."),
    Property("long after the last step, still the ceiling", lambda f: (0.9, f(1_000_000, 0.3, 0.6, 0.9, 100_000)),
             "You forgot the ceiling: without min the ratio climbs past 1, and no share of genes is larger than 1."),
    Property("other numbers: gain is what is added", lambda f: (0.35, f(3, 0.2, 0.5, 0.6, 10)),
             "You climb from start to ceiling, which fits v1's numbers by chance: `gain` is what `steps` steps add, "
             "whatever the ceiling."),
    Property("a ceiling that comes early", lambda f: (0.6, f(9, 0.2, 0.5, 0.6, 10)),
             "The ceiling holds from where the line meets it, not from the last step on."),
)


def matched_controls(own: Int[np.ndarray, " S"], replicate: np.ndarray, is_control: Bool[np.ndarray, " N"], n: int,
                     rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Draws n control cells of the replicate of the set's own cells, none of them in the set."""
    pool = np.flatnonzero(is_control & (replicate == replicate[own[0]]))
    pool = np.setdiff1d(pool, own)
    return rng.choice(pool, n, replace=len(pool) < n)


def _plate() -> tuple[np.ndarray, np.ndarray]:
    """Sixty cells of three replicates, every fourth a control."""
    return np.repeat(["rep_1", "rep_2", "rep_3"], 20), np.arange(60) % 4 == 0


def _drawn(fn: Callable, own: Sequence[int] = (21, 22), n: int = 4, seed: int = 0) -> np.ndarray:
    return np.asarray(fn(np.array(own), *_plate(), n, np.random.default_rng(seed)))


_MATCHING = (
    Property("all drawn cells are controls", lambda f: (True, bool(_plate()[1][_drawn(f)].all())),
             "You drew perturbed cells too: only cells marked in is_control may be drawn."),
    Property("all come from the set's own replicate",
             lambda f: (["rep_2"], sorted({str(r) for r in _plate()[0][_drawn(f)]})),
             "You drew from the controls of all replicates: the difference between replicates would look like an "
             "effect of the perturbation."),
    Property("no control twice where there are enough", lambda f: (5, len(set(_drawn(f, n=5).tolist()))),
             "You drew with replacement: a control that stands in the set twice counts twice."),
    Property("n are drawn even from a small pool", lambda f: ((9,), np.shape(_drawn(f, n=9))),
             "A replicate may hold fewer than n controls: then, and only then, draw with replacement."),
    Property("a set of controls is not its own control",
             lambda f: ([], sorted({20, 24} & {int(i) for seed in range(6)
                                               for i in _drawn(f, own=(20, 24), n=3, seed=seed)})),
             "Your set met itself: leave its own cells out of the pool, or the model can copy the answer."),
    Property("another seed, other controls",
             lambda f: (True, len({tuple(sorted(_drawn(f, n=2, seed=s).tolist())) for s in range(8)}) > 1),
             "You always take the same ones: draw with rng, or the model learns these few cells by heart."),
)


def split_and_select(counts: Float[np.ndarray, "N G"], target: np.ndarray, unseen: Sequence[str], n_top: int
                     ) -> tuple[Bool[np.ndarray, " N"], Int[np.ndarray, " n_top"]]:
    """Marks the training cells, and picks the n_top genes of largest variance among them, largest first."""
    train = ~np.isin(target, list(unseen))
    return train, np.argsort(-counts[train].var(0), kind="stable")[:n_top]


def _screen() -> tuple[np.ndarray, np.ndarray]:
    """Twelve cells, five genes. Gene 4 varies only if C is there, gene 2 if the controls are; 3 is large."""
    target = np.array(["non-targeting", "A", "B", "C"] * 3)
    counts = np.random.default_rng(0).integers(0, 3, (12, 5)).astype(float)
    counts[:, 0] = np.where(target == "A", 9.0, 0.0)
    counts[:, 2] = np.where(target == "non-targeting", 12.0, 1.0)
    counts[:, 3] += 20.0
    counts[:, 4] = np.where(target == "C", 50.0, 1.0)
    return counts, target


def _split(fn: Callable, n_top: int = 2, unseen: Sequence[str] = ("C",)) -> tuple[np.ndarray, np.ndarray]:
    train, genes = fn(*_screen(), list(unseen), n_top)
    return np.asarray(train), np.asarray(genes)


_SPLITTING = (
    Property("no cell of an unseen target trains", lambda f: (0, int(_split(f)[0][_screen()[1] == "C"].sum())),
             "Is your mask inverted? If not: You split cells at random. Cells of one perturbation are alike, those in "
             "training give away those in the test: split by perturbation."),
    Property("the controls stay in training", lambda f: (3, int(_split(f)[0][_screen()[1] == "non-targeting"].sum())),
             "You left the controls out: without unperturbed cells in training there is nothing to compare with."),
    Property("all other targets train in full",
             lambda f: (6, int(_split(f)[0][np.isin(_screen()[1], ["A", "B"])].sum())),
             "You withheld cells of targets that are not on the list: only `unseen` is held out."),
    Property("two unseen targets, three genes",
             lambda f: (([False] * 6, 3), (_split(f, 3, ("B", "C"))[0][np.isin(_screen()[1], ["B", "C"])].tolist(),
                                           len(_split(f, 3, ("B", "C"))[1]))),
             "`unseen` may name several targets: np.isin marks the cells of all of them."),
    Property("nothing unseen: the largest variance comes first",
             lambda f: ([4, 2, 0], [int(g) for g in _split(f, 3, ())[1]]),
             "You sorted the wrong way: np.argsort sorts upwards, so sort the negative variance, and then take n_top. "
             "(And the variance, not the mean.)"),
    Property("genes are picked on training cells", lambda f: ([0, 2], sorted(int(g) for g in _split(f)[1])),
             "You picked genes on all cells: a gene that varies only in the test cells got in. That is a leak; pick "
             "after the split, on counts[train]."),
)


def drop_targets(target: Int[np.ndarray, " B"], draw: Float[np.ndarray, " B"], share: float) -> Int[np.ndarray, " B"]:
    """Replaces a share of the named targets by UNKNOWN (-2); draw holds a uniform number in [0, 1) for every set."""
    return np.where((target >= 0) & (draw < share), UNKNOWN, target)


_TARGETS, _DRAWS = np.array([7, NO_TARGET, 3, 7, NO_TARGET, 5]), np.array([0.1, 0.1, 0.5, 0.9, 0.9, 0.2])
_DROPPING = (
    Property("dropped means unknown, not unperturbed", lambda f: (
        2, int((np.asarray(f(np.array([4, 4]), np.zeros(2), 1.0)) != NO_TARGET).sum())),
             "You wrote NO_TARGET: that tells the model that perturbed cells are controls. UNKNOWN (-2) says that "
             "something was perturbed, and not what."),
    Property("every set decides for itself", lambda f: (
        1, int((np.asarray(f(np.array([9, 9]), np.array([0.0, 0.9]), 0.5)) == UNKNOWN).sum())),
             "You decided once for the whole batch, which is then all known or all unknown. Use each set's own draw."),
    Property("share 0.3 drops the sets that drew less", lambda f: (
        [UNKNOWN, 3, 7, UNKNOWN], np.asarray(f(_TARGETS, _DRAWS, 0.3))[[0, 2, 3, 5]].tolist()),
             "Compare each draw with the share: a set is dropped where draw < share, so that 0.3 drops 3 in 10."),
    Property("control sets stay as they are", lambda f: (
        [NO_TARGET, NO_TARGET], np.asarray(f(_TARGETS, _DRAWS, 0.3))[[1, 4]].tolist()),
             "You dropped control sets too: nothing was perturbed there, so NO_TARGET is known and stays."),
    Property("gene 0 is a target like any other", lambda f: (
        [UNKNOWN, 0], np.asarray(f(np.array([0, 0]), np.array([0.1, 0.9]), 0.3)).tolist()),
             "You left gene 0 out: ids begin at 0, so a set has a named target where target >= 0."),
    Property("share 0 drops nothing, share 1 all", lambda f: (
        [4, 4, UNKNOWN, UNKNOWN], [*np.asarray(f(np.array([4, 4]), np.array([0.0, 0.99]), 0.0)).tolist(),
                                   *np.asarray(f(np.array([4, 4]), np.array([0.0, 0.99]), 1.0)).tolist()]),
             "The ends are off: with share 0 not even a draw of 0 drops, with share 1 every set is dropped."),
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


def _real() -> dict[str, np.ndarray]:
    """Four targets: a shift that all share, and something of each one's own."""
    rng = np.random.default_rng(0)
    shared = 2 * rng.normal(size=60)
    return {name: shared + 0.5 * rng.normal(size=60) for name in "ABCD"}


def _asked(fn: Callable, predict: Callable[[str], np.ndarray]) -> list[bool]:
    return [bool(x) for x in fn(predict, _real())]


def _shared(name: str) -> np.ndarray:
    return np.mean(list(_real().values()), axis=0)


def _nearly(name: str) -> np.ndarray:
    return _shared(name) + 1e-7 * ord(name)


def _random(name: str) -> np.ndarray:
    return _shared(name) + 0.5 * np.random.default_rng(ord(name)).normal(size=60)


def _fair(name: str) -> np.ndarray:
    return _real()[name] + 0.4 * np.random.default_rng(ord(name)).normal(size=60)


def _swapped(name: str) -> np.ndarray:
    return _real()["ABCD"["BADC".index(name)]]


_LISTENING = (
    Property("a good predictor, half as bold as the truth",
             lambda f: ([True, True], _asked(f, lambda name: 0.5 * _real()[name])),
             "A timid predictor that goes the right way listens: direction is a correlation, not a distance."),
    Property("the mean for every target: deaf", lambda f: ([False, False], _asked(f, _shared)),
             "You compared each answer with its own truth: the shift that all targets share makes even a constant "
             "look right. Subtract the mean over targets first."),
    Property("answers that differ by rounding only: deaf", lambda f: ([False, False], _asked(f, _nearly)),
             "You took any difference for listening: two forward passes differ in the last digits. Ask for a change "
             "above 1e-3."),
    Property("answers that differ at random: not in the right direction",
             lambda f: ([True, False], _asked(f, _random)),
             "A change is not yet an answer: a gene vector that was never trained moves the output as well. Correlate "
             "what sets the targets apart, predicted and real."),
    Property("answers to the wrong questions", lambda f: ([True, False], _asked(f, _swapped)),
             "This predictor mixes its targets up: hold each answer against the truth of the same target, in the "
             "same order."),
    Property("a fair predictor, asked for 0.2 and for 0.95",
             lambda f: ([True, True, True, False], [bool(x) for least in (0.2, 0.95)
                                                    for x in f(_fair, _real(), least)]),
             "You wrote the bar into your function: compare the correlation with `least`, whatever number is given."),
)
EXERCISES: tuple[Exercise, ...] = (
    Exercise("5.1", "The curriculum", 1, 5, "write the original's mask ratio as a function of the training step",
             "the ratio climbs from start to ceiling, or for ever", curriculum, _CURRICULUM,
             ("One line: a straight line in step, and a min.", "min(ceiling, start + gain * step / steps)")),
    Exercise("5.2", "Controls of the same replicate", 2, 8, "match control cells to a set by replicate",
             "any control is as good as another", matched_controls, _MATCHING,
             ("First the pool: np.flatnonzero of two conditions at once.",
              "np.setdiff1d(pool, own) takes the set's own cells out.",
              "rng.choice(pool, n, replace=...): replace only where the pool is smaller than n.")),
    Exercise("5.3", "Split first, fit afterwards", 3, 8,
             "split a screen by perturbation and fit on training cells only",
             "a random split of cells is a fair test, and choosing genes is not fitting",
             split_and_select, _SPLITTING,
             ("np.isin(target, unseen) marks the test cells.",
              "Variance of counts[train], then np.argsort of its negative.")),
    Exercise("5.4", "Forgetting the target", 2, 5, "write target dropout",
             "an unknown target is the same as no target", drop_targets, _DROPPING,
             ("Two conditions must hold: the set has a named target, and its draw is below the share.",
              "np.where(condition, UNKNOWN_TARGET, target)")),
    Exercise("5.5", "Does it listen?", 4, 15, "diagnose a model that ignores its condition",
             "a prediction that changes with the question is an answer to it", listens, _LISTENING,
             ("Stack the answers, one row a target; do the same with the truth.",
              "Subtract the mean over targets (axis 0) from both: what is left is what sets the targets apart.",
              "changes: the largest absolute value left in the answers. right: np.corrcoef of the two tables, "
              "ravelled.")),
)
