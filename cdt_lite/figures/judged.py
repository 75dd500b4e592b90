"""Predictions beside the truth: changes side by side, scores of every method, and where each stands."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cdt_lite.figures import plots

SHADES = "RdBu_r"
COLORS = {"capsule": "generated", "half against half": "real", "no change": "control"}  # others: baselines


def side_by_side(real: pd.DataFrame, predicted: pd.DataFrame, n: int = 14) -> Figure:
    """Draws real and predicted changes as two heat maps with the same genes; a row has the scale of its largest change.

    Args:
        real: Changes, perturbations x genes; the target's own is left white.
        predicted: The same of the prediction.
        n: Genes to draw: those that move most in any perturbation.
    """
    own = np.array([[gene == name[0] for gene in real.columns] for name in real.index])
    change = real.mask(own)
    largest = change.abs().max(axis=1)
    kept = change.abs().max().nlargest(n).index
    names = [f"{target} {sign:+d} ({size:.2f})" for (target, sign), size in largest.items()]
    figure, axes = plots.grid(1, 2, (11, 0.36 * len(real) + 1.8))
    for ax, table, title in zip(axes, (change, predicted.mask(own)), ("real change", "predicted change"), strict=True):
        shares = table[kept].div(largest, axis=0)
        shades = ax.pcolormesh(shares.iloc[::-1].to_numpy(), cmap=SHADES, vmin=-1, vmax=1, edgecolor="white", lw=0.5)
        ax.set_xticks(np.arange(n) + 0.5, kept, rotation=90, fontsize=8.5)
        ax.set_yticks(np.arange(len(names)) + 0.5, names[::-1], fontsize=9)
        ax.set_title(title)
        ax.tick_params(length=0)
    axes[1].tick_params(labelleft=False)
    figure.colorbar(shades, ax=axes, label="share of the row's largest real change", pad=0.02)
    return plots.as_written(figure)


def scored(r: pd.DataFrame, error: pd.DataFrame) -> Figure:
    """Draws two tables of scores, perturbations x methods, as heat maps: Pearson's r and mean absolute error."""
    figure, axes = plots.grid(1, 2, (12, 0.42 * len(r) + 1.8))
    plots.metric_heatmap(r, axes[0]).set_title("Pearson's r of the change")
    plots.metric_heatmap(error, axes[1], higher_is_better=False, fmt=".3f").set_title("mean absolute error, log1p")
    for ax in axes:
        ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=35, ha="right")
    axes[1].tick_params(labelleft=False)
    return plots.as_written(figure)


def standings(means: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws mean scores with intervals, a panel a question, a row a method.

    Args:
        means: Columns mean, low, high and n, a row a method, by title.
    """
    figure, axes = plots.grid(1, len(means), (10, 3.4))
    for ax, (title, table) in zip(np.atleast_1d(axes), means.items(), strict=True):
        for place, row in enumerate(table.itertuples()):
            color = plots.KINDS[COLORS.get(str(row.Index), "baseline")]
            ax.plot([row.low, row.high], [place, place], color=color, lw=2)
            ax.plot(row.mean, place, "o", color=color)
        ax.axvline(0, color=plots.SOFT, lw=0.8)
        ax.set(yticks=range(len(table)), yticklabels=table.index, ylim=(len(table) - 0.5, -0.5), xlim=(-0.55, 1.05))
        ax.set(xlabel="mean Pearson's r, 95 % interval", title=f"{title} (n = {int(table['n'].max())})")
    for ax in np.atleast_1d(axes)[1:]:
        ax.tick_params(labelleft=False)
    return plots.as_written(figure)
