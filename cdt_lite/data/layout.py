"""What a screen looks like, and the checks at the door."""

import hashlib
from collections.abc import Iterable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.errors import CDTError, suggest

CONTROL = "non-targeting"  # the label of cells that were not perturbed


def screen_hash(adata: AnnData) -> str:
    """SHA-256 of a screen's counts, gene names and labels: the same before and after it is saved."""
    counts = sp.csr_matrix(adata.X, copy=True)
    counts.sum_duplicates()  # which sorts, too
    counts.eliminate_zeros()
    digest = hashlib.sha256(np.int64(counts.shape).tobytes())
    for values, kind in ((counts.indptr, "<i8"), (counts.indices, "<i4"), (counts.data, "<f4")):
        digest.update(np.ascontiguousarray(values, dtype=kind).data)
    for names in (adata.var_names, *(adata.obs[key] for key in ("target_gene", "batch", "sign", "magnitude"))):
        digest.update("\n".join(map(str, names)).encode())
    return digest.hexdigest()


def in_layout(counts: Any, obs: pd.DataFrame, genes: Iterable[str], facts: dict[str, Any]) -> AnnData:
    """Puts counts (cells x genes) and their labels into the layout of every screen; `facts` go to uns["screen"]."""
    counts = sp.csr_matrix(counts, dtype=np.float32)
    obs = obs.assign(
        target_gene=pd.Categorical(obs["target_gene"].astype(str)), batch=pd.Categorical(obs["batch"].astype(str)),
        sign=obs["sign"].astype(np.int8), magnitude=obs["magnitude"].astype(np.float32),
        n_umi=np.asarray(counts.sum(1), np.float32).ravel())
    adata = AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index(genes).astype(str)))
    unmeasured = set(obs["target_gene"].cat.categories) - {CONTROL} - set(adata.var_names)
    adata.uns["screen"] = {**facts, "control": CONTROL, "unmeasured_targets": np.array(sorted(unmeasured), object),
                           "sha256": screen_hash(adata)}
    return adata


def check_screen(
    adata: ad.AnnData, *, target_key: str = "target_gene", control: str = CONTROL, batch_key: str | None = "batch",
    sign_key: str | None = None, magnitude_key: str | None = None,
) -> None:
    """Refuses what is not a screen of raw counts; the message says what was expected, what came and what to do.

    Raises:
        CDTError: Nothing left, genes named twice, a missing column or value, no controls, a bad sign, no counts.
    """
    obs = adata.obs
    if 0 in adata.shape:
        raise CDTError(f"the screen is empty: {adata.n_obs} cells x {adata.n_vars} genes; check the selection")
    if twice := adata.var_names[adata.var_names.duplicated()].unique().tolist():
        raise CDTError(f"gene names stand more than once: {twice[:5]}; call adata.var_names_make_unique() or sum them")
    keys = {"target_key": target_key, "batch_key": batch_key, "sign_key": sign_key, "magnitude_key": magnitude_key}
    for argument, key in ((argument, key) for argument, key in keys.items() if key is not None):
        if key not in obs:
            raise CDTError(f"obs has no {key!r}, only {list(obs)}{suggest(key, obs)} Name it with {argument}=")
        if argument != "magnitude_key" and (n := obs[key].isna().sum()):
            raise CDTError(f"{n} cells have no value in obs[{key!r}]: label them, or remove them first")
    target = obs[target_key].astype(str)
    if not (is_control := (target == control).to_numpy()).any():
        raise CDTError(f"no control cells: none has {control!r} in obs[{target_key!r}]{suggest(control, set(target))} "
                       "Name the label of unperturbed cells with control=")
    if sign_key is not None:
        sign = pd.to_numeric(obs[sign_key].astype(str), errors="coerce").to_numpy()
        if not np.isin(sign, (-1, 0, 1)).all() or ((sign == 0) != is_control).any():
            raise CDTError(f"obs[{sign_key!r}] must be -1 or +1 for perturbed cells and 0 for controls only; "
                           f"it holds {sorted(obs[sign_key].astype(str).unique())[:8]}")
    if magnitude_key is not None and obs[magnitude_key].dtype.kind not in "iuf":
        raise CDTError(f"obs[{magnitude_key!r}] must be log2 fold changes, not {obs[magnitude_key].dtype}")
    if problem := _why_not_counts(adata.X):
        places = [f"layer {k!r}: pass layer={k!r}" for k, values in adata.layers.items() if not _why_not_counts(values)]
        if adata.raw is not None and not _why_not_counts(adata.raw.X):
            places.append("adata.raw: save adata.raw.to_adata() and load that")
        raise CDTError(f"X must hold raw counts, but it holds {problem}" + "; counts are in ".join(["", *places[:1]]))
    if n := int((np.asarray(adata.X.sum(1)).ravel() == 0).sum()):
        raise CDTError(f"{n} cells have no count in these {adata.n_vars} genes: scanpy.pp.filter_cells(min_counts=1)")


def _why_not_counts(values: Any) -> str:
    """What keeps a matrix from being raw counts, or ""."""
    data = values.data if sp.issparse(values) else np.asarray(np.nan if values is None else values)
    if not np.isfinite(data).all():
        return "nothing" if values is None else "NaN or infinite values"
    wrong = data[(data < 0) | (data % 1 != 0)]
    return f"{wrong[0]:.3g}, {'a negative number' if wrong[0] < 0 else 'not a whole number'}" if wrong.size else ""
