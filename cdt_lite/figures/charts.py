"""The two charts of the original document: where the parameters are, and what operations, memory and time they cost."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdt_lite.figures import accounting, cost, plots
from cdt_lite.model import Config

Chart = tuple[Figure, dict[str, Any], str]  # a figure, its data, the same as plain text
CARDS = (8, 16, 24, 80, 141)  # GB
PLAN = (1_000_000, 200_000)  # cells of pretraining and fine-tuning
MODES = {"fused, fp32": (True, False), "fused, bf16": (True, True),  # attention kernel, precision
         "naive, fp32": (False, False), "naive, bf16": (False, True)}
SEGMENTS = {  # of the bars that compare three totals -> the terms in each
    "transformer blocks": ["transformer layers", "self-attention", "cross-attention", "FFN", "block norms",
                           "block adaLN offsets"],
    "gene table": ["gene table", "gene embedding"],
    "position embedding": ["position embedding"],
    "control-set encoder": ["control-set encoder"],
    "condition": ["conditioning projection", "magnitude MLP", "sign embedding", "time MLP", "time embedding",
                  "depth MLP", "adaLN modulation", "no / unknown target"],
}


def table(title: str, values: Mapping[str, Any], total: str = "") -> str:
    """Returns a plain text table; with the name of a total, each number's share of it too."""
    whole = sum(values.values()) if total else 0
    out = [title, "-" * len(title)]
    for name, value in values.items():
        share = f"  {value / whole:6.1%}" if whole else ""
        if not isinstance(value, str):
            value = f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
        out.append(f"{name:44s} {value:>18s}{share}")
    if total:
        out.append(f"{total:44s} {whole:>18,}")
    return "\n".join(out) + "\n\n"


def parameter_breakdown(config: Config) -> Chart:
    """Draws where the parameters are, and the document's two totals beside the module's own."""
    parts = accounting.parameters_by_part(config)
    totals = {"document, headline": accounting.nominal_parameters(config),
              "document, breakdown": accounting.document_breakdown(config),
              "the module itself": parts}
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
    return found | {"the rest": sum(terms.values()) - sum(found.values())}


def computational_analysis(config: Config) -> Chart:
    """Draws operations by part, their growth with genes, memory by batch, and the roofline."""
    flops = accounting.flops_by_part(config)
    gflop = {name: round(value / 1e9, 3) for name, value in flops.items()}
    memory: dict[str, list[float]] = {"cells": [2.0, 32.0, 128.0, 512.0]}
    fits, rows = {}, [["part or mode", "GFLOP a cell"]]
    rows[0] += [f"largest batch, {card} GB" for card in CARDS]
    for name, value in gflop.items():
        rows.append([name, f"{value:,}"])
    for name, mode in MODES.items():
        used = [sum(cost.memory(config, int(cells), *mode).values()) for cells in memory["cells"]]
        memory[name] = np.round(np.divide(used, 1e9), 2).tolist()
        fits[name] = {f"{card} GB": cost.largest_batch(config, card, *mode) for card in CARDS}
        rows.append([f"training, {name}", "", *map(str, fits[name].values())])

    figure, axes = plots.grid(2, 2, (12, 9.5))
    _draw_flops(flops, axes[0, 0])
    _draw_growth(config, axes[0, 1])
    _draw_memory(memory, axes[1, 0])
    _draw_roofline(config, axes[1, 1])
    of_32 = {name: memory[name][1] for name in MODES}
    alt = plots.alt_text("GFLOP a cell by part", gflop)
    alt += " " + plots.alt_text("Memory of training 32 cells, GB", of_32)
    data = {"title": "Operations, memory and time", "alt": alt, "rows": rows, "memory_gb": memory, "fits": fits}
    return figure, data, _analysis(config, flops, fits)


def _draw_flops(flops: dict[str, int], ax: Axes) -> None:
    total = sum(flops.values())
    shown = {name: float(value) for name, value in flops.items() if value > 0.0005 * total}
    plots.bars(shown, ax, "GFLOP a cell, forward", 1e9)
    ax.set_title(f"{total / 1e9:,.2f} GFLOP, by part")


def _draw_growth(config: Config, ax: Axes) -> None:
    part, curves = "self-attention QK^T and AV", {}
    for genes in (250, 500, 1000, 2000, 4000, 8000, 16000):
        flops = accounting.flops_by_part(config, genes)
        rest = sum(flops.values()) - flops[part]
        curves[genes] = {part: flops[part] / 1e9, "everything else": rest / 1e9}
    pd.DataFrame(curves).T.plot(ax=ax, loglog=True, lw=2, xlabel="genes", ylabel="GFLOP a cell, forward")
    plots.plain_ticks(ax)
    ax.set_title("Attention is quadratic in genes")


def _draw_memory(memory: dict[str, list[float]], ax: Axes) -> None:
    styles = {name: "--" if "naive" in name else "-" for name in MODES}
    curves = pd.DataFrame(memory).set_index("cells")
    curves.plot(ax=ax, loglog=True, lw=2, style=styles, xlabel="cells in a training step", ylabel="GB")
    for card in CARDS:
        ax.axhline(card, color=plots.PALETTE["other"], lw=0.6, zorder=0)
        ax.annotate(f"{card} GB card", (2, card), fontsize=8, va="bottom", alpha=0.7)
    plots.plain_ticks(ax)
    ax.set_title("Memory of training (computed)")


def _draw_roofline(config: Config, ax: Axes) -> None:
    ceilings = {name: cost.ACCELERATORS[name] for name in ("H200", "A100 80GB", "L4")}
    plots.roofline(cost.intensities(config), ceilings, ax)
    ax.set_title("Roofline of each part, 32 cells")


def _analysis(config: Config, flops: dict[str, int], fits: dict[str, dict[str, int]]) -> str:
    listed, intensity, steps, hours = accounting.products(config), {}, {}, {}
    training = {"3 x forward": accounting.training_flops(listed),
                "exact, MATH kernel": accounting.training_flops(listed, exact=True)}
    for product in accounting.products(config, n_sets=32):
        intensity[f"{product.part}: {product.name}"] = product.flops / product.bytes
    for name in cost.ACCELERATORS:
        steps[name] = f"{1e3 * cost.step_seconds(config, name)[1]:.1f} ms"
        hours[name] = cost.plan_hours(config, name, *PLAN)
    law, error = cost.activation_law(config)
    formula = f"a + b G + B (c + d G + e G^2), error {error:.0e}"
    text = table("FLOPs of one cell, forward", flops, "total")
    text += table("FLOPs of one cell, training", training)
    text += table("Document's formula at batch 32", accounting.document_flops(config), "total")
    text += table("FLOP per byte of each product, 32 cells", intensity)
    for name, mode in MODES.items():
        text += table(f"Bytes of training 32 cells: {name}", cost.memory(config, 32, *mode), "total")
    text += table(f"Bytes kept for B cells of G genes (fused, fp32): {formula}", law)
    for name, cells in fits.items():
        text += table(f"Largest batch: {name}", cells)
    text += table("Least time of a training step, 32 cells (computed)", steps)
    return text + table("Hours of the plan, 1,000,000 and 200,000 cells", hours)


CHARTS: dict[str, Callable[[Config], Chart]] = {
    "parameter_breakdown": parameter_breakdown, "computational_analysis": computational_analysis}
