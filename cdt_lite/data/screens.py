"""Screens in one layout (`data/layout.py`): a public one by name, the simulated one, or any .h5ad file."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from jaxtyping import Float

from cdt_lite.data.blocks import count_blocks
from cdt_lite.data.counts import check_counts, check_depths
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.data.labels import with_symbols
from cdt_lite.data.layout import CONTROL, Columns, Labels, check_cells, check_screen, in_layout, labelled
from cdt_lite.data.panel import choose_panel
from cdt_lite.data.public import SCREENS, Unreachable, load_public
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.errors import CDTError, CDTWarning, suggest
from cdt_lite.files import read_h5ad

FEWEST_TARGETS, MOST_OF = 4, 0.75  # measured ones, to judge the direction of a screen by; a share that is no chance


def load_screen(name_or_path: str | Path, columns: Columns = Columns(), *, layer: str | None = None,
                default_sign: int = -1, n_top_genes: int | None = 2000, backed: bool = False) -> AnnData:
    """Loads the cells of a perturbation screen, in the one layout that everything here reads.

    Args:
        name_or_path: "papalexi2021" (real, 1.4 MB once), "simulated", or the path of an .h5ad file.
        columns: Where a file keeps its labels.
        layer: Layer of a file with the raw counts, or "raw" for its `raw`; None: X.
        default_sign: Of a file without a column of signs: -1 (knockout or knockdown, as in the Virtual Cell
            Challenge) or +1 (activation).
        n_top_genes: Size of the panel if there are more genes: all perturbed genes, then those that vary most on the
            training side of `named_split`. None: all genes.
        backed: Leave the counts of a file on the disk, to be read block by block (X of the whole file is the file's,
            of a part of it `TokenStore.from_adata` and `start` know the way). A panel is then chosen on 20,000 training
            cells, and there is no hash.

    Returns:
        Raw counts (CSR float32, cells x genes); obs has target_gene, batch, sign, magnitude, n_umi and what else the
        file says of its cells; uns["screen"] has origin, licence, unmeasured targets and a hash (data/README.md).

    Raises:
        CDTError: Unknown name, missing column or control, counts that are not counts, a file that was refused.
    """
    name = str(name_or_path)
    if name == "simulated":
        return simulate_screen()
    if name in SCREENS:
        adata = load_public(name)
    else:
        adata = _load_file(Path(name), columns, layer, default_sign, backed)
    if n_top_genes is None:
        return adata
    return choose_panel(adata, n_top_genes)


def resolve_screen(name: str = "papalexi2021") -> tuple[AnnData, str]:
    """Loads a screen, or the simulated one where the network is blocked; the second value says which, in one line.

    A screen in the cache or a mirror needs no network, else it is probed for `PROBE_SECONDS` at most. A file that fails
    its hash is an error, never a reason to fall back. CDT_SCREEN in the environment overrides `name`.
    """
    name = os.environ.get("CDT_SCREEN") or name
    reason = ""
    try:
        adata = load_screen(name)
    except Unreachable as error:
        adata = simulate_screen()
        reason = f" ({name} is not on this machine and {error})"
    kind = "simulated" if "truth" in adata.uns else "real"
    n_targets = adata.obs["target_gene"].nunique() - 1
    n_batches = adata.obs["batch"].nunique()
    size = f"{adata.n_obs:,} {kind} cells x {adata.n_vars:,} genes, {n_targets} targets, {n_batches} replicates"
    return adata, f"{adata.uns['screen']['name']}{reason}: {size}"


def load_cells(path: str | Path, columns: Columns = Columns(), *, layer: str | None = None) -> AnnData:
    """Loads cells to pretrain on, whose targets are not read: all count as controls.

    Args:
        path: An .h5ad file.
        columns: Where it keeps its replicates, if it has any.
        layer: Layer with the raw counts; None: X.

    Returns:
        Cells in the layout of `load_screen`, with all genes of the file.

    Raises:
        CDTError: No such file, or counts that are not counts.
    """
    path = Path(path)
    adata = with_symbols(_read(path, layer), columns.target, path.name)
    check_cells(adata, path.name)
    check_counts(adata, path.name)
    check_depths(adata, path.name)
    batch = adata.obs.get(columns.batch, pd.Series("all", adata.obs_names))
    obs = adata.obs.assign(target_gene=CONTROL, batch=batch, sign=0, magnitude=0.0)
    return in_layout(adata.X, obs, adata.var_names, _facts(path))


def _load_file(path: Path, columns: Columns, layer: str | None, default_sign: int, backed: bool) -> AnnData:
    """Reads an .h5ad file, checks it, and puts it into the layout."""
    adata = with_symbols(_read(path, layer, backed), columns.target, "the screen")
    labels, depth = check_screen(adata, columns, default_sign=default_sign)
    if len(set(labels.batch)) == 1:
        warnings.warn("the screen has one replicate: how far its effects can be trusted is learned from random parts "
                      "of its cells, and no replicate can be held out. Name a column of replicates with "
                      "Columns(batch=...) if there is one", CDTWarning, stacklevel=3)
    if columns.sign not in adata.obs:
        _check_direction(adata, labels, depth, default_sign)
    obs = adata.obs.assign(target_gene=labels.target, batch=labels.batch)
    obs = obs.assign(sign=labels.sign, magnitude=labels.magnitude)
    if backed:
        return labelled(adata, obs.assign(n_umi=depth.astype(np.float32)), _facts(path))
    return in_layout(adata.X, obs, adata.var_names, _facts(path))


def _check_direction(adata: AnnData, labels: Labels, depth: Float[np.ndarray, " N"], sign: int) -> None:
    """Warns where no column gives signs and most measured targets move against the sign that is taken for all."""
    measured = sorted(set(labels.target[~labels.is_control]) & set(adata.var_names))
    gene = adata.var_names.get_indexer(pd.Index(measured))
    number = pd.Index(measured).get_indexer(pd.Index(labels.target))  # of each cell's target, or -1
    perturbed, controls = np.zeros(len(measured)), np.zeros(len(measured))
    for rows, block in count_blocks(adata):
        own = dense(log1p_counts(sp.csr_matrix(block), float(np.median(depth)))[:, gene])
        here = np.flatnonzero(number[rows] >= 0)
        np.add.at(perturbed, number[rows][here], own[here, number[rows][here]])
        controls += own[labels.is_control[rows]].sum(0)
    change = perturbed / np.bincount(number[number >= 0], minlength=len(measured)) - controls / labels.is_control.sum()
    against = int((change * sign < 0).sum())
    if len(measured) < FEWEST_TARGETS or against < MOST_OF * len(measured):
        return
    way = "rises" if sign < 0 else "falls"
    warnings.warn(f"no column of signs: every perturbation is taken for {sign:+d}, but the own mRNA of {against} of "
                  f"{len(measured)} measured targets {way}. Name a column with Columns(sign=...), or give all "
                  f"the other sign with default_sign={-sign}", CDTWarning, stacklevel=4)


def _read(path: Path, layer: str | None, backed: bool = False) -> AnnData:
    """Reads an .h5ad file, with the counts of a layer in X."""
    if not path.is_file():
        screens = ["simulated", *SCREENS]
        close = suggest(str(path), [*screens, *map(str, path.parent.glob("*.h5ad"))])
        raise CDTError(f"no screen or file is called {str(path)!r}; screens: {screens}{close}")
    if backed and layer is not None:
        raise CDTError(f"layer {layer!r}: of a file that stays on the disk X alone can be read; write the layer "
                       "to X of a file of its own, or load it into memory (backed=False)")
    adata = read_h5ad(path, backed)
    if layer == "raw" and adata.raw is not None and layer not in adata.layers:
        return adata.raw.to_adata()
    if layer is not None:
        if layer not in adata.layers:
            raise CDTError(f"no layer {layer!r}; the file has {list(adata.layers)}{suggest(layer, adata.layers)}")
        adata.X = adata.layers[layer]
    return adata


def _facts(path: Path) -> dict[str, str]:
    return {"name": path.stem, "version": "", "source": path.name, "licence": "", "attribution": ""}
