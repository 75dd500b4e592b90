"""What one forward pass does, read off the live model on the meta device: shapes, parameters, FLOPs of each module."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdt_lite.figures.accounting import CONTROLS, Preset, meta_model, network, probe


class Layer(NamedTuple):
    """One module as the forward pass saw it: class, shapes, parameters (its own, and with all below it), FLOPs."""

    kind: str
    inputs: list[tuple[int, ...]]
    output: tuple[int, ...]
    own: int
    parameters: int
    flops: int


def trace(config: Preset, n_controls: int = CONTROLS) -> dict[str, Layer]:
    """Runs one cell through the model on the meta device and returns what every module did, by its name."""
    model = meta_model(config)
    seen = {name: Layer(type(module).__name__, [], (), sum(p.numel() for p in module.parameters(recurse=False)),
                        sum(p.numel() for p in module.parameters()), 0) for name, module in model.named_modules()}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            shapes = [tuple(x.shape) for x in inputs if isinstance(x, Tensor)]
            seen[name] = seen[name]._replace(inputs=shapes, output=tuple(output.shape))
        return hook
    for name, module in model.named_modules():
        module.register_forward_hook(note(name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**probe(network(config).n_genes, n_controls))
    for key, found in counter.get_flop_counts().items():
        if (name := key.removeprefix("CDT").removeprefix(".")) in seen:
            seen[name] = seen[name]._replace(flops=sum(found.values()))
    return seen


def shape(dims: tuple[int, ...]) -> str:
    """Returns a shape as "2,000 × 512", leading ones left out."""
    while len(dims) > 1 and dims[0] == 1:
        dims = dims[1:]
    return " × ".join(f"{n:,}" for n in dims)


def amount(number: int | float, unit: str = "") -> str:
    """Returns a number in three figures with k, M or G, for instance "27.4 M"."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {letter}{unit}"
    return f"{number:g} {unit}".strip()


def size_lines(layer: Layer, out: bool = True) -> list[str]:
    """Returns the lines that a module's box says: shape of its output, parameters, FLOPs."""
    return [*([f"out {shape(layer.output)}"] if out else []), f"{layer.parameters:,} parameters",
            *([amount(layer.flops, "FLOP")] if layer.flops else [])]
