"""What pretraining reads, and how its guesses fare beside histograms."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.figure import Figure

from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.figures import plots
from cdt_lite.figures.cells import REPLICATES

MODELS = [plots.PALETTE["condition"], plots.PALETTE["attention"]]  # no hue that means a kind of cell


def joined(files: Mapping[str, AnnData], vocabulary: Vocabulary) -> Figure:
    """Draws which file measures which gene of a vocabulary, and the depth of each file's cells.

    A gene's shade is the share of cells with a count; genes that the first file has, too, are marked in the others.
    """
    figure, (left, right) = plots.grid(1, 2, (10, 3.6))
    left.get_gridspec().set_width_ratios((2, 1))
    table, first = np.full((len(files), len(vocabulary)), np.nan), set(next(iter(files.values())).var_names)
    depth = []
    for row, (name, cells) in enumerate(files.items()):
        ids = vocabulary.ids(list(cells.var_names))
        table[row, ids] = np.ravel((cells.X > 0).mean(0))
        depth.append(pd.DataFrame({"file": name, "depth": np.ravel(cells.X.sum(1))}))
        shared = ids[[gene in first for gene in cells.var_names]] if row else ids[:0]
        left.vlines(shared, row - 0.5, row - 0.3, color=plots.PALETTE["condition"], lw=1.5)
    shown = left.imshow(table, aspect="auto", cmap=plots.EXPRESSION, interpolation="nearest", vmin=0)
    left.set_yticks(range(len(files)), list(files))
    left.set(xlabel="gene id")
    figure.colorbar(shown, ax=left, location="top", shrink=0.5, label="share of cells with a count")
    palette = REPLICATES[: len(files)]
    every = pd.concat(depth, ignore_index=True)
    sns.ecdfplot(every, x="depth", hue="file", palette=palette, log_scale=True, ax=right)
    right.set(xlabel="depth, counts", ylabel="share of cells at or below")
    right.xaxis.set_major_formatter("{x:g}")
    sns.move_legend(right, "upper left", title=None)
    return plots.as_written(figure)


def losses(curves: Mapping[str, tuple[np.ndarray, Sequence[float]]], levels: Mapping[str, float]) -> Figure:
    """Draws what hidden genes cost in training, nats, over the cells read (logarithmic where runs alone are drawn).

    Args:
        curves: By run: cells, nats.
        levels: What histograms cost, by name.
    """
    figure, ax = plots.grid(1, 1, (7, 3.2))
    for (name, (cells, nats)), color in zip(curves.items(), MODELS, strict=False):
        ax.plot(cells, nats, ".-", color=color, lw=1.4, label=name)
    for (name, level), dashes in zip(levels.items(), ("--", ":"), strict=False):
        ax.axhline(level, color=plots.KINDS["baseline"], ls=dashes, label=name)
    ax.set(xlabel="cells read", ylabel="nats per hidden gene", xscale="linear" if levels else "log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def beside_histograms(bits: pd.DataFrame, saved: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws what a hidden gene costs over the share hidden, and what models save against histograms given depth.

    Args:
        bits: Shares x models and histograms.
        saved: By model: mean, low and high at each share.
    """
    figure, axes = plots.grid(1, 2, (10, 3.6))
    dashes, colors, color = iter(["--", ":"]), iter(MODELS), {}
    for name in bits:
        if "histograms" in name:
            axes[0].plot(bits.index, bits[name], next(dashes), color=plots.KINDS["baseline"], label=name)
        else:
            color[name] = next(colors)
            axes[0].plot(bits.index, bits[name], "o-", ms=4, color=color[name], label=name)
    for name, table in saved.items():
        axes[1].plot(table.index, table["mean"], "o-", ms=4, color=color[name])
        axes[1].fill_between(table.index, table["low"], table["high"], color=color[name], alpha=0.2, lw=0)
    axes[1].axhline(0, color=plots.KINDS["baseline"], ls="--")
    axes[0].set(xlabel="share of genes hidden", ylabel="bits per hidden gene")
    axes[1].set(xlabel="share of genes hidden", ylabel="bits saved against\nhistograms by depth")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(bits.columns))
    return figure
