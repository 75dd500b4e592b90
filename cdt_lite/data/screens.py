"""Screens in one layout: a public one by name, the simulated one, or any .h5ad file.

`load_screen` returns raw counts (X: CSR float32, cells x genes) with obs "target_gene", "batch", "sign" (-1 knockout or
knockdown, +1 activation, 0 exactly for controls), "magnitude" (log2 fold change of the target's own mRNA, NaN where not
measured: an outcome, unknown for a perturbation not made yet) and "n_umi"; `uns["screen"]`: origin, unmeasured targets.
Environment: CDT_LITE_DATA (cache folder), CDT_LITE_MIRROR (folder read instead of the network), CDT_LITE_OFFLINE=1.
"""

import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from cdt_lite.data.layout import CONTROL, check_screen, in_layout
from cdt_lite.data.public import PUBLIC, Unreachable, _load_public
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError, suggest


def load_screen(  # noqa: D417 (arguments that belong together are described together)
    name_or_path: str | Path, *, target_key: str = "target_gene", control: str = CONTROL, layer: str | None = None,
    batch_key: str | None = "batch", sign_key: str | None = None, magnitude_key: str | None = None,
    default_sign: int = -1, n_top_genes: int = 2000, train_mask: np.ndarray | None = None, n_genes: int | None = None,
    n_targets: int | None = None, n_cells: int | None = None, seed: int | None = None, world: str | None = None,
) -> ad.AnnData:
    """Loads the cells of a perturbation screen, in the one layout that everything here reads.

    Args:
        name_or_path: "papalexi2021" (real, 1.4 MB once), "simulated", or the path of an .h5ad file.
        target_key, control: Of a file, like all keys: obs column with the perturbed gene; its label of control cells.
        batch_key: obs column with the replicate; None: all cells are one replicate.
        sign_key: obs column with -1, 0 or +1; None: every perturbed cell has `default_sign`.
        default_sign: -1 (knockout or knockdown, as in the Virtual Cell Challenge) or +1 (activation).
        magnitude_key: obs column with the log2 fold change of the target's own mRNA; None: unknown.
        layer: Layer with the raw counts; None: X.
        n_top_genes: Size of the panel if there are more genes: all perturbed genes, then highly variable ones.
        train_mask: Cells (bool) on which the panel is chosen; None: the training side of `named_split`.
        n_genes, n_targets, n_cells, seed, world: Of the simulated screen only, see `simulate_screen`.

    Raises:
        CDTError: Unknown name, missing column or control, counts that are not counts, a file that was refused.
    """
    options = {"n_genes": n_genes, "n_targets": n_targets, "n_cells": n_cells, "seed": seed, "world": world}
    simulation: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if (name := str(name_or_path)) == "simulated":
        return simulate_screen(**simulation)
    if simulation:
        raise CDTError(f"{', '.join(simulation)}: for the simulated screen only, without effect on {name}")
    keys = {"target_key": target_key, "batch_key": batch_key, "sign_key": sign_key, "magnitude_key": magnitude_key}
    adata = _load_public(name) if name in PUBLIC else _load_file(Path(name), layer, default_sign, control, keys)
    return _choose_panel(adata, n_top_genes, train_mask)


def resolve_screen(name: str = "papalexi2021") -> tuple[ad.AnnData, str]:
    """Loads a screen, or the simulated one where the network is blocked; the second value says which, in one line.

    A screen in the cache or a mirror needs no network, else it is probed for `PROBE_SECONDS` at most. A file that fails
    its hash is an error, never a reason to fall back. CDT_SCREEN in the environment overrides `name`.
    """
    name, reason = os.environ.get("CDT_SCREEN") or name, ""
    try:
        adata = load_screen(name)
    except Unreachable as error:
        adata, reason = simulate_screen(), f" ({name} is not on this machine and {error})"
    kind, n_targets = "simulated" if "truth" in adata.uns else "real", adata.obs["target_gene"].nunique() - 1
    return adata, (f"{adata.uns['screen']['name']}{reason}: {adata.n_obs:,} {kind} cells x {adata.n_vars:,} genes, "
                   f"{n_targets} targets, {adata.obs['batch'].nunique()} replicates")


def _load_file(path: Path, layer: str | None, default_sign: int, control: str, keys: dict[str, Any]) -> ad.AnnData:
    """Reads an .h5ad file, checks it, and puts it into the layout."""
    if not path.is_file():
        known = ["simulated", *PUBLIC, *map(str, path.parent.glob("*.h5ad"))]
        raise CDTError(f"no screen or file is called {str(path)!r}; screens: {known[:2]}{suggest(str(path), known)}")
    try:
        adata = ad.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds
        raise CDTError(f"{path.name} is not an .h5ad file that can be read, or it is cut short: {error}") from error
    if layer is not None and layer not in adata.layers:
        raise CDTError(f"no layer {layer!r}; the file has {list(adata.layers)}{suggest(layer, adata.layers)}")
    if default_sign not in (-1, 1):
        raise CDTError(f"default_sign must be -1 (knockdown) or +1 (activation), not {default_sign}")
    adata.X = adata.X if layer is None else adata.layers[layer]
    check_screen(adata, control=control, **keys)
    batch, sign, magnitude = (adata.obs[key] if key else None for key in list(keys.values())[1:])
    is_control = ((target := adata.obs[keys["target_key"]].astype(str)) == control).to_numpy()
    obs = adata.obs.assign(
        target_gene=np.where(is_control, CONTROL, target), batch="batch_1" if batch is None else batch,
        sign=np.where(is_control, 0, default_sign) if sign is None else pd.to_numeric(sign.astype(str)),
        magnitude=np.where(is_control, 0.0, np.nan if magnitude is None else magnitude))
    return in_layout(adata.X, obs, adata.var_names, {
        "name": path.stem, "version": "", "source": path.name, "licence": "", "attribution": ""})


def _choose_panel(adata: ad.AnnData, n_top_genes: int, train_mask: np.ndarray | None) -> ad.AnnData:
    """Keeps the perturbed genes and, up to `n_top_genes`, the most variable others of the training cells."""
    mask = named_split(adata) == "train" if train_mask is None else np.asarray(train_mask)
    if mask.dtype != bool or mask.shape != (adata.n_obs,) or not mask.any():
        raise CDTError(f"train_mask must be {adata.n_obs} booleans, some true, not {mask.dtype} of shape {mask.shape}")
    if adata.n_vars <= n_top_genes:
        return adata
    import scanpy as sc
    panel = adata.var_names.isin(adata.obs["target_gene"].cat.categories)
    if (n_free := n_top_genes - panel.sum()) < 0:
        raise CDTError(f"n_top_genes must be at least {panel.sum()}, the measured targets, not {n_top_genes}")
    train = ad.AnnData(adata.X[mask].copy(), var=pd.DataFrame(index=adata.var_names))
    try:
        sc.pp.highly_variable_genes(train, n_top_genes=n_top_genes, flavor="seurat_v3")  # the flavour for raw counts
    except ValueError as error:
        raise CDTError(f"too few cells or counts to pick {n_top_genes} of {adata.n_vars} genes ({error}): keep all or "
                       "remove rare genes first with scanpy.pp.filter_genes(min_cells=10)") from error
    variability = np.where(panel, -np.inf, train.var["variances_norm"].fillna(-np.inf))
    panel[np.argsort(-variability, kind="stable")[:n_free]] = True
    check_screen(chosen := in_layout(adata.X[:, panel], adata.obs, adata.var_names[panel], adata.uns["screen"]))
    return chosen
