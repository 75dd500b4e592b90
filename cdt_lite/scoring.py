"""Cells at the door, and the truth that predictions of them are scored against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cdt_lite.differential import DE, differential_expression, gene_means
from cdt_lite.errors import CDTError, suggest
from cdt_lite.metrics import Metric, log1p_counts

MIN_CELLS = 10  # below this many cells on a side, a metric that compares cells says nothing
Key = tuple[str, int]  # a perturbation: its target gene and sign
Halves = tuple[np.ndarray, np.ndarray]  # rows of control cells: for the truth, for predictions


class Names(NamedTuple):
    """Where an AnnData keeps its labels; None: it has no such column."""

    target: str
    control: str
    batch: str | None
    sign: str | None


@dataclass(frozen=True)
class Cells:
    """Checked cells, in an order of genes and cells that does not depend on how they were written.

    Attributes:
        what: What to call them in a message.
        genes: Gene symbols, sorted, (G,).
        names: Cell names, sorted.
        counts: Raw counts, cells x genes.
        batch: Batch of every cell.
        groups: Rows of every perturbation, sorted by target and sign.
        control: Rows of control cells.
    """

    what: str
    genes: np.ndarray
    names: np.ndarray
    counts: sparse.csr_matrix
    batch: np.ndarray
    groups: dict[Key, np.ndarray]
    control: np.ndarray

    def halves(self, seed: int) -> Halves:
        """Splits the control rows in two at random, within every batch."""
        first, second = [], []
        for i, batch in enumerate(np.unique(self.batch[self.control])):
            rows = self.control[self.batch[self.control] == batch]
            rows = np.random.default_rng([seed, i]).permutation(rows)
            first.append(rows[: len(rows) // 2])
            second.append(rows[len(rows) // 2 :])
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


Predicted = Cells | dict[Key, np.ndarray]  # cells, or means alone


def keys_of(predicted: Predicted) -> list[Key]:
    """Returns the perturbations that a method predicts."""
    return list(predicted.groups if isinstance(predicted, Cells) else predicted)


def _column(adata: AnnData, key: str | None, what: str, default: str) -> np.ndarray:
    if key is None:
        return np.full(adata.n_obs, default)
    if key not in adata.obs:
        raise CDTError(f'{what}: expected a column obs["{key}"], got {list(adata.obs.columns)}'
                       f"{suggest(key, adata.obs)}; say its name (batch_key and sign_key may be None: no such column)")
    if adata.obs[key].isna().any():
        raise CDTError(f'{what}: {int(adata.obs[key].isna().sum())} cells have no obs["{key}"]; label or drop them')
    return adata.obs[key].astype(str).to_numpy(str)


def _signs(column: np.ndarray, what: str) -> np.ndarray:
    signs = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy()
    if (wrong := ~np.isin(signs, [-1, 0, 1])).any():
        raise CDTError(f"{what}: expected sign -1 (knockout), 0 (control) or +1 (activation), got {column[wrong][0]}")
    return signs.astype(int)


def _check_genes(genes: pd.Index, expected: np.ndarray | None, what: str) -> None:
    if genes.has_duplicates:
        raise CDTError(f"{what} names gene {genes[genes.duplicated()][0]!r} twice; keep one of each")
    if expected is not None and set(expected) != set(genes):
        missing = [str(gene) for gene in sorted(set(expected) - set(genes))]
        extra = [str(gene) for gene in sorted(set(genes) - set(expected))]
        raise CDTError(
            f"{what} does not measure the genes of the real screen: {len(missing)} missing {missing[:3]}, "
            f"{len(extra)} more {extra[:3]}{suggest(extra[0], missing) if extra else ''}; keep the common ones in both")


def _check_counts(X: Any, what: str) -> sparse.csr_matrix:
    X = sparse.csr_matrix(X)
    bad = ~np.isfinite(X.data) | (X.data < 0) | (X.data % 1 != 0)
    if bad.any():
        raise CDTError(f"{what}: expected raw counts (integers from 0), got {X.data[bad][0]:g}; "
                       "pass the counts, they are brought to log1p here")
    return X.astype(np.float32)


def read_cells(adata: AnnData, what: str, names: Names, genes: np.ndarray | None = None,
               screen: bool = True) -> Cells:
    """Checks cells at the door.

    Args:
        adata: Raw counts with labels.
        what: What to call them in a message.
        names: Where the labels are.
        genes: Gene symbols that they have to measure, in any order.
        screen: Whether control cells and unique cell names are needed.

    Raises:
        CDTError: If a column, a label, a gene or a count is not as expected.
    """
    _check_genes(adata.var_names, genes, what)
    target, batch = _column(adata, names.target, what, ""), _column(adata, names.batch, what, "")
    sign = _signs(_column(adata, names.sign, what, "0"), what)
    symbols, cells = adata.var_names.to_numpy(str), adata.obs_names.to_numpy(str)
    by_gene, by_name = np.argsort(symbols), np.argsort(cells, kind="stable")
    is_control = target[by_name] == names.control
    if screen and is_control.sum() < 4:
        raise CDTError(f"{what}: expected at least 4 control cells labelled {names.control!r}, got {is_control.sum()}"
                       f"{suggest(names.control, sorted(set(target)))}")
    if screen and is_control.all():
        raise CDTError(f"{what}: expected perturbed cells, got control cells only; check the selection")
    if screen and len(set(cells)) < len(cells):
        raise CDTError(f"{what}: cell names repeat, which would hide cells that training and test share; "
                       "call obs_names_make_unique()")
    keys = pd.Series(list(zip(target[by_name].tolist(), sign[by_name].tolist(), strict=True)))[~is_control]
    groups = {key: np.sort(keys.index[rows]) for key, rows in sorted(keys.groupby(keys).indices.items())}
    counts = _check_counts(adata.X, what)[by_name][:, by_gene]
    return Cells(what, symbols[by_gene], cells[by_name], counts, batch[by_name], groups, np.flatnonzero(is_control))


def read_prediction(predicted: AnnData | pd.DataFrame, what: str, names: Names, real: Cells) -> Predicted:
    """Checks one method's prediction at the door: cells, or a table of mean log1p expression, targets x genes.

    Raises:
        CDTError: If it is not about perturbations and genes of the real screen, or not in the expected space.
    """
    cells = isinstance(predicted, AnnData)
    out = read_cells(predicted, what, names, real.genes, screen=False) if cells else _read_means(predicted, what, real)
    if not keys_of(out):
        raise CDTError(f"{what} has no perturbed cells: all are labelled {names.control!r}")
    for target, sign in keys_of(out):
        if (target, sign) not in real.groups:
            known = sorted({t for t, _ in real.groups})
            raise CDTError(f"{what}: the real screen has no cells of target {target!r} with sign {sign}"
                           f"{suggest(target, known)}; it has {known[:10]}")
    return out


def _read_means(table: pd.DataFrame, what: str, real: Cells) -> dict[Key, np.ndarray]:
    _check_genes(table.columns, real.genes, what)
    values = table[real.genes].to_numpy(np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise CDTError(f"{what}: expected mean log1p expression, finite and from 0, got {values.min():g}")
    signs = {target: [sign for t, sign in real.groups if t == target] for target, _ in real.groups}
    keys = [x if isinstance(x, tuple) else (x, sign) for x in table.index for sign in signs.get(x, [0])]
    if len(set(keys)) != len(table):
        raise CDTError(f"{what}: expected one row per perturbation; index by (target, sign) where a gene has both")
    return dict(zip(keys, values, strict=True))


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
    """What is said of one perturbation: its mean log1p expression, (G,), and cells if there are any."""

    mean: np.ndarray
    counts: Any = None


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

    def guess(self, key: Key, counts: Any, batches: np.ndarray) -> Guess:
        """Turns predicted cells into a guess; their mean is moved to the batches that the real cells come from."""
        mean = gene_means(log1p_counts(counts, self.depth))
        return Guess(mean + self.controls[self.index[key]] - self.ours.mix(batches), counts)

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
        if n >= MIN_CELLS and min(map(len, self.halves)) >= MIN_CELLS:
            known |= self._cells(key, guess.counts, n)
        return {m.name: m.function(**{name: known[name]() for name in m.inputs if name in known})
                if not m.needs_cells or "real" in known else float("nan") for m in metrics}

    def _cells(self, key: Key, counts: Any, n: int) -> dict[str, Callable[[], Any]]:
        """Equal numbers of real and predicted cells, and what a test against control cells finds in each."""
        rng, rows = np.random.default_rng([self.seed, self.index[key]]), self.groups[key]
        rows = rows if len(rows) == n else np.sort(rng.choice(rows, n, replace=False))
        counts = counts if counts.shape[0] == n else counts[np.sort(rng.choice(counts.shape[0], n, replace=False))]
        log1p, exclude = log1p_counts(counts, self.depth), self.exclude[key]

        def real_de() -> DE:
            if (key, n) not in self.tested:  # the same for every method
                control = self.log1p[self.halves[0]]
                self.tested[key, n] = differential_expression(self.log1p[rows], control, exclude)
            return self.tested[key, n]

        @cache
        def predicted_de() -> DE:
            return differential_expression(log1p, self.log1p[self.halves[1]], exclude)

        return {"real": lambda: self.log1p[rows], "predicted": lambda: log1p, "real_de": real_de,
                "predicted_de": predicted_de, "real_counts": lambda: self.real.counts[rows],
                "predicted_counts": lambda: counts}
