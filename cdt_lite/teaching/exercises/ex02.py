"""Exercises of notebook 02: attention with shared keys and values, its shapes, and what a block holds and costs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cdt_lite.figures.accounting import flops_by_part
from cdt_lite.model.cdt import Block
from cdt_lite.model.config import ModelConfig
from cdt_lite.teaching.check import Exercise, Property

Pair = tuple[Any, Any]


def multi_query_attention(q: Float[Tensor, "H G hd"], k: Float[Tensor, "M hd"], v: Float[Tensor, "M hd"]
                          ) -> Float[Tensor, "H G hd"]:
    """Lets every head ask its own questions of one shared set of keys and values.

    Args:
        q: Queries: H heads, G positions, head width hd.
        k: Keys of the M positions that are read; the same for all heads.
        v: Values of those positions.
    """
    weights = torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1)
    return weights @ v


def split_heads(q: Float[Tensor, "G D"], n_head: int) -> Float[Tensor, "H G hd"]:
    """Cuts the D columns of every position into H heads of D / H neighbouring columns each.

    Args:
        q: One row a position.
        n_head: Number of heads H; it divides D.
    """
    return q.view(q.shape[0], n_head, -1).transpose(0, 1)


def folded_attention(q: Float[Tensor, "N G D"], k: Float[Tensor, "N M hd"], v: Float[Tensor, "N M hd"]
                     ) -> Float[Tensor, "N G D"]:
    """Does multi-query attention in one call, by treating heads as more queries.

    Args:
        q: Queries of all heads side by side, D = H * hd columns.
        k: Keys, one head wide.
        v: Values, one head wide.
    """
    folded = q.reshape(q.shape[0], -1, k.shape[-1])
    return F.scaled_dot_product_attention(folded, k, v).reshape(q.shape)


def block_parameters(dim: int, n_head: int, ffn_mult: int, memory_dim: int) -> int:
    """Counts the weights and biases of one v1 block: self-attention, cross-attention, MLP, a LayerNorm before each.

    Args:
        dim: Width D.
        n_head: Query heads; keys and values have one head, D / n_head wide.
        ffn_mult: The MLP's inner width is ffn_mult * D.
        memory_dim: Width of the control memory that cross-attention reads.
    """
    two = 2 * (dim // n_head)
    self_attention = (dim + 1) * (dim + two) + (dim + 1) * dim
    cross_attention = (dim + 1) * dim + (memory_dim + 1) * two + (dim + 1) * dim
    inner = ffn_mult * dim
    return self_attention + cross_attention + (dim + 1) * inner + (inner + 1) * dim + 3 * 2 * dim


def block_flops(n_genes: int, n_controls: int, dim: int, n_head: int, ffn_mult: int, memory_dim: int) -> int:
    """Counts the operations of one v1 block's forward pass on one cell; a multiply-add is two.

    Args:
        n_genes: Positions G.
        n_controls: Control cells C, each a memory vector.
        dim: Width D.
        n_head: Query heads; one key/value head.
        ffn_mult: The MLP's inner width is ffn_mult * D.
        memory_dim: Width of a memory vector.
    """
    two = 2 * (dim // n_head)
    projections = n_genes * dim * (dim + two) + n_genes * dim * dim + 2 * n_genes * dim * dim
    projections += n_controls * memory_dim * two
    mixing = 2 * n_genes * dim * (n_genes + n_controls)  # QK^T and AV: G * H queries, hd wide
    return 2 * (projections + mixing + 2 * n_genes * dim * ffn_mult * dim)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head, one position at a time: the definition."""
    out = torch.zeros_like(q)
    for h in range(q.shape[0]):
        for g in range(q.shape[1]):
            raw = torch.exp(torch.stack([(q[h, g] * key).sum() for key in k]) / q.shape[2] ** 0.5)
            out[h, g] = sum(r * value for r, value in zip(raw / raw.sum(), v, strict=True))
    return out


def _keys_alike(fn: Callable[..., Any]) -> Pair:
    """Keys that are all alike: every query reads the plain mean of the values."""
    v = _random(5, 4)
    return v.mean(0).expand(2, 3, 4), fn(_random(2, 3, 4, seed=1), torch.ones(5, 4), v)


def _by_loops(heads: int, genes: int, memory: int, width: int) -> Callable[[Callable[..., Any]], Pair]:
    def run(fn: Callable[..., Any]) -> Pair:
        q, k, v = _random(heads, genes, width), _random(memory, width, seed=1), _random(memory, width, seed=2)
        return _loops(q, k, v), fn(q, k, v)
    return run


class _Watched(TorchFunctionMode):
    """Notices whether PyTorch's own attention was called."""

    used = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.used |= func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def _own_words(fn: Callable[..., Any]) -> Pair:
    with _Watched() as watched:
        out = fn(_random(2, 3, 4), _random(5, 4, seed=1), _random(5, 4, seed=2))
    return [(2, 3, 4), "by hand"], [tuple(out.shape), "ready-made" if watched.used else "by hand"]


def _known_scale(fn: Callable[..., Any]) -> Pair:
    """Two keys; width 4, so q·k = 2 ln 3 becomes ln 3 and weights of 3/4 and 1/4."""
    k = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    q = torch.full((1, 1, 4), 0.0)
    q[..., 0] = 2 * float(torch.log(torch.tensor(3.0)))
    return torch.tensor([[[0.75, 0.25, 0.0, 0.0]]]), fn(q, k, torch.eye(4)[:2])


def _alike(fn: Callable[..., Any]) -> Pair:
    q, k, v = _random(4).repeat(1, 3, 2), _random(1, 5, 4, seed=1), _random(1, 5, 4, seed=2)
    return _loops(q[:, :1, :4], k[0], v[0]).repeat(1, 3, 2), fn(q, k, v)


COLUMNS = torch.arange(24.0).view(3, 8)  # three positions, eight columns: entry = 8 * position + column


def _folded(heads: int, genes: int, memory: int) -> Callable[[Callable[..., Any]], Pair]:
    def run(fn: Callable[..., Any]) -> Pair:
        q, k, v = _random(2, genes, 4 * heads), _random(2, memory, 4, seed=1), _random(2, memory, 4, seed=2)
        each = [torch.cat(list(_loops(torch.stack(a.split(4, -1)), b, c)), -1) for a, b, c in zip(q, k, v, strict=True)]
        return torch.stack(each), fn(q, k, v)
    return run


def _sizes(dim: int, n_head: int, ffn_mult: int, memory_dim: int) -> ModelConfig:
    return ModelConfig(dim=dim, n_head=n_head, ffn_mult=ffn_mult, control_set_dim_out=memory_dim, n_layer=1,
                       modulation="add")


def _held(*sizes: int) -> int:
    """What the live block has."""
    with torch.device("meta"):
        return sum(p.numel() for p in Block(_sizes(*sizes)).parameters())


def _counted(n_genes: int, n_controls: int, *sizes: int) -> int:
    """The package's list of products, which its tests compare with PyTorch's own counter."""
    found = flops_by_part(_sizes(*sizes), n_genes, n_controls)
    return sum(flops for part, flops in found.items() if part.startswith(("self", "cross", "FFN")))


def _step(truth: Callable[..., int], a: tuple[int, ...], b: tuple[int, ...]) -> Callable[[Callable[..., Any]], Pair]:
    """What changes when one size changes: it shows one term alone."""
    def run(fn: Callable[..., Any]) -> Pair:
        return truth(*b) - truth(*a), fn(*b) - fn(*a)
    return run


def _quadratic(fn: Callable[..., Any]) -> Pair:
    """Second difference in G: only G * G terms are left."""
    sizes = [(g, 0, 8, 2, 4, 8) for g in (10, 20, 30)]
    return 2 * 100 * 2 * 2 * 8, fn(*sizes[2]) - 2 * fn(*sizes[1]) + fn(*sizes[0])


ATTENTION = Exercise(
    "2.1", "Multi-query attention by hand", 2, 10, "write multi-query attention by hand", "Scores are divided by the "
    "root of one head's width, and each query's weights sum to 1 over what it reads.", multi_query_attention, (
        Property("keys that are all alike: every query reads the mean of the values", _keys_alike,
                 "A query's weights do not sum to 1 over the positions it reads: softmax over the last axis. "
                 "(An error about shapes: the product is q, (H, G, hd), times k.T, (hd, M).)"),
        Property("two keys by hand: q·k of 2 ln 3 and 0, width 4, weights 3/4 and 1/4", _known_scale,
                 "Divide q·k by the root of the head's width (here 2) before the softmax: not by the width itself."),
        Property("2 heads, 3 positions, 5 read, against loops", _by_loops(2, 3, 5, 4),
                 "Each head has its own queries: no head may be mixed with, or copied from, another; and the root is "
                 "of hd, not of H*hd."),
        Property("one head that reads one position", _by_loops(1, 4, 1, 6),
                 "G, M, H and hd may be any numbers: nothing may depend on M = G or on H > 1."),
        Property("the shape (H, G, hd), without a ready-made attention call", _own_words,
                 "Write the product, the softmax and the sum yourself: F.scaled_dot_product_attention comes in 2.3."),
    ), (
        "q @ k.T has the shape (H, G, M): one score for each head, asking position and read position.",
        "Divide by q.shape[-1] ** 0.5, softmax over the last axis, multiply with v.",
    ))
SPLIT = Exercise(
    "2.2", "View is not transpose", 3, 8, "spot a reshape that mixes heads and positions", "A view never moves "
    "numbers: a right shape says nothing about what stands where.", split_heads, (
        Property("3 positions x 8 columns become 2 heads: the shape (2, 3, 4)",
                 lambda fn: ((2, 3, 4), tuple(fn(COLUMNS.clone(), 2).shape)),
                 "The order of axes is heads, positions, columns of a head: (H, G, hd)."),
        Property("head 0 of position 0 has the columns 0 to 3 of row 0",
                 lambda fn: (torch.tensor([0.0, 1, 2, 3]), fn(COLUMNS.clone(), 2)[0, 0]),
                 "A head owns neighbouring columns, not every H-th one."),
        Property("head 0 of position 1 has the columns 0 to 3 of row 1",
                 lambda fn: (torch.tensor([8.0, 9, 10, 11]), fn(COLUMNS.clone(), 2)[0, 1]),
                 "A view to (H, G, hd) cuts the numbers in the order in which they lie, so head 0 got the rest of "
                 "position 0: view to (G, H, hd) first, then swap the two axes."),
        Property("head 1 of position 2 has the columns 4 to 7 of row 2",
                 lambda fn: (torch.tensor([20.0, 21, 22, 23]), fn(COLUMNS.clone(), 2)[1, 2]),
                 "Heads are counted from the left: head 1 has the second half of the columns."),
        Property("4 heads, 5 positions, random numbers, against slices",
                 lambda fn: (torch.stack(_random(5, 12).split(3, -1)), fn(_random(5, 12), 4)),
                 "If only this row fails: two heads are right, four are not; take the number of heads from `n_head`."),
    ), (
        "How far apart in memory are position 0 and position 1? And head 0 and head 1 of one position?",
        "view(G, H, hd) is true to memory. transpose(0, 1) then swaps the axes without moving numbers.",
    ))
FOLD = Exercise(
    "2.3", "Fold the heads into the queries", 4, 15, "prove that folding heads into queries changes nothing",
    "With one set of keys and values a head is one more query; nothing has to be repeated or transposed.",
    folded_attention, (
        Property("the shape of q comes back", lambda fn: ((2, 3, 8), tuple(_folded(2, 3, 5)(fn)[1].shape)),
                 "Unfold at the end: the result has the shape of q. (An error about widths: fold q to that of k.)"),
        Property("all heads and positions ask alike: only the scale matters", _alike,
                 "The scores have the wrong scale: after folding the width of a query is hd, not D."),
        Property("2 heads, 3 positions, 5 read, against loops", _folded(2, 3, 5),
                 "Heads and positions were exchanged: fold (N, G, H*hd) to (N, G*H, hd) by a reshape alone, and "
                 "unfold by another."),
        Property("one head: ordinary attention", _folded(1, 4, 4),
                 "With one head this is ordinary attention, softmax(q·k / sqrt(hd)) v: something else is missing."),
        Property("4 heads that read one position", _folded(4, 2, 1),
                 "Take H from the shapes: q is H times as wide as k."),
    ), (
        "q.reshape(N, -1, hd): which row of the result holds head h of position g?",
        "Give the folded q with k and v to F.scaled_dot_product_attention, and reshape what comes back.",
    ))
BASE = (8, 2, 4, 6)
PARAMETERS = Exercise(
    "2.4", "The parameters of a block", 3, 15, "count parameters before running anything", "Keys and values have one "
    "head, cross-attention's read the memory's width, and biases and norms count.", block_parameters, (
        Property("half the heads: only keys and values become wider", _step(_held, (8, 4, 4, 8), (8, 2, 4, 8)),
                 "Keys and values have ONE head of width D / n_head, in self- and in cross-attention; all else ignores "
                 "n_head. Their biases (did you count any?) are as short."),
        Property("a memory wider by 1: only cross-attention's K and V grow", _step(_held, BASE, (8, 2, 4, 7)),
                 "Cross-attention makes keys and values from the memory: memory_dim x 2 hd. Its queries come from D."),
        Property("an MLP wider by one D", _step(_held, BASE, (8, 2, 5, 6)),
                 "The MLP has two matrices, D x mD and mD x D, and a bias after each: mD and D."),
        Property("a whole small block", lambda fn: (_held(*BASE), fn(*BASE)),
                 "If the rows above hold, a constant term is missing: every projection has a bias, and three "
                 "LayerNorms hold a weight and a bias of D each."),
        Property("v1's block", lambda fn: (_held(512, 8, 4, 512), fn(512, 8, 4, 512)),
                 "If only this row fails: the small block is right, the large one is not; use the arguments, not the "
                 "numbers of the example."),
    ), (
        "A linear layer from a to b has (a + 1) b parameters, its bias among them.",
        "Self: q, k, v together are D to D + 2 hd. Cross: q is D to D, k and v are memory_dim to 2 hd. Each ends with "
        "D to D.",
        "Then the MLP, D to ffn_mult · D to D, and three norms of 2 D.",
    ))
SIZES = (10, 4, *BASE)
FLOPS = Exercise(
    "2.5", "The operations of a block", 4, 20, "count floating-point operations before running anything", "Sharing "
    "keys and values saves projections and bytes, but every query still meets every key.", block_flops, (
        Property("G x G terms, D = 8: 2 products of 2 G G D", _quadratic,
                 "Every query of every head meets every key: G*H queries, hd wide, G keys, so G G D multiply-adds for "
                 "QK^T, as many for AV, each of them 2 operations. Sharing keys saves nothing here."),
        Property("one more control cell", _step(_counted, SIZES, (10, 5, *BASE)),
                 "Cross-attention meets the controls: QK^T and AV of G*H queries with C keys, and each control's "
                 "projection to K and V."),
        Property("an MLP wider by one D", _step(_counted, SIZES, (10, 4, 8, 2, 5, 6)),
                 "The MLP is two products, G x D x mD and G x mD x D, a multiply-add being 2 operations."),
        Property("a whole small block", lambda fn: (_counted(*SIZES), fn(*SIZES)),
                 "If the rows above hold, what remains are projections: q and out of both attentions are D x D for "
                 "each gene, self-attention's K and V D x 2 hd."),
        Property("v1's block at 2,000 genes and 64 controls", lambda fn: (
            _counted(2000, 64, 512, 8, 4, 512), fn(2000, 64, 512, 8, 4, 512)),
                 "If only this row fails: the small block is right, the large one is not; use the arguments, and whole "
                 "numbers."),
    ), (
        "A product (a x b)(b x c) costs 2 a b c. Biases, softmax and norms do not count.",
        "List the products: self q, k, v; QK^T; AV; out. Cross: q from G genes, k and v from C memory vectors, QK^T, "
        "AV, out. MLP: two.",
    ))
EXERCISES: tuple[Exercise, ...] = (ATTENTION, SPLIT, FOLD, PARAMETERS, FLOPS)
