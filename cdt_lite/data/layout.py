"""The one door for cells: what a screen looks like, and every check of labels and genes, with one wording each.

The layout: X holds raw counts (cells x genes); obs holds "target_gene", "batch", "sign" (-1 knockout or knockdown, +1
activation, 0 exactly for controls) and "magnitude" (log2 fold change of the target's own mRNA, NaN where unknown: an
outcome of the experiment, so nobody knows it for a perturbation that has not been made).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Bool, Float, Int, Shaped

from cdt_lite.data.blocks import block_depths, in_memory, part_of
from cdt_lite.data.counts import check_counts, check_depths, check_structure, tidied
from cdt_lite.data.expression import depths
from cdt_lite.data.labels import NO_GENE, check_targets, tidy_targets
from cdt_lite.errors import CDTError, suggest
from cdt_lite.files import readable

CONTROL = "non-targeting"  # the label of cells that were not perturbed


@dataclass(frozen=True)
class Columns:
    """Where an AnnData keeps its labels: columns of obs.

    A column with its default name may be missing (but not that of targets): then all cells are one replicate, every
    perturbed cell is a knockdown, magnitudes are unknown. A column that you name must be there.
    """

    target: str = "target_gene"  # perturbed gene
    batch: str | None = "batch"  # replicate; None, as below: do not look for one
    control: str = CONTROL  # label of unperturbed cells in the target column
    sign: str | None = "sign"  # -1, 0 or +1
    magnitude: str | None = "magnitude"  # log2 fold change of the target's own mRNA


@dataclass(frozen=True)
class Labels:
    """The checked labels of N cells."""

    target: Shaped[np.ndarray, " N"]  # perturbed gene, CONTROL for controls
    is_control: Bool[np.ndarray, " N"]
    batch: Shaped[np.ndarray, " N"]  # replicate
    batch_number: Int[np.ndarray, " N"]  # the same as numbers from 0, in the order of the column's categories
    sign: Int[np.ndarray, " N"]  # -1, 0 (controls) or +1
    magnitude: Float[np.ndarray, " N"]  # log2 fold change, NaN where unknown, 0 for controls


def read_labels(adata: AnnData, columns: Columns = Columns(), *, default_sign: int = -1, unlabelled: bool = False,
                what: str = "the screen") -> Labels:
    """Reads and checks the labels of cells.

    Args:
        adata: Cells.
        columns: Where their labels are.
        default_sign: Of perturbed cells, where no column says it: -1 (knockdown) or +1 (activation).
        unlabelled: Take cells without a column of targets, too: all are controls then.
        what: What to call these cells in a message.

    Raises:
        CDTError: A missing column or value, a sign that is none, a magnitude that is no number.
    """
    if default_sign not in (-1, 1):
        raise CDTError(f"default_sign must be -1 (knockdown) or +1 (activation), not {default_sign}")
    target = _column(adata, "target", columns, what, needed=not unlabelled)
    batch = _column(adata, "batch", columns, what)
    if target is None:
        target = pd.Series(columns.control, adata.obs_names)
    if batch is None:
        batch = pd.Series("all", adata.obs_names)
    written = target.astype(str).to_numpy(str)
    names = tidy_targets(written, columns.control, adata.var_names, what)
    is_control = names == columns.control
    sign = _column(adata, "sign", columns, what)
    magnitude = _column(adata, "magnitude", columns, what)
    labels = Labels(
        target=np.where(is_control, CONTROL, names),
        is_control=is_control,
        batch=batch.astype(str).to_numpy(str),
        batch_number=batch.astype("category").cat.codes.to_numpy(np.int64),
        sign=_signs(sign, is_control, default_sign, what),
        magnitude=_magnitudes(magnitude, is_control, what),
    )
    if (labels.sign == 0).any():  # so there are controls: are they called so?
        require_controls(labels, columns, what)
    if ((labels.sign == 0) != is_control).any():
        raise CDTError(f"{what}: obs[{columns.sign!r}] must be 0 exactly for control cells, those that are "
                       f"{columns.control!r} in obs[{columns.target!r}]. Name another with Columns(sign=...)")
    return labels


def _column(adata: AnnData, role: str, columns: Columns, what: str, needed: bool = False) -> pd.Series | None:
    """One column of labels; None where it may be missing and is."""
    key = getattr(columns, role)
    if key in adata.obs:
        column = adata.obs[key]
        n = int(column.isna().sum())
        if n and role != "magnitude":
            raise CDTError(f"{what}: {n} cells have no value in obs[{key!r}]; label or remove them first")
        return column
    if key is None or (not needed and key == getattr(Columns(), role)):
        return None
    raise CDTError(f"{what} has no column {key!r} in obs, only {list(adata.obs)}: "
                   f"name yours with Columns({role}=...){suggest(key, adata.obs)}")


def _signs(column: pd.Series | None, is_control: np.ndarray, default_sign: int, what: str) -> np.ndarray:
    if column is None:
        return np.where(is_control, 0, default_sign)
    text = column.astype(str)
    sign = pd.to_numeric(text, errors="coerce").to_numpy()
    if not np.isin(sign, (-1, 0, 1)).all():
        raise CDTError(f"{what}: obs[{column.name!r}] must be -1 or +1 for perturbed cells and 0 for controls; "
                       f"it holds {sorted(set(text))[:8]}. Name another with Columns(sign=...)")
    return sign.astype(np.int64)


def _magnitudes(column: pd.Series | None, is_control: np.ndarray, what: str) -> np.ndarray:
    if column is None:
        return np.where(is_control, 0.0, np.nan)
    if column.dtype.kind not in "iuf":
        raise CDTError(f"{what}: obs[{column.name!r}] must be log2 fold changes, not {column.dtype}; "
                       "name another column with Columns(magnitude=...)")
    return np.where(is_control, 0.0, column.to_numpy(np.float64))


def require_controls(labels: Labels, columns: Columns = Columns(), what: str = "the screen", least: int = 1) -> None:
    """Raises CDTError where fewer than `least` control cells are there."""
    if (n := int(labels.is_control.sum())) >= least:
        return
    known = pd.Series(labels.target).value_counts().index.tolist()  # controls are many: the label is among the first
    several = sorted(filter(NO_GENE.fullmatch, known))  # one of them named, the others would pass for targets
    close = f"; give controls one label first: {several}" if several[1:] else suggest(columns.control, known)
    raise CDTError(f"{what} has {n or 'no'} control cells: in obs[{columns.target!r}] at least {least} must be "
                   f"{columns.control!r}, but the labels there are {known[:8]}{' and more' if len(known) > 8 else ''}. "
                   f"Name yours with Columns(control=...){close}")


def check_cells(adata: AnnData, what: str = "the screen") -> None:
    """Raises CDTError where no cells or genes are left, or a gene is named twice."""
    if 0 in adata.shape:
        raise CDTError(f"{what} is empty: {adata.n_obs} cells x {adata.n_vars} genes")
    check_genes(adata.var_names, what)


def check_screen(adata: AnnData, columns: Columns = Columns(), *, default_sign: int = -1,
                 what: str = "the screen") -> tuple[Labels, Float[np.ndarray, " N"]]:
    """Refuses what is not a screen of raw counts; returns its labels and the depth of every cell.

    Raises:
        CDTError: Nothing left, genes named twice, labels that are none, no controls, no counts; the message says what
            was expected, what came and what to do.
    """
    check_cells(adata, what)
    labels = read_labels(adata, columns, default_sign=default_sign, what=what)
    require_controls(labels, columns, what)
    if adata.isbacked:
        depth = block_depths(adata, what)
    else:
        check_counts(adata, what)
        depth = depths(adata.X)
    check_depths(adata, what, depth)
    check_targets(labels.target[~labels.is_control].tolist(), adata, columns.target, what)
    return labels, depth


def read_controls(adata: AnnData, columns: Columns = Columns(), what: str = "the screen"
                  ) -> tuple[AnnData, Shaped[np.ndarray, " controls"]]:
    """Returns the control cells of a screen, raw counts, and the replicate of each.

    Raises:
        CDTError: No cells, genes named twice, labels that are none, no controls, no counts.
    """
    check_cells(adata, what)
    labels = read_labels(adata, columns, what=what)
    require_controls(labels, columns, what)
    if adata.isbacked:
        return in_memory(part_of(adata, labels.is_control), what), labels.batch[labels.is_control]
    genes = np.arange(adata.n_vars)  # by number: scipy takes no rows from columns that a view has reversed
    with readable(what):
        check_structure(adata.X, what)  # before rows are taken: entries out of bounds would end the process
        controls = adata[labels.is_control, genes if adata.is_view else slice(None)]
        check_counts(adata, what, controls.X)
    return controls, labels.batch[labels.is_control]


def check_genes(genes: pd.Index, what: str, expected: Iterable[str] | None = None) -> None:
    """Raises CDTError for a gene named twice, or for other genes than those expected (in any order)."""
    if genes.has_duplicates:
        twice = genes[genes.duplicated()].unique().tolist()
        raise CDTError(f"{what} names genes more than once: {twice[:5]}; var_names_make_unique() or sum them")
    if expected is None:
        return
    missing = sorted(set(expected) - set(genes))
    extra = sorted(set(genes) - set(expected))
    if missing or extra:
        close = suggest(extra[0], missing) if extra else ""
        raise CDTError(f"{what} does not measure the genes of the real screen: {len(missing)} missing "
                       f"{missing[:3]}, {len(extra)} more {extra[:3]}{close}; keep the common ones in both")


def in_layout(counts: Any, obs: pd.DataFrame, genes: Iterable[str], facts: dict[str, Any]) -> AnnData:
    """Puts counts (cells x genes) and their labels into the layout of every screen; `facts` go to uns["screen"]."""
    counts = tidied(counts)
    obs = obs.assign(n_umi=depths(counts).astype(np.float32))
    adata = labelled(AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(genes).astype(str))), obs, facts)
    adata.uns["screen"]["sha256"] = screen_hash(adata)
    return adata


def labelled(adata: AnnData, obs: pd.DataFrame, facts: dict[str, Any]) -> AnnData:
    """Gives cells, whose counts may lie on the disk, the labels and facts of the layout."""
    adata.obs = obs.assign(
        target_gene=pd.Categorical(obs["target_gene"].astype(str)),
        batch=pd.Categorical(obs["batch"].astype(str)),
        sign=obs["sign"].astype(np.int8),
        magnitude=obs["magnitude"].astype(np.float32),
    )
    unmeasured = set(adata.obs["target_gene"].cat.categories) - {CONTROL} - set(adata.var_names)
    targets = np.array(sorted(unmeasured), object)
    adata.uns = {"screen": {**facts, "control": CONTROL, "unmeasured_targets": targets, "sha256": ""}}
    return adata


def screen_hash(adata: AnnData) -> str:
    """SHA-256 of a screen's counts, gene names and labels: the same before and after it is saved."""
    counts = sp.csr_matrix(adata.X, copy=True)
    counts.sum_duplicates()  # which sorts, too
    counts.eliminate_zeros()
    digest = hashlib.sha256(np.int64(counts.shape).tobytes())
    for values, kind in ((counts.indptr, "<i8"), (counts.indices, "<i4"), (counts.data, "<f4")):
        digest.update(np.ascontiguousarray(values, dtype=kind).data)
    columns = [adata.obs[key] for key in ("target_gene", "batch", "sign", "magnitude")]
    for names in (adata.var_names, *columns):
        digest.update("\n".join(map(str, names)).encode())
    return digest.hexdigest()


def neighbours(screen: AnnData, targets: Iterable[str]) -> dict[str, list[str]]:
    """Returns, by target, other targets of its pathway: what a person knows who knows the biology of a screen.

    They are what uns["neighbours"] says; else, of a simulated screen, those that drive the same program the same way,
    of a public one what its entry in the manifest names (papalexi2021: the receptor of interferon-gamma, for every
    target); of any other nothing.
    """
    if "neighbours" in screen.uns:
        named = screen.uns["neighbours"]
        if not isinstance(named, Mapping) or any(isinstance(others, str) for others in named.values()):
            raise CDTError('uns["neighbours"]: expected lists of targets by target, such as {"JAK2": ["IFNGR1"]}, '
                           f"found {named!r:.60}")
        return {str(target): list(map(str, others)) for target, others in named.items()}
    if "truth" not in screen.uns:
        about = screen.uns.get("screen")
        pathway = [str(target) for target in about.get("pathway", [])] if isinstance(about, Mapping) else []
        return {target: [other for other in pathway if other != target] for target in targets if pathway}
    table = screen.uns["truth"]["perturbations"]
    groups = table[table["gain"] != 0].groupby(["program", table["gain"] > 0], observed=True)["target_gene"]
    found: dict[str, list[str]] = {}
    for _, members in groups:
        names = sorted(set(members.astype(str)))
        found |= {name: [other for other in names if other != name] for name in names}
    return found
