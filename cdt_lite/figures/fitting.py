"""What does not fit: what cells weigh, memory over cells, whose sets are whose, and runs beside that of one process."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from cdt_lite.figures import plots

FORMS = {"float64 counts": plots.KINDS["baseline"], "sparse counts": plots.KINDS["control"],
         "tokens": plots.KINDS["real"], "tokens in memory": plots.KINDS["real"],
         "tokens on disk": plots.KINDS["generated"]}
MARKS = {"two": "o", "half": "s", "cut": "x"}


def weighed(shares: pd.Series, sizes: pd.Series) -> Figure:
    """Draws how often each count comes, and what a million cells weigh in each form.

    Args:
        shares: Of all entries, by count ("0", "1", ...).
        sizes: Bytes, by one of `FORMS`.
    """
    figure, axes = plots.grid(1, 2, (10, 2.8))
    axes[0].bar(shares.index, shares, color=plots.KINDS["real"])
    axes[0].set(xlabel="molecules of a gene in a cell", ylabel="share of entries", title="the screen")
    drawn = axes[1].barh(sizes.index, sizes / 1e9, color=[FORMS[form] for form in sizes.index])
    axes[1].bar_label(drawn, [f"{size / 1e9:.1f} GB" for size in sizes], padding=4)
    axes[1].set(xlabel="a million cells x 2,000 genes, GB", xlim=(0, 1.2 * sizes.max() / 1e9))
    axes[1].invert_yaxis()
    return figure


def memory_over_cells(found: pd.DataFrame) -> Figure:
    """Draws the peak of memory, megabytes, over the number of cells that are read; columns are some of `FORMS`."""
    figure, ax = plots.grid(1, 1, (7.2, 3.2))
    for form, column in found.items():
        ax.plot(found.index, column / 1e6, marker="o", color=FORMS[str(form)], label=form)
    ax.set(xlabel="cells in the file", ylabel="memory at its peak, MB", ylim=(0, None))
    ax.set_xticks(found.index, [f"{n:,}" for n in found.index])
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def parts_of_a_batch(parts: Mapping[int, Sequence[Sequence[int]]]) -> Figure:
    """Draws the sets of a batch, a row for each number of processes, coloured and numbered by who reads them.

    Args:
        parts: By number of processes, the sets of each.
    """
    figure, ax = plots.grid(1, 1, (7.2, 0.5 * len(parts) + 1))
    colors = plots.COLORS
    for row, of_one in enumerate(parts.values()):
        for rank, sets in enumerate(of_one):
            for number in sets:
                ax.barh(row, 0.94, left=number - 0.47, height=0.8, color=plots.tint(colors[rank % len(colors)], 0.55))
                ax.text(number, row, str(rank), ha="center", va="center")
    n = max(number for of_one in parts.values() for sets in of_one for number in sets)
    ax.set_yticks(range(len(parts)), [f"{n_ranks} process{'es' * (n_ranks > 1)}" for n_ranks in parts])
    ax.set(xlabel="set of the batch", xticks=range(n + 1), xlim=(-0.6, n + 0.6))
    ax.invert_yaxis()
    ax.tick_params(length=0)
    return figure


def beside_one(losses: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Draws losses of several runs, and how far each is from the first, which one process made.

    Args:
        losses: By step; the first column is that of one process, others are of `MARKS`.
        names: What to call the columns.
    """
    figure, axes = plots.grid(1, 2, (10, 3.2))
    alone = losses.columns[0]
    axes[0].plot(losses.index, losses[alone], color=plots.KINDS["real"], label=names[alone])
    for name in losses.columns[1:]:
        look = {"ls": "", "marker": MARKS[name], "mfc": "none", "label": names[name]}
        axes[0].plot(losses.index, losses[name], color=plots.INK, **look)
        gap = (losses[name] - losses[alone]).abs().clip(lower=1e-9)
        axes[1].plot(losses.index, gap, color=plots.INK, **look)
    axes[0].set(xlabel="step", ylabel="loss, nats per hidden gene")
    axes[1].axhline(1e-5, color=plots.PALETTE["other"], ls="--", lw=1, label="more than rounding")
    axes[1].set(xlabel="step", ylabel="difference, nats", yscale="log", ylim=(5e-10, 1e-1))
    axes[1].set_yticks([1e-9, 1e-7, 1e-5, 1e-3, 1e-1], ["0", "1e-7", "1e-5", "1e-3", "0.1"])
    axes[1].set_yticks([], minor=True)
    axes[0].legend(loc="upper right", fontsize=9)
    axes[1].legend(loc="upper right", fontsize=9)
    return figure
