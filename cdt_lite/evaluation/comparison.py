"""The truth that predictions are scored against: real means and changes, and control cells of the same batches."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from cdt_lite.data.expression import gene_means, log1p_counts
from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.cells import Cells, Halves, Key, Means
from cdt_lite.evaluation.differential import DE, differential_expression
from cdt_lite.evaluation.metrics import Metric

MIN_CELLS = 10  # below this many cells on a side, a metric that compares cells says nothing


class BatchMeans:
    """Mean log1p expression of some cells in every batch, to be mixed like the batches of other cells."""

    def __init__(self, cells: Cells, log1p: Any, rows: np.ndarray) -> None:
        self.what = cells.what
        self.means = {b: gene_means(log1p[rows[cells.batch[rows] == b]]) for b in np.unique(cells.batch[rows])}

    def mix(self, batches: np.ndarray) -> np.ndarray:
        """Returns the mean over control cells that are spread over batches like these cells, (G,)."""
        labels, n = np.unique(batches, return_counts=True)
        for label in labels:
            if label not in self.means:
                raise CDTError(f"{self.what} has too few control cells in batch {str(label)!r}"
                               f"{suggest(label, self.means)}; drop it, or pass batch_key=None to pool batches")
        return np.average([self.means[label] for label in labels], axis=0, weights=n)


class Guess(NamedTuple):
    """What is said of one perturbation: its mean log1p expression, (G,), and cells with their batches if there are any.

    Cells are counts, or log1p expression where a method makes no counts.
    """

    mean: np.ndarray
    counts: Any = None
    batch: np.ndarray | None = None
    log1p: bool = False


class Arena:
    """The truth about perturbations, with one half of the control cells on its side and the other on ours.

    Args:
        real: The real screen.
        log1p: Its log1p expression, cells x genes.
        halves: Rows of control cells for the truth and for predictions.
        depth: Depth of the log1p scale.
        seed: Chooses cells where there are too many.
        max_cells: At most this many cells a side are compared.
        groups: Rows of the cells that are the truth; all by default.
    """

    def __init__(self, real: Cells, log1p: Any, halves: Halves, depth: float, seed: int = 0,
                 max_cells: int = 1000, groups: Mapping[Key, np.ndarray] | None = None) -> None:
        self.real, self.log1p, self.halves, self.depth = real, log1p, halves, depth
        self.seed, self.max_cells = seed, max_cells
        self.groups = dict(real.groups if groups is None else groups)
        self.index = {key: i for i, key in enumerate(self.groups)}
        self.exclude = {key: tuple(int(i) for i in np.flatnonzero(np.isin(real.genes, [key[0], *key[0].split("+")])))
                        for key in self.groups}
        truth, self.ours = (BatchMeans(real, self.log1p, rows) for rows in halves)
        batches = [real.batch[rows] for rows in self.groups.values()]
        self.means = np.array([gene_means(self.log1p[rows]) for rows in self.groups.values()])
        self.controls = np.array([self.ours.mix(b) for b in batches])
        self.deltas = self.means - np.array([truth.mix(b) for b in batches])
        self.tested: dict[tuple[Key, int], DE] = {}
        self.pools = [{b: np.random.default_rng([seed, i]).permutation(rows[real.batch[rows] == b])
                       for i, b in enumerate(np.unique(real.batch[rows]))} for rows in halves]

    def guess(self, key: Key, predicted: Cells) -> Guess:
        """Turns predicted cells into a guess; their mean is moved to the batches that the real cells come from."""
        rows = predicted.groups[key]
        counts, batches, log1p = predicted.counts[rows], predicted.batch[rows], predicted.log1p_depth is not None
        mean = gene_means(counts if log1p else log1p_counts(counts, self.depth))
        return Guess(mean + self.controls[self.index[key]] - self.ours.mix(batches), counts, batches, log1p)

    def mean_of(self, key: Key, predicted: Means) -> np.ndarray:
        """Returns a predicted mean; a change stands on our control cells, and expression is never negative."""
        value = predicted.values[key]
        return np.maximum(self.controls[self.index[key]] + value, 0.0) if predicted.change else value

    def controls_like(self, side: int, batches: np.ndarray) -> np.ndarray:
        """Returns as many control rows of one half (0 truth, 1 ours) as stand in the proportions of these batches.

        A test against control cells of other batches, or of other proportions of them, would find batch effects.
        """
        labels, n = np.unique(batches, return_counts=True)
        pools = [self.pools[side].get(label, np.array([], int)) for label in labels]
        share = min(len(pool) / k for pool, k in zip(pools, n, strict=True))
        return np.concatenate([pool[: int(share * k + 1e-9)] for pool, k in zip(pools, n, strict=True)])

    def n_changed(self, key: Key) -> float:
        """Returns how many genes the real cells say are changed; 0 marks a null target, NaN too few cells to tell."""
        rows = self.groups[key]
        enough = min(len(rows), len(self.controls_like(0, self.real.batch[rows]))) >= MIN_CELLS
        return float(len(self._real_de(key, rows).significant())) if enough else float("nan")

    def _real_de(self, key: Key, rows: np.ndarray) -> DE:
        if (key, len(rows)) not in self.tested:  # the same for every method
            control = self.log1p[self.controls_like(0, self.real.batch[rows])]
            self.tested[key, len(rows)] = differential_expression(self.log1p[rows], control, self.exclude[key])
        return self.tested[key, len(rows)]

    def matched_controls(self, key: Key) -> np.ndarray:
        """Draws as many of our control cells as there are real ones, from the same batches: rows of the screen."""
        rng = np.random.default_rng([self.seed, self.index[key]])
        batches = rng.permutation(self.real.batch[self.groups[key]])[: self.max_cells]
        drawn = []
        for label, n in zip(*np.unique(batches, return_counts=True), strict=True):
            pool = self.halves[1][self.real.batch[self.halves[1]] == label]
            drawn.append(rng.choice(pool, n, replace=n > len(pool)))
        return np.concatenate(drawn)

    def score(self, key: Key, guess: Guess, metrics: Sequence[Metric]) -> dict[str, float]:
        """Returns every metric of one prediction; NaN where too few cells or perturbations are there to tell."""
        i = self.index[key]
        others = np.delete(np.arange(len(self.groups)), i)
        effects = (self.means - self.controls)[others]
        reference = self.controls[i] + effects.mean(axis=0) if len(others) else guess.mean
        known: dict[str, Callable[[], Any]] = {
            "real_mean": lambda: self.means[i], "predicted_mean": lambda: guess.mean,
            "real_delta": lambda: self.deltas[i], "predicted_delta": lambda: guess.mean - self.controls[i],
            "reference": lambda: reference, "real_deltas": lambda: self.deltas,
            "index": lambda: i, "exclude": lambda: self.exclude[key]}
        n = 0 if guess.counts is None else min(len(self.groups[key]), guess.counts.shape[0], self.max_cells)
        if n >= MIN_CELLS:
            known |= self._cells(key, guess, n)
        return {m.name: m.function(**{name: known[name]() for name in m.inputs if name in known})
                if not m.needs_cells or known.keys() >= {x for x in m.inputs if x.startswith(("real", "predicted"))}
                else float("nan") for m in metrics}

    def _cells(self, key: Key, guess: Guess, n: int) -> dict[str, Callable[[], Any]]:
        """Equal numbers of real and predicted cells, and what a test against their control cells finds in each."""
        rng, rows = np.random.default_rng([self.seed, self.index[key]]), self.groups[key]
        batch = self.real.batch[rows] if guess.batch is None else guess.batch
        rows = rows if len(rows) == n else np.sort(rng.choice(rows, n, replace=False))
        picked = np.arange(n)
        if guess.counts.shape[0] != n:
            picked = np.sort(rng.choice(guess.counts.shape[0], n, replace=False))
        counts, batch = guess.counts[picked], batch[picked]
        log1p = counts if guess.log1p else log1p_counts(counts, self.depth)
        sides = [self.controls_like(side, b) for side, b in enumerate((self.real.batch[rows], batch))]

        @cache
        def predicted_de() -> DE:
            return differential_expression(log1p, self.log1p[sides[1]], self.exclude[key])

        known: dict[str, Callable[[], Any]] = {"real": lambda: self.log1p[rows], "predicted": lambda: log1p}
        if min(map(len, sides)) >= MIN_CELLS:
            known |= {"real_de": lambda: self._real_de(key, rows), "predicted_de": predicted_de}
        if not guess.log1p:
            known |= {"real_counts": lambda: self.real.counts[rows], "predicted_counts": lambda: counts}
        return known
