"""Cells and predictions at the door: labels, genes and space of values are checked before anything is scored."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cdt_lite.errors import CDTError, suggest

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
        counts: Raw counts, cells x genes; log1p expression where `log1p_depth` is not None.
        batch: Batch of every cell.
        groups: Rows of every perturbation, sorted by target and sign.
        control: Rows of control cells.
        log1p_depth: Depth of the scale of predicted cells that are log1p expression.
    """

    what: str
    genes: np.ndarray
    names: np.ndarray
    counts: sparse.csr_matrix
    batch: np.ndarray
    groups: dict[Key, np.ndarray]
    control: np.ndarray
    log1p_depth: float | None = None

    def halves(self, seed: int) -> Halves:
        """Splits the control rows in two at random, within every batch."""
        first, second = [], []
        for i, batch in enumerate(np.unique(self.batch[self.control])):
            rows = self.control[self.batch[self.control] == batch]
            rows = np.random.default_rng([seed, i]).permutation(rows)
            first.append(rows[: len(rows) // 2])
            second.append(rows[len(rows) // 2 :])
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


@dataclass(frozen=True)
class Changes:
    """A prediction of mean changes from control, log1p units, targets x genes: put on top of the real control means."""

    table: pd.DataFrame


@dataclass(frozen=True)
class Means:
    """A checked prediction without cells: mean log1p expression of every perturbation, or its change from control."""

    values: dict[Key, np.ndarray]
    change: bool


Predicted = Cells | Means


def keys_of(predicted: Predicted) -> list[Key]:
    """Returns the perturbations that a method predicts."""
    return list(predicted.groups if isinstance(predicted, Cells) else predicted.values)


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


def _check_values(X: Any, what: str, log1p: bool) -> sparse.csr_matrix:
    X = sparse.csr_matrix(X)
    bad = ~np.isfinite(X.data) | (X.data < 0) | (X.data > 20 if log1p else X.data % 1 != 0)
    if bad.any() and log1p:
        raise CDTError(f"{what} says that it holds log1p expression (0 to 20), got {X.data[bad][0]:g}")
    if bad.any():
        raise CDTError(f"{what}: expected raw counts (integers from 0), got {X.data[bad][0]:g}; "
                       "pass the counts, they are brought to log1p here. Predicted cells that have no counts say so "
                       "in uns['cdt_lite'] = {'space': 'log1p', 'target_depth': depth}")
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
    said = dict(adata.uns.get("cdt_lite", {})) if not screen else {}
    log1p_depth = float(said.get("target_depth", 0)) if said.get("space") == "log1p" else None
    counts = _check_values(adata.X, what, log1p_depth is not None)[by_name][:, by_gene]
    return Cells(what, symbols[by_gene], cells[by_name], counts, batch[by_name], groups, np.flatnonzero(is_control),
                 log1p_depth)


def read_prediction(predicted: AnnData | pd.DataFrame | Changes, what: str, names: Names, real: Cells, depth: float
                    ) -> Predicted:
    """Checks one method's prediction at the door: cells, or a table of means or of changes, targets x genes.

    Raises:
        CDTError: If it is not about perturbations and genes of the real screen, or not in the expected space.
    """
    out: Predicted
    if isinstance(predicted, AnnData):
        out = read_cells(predicted, what, names, real.genes, screen=False)
        if out.log1p_depth is not None and not np.isclose(out.log1p_depth, depth, rtol=1e-3):
            raise CDTError(f"{what} holds log1p expression scaled to {out.log1p_depth:g} counts per cell, but the real "
                           f"cells are scaled to {depth:g}; bring it to that depth, or pass target_depth=")
    else:
        change = isinstance(predicted, Changes)
        out = Means(_read_means(predicted.table if isinstance(predicted, Changes) else predicted, what, real, change),
                    change)
    if not keys_of(out):
        raise CDTError(f"{what} has no perturbed cells: all are labelled {names.control!r}")
    for target, sign in keys_of(out):
        if (target, sign) not in real.groups:
            known = sorted({t for t, _ in real.groups})
            raise CDTError(f"{what}: the real screen has no cells of target {target!r} with sign {sign}"
                           f"{suggest(target, known)}; it has {known[:10]}")
    return out


def _read_means(table: pd.DataFrame, what: str, real: Cells, change: bool) -> dict[Key, np.ndarray]:
    _check_genes(table.columns, real.genes, what)
    values = table[real.genes].to_numpy(np.float64)
    if not (np.isfinite(values) & (change | (values >= 0))).all():
        raise CDTError(f"{what}: expected mean log1p expression, finite and from 0, got {values.min():g}; wrap a table "
                       "of changes from control in Changes(...)")
    signs = {target: [sign for t, sign in real.groups if t == target] for target, _ in real.groups}
    keys = [x if isinstance(x, tuple) else (x, sign) for x in table.index for sign in signs.get(x, [0])]
    if len(set(keys)) != len(table):
        raise CDTError(f"{what}: expected one row per perturbation; index by (target, sign) where a gene has both")
    return dict(zip(keys, values, strict=True))
