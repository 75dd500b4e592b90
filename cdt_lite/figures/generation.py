"""How cells are made of masks: laws of the world of 27 cells, what steps cost, and curves of H."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cdt_lite.figures import plots

LAWS = {"the law": plots.KINDS["real"], "3 steps": plots.KINDS["generated"], "1 step": plots.PALETTE["attention"],
        "independent genes": plots.KINDS["baseline"]}
FEWEST = 4  # steps that are drawn: fewer lose so much more that others could not be told apart
MARKS = "os^Dv"  # of seeds
SCHEDULES = {"uniform": "--", "cosine": ":", "learned": "-"}


def in_27_cells(laws: pd.DataFrame) -> Figure:
    """Draws how often each of the 27 cells comes.

    Args:
        laws: Probabilities, cells ("012") x some of `LAWS`.
    """
    figure, ax = plots.grid(1, 1, (10, 3.4))
    colors = [LAWS[name] for name in laws]
    laws.plot.bar(ax=ax, width=0.85, xlabel="cell (bins of A, B and C)", ylabel="probability", color=colors)
    return figure


def step_prices(h: np.ndarray, points: Sequence[tuple[float, float]], prices: pd.DataFrame, v1: tuple[int, float]
                ) -> Figure:
    """Draws a model's curve of H, and what sampling schedules lose, over their steps.

    Args:
        h: H(k) for k = 1..G, bits per hidden gene.
        points: Where it was measured: share hidden, bits.
        prices: Bits per cell, steps x schedules.
        v1: The original's steps, and what they lose.
    """
    figure, axes = plots.grid(1, 2, (10.5, 3.8))
    share = np.arange(1, len(h) + 1) / len(h)
    axes[0].plot(share, h, color=plots.KINDS["generated"])
    axes[0].plot(*np.transpose(points), "o", color=plots.KINDS["generated"])
    axes[0].set(xlabel="share of genes hidden", ylabel="H (bits per hidden gene)", title="the capsule's curve")
    some = prices.loc[FEWEST:]
    for name, column in some.items():
        axes[1].plot(column.index, column, SCHEDULES[str(name)], color=plots.KINDS["generated"], lw=2, label=name)
    axes[1].plot(*v1, "*", color=plots.INK, ms=11, label=f"v1's {v1[0]} steps")
    axes[1].set(xlabel="steps", ylabel="price (bits per cell)", title="what steps lose", ylim=(0, None))
    axes[1].set_xticks([4, 8, 12, 16])
    axes[1].legend()
    return figure


def h_curves(curves: Mapping[tuple[str, int], Sequence[float]], shares: Sequence[float]) -> Figure:
    """Draws curves of H, bits per hidden gene, a colour for each law of masks and a mark for each seed.

    Args:
        curves: By law and seed.
        shares: Of hidden genes, at which H was measured.
    """
    figure, ax = plots.grid(1, 1, (7, 3.6))
    laws = list(dict.fromkeys(law for law, _ in curves))
    colors = dict(zip(laws, [plots.KINDS["generated"], plots.PALETTE["condition"]], strict=True))
    for (law, seed), y in curves.items():
        ax.plot(shares, y, MARKS[seed], ls="-", ms=5, lw=1.2, color=colors[law], label=law if seed == 0 else None)
    for seed in sorted({seed for _, seed in curves}):
        ax.plot([], [], MARKS[seed], color=plots.INK, ms=5, label=f"seed {seed}")
    ax.set(xlabel="share of genes hidden", ylabel="H (bits per hidden gene)")
    figure.legend(loc="outside right center")
    return figure
