"""Exercises of notebook 02, first part: attention with shared keys and values, and its shapes."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cdt_lite.teaching.check import Answer, Pair, exercise

COLUMNS = torch.arange(24.0).view(3, 8)  # three positions, eight columns: entry = 8 * position + column


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _loops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head, one position at a time: the definition."""
    out = torch.zeros_like(q)
    for head in range(q.shape[0]):
        for position in range(q.shape[1]):
            weights = torch.exp(k @ q[head, position] / q.shape[2] ** 0.5)
            out[head, position] = weights @ v / weights.sum()
    return out


@exercise(
    "2.1", "Multi-query attention by hand", difficulty=2, minutes=10,
    objective="write multi-query attention by hand",
    misconception="Scores are divided by the root of one head's width, and each query's weights sum to 1 over what it "
                  "reads.",
    hints=("q @ k.T has the shape (H, G, R): one score for each head, asking position and read position.",
           "Divide by q.shape[-1] ** 0.5, softmax over the last axis, multiply with v."),
)
def multi_query_attention(q: Float[Tensor, "H G hd"], k: Float[Tensor, "R hd"], v: Float[Tensor, "R hd"]
                          ) -> Float[Tensor, "H G hd"]:
    """Lets each of H heads ask its own questions, at G positions, of one shared set of keys and values."""
    weights = torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1)
    return weights @ v


def _against_loops(fn: Answer, heads: int, genes: int, memory: int, width: int) -> Pair:
    q, k, v = _random(heads, genes, width), _random(memory, width, seed=1), _random(memory, width, seed=2)
    return _loops(q, k, v), fn(q, k, v)

@multi_query_attention.requires("keys that are all alike: every query reads the mean of the values")
def _(fn: Answer) -> Pair:
    """A query's weights do not sum to 1 over the positions it reads: softmax over the last axis.

    An error about shapes: the product is q, (H, G, hd), times k.T, (hd, M).
    """
    v = _random(5, 4)
    so_far = v.cumsum(0)[:3] / torch.tensor([[1.0], [2.0], [3.0]])
    faults = {"k and v are exchanged: scores are products with k, what is mixed is v.": torch.ones(2, 3, 4),
              "No position is hidden from another here: leave the causal mask out.": so_far.expand(2, 3, 4),
              "The heads were averaged: each keeps its own result, (H, G, hd).": v.mean(0).expand(3, 4),
              "The heads were merged: keep them apart, (H, G, hd).": v.mean(0).repeat(3, 2)}
    return v.mean(0).expand(2, 3, 4), fn(_random(2, 3, 4, seed=1), torch.ones(5, 4), v), faults

@multi_query_attention.requires("two keys by hand: q·k of 2 ln 3 and 0, width 4, weights 3/4 and 1/4")
def _(fn: Answer) -> Pair:
    """Divide q·k by the root of the head's width (here 2) before the softmax: not by the width itself."""
    k = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    q = k[None, :1] * 2 * torch.tensor(3.0).log()
    return torch.tensor([[[0.75, 0.25, 0.0, 0.0]]]), fn(q, k, torch.eye(4)[:2])

@multi_query_attention.requires("2 heads, 3 positions, 5 read, against loops")
def _(fn: Answer) -> Pair:
    """Each head asks for itself: no head may be mixed with, or copied from, another; the root is of hd, not of H*hd."""
    return _against_loops(fn, 2, 3, 5, 4)

@multi_query_attention.requires("one head that reads one position")
def _(fn: Answer) -> Pair:
    """G, R, H and hd may be any numbers: nothing may depend on R = G or on H > 1."""
    return _against_loops(fn, 1, 4, 1, 6)


class _Watched(TorchFunctionMode):
    """Notices whether PyTorch's own attention was called."""

    found = "by hand"

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.found = "ready-made"
        return func(*args, **(kwargs or {}))

@multi_query_attention.requires("the shape (H, G, hd), without a ready-made attention call")
def _(fn: Answer) -> Pair:
    """Write the product, the softmax and the sum yourself: F.scaled_dot_product_attention comes in 2.3."""
    with _Watched() as watched:
        out = fn(_random(2, 3, 4), _random(5, 4, seed=1), _random(5, 4, seed=2))
    return [(2, 3, 4), "by hand"], [out.shape, watched.found]


@exercise(
    "2.2", "View is not transpose", difficulty=3, minutes=8,
    objective="spot a reshape that mixes heads and positions",
    misconception="A view never moves numbers: a right shape says nothing about what stands where.",
    hints=("How far apart in memory are position 0 and position 1? And head 0 and head 1 of one position?",
           "view(G, H, hd) is true to memory. transpose(0, 1) then swaps the axes without moving numbers."),
)
def split_heads(q: Float[Tensor, "G D"], n_head: int) -> Float[Tensor, "H G hd"]:
    """Cuts the D columns of every position into H heads of D / H neighbouring columns each."""
    return q.view(q.shape[0], n_head, -1).transpose(0, 1)

@split_heads.requires("3 positions x 8 columns become 2 heads: the shape (2, 3, 4)")
def _(fn: Answer) -> Pair:
    """The order of axes is heads, positions, columns of a head: (H, G, hd)."""
    return (2, 3, 4), fn(COLUMNS, 2).shape

@split_heads.requires("head 0 of position 0 has the columns 0 to 3 of row 0")
def _(fn: Answer) -> Pair:
    """A head owns neighbouring columns, not every H-th one."""
    faults = {"Heads are counted from the left: head 0 has the first half of the columns.": COLUMNS[0, 4:],
              "Positions are mixed: cut the columns of each position first, q.view(G, H, hd), then swap the axes. "
              "(A reshape that copies, as PyTorch's message proposes, hides the fault.)":
              torch.tensor([0.0, 8.0, 16.0, 1.0])}
    return COLUMNS[0, :4], fn(COLUMNS, 2)[0, 0], faults

@split_heads.requires("head 0 of position 1 has the columns 0 to 3 of row 1")
def _(fn: Answer) -> Pair:
    """A view to (H, G, hd) cuts the numbers in the order in which they lie, so head 0 got the rest of position 0.

    View to (G, H, hd) first, then swap the two axes.
    """
    return COLUMNS[1, :4], fn(COLUMNS, 2)[0, 1]

@split_heads.requires("head 1 of position 2 has the columns 4 to 7 of row 2")
def _(fn: Answer) -> Pair:
    """Heads are counted from the left: head 1 has the second half of the columns."""
    return COLUMNS[2, 4:], fn(COLUMNS, 2)[1, 2]

@split_heads.requires("4 heads, 5 positions, random numbers, against slices")
def _(fn: Answer) -> Pair:
    """If only this row fails: two heads are right, four are not; take the number of heads from `n_head`."""
    q = _random(5, 12)
    return torch.stack(q.split(3, -1)), fn(q, 4)


@exercise(
    "2.3", "Fold the heads into the queries", difficulty=4, minutes=15,
    objective="prove that folding heads into queries changes nothing",
    misconception="With one set of keys and values a head is one more query; nothing has to be repeated or transposed.",
    hints=("q.reshape(N, -1, hd): which row of the result holds head h of position g?",
           "Give the folded q with k and v to F.scaled_dot_product_attention, and reshape what comes back."),
)
def folded_attention(q: Float[Tensor, "N G D"], k: Float[Tensor, "N R hd"], v: Float[Tensor, "N R hd"]
                     ) -> Float[Tensor, "N G D"]:
    """Does multi-query attention in one call, by treating heads as more queries; D = H * hd columns of q."""
    folded = q.reshape(q.shape[0], -1, k.shape[-1])
    return F.scaled_dot_product_attention(folded, k, v).reshape(q.shape)


def _head_by_head(fn: Answer, heads: int, genes: int, memory: int) -> Pair:
    """Two cells, whose keys and values differ."""
    q, k, v = _random(2, genes, 4 * heads), _random(2, memory, 4, seed=1), _random(2, memory, 4, seed=2)
    expected = torch.empty_like(q)
    for cell in range(2):
        own = torch.stack(q[cell].split(4, -1))
        expected[cell] = torch.cat(list(_loops(own, k[cell], v[cell])), -1)
    all_read = F.scaled_dot_product_attention(q.reshape(1, -1, 4), k.reshape(1, -1, 4), v.reshape(1, -1, 4))
    first = F.scaled_dot_product_attention(q.reshape(2, -1, 4), k[:1].expand_as(k), v[:1].expand_as(v))
    faults = {"Cells read each other: fold heads into positions, but keep the N cells apart.":
              all_read.reshape(q.shape),
              "Every cell reads the first cell's keys and values: each has its own.": first.reshape(q.shape)}
    return expected, fn(q, k, v), faults

@folded_attention.requires("the shape of q comes back")
def _(fn: Answer) -> Pair:
    """Unfold at the end: the result has the shape of q. An error about widths: fold q to that of k."""
    return (2, 3, 8), fn(_random(2, 3, 8), _random(2, 5, 4), _random(2, 5, 4)).shape

@folded_attention.requires("all heads and positions ask alike: only the scale matters")
def _(fn: Answer) -> Pair:
    """The scores have the wrong scale: after folding the width of a query is hd, not D."""
    q, k, v = _random(4).repeat(1, 3, 2), _random(1, 5, 4, seed=1), _random(1, 5, 4, seed=2)
    alone = _loops(q[:, :1, :4], k[0], v[0])
    faults = {"k and v are exchanged: the call takes queries, keys, values.":
              _loops(q[:, :1, :4], v[0], k[0]).repeat(1, 3, 2),
              "No position is hidden from another here: is_causal stays False.":
              F.scaled_dot_product_attention(q.reshape(1, 6, 4), k, v, is_causal=True).reshape(q.shape)}
    return alone.repeat(1, 3, 2), fn(q, k, v), faults

@folded_attention.requires("2 heads, 3 positions, 5 read, against loops")
def _(fn: Answer) -> Pair:
    """Heads and positions were exchanged: fold (N, G, H*hd) to (N, G*H, hd) by a reshape alone, unfold by another."""
    return _head_by_head(fn, 2, 3, 5)

@folded_attention.requires("one head: ordinary attention")
def _(fn: Answer) -> Pair:
    """With one head this is ordinary attention, softmax(q·k / sqrt(hd)) v: something else is missing."""
    return _head_by_head(fn, 1, 4, 4)

@folded_attention.requires("4 heads that read one position")
def _(fn: Answer) -> Pair:
    """Take H from the shapes: q is H times as wide as k."""
    return _head_by_head(fn, 4, 2, 1)
