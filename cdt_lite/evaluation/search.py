"""Reverse search: whose predicted change is most like a change that was seen?"""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from cdt_lite.data.expression import Matrix, gene_means
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.cells import Key


def similarity(queries: pd.DataFrame, table: pd.DataFrame, without: Collection[str] = ()) -> pd.DataFrame:
    """Returns Pearson's r of every query with every candidate, queries x candidates; 0 where one does not vary.

    Args:
        queries: Mean changes that were seen, log1p units, x genes.
        table: Mean changes of candidates, the same genes.
        without: Genes to leave out, such as the targets themselves.

    Raises:
        CDTError: Other genes, or fewer than two that are left.
    """
    if list(queries.columns) != list(table.columns):
        raise CDTError("queries and candidates must have the same genes in the same order")
    kept = ~table.columns.isin(list(without))
    if kept.sum() < 2:
        raise CDTError(f"a correlation needs two genes; {kept.sum()} are left")
    unit = []
    for changes in (queries, table):
        values = changes.to_numpy(np.float64)[:, kept]
        values = values - values.mean(1, keepdims=True)
        size = np.linalg.norm(values, axis=1, keepdims=True)
        unit.append(np.divide(values, size, out=np.zeros_like(values), where=size > 1e-12))
    return pd.DataFrame(unit[0] @ unit[1].T, queries.index, table.index)


def places(likeness: pd.DataFrame) -> pd.Series:
    """Returns the place of the right candidate of every query, 1 the first; ties share their mean place.

    Args:
        likeness: Queries x candidates, by the same names; NaN is the place of one that is no candidate.
    """
    ranks = stats.rankdata(-likeness.to_numpy(), axis=1)
    column = likeness.columns.get_indexer(likeness.index)
    found = np.where(column < 0, np.nan, ranks[np.arange(len(ranks)), column])
    return pd.Series(found, likeness.index, name="place")


def search(queries: pd.DataFrame, candidates: Mapping[str, pd.DataFrame], without: Collection[str] = (), *,
           without_own: bool = False) -> pd.DataFrame:
    """Returns the place of every query's right candidate in several tables, queries x tables.

    Args:
        queries: Mean changes that were seen, named by the right answer.
        candidates: Mean changes of all candidates, by the name of the table.
        without: Genes to leave out.
        without_own: Leave out of every query the gene of its own target, too, and of no other.
    """
    found, targets = {}, queries.index.get_level_values(0)
    for name, table in candidates.items():
        likeness = similarity(queries, table, without)
        for target in targets.unique() if without_own else ():
            own = np.flatnonzero(targets == target)
            likeness.iloc[own] = similarity(queries.iloc[own], table, [*without, target]).to_numpy()
        found[name] = places(likeness)
    return pd.DataFrame(found)


def hit_rate(found: pd.DataFrame, first: int = 1) -> pd.Series:
    """Returns the share of queries, by table, whose right candidate is among the first; no candidate is a miss."""
    return (found <= first).mean()


def drawn_changes(cells: Mapping[Key, Matrix], plain: pd.Series, n_cells: int, seed: int = 0) -> pd.DataFrame:
    """Returns the mean change of a few cells of each perturbation, as a small experiment would see it.

    Args:
        cells: log1p expression of the cells of every perturbation, cells x genes.
        plain: Mean log1p expression of control cells, by gene.
        n_cells: How many to draw, without replacement; of fewer, all.
        seed: Of the draw.
    """
    rng, rows = np.random.default_rng(seed), []
    for values in cells.values():
        n = values.shape[0]
        drawn = rng.choice(n, min(n_cells, n), replace=False)
        rows.append(gene_means(values[drawn]) - plain.to_numpy())
    return pd.DataFrame(rows, pd.MultiIndex.from_tuples(list(cells)), plain.index)


def mean_effects(log1p: Matrix, obs: pd.DataFrame, genes: pd.Index) -> pd.DataFrame:
    """Returns the mean change of every perturbation against control cells of its own replicates: a table to search.

    Args:
        log1p: Expression, cells x genes.
        obs: target_gene, sign (0 for controls) and batch of each cell.
        genes: Their names.
    """
    batch, sign = obs["batch"].astype(str).to_numpy(), obs["sign"].to_numpy()
    plain = {}
    for name in np.unique(batch[sign == 0]):
        plain[name] = gene_means(log1p[(batch == name) & (sign == 0)])
    rows: dict[Key, Float[np.ndarray, " G"]] = {}
    perturbed = obs.assign(row=np.arange(len(obs)))[(sign != 0) & np.isin(batch, list(plain))]
    for (target, way), group in perturbed.groupby(["target_gene", "sign"], observed=True):
        n = group["batch"].astype(str).value_counts(normalize=True)
        base = sum(share * plain[name] for name, share in n.items())
        rows[str(target), int(way)] = gene_means(log1p[group["row"].to_numpy()]) - base
    index = pd.MultiIndex.from_tuples(list(rows), names=["target", "sign"])
    return pd.DataFrame(list(rows.values()), index, genes)
