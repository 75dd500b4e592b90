"""The figure folder: every file of the original document, made from the live model, its numbers computed."""

import json
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from cdt_lite.errors import CDTError
from cdt_lite.figures import accounting as count
from cdt_lite.figures import measured, plots, sketch
from cdt_lite.figures.diagrams import DIAGRAMS
from cdt_lite.figures.guide import guide
from cdt_lite.files import write_atomically
from cdt_lite.model.config import Config

if TYPE_CHECKING:
    from anndata import AnnData

    from cdt_lite.training.checkpoint import Checkpoint

GB = 1e9
CARDS = (8, 16, 24, 80, 141)
MODES = {"fused, fp32": (True, False), "fused, bf16": (True, True),  # attention kernel, precision
         "naive, fp32": (False, False), "naive, bf16": (False, True)}


def make_figures(config: Config, out: str | Path, capsule: "Checkpoint | None" = None, screen: "AnnData | None" = None,
                 dark: bool = False) -> list[Path]:
    """Writes the whole figure folder and returns the files, in the order of its README.

    Args:
        config: The preset to draw; only names and shapes of its model are made, never its weights.
        out: Folder, made if need be.
        capsule: A trained model: adds its attention, and its denoising of a real cell.
        screen: The cells to show it on.
        dark: Light ink on dark paper, for dark slides and pages.

    Raises:
        CDTError: The folder cannot be written.
    """
    folder = Folder(Path(out), dark)
    plots.use_style(dark)
    known = config_table(config)
    folder.text("model_config.json", json.dumps(known | {"everything": config.to_dict()}, indent=1) + "\n")
    folder.text("model_config.txt", table("Model configuration", {name: str(value) for name, value in known.items()}))
    trained = capsule is not None and screen is not None
    panels = {"diffusion_process": measured.diffusion_panel(config, capsule, screen)}
    if capsule is not None and screen is not None:
        panels["attention_mechanism"] = measured.attention_panel(capsule, screen)
    for name, draw in DIAGRAMS.items():
        folder.diagram(draw(config), panels.get(name))
    for name, draw_chart in CHARTS.items():
        figure, data, text = draw_chart(config)
        folder.chart(name, figure, data, text)
        plt.close(figure)
    if capsule is not None and screen is not None:
        folder.bytes("denoising.gif", measured.denoising_gif(capsule, screen))
    folder.text("README.md", guide(config, folder.shown, trained))
    return folder.files


class Folder:
    """Where the figures go; remembers what was written, and what each figure shows.

    Args:
        path: The folder.
        dark: Draw on dark paper.

    Raises:
        CDTError: It cannot be made or written.
    """

    def __init__(self, path: Path, dark: bool = False) -> None:
        self.path, self.dark, self.can_draw = path, dark, True
        self.files: list[Path] = []
        self.shown: dict[str, dict[str, Any]] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / ".writable", b"")
            (path / ".writable").unlink()
        except OSError as error:
            raise CDTError(f"cannot write figures into {path} ({error.strerror}): choose another folder.") from error
        try:
            sketch.binary()
        except CDTError as error:
            warnings.warn(f"{error} Only DOT and JSON of the diagrams are written.", stacklevel=3)
            self.can_draw = False

    def bytes(self, name: str, content: bytes) -> None:
        """Writes one file."""
        write_atomically(self.path / name, content)
        self.files.append(self.path / name)

    def text(self, name: str, content: str) -> None:
        """Writes one text file."""
        self.bytes(name, content.encode())

    def _show(self, name: str, alt: str, rows: list[list[str]]) -> None:
        files = [path.name for path in self.files if path.stem == name]
        self.shown[name] = {"alt": alt, "rows": rows, "files": files}

    def diagram(self, drawn: sketch.Diagram, panel: measured.Panel | None = None) -> None:
        """Writes a diagram as SVG, PNG, DOT and JSON, with a measured panel under it if there is one."""
        alt, data = drawn.alt, drawn.data
        if panel is not None:
            alt, data = f"{alt} Below: {panel[1]}", data | {"measured": panel[2]}
        if self.can_draw:
            below = [panel[0]] if panel is not None else []
            svgs = [sketch.layout(drawn, "svg", self.dark).decode(), *(svg_of(figure) for figure in below)]
            pngs = [sketch.layout(drawn, "png", self.dark), *(png_of(figure) for figure in below)]
            self.bytes(f"{drawn.name}.svg", sketch.with_text(sketch.stack_svg(svgs), drawn.title, alt).encode())
            self.bytes(f"{drawn.name}.png", sketch.small_png(sketch.stack_png(pngs)))
        self.text(f"{drawn.name}.dot", drawn.dot)
        self.text(f"{drawn.name}.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        self._show(drawn.name, alt, drawn.table)

    def chart(self, name: str, figure: Figure, data: dict[str, Any], text: str) -> None:
        """Writes a chart as SVG, PNG, JSON and text."""
        self.bytes(f"{name}.svg", sketch.with_text(svg_of(figure), data["title"], data["alt"]).encode())
        self.bytes(f"{name}.png", sketch.small_png(png_of(figure)))
        self.text(f"{name}.json", json.dumps({"name": name, **data}, indent=1) + "\n")
        self.text(f"{name}.txt", text)
        self._show(name, data["alt"], data["rows"])


def svg_of(figure: Figure) -> str:
    """Returns a figure as SVG without a date, the same for the same data."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def png_of(figure: Figure) -> bytes:
    """Returns a figure as PNG at 200 dpi."""
    out = BytesIO()
    figure.savefig(out, format="png", dpi=200, metadata={"Software": None})
    return out.getvalue()


def config_table(config: Config) -> dict[str, Any]:
    """Returns the configuration under the original document's own names."""
    m, d, f = config.model, config.diffusion, config.finetune
    names = ("dim", "n_head", "n_layer", "ffn_mult", "vocab_size", "n_genes", "n_total_genes", "gene_embed_dim",
             "perturb_sign_dim", "perturb_magnitude_dim", "magnitude_clip", "control_set_encoder_layers",
             "control_set_dim_hidden", "control_set_dim_out", "n_timesteps")
    return {"preset": config.name, **{name: getattr(m, name) for name in names}, "mask_ratio": d.mask_ratio,
            "schedule": "cosine" if d.sampler == "v1" else d.sampling_schedule, "batch_size": f.batch_size,
            "learning_rate": f.learning_rate, "weight_decay": f.weight_decay, "warmup_steps": f.warmup_steps,
            "pretrain_epochs": config.pretrain.epochs, "finetune_epochs": f.epochs, "log_interval": f.log_interval,
            "checkpoint_interval": f.checkpoint_interval}


def table(title: str, values: Mapping[str, Any], total: str = "") -> str:
    """Returns a plain text table; with the name of a total, each number's share of it too."""
    whole = sum(values.values()) if total else 0
    out = [title, "-" * len(title)]
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if isinstance(value, float) else value
        out.append(f"{name:44s} {shown:>18s}" + (f"  {value / whole:6.1%}" if whole else ""))
    return "\n".join([*out, *([f"{total:44s} {whole:>18,}"] if total else [])]) + "\n\n"


def parameter_breakdown(config: Config) -> tuple[Figure, dict[str, Any], str]:
    """Draws where the parameters are, and the document's two totals beside the module's own."""
    parts = count.parameters_by_part(config)
    totals = {"document, headline": count.nominal_parameters(config),
              "document, breakdown": count.document_breakdown(config), "the module itself": parts}
    figure, axes = plots.grid(2, 1, (10, 9.5), height_ratios=[1.6, 1])
    largest = dict(sorted(parts.items(), key=lambda item: -item[1]))
    plots.bars(largest, axes[0], "million parameters", 1e6)
    axes[0].set_title(f"{sum(parts.values()):,} parameters, by part")
    grouped = {name: _grouped(terms) for name, terms in totals.items()}
    plots.stacked(grouped, axes[1], "million parameters", 1e6)
    axes[1].set_title("Three totals, and which terms they hold")
    sums = {name: sum(terms.values()) for name, terms in totals.items()}
    alt = plots.alt_text("Parameters by part", largest) + " " + plots.alt_text("Totals", sums)
    text = "".join(table(name, terms, "total") for name, terms in totals.items())
    rows = [["total", "term", "parameters"]]
    for name, terms in totals.items():
        rows += [[name, term, f"{value:,}"] for term, value in (terms | {"sum": sums[name]}).items()]
    return figure, {"title": "Parameters by part, and three totals", "alt": alt, "rows": rows, "totals": sums}, text


def _grouped(terms: Mapping[str, int]) -> dict[str, int]:
    """Sums terms into what the three totals have in common."""
    found = dict.fromkeys(("transformer blocks", "gene table", "position embedding", "control-set encoder", "condition",
                           "the rest"), 0)
    blocks = ("transformer layers", "self-attention", "cross-attention", "FFN", "block norms", "block adaLN offsets")
    same = {"gene embedding": "gene table", **dict.fromkeys(blocks, "transformer blocks"), **dict.fromkeys(
        ("conditioning projection", "magnitude MLP", "sign embedding", "time MLP", "time embedding", "depth MLP",
         "adaLN modulation", "no / unknown target"), "condition")}
    for name, value in terms.items():
        group = same.get(name, name)
        found[group if group in found else "the rest"] += value
    return {name: value for name, value in found.items() if value}


def computational_analysis(config: Config) -> tuple[Figure, dict[str, Any], str]:
    """Draws operations by part, their growth with genes, memory by batch, and the roofline."""
    flops, figure_axes = count.flops_by_part(config), plots.grid(2, 2, (12, 9.5))
    figure, axes = figure_axes
    shown = {name: value for name, value in flops.items() if value > 0.0005 * sum(flops.values())}
    plots.bars({name: float(value) for name, value in shown.items()}, axes[0, 0], "GFLOP a cell, forward", 1e9)
    axes[0, 0].set_title(f"{sum(flops.values()) / 1e9:,.2f} GFLOP, by part")
    growth = _growth(config)
    plots.lines(growth.pop("genes"), growth, axes[0, 1], "genes", "GFLOP a cell, forward")
    axes[0, 1].set_title("Attention is quadratic in genes")
    memory = _memory(config)
    plots.lines(memory["cells"], {name: memory[name] for name in MODES}, axes[1, 0], "cells in a training step", "GB",
                dashed=[name for name in MODES if "naive" in name])
    for card in CARDS:
        axes[1, 0].axhline(card, color=plots.PALETTE["other"], lw=0.6, zorder=0)
        axes[1, 0].annotate(f"{card} GB card", (2, card), fontsize=8, va="bottom", alpha=0.7)
    axes[1, 0].set_title("Memory of training (computed)")
    points = _intensities(config)
    ceilings = {name: count.ACCELERATORS[name][:2] for name in ("H200", "A100 80GB", "L4")}
    plots.roofline(points, ceilings, axes[1, 1])
    axes[1, 1].set_title("Roofline of each part, 32 cells")
    gflop = {name: round(value / 1e9, 3) for name, value in flops.items()}
    alt = plots.alt_text("GFLOP a cell by part", gflop) + " " + plots.alt_text(
        "Memory of training 32 cells, GB", {name: memory[name][memory["cells"].index(32)] for name in MODES})
    fits = _fits(config)
    rows = [["part or mode", "GFLOP a cell", *(f"largest batch, {card} GB" for card in CARDS)],
            *([name, f"{value:,}"] for name, value in gflop.items()),
            *([f"training, {name}", "", *map(str, row.values())] for name, row in fits.items())]
    data = {"title": "Operations, memory and time", "alt": alt, "rows": rows, "memory_gb": memory, "fits": fits}
    return figure, data, _analysis_text(config, flops, data)


def _growth(config: Config) -> dict[str, list[float]]:
    genes = [250, 500, 1000, 2000, 4000, 8000, 16000]
    by_size = [count.flops_by_part(config, g) for g in genes]
    attention = [f["self-attention QK^T and AV"] / 1e9 for f in by_size]
    return {"genes": [float(g) for g in genes], "self-attention QK^T and AV": attention,
            "everything else": [sum(f.values()) / 1e9 - a for f, a in zip(by_size, attention, strict=True)]}


def _memory(config: Config) -> dict[str, list[float]]:
    cells = (2, 32, 128, 512)
    used = {name: [sum(count.memory(config, n, *mode).values()) for n in cells] for name, mode in MODES.items()}
    return {"cells": [float(n) for n in cells], **{name: [round(x / GB, 2) for x in row] for name, row in used.items()}}


def _fits(config: Config) -> dict[str, dict[str, int]]:
    return {name: {f"{card} GB": count.largest_batch(config, card, *mode) for card in CARDS}
            for name, mode in MODES.items()}


def _intensities(config: Config, cells: int = 32) -> dict[str, tuple[float, float]]:
    """Returns (FLOP per byte, share of all FLOPs) of the parts that do a hundredth of the work or more."""
    listed = count.products(config, n_sets=cells)
    total, found = sum(p.flops for p in listed), {}
    names = {p.part: p.part.replace("self q", "q").replace("cross q", "q") for p in listed}  # both are the same size
    for part in dict.fromkeys(names.values()):
        own = [p for p in listed if names[p.part] == part]
        flops = sum(p.flops for p in own)
        if flops > 0.01 * total:
            found[part] = (flops / sum(p.bytes for p in own), flops / total)
    return found


def _analysis_text(config: Config, flops: dict[str, int], data: dict[str, Any]) -> str:
    listed = {f"{p.part}: {p.name}": p for p in count.products(config, n_sets=32)}
    law, error = count.activation_law(config)
    steps = {name: f"{1e3 * count.step_seconds(config, name)[1]:.1f} ms" for name in count.ACCELERATORS}
    hours = {name: count.plan_hours(config, name, 1_000_000, 200_000) for name in count.ACCELERATORS}
    return "".join([
        table("FLOPs of one cell, forward", flops, "total"),
        table("FLOPs of one cell, training", {"3 x forward": count.training_flops(config),
                                              "exact, MATH kernel": count.training_flops(config, exact=True)}),
        table("Document's formula at batch 32", count.document_flops(config), "total"),
        table("FLOP per byte of each product, 32 cells", {name: p.flops / p.bytes for name, p in listed.items()}),
        *(table(f"Bytes of training 32 cells: {name}", count.memory(config, 32, *mode), "total")
          for name, mode in MODES.items()),
        table(f"Bytes kept for B cells of G genes (fused, fp32): a + b G + B (c + d G + e G^2), error {error:.0e}",
              dict(zip("abcde", law, strict=True))),
        *(table(f"Largest batch: {name}", fits) for name, fits in data["fits"].items()),
        table("Least time of a training step, 32 cells (computed)", steps),
        table("Hours of the plan, 1,000,000 and 200,000 cells", hours)])


CHARTS: dict[str, Callable[[Config], tuple[Figure, dict[str, Any], str]]] = {
    "parameter_breakdown": parameter_breakdown, "computational_analysis": computational_analysis}
