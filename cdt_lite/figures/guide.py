"""The guide to the figure folder: the original document's sections in its order, its claims kept or corrected.

The words are in `guide.md.j2`; here are the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from cdt_lite import __version__
from cdt_lite.figures import accounting, cost
from cdt_lite.figures.charts import PLAN
from cdt_lite.figures.trace import CONTROLS, process_of, trace
from cdt_lite.model import Config, V1Diffusion
from cdt_lite.model.v1 import BETA_MEAN, CURRICULUM, MASK_RATIO, curriculum_ratio, expected_reveals

RELEASED = "2026-11-24"  # the release's date, as in CITATION.cff: not the day on which someone ran this
TEMPLATE = Path(__file__).with_name("guide.md.j2")
WHAT = {
    "architecture_overview": "High-level overview of the model",
    "layer_breakdown": "Every layer that holds parameters",
    "forward_pass_flow": "One cell's forward pass, step by step",
    "attention_mechanism": "Multi-query self-attention and cross-attention",
    "conditioning_pipeline": "How a perturbation and control cells become a condition",
    "diffusion_process": "Hiding genes, and revealing them again",
    "parameter_breakdown": "Where the parameters are, and three totals",
    "computational_analysis": "Operations, memory and time",
}


@dataclass
class Shown:
    """A figure as the guide shows it: its files, its pictures with their alt text, its content as rows."""

    rows: list[list[str]]
    pictures: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def facts(config: Config) -> dict[str, Any]:
    """Computes every number that the guide quotes."""
    genes, process = config.model.n_genes, process_of(config)
    parts, flops = accounting.parameters_by_part(config), accounting.flops_by_part(config)
    memory = cost.memory(config, bf16=True)
    is_v1, reveals = isinstance(process, V1Diffusion), expected_reveals(genes).tolist()
    fused, error = cost.activation_law(config)
    naive, _ = cost.activation_law(config, fused=False)
    return {
        "n": sum(parts.values()),
        "nominal": sum(accounting.nominal_parameters(config).values()),
        "other": sum(accounting.document_breakdown(config).values()),
        "parts": parts,
        "flops": flops,
        "controls": CONTROLS,
        "is_v1": is_v1,
        "mask_ratio": MASK_RATIO,
        "reveals": reveals,
        "forwards": len(reveals if isinstance(process, V1Diffusion) else process.counts(genes)),
        "logits": trace(config)["head"].output[-1],
        "hours": cost.plan_hours(config, "H200 (measured)", *PLAN),
        "first": curriculum_ratio(0) * BETA_MEAN,
        "last": curriculum_ratio(CURRICULUM[3]) * BETA_MEAN,
        "forward": sum(flops.values()) / 1e9,
        "bare": sum(accounting.flops_by_part(config, n_controls=0).values()) / 1e9,
        "claimed": sum(accounting.document_flops(config).values()) / 1e9,
        "fused": fused,
        "naive": naive,
        "error": error,
        "kept": memory["activations"] / 1e9,
        "kept_fp32": cost.memory(config)["activations"] / 1e9,
        "trained": sum(memory.values()) / 1e9,
    }


def guide(config: Config, figures: Mapping[str, Shown], measured: bool) -> str:
    """Returns the folder's README.

    Args:
        config: The preset that is drawn.
        figures: What is shown, by the figure's name.
        measured: Whether a trained model was at hand.
    """
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters["f"] = format
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        config=config, m=config.model, version=__version__, released=RELEASED, what=WHAT, figures=figures,
        measured=measured, **facts(config),
    )
