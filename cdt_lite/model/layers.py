"""All layers there are: multi-query attention, the MLP, the (modulated) residual step, v1's post-norm encoder layer."""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class MultiQueryAttention(nn.Module):
    """Attention in which every head asks its own question of one shared set of keys and values.

    With one K/V head and no causal mask, heads are just more queries: q (N, G, H*hd) viewed as (N, G*H, hd) attends to
    k, v (N, M, hd) in one fused call, exactly, without repeating K and V and without a transpose.

    Args:
        dim: Width D of the queries and of the output.
        n_head: Number of query heads H; head dim is D / H.
        memory_dim: Width of what is attended to, for cross-attention; None for self-attention (one fused projection).

    Source: Shazeer 2019, arXiv:1911.02150, section 3.
    """

    def __init__(self, dim: int, n_head: int, memory_dim: int | None = None) -> None:
        super().__init__()
        self.n_head, self.head_dim = n_head, dim // n_head
        if memory_dim is None:
            self.qkv = nn.Linear(dim, dim + 2 * self.head_dim)
        else:
            self.q = nn.Linear(dim, dim)
            self.kv = nn.Linear(memory_dim, 2 * self.head_dim)
        self.out = nn.Linear(dim, dim)

    def project(self, x: Float[Tensor, "N G D"], memory: Float[Tensor, "N M E"] | None = None
                ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns q (N, G*H, hd), k (N, M, hd), v (N, M, hd)."""
        if memory is None:
            q, k, v = self.qkv(x).split([self.n_head * self.head_dim, self.head_dim, self.head_dim], dim=-1)
        else:
            q, (k, v) = self.q(x), self.kv(memory).chunk(2, dim=-1)
        return q.reshape(q.shape[0], -1, self.head_dim), k, v

    def forward(self, x: Float[Tensor, "N G D"], memory: Float[Tensor, "N M E"] | None = None
                ) -> Float[Tensor, "N G D"]:
        """Attends from each of the G positions of `x` to `memory`, or to `x` itself."""
        q, k, v = self.project(x, memory)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
        return self.out(mixed.reshape(x.shape))

    def weights(self, x: Float[Tensor, "N G D"], memory: Float[Tensor, "N M E"] | None = None
                ) -> Float[Tensor, "N H G M"]:
        """Returns the attention weights themselves (rows sum to 1): for looking, not for training."""
        q, k, _ = self.project(x, memory)
        scores = (q @ k.transpose(1, 2) / math.sqrt(self.head_dim)).softmax(-1)
        return scores.unflatten(1, (x.shape[1], self.n_head)).transpose(1, 2)


class MLP(nn.Sequential):
    """Linear layers with GELU between: MLP(a, b, c) is Linear(a, b), GELU, Linear(b, c)."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            layers += [nn.GELU()] * (i > 0) + [nn.Linear(n_in, n_out)]
        super().__init__(*layers)


class Residual(nn.Module):
    """One pre-norm residual step, h + inner(norm(h)); `modulated`: h + gate * inner(norm(h) * (1 + scale) + shift).

    shift, scale and gate come from the condition plus a learned offset. All start at zero, so a fresh modulated step is
    the identity (adaLN-zero: Peebles & Xie 2023, arXiv:2212.09748, section 3.2).
    """

    def __init__(self, dim: int, inner: nn.Module, modulated: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=not modulated)
        self.inner = inner
        if modulated:
            self.offset = nn.Parameter(torch.zeros(3, dim))

    def forward(self, h: Float[Tensor, "B S G D"], modulation: Float[Tensor, "B S 3 D"] | None,
                memory: Float[Tensor, "B C E"] | None = None) -> Float[Tensor, "B S G D"]:
        """Applies the step. Self-attention and MLP see each cell alone; with `memory`, a set's S cells share it."""
        x = self.norm(h)
        if modulation is not None:
            shift, scale, gate = (modulation + self.offset)[..., None, :].unbind(-3)
            x = x * (1 + scale) + shift
        if memory is None:
            y = self.inner(x.flatten(0, 1)).view_as(h)
        else:
            y = self.inner(x.flatten(1, 2), memory).view_as(h)
        return h + y if modulation is None else h + gate * y


class PostNormEncoderLayer(nn.Module):
    """v1's encoder layer over the control set: multi-head attention and MLP, each followed by its norm.

    The same function as `torch.nn.TransformerEncoderLayer(dim, n_head, 4 * dim, dropout, "gelu", batch_first=True)`,
    written out so that its FLOPs are countable and nothing switches to a hidden fast path.
    """

    def __init__(self, dim: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = MLP(dim, 4 * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "B C d"]) -> Float[Tensor, "B C d"]:
        """Mixes the cells of each set; the order of the cells does not matter."""
        p = self.dropout if self.training else 0.0
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2).flatten(2)
        x = self.norm1(x + F.dropout(self.out(mixed), p))
        inner = self.mlp[2](F.dropout(self.mlp[1](self.mlp[0](x)), p))
        return self.norm2(x + F.dropout(inner, p))


def token_rank(tokens: Tensor, n_bins: int) -> Tensor:
    """Returns log(1 + k) / log(K) of token k: bins are ordered, their widths grow with their values. [MASK] gives 0."""
    rank = torch.log1p(tokens.float()) / np.log(n_bins)
    return torch.where(tokens >= n_bins, torch.zeros_like(rank), rank)
