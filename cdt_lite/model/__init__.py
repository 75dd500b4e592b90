"""The model, made to be recited: its sizes, its layers, the network, and the process that it reverses."""

from collections.abc import Callable

from cdt_lite.errors import require_whole
from cdt_lite.model.cdt import CDT, ControlSet
from cdt_lite.model.config import PRESETS, Config, TokenizerConfig, get_preset
from cdt_lite.model.diffusion import (
    MaskedDiffusion,
    draw,
    draw_masks,
    guide,
    hide,
    loss_curve,
    masked_loss,
    nelbo,
    sample_steps,
)
from cdt_lite.model.layers import MLP, ModulatedResidual, MultiQueryAttention
from cdt_lite.model.mean_effect import WHOLE, tilts
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.model.schedule import best_schedule, cosine_counts, full_curve, schedule_error, uniform_counts
from cdt_lite.model.v1 import (
    CURRICULUM,
    V1,
    TokenControlSet,
    V1Diffusion,
    beta_masks,
    expected_reveals,
    mask_probabilities,
)

__all__ = [
    "CDT", "CURRICULUM", "MLP", "NO_TARGET", "PRESETS", "UNKNOWN_TARGET", "V1", "Config", "ControlSet",
    "MaskedDiffusion", "ModulatedResidual", "MultiQueryAttention", "Perturbation", "TokenControlSet", "TokenizerConfig",
    "V1Diffusion", "WHOLE",
    "best_schedule", "beta_masks", "build", "compile_blocks", "cosine_counts", "draw", "draw_masks",
    "expected_reveals", "full_curve", "get_preset", "guide", "hide", "loss_curve", "mask_probabilities",
    "masked_loss", "nelbo", "sample_steps", "schedule_error", "tilts", "uniform_counts",
]


def build(config: Config, seed: int = 0) -> tuple[CDT | V1, MaskedDiffusion | V1Diffusion]:
    """Returns the network and the process of a preset: the one place that reads `Config.system`.

    Args:
        config: A preset.
        seed: Seed of the initial weights.
    """
    require_whole("seed", seed)
    if config.system == "v1":
        return V1(config.model, seed), V1Diffusion(config.tokenizer.mask_id)
    return CDT(config.model, seed), MaskedDiffusion(config.diffusion, config.tokenizer.mask_id)


def compile_blocks(model: CDT | V1, backend: str | Callable = "inductor") -> None:
    """Compiles a network's blocks in place, where nearly all work is, each as one graph for any number of genes.

    Args:
        model: Its names and its saved form stay as they are.
        backend: Of torch.compile.
    """
    for block in model.blocks:
        block.compile(dynamic=True, fullgraph=True, backend=backend)
