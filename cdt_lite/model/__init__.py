"""The model, made to be recited: its sizes, its layers, the network, and the process that it denoises."""

from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import PRESETS, Config, get_preset
from cdt_lite.model.diffusion import MaskedDiffusion
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.model.v1 import V1, V1Diffusion

__all__ = ["CDT", "PRESETS", "V1", "Config", "MaskedDiffusion", "Perturbation", "V1Diffusion", "build", "get_preset"]


def build(config: Config, seed: int = 0) -> tuple[CDT | V1, MaskedDiffusion | V1Diffusion]:
    """Returns the network and the process of a preset: the one place that reads `Config.system`.

    Args:
        config: A preset.
        seed: Seed of the initial weights.
    """
    if config.system == "v1":
        return V1(config.model, seed), V1Diffusion(config.tokenizer.mask_id)
    return CDT(config.model, seed), MaskedDiffusion(config.diffusion, config.tokenizer.mask_id)
