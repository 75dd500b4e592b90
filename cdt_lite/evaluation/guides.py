"""Guides of one target: which of them do what the others do, and which are duds."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cdt_lite.data.expression import gene_means, log1p_counts
from cdt_lite.data.layout import Columns
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.cells import Cells, read_screen
from cdt_lite.evaluation.comparison import Controls

LEAST_CELLS = 10  # of a guide, and of its siblings: fewer say nothing
COLUMNS = ["target", "sign", "guide", "cells", "strength", "low", "high", "told"]
SURE = 4.0  # standard errors from nothing
DUD = 0.5  # a guide whose cells do surely less than this share of what its siblings' do

Projection = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows to learn from, rows to score: a number a cell


def guide_effects(screen: AnnData, *, guide: str = "guide", columns: Columns = Columns(), seed: int = 0
                  ) -> pd.DataFrame:
    """Measures how much of its siblings' effect every guide has: 1 as much, 0 none.

    Each cell's change is projected on the mean change of the cells of the target's other guides, own gene left out. The
    two changes are measured against different halves of the control cells, whose noise they do not share.

    Args:
        screen: Raw counts, in the layout of `load_screen`.
        guide: Column of `obs` that names each cell's guide.
        columns: Where the other labels are.
        seed: Of the halves.

    Returns:
        A row a target, sign and guide: cells, strength with its 95 % interval (low, high), `told` (whether the
        siblings' effect is beyond chance, so that there is something to have a share of), and `dud`: told, and the
        whole interval below a half.

    Raises:
        CDTError: There is no such column.
    """
    if guide not in screen.obs:
        raise CDTError(f"no column {guide!r} in obs that names the guide of a cell: there is {list(screen.obs)}")
    cells = read_screen(screen, "the screen", columns)
    named = screen.obs[guide].astype(str).reindex(cells.names).to_numpy()
    on = _projection(cells, seed)
    rows = []
    for (target, sign), members in cells.groups.items():
        for name in sorted(set(named[members])):
            own, others = members[named[members] == name], members[named[members] != name]
            found = {"target": target, "sign": sign, "guide": name, "cells": len(own)}
            if min(len(own), len(others)) >= LEAST_CELLS:
                found |= _strength(on(target), own, others)
            rows.append(found)
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["dud"] = table["told"].eq(True) & (table["high"] < DUD)
    return table


def _strength(project: Projection, own: np.ndarray, others: np.ndarray) -> dict[str, float | bool]:
    """What a guide's cells do of what the others do, and whether the others do anything."""
    scores = project(others, own)
    spread = _error(scores)
    again = project(others[::2], others[1::2])
    return {
        "strength": scores.mean(),
        "low": scores.mean() - 1.96 * spread,
        "high": scores.mean() + 1.96 * spread,
        "told": bool(again.mean() > SURE * _error(again)),
    }


def _error(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1) / np.sqrt(len(scores)))


def _projection(cells: Cells, seed: int) -> Callable[[str], Projection]:
    """Returns, for a target, what projects changes of some cells on the mean change of others, own gene left out."""
    log1p = sparse.csr_matrix(log1p_counts(cells.counts, cells.control_depth()))
    first, second = (Controls(cells, log1p, half) for half in cells.split_controls(seed))

    def of_target(target: str) -> Projection:
        kept = cells.genes != target

        def project(others: np.ndarray, own: np.ndarray) -> np.ndarray:
            mean = gene_means(log1p[others]) - first.mean_like(cells.batch[others])
            direction = mean * kept / max(float(mean[kept] @ mean[kept]), 1e-12)
            return log1p[own] @ direction - second.mean_like(cells.batch[own]) @ direction

        return project

    return of_target
