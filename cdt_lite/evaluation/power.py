"""How many cells show a change: a closed form, and the same question put to cells that are drawn again and again."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from cdt_lite.errors import CDTError, require_between, require_whole

Number = int | float


def detection_power(change: float, sd: float, n_cells: int, sd_control: float, n_controls: Number, alpha: float = 0.05
                    ) -> float:
    """Returns the chance that a two-sided test of means calls a change, 0 to 1.

    `z = |change| / sqrt(sd^2 / n_cells + sd_control^2 / n_controls)`, and the chance is
    `Phi(z - z_a) + Phi(-z - z_a)` with z_a the 1 - alpha / 2 quantile of the normal law.

    Args:
        change: Of the gene's mean, log1p units.
        sd: Standard deviation of the gene over perturbed cells.
        n_cells: Number of these.
        sd_control: Standard deviation over control cells.
        n_controls: Number of these; infinite where their mean is known.
        alpha: How often an unchanged gene is called changed.

    Raises:
        CDTError: A number that is out of range.

    Source: the two-sample z test; Cohen, Statistical Power Analysis, 1988, chapter 2.
    """
    for name, value in {"sd": sd, "sd_control": sd_control}.items():
        require_between(name, value, 1e-12)
    for name, value in {"n_cells": n_cells, "n_controls": n_controls}.items():
        require_between(name, value, 1)
    require_between("alpha", alpha, 1e-12, 1)
    z = abs(change) / np.sqrt(sd**2 / n_cells + sd_control**2 / n_controls)
    bar = stats.norm.isf(alpha / 2)
    return float(stats.norm.sf(bar - z) + stats.norm.sf(bar + z))


def cells_needed(change: float, sd: float, n_controls: Number, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """Returns the least number of perturbed cells that show a change with the wanted power.

    n >= 1 / ((change / sd)^2 / (z_a + z_b)^2 - 1 / n_controls), z_b the quantile of the wanted power; infinite where
    the controls alone are too few. (A rejection on the wrong side is left out: above a power of a half it is nothing.)

    Args:
        change: Of the gene's mean, log1p units.
        sd: Standard deviation of the gene over cells, of either kind.
        n_controls: Number of control cells; may be infinite.
        wanted: Power, from .5 to below 1.
        alpha: How often an unchanged gene is called changed.

    Raises:
        CDTError: A number that is out of range.
    """
    require_between("sd", sd, 1e-12)
    require_between("n_controls", n_controls, 1)
    require_between("wanted", wanted, 0.5, 1 - 1e-12)
    require_between("alpha", alpha, 1e-12, 0.5)
    bar = stats.norm.isf(alpha / 2) + stats.norm.ppf(wanted)
    share = (change / sd / bar) ** 2 - 1 / n_controls
    return float(np.ceil(1 / share - 1e-9)) if share > 0 else np.inf


def smallest_change(n_cells: int, sd: float, n_controls: Number, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """Returns the smallest change, log1p units, that so many cells show with the wanted power; as `cells_needed`."""
    bar = stats.norm.isf(alpha / 2) + stats.norm.ppf(wanted)
    return float(bar * sd * np.sqrt(1 / n_cells + 1 / n_controls))


def power_curve(cells: Float[np.ndarray, " N"], controls: Float[np.ndarray, " M"], sizes: list[int], n_controls: int,
                *, alpha: float = 0.05, draws: int = 400, seed: int = 0) -> pd.DataFrame:
    """Counts how often Welch's t test calls a gene changed in cells drawn from two pools, beside the closed form.

    Drawing is with replacement: the pools are the populations, whose means and deviations are known.

    Args:
        cells: log1p expression of one gene in perturbed cells.
        controls: The same in control cells.
        sizes: Numbers of perturbed cells to draw.
        n_controls: Number of control cells to draw.
        alpha: Level of the test.
        draws: How often.
        seed: Of the draws.

    Returns:
        A row a size: drawn, and closed form; the index is the number of cells.
    """
    if min(sizes) < 2 or n_controls < 2:
        raise CDTError("a variance needs two cells: sizes and n_controls must be at least 2")
    require_whole("draws", draws, 1)
    rng, rows = np.random.default_rng(seed), {}
    change = cells.mean() - controls.mean()
    for n in sizes:
        own, other = rng.choice(cells, (draws, n)), rng.choice(controls, (draws, n_controls))
        with np.errstate(invalid="ignore"):  # no cell of a draw may have a count
            p = stats.ttest_ind(own, other, axis=1, equal_var=False).pvalue
        expected = detection_power(change, cells.std(), n, controls.std(), n_controls, alpha)
        rows[n] = {"drawn": float((p < alpha).mean()), "closed form": expected}
    return pd.DataFrame(rows).T.rename_axis("cells")
