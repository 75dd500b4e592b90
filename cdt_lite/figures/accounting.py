"""Count before you run: parameters, floating-point operations, bytes and hours of a preset, in closed form.

One table, `products.products`, lists every matrix product of a forward pass; operations, traffic, time are sums over
it. One multiply-add is 2 FLOPs. Nothing here holds a weight: models live on the meta device or are fake tensors.
"""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from cdt_lite.errors import CDTError, suggest
from cdt_lite.figures.products import CONTROLS, Preset, network, products
from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import Config, get_preset
from cdt_lite.model.perturbation import Perturbation

# name -> dense half-precision TFLOP/s, memory GB/s, memory GB, where the numbers are from
ACCELERATORS: dict[str, tuple[float, float, int, str]] = {
    "T4": (65.0, 320.0, 16, "NVIDIA T4 datasheet, fp16"),
    "L4": (121.0, 300.0, 24, "NVIDIA L4 datasheet, bf16, no sparsity"),
    "RTX 4090": (165.2, 1008.0, 24, "NVIDIA Ada whitepaper, bf16 summed in fp32, no sparsity"),
    "A100 80GB": (312.0, 2039.0, 80, "NVIDIA A100 SXM datasheet, bf16, no sparsity"),
    "H100": (989.4, 3350.0, 80, "NVIDIA H100 SXM datasheet, bf16, no sparsity"),
    "H200": (989.4, 4800.0, 141, "NVIDIA H200 SXM datasheet, bf16, no sparsity"),
    "H200 (measured)": (788.0, 4800.0, 141, "large bf16 matrix products, measured on one card"),
}
_PARTS = {  # beginning of a parameter's name -> part of the model; the longest that fits decides
    "embed.token": "token embedding", "embed.position": "position embedding", "embed.rank": "ordinal token MLP",
    "embed.identity": "gene identity projection", "embed.target_flag": "target flag",
    "embed.statistics": "control statistics MLP", "embed.summary": "cell summary",
    "embed.effect": "mean effect MLP", "trust": "trust in the mean effect",
    "time": "time MLP", "control_set": "control-set encoder",
    "gene_table": "gene table", "perturbation.sign": "sign embedding", "perturbation.magnitude": "magnitude MLP",
    "perturbation.project": "conditioning projection", "perturbation.no_target": "no / unknown target",
    "perturbation.unknown_target": "no / unknown target", "depth": "depth MLP", "modulation": "adaLN modulation",
    "self_attention.inner": "self-attention", "cross_attention.inner": "cross-attention", "mlp.inner": "FFN",
    "block norm": "block norms", "block offset": "block adaLN offsets", "norm": "final norm", "head": "output head",
}


def meta_model(config: Preset) -> CDT:
    """Returns the model as names and shapes only, on the meta device."""
    with torch.device("meta"):
        return CDT(network(config))


def probe(n_genes: int, n_controls: int = CONTROLS, cells_per_set: int = 1, n_sets: int = 1, device: str = "meta"
          ) -> dict[str, Any]:
    """Returns the inputs of one forward pass by argument name: zeros, or shapes only on the meta device."""
    whole, real = partial(torch.zeros, dtype=torch.long, device=device), partial(torch.zeros, device=device)
    return {"xt": whole(n_sets, cells_per_set, n_genes), "t": real(n_sets, cells_per_set),
            "perturbation": Perturbation(whole(n_sets), whole(n_sets), real(n_sets)),
            "controls": whole(n_sets, n_controls, n_genes) if n_controls else None}


def part_of(name: str) -> str:
    """Returns the part of the model that a parameter of this name belongs to."""
    if name.startswith("blocks."):  # blocks.0.mlp.inner.0.bias -> mlp.inner..., blocks.0.mlp.norm.bias -> block norm
        inside = name.split(".", 2)[2]
        name = inside if ".inner." in inside else f"block {inside.split('.')[1]}"
    fits = [beginning for beginning in _PARTS if name.startswith(beginning)]
    return _PARTS[max(fits, key=len)] if fits else name.split(".")[0]


def parameters_by_part(model: CDT | Preset) -> dict[str, int]:
    """Counts the trainable numbers in each part of the model; they sum to the whole."""
    found: Counter[str] = Counter(dict.fromkeys(_PARTS.values(), 0))
    for name, parameter in (model if isinstance(model, CDT) else meta_model(model)).named_parameters():
        found[part_of(name)] += parameter.numel()
    return {part: n for part, n in found.items() if n}


def nominal_parameters(config: Preset) -> dict[str, int]:
    """Returns the original document's closed-form estimate, term by term: 24,752,265 for v1, not the module's count."""
    c = network(config)
    return {"token embedding": c.vocab_size * c.dim, "position embedding": c.n_genes * c.dim,
            "time embedding": c.n_timesteps * c.dim, "gene embedding": c.n_total_genes * c.gene_embed_dim,
            "sign embedding": 3 * c.perturb_sign_dim, "magnitude MLP": c.perturb_magnitude_dim * c.dim * 3,
            "transformer layers": c.n_layer * (4 * c.dim**2 + 2 * c.ffn_mult * c.dim**2),
            "output head": c.dim * c.vocab_size}


def document_breakdown(config: Preset) -> dict[str, int]:
    """Returns the document's other total, 26,174,601 for v1: three terms differ, and these forms reproduce them."""
    c = network(config)
    inputs = c.gene_embed_dim + c.perturb_sign_dim + c.dim
    return nominal_parameters(c) | {
        "time embedding": 2 * c.dim, "conditioning projection": 2 * inputs * c.dim,
        "control-set encoder": 3 * c.n_genes * c.control_set_dim_hidden}


def flops_by_part(config: Preset, n_genes: int | None = None, n_controls: int = CONTROLS, cells_per_set: int = 1,
                  n_sets: int = 1) -> dict[str, int]:
    """Returns the operations of one forward pass, part by part, largest first; arguments as in `products`."""
    found: Counter[str] = Counter()
    for product in products(config, n_genes, n_controls, cells_per_set, n_sets):
        found[product.part] += product.flops
    return dict(found.most_common())


def training_flops(config: Preset, n_genes: int | None = None, n_controls: int = CONTROLS, cells_per_set: int = 1,
                   n_sets: int = 1, exact: bool = False) -> int:
    """Returns the operations of one training pass: 3 x forward, the usual definition for model FLOPs utilisation.

    `exact`: what a counter sees with the MATH attention kernel, 3 x less the input gradients of layers that read data.
    """
    listed = products(config, n_genes, n_controls, cells_per_set, n_sets)
    return sum(product.flops * (2 if product.leaf and exact else 3) for product in listed)


def document_flops(config: Preset, batch: int = 32) -> dict[str, int]:
    """Returns the document's formula: one FLOP per multiply-add, QK^T without AV, no cross-attention or controls."""
    c, rows = network(config), batch * network(config).n_genes
    return {"attention": c.n_layer * rows * (2 * c.dim**2 + 2 * c.dim * c.head_dim + c.n_genes * c.dim),
            "FFN": c.n_layer * rows * 2 * c.ffn_mult * c.dim**2, "output head": rows * c.dim * c.vocab_size}


@lru_cache(maxsize=1024)
def saved_bytes(config: Preset, n_genes: int | None = None, n_sets: int = 1, fused: bool = True, bf16: bool = False,
                fake: bool = True) -> int:
    """Measures the bytes that a training pass keeps for its backward half (activations; one cell a set, 64 controls).

    A hook catches every tensor that autograd saves; each storage counts once, weights do not. `fake`: PyTorch's fake
    CPU tensors, whose shapes, types and kernels are real and whose memory is not, so any size takes milliseconds.
    """
    c, kept = network(config), {}
    n_genes = c.n_genes if n_genes is None else n_genes
    model = meta_model(replace(c, n_genes=n_genes) if c.control_input == "tokens" else c)
    with FakeTensorMode() if fake else nullcontext():
        weights = {name: torch.zeros(p.shape, requires_grad=True) for name, p in model.named_parameters()}
        weights |= {name: torch.zeros(b.shape, dtype=b.dtype) for name, b in model.named_buffers()}
        own = {weight.untyped_storage()._cdata for weight in weights.values()}
        inputs = probe(n_genes, n_sets=n_sets, device="cpu")

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage  # held, so that its address stays its own
            return tensor
        kernel = nullcontext() if fused else sdpa_kernel(SDPBackend.MATH)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), kernel, torch.autocast("cpu", enabled=bf16):
            logits = functional_call(model, weights, kwargs=inputs)
            F.cross_entropy(logits.flatten(0, 2), inputs["xt"].flatten())
    return sum(storage.nbytes() for storage in kept.values())


def activation_law(config: Preset, fused: bool = True, bf16: bool = False) -> tuple[tuple[int, ...], float]:
    """Fits a + b G + B (c + d G + e G^2) bytes to small B, G; returns it and its error at the panel and 32 cells."""
    def terms(cells: int, genes: int) -> list[int]:
        return [1, genes, cells, cells * genes, cells * genes**2]
    small = [(cells, genes) for genes in (32, 64, 96) for cells in (2, 4)]
    seen = np.array([saved_bytes(config, genes, cells, fused, bf16) for cells, genes in small])
    law = np.linalg.lstsq(np.array([terms(*size) for size in small]), seen, rcond=None)[0].round().astype(int)
    predicted = law @ terms(32, network(config).n_genes)
    return tuple(law.tolist()), float(predicted / saved_bytes(config, None, 32, fused, bf16) - 1)


def memory(config: Preset, batch: int = 32, fused: bool = True, bf16: bool = False) -> dict[str, int]:
    """Returns the bytes of training: fp32 weights, gradients and AdamW's two moments, and the activations."""
    weights = 4 * sum(parameters_by_part(config).values())
    return {"weights": weights, "gradients": weights, "AdamW moments": 2 * weights,
            "activations": saved_bytes(config, None, batch, fused, bf16)}


def largest_batch(config: Preset, card_gb: int | float, fused: bool = True, bf16: bool = False) -> int:
    """Returns how many cells a training step may hold on a card, with 1 GB left to the driver and the allocator."""
    two, four = (sum(memory(config, cells, fused, bf16).values()) for cells in (2, 4))  # memory is linear in cells
    return max(0, int(((card_gb - 1) * 1e9 - (2 * two - four)) // ((four - two) / 2)))


def step_seconds(config: Preset, accelerator: str, batch: int = 32, n_controls: int = CONTROLS) -> tuple[float, float]:
    """Returns the least seconds of a training step: by operations alone, and by the slower of operations and traffic.

    Source: the roofline, Williams et al. 2009, doi:10.1145/1498765.1498785; traffic of matrix products only.
    """
    if accelerator not in ACCELERATORS:
        raise CDTError(f"no accelerator {accelerator!r}{suggest(accelerator, ACCELERATORS)} Known: {[*ACCELERATORS]}")
    peak, bandwidth = ACCELERATORS[accelerator][0] * 1e12, ACCELERATORS[accelerator][1] * 1e9
    listed = products(config, n_controls=n_controls, n_sets=batch)
    return (3 * sum(p.flops for p in listed) / peak, 3 * sum(max(p.flops / peak, p.bytes / bandwidth) for p in listed))


def plan_hours(config: Config, accelerator: str, pretrain_cells: int, finetune_cells: int, share: float = 1.0) -> float:
    """Returns the hours of a preset's plan (v1: 50 + 20 epochs, the 50 without controls) at a share of the ceiling."""
    with_controls, without = (step_seconds(config, accelerator, 1, n)[0] for n in (CONTROLS, 0))
    seconds = sum(stage.epochs * cells * (with_controls + stage.controls_dropout * (without - with_controls))
                  for stage, cells in ((config.pretrain, pretrain_cells), (config.finetune, finetune_cells)))
    return seconds / share / 3600


def account(preset: str | Config) -> dict[str, Any]:
    """Returns a preset's account as plain data. Raises CDTError, with close matches, for an unknown preset."""
    config = get_preset(preset) if isinstance(preset, str) else preset
    parts, flops = parameters_by_part(config), flops_by_part(config)
    return {
        "preset": config.name, "n_genes": config.model.n_genes, "n_controls": CONTROLS,
        "nominal_parameters": sum(nominal_parameters(config).values()), "nominal_terms": nominal_parameters(config),
        "document_breakdown": sum(document_breakdown(config).values()), "parameters": sum(parts.values()),
        "parameters_by_part": parts, "flops_forward_per_cell": sum(flops.values()), "flops_by_part": flops,
        "flops_training_per_cell": training_flops(config),
        "flops_training_per_cell_exact": training_flops(config, exact=True),
        "training_bytes_batch_32": memory(config, 32, bf16=True),
        "least_step_seconds_batch_32": {name: round(step_seconds(config, name)[1], 6) for name in ACCELERATORS},
    }
