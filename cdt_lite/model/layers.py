"""All layers there are: multi-query attention, the MLP, the residual steps, the post-norm encoder layer."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cdt_lite.model.read import Read

KEYS_A_BLOCK, ENOUGH_BLOCKS = 128, 128  # what a GPU's backward pass works on at a time, and how many keep it busy


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
        self.n_head = n_head
        self.head_dim = dim // n_head
        if memory_dim is None:
            self.qkv = nn.Linear(dim, dim + 2 * self.head_dim)
        else:
            self.q = nn.Linear(dim, dim)
            self.kv = nn.Linear(memory_dim, 2 * self.head_dim)
        self.out = nn.Linear(dim, dim)

    def project(self, x: Float[Tensor, "... G D"], memory: Float[Tensor, "N M E"] | None = None,
                read: Read | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns q (N, G*H, hd), k (N, M, hd), v (N, M, hd); of what is read, q has H rows for every slot."""
        dim = self.out.in_features
        if memory is not None:
            q = self.q(x)
            k, v = self.kv(memory).chunk(2, dim=-1)
        elif read is None:
            q, k, v = self.qkv(x).split([dim, self.head_dim, self.head_dim], dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(read.rows(x), weight[:dim], bias[:dim])
            k, v = F.linear(x, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        if read is not None:
            q = read.padded(q)
        return q.reshape(len(k), -1, self.head_dim), k, v

    def forward(self, x: Float[Tensor, "... G D"], memory: Float[Tensor, "N M E"] | None = None,
                read: Read | None = None, cells: int = 1) -> Float[Tensor, "... D"]:
        """Attends from each of the G positions of `x` to `memory`, or to `x` itself.

        Args:
            x: All positions; where there is a memory and not all are read, those that are.
            memory: What is attended to.
            read: Attend from the positions that are read alone.
            cells: How many cells share a memory.
        """
        q, k, v = self.project(x, memory, read)
        few = len(k) * math.ceil(k.shape[1] / KEYS_A_BLOCK) < ENOUGH_BLOCKS
        mixed = attend(q, k, v, cells * self.n_head if k.is_cuda and few else 1)
        if read is None:
            return self.out(mixed.reshape(x.shape))
        return self.out(read.unpadded(mixed.reshape(-1, self.out.in_features)))

    def weights(self, x: Float[Tensor, "N G D"], memory: Float[Tensor, "N M E"] | None = None
               ) -> Float[Tensor, "N H G M"]:
        """Returns the attention weights themselves (rows sum to 1): for looking, not for training."""
        q, k, _ = self.project(x, memory)
        scores = (q @ k.transpose(1, 2) / math.sqrt(self.head_dim)).softmax(-1)
        return scores.unflatten(1, (x.shape[1], self.n_head)).transpose(1, 2)


def attend(q: Float[Tensor, "N Q hd"], k: Float[Tensor, "N M hd"], v: Float[Tensor, "N M hd"], groups: int
           ) -> Float[Tensor, "N groups _ hd"]:
    """Attends with the questions in so many groups, each with the same K and V: the same whatever their number.

    Questions do not depend on each other. In one group K and V are read once; in many they are expanded, and a GPU's
    backward pass, which goes by keys, has work for all its processors.
    """
    keys, values = (x[:, None].expand(-1, groups, -1, -1) for x in (k, v))
    return F.scaled_dot_product_attention(q.unflatten(1, (groups, -1)), keys, values)


class MLP(nn.Sequential):
    """Linear layers with GELU between: MLP(a, b, c) is Linear(a, b), GELU, Linear(b, c)."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            if layers:
                layers.append(nn.GELU())
            layers.append(nn.Linear(n_in, n_out))
        super().__init__(*layers)


class Residual(nn.Module):
    """One pre-norm residual step: h + inner(norm(h))."""

    def __init__(self, dim: int, inner: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = inner

    def forward(self, h: Float[Tensor, "... G D"], memory: Float[Tensor, "B C E"] | None = None,
                read: Read | None = None) -> Float[Tensor, "... D"]:
        """Applies the step; `read` as in `by_cell`."""
        mixed = by_cell(self.inner, self.norm(h), memory, read)
        return _where(h, read) + mixed


class ModulatedResidual(nn.Module):
    """One pre-norm residual step that the condition steers: h + gate * inner(norm(h) * (1 + scale) + shift).

    shift, scale and gate come from the condition plus a learned offset. All start at zero, so a fresh step is the
    identity (adaLN-zero: Peebles & Xie 2023, arXiv:2212.09748, section 3.2). One projection serves all blocks, which
    have offsets of their own (adaLN-single: PixArt-alpha, arXiv:2310.00426, section 2.3).
    """

    def __init__(self, dim: int, inner: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.inner = inner
        self.offset = nn.Parameter(torch.zeros(3, dim))

    def forward(self, h: Float[Tensor, "... G D"], modulation: Float[Tensor, "B S 3 D"],
                memory: Float[Tensor, "B C E"] | None = None, read: Read | None = None
               ) -> Float[Tensor, "... D"]:
        """Applies the step; `read` as in `by_cell`."""
        shift, scale, gate = (modulation + self.offset).unbind(-2)  # (B, S, D)
        x = self.norm(h) * (1 + _of_gene(scale, h, read)) + _of_gene(shift, h, read)
        mixed = by_cell(self.inner, x, memory, read)
        h = _where(h, read)
        return h + _of_gene(gate, h, read) * mixed


def by_cell(inner: nn.Module, x: Float[Tensor, "... G D"], memory: Tensor | None = None, read: Read | None = None
           ) -> Float[Tensor, "... D"]:
    """Applies a layer to each cell alone; with `memory`, to the genes of a set's S cells, which share it.

    Args:
        inner: The layer.
        x: (B, S, G, D); or rows (n, D), once only what is read is left.
        memory: For cross-attention.
        read: Where the result is wanted, as rows; None: everywhere.
    """
    if read is None and memory is None:
        return inner(x.flatten(0, 1)).view_as(x)
    if read is None:
        return inner(x.flatten(1, 2), memory, cells=x.shape[1]).view_as(x)
    if x.dim() == 4:
        return inner(x.flatten(0, 1), None, read)
    return inner(x) if memory is None else inner(x, memory, read, read.n_cells // len(memory))


def _where(h: Tensor, read: Read | None) -> Float[Tensor, "... D"]:
    """What is read of h, where it is not taken out yet."""
    return h if read is None or h.dim() == 2 else read.rows(h)


def _of_gene(x: Float[Tensor, "B S D"], h: Tensor, read: Read | None) -> Tensor:
    """A cell's vector for every gene, or row, of h."""
    return x[..., None, :] if read is None or h.dim() == 4 else read.of_cell(x)


class PostNormEncoderLayer(nn.Module):
    """An encoder layer over the control set: multi-head attention and MLP, each followed by its norm.

    The same function as `torch.nn.TransformerEncoderLayer(dim, n_head, 4 * dim, dropout, "gelu", batch_first=True)`,
    written out so that its FLOPs are countable and nothing switches to a hidden fast path.
    """

    def __init__(self, dim: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.dropout = dropout
        self.part: tuple[int, int] | None = None  # of a step's batch that is spread over processes: first set, sets
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.mlp = MLP(dim, 4 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "B C d"]) -> Float[Tensor, "B C d"]:
        """Mixes the cells of each set; the order of the cells does not matter."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)
        if self.training and self.dropout:
            mixed = self.drop((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        x = self.norm1(x + self.drop(self.out(mixed.transpose(1, 2).flatten(2))))
        widen, gelu, narrow = self.mlp
        inner = narrow(self.drop(gelu(widen(x))))
        return self.norm2(x + self.drop(inner))

    def drop(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Applies dropout in training. It is drawn for all sets of a step's batch, whichever part of them x is of."""
        if not (self.training and self.dropout):
            return x
        first, n_sets = self.part or (0, len(x))
        kept = torch.rand(n_sets, *x.shape[1:], device=x.device)[first : first + len(x)] >= self.dropout
        return x * kept / (1 - self.dropout)


def token_rank(tokens: Int[Tensor, "*shape"], n_bins: int) -> Float[Tensor, "*shape"]:
    """Returns a bin's place on a log scale, log(1 + k) / log(K), 0 to 1, of token k; [MASK] gives 0.

    Bins are ordered, and their widths grow with their values.
    """
    rank = torch.log1p(tokens.float()) / math.log(n_bins)
    return torch.where(tokens >= n_bins, torch.zeros_like(rank), rank)


def initialise_linears(module: nn.Module, generator: torch.Generator) -> None:
    """Draws every Linear's weights from N(0, 1 / fan-in), in the order of the modules; biases become zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
