"""Cells and predictions at the door: labels, genes and the space of values are checked before anything is scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cdt_lite.data.counts import check_counts, check_structure
from cdt_lite.data.layout import (
    Columns,
    Labels,
    check_genes,
    read_labels,
    require_controls,
)
from cdt_lite.errors import CDTError, require_whole, suggest
from cdt_lite.files import readable

Key = tuple[str, int]  # a perturbation: its target gene and sign
Split = tuple[np.ndarray, np.ndarray]  # rows of control cells: for the truth, and for predictions


@dataclass(frozen=True)
class Cells:
    """Checked cells, in an order of genes and cells that does not depend on how they were written."""

    what: str  # what to call them in a message
    genes: np.ndarray  # sorted
    names: np.ndarray  # sorted
    counts: sparse.csr_matrix  # cells x genes; log1p expression where `is_log1p`
    batch: np.ndarray  # of every cell
    groups: dict[Key, np.ndarray]  # rows of every perturbation, sorted by target and sign
    control: np.ndarray  # rows of control cells
    is_log1p: bool = False  # whether a method made log1p expression in place of counts

    def split_controls(self, seed: int) -> Split:
        """Splits the control rows in two at random, within every batch."""
        require_whole("seed", seed)
        first, second = [], []
        batch = self.batch[self.control]
        for i, label in enumerate(np.unique(batch)):
            rows = self.control[batch == label]
            rows = np.random.default_rng([seed, i]).permutation(rows)
            first.append(rows[: len(rows) // 2])
            second.append(rows[len(rows) // 2 :])
        return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))

    def control_depth(self) -> float:
        """The median of the control cells' total counts."""
        return float(np.median(np.asarray(self.counts[self.control].sum(axis=1))))


@dataclass(frozen=True)
class Changes:
    """A prediction of mean changes from control, log1p units, targets x genes: put on top of the real control means."""

    table: pd.DataFrame


Given: TypeAlias = AnnData | Changes | pd.DataFrame  # what a method may hand in
Predicted: TypeAlias = Cells | Changes | pd.DataFrame  # the same, checked; tables are indexed by target and sign


def keys_of(predicted: Predicted) -> list[Key]:
    """Returns the perturbations that a method predicts."""
    if isinstance(predicted, Cells):
        return list(predicted.groups)
    table = predicted.table if isinstance(predicted, Changes) else predicted
    return table.index.to_list()


def read_screen(adata: AnnData, what: str, columns: Columns, genes: list[str] | None = None) -> Cells:
    """Checks real cells, raw counts of these genes (in any order); `what` names them in a message.

    Raises:
        CDTError: If a column, a label, a gene or a count is not as expected.
    """
    adata = _in_memory(adata, what)
    check_genes(adata.var_names, what, genes)
    labels = read_labels(adata, columns, what=what)
    require_controls(labels, columns, what, least=4)  # they are split in halves
    if labels.is_control.all():
        raise CDTError(f"{what}: expected perturbed cells, got control cells only; check the selection")
    if not adata.obs_names.is_unique:
        raise CDTError(f"{what}: cell names repeat, which would hide cells that training and test "
                       "share; call obs_names_make_unique()")
    check_counts(adata, what)
    return _in_order(adata, what, labels)


def _in_memory(adata: AnnData, what: str) -> AnnData:
    if not adata.isbacked:
        return adata
    with readable(what):
        return adata.to_memory()


def _in_order(adata: AnnData, what: str, labels: Labels, is_log1p: bool = False) -> Cells:
    genes = adata.var_names.to_numpy(str)
    names = adata.obs_names.to_numpy(str)
    by_gene = np.argsort(genes)
    by_name = np.argsort(names, kind="stable")
    values = sparse.csr_matrix(adata.X, dtype=np.float32)[by_name][:, by_gene]
    table = pd.DataFrame({"target": labels.target[by_name], "sign": labels.sign[by_name]})
    groups = {}
    for (target, sign), rows in table[table["sign"] != 0].groupby(["target", "sign"]):
        groups[str(target), int(sign)] = rows.index.to_numpy()
    control = np.flatnonzero(labels.is_control[by_name])
    batch = labels.batch[by_name]
    return Cells(what, genes[by_gene], names[by_name], values, batch, groups, control, is_log1p)


def read_predictions(predicted: AnnData | Mapping[str, Given] | None, columns: Columns, real: Cells,
                     depth: float) -> dict[str, Predicted]:
    """Checks every method's prediction: cells, or a table of means or of changes, targets x genes.

    Raises:
        CDTError: If it is not about perturbations and genes of the real screen, or not in the expected space.
    """
    if isinstance(predicted, AnnData):
        predicted = {"prediction": predicted}
    methods = {}
    for name, prediction in (predicted or {}).items():
        methods[name] = _read_prediction(prediction, f"prediction {name!r}", columns, real, depth)
    return methods


def _read_prediction(predicted: Given, what: str, columns: Columns, real: Cells, depth: float) -> Predicted:
    out: Predicted
    if isinstance(predicted, AnnData):
        out = _read_cells(predicted, what, columns, real, depth)
    elif isinstance(predicted, Changes):
        out = Changes(_read_table(predicted.table, what, real, lowest=-np.inf))
    else:
        out = _read_table(predicted, what, real, lowest=0.0)
    if not keys_of(out):
        raise CDTError(f"{what} has no perturbed cells: all are labelled {columns.control!r}")
    known = sorted({target for target, _ in real.groups})
    for target, sign in keys_of(out):
        if (target, sign) not in real.groups:
            raise CDTError(f"{what}: the real screen has no cells of target {target!r} with sign "
                           f"{sign}{suggest(target, known)}; it has {known[:10]}")
    return out


def _read_cells(adata: AnnData, what: str, columns: Columns, real: Cells, depth: float) -> Cells:
    adata = _in_memory(adata, what)
    check_genes(adata.var_names, what, real.genes.tolist())
    labels = read_labels(adata, columns, what=what)
    space = dict(adata.uns.get("cdt_lite", {}))
    if space.get("space") == "log1p":
        _check_log1p(adata, what, float(space.get("target_depth", 0)), depth)
        return _in_order(adata, what, labels, is_log1p=True)
    try:
        check_counts(adata, what)
    except CDTError as error:
        hint = "uns['cdt_lite'] = {'space': 'log1p', 'target_depth': depth}"
        raise CDTError(f"{error}. Predicted cells that have no counts say so in {hint}") from None
    return _in_order(adata, what, labels)


def _check_log1p(adata: AnnData, what: str, depth: float, expected: float) -> None:
    check_structure(adata.X, what)
    values = sparse.csr_matrix(adata.X).data
    bad = ~np.isfinite(values) | (values < 0) | (values > 20)
    if bad.any():
        raise CDTError(f"{what} says that it holds log1p expression (0 to 20), got {values[bad][0]:g}")
    if not np.isclose(depth, expected, rtol=1e-3):
        raise CDTError(f"{what} holds log1p expression scaled to {depth:g} counts per cell, but the real "
                       f"cells are scaled to {expected:g}; bring it to that depth, or pass target_depth=")


def _read_table(table: pd.DataFrame, what: str, real: Cells, lowest: float) -> pd.DataFrame:
    check_genes(table.columns, what, real.genes.tolist())
    values = table[real.genes].to_numpy(np.float64)
    if not (np.isfinite(values) & (values >= lowest)).all():
        raise CDTError(f"{what}: expected mean log1p expression, finite and from 0, got "
                       f"{values.min():g}; wrap a table of changes from control in Changes(...)")
    keys: list[Key] = []
    for label in table.index:
        if isinstance(label, tuple):
            keys.append((str(label[0]), int(label[1])))
        else:
            signs = [sign for target, sign in real.groups if target == label]
            keys += [(str(label), sign) for sign in signs or [0]]
    if len(set(keys)) != len(table):
        raise CDTError(f"{what}: expected one row per perturbation; index by (target, sign) where a gene has both")
    return pd.DataFrame(values, pd.MultiIndex.from_tuples(keys, names=["target", "sign"]), real.genes)
