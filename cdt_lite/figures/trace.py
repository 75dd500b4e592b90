"""The live model as names and shapes: built on the meta device, run once, and asked what each of its modules did."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdt_lite.model import CDT, V1, Config, MaskedDiffusion, Perturbation, V1Diffusion, build

CONTROLS = 64  # control cells that a cell is shown, unless said otherwise


@dataclass
class Layer:
    """One module as a forward pass of one cell saw it: shapes of what goes in and out, FLOPs with those inside it."""

    module: nn.Module
    input: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    flops: int = 0

    @property
    def own(self) -> int:
        """Parameters that no module inside holds."""
        return sum(p.numel() for p in self.module.parameters(recurse=False))

    @property
    def parameters(self) -> int:
        """Parameters, with those of all modules inside."""
        return sum(p.numel() for p in self.module.parameters())

    def see(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Takes down the shapes: a forward hook."""
        if isinstance(inputs[0], Tensor):
            self.input = tuple(inputs[0].shape)
        self.output = tuple(output.shape)


def resized(config: Config, n_genes: int | None) -> Config:
    """Returns the preset with a panel of another size; None leaves it as it is."""
    return config if n_genes is None else replace(config, model=replace(config.model, n_genes=n_genes))


def meta_model(config: Config) -> CDT | V1:
    """Returns a preset's network as names and shapes only, on the meta device."""
    with torch.device("meta"):
        return build(config)[0]


def process_of(config: Config) -> MaskedDiffusion | V1Diffusion:
    """Returns a preset's process: how it hides genes and makes cells."""
    with torch.device("meta"):
        return build(config)[1]


def probe(model: CDT | V1, n_controls: int = CONTROLS, cells_per_set: int = 1, n_sets: int = 1, device: str = "meta"
          ) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Returns a model with its condition filled in, and cells for it: zeros, or shapes only on the meta device."""
    n_genes = model.config.n_genes
    ids = partial(torch.zeros, dtype=torch.long, device=device)
    controls = ids(n_sets, n_controls, n_genes) if n_controls else None
    depth = torch.zeros(n_sets, cells_per_set, device=device)
    denoise = model.given(Perturbation.none(n_sets, device), controls, ids(n_genes), depth)
    return denoise, ids(n_sets, cells_per_set, n_genes)


@lru_cache(maxsize=8)
def trace(config: Config) -> dict[str, Layer]:
    """Runs one cell through a preset's model on the meta device and returns what every module did, by its name.

    The pass is one of pretraining: `Response`, which needs a table of mean effects, does nothing.
    """
    model, seen = meta_model(config), {}
    for name, module in model.named_modules():
        seen[name] = Layer(module)
        module.register_forward_hook(seen[name].see)
    denoise, cell = probe(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoise(cell)
    for path, found in counter.get_flop_counts().items():
        name = path.partition(".")[2]  # "CDT.blocks.0" -> "blocks.0"
        if name in seen:
            seen[name].flops = sum(found.values())
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
