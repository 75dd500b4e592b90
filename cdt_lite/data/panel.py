"""The panel: which genes of a screen a model is made for."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.blocks import block_depths, in_memory, part_of
from cdt_lite.data.expression import depths
from cdt_lite.data.layout import in_layout
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError, CDTWarning

SPANS = (0.3, 0.6, 1.0)  # share of the genes that a local fit of scanpy's trend sees: its own, and wider ones
RARE = (0, 3, 10)  # cells: genes found in fewer are left out of the fit, and of the panel
MOST_CELLS = 20_000  # of a file on disk, that its panel is chosen on
FEWEST = 20  # genes that vary: on fewer the fit means nothing, and on none it ends the process


def choose_panel(screen: AnnData, n_top_genes: int, train_mask: np.ndarray | None = None,
                 targets: Iterable[str] = ()) -> AnnData:
    """Keeps the perturbed genes and, up to `n_top_genes`, the most variable others of the training cells.

    Args:
        screen: Cells in the layout of `load_screen`.
        n_top_genes: Size of the panel; a screen with no more genes keeps all.
        train_mask: Cells (bool) on which the panel is chosen; None: the training side of `named_split`. Of cells on
            disk, 20,000 of these, always the same.
        targets: Genes to keep besides: those perturbed in other files.

    Raises:
        CDTError: Fewer genes than measured targets are wanted, the mask is none, or no variability can be told.
    """
    mask = named_split(screen) == "train" if train_mask is None else np.asarray(train_mask)
    if mask.dtype != bool or mask.shape != (screen.n_obs,) or not mask.any():
        raise CDTError(f"train_mask must be {screen.n_obs} booleans, some true, not {mask.dtype} {mask.shape}")
    if screen.n_vars <= n_top_genes:
        return screen
    panel = screen.var_names.isin([*screen.obs["target_gene"].unique(), *targets])
    n_free = n_top_genes - panel.sum()
    if n_free < 0:
        raise CDTError(f"n_top_genes must be at least {panel.sum()}, the measured targets")
    variability = _variability(_some(screen, mask), n_top_genes)
    variability[panel] = -np.inf  # these are in already
    panel[np.argsort(-variability, kind="stable")[:n_free]] = True
    return _with_genes(screen, np.flatnonzero(panel), "; a larger one (n_top_genes=) keeps them")


def on_panel(screen: AnnData, genes: Sequence[str]) -> AnnData:
    """Keeps those of a model's genes that a screen has, in the model's order."""
    rows = screen.var_names.get_indexer(pd.Index(genes))
    rows = rows[rows >= 0]
    if not len(rows) or list(screen.var_names) == list(genes):
        return screen
    return _with_genes(screen, rows)


def _with_genes(screen: AnnData, genes: np.ndarray, remedy: str = "") -> AnnData:
    """Keeps some genes; cells that have no count in them are left out, which a warning says."""
    if screen.isbacked:
        kept = block_depths(part_of(screen, slice(None), genes)) > 0
    else:
        counts = screen.X[:, genes]
        kept = depths(counts) > 0
    if not kept.any():
        raise CDTError(f"no cell has a count in the {len(genes)} genes of the panel")
    if not kept.all():
        warnings.warn(f"{(~kept).sum()} of {len(kept)} cells have no count in the {len(genes)} genes of the panel and "
                      f"are left out{remedy}", CDTWarning, stacklevel=4)
    if screen.isbacked:
        return part_of(screen, kept, genes)
    return in_layout(counts[kept], screen.obs[kept], screen.var_names[genes], screen.uns["screen"])


def _some(screen: AnnData, mask: np.ndarray) -> AnnData:
    """The cells of a mask, in memory."""
    if not screen.isbacked:
        return screen[mask]
    cells = np.flatnonzero(mask)
    if len(cells) > MOST_CELLS:
        cells = np.sort(np.random.default_rng(0).choice(cells, MOST_CELLS, replace=False))
    return in_memory(part_of(screen, cells))


def _variability(cells: AnnData, n_top_genes: int) -> np.ndarray:
    """How much more each gene varies over cells than its mean lets expect; -inf for a gene too rare to tell."""
    n_cells = cells.X.getnnz(axis=0)
    varies = (cells.X.max(axis=0).toarray() > cells.X.min(axis=0).toarray()).ravel()
    problems: list[str] = []
    for least in RARE:
        kept = n_cells >= least
        for span in SPANS:
            if kept.sum() < n_top_genes or (kept & varies).sum() < FEWEST:
                break
            try:
                found = _above_trend(cells[:, kept], n_top_genes, span)
            except ValueError as error:  # many rare genes have the same few means: the fit is singular
                problems.append(str(error).strip("b'\""))
                continue
            if problems:
                dropped = f" and without {(~kept).sum():,} genes found in fewer than {least} cells" if least else ""
                warnings.warn(f"scanpy's trend of variance could not be fitted to these {cells.n_vars:,} genes "
                              f"({problems[0]}): it was with span={span}{dropped}", CDTWarning, stacklevel=4)
            variability = np.full(cells.n_vars, -np.inf)
            variability[kept] = found
            return variability
    why = problems[0] if problems else f"{varies.sum()} of them vary"
    raise CDTError(f"too few cells or counts to pick {n_top_genes} of {cells.n_vars} genes ({why}): keep all, or "
                   "remove rare ones: scanpy.pp.filter_genes(min_cells=10)")


def _above_trend(cells: AnnData, n_top_genes: int, span: float) -> np.ndarray:
    """Variance over what scanpy's trend expects of a gene with this mean."""
    import scanpy as sc

    train = AnnData(cells.X.copy(), var=pd.DataFrame(index=cells.var_names))
    # the flavour for raw counts
    sc.pp.highly_variable_genes(train, n_top_genes=n_top_genes, flavor="seurat_v3", span=span)
    return train.var["variances_norm"].fillna(-np.inf).to_numpy()
