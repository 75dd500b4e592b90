"""Cells as they come, before any model: on principal components, by depth, and how a gene varies among them."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cdt_lite.figures import plots

SHOWN = 3000  # cells, drawn at random: more would cover each other
REPLICATES = ["#332288", "#CC79A7", "#888888", "#882255", "#999933"]  # no hue that means a kind of cell


def on_components(cells: pd.DataFrame, target: str) -> Figure:
    """Draws cells on two principal components: by replicate, and those of one target beside the controls.

    Args:
        cells: Columns PC1, PC2, batch, target_gene, a row a cell.
        target: The one to draw.
    """
    figure, axes = plots.grid(1, 2, (10, 4.2), sharex=True, sharey=True)
    some = cells.sample(min(SHOWN, len(cells)), random_state=0)
    sns.scatterplot(some, x="PC1", y="PC2", s=6, linewidth=0, ax=axes[0], **_replicates(some))
    names = {"non-targeting": "control", target: target}
    two = some.assign(cells=some["target_gene"].astype(str).map(names)).dropna(subset="cells")
    colors = {"control": plots.KINDS["control"], target: plots.KINDS["real"]}
    sns.scatterplot(two, x="PC1", y="PC2", hue="cells", palette=colors, s=8, linewidth=0, ax=axes[1])
    for ax in axes:  # above the cells: among them a name would be taken for one
        sns.move_legend(ax, "lower center", bbox_to_anchor=(0.5, 1), ncols=5, title=None, markerscale=2)
    plots.as_written(figure)
    return figure


def by_depth(obs: pd.DataFrame) -> Figure:
    """Draws the counts and the genes of cells, by replicate.

    Args:
        obs: Columns total_counts, n_genes_by_counts (scanpy's quality control) and batch.
    """
    figure, axes = plots.grid(1, 2, (10, 3.4))
    style = {"bins": 40, "element": "step", "fill": False, **_replicates(obs)}
    sns.histplot(obs, x="total_counts", log_scale=True, ax=axes[0], **style)
    sns.histplot(obs, x="n_genes_by_counts", ax=axes[1], **style)
    axes[0].set(xlabel="depth, counts", ylabel="cells")
    axes[1].set(xlabel="genes with a count", ylabel="cells")
    axes[0].xaxis.set_major_formatter("{x:g}")
    for ax in axes:
        ax.get_legend().set_title("replicate")
    return figure


def variation(mean: np.ndarray, variance: np.ndarray, excess: float) -> Figure:
    """Draws variance over mean, a dot a gene, beside Poisson and negative-binomial laws.

    Args:
        mean: Of each gene's counts.
        variance: Likewise.
        excess: phi of variance = mean + phi mean^2.
    """
    figure, ax = plots.grid(1, 1, (7, 3.6))
    ax.scatter(mean, variance, s=12)
    line = np.geomspace(1e-3, mean.max(), 100)
    label = f"negative binomial: mean + {excess:.2f} mean²"
    ax.plot(line, line + excess * line**2, color=plots.KINDS["baseline"], label=label)
    ax.plot(line, line, color=plots.INK, ls="--", label="Poisson: variance = mean")
    ax.set(xscale="log", yscale="log", xlabel="mean count of a gene", ylabel="variance of controls")
    plots.plain_ticks(ax)
    ax.legend()
    return figure


def _replicates(obs: pd.DataFrame) -> dict[str, Any]:
    """What tells seaborn to colour by replicate."""
    names = sorted(obs["batch"].astype(str).unique())
    colors = REPLICATES if len(names) <= len(REPLICATES) else None
    return {"hue": obs["batch"].astype(str), "hue_order": names, "palette": colors and colors[: len(names)]}
