"""How likely a model thinks each count of a hidden gene, beside what was hidden."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from cdt_lite.figures import plots

LEAST = 0.01  # probability of a bin that is worth drawing
COUNTS = 40  # bins of one count each; those above are wider, so their heights do not compare


def guesses(laws: Mapping[str, Float[np.ndarray, "n K"]], truth: Mapping[str, int]) -> Figure:
    """Draws probabilities of the bins of n hidden genes, and a line at the bin that was hidden.

    Args:
        laws: Probabilities, by "capsule" (bars) and "histogram" (steps).
        truth: Hidden bin of each gene, by name.
    """
    figure, axes = plots.grid(1, len(truth), (10, 2.9))
    for i, (ax, (gene, token)) in enumerate(zip(axes, truth.items(), strict=True)):
        likely = np.flatnonzero(np.max([law[i] for law in laws.values()], axis=0) > LEAST)
        bins = np.arange(min(max(likely[-1], token) + 2, COUNTS))
        ax.bar(bins, laws["capsule"][i][bins], width=0.9, color=plots.KINDS["generated"], label="capsule")
        ax.step(bins, laws["histogram"][i][bins], where="mid", color=plots.KINDS["baseline"], lw=2, label="histogram")
        ax.axvline(min(token, COUNTS), color=plots.KINDS["real"], lw=1, ls=":", zorder=0)
        ax.plot(min(token, COUNTS), 0.94, "v", color=plots.KINDS["real"], ms=8, clip_on=False, label="hidden count",
                transform=ax.get_xaxis_transform())
        ax.set(title=gene, xlabel="count", ylabel="" if i else "probability")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    plots.as_written(figure)
    return figure
