"""A screen of one's own: what X holds, what a panel keeps, power over cells, and hits of a reverse search."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdt_lite.figures import plots
from cdt_lite.figures.cells import REPLICATES

SMALLEST, WIDTH = 10.0, 0.25  # values up to here show what they are; a bar's width, with a whole number at a middle


def values_of_x(files: Mapping[str, AnnData]) -> Figure:
    """Draws the values above 0 that each file's X holds, up to 10: counts stand on whole numbers."""
    figure, axes = plots.grid(1, len(files), (10, 2.8))
    for ax, (name, cells) in zip(axes, files.items(), strict=True):
        values = sp.csr_matrix(cells.X).data
        bins = np.arange(WIDTH / 2, SMALLEST + WIDTH, WIDTH)
        ax.hist(values[values <= SMALLEST], bins=bins, color=plots.KINDS["real"], edgecolor="none")
        ax.set(title=name, xlabel="value in X, up to 10", yscale="log", ylim=(0.7, None), xticks=range(0, 11, 2))
        ax.yaxis.set_major_formatter("{x:,.0f}")
    axes[0].set_ylabel("entries above 0")
    return figure


def what_a_panel_keeps(kept: pd.DataFrame) -> Figure:
    """Draws shares that a panel keeps over its size: chosen genes, and random ones, their mean and range.

    Args:
        kept: A row a size; columns "chosen", "random", "least" and "most".
    """
    figure, ax = plots.grid(1, 1, (5.6, 3.4))
    random = "range of random draws"
    ax.fill_between(kept.index, kept["least"], kept["most"], color=REPLICATES[2], alpha=0.2, lw=0, label=random)
    for name, color in zip(("chosen", "random"), (REPLICATES[0], REPLICATES[2]), strict=True):
        ax.plot(kept.index, kept[name], marker="o", color=color, label=f"{name} genes")
    ax.set(xlabel="genes in the panel", ylabel="share of squared change", ylim=(0, 1.05))
    ax.legend(loc="lower right")
    return figure


def power_over_cells(curves: Mapping[str, pd.DataFrame], wanted: float) -> Figure:
    """Draws power over the number of cells: lines are the closed form, rings are drawn cells.

    Args:
        curves: From `power_curve`, by what they are of.
        wanted: The power that is asked for, a dashed line.
    """
    figure, ax = plots.grid(1, 1, (7.6, 3.8))
    for (name, curve), color in zip(curves.items(), REPLICATES, strict=False):
        ax.plot(curve.index, curve["closed form"], color=color, label=name)
        ax.plot(curve.index, curve["drawn"], "o", color=color, mfc="none", mew=1.5)
        sizes = curve.index
    ax.axhline(wanted, color=plots.PALETTE["other"], ls="--", lw=1)
    ax.plot([], [], color="black", label="line: formula")
    ax.plot([], [], "o", color="black", mfc="none", mew=1.5, label="ring: drawn cells")
    ax.set(xlabel="perturbed cells", ylabel="power", ylim=(0, 1.03))
    _doubling(ax, sizes)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def hits_over_cells(rates: pd.DataFrame, chance: float) -> Figure:
    """Draws how often the right target comes first over the number of cells that are searched with.

    Args:
        rates: A row a number of cells; the first column is the model's, the second its rival's.
        chance: The share by luck, a dashed line.
    """
    figure, ax = plots.grid(1, 1, (7.6, 3.4))
    for name, kind in zip(rates, ("generated", "baseline"), strict=True):
        ax.plot(rates.index, rates[name], marker="o", color=plots.KINDS[kind], label=name)
    ax.axhline(chance, color=plots.PALETTE["other"], ls="--", lw=1, label="chance")
    ax.set(xlabel="cells that are searched with", ylabel="right target first", ylim=(0, 1.03))
    _doubling(ax, rates.index)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _doubling(ax: Axes, sizes: pd.Index) -> None:
    """Makes an axis of numbers of cells logarithmic, with plain numbers at its ticks."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
