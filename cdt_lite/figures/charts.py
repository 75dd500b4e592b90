"""The two charts of the original document: where the parameters are, and what operations, memory and time they cost."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdt_lite.figures import accounting, cost, plots
from cdt_lite.model import Config

Chart = tuple[Figure, dict[str, Any], str]  # a figure, its data, the same as plain text
CARDS = (8, 16, 24, 80, 141)  # GB
PLAN = (1_000_000, 200_000)  # cells of pretraining and fine-tuning
MODES = {  # fused attention kernel, bf16
    "fused, fp32": (True, False),
    "fused, bf16": (True, True),
    "naive, fp32": (False, False),
    "naive, bf16": (False, True),
}
BLOCKS = ("transformer layers", "self-attention", "cross-attention", "FFN", "block norms", "block adaLN offsets")
TOLD = ("conditioning projection", "magnitude MLP", "sign embedding", "time MLP", "time embedding", "depth MLP",
        "adaLN modulation", "no / unknown target")
SEGMENTS = {  # of the bars that compare three totals -> the terms in each
    "transformer blocks": BLOCKS,
    "gene table": ("gene table", "gene embedding"),
    "position embedding": ("position embedding",),
    "control-set encoder": ("control-set encoder",),
    "condition": TOLD,
}


def table(title: str, values: Mapping[str, Any], total: str = "") -> str:
    """Returns a plain text table; with the name of a total, each number's share of it too."""
    whole = sum(values.values()) if total else 0
    out = [title, "-" * len(title)]
    for name, value in values.items():
        if isinstance(value, int):
            value = f"{value:,}" + (f"  {value / whole:6.1%}" if whole else "")
        elif isinstance(value, float):
            value = f"{value:,.3f}"
        number, gap, share = value.partition("  ")
        out.append(f"{name:44s} {number:>18s}{gap}{share}")
    if total:
        out.append(f"{total:44s} {whole:>18,}")
    return "\n".join(out) + "\n\n"


def parameter_breakdown(config: Config) -> Chart:
    """Draws where the parameters are, and the document's two totals beside the module's own."""
    parts = accounting.parameters_by_part(config)
    totals = {
        "document, headline": accounting.nominal_parameters(config),
        "document, breakdown": accounting.document_breakdown(config),
        "the module itself": parts,
    }
    sums, segments, text, rows = {}, {}, "", [["total", "term", "parameters"]]
    for name, terms in totals.items():
        sums[name] = sum(terms.values())
        segments[name] = _segments(terms)
        text += table(name, terms, "total")
        for term, value in (terms | {"sum": sums[name]}).items():
            rows.append([name, term, f"{value:,}"])

    figure, axes = plots.grid(2, 1, (10, 9.5), height_ratios=[1.6, 1])
    largest = dict(sorted(parts.items(), key=lambda item: -item[1]))
    plots.bars(largest, axes[0], "million parameters", 1e6)
    axes[0].set_title(f"{sum(parts.values()):,} parameters, by part")
    plots.stacked(segments, axes[1], "million parameters", 1e6)
    axes[1].set_title("Three totals, and which terms they hold")
    alt = plots.alt_text("Parameters by part", largest) + " " + plots.alt_text("Totals", sums)
    data = {"title": "Parameters by part, and three totals", "alt": alt, "rows": rows, "totals": sums}
    return figure, data, text


def _segments(terms: Mapping[str, int]) -> dict[str, int]:
    """Sums terms into what the three totals have in common."""
    found = {}
    for segment, names in SEGMENTS.items():
        found[segment] = sum(terms.get(name, 0) for name in names)
    found["the rest"] = sum(terms.values()) - sum(found.values())
    return found


def computational_analysis(config: Config) -> Chart:
    """Draws operations by part, their growth with genes, memory by batch, and the roofline."""
    flops = accounting.flops_by_part(config)
    memory, fits = _memory(config), _fits(config)
    figure, axes = plots.grid(2, 2, (12, 9.5))
    _draw_flops(flops, axes[0, 0])
    _draw_growth(config, axes[0, 1])
    _draw_memory(memory, axes[1, 0])
    _draw_roofline(config, axes[1, 1])

    gflop = {name: round(value / 1e9, 3) for name, value in flops.items()}
    at_32 = {name: memory[name][memory["cells"].index(32)] for name in MODES}
    alt = plots.alt_text("GFLOP a cell by part", gflop) + " " + plots.alt_text("Memory of training 32 cells, GB", at_32)
    rows = [["part or mode", "GFLOP a cell"]]
    rows[0] += [f"largest batch, {card} GB" for card in CARDS]
    for name, value in gflop.items():
        rows.append([name, f"{value:,}"])
    for name, cells in fits.items():
        rows.append([f"training, {name}", "", *map(str, cells.values())])
    data = {"title": "Operations, memory and time", "alt": alt, "rows": rows, "memory_gb": memory, "fits": fits}
    return figure, data, _analysis(config, flops, fits)


def _draw_flops(flops: dict[str, int], ax: Axes) -> None:
    total = sum(flops.values())
    shown = {name: float(value) for name, value in flops.items() if value > 0.0005 * total}
    plots.bars(shown, ax, "GFLOP a cell, forward", 1e9)
    ax.set_title(f"{total / 1e9:,.2f} GFLOP, by part")


def _draw_growth(config: Config, ax: Axes) -> None:
    genes, attention, rest = [250, 500, 1000, 2000, 4000, 8000, 16000], [], []
    for n in genes:
        flops = accounting.flops_by_part(config, n)
        attention.append(flops["self-attention QK^T and AV"] / 1e9)
        rest.append(sum(flops.values()) / 1e9 - attention[-1])
    curves = {"self-attention QK^T and AV": attention, "everything else": rest}
    plots.lines(genes, curves, ax, "genes", "GFLOP a cell, forward")
    ax.set_title("Attention is quadratic in genes")


def _memory(config: Config) -> dict[str, list[float]]:
    cells = (2, 32, 128, 512)
    used = {"cells": [float(n) for n in cells]}
    for name, mode in MODES.items():
        used[name] = [round(sum(cost.memory(config, n, *mode).values()) / 1e9, 2) for n in cells]
    return used


def _draw_memory(memory: dict[str, list[float]], ax: Axes) -> None:
    curves = {name: memory[name] for name in MODES}
    plots.lines(memory["cells"], curves, ax, "cells in a training step", "GB")
    for card in CARDS:
        ax.axhline(card, color=plots.PALETTE["other"], lw=0.6, zorder=0)
        ax.annotate(f"{card} GB card", (2, card), fontsize=8, va="bottom", alpha=0.7)
    ax.set_title("Memory of training (computed)")


def _fits(config: Config) -> dict[str, dict[str, int]]:
    found = {}
    for name, mode in MODES.items():
        found[name] = {f"{card} GB": cost.largest_batch(config, card, *mode) for card in CARDS}
    return found


def _draw_roofline(config: Config, ax: Axes) -> None:
    """Shows the parts that do a hundredth of the work or more."""
    flops: dict[str, int] = {}
    moved: dict[str, int] = {}
    for product in accounting.products(config, n_sets=32):
        part = product.part.replace("self q", "q").replace("cross q", "q")  # both are the same size
        flops[part] = flops.get(part, 0) + product.flops
        moved[part] = moved.get(part, 0) + product.bytes
    total, points = sum(flops.values()), {}
    for part in flops:
        if flops[part] > 0.01 * total:
            points[part] = (flops[part] / moved[part], flops[part] / total)
    ceilings = {name: cost.ACCELERATORS[name] for name in ("H200", "A100 80GB", "L4")}
    plots.roofline(points, ceilings, ax)
    ax.set_title("Roofline of each part, 32 cells")


def _analysis(config: Config, flops: dict[str, int], fits: dict[str, dict[str, int]]) -> str:
    listed = accounting.products(config)
    training = {
        "3 x forward": accounting.training_flops(listed),
        "exact, MATH kernel": accounting.training_flops(listed, exact=True),
    }
    intensity, steps, hours = {}, {}, {}
    for product in accounting.products(config, n_sets=32):
        intensity[f"{product.part}: {product.name}"] = product.flops / product.bytes
    for name in cost.ACCELERATORS:
        steps[name] = f"{1e3 * cost.step_seconds(config, name)[1]:.1f} ms"
        hours[name] = cost.plan_hours(config, name, *PLAN)
    law, error = cost.activation_law(config)
    formula = f"a + b G + B (c + d G + e G^2), error {error:.0e}"
    out = [
        table("FLOPs of one cell, forward", flops, "total"),
        table("FLOPs of one cell, training", training),
        table("Document's formula at batch 32", accounting.document_flops(config), "total"),
        table("FLOP per byte of each product, 32 cells", intensity),
    ]
    for name, mode in MODES.items():
        out.append(table(f"Bytes of training 32 cells: {name}", cost.memory(config, 32, *mode), "total"))
    out.append(table(f"Bytes kept for B cells of G genes (fused, fp32): {formula}", asdict(law)))
    out += [table(f"Largest batch: {name}", cells) for name, cells in fits.items()]
    out.append(table("Least time of a training step, 32 cells (computed)", steps))
    out.append(table("Hours of the plan, 1,000,000 and 200,000 cells", hours))
    return "".join(out)


CHARTS: dict[str, Callable[[Config], Chart]] = {
    "parameter_breakdown": parameter_breakdown,
    "computational_analysis": computational_analysis,
}
