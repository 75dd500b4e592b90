"""The truth that predictions are compared with: real means and changes, and control cells of the same batches."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cdt_lite.data.expression import Matrix, Vector, gene_means, log1p_counts
from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.baselines import dispersed_cells
from cdt_lite.evaluation.cells import Cells, Changes, Key, Predicted, Split
from cdt_lite.evaluation.differential import DE, differential_expression

MIN_CELLS = 10  # below this many cells on a side, a metric that compares cells says nothing
MAX_CELLS = 1000  # at most this many cells a side are compared
MAX_CONTROLS = 1250  # at most so many control cells are moved to a mean, or tested against; means are over all of them


@dataclass(frozen=True)
class Side:
    """Real or predicted cells."""

    log1p: Matrix  # cells x genes
    counts: Matrix | None  # None where a method makes none
    test: Callable[[], DE | None]  # against control cells in the proportions of the batches of these cells

    @cached_property
    def changed(self) -> DE | None:
        """What a test against the control cells finds; None where there are too few."""
        return self.test()

    @property
    def n_changed(self) -> float:
        """How many genes are changed; 0 marks a null target, NaN too few cells to tell."""
        return float("nan") if self.changed is None else float(len(self.changed.significant()))


NO_CELLS = Side(np.empty((0, 0)), None, lambda: None)


@dataclass(frozen=True)
class Comparison:
    """One prediction beside the truth about its perturbation: all that a metric may ask for."""

    real_mean: Vector  # mean log1p expression
    predicted_mean: Vector
    real_delta: Vector  # minus the mean of the truth's half of the controls
    predicted_delta: Vector  # minus the mean of the prediction's half
    reference: Vector  # mean of the other perturbations, on the prediction's half of the controls
    sensitivity: Vector  # change of mean log1p per unit of log expression, among the truth's half of the controls
    real_deltas: Float[np.ndarray, "P G"]  # of all perturbations
    index: int  # of this perturbation among them
    exclude: tuple[int, ...]  # positions of its genes, left out of every metric
    real: Side = NO_CELLS  # equal numbers of real and predicted cells
    predicted: Side = NO_CELLS

    @property
    def own_change(self) -> tuple[float, float]:
        """Real and predicted change of the perturbed gene (of a pair, of both); NaN where it is not measured."""
        if not self.exclude:
            return float("nan"), float("nan")
        own = list(self.exclude)
        return float(self.real_delta[own].mean()), float(self.predicted_delta[own].mean())


class Prediction(NamedTuple):
    """What is said of one perturbation: its mean log1p expression, (G,), and cells if there are any."""

    mean: Vector
    batch: np.ndarray = np.empty(0)  # of every cell
    log1p: Matrix = None  # cells x genes
    counts: Matrix = None  # None where a method makes none


class Controls:
    """One half of the control cells: their mean, and they themselves, in the batches that other cells come from."""

    def __init__(self, cells: Cells, log1p: Matrix, rows: np.ndarray, seed: int = 0) -> None:
        self.what = cells.what
        self.means, self.sorted, self.rows = {}, {}, {}
        batch = cells.batch[rows]
        for i, label in enumerate(np.unique(batch)):
            here = rows[batch == label]
            self.means[label] = gene_means(log1p[here])
            self.sorted[label] = np.sort(here)
            self.rows[label] = np.random.default_rng([seed, i]).permutation(here)

    def mean_like(self, batches: np.ndarray) -> Vector:
        """Returns the mean over control cells that are spread over batches like these cells, (G,)."""
        labels, n = np.unique(batches, return_counts=True)
        for label in labels:
            if label not in self.means:
                raise CDTError(f"{self.what} has too few control cells in batch {str(label)!r}"
                               f"{suggest(label, self.means)}; drop it, or pass Columns(batch=None) to pool batches")
        return np.average([self.means[label] for label in labels], axis=0, weights=n)

    def rows_like(self, batches: np.ndarray) -> np.ndarray:
        """Returns as many control rows as stand in the proportions of these batches, `MAX_CONTROLS` at most.

        A test against control cells of other batches, or of other proportions of them, would find batch effects. Where
        there are more they are drawn by the seed: what a row of scores costs does not grow with a screen's controls.
        """
        labels, n = np.unique(batches, return_counts=True)
        rows = [self.rows.get(label, np.array([], int)) for label in labels]
        share = min(MAX_CONTROLS / n.sum(), *(len(here) / k for here, k in zip(rows, n, strict=True)))
        return np.concatenate([here[: int(share * k + 1e-9)] for here, k in zip(rows, n, strict=True)])

    def draw(self, batches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws as many control rows as there are cells, from the same batches."""
        drawn = []
        for label, n in zip(*np.unique(batches, return_counts=True), strict=True):
            here = self.sorted[label]
            drawn.append(rng.choice(here, n, replace=n > len(here)))
        return np.concatenate(drawn)


class Truth:
    """The truth about perturbations, with one half of the control cells on its side and the other for predictions.

    Args:
        real: The real screen.
        split: Rows of control cells: for the truth, and for predictions.
        depth: Depth of the log1p scale, counts per cell.
        seed: Chooses cells where there are too many.
        with_cells: Whether metrics of cells are wanted: then a mean is given cells.
        log1p: Of the real cells at this depth, where it is known already.
    """

    def __init__(self, real: Cells, split: Split, depth: float, seed: int, with_cells: bool = True,
                 log1p: Matrix | None = None) -> None:
        self.real, self.depth, self.seed, self.with_cells = real, depth, seed, with_cells
        self.log1p = log1p_counts(real.counts, depth) if log1p is None else log1p
        self.subtracted, self.given = (Controls(real, self.log1p, rows, seed) for rows in split)
        self.sensitivity = self._sensitivity(split[0])
        self.index = {key: i for i, key in enumerate(real.groups)}
        means, matched, deltas = [], [], []
        for rows in real.groups.values():
            means.append(gene_means(self.log1p[rows]))
            matched.append(self.given.mean_like(real.batch[rows]))
            deltas.append(means[-1] - self.subtracted.mean_like(real.batch[rows]))
        self.means, self.deltas = np.array(means), np.array(deltas)
        self.control_means = np.array(matched)
        self.tested: dict[tuple[Key, int], DE | None] = {}  # what real cells show, the same for every method

    def _sensitivity(self, rows: np.ndarray) -> Vector:
        """The mean of x / (1 + x), which is 1 - exp(-log1p), over control cells: how log1p follows log x."""
        log1p = self.log1p[rows]
        return gene_means(-np.expm1(-log1p) if isinstance(log1p, np.ndarray) else -(-log1p).expm1())

    def read(self, key: Key, predicted: Predicted) -> Prediction:
        """Reads what a method says of a perturbation."""
        if isinstance(predicted, Cells):
            return self.from_cells(key, predicted)
        if isinstance(predicted, Changes):
            return self.from_change(key, predicted.table.loc[key].to_numpy())
        return self.from_mean(key, predicted.loc[key].to_numpy())

    def from_cells(self, key: Key, predicted: Cells) -> Prediction:
        """Takes predicted cells; their mean is moved to the batches that the real cells come from."""
        rows = predicted.groups[key]
        values, batch = predicted.counts[rows], predicted.batch[rows]
        shift = self.control_means[self.index[key]] - self.given.mean_like(batch)
        if predicted.is_log1p:
            return Prediction(gene_means(values) + shift, batch, values)
        log1p = log1p_counts(values, self.depth)
        return Prediction(gene_means(log1p) + shift, batch, log1p, values)

    def from_change(self, key: Key, change: Vector) -> Prediction:
        """Puts a predicted change on the prediction's half of the controls; expression is never negative."""
        return self.from_mean(key, np.maximum(self.control_means[self.index[key]] + change, 0.0))

    def from_mean(self, key: Key, mean: Vector) -> Prediction:
        """Gives a mean cells of its own, so that metrics of cells can be computed.

        Matched control cells are moved to the mean, and some of them drawn, so that they scatter about it as
        sampled cells do: cells with exactly the predicted mean would look nearer to the real ones than real cells are.
        """
        if not self.with_cells:
            return Prediction(mean)
        rows = self.matched_controls(key)
        pool = self.given.rows_like(self.real.batch[self.real.groups[key]])
        if len(pool) < len(rows):
            pool = rows
        rng = self._rng(key)
        counts = dispersed_cells(self.real.counts[pool], mean, self.depth, rng)
        drawn = rng.choice(len(pool), len(rows), replace=False)
        log1p = log1p_counts(counts[drawn], self.depth)
        return Prediction(mean, self.real.batch[pool[drawn]], log1p, counts[drawn])

    def from_controls(self, key: Key) -> Prediction:
        """Predicts that nothing changes: control cells as they are."""
        rows = self.matched_controls(key)
        mean = self.control_means[self.index[key]]
        return Prediction(mean, self.real.batch[rows], self.log1p[rows], self.real.counts[rows])

    def matched_controls(self, key: Key) -> np.ndarray:
        """Draws as many of the prediction's controls as there are real cells, from the same batches."""
        rng = self._rng(key)
        batches = rng.permutation(self.real.batch[self.real.groups[key]])
        return self.given.draw(batches[:MAX_CELLS], rng)

    def compare(self, key: Key, prediction: Prediction) -> Comparison:
        """Puts a prediction beside the truth, and equal numbers of cells if it has any."""
        i, rows, rng = self.index[key], self.real.groups[key], self._rng(key)
        control, reference = self.control_means[i], prediction.mean
        if len(self.index) > 1:
            reference = control + np.delete(self.means - self.control_means, i, axis=0).mean(axis=0)
        delta = prediction.mean - control
        real = predicted = NO_CELLS
        if n := min(len(rows), len(prediction.batch), MAX_CELLS):
            real = self.real_side(key, _draw(rng, rows, n))
            picked = _draw(rng, np.arange(len(prediction.batch)), n)
            log1p, counts = prediction.log1p[picked], prediction.counts
            test = partial(self._against, self.given, log1p, prediction.batch[picked], key)
            predicted = Side(log1p, None if counts is None else counts[picked], test)
        return Comparison(self.means[i], prediction.mean, self.deltas[i], delta, reference, self.sensitivity,
                          self.deltas, i, self._exclude(key), real, predicted)

    def real_side(self, key: Key, rows: np.ndarray | None = None) -> Side:
        """Returns some (all) real cells of a perturbation; what a test finds in them is kept, and the cells are not."""
        rows = self.real.groups[key] if rows is None else rows
        log1p = self.log1p[rows]

        def test() -> DE | None:
            if (key, len(rows)) not in self.tested:
                self.tested[key, len(rows)] = self._against(self.subtracted, log1p, self.real.batch[rows], key)
            return self.tested[key, len(rows)]

        return Side(log1p, self.real.counts[rows], test)

    def _against(self, controls: Controls, log1p: Matrix, batch: np.ndarray, key: Key) -> DE | None:
        """Tests cells of these batches against control cells; None where there are too few."""
        rows = controls.rows_like(batch)
        if min(log1p.shape[0], len(rows)) < MIN_CELLS:
            return None
        return differential_expression(log1p, self.log1p[rows], self._exclude(key))

    def _rng(self, key: Key) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.index[key]])

    def _exclude(self, key: Key) -> tuple[int, ...]:
        """The positions of the perturbed gene, or of both genes of a pair."""
        found = np.isin(self.real.genes, [key[0], *key[0].split("+")])
        return tuple(np.flatnonzero(found).tolist())


def _draw(rng: np.random.Generator, rows: np.ndarray, n: int) -> np.ndarray:
    return rows if len(rows) == n else np.sort(rng.choice(rows, n, replace=False))
