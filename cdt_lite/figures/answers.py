"""Numbers as bars with their intervals."""

import pandas as pd
from matplotlib.figure import Figure

from cdt_lite.figures import plots


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
