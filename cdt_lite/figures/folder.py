"""The figure folder: every file of the original document, made from the live model, its numbers computed."""

import json
import warnings
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from anndata import AnnData
from matplotlib.figure import Figure

from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.figures import measured, plots, sketch
from cdt_lite.figures.charts import CHARTS, table
from cdt_lite.figures.diagrams import DIAGRAMS
from cdt_lite.figures.guide import Shown, guide
from cdt_lite.figures.trace import process_of
from cdt_lite.files import named, write_atomically
from cdt_lite.model import Config, V1Diffusion
from cdt_lite.model.v1 import MASK_RATIO, N_TIMESTEPS
from cdt_lite.training.checkpoint import Checkpoint

SIZES = ("dim", "n_head", "n_layer", "ffn_mult", "vocab_size", "n_genes", "n_total_genes", "gene_embed_dim",
         "perturb_sign_dim", "perturb_magnitude_dim", "magnitude_clip", "control_set_encoder_layers",
         "control_set_dim_hidden", "control_set_dim_out")
LOG_INTERVAL = 50  # a key of the original's configuration; nothing here reads it


def make_figures(
    config: Config, out: str | Path, capsule: Checkpoint | None = None, screen: AnnData | None = None,
    dark: bool = False,
) -> list[Path]:
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
    folder = Folder(named(out), dark)
    plots.use_style(dark)
    known = config_table(config)
    folder.write("model_config.json", as_json(known | {"everything": asdict(config)}))
    folder.write("model_config.txt", table("Model configuration", {name: str(value) for name, value in known.items()}))
    panels = {"diffusion_process": measured.diffusion_panel(config, capsule, screen)}
    if capsule is not None and screen is not None:
        panels["attention_mechanism"] = measured.attention_panel(capsule, screen)
    for name, draw in DIAGRAMS.items():
        folder.diagram(draw(config), panels.get(name))
    for name, draw_chart in CHARTS.items():
        folder.chart(name, *draw_chart(config))
    if capsule is not None and screen is not None:
        folder.write("denoising.gif", measured.denoising_gif(capsule, screen))
    folder.write("README.md", guide(config, folder.shown, measured="attention_mechanism" in panels))
    return folder.files


class Folder:
    """Where the figures go; remembers what was written, and what each figure shows."""

    def __init__(self, path: Path, dark: bool) -> None:
        self.path, self.dark, self.can_draw = path, dark, True
        self.files: list[Path] = []
        self.shown: dict[str, Shown] = {}
        try:
            sketch.binary()
        except CDTError as error:
            warnings.warn(f"{error} Only DOT and JSON of the diagrams are written.", CDTWarning, stacklevel=3)
            self.can_draw = False

    def write(self, name: str, content: str | bytes) -> None:
        """Writes one file; it belongs to the figure whose name it begins with."""
        path = self.path / name
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.encode() if isinstance(content, str) else content)
        except OSError as error:
            why = f"cannot write figures into {self.path} ({error.strerror}): choose another folder"
            raise CDTError(why) from error
        self.files.append(path)
        for figure, shown in self.shown.items():
            if name.startswith(figure):
                shown.files.append(name)

    def diagram(self, drawn: sketch.Diagram, panel: measured.Panel | None = None) -> None:
        """Writes a diagram as SVG, PNG, DOT and JSON; a measured panel, if there is one, gets files of its own."""
        name, data = drawn.name, drawn.data
        shown = self.shown[name] = Shown(drawn.table)
        if self.can_draw:
            self.write(f"{name}.svg", sketch.render(drawn, "svg", self.dark))
            self.write(f"{name}.png", sketch.render(drawn, "png", self.dark))
            shown.pictures[f"{name}.png"] = drawn.alt
        self.write(f"{name}.dot", drawn.dot)
        if panel is not None:
            self.picture(f"{name}_measured", panel.figure, panel.alt, shown)
            data["measured"] = panel.data
        self.write(f"{name}.json", as_json(data))

    def chart(self, name: str, figure: Figure, data: dict[str, Any], text: str) -> None:
        """Writes a chart as SVG, PNG, JSON and text."""
        shown = self.shown[name] = Shown(data["rows"])
        self.picture(name, figure, data["alt"], shown)
        self.write(f"{name}.json", as_json({"name": name} | data))
        self.write(f"{name}.txt", text)

    def picture(self, name: str, figure: Figure, alt: str, shown: Shown) -> None:
        """Writes a figure as SVG and PNG, the same bytes for the same data, and closes it."""
        svg, png = BytesIO(), BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Description": alt})
        figure.savefig(png, format="png")
        plt.close(figure)
        self.write(f"{name}.svg", svg.getvalue())
        self.write(f"{name}.png", sketch.small_png(png.getvalue()))
        shown.pictures[f"{name}.png"] = alt


def as_json(data: dict[str, Any]) -> str:
    """Returns data as a readable JSON file."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def config_table(config: Config) -> dict[str, Any]:
    """Returns the configuration under the original document's own names."""
    stage, found = config.finetune, dict[str, Any](preset=config.name)
    found |= {name: getattr(config.model, name) for name in SIZES}
    if isinstance(process_of(config), V1Diffusion):
        found |= {"n_timesteps": N_TIMESTEPS, "mask_ratio": MASK_RATIO}
    return found | {
        "schedule": config.diffusion.sampling_schedule,
        "batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "weight_decay": stage.weight_decay,
        "warmup_steps": stage.warmup_steps,
        "pretrain_epochs": config.pretrain.epochs,
        "finetune_epochs": stage.epochs,
        "log_interval": LOG_INTERVAL,
        "checkpoint_interval": stage.checkpoint_interval,
    }
