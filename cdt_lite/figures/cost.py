"""What training costs before it is run: bytes kept for the backward pass, the largest batch, the least time."""

from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from cdt_lite.errors import CDTError, suggest
from cdt_lite.figures import accounting
from cdt_lite.figures.trace import CONTROLS, probe, resized
from cdt_lite.model import CDT, V1, Config, build, get_preset

ACCELERATORS: dict[str, tuple[float, float]] = {  # dense half-precision TFLOP/s, memory GB/s
    "T4": (65.0, 320.0),  # NVIDIA T4 datasheet, fp16
    "L4": (121.0, 300.0),  # NVIDIA L4 datasheet, bf16, no sparsity
    "RTX 4090": (165.2, 1008.0),  # NVIDIA Ada whitepaper, bf16 summed in fp32, no sparsity
    "A100 80GB": (312.0, 2039.0),  # NVIDIA A100 SXM datasheet, bf16, no sparsity
    "H100": (989.4, 3350.0),  # NVIDIA H100 SXM datasheet, bf16, no sparsity
    "H200": (989.4, 4800.0),  # NVIDIA H200 SXM datasheet, bf16, no sparsity
    "H200 (measured)": (788.0, 4800.0),  # large bf16 matrix products, measured on one card
}


@lru_cache(maxsize=1024)
def saved_bytes(config: Config, n_genes: int | None = None, n_sets: int = 1, fused: bool = True, bf16: bool = False
                ) -> int:
    """Measures the bytes that a training pass keeps for its backward half (activations; one cell a set, 64 controls).

    It runs on PyTorch's fake CPU tensors, whose shapes, types and kernels are real and whose memory is not, so any size
    takes milliseconds.
    """
    with FakeTensorMode():
        return kept_bytes(build(resized(config, n_genes))[0], n_sets, fused, bf16)


def kept_bytes(model: CDT | V1, n_sets: int, fused: bool, bf16: bool) -> int:
    """Runs a training pass and counts what autograd keeps, weights aside: a hook catches every tensor that it saves.

    The pass is one of pretraining: a model that knows mean effects keeps some percent more (`Response`).
    """
    kept: dict[int, Any] = {}
    own = {weight.untyped_storage()._cdata for weight in [*model.parameters(), *model.buffers()]}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address stays its own
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    kernel = nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)
    denoise, cells = probe(model, n_sets=n_sets, device="cpu")
    with hooks, kernel, torch.autocast("cpu", enabled=bf16):
        F.cross_entropy(denoise(cells).flatten(0, 2), cells.flatten())
    return sum(storage.nbytes() for storage in kept.values())


def activation_law(config: Config, fused: bool = True) -> tuple[dict[str, int], float]:
    """Fits a + b G + B (c + d G + e G^2) bytes (fp32) to small B, G; returns it and its error at 32 cells."""
    def terms(cells: int, genes: int) -> list[int]:
        return [1, genes, cells, cells * genes, cells * genes**2]

    sizes, seen = [], []
    for genes in (32, 64, 96):
        for cells in (2, 4):
            sizes.append(terms(cells, genes))
            seen.append(saved_bytes(config, genes, cells, fused))
    law = np.linalg.lstsq(np.array(sizes), np.array(seen), rcond=None)[0].round().astype(int)
    predicted = law @ terms(32, config.model.n_genes)
    error = predicted / saved_bytes(config, None, 32, fused) - 1
    return dict(zip("abcde", law.tolist(), strict=True)), float(error)


def memory(config: Config, batch: int = 32, fused: bool = True, bf16: bool = False) -> dict[str, int]:
    """Returns the bytes of training: fp32 weights, gradients and AdamW's two moments, and the activations."""
    weights = 4 * sum(accounting.parameters_by_part(config).values())
    found = {"weights": weights, "gradients": weights, "AdamW moments": 2 * weights}
    return found | {"activations": saved_bytes(config, None, batch, fused, bf16)}


def largest_batch(config: Config, card_gb: int | float, fused: bool = True, bf16: bool = False) -> int:
    """Returns how many cells a training step may hold on a card, with 1 GB left to the driver and the allocator."""
    two = sum(memory(config, 2, fused, bf16).values())
    four = sum(memory(config, 4, fused, bf16).values())
    a_cell = (four - two) / 2  # memory is linear in cells
    free = (card_gb - 1) * 1e9 - (two - 2 * a_cell)
    return max(0, int(free // a_cell))


def step_seconds(config: Config, accelerator: str, batch: int = 32, n_controls: int = CONTROLS) -> tuple[float, float]:
    """Returns the least seconds of a training step: by operations alone, and by the slower of operations and traffic.

    Source: the roofline, Williams et al. 2009, doi:10.1145/1498765.1498785; traffic of matrix products only.
    """
    if accelerator not in ACCELERATORS:
        hint = suggest(accelerator, ACCELERATORS)
        raise CDTError(f"no accelerator {accelerator!r}{hint} Known: {', '.join(ACCELERATORS)}")
    tflops, gigabytes = ACCELERATORS[accelerator]
    compute, roofline = 0.0, 0.0
    for product in accounting.products(config, n_controls=n_controls, n_sets=batch):
        busy = product.flops / (tflops * 1e12)
        moving = product.bytes / (gigabytes * 1e9)
        compute += 3 * busy
        roofline += 3 * max(busy, moving)
    return compute, roofline


def intensities(config: Config, n_sets: int = 32) -> pd.DataFrame:
    """Returns, for the parts that do a hundredth of the work or more, FLOP per byte moved and their share of all work.

    Args:
        config: A preset.
        n_sets: Sets of one cell.
    """
    listed = []
    for product in accounting.products(config, n_sets=n_sets):
        part = product.part.replace("self q", "q").replace("cross q", "q")  # both are the same size
        listed.append({"part": part, "flops": product.flops, "bytes": product.bytes})
    parts = pd.DataFrame(listed).groupby("part", sort=False).sum()
    share = parts["flops"] / parts["flops"].sum()
    found = pd.DataFrame({"intensity": parts["flops"] / parts["bytes"], "share": share})
    return found[share > 0.01]


def plan_hours(config: Config, accelerator: str, pretrain_cells: int, finetune_cells: int, share: float = 1.0) -> float:
    """Returns the hours of a preset's plan (v1: 50 + 20 epochs, the 50 without controls) at a share of the ceiling."""
    with_controls = step_seconds(config, accelerator, 1)[0]
    without = step_seconds(config, accelerator, 1, 0)[0]
    seconds = 0.0
    for stage, cells in ((config.pretrain, pretrain_cells), (config.finetune, finetune_cells)):
        a_cell = with_controls + stage.controls_dropout * (without - with_controls)
        seconds += stage.epochs * cells * a_cell
    return seconds / share / 3600


def account(preset: str) -> dict[str, Any]:
    """Returns a preset's account as plain data. Raises CDTError, with close matches, for an unknown preset."""
    config = get_preset(preset)
    listed, parts = accounting.products(config), accounting.parameters_by_part(config)
    nominal = accounting.nominal_parameters(config)
    return {
        "preset": config.name, "n_genes": config.model.n_genes, "n_controls": CONTROLS,
        "nominal_parameters": sum(nominal.values()), "nominal_terms": nominal,
        "document_breakdown": sum(accounting.document_breakdown(config).values()),
        "parameters": sum(parts.values()), "parameters_by_part": parts,
        "flops_forward_per_cell": sum(product.flops for product in listed),
        "flops_by_part": accounting.flops_by_part(config),
        "flops_training_per_cell": accounting.training_flops(listed),
        "flops_training_per_cell_exact": accounting.training_flops(listed, exact=True),
        "training_bytes_batch_32": memory(config, 32, bf16=True),
        "least_step_seconds_batch_32": {name: round(step_seconds(config, name)[1], 6) for name in ACCELERATORS},
    }
