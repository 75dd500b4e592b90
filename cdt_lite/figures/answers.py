"""Answers to several questions, side by side with what is true; numbers with their intervals."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cdt_lite.figures import plots

GENES = 14  # columns that can be read


def side_by_side(real: pd.DataFrame, predicted: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draws real and predicted changes of the genes that perturbations change most, a colour scale a row.

    A row's scale ends at its largest real change, which stands at its name.

    Args:
        real: Perturbations x genes.
        predicted: The same.

    Returns:
        The figure, and the real changes that it draws.
    """
    each, largest = max(1, GENES // len(real)), real.abs().max(axis=1)
    order, genes = largest.sort_values(ascending=False).index, list[str]()
    for name in order:
        genes += [gene for gene in real.loc[name].abs().nlargest(each).index if gene not in genes]
    names = [f"{target} ({sign:+d}), ±{largest[target, sign]:.2f}" for target, sign in order]
    figure, axes = plots.grid(1, 2, (11, 0.34 * len(real) + 1.4))
    for ax, (title, table) in zip(axes, {"real": real, "predicted": predicted}.items(), strict=True):
        shown = table.loc[order, genes].div(largest[order], axis=0)
        sns.heatmap(shown.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1, ax=ax, cbar=title == "predicted",
                    cbar_kws={"label": "change / largest real one"}, linewidths=0.5)
        ax.set_title(title)
        ax.set_xticks(np.arange(len(genes)) + 0.5, genes, rotation=90, fontsize=8)
        ax.set_yticks(np.arange(len(names)) + 0.5, names if title == "real" else [""] * len(names), rotation=0)
        ax.tick_params(length=0)
    return figure, real.loc[order, genes]



def with_intervals(table: pd.DataFrame, label: str, least: float | None = None) -> Figure:
    """Draws numbers as bars with their intervals; those that speak of a capsule as what is generated.

    Args:
        table: A number, its low and its high end, a row a bar.
        label: Of the axis.
        least: Where to draw a dashed line.
    """
    figure, ax = plots.grid(1, 1, (7.5, 0.32 * len(table) + 0.9))
    value, low, high = table.to_numpy(float).T
    kinds = ["baseline" if least is not None and "capsule" not in name else "generated" for name in table.index]
    ax.barh(table.index, value, xerr=[value - low, high - value], color=[plots.KINDS[kind] for kind in kinds])
    ax.axvline(0, color=plots.INK, lw=0.8)
    if least is not None:
        ax.axvline(least, color=plots.INK, lw=1, ls="--")
    ax.set(xlabel=label)
    ax.invert_yaxis()
    return figure
