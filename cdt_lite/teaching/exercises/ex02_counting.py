"""Exercises of notebook 02, second part: what a block holds and costs, counted before anything runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdt_lite.teaching.check import Answer, Pair, exercise


class _Block(nn.Module):
    """A v1 block in plain PyTorch: it says what there is to count."""

    def __init__(self, dim: int, n_head: int, ffn_mult: int, memory_dim: int) -> None:
        super().__init__()
        self.width = dim // n_head
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.own, self.own_out = nn.Linear(dim, dim + 2 * self.width), nn.Linear(dim, dim)
        self.query, self.cross_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key_value = nn.Linear(memory_dim, 2 * self.width)
        self.mlp = nn.Sequential(nn.Linear(dim, ffn_mult * dim), nn.GELU(), nn.Linear(ffn_mult * dim, dim))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = self.own(self.norms[0](x)).split([x.shape[1], self.width, self.width], -1)
        x = x + self.own_out(self.attend(q, k, v))
        k, v = self.key_value(memory).split(self.width, -1)
        x = x + self.cross_out(self.attend(self.query(self.norms[1](x)), k, v))
        return x + self.mlp(self.norms[2](x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q.reshape(-1, self.width) @ k.T
        return (scores.softmax(-1) @ v).reshape(q.shape)


def _held(*sizes: int) -> int:
    """The weights and biases of a block."""
    with torch.device("meta"):
        return sum(p.numel() for p in _Block(*sizes).parameters())


def _counted(n_genes: int, n_controls: int, *sizes: int) -> int:
    """The operations of a block on one cell, by PyTorch's own counter."""
    dim, memory_dim = sizes[0], sizes[-1]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        _Block(*sizes)(torch.empty(n_genes, dim), torch.empty(n_controls, memory_dim))
    return counter.get_total_flops()


def _step(fn: Answer, truth: Callable[..., int], before: tuple[int, ...], after: tuple[int, ...]
          ) -> tuple[int, Any]:
    """What changes when one size changes: it shows one term alone."""
    return truth(*after) - truth(*before), fn(*after) - fn(*before)


@exercise(
    "2.6", "The parameters of a block", difficulty=3, minutes=15,
    objective="count parameters before running anything",
    misconception="Keys and values have one head, cross-attention's read the memory's width, and biases and norms "
                  "count.",
    hints=("A linear layer from a to b has (a + 1) b parameters, its bias among them.",
           "Self: q, k, v together are D to D + 2 hd. Cross: q is D to D, k and v are memory_dim to 2 hd. Each ends "
           "with D to D.",
           "Then the MLP, D to ffn_mult · D to D, and three norms of 2 D."),
)
def block_parameters(dim: int, n_head: int, ffn_mult: int, memory_dim: int) -> int:
    """Counts the weights and biases of one v1 block: self-attention, cross-attention, MLP, a LayerNorm before each.

    Keys and values have one head, dim / n_head wide; cross-attention makes them from a memory of width memory_dim; the
    MLP's inner width is ffn_mult * dim.
    """
    two = 2 * (dim // n_head)
    self_attention = (dim + 1) * (dim + two) + (dim + 1) * dim
    cross_attention = (dim + 1) * dim + (memory_dim + 1) * two + (dim + 1) * dim
    inner = ffn_mult * dim
    return self_attention + cross_attention + (dim + 1) * inner + (inner + 1) * dim + 3 * 2 * dim

@block_parameters.requires("half the heads: how many more")
def _(fn: Answer) -> Pair:
    """Keys and values have ONE head, D / n_head wide, and biases as short (did you count any?); all else is equal."""
    faults = {"Only one of the two attentions is counted: both have keys and values.": 36,
              "One block is asked for, not six.": 6 * 72}
    return *_step(fn, _held, (8, 4, 4, 8), (8, 2, 4, 8)), faults

@block_parameters.requires("a memory wider by 1: how many more")
def _(fn: Answer) -> Pair:
    """Cross-attention makes keys and values from the memory: memory_dim x 2 hd. Its queries come from D."""
    return _step(fn, _held, (8, 2, 4, 6), (8, 2, 4, 7))

@block_parameters.requires("an MLP wider by one D: how many more")
def _(fn: Answer) -> Pair:
    """The MLP has two matrices, D x mD and mD x D, and a bias after each: mD and D."""
    return _step(fn, _held, (8, 2, 4, 6), (8, 2, 5, 6))

@block_parameters.requires("a whole small block")
def _(fn: Answer) -> Pair:
    """If the rows above hold, a constant is missing: three LayerNorms hold a weight and a bias of D each."""
    whole = _held(8, 2, 4, 6)
    faults = {"An out projection is missing: each attention ends with one, D x D and D biases.": whole - 72,
              "Both out projections are missing: each attention ends with one, D x D and D biases.": whole - 144,
              "v1's block is not told nine rows: no weights for them.": whole + 72}
    return whole, fn(8, 2, 4, 6), faults

@block_parameters.requires("v1's block")
def _(fn: Answer) -> Pair:
    """If only this row fails: use the arguments, not the numbers of the example."""
    return _held(512, 8, 4, 512), fn(512, 8, 4, 512)


@exercise(
    "2.7", "The operations of a block", difficulty=4, minutes=20,
    objective="count floating-point operations before running anything",
    misconception="Sharing keys and values saves projections and bytes, but every query still meets every key.",
    hints=("A product (a x b)(b x c) costs 2 a b c. Biases, softmax and norms do not count.",
           "List the products: self q, k, v; QK^T; AV; out. Cross: q from G genes, k and v from C memory vectors, "
           "QK^T, AV, out. MLP: two."),
)
def block_flops(n_genes: int, n_controls: int, dim: int, n_head: int, ffn_mult: int, memory_dim: int) -> int:
    """Counts the operations of one v1 block's forward pass on one cell; a multiply-add is two.

    The cell has n_genes positions; each of the n_controls cells gives one memory vector of width memory_dim.
    """
    two = 2 * (dim // n_head)
    projections = n_genes * dim * (dim + two) + 3 * n_genes * dim * dim
    projections += n_controls * memory_dim * two
    mixing = 2 * n_genes * dim * (n_genes + n_controls)  # QK^T and AV: G * H queries, hd wide
    return 2 * (projections + mixing + 2 * n_genes * dim * ffn_mult * dim)

@block_flops.requires("G x G terms, D = 8: 2 products of 2 G G D")
def _(fn: Answer) -> Pair:
    """Sharing keys saves nothing here: every query of every head meets every key.

    That is G*H queries, hd wide, and G keys: G G D multiply-adds for QK^T, as many for AV, each of them 2 operations.
    """
    few, some, many = fn(10, 0, 8, 8, 4, 8), fn(20, 0, 8, 8, 4, 8), fn(30, 0, 8, 8, 4, 8)
    faults = {"That is half: a multiply-add is 2 operations, and both products count, QK^T and AV.": 3200,
              "That is a quarter: a multiply-add is 2 operations, and both products count, QK^T and AV.": 1600,
              "One cell is asked for, not a batch of 32.": 32 * 6400,
              "One block is asked for, not six.": 6 * 6400}
    return 2 * 2 * 8 * 2 * 10**2, many - 2 * some + few, faults  # the second difference: all else is linear in G

@block_flops.requires("one more control cell")
def _(fn: Answer) -> Pair:
    """Cross-attention meets the controls: QK^T and AV of G*H queries with C keys, and each one's K and V."""
    truth, yours = _step(fn, _counted, (10, 4, 8, 2, 4, 6), (10, 5, 8, 2, 4, 6))
    faults = {"Cross-attention's keys and values are made from the memory, memory_dim wide, not from D.": truth + 32,
              "Queries come from the G genes: a control cell more makes no query more.": truth + 2 * 64}
    return truth, yours, faults

@block_flops.requires("an MLP wider by one D")
def _(fn: Answer) -> Pair:
    """The MLP is two products, G x D x mD and G x mD x D, a multiply-add being 2 operations."""
    return _step(fn, _counted, (10, 4, 8, 2, 4, 6), (10, 4, 8, 2, 5, 6))

@block_flops.requires("a whole small block")
def _(fn: Answer) -> Pair:
    """If the rows above hold, projections remain: q and out of both attentions, D x D, and self's K, V, D x 2 hd."""
    whole = _counted(10, 4, 8, 2, 4, 6)
    faults = {"Biases do not count here: products alone.": whole + 10 * (16 + 8 + 8 + 8 + 32 + 8) + 4 * 8}
    return whole, fn(10, 4, 8, 2, 4, 6), faults

@block_flops.requires("v1's block at 2,000 genes and 64 controls")
def _(fn: Answer) -> Pair:
    """If only this row fails: the small block is right; use the arguments, and whole numbers."""
    return _counted(2000, 64, 512, 8, 4, 512), fn(2000, 64, 512, 8, 4, 512)
