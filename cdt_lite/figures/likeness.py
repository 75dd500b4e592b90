"""Generated cells beside real ones: clouds, correlations of genes, answers and escapees, and how far they have come."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cdt_lite.figures import plots


def clouds(points: pd.DataFrame, panels: Mapping[str, Sequence[str]], axes_names: tuple[str, str]) -> Figure:
    """Draws cells on the same two axes, some kinds a panel.

    Args:
        points: Columns x, y and kind, a row a cell.
        panels: Title -> kinds to draw there.
        axes_names: What x and y are.
    """
    figure, axes = plots.grid(1, len(panels), (10, 4), sharex=True, sharey=True)
    for ax, (title, kinds) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        shown = points[points["kind"].isin(kinds)].sample(frac=1, random_state=0)  # no kind hides behind another
        colors = {kind: _color(kind) for kind in kinds}
        sns.scatterplot(shown, x="x", y="y", hue="kind", hue_order=kinds, palette=colors, s=10, linewidth=0, ax=ax)
        ax.set(title=title, xlabel=axes_names[0], ylabel=axes_names[1])
        ax.margins(y=0.18)  # room for the legend above all cells
        ax.legend(title=None, markerscale=2, ncols=2, loc="upper left")
    plots.as_written(figure)
    return figure


def quality(cells: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws curves of quantities of cells, by kind: the share of cells at or below.

    Args:
        cells: Kind -> a row a cell, a column a quantity, named with its unit.
    """
    columns = next(iter(cells.values())).columns
    figure, axes = plots.grid(1, len(columns), (10, 3.6), sharey=True)
    for ax, column in zip(axes, columns, strict=True):
        for kind, table in cells.items():
            style = "--" if kind == "generated" else "-"
            sns.ecdfplot(x=table[column], color=_color(kind), ls=style, lw=2, label=kind, ax=ax)
        ax.set(xlabel=column, ylabel="share of cells at or below")
    axes[0].legend(frameon=False, loc="lower right")
    return figure


def correlations(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws gene-gene correlations of some sets of cells on one scale, the diagonal left blank.

    Args:
        tables: Title -> correlations, genes x genes, the same genes in all.
    """
    off = [table.where(~np.eye(len(table), dtype=bool)) for table in tables.values()]
    scale = max(float(table.abs().max().max()) for table in off)
    with mpl.rc_context({"text.parse_math": False}):  # seaborn asks texts for their size; names are as they are written
        figure, axes = plots.grid(1, len(tables), (11, 4.2), sharey=True)
        for ax, title, table in zip(axes, tables, off, strict=True):
            sns.heatmap(table, cmap="RdBu_r", vmin=-scale, vmax=scale, cbar=False, square=True, linewidths=0.5,
                        xticklabels=True, yticklabels=True, ax=ax)
            ax.set_title(title)
            ax.tick_params(labelsize=8)
    figure.colorbar(axes[0].collections[0], ax=axes, label="correlation", shrink=0.7)
    plots.as_written(figure)
    return figure


def escapees(scores: Mapping[str, np.ndarray], shares: pd.DataFrame) -> Figure:
    """Draws how far cells answer, by kind, and the share of escapees with its interval.

    Args:
        scores: Kind -> from `teaching.answers`.
        shares: Rows named as they shall be: kinds, or guides of real cells; columns share, low, high.
    """
    figure, (left, right) = plots.grid(1, 2, (11, 4))
    for kind, values in scores.items():
        style = "--" if kind == "generated" else "-"
        sns.kdeplot(x=values, color=_color(kind), ls=style, lw=2, label=kind, ax=left)
    left.set(xlabel="answer: 0 as controls, 1 as the mean training cell", ylabel="density of cells")
    left.legend(frameon=False)
    colors = [_color(name if name in scores else "real") for name in shares.index]
    right.hlines(range(len(shares)), 100 * shares["low"], 100 * shares["high"], colors=colors, lw=2)
    right.scatter(100 * shares["share"], range(len(shares)), color=colors, zorder=3)
    right.set(xlabel="escapees, % of cells, 95 % interval", yticks=range(len(shares)), ylim=(len(shares) - 0.5, -0.5))
    right.set_yticklabels(shares.index)
    right.set_xlim(left=0)
    plots.as_written(figure)
    return figure


def priced(table: pd.DataFrame) -> Figure:
    """Draws what a hidden gene costs two states and some networks, the more genes are visible.

    Args:
        table: From `teaching.two_states`, or a part of it; a panel for every target and gene. The first network is
            the capsule.
    """
    told = table.index.droplevel("visible").unique()
    n_rows = -(-len(told) // 3)
    figure, axes = plots.grid(n_rows, 3, (10, 2.6 * n_rows), sharex=True, sharey=True)
    for ax, (target, gene) in zip(axes.flat, told, strict=False):
        one = table.loc[(target, gene)]
        for name, prices in one.items():
            kind = "baseline" if name == "two states" else "generated"
            style = "o-" if name in ("two states", "network 0") else ".--"
            ax.plot(range(len(one)), prices, style, color=plots.KINDS[kind])
        ax.set(title=f"{gene} in {target} cells", xticks=range(len(one)), xticklabels=one.index)
    figure.supxlabel("visible genes", fontsize="medium")
    figure.supylabel("cost of the gene, nats", fontsize="medium")
    axes.flat[0].legend(axes.flat[0].lines[:3], ["two states", "capsule", "other seeds"], frameon=False)
    plots.as_written(figure)
    return figure


def come_so_far(ways: pd.DataFrame) -> Figure:
    """Draws how far generated cells have come from cells made gene by gene to real ones, a row a measure.

    Args:
        ways: Columns mean, low, high; 0 is gene by gene, 1 real. A row of NaN is a measure that has no say.
    """
    figure, ax = plots.grid(1, 1, (8, 0.6 * len(ways) + 1.2))
    place = range(len(ways))
    ax.hlines(place, 100 * ways["low"], 100 * ways["high"], color=plots.KINDS["generated"], lw=2)
    ax.scatter(100 * ways["mean"], place, color=plots.KINDS["generated"], zorder=3)
    for at, kind in ((0, "baseline"), (100, "real")):
        ax.axvline(at, color=plots.KINDS[kind], lw=2, zorder=0)
    for row in np.flatnonzero(ways["mean"].isna()):
        ax.text(50, row, "no say: does not tell 0 from 100 here", ha="center", va="center", color=plots.SOFT)
    ax.set(xlabel="way from cells made gene by gene (0) to real ones (100), %", yticks=place,
           ylim=(len(ways) - 0.5, -0.5))
    ax.set_yticklabels(ways.index)
    plots.as_written(figure)
    return figure


def _color(kind: str) -> str:
    """The colour of a kind of cell, "real" as of "real STAT1"; of one that has none that of a baseline."""
    return plots.KINDS.get(kind.split()[0], plots.KINDS["baseline"])
