"""What is measured of generated cells between two ends: real cells against real ones, and cells made gene by gene."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.report.densities import NegativeBinomial, prepared
from cdt_lite.training.checkpoint import Checkpoint

HALF, RIVAL = "half against half", "gene by gene"
LIKE = 1.1  # depths that differ by less than this factor are alike
NEIGHBOURS = 15
ROOT = Path(__file__).parents[2]

Statistic = Callable[[np.ndarray, np.ndarray], float]


def components(kinds: Mapping[str, AnnData], depth: float) -> pd.DataFrame:
    """Places cells on two principal components of all but the generated ones: columns x, y and kind, a row a cell.

    Args:
        kinds: Cells, by what to call them.
        depth: Counts that each cell is scaled to.
    """
    log1p = {kind: dense(log1p_counts(cells.X, depth)) for kind, cells in kinds.items()}
    model = PCA(2, random_state=0).fit(np.vstack([x for kind, x in log1p.items() if kind != "generated"]))
    placed = [pd.DataFrame(model.transform(x), columns=["x", "y"]).assign(kind=kind) for kind, x in log1p.items()]
    return pd.concat(placed, ignore_index=True)


def same_depth(real: AnnData, made: AnnData) -> tuple[AnnData, AnnData]:
    """Pairs real with generated cells whose depths differ by a tenth at most; returns both, in the order of pairs."""
    first, second = (np.ravel(cells.X.sum(1)) for cells in (real, made))
    ours, theirs = np.argsort(first, kind="stable"), np.argsort(second, kind="stable")
    pairs, i, j = [], 0, 0
    while i < len(ours) and j < len(theirs):
        a, b = first[ours[i]], second[theirs[j]]
        if max(a, b) <= LIKE * min(a, b):
            pairs.append((ours[i], theirs[j]))
            i, j = i + 1, j + 1
        elif a < b:
            i += 1
        else:
            j += 1
    rows = np.array(pairs).reshape(-1, 2).T
    return real[rows[0]], made[rows[1]]


def gene_by_gene(capsule: Checkpoint, train: AnnData, cells: AnnData, seed: int = 0) -> AnnData:
    """Makes the rival of these cells: negative binomials that know target and depth, and no gene of another.

    Args:
        capsule: Whose bins are used.
        train: Training cells, which the rates and dispersions are fitted on.
        cells: Those whose labels and depths it is told.
        seed: Of the draws.
    """
    like = prepared(cells, capsule.tokenizer)
    law = NegativeBinomial(prepared(train, capsule.tokenizer), "condition")
    return AnnData(law.draw(like, np.random.default_rng(seed)), like.obs, cells.var[[]])


def against_half(statistic: Statistic, real: Float[np.ndarray, "cells G"],
                 others: Mapping[str, Float[np.ndarray, "_ G"]], n_splits: int = 20) -> pd.DataFrame:
    """Compares half of the real cells with the other half, and with as many other cells in its place.

    Args:
        statistic: Of two sets of cells, as log1p expression.
        real: Real cells.
        others: Sets of cells by name.
        n_splits: Random halves, over which the statistic is averaged.

    Returns:
        Rows `HALF` and the others; columns mean, and low and high, between which 95 % of the splits are.
    """
    rng, rows = np.random.default_rng(0), []
    n = min(len(real) // 2, *map(len, others.values()))
    for _ in range(n_splits):
        mixed = real[rng.permutation(len(real))]
        found = {HALF: statistic(mixed[:n], mixed[n : 2 * n])}
        for name, cells in others.items():
            found[name] = statistic(mixed[:n], cells[rng.permutation(len(cells))[:n]])
        rows.append(found)
    table = pd.DataFrame(rows)
    return pd.DataFrame({"mean": table.mean(), "low": table.quantile(0.025), "high": table.quantile(0.975)})


def strength(x: Float[np.ndarray, "cells G"], y: Float[np.ndarray, "others G"]) -> float:
    """How strong gene-gene correlations are in the second set, along those of the first: slope of a line through 0."""
    pairs = np.triu_indices(x.shape[1], 1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant gene correlates with none
        r, s = (np.nan_to_num(np.corrcoef(cells, rowvar=False))[pairs] for cells in (x, y))
    return float(r @ s / (r @ r))


def normalised(table: pd.DataFrame, name: str = "generated") -> pd.Series:
    """How far cells have come from those made gene by gene (0) to real ones (1): mean, low and high.

    Args:
        table: From `against_half`.
        name: Of these cells.
    """
    start, end = table["mean"][RIVAL], table["mean"][HALF]
    return pd.Series(np.sort((table.loc[name] - start) / (end - start))[[1, 0, 2]], ["mean", "low", "high"])


def has_say(table: pd.DataFrame) -> bool:
    """Whether a measure tells its two ends apart: cells made gene by gene lie outside what halves of real ones give."""
    return not table["low"][HALF] <= table["mean"][RIVAL] <= table["high"][HALF]


def auc_in_classes(score: Float[np.ndarray, " cells"], is_made: Bool[np.ndarray, " cells"],
                   depth_class: Int[np.ndarray, " cells"]) -> float:
    """How well a score tells generated from real cells of like depth: AUC over pairs of one class, 0.5 if it cannot."""
    table = pd.DataFrame({"score": score, "made": is_made, "depth": depth_class})
    areas, weights = [], []
    for _, own in table.groupby("depth"):
        if own["made"].nunique() == 2:
            areas.append(roc_auc_score(own["made"], own["score"]))
            weights.append(own["made"].sum() * (~own["made"]).sum())
    return float(np.average(areas, weights=weights))


def mixing(real: Float[np.ndarray, "cells D"], others: Float[np.ndarray, "others D"]) -> float:
    """How well cells mix with real ones: share of real ones among their neighbours, over what chance gives; 1 is well.

    Args:
        real: Coordinates of real cells, such as principal components.
        others: Of the cells that are asked about; as many of each are used.
    """
    n = min(len(real), len(others))
    both = np.vstack([real[:n], others[:n]])
    k = min(NEIGHBOURS, n - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(both).kneighbors(both[n:], return_distance=False)[:, 1:]
    return float((near < n).mean() * (2 * n - 1) / n)


def densities(screen: AnnData) -> pd.DataFrame:
    """Returns what a held-out cell costs the model and its rivals, as recorded for this screen; no row if it is not.

    Columns: bits per gene; the model's less these, and its 95 % interval over perturbations.
    """
    columns, rows = ["bits per gene", "model minus it", "low", "high"], {}
    own = ROOT / "benchmarks" / "densities.json"
    report = ROOT / "figures" / "results.json"
    name = screen.uns["screen"]["name"]
    if name == "papalexi2021" and own.is_file():
        for row in json.loads(own.read_text(encoding="utf-8"))["table"]:
            name = row.pop("density")
            rows[name] = [nats / np.log(2) for nats in row.values()]
    elif "truth" in screen.uns and report.is_file():
        entries = json.loads(report.read_text(encoding="utf-8"))
        rows = entries["simulated regulatory 30 targets"]["quality"]["bits"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
