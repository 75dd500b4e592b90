"""Exercises of notebook 02, third part: the residual step that the condition steers, and a whole block."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cdt_lite.model.cdt import Block
from cdt_lite.model.config import PRESETS
from cdt_lite.teaching.check import Answer, Pair, exercise

Part = Callable[[Tensor], Tensor]
STREAM = torch.tensor([[1.0, 3.0, 1.0, 3.0], [0.0, 0.0, 2.0, 2.0]])  # two positions; each row's spread is 1
NORMED = torch.tensor([[-1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]])
ZERO, ONE = torch.zeros(4), torch.ones(4)


def _same(x: Tensor) -> Tensor:
    return x


@exercise(
    "2.4", "A step that begins as nothing", difficulty=2, minutes=8,
    objective="write the residual step that a condition steers",
    misconception="The stream itself is never normalised: the norm feeds the inner part alone, whose result is added.",
    hints=("F.layer_norm(h, h.shape[-1:]) has mean 0 and spread 1 at every position.",
           "Scale the norm by 1 + scale, shift it, hand it to inner; the gate multiplies what comes back, h is added."),
)
def modulated_step(h: Float[Tensor, "G D"], shift: Float[Tensor, " D"], scale: Float[Tensor, " D"],
                   gate: Float[Tensor, " D"], inner: Part) -> Float[Tensor, "G D"]:
    """Adds gate * inner(norm(h) * (1 + scale) + shift) to the stream; the norm has no weights of its own."""
    x = F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift
    return h + gate * inner(x)

@modulated_step.requires("a closed gate: h comes back as it came")
def _(fn: Answer) -> Pair:
    """The gate multiplies all that the inner part gives, and h is added as it came."""
    faults = {"The stream itself is not normalised: h + ..., not norm(h) + ...": NORMED,
              "Add h: the step is h + gate * ..., not gate * ... alone.": torch.zeros(2, 4),
              "The gate multiplies what inner returns, not what it is given.": STREAM + 1}
    return STREAM, fn(STREAM, ZERO, ZERO, ZERO, lambda x: x * 0 + 1), faults

@modulated_step.requires("gate 1, shift and scale 0, inner x -> x: norm added")
def _(fn: Answer) -> Pair:
    """At shift 0 and scale 0 the inner part is given norm(h): mean 0 and spread 1 over the D columns of a position."""
    spread = STREAM + NORMED * 0.75**0.5
    over_genes = STREAM + F.layer_norm(STREAM.T, (2,)).T
    faults = {"At scale 0 the norm must pass: multiply by 1 + scale, not by scale.": STREAM,
              "The inner part is given h itself: it needs norm(h).": 2 * STREAM,
              "Divide by the root of the mean square, not of the sum over D - 1: F.layer_norm, or "
              "var(unbiased=False).": spread,
              "The norm is taken over the D columns of each position, not over positions.": over_genes}
    return STREAM + NORMED, fn(STREAM, ZERO, ZERO, ONE, _same), faults

@modulated_step.requires("shift 2 and scale 4: the norm times 5, plus 2")
def _(fn: Answer) -> Pair:
    """Scale first, then shift: norm(h) * (1 + scale) + shift."""
    faults = {"You shift first and scale after: norm(h) * (1 + scale) + shift.": STREAM + 5 * NORMED + 10,
              "Shift and scale are exchanged.": STREAM + 3 * NORMED + 4,
              "Scale the norm by 1 + scale, not by scale.": STREAM + 4 * NORMED + 2}
    return STREAM + 5 * NORMED + 2, fn(STREAM, 2 * ONE, 4 * ONE, ONE, _same), faults

@modulated_step.requires("inner x -> x squared, gate 3")
def _(fn: Answer) -> Pair:
    """The gate comes after inner: gate * inner(...), not inner(gate * ...)."""
    return STREAM + 3, fn(STREAM, ZERO, ZERO, 3 * ONE, torch.square)

@modulated_step.requires("all three, inner x -> x squared")
def _(fn: Answer) -> Pair:
    """Shift and scale act on what inner is given, the gate on what it returns."""
    faults = {"Shift and scale act on what inner is given, not on what it returns.": STREAM + 3 * (5 * NORMED**2 + 2),
              "The shift, too, acts on what inner is given.": STREAM + 3 * ((5 * NORMED) ** 2 + 2)}
    return STREAM + 3 * (5 * NORMED + 2) ** 2, fn(STREAM, 2 * ONE, 4 * ONE, 3 * ONE, torch.square), faults

@modulated_step.requires("a position whose columns are all 7")
def _(fn: Answer) -> Pair:
    """A spread of 0 must not divide: F.layer_norm adds 1e-5 to the variance, under the root."""
    flat = torch.full((2, 4), 7.0)
    return flat, fn(flat, ZERO, ZERO, ONE, _same)


@exercise(
    "2.5", "Assemble a block", difficulty=3, minutes=12,
    objective="put attention, reading of controls and MLP together as one block",
    misconception="The nine rows belong to steps: three to the first, three to the second, three to the third.",
    hints=("modulation[0:3] are shift, scale and gate of the first step: modulated_step(h, *modulation[:3], attend).",
           "The second step's inner part reads the memory: lambda x: read(x, memory). Without a memory it is left "
           "out, and its three rows with it."),
)
def block(h: Float[Tensor, "G D"], modulation: Float[Tensor, "9 D"], memory: Float[Tensor, "C M"] | None,
          attend: Part, read: Callable[[Tensor, Tensor], Tensor], mlp: Part) -> Float[Tensor, "G D"]:
    """Takes three modulated steps: attention among genes, reading of the controls if there are any, MLP."""
    step = modulated_step.reference
    h = step(h, *modulation[:3], attend)
    if memory is not None:
        h = step(h, *modulation[3:6], lambda x: read(x, memory))
    return step(h, *modulation[6:], mlp)

def _gates(*gates: int) -> Tensor:
    """Rows whose shifts and scales are zero."""
    modulation = torch.zeros(9, 4)
    modulation[2::3] = torch.tensor(gates, dtype=torch.float)[:, None]
    return modulation

def _constant(amount: int) -> Callable[..., Tensor]:
    return lambda x, memory=None: torch.full_like(x, amount)

def _constants(fn: Answer, modulation: Tensor, memory: Tensor | None = ONE[None]) -> Tensor:
    return fn(STREAM, modulation, memory, _constant(1), _constant(10), _constant(100))

@block.requires("parts that give 1, 10 and 100; gates 1, 2 and 3")
def _(fn: Answer) -> Pair:
    """Each step has a gate of its own: rows 2, 5 and 8."""
    faults = {"The rows are cut by kind (all shifts, all scales, all gates): each step owns three rows in a row.":
              STREAM + 300,
              "The step that reads the controls is missing.": STREAM + 301,
              "All three steps use the first one's rows.": STREAM + 111,
              "Rows 0 to 2, 3 to 5, 6 to 8: a step begins three rows after the one before.": STREAM + 1,
              "The second step starts from the h of the beginning: hand it what the first returned.": STREAM + 320,
              "modulated_step already adds h: replace h by what it returns.": 8 * STREAM + 344,
              "The rows of a step are shift, scale, gate, in this order.": STREAM}
    return STREAM + 321, _constants(fn, _gates(1, 2, 3)), faults

@block.requires("no controls: the first and the third step alone")
def _(fn: Answer) -> Pair:
    """Without a memory nothing is read: skip the second step. The MLP keeps the last three rows."""
    faults = {"Without controls the MLP took the second step's rows: its own are the last three.": STREAM + 201}
    return STREAM + 301, _constants(fn, _gates(1, 2, 3), None), faults

@block.requires("who is asked, in order")
def _(fn: Answer) -> Pair:
    """First attention among genes, then the controls, then the MLP."""
    asked: list[str] = []

    def note(name: str) -> Callable[..., Tensor]:
        def part(x: Tensor, memory: Tensor | None = None) -> Tensor:
            asked.append(name)
            return x
        return part

    fn(STREAM, _gates(1, 1, 1), ONE[None], note("attend"), note("read"), note("mlp"))
    return ["attend", "read", "mlp"], asked

@block.requires("the second step is handed the memory")
def _(fn: Answer) -> Pair:
    """read(x, memory) takes the controls' memory as its second argument, unchanged."""
    memory = torch.tensor([[5.0, 6.0]])
    given = fn(STREAM, _gates(0, 1, 0), memory, _same, lambda x, read: x + read.sum(), _same)
    faults = {"Hand `read` the x that the step makes (the stream's norm), not h.": 2 * STREAM + 11}
    return STREAM + NORMED + 11, given, faults

@block.requires("a step reads what the one before it has added")
def _(fn: Answer) -> Pair:
    """The stream goes from step to step: the second reads what the first returned, not the h of the beginning."""
    jump = torch.tensor([4.0, 0.0, 0.0, 0.0])
    after = STREAM + jump
    return after + F.layer_norm(after, (4,)), fn(STREAM, _gates(1, 0, 1), None, lambda x: x * 0 + jump, _same, _same)

@block.requires("random weights: the package's block")
def _(fn: Answer) -> Pair:
    """If only this row fails: does your 2.4 pass? And each step has a shift and a scale of its own."""
    torch.manual_seed(0)
    config = PRESETS["lite"].model
    one = Block(config)
    h, modulation = torch.randn(5, config.dim), torch.randn(9, config.dim)
    memory = torch.randn(3, config.control_set_dim_out)

    def attend(x: Tensor) -> Tensor:
        return one.self_attention.inner(x[None])[0]

    def read(x: Tensor, memory: Tensor) -> Tensor:
        return one.cross_attention.inner(x[None], memory[None])[0]

    with torch.no_grad():
        expected = one(h[None, None], modulation[None, None], memory[None])[0, 0]
        return expected, fn(h, modulation, memory, attend, read, one.mlp.inner)
