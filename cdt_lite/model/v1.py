"""The original document's time embedding."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cdt_lite.model.config import ModelConfig
from cdt_lite.model.layers import MLP


def sinusoid(position: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape dim"]:
    """Returns sines and cosines of `position` at `dim / 2` frequencies, 1 to 1/10,000 (Vaswani 2017, section 3.5)."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, device=position.device) / half)
    angle = position[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """The amount of noise as a vector: sinusoid, Linear, GELU, Linear.

    v1 feeds the step index 0..T-1; `time_input="mask_ratio"` feeds the share of masked genes, stretched to 0..1000;
    `default` and `lite` have no such input.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.stretch = float(config.n_timesteps - 1) if config.time_input == "timestep" else 1000.0
        self.mlp = MLP(config.dim, config.dim, config.dim)

    def forward(self, t: Float[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Embeds t in [0, 1]: in v1 timestep / (T - 1), else the share of masked genes."""
        return self.mlp(sinusoid(t * self.stretch, self.dim))
