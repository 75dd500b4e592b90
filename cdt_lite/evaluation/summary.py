"""From scores of many perturbations to one line a method: means with paired bootstrap intervals."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from cdt_lite.errors import CDTError, require_whole, suggest

OWN = ["own_real", "own_predicted"]  # change of the perturbed gene itself, which no score counts
LABELS = ["method", "target", "sign", "n_real", "n_predicted", "n_changed", *OWN]  # columns that are not scores


def bootstrap_means(values: Float[np.ndarray, "perturbations seeds"], n_boot: int = 2000, seed: int = 0
                    ) -> Float[np.ndarray, " n_boot"]:
    """Redraws perturbations, and seeds within them, and returns the mean of each redrawn table.

    Args:
        values: NaN are left out. Equal shapes and seeds redraw the same rows: paired.
        n_boot: Number of redraws.
        seed: Same seed, same redraws.
    """
    require_whole("n_boot", n_boot, 1)
    rng, (n, s) = np.random.default_rng(seed), values.shape
    rows = rng.integers(n, size=(n_boot, n, 1))
    columns = rng.integers(s, size=(n_boot, 1, s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a redraw may hold nothing but NaN
        return np.nanmean(values[rows, columns], axis=(1, 2))


def summarise(table: pd.DataFrame, *, metrics: Sequence[str] | None = None, n_boot: int = 2000) -> pd.DataFrame:
    """Averages a table over perturbations, with 95 % bootstrap intervals.

    Args:
        table: From `evaluate`; tables of several training seeds may be put together with a column "seed", which is
            then redrawn too.
        metrics: Columns to summarise; all scores by default.
        n_boot: Number of bootstrap redraws.

    Returns:
        One row per method and metric: n (perturbations), mean, low, high.
    """
    if metrics is None:
        metrics = [column for column in table if column not in [*LABELS, "seed"]]
    rows = []
    for metric in metrics:
        wide = _wide(table, metric)
        for method in table["method"].unique():
            rows.append({"method": method, "metric": metric} | _interval(wide[method], "mean", n_boot))
    return pd.DataFrame(rows)


def compare(table: pd.DataFrame, method: str, others: Sequence[str], metrics: Sequence[str], *,
            n_boot: int = 2000) -> pd.DataFrame:
    """Returns one method minus each of the others, on the perturbations that both answer, with paired intervals.

    Args:
        table: As for `summarise`.
        method: The method that is compared.
        others: Methods that it is compared with.
        metrics: Columns to compare by.
        n_boot: Number of bootstrap redraws.

    Returns:
        One row per other method and metric: n (perturbations), difference, low, high.
    """
    known = table["method"].unique()
    for name in (method, *others):
        if name not in known:
            raise CDTError(f"no method {name!r} in the table{suggest(name, known)}; it has {list(known)}")
    rows = []
    for metric in metrics:
        wide = _wide(table, metric)
        for other in others:
            difference = (wide[method] - wide[other]).dropna(how="all")
            rows.append({"method": other, "metric": metric} | _interval(difference, "difference", n_boot))
    return pd.DataFrame(rows)


def _wide(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Perturbations x (method, seed)."""
    if metric not in table:
        raise CDTError(f"no column {metric!r} in the table{suggest(metric, table.columns)}")
    if "seed" not in table:
        table = table.assign(seed=0)
    labels = ["target", "sign", "method", "seed"]
    return table.groupby(labels, observed=True)[metric].mean().unstack(["method", "seed"])


def _interval(values: pd.DataFrame, name: str, n_boot: int) -> dict[str, int | float]:
    n = int(values.notna().any(axis=1).sum())
    if n == 0:
        return {"n": 0, name: np.nan, "low": np.nan, "high": np.nan}
    means = bootstrap_means(values.to_numpy(np.float64), n_boot)
    low, high = np.nanquantile(means, [0.025, 0.975])
    return {"n": n, name: float(np.nanmean(values)), "low": float(low), "high": float(high)}
