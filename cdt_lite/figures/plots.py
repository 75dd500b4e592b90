"""One function per figure: arrays and an Axes go in, the same Axes comes out. And the style that all figures share."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

Number: TypeAlias = int | float | np.number
Values: TypeAlias = Sequence[Any] | np.ndarray | pd.Series | pd.Index
# Okabe & Ito 2008: told apart by people with any of the common colour-vision deficiencies (checked in a test)
PALETTE = {"token": "#0072B2", "condition": "#D55E00", "control": "#009E73", "attention": "#CC79A7", "ffn": "#E69F00",
           "head": "#56B4E9", "other": "#6E6E6E"}
INK, SOFT, PAPER = "#1B1B1B", "#555555", "#FFFFFF"
DARK = {INK: "#F2F2F2", SOFT: "#BDBDBD", PAPER: "#14171C"}
MASK = "#C9C9C9"
EXPRESSION = LinearSegmentedColormap.from_list("expression", ["#F4F8FB", "#7FB8DA", PALETTE["token"], "#002B45"])


def tint(color: str, share: Number, paper: str = PAPER) -> str:
    """Returns the colour mixed with paper: share 1 is the colour, 0 the paper."""
    red, green, blue = (share * a + (1 - share) * b for a, b in zip(to_rgb(color), to_rgb(paper), strict=True))
    return to_hex((red, green, blue))


def use_style(dark: bool = False) -> None:
    """Sets the style of every later figure: fonts that ship with matplotlib, the palette, light or dark paper."""
    ink, soft, paper = (DARK[c] if dark else c for c in (INK, SOFT, PAPER))
    sns.set_theme(context="notebook", style="ticks", palette=list(PALETTE.values()), rc={
        "font.family": "DejaVu Sans", "font.size": 11, "axes.titlesize": 12, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.labelsize": 11, "xtick.labelsize": 10, "ytick.labelsize": 10,
        "legend.fontsize": 10, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": soft, "text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink,
        "figure.facecolor": paper, "axes.facecolor": paper, "savefig.facecolor": paper, "figure.dpi": 100,
        "savefig.dpi": 200, "figure.constrained_layout.use": True, "svg.hashsalt": "cdt-lite", "svg.fonttype": "path"})


def alt_text(title: str, values: Mapping[str, Number], unit: str = "", top: int = 8) -> str:
    """Builds alt text from the data that a figure shows: "Title: a 1 unit, b 2 unit, and 3 more."."""
    shown = [f"{name} {value:,.4g}{unit}" if isinstance(value, float) else f"{name} {value:,}{unit}"
             for name, value in list(values.items())[:top]]
    return f"{title}: {', '.join(shown)}{f', and {len(values) - top} more' if len(values) > top else ''}."


def describe(where: Figure | Axes, text: str) -> str:
    """Attaches alt text to a figure, as metadata, and returns "Figure: ..." for printing under it."""
    figure = where.figure if isinstance(where, Axes) else where
    figure.set_label(text)
    return f"Figure: {text}"


def bars(values: Mapping[str, Number], ax: Axes, unit: str = "", scale: Number = 1.0, color: str = "token") -> Axes:
    """Draws named amounts as horizontal bars with their values (whole numbers in full, others in units) and shares."""
    amounts, total = np.array(list(values.values())) / scale, sum(values.values()) / scale
    ax.barh(range(len(values)), amounts, color=PALETTE[color], edgecolor="none")
    for i, (value, amount) in enumerate(zip(values.values(), amounts, strict=True)):
        text = f"{value:,}" if isinstance(value, int) else f"{amount:,.3g}"
        ax.text(amount + 0.01 * amounts.max(), i, f"{text} ({amount / total:.1%})", va="center", fontsize=9.5)
    ax.set(yticks=range(len(values)), yticklabels=list(values), xlabel=unit, xlim=(0, 1.4 * amounts.max()))
    ax.invert_yaxis()
    return ax


def stacked(rows: Mapping[str, Mapping[str, Number]], ax: Axes, unit: str = "", scale: Number = 1.0) -> Axes:
    """Draws each row as one bar of named segments, its sum written at the end."""
    table = pd.DataFrame(rows).T.fillna(0)[list(dict.fromkeys(k for row in rows.values() for k in row))] / scale
    table.plot.barh(stacked=True, ax=ax, width=0.62, edgecolor=mpl.rcParams["axes.facecolor"], linewidth=0.8,
                    color=list(PALETTE.values())[: table.shape[1]])
    for i, total in enumerate(table.sum(1)):
        ax.text(total * 1.01, i, f"{total:,.2f}", va="center", fontsize=10, fontweight="bold")
    ax.set(xlabel=unit, xlim=(0, 1.12 * table.sum(1).max()))
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=3)
    return ax


def lines(x: Values, series: Mapping[str, Values], ax: Axes, xlabel: str, ylabel: str,
          log: bool = True, dashed: Sequence[str] = ()) -> Axes:
    """Draws named curves over a common x, those in `dashed` dashed."""
    for name, y in series.items():
        ax.plot(x, y, label=name, lw=2, ls="--" if name in dashed else "-")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        ax.set(xscale="log", yscale="log")
    ax.legend()
    return ax


def roofline(points: Mapping[str, tuple[Number, Number]], ceilings: Mapping[str, tuple[Number, Number]], ax: Axes
             ) -> Axes:
    """Draws attainable TFLOP/s over arithmetic intensity.

    Args:
        points: Part -> (FLOP per byte, share of all FLOPs); larger dots do more of the work.
        ceilings: Accelerator -> (TFLOP/s, GB/s).
        ax: Where.
    """
    x, colors = np.geomspace(5, 20_000, 200), list(PALETTE.values())
    for (name, (peak, bandwidth)), style in zip(ceilings.items(), ("-", "--", ":", "-."), strict=False):
        ax.plot(x, np.minimum(peak, x * bandwidth / 1e3), style, color=mpl.rcParams["text.color"], lw=1.4, label=name)
    peak, bandwidth = next(iter(ceilings.values()))
    for i, (name, (intensity, share)) in enumerate(points.items()):
        ax.scatter(intensity, min(peak, intensity * bandwidth / 1e3), s=40 + 700 * share, color=colors[i % 7], zorder=3,
                   edgecolor=mpl.rcParams["axes.facecolor"])
        ax.scatter([], [], s=40, color=colors[i % 7], label=f"{name} ({intensity:,.0f})")
    ax.set(xscale="log", yscale="log", ylim=(0.3, 2500), xlabel="FLOP per byte moved (16-bit)",
           ylabel="attainable TFLOP/s")
    ax.legend(fontsize=8.5, loc="lower right")
    return ax


def token_histogram(counts: np.ndarray, tokens: np.ndarray, ax: Axes) -> Axes:
    """Draws how often each token occurs (bars) beside how often each raw count does (line); y is logarithmic."""
    for values, label in ((tokens, "tokens"), (counts, "raw counts")):
        share = np.bincount(np.asarray(values).astype(int).ravel()) / np.size(values)
        if label == "tokens":
            ax.bar(range(len(share)), share, color=PALETTE["token"], width=0.9, label=label)
        else:
            ax.step(range(len(share))[:64], share[:64], where="mid", color=PALETTE["condition"], label=label)
    ax.set(yscale="log", xlabel="token, or raw count", ylabel="share of all entries",
           title=f"{np.mean(np.asarray(counts) == 0):.0%} of entries are zero")
    ax.legend()
    return ax


def mask_schedule(schedules: Mapping[str, tuple[Values, Values]], ax: Axes) -> Axes:
    """Draws the share of hidden genes over the steps of one or several named schedules: name -> (steps, shares)."""
    for marker, (name, (steps, share)) in zip("osD^v", schedules.items(), strict=False):
        ax.plot(steps, share, marker=marker, ms=5, lw=2, label=name)
    ax.set(xlabel="step", ylabel="share of genes hidden", ylim=(-0.03, 1.05))
    ax.legend()
    return ax


def loss_curves(curves: Sequence[tuple[str, Values, Values]], ax: Axes, smooth: int = 25) -> Axes:
    """Draws training losses, nats per gene: (label, steps, losses), faint as they came and smoothed on top."""
    for i, (label, steps, losses) in enumerate(curves):
        color = list(PALETTE.values())[i % 7]
        ax.plot(steps, losses, color=color, alpha=0.25, lw=0.8)
        window = min(smooth, max(1, len(losses) // 20))  # a twentieth of the curve: a longer mean lags behind a fall
        ax.plot(steps, pd.Series(losses).rolling(window, min_periods=1).mean(), color=color, lw=2, label=label)
    ax.set(xlabel="step", ylabel="loss (nats per hidden gene)")
    ax.legend()
    return ax


def h_curve(shares: Values, nats: Values | Mapping[str, Values], ax: Axes) -> Axes:
    """Draws H, the loss at each share of hidden genes, in bits per gene; the area under it is the NELBO per gene."""
    for name, values in (nats if isinstance(nats, Mapping) else {"model": nats}).items():
        bits = np.asarray(values, dtype=float) / np.log(2)
        area = np.trapezoid(bits, shares) / (shares[-1] - shares[0])
        line, = ax.plot(shares, bits, marker="o", lw=2, label=f"{name}: mean {area:.3f} bits per gene")
        ax.fill_between(shares, bits, alpha=0.12, color=line.get_color())
    ax.set(xlabel="share of genes hidden", ylabel="H (bits per hidden gene)", ylim=(0, None))
    ax.legend()
    return ax


def cell_heatmap(states: Values, genes: Values, ax: Axes, mask_id: int = 63,
                 labels: Values | None = None) -> Axes:
    """Draws one cell at several steps, a row a step: darker is more expressed (log scale), grey is still hidden."""
    table = np.stack([np.asarray(s).ravel() for s in states])
    shown = np.ma.masked_where(table == mask_id, np.log1p(table))
    cmap = EXPRESSION.with_extremes(bad=MASK)
    ax.imshow(shown, aspect="auto", cmap=cmap, vmin=0, vmax=max(1.0, float(shown.max() or 0)), interpolation="nearest")
    every = max(1, len(genes) // 40)
    ax.set_xticks(range(0, len(genes), every), list(genes)[::every], rotation=90, fontsize=8)
    ax.set_yticks(range(len(table)), labels or [f"step {i}" for i in range(len(table))])
    ax.tick_params(length=0)
    return ax


def predicted_vs_real_delta(real: np.ndarray, predicted: np.ndarray, genes: Values, ax: Axes, name: int = 8
                            ) -> Axes:
    """Scatters predicted over real mean change of every gene (log1p), names the largest, states Pearson's r."""
    ax.axline((0, 0), slope=1, color=PALETTE["other"], lw=1, ls="--", zorder=0)
    ax.scatter(real, predicted, s=18, color=PALETTE["token"], alpha=0.7, edgecolor="none")
    _name_points(ax, [(genes[i], real[i], predicted[i]) for i in np.argsort(-np.abs(real))[:name]],
                 np.column_stack([real, predicted]))
    ax.set(xlabel="real change (log1p)", ylabel="predicted change (log1p)",
           title=f"Pearson r = {np.corrcoef(real, predicted)[0, 1]:.2f}")
    return ax


def _name_points(ax: Axes, points: Sequence[tuple[str, Number, Number]], dots: np.ndarray) -> None:
    """Writes a name beside each point, where it covers no other name and the fewest of the dots (rows of x, y)."""
    ax.figure.canvas.draw()  # places the axes, so that the size of a text can be asked for
    dots, taken = ax.transData.transform(dots), list[Bbox]()
    places = ((4, 3, "left"), (4, -11, "left"), (-4, 3, "right"), (-4, -11, "right"), (0, 6, "center"),
              (0, -14, "center"))
    for name, x, y in points:
        texts = [ax.annotate(name, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=8.5, ha=side)
                 for dx, dy, side in places]
        boxes = [text.get_window_extent().padded(2) for text in texts]
        covered = [((dots >= box.min) & (dots <= box.max)).all(1).sum() for box in boxes]
        free = [i for i, box in enumerate(boxes) if covered[i] < 3 and not any(box.overlaps(other) for other in taken)]
        best = min(free, key=covered.__getitem__, default=None)
        for i, text in enumerate(texts):
            if i != best:  # in a crowd better no name than an unreadable one
                text.remove()
        taken += [] if best is None else [boxes[best]]


def metric_heatmap(table: pd.DataFrame, ax: Axes, higher_is_better: bool = True, fmt: str = ".2f") -> Axes:
    """Draws a table (rows x columns of one metric) as a heat map with its numbers; blue is good."""
    good = sns.light_palette(PALETTE["token"], as_cmap=True, reverse=not higher_is_better)
    sns.heatmap(table, annot=True, fmt=fmt, cmap=good, cbar=False, linewidths=1, ax=ax, annot_kws={"fontsize": 9.5})
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)
    return ax


def metric_bars(table: pd.DataFrame, ax: Axes, ylabel: str = "") -> Axes:
    """Draws a table as grouped bars: a group a row, a colour a column (a model, or a baseline)."""
    table.plot.bar(ax=ax, width=0.8, color=list(PALETTE.values())[: table.shape[1]], rot=30)
    ax.axhline(0, color=SOFT, lw=0.8)
    ax.set(xlabel="", ylabel=ylabel)
    return ax


def umap_pair(embedding: np.ndarray, labels: Values, ax: Axes) -> Axes:
    """Scatters a two-dimensional embedding, a colour a label, in an order that hides none behind another."""
    order = np.random.default_rng(0).permutation(len(embedding))
    text = np.asarray(labels, dtype=str)
    names = list(dict.fromkeys(text))
    colors = list(PALETTE.values()) if len(names) <= 7 else sns.husl_palette(len(names))
    sns.scatterplot(x=embedding[order, 0], y=embedding[order, 1], hue=text[order], hue_order=names,
                    palette=colors[: len(names)], s=10, alpha=0.7, linewidth=0, ax=ax)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.legend(markerscale=2)
    return ax


def attention_map(weights: np.ndarray, rows: Values, columns: Values, ax: Axes, lowest: Number = 0.0,
                  label: str = "attention weight") -> Axes:
    """Draws attention weights (rows sum to 1): who (row) looks at whom (column); white is `lowest` and below."""
    shades = [tint(PALETTE["attention"], 0.06), PALETTE["attention"], "#5B2148"]
    shown = ax.imshow(weights, aspect="auto", cmap=LinearSegmentedColormap.from_list("", shades), vmin=float(lowest))
    ax.set_yticks(range(len(rows)), list(rows), fontsize=9)
    ax.set_xticks(range(len(columns)), list(columns), rotation=90, fontsize=9)
    ax.tick_params(length=0)
    ax.figure.colorbar(shown, ax=ax, shrink=0.7, label=label)
    return ax


def dose_response(doses: Values, responses: Mapping[str, Values], ax: Axes,
                  xlabel: str = "magnitude (log2 fold change)") -> Axes:
    """Draws predicted responses over the perturbation's magnitude, a line a gene; left of 0 is knockdown."""
    for name, response in responses.items():
        ax.plot(doses, response, marker="o", ms=4, lw=2, label=name)
    ax.axvline(0, color=SOFT, lw=0.8, ls=":")
    ax.set(xlabel=xlabel, ylabel="predicted change (log1p)")
    ax.legend()
    return ax


def grid(n_rows: int, n_columns: int, size: tuple[Number, Number] = (10, 5),
         height_ratios: Sequence[Any] | None = None, sharex: bool = False, sharey: bool = False) -> tuple[Figure, Any]:
    """Returns a figure 1000 px wide by default, and its axes."""
    return plt.subplots(n_rows, n_columns, figsize=size, height_ratios=height_ratios, sharex=sharex, sharey=sharey)
