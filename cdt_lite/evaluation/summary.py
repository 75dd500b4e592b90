"""From scores of many perturbations to one line a method: means with paired bootstrap intervals."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cdt_lite.errors import CDTError, suggest

LABELS = ["method", "target", "sign", "n_real", "n_predicted", "n_changed"]  # columns that are not scores


def bootstrap_means(values: np.ndarray, n_boot: int = 2000, seed: int = 0) -> np.ndarray:
    """Redraws perturbations, and seeds within them, and returns the mean of each redrawn table, (n_boot,).

    Args:
        values: Perturbations x seeds; NaN are left out. Equal shapes and seeds redraw the same rows: paired.
        n_boot: Number of redraws.
        seed: Same seed, same redraws.
    """
    rng, (n, s) = np.random.default_rng(seed), values.shape
    rows, columns = rng.integers(n, size=(n_boot, n, 1)), rng.integers(s, size=(n_boot, 1, s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a redraw may hold nothing but NaN
        return np.nanmean(values[rows, columns], axis=(1, 2))


def summarise(
    table: pd.DataFrame, *, against: str | None = "perturbed mean", metrics: Sequence[str] | None = None,
    n_boot: int = 2000, level: float = 0.95, seed: int = 0,
) -> pd.DataFrame:
    """Averages a table over perturbations, with paired bootstrap intervals of means and of differences.

    Args:
        table: From `evaluate`; tables of several training seeds may be put together with a column "seed", which is
            then redrawn too.
        against: Method that every other is compared with on the perturbations that both answer; None: no difference.
        metrics: Columns to summarise; all scores by default.
        n_boot: Number of bootstrap redraws.
        level: Confidence level in (0, 1).
        seed: Same seed, same intervals.

    Returns:
        One row per method and metric: n (perturbations), mean, low, high, difference, difference_low, difference_high.
    """
    table = table if "seed" in table else table.assign(seed=0)
    if against is not None and against not in set(table["method"]):
        raise CDTError(f"no method {against!r} in the table{suggest(against, set(table['method']))}; pass against=None")
    columns = [c for c in table if c not in [*LABELS, "seed"]] if metrics is None else list(metrics)
    for metric in columns:
        if metric not in table:
            raise CDTError(f"no column {metric!r} in the table{suggest(metric, table.columns)}")
    rows = []
    for metric in columns:
        wide = _wide(table, metric)
        for method in table["method"].unique():
            values = wide[method]
            row = {"method": method, "metric": metric} | _interval(values, "mean", "", n_boot, level, seed)
            if against is not None:
                difference = values - wide[against] if method != against else values * np.nan
                row |= _interval(difference, "difference", "difference_", n_boot, level, seed)
            rows.append(row | {"n": int(values.notna().any(axis=1).sum())})
    return pd.DataFrame(rows)


def compare(table: pd.DataFrame, method: str, others: Sequence[str], metrics: Sequence[str], *, n_boot: int = 2000,
            level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Returns one method minus each of the others, on the perturbations that both answer, with paired intervals.

    Args:
        table: As for `summarise`.
        method: The method that is compared.
        others: Methods that it is compared with.
        metrics: Columns to compare by.
        n_boot: Number of bootstrap redraws.
        level: Confidence level in (0, 1).
        seed: Same seed, same intervals.
    """
    rows = []
    for metric in metrics:
        wide = _wide(table, metric)
        for other in others:
            difference = (wide[method] - wide[other]).dropna(how="all")
            rows.append({"method": other, "metric": metric, "n": len(difference)}
                        | _interval(difference, "difference", "", n_boot, level, seed))
    return pd.DataFrame(rows)


def _wide(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    wide = table.pivot_table(metric, ["target", "sign"], ["method", "seed"], sort=True, dropna=False)
    there = pd.MultiIndex.from_frame(table[["target", "sign"]].drop_duplicates())
    return wide[wide.index.isin(there)]  # a gene with one sign only has no row for the other


def _interval(values: pd.DataFrame, name: str, prefix: str, n_boot: int, level: float, seed: int) -> dict[str, float]:
    if not values.notna().any(axis=None):
        return {name: np.nan, f"{prefix}low": np.nan, f"{prefix}high": np.nan}
    means = bootstrap_means(values.to_numpy(np.float64), n_boot, seed)
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2])
    return {name: float(np.nanmean(values)), f"{prefix}low": float(low), f"{prefix}high": float(high)}
