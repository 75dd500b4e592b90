"""One function per figure: arrays and an Axes go in, the same Axes comes out. And the style that all figures share."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

Number: TypeAlias = int | float | np.number
Drawn = TypeVar("Drawn", bound=Artist)
P = ParamSpec("P")
Values: TypeAlias = Sequence[Any] | np.ndarray | pd.Series | pd.Index
# Okabe & Ito 2008: told apart by people with any of the common colour-vision deficiencies (checked in a test)
PALETTE = {"token": "#0072B2", "condition": "#D55E00", "control": "#009E73", "attention": "#CC79A7",
           "ffn": "#E69F00", "head": "#56B4E9", "other": "#6E6E6E"}
COLORS = list(PALETTE.values())
# what cells and predictions are, everywhere
KINDS = {"real": PALETTE["token"], "generated": PALETTE["head"], "control": PALETTE["control"],
         "baseline": PALETTE["ffn"]}
INK, SOFT, PAPER = "#1B1B1B", "#555555", "#FFFFFF"
DARK = {INK: "#F2F2F2", SOFT: "#BDBDBD", PAPER: "#14171C"}
MASK = "#C9C9C9"
BESIDE = ((4, 3, "left"), (4, -11, "left"), (-4, 3, "right"), (-4, -11, "right"),
          (0, 6, "center"), (0, -14, "center"))  # a point: where its name may stand
CLEAR = 2  # points by which any other dot is further from a name than its own
EXPRESSION = LinearSegmentedColormap.from_list("expression", ["#F4F8FB", "#7FB8DA", PALETTE["token"], "#002B45"])


def tint(color: str, share: Number, paper: str = PAPER) -> str:
    """Returns the colour mixed with paper: share 1 is the colour, 0 the paper."""
    mixed = share * np.array(to_rgb(color)) + (1 - share) * np.array(to_rgb(paper))
    return to_hex(mixed.tolist())


def ink_on(fill: str) -> str:
    """Returns ink or white, whichever is better read on a colour (contrast of WCAG 2.2)."""
    rgb = np.array(to_rgb(fill))
    luminance = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return INK if luminance > 0.2 else "#FFFFFF"


def use_style(dark: bool = False) -> None:
    """Sets the style of every later figure: fonts that ship with matplotlib, the palette, light or dark paper."""
    ink, soft, paper = DARK.values() if dark else DARK
    sns.set_theme(style="ticks", palette=COLORS)
    plt.style.use(Path(__file__).with_name("cdt_lite.mplstyle"))
    mpl.rc("text", color=ink)
    mpl.rc("axes", labelcolor=ink, edgecolor=soft, facecolor=paper)
    mpl.rc("xtick", color=ink)
    mpl.rc("ytick", color=ink)
    mpl.rc("figure", facecolor=paper)
    mpl.rc("savefig", facecolor=paper)


def grid(
    n_rows: int, n_columns: int, size: tuple[Number, Number] = (10, 5), height_ratios: Sequence[Any] | None = None,
    sharex: bool = False, sharey: bool = False,
) -> tuple[Figure, Any]:
    """Returns a figure 1000 px wide by default, and its axes."""
    return plt.subplots(n_rows, n_columns, figsize=size, height_ratios=height_ratios, sharex=sharex, sharey=sharey)


def alt_text(title: str, values: Mapping[str, Number], unit: str = "", top: int = 8) -> str:
    """Builds alt text from the data that a figure shows: "Title: a 1 unit, b 2 unit, and 3 more."."""
    shown = []
    for name in list(values)[:top]:
        digits = ",.4g" if isinstance(values[name], float) else ","
        shown.append(f"{name} {values[name]:{digits}}{unit}")
    if len(values) > top:
        shown.append(f"and {len(values) - top} more")
    return f"{title}: {', '.join(shown)}."


def as_written(drawn: Drawn) -> Drawn:
    """Makes all texts of a figure, or of its axes, show as they are written: in a gene's name, "$" begins no formula.

    Only ticks of logarithmic axes, which matplotlib writes itself, stay formulas.
    """
    powers = []
    for axis in drawn.findobj(Axis):
        labels = axis.get_ticklabels(which="both")  # asked for, ticks are made
        if axis.get_scale() != "linear":
            powers += labels
    for text in drawn.findobj(Text):
        text.set_parse_math(False)
    for text in powers:
        text.set_parse_math(True)
    return drawn


def literal(draw: Callable[P, Axes]) -> Callable[P, Axes]:
    """Makes a plot show all its texts as they are written, also while it is being drawn."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with mpl.rc_context({"text.parse_math": False}):
            return as_written(draw(*args, **kwargs))

    return drawn


def plain_ticks(ax: Axes) -> None:
    """Writes 1, 10, 100 at the ticks of logarithmic axes, not powers of ten."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")


@literal
def bars(values: Mapping[str, Number], ax: Axes, unit: str = "", scale: Number = 1.0) -> Axes:
    """Draws named amounts as horizontal bars with their values (whole numbers in full, others in units) and shares."""
    amounts, labels = np.array(list(values.values())) / scale, []
    for value, amount in zip(values.values(), amounts, strict=True):
        text = f"{value:,}" if isinstance(value, int) else f"{amount:,.3g}"
        labels.append(f"{text} ({amount / amounts.sum():.1%})")
    drawn = ax.barh(list(values), amounts, color=PALETTE["token"], edgecolor="none")
    ax.bar_label(drawn, labels, padding=4, fontsize=9.5)
    ax.set(xlabel=unit, xlim=(0, 1.4 * max(amounts)))
    ax.invert_yaxis()
    return ax


@literal
def stacked(rows: Mapping[str, Mapping[str, Number]], ax: Axes, unit: str = "", scale: Number = 1.0) -> Axes:
    """Draws each row as one bar of named segments, its sum written at the end."""
    table = pd.DataFrame(rows).T / scale
    totals = table.sum(axis=1)
    table.plot.barh(stacked=True, ax=ax, width=0.62, edgecolor=mpl.rcParams["axes.facecolor"], linewidth=0.8)
    last: Any = ax.containers[-1]
    ax.bar_label(last, [f"{total:,.2f}" for total in totals], padding=4, fontweight="bold")
    ax.set(xlabel=unit, xlim=(0, 1.12 * totals.max()))
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=3)
    return ax


@literal
def roofline(points: pd.DataFrame, ceilings: Mapping[str, tuple[Number, Number]], ax: Axes) -> Axes:
    """Draws attainable TFLOP/s over arithmetic intensity.

    Args:
        points: A row a part: "intensity" (FLOP per byte) and "share" of all FLOPs; larger dots do more of the work.
        ceilings: Accelerator -> (TFLOP/s, GB/s); the dots lie under the first.
        ax: Where.
    """
    x, ink, paper = np.geomspace(5, 20_000, 200), mpl.rcParams["text.color"], mpl.rcParams["axes.facecolor"]
    for (name, (peak, bandwidth)), style in zip(ceilings.items(), ("-", "--", ":", "-."), strict=False):
        ax.plot(x, np.minimum(peak, x * bandwidth / 1e3), style, color=ink, lw=1.4, label=name)
    peak, bandwidth = next(iter(ceilings.values()))
    for part, color in zip(points.itertuples(), cycle(COLORS), strict=False):
        height = min(peak, part.intensity * bandwidth / 1e3)
        ax.scatter(part.intensity, height, s=40 + 700 * part.share, color=color, edgecolor=paper, zorder=3)
        ax.scatter([], [], s=40, color=color, label=f"{part.Index} ({part.intensity:,.0f})")
    ax.set(xscale="log", yscale="log", ylim=(0.3, 2500))
    ax.set(xlabel="FLOP per byte moved (16-bit)", ylabel="attainable TFLOP/s")
    plain_ticks(ax)
    ax.legend(fontsize=8.5, loc="lower right")
    return ax


@literal
def mask_schedule(schedules: Mapping[str, tuple[Values, Values]], ax: Axes) -> Axes:
    """Draws the share of hidden genes over the steps of one or several named schedules: name -> (steps, shares)."""
    for marker, (name, (steps, share)) in zip("osD^v", schedules.items(), strict=False):
        ax.plot(steps, share, marker=marker, ms=5, lw=2, label=name)
    ax.set(xlabel="step", ylabel="share of genes hidden", ylim=(-0.03, 1.05))
    ax.legend()
    return ax


@literal
def cell_heatmap(
    states: Sequence[np.ndarray] | np.ndarray, genes: Values, ax: Axes, mask_id: int = 63, labels: Values | None = None
) -> Axes:
    """Draws one cell at several steps, a row a step: darker is more expressed (log scale), grey is still hidden."""
    table = np.asarray(states)
    shown = np.ma.masked_where(table == mask_id, np.log1p(table))
    brightest = max(1.0, float(shown.max() or 0))
    ax.imshow(shown, aspect="auto", cmap=EXPRESSION.with_extremes(bad=MASK), vmin=0, vmax=brightest)
    every = max(1, len(genes) // 40)
    ax.set_xticks(range(0, len(genes), every), list(genes)[::every], rotation=90, fontsize=8)
    ax.set_yticks(range(len(table)), labels or [f"step {i}" for i in range(len(table))])
    ax.tick_params(length=0)
    return ax


@literal
def attention_map(
    weights: np.ndarray, rows: Values, columns: Values, ax: Axes, lowest: Number = 0.0, label: str = "attention weight"
) -> Axes:
    """Draws attention weights (rows sum to 1): who (row) looks at whom (column); white is `lowest` and below."""
    shades = [tint(PALETTE["attention"], 0.06), PALETTE["attention"], "#5B2148"]
    cmap = LinearSegmentedColormap.from_list("attention", shades)
    shown = ax.imshow(weights, aspect="auto", cmap=cmap, vmin=float(lowest))
    ax.set_yticks(range(len(rows)), list(rows), fontsize=9)
    ax.set_xticks(range(len(columns)), list(columns), rotation=90, fontsize=9)
    ax.tick_params(length=0)
    ax.figure.colorbar(shown, ax=ax, shrink=0.7, label=label)
    return ax


@literal
def metric_heatmap(table: pd.DataFrame, ax: Axes, higher_is_better: bool = True, fmt: str = ".2f") -> Axes:
    """Draws a table of one metric as a heat map with its numbers; blue is good, and a score below 0 as pale as 0."""
    good = sns.light_palette(PALETTE["token"], as_cmap=True, reverse=not higher_is_better)
    font = {"fontsize": 9.5}
    least = 0 if higher_is_better else None
    sns.heatmap(table, vmin=least, annot=True, fmt=fmt, cmap=good, cbar=False, linewidths=1, ax=ax, annot_kws=font)
    faces = np.array(ax.collections[0].get_facecolor()).reshape(*table.shape, -1)
    for text in ax.texts:
        column, row = map(int, text.get_position())
        text.set_color(ink_on(to_hex(faces[row, column])))
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)
    return ax


@literal
def expression_curves(kinds: Mapping[str, Values], gene: str, ax: Axes) -> Axes:
    """Draws which share of cells shows how much of a gene: real ones solid, generated ones dashed.

    Args:
        kinds: log1p expression of cells, by one of `KINDS`.
        gene: Its name.
        ax: Where to draw.
    """
    for kind, cells in kinds.items():
        style = "--" if kind == "generated" else "-"
        sns.ecdfplot(x=cells, color=KINDS[kind], ls=style, lw=2, label=kind, ax=ax)
    ax.set(title=gene, xlabel="expression, ln(1 + counts)", ylabel="share of cells at or below", ylim=(0, 1.02))
    ax.legend(frameon=False, loc="lower right")
    return ax


@literal
def predicted_vs_real_delta(real: np.ndarray, predicted: np.ndarray, genes: Values, ax: Axes, name: int = 8) -> Axes:
    """Scatters predicted over real mean change of every gene (log1p), names the largest, states Pearson's r."""
    ax.axline((0, 0), slope=1, color=PALETTE["other"], lw=1, ls="--", zorder=0)
    ax.scatter(real, predicted, s=18, color=PALETTE["token"], alpha=0.7, edgecolor="none")
    r = np.corrcoef(real, predicted)[0, 1]
    ax.set(xlabel="real change (log1p)", ylabel="predicted change (log1p)", title=f"Pearson r = {r:.2f}")
    as_written(ax.figure).canvas.draw()  # places the axes, so that the size of a text can be asked for
    dots, taken = ax.transData.transform(np.column_stack([real, predicted])), list[Bbox]()
    for i in np.argsort(-np.abs(real))[:name]:
        taken += _name_point(ax, genes[i], (real[i], predicted[i]), dots, taken)
    return ax


def _name_point(ax: Axes, name: str, point: tuple[Number, Number], dots: np.ndarray, taken: list[Bbox]) -> list[Bbox]:
    """Writes a name beside a point, where it meets no other name and no other dot; returns the place that it took.

    In a crowd better no name than one that could be another dot's.
    """
    own = ax.transData.transform(np.array(point, float))
    others = dots[np.abs(dots - own).max(axis=1) > 0.5]
    for x, y, side in BESIDE:
        text = ax.annotate(name, point, (x, y), textcoords="offset points", fontsize=8.5, ha=side)
        box = text.get_window_extent().padded(2)
        gap, *gaps = (np.hypot(*np.clip(dot, box.min, box.max) - dot) for dot in (own, *others))
        clear = min(gaps, default=np.inf) > gap + CLEAR * ax.figure.dpi / 72
        inside = ax.bbox.fully_containsx(box.x0) and ax.bbox.fully_containsx(box.x1)
        if inside and clear and not any(box.overlaps(other) for other in taken):
            return [box]
        text.remove()
    return []
