"""Count before you run: the parameters and the floating-point operations of a preset, in closed form.

`products` lists every matrix product of a forward pass; operations, traffic and time are sums over it. One multiply-add
is 2 FLOPs. Nothing here holds a weight: models live on the meta device.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cdt_lite.figures.trace import CONTROLS, meta_model, resized
from cdt_lite.model import Config
from cdt_lite.model.v1 import N_TIMESTEPS

PARTS = {  # what a parameter's name begins with -> part of the model
    "embed.token": "token embedding", "embed.position": "position embedding", "embed.rank": "ordinal token MLP",
    "embed.identity": "gene identity projection", "embed.statistics": "control statistics MLP",
    "embed.summary": "cell summary", "embed.effect": "mean effect MLP",
    "response.trust": "trust in the mean effect", "response": "whether a cell answers",
    "time": "time MLP", "control_set": "control-set encoder", "gene_table": "gene table",
    "perturbation.sign": "sign embedding", "perturbation.magnitude": "magnitude MLP",
    "perturbation.project": "conditioning projection", r"perturbation.\w+_target": "no / unknown target",
    "depth": "depth MLP", "modulation": "adaLN modulation",
    r"blocks.\d+.self_attention.inner": "self-attention", r"blocks.\d+.cross_attention.inner": "cross-attention",
    r"blocks.\d+.mlp.inner": "FFN", r"blocks.\d+.\w+.norm": "block norms",
    r"blocks.\d+.\w+.offset": "block adaLN offsets", "norm": "final norm", "head": "output head",
}


def part_of(name: str) -> str:
    """Returns the part of the model that a parameter of this name belongs to."""
    for beginning, part in PARTS.items():
        if re.match(beginning, name):
            return part
    return name.split(".")[0]


def parameters_by_part(config: Config) -> dict[str, int]:
    """Counts the trainable numbers in each part of a preset's model; they sum to the whole."""
    found = dict.fromkeys(PARTS.values(), 0)
    for name, parameter in meta_model(config).named_parameters():
        part = part_of(name)
        found[part] = found.get(part, 0) + parameter.numel()
    return {part: n for part, n in found.items() if n}


def nominal_parameters(config: Config) -> dict[str, int]:
    """Returns the original document's closed-form estimate, term by term: 24,752,265 for v1, not the module's count."""
    c = config.model
    return {
        "token embedding": c.vocab_size * c.dim, "position embedding": c.n_genes * c.dim,
        "time embedding": N_TIMESTEPS * c.dim, "gene embedding": c.n_total_genes * c.gene_embed_dim,
        "sign embedding": 3 * c.perturb_sign_dim, "magnitude MLP": 3 * c.perturb_magnitude_dim * c.dim,
        "transformer layers": c.n_layer * (4 + 2 * c.ffn_mult) * c.dim**2, "output head": c.dim * c.vocab_size,
    }


def document_breakdown(config: Config) -> dict[str, int]:
    """Returns the document's other total, 26,174,601 for v1: three terms differ, and these forms reproduce them."""
    c = config.model
    inputs = c.gene_embed_dim + c.perturb_sign_dim + c.dim
    return nominal_parameters(config) | {
        "time embedding": 2 * c.dim, "conditioning projection": 2 * inputs * c.dim,
        "control-set encoder": 3 * c.n_genes * c.control_set_dim_hidden,
    }


def document_flops(config: Config, batch: int = 32) -> dict[str, int]:
    """Returns the document's formula: one FLOP per multiply-add, QK^T without AV, no cross-attention or controls."""
    c, rows = config.model, batch * config.model.n_genes
    attention = 2 * c.dim**2 + 2 * c.dim * c.head_dim + c.n_genes * c.dim
    return {"attention": c.n_layer * rows * attention, "FFN": c.n_layer * rows * 2 * c.ffn_mult * c.dim**2,
            "output head": rows * c.dim * c.vocab_size}


@dataclass(frozen=True)
class Product:
    """A matrix product (m x k)(k x n), done `times` times in a forward pass, and the part it is counted under."""

    part: str
    name: str
    m: int
    k: int
    n: int
    times: int = 1
    leaf: bool = False  # the left side is data: training does the product twice, not three times
    unstored: int = 0  # values of one product that a fused kernel keeps on the chip

    @property
    def flops(self) -> int:
        """Operations of one forward pass."""
        return 2 * self.m * self.k * self.n * self.times

    @property
    def bytes(self) -> int:
        """Bytes moved in half precision if each operand is read, and the result written, once."""
        values = self.m * self.k + self.k * self.n + self.m * self.n
        return 2 * self.times * (values - self.unstored)


def products(config: Config, n_genes: int | None = None, n_controls: int = CONTROLS, cells_per_set: int = 1,
             n_sets: int = 1) -> list[Product]:
    """Lists every matrix product of one forward pass.

    Args:
        config: A preset.
        n_genes: Genes per cell; by default the preset's panel.
        n_controls: Control cells per set; 0 is the unconditional mode.
        cells_per_set: Cells that share one control set.
        n_sets: Sets.
    """
    model = meta_model(resized(config, n_genes))
    genes, cells = model.config.n_genes, n_sets * cells_per_set
    listing = _Listing(dict(model.named_modules()), genes, n_controls, n_sets, cells)
    linears = listing.linears
    linears("perturbation.magnitude", n_sets, leaf=True)
    linears("perturbation.project", n_sets)
    linears("time", cells, leaf=True)
    linears("depth", cells, leaf=True)
    linears("modulation", cells)
    linears("embed.rank", model.config.vocab_size, leaf=True)
    linears("embed.identity", genes)
    linears("embed.statistics", n_sets * genes if n_controls else 0, leaf=True)
    linears("embed.effect", n_sets * genes, leaf=True)
    if "embed.summary" in listing.modules:
        listing.cell_summary()
    if n_controls:
        listing.control_set()
    for i in range(len(model.blocks)):
        listing.block(f"blocks.{i}")
    linears("head", cells * genes, name="head")
    return listing.found


@dataclass
class _Listing:
    """Collects products; what the model lacks, or what has no rows to read, adds none."""

    modules: dict[str, Any]
    genes: int
    controls: int
    sets: int
    cells: int
    found: list[Product] = field(default_factory=list)

    def add(self, part: str, name: str, m: int, k: int, n: int, leaf: bool = False) -> None:
        self.found.append(Product(part, name, m, k, n, leaf=leaf))

    def linears(self, path: str, rows: int, leaf: bool = False, name: str = "") -> None:
        """Adds the linear layers of a module, each fed by the one before; `leaf`: the first reads data."""
        for layer in self.modules.get(path, nn.Module()).modules():
            if isinstance(layer, nn.Linear) and rows:
                k, n = layer.in_features, layer.out_features
                self.add(part_of(path), name or f"Linear {k} to {n}", rows, k, n, leaf)
                leaf = False

    def attention(self, part: str, rows: int, width: int, memory: int, times: int) -> None:
        """Adds the two products of attention without weights."""
        self.found.append(Product(part, "QK^T", rows, width, memory, times, unstored=rows * memory))
        self.found.append(Product(part, "AV", rows, memory, width, times, unstored=rows * memory))

    def cell_summary(self) -> None:
        path, has_controls = "embed.summary", self.controls > 0
        if not has_controls:  # the learned centre is read only where there are no controls
            self.linears(f"{path}.centre", self.genes)
        self.linears(f"{path}.read", self.genes)
        self.linears(f"{path}.give", self.genes)
        width = self.modules[f"{path}.read"].out_features
        self.add(part_of(path), "departures x genes", self.cells, self.genes, width, leaf=has_controls)
        self.linears(f"{path}.state", self.cells)

    def control_set(self) -> None:
        path, rows = "control_set", self.sets * self.controls
        part, width = part_of(path), self.modules[f"{path}.out"].in_features
        self.linears(f"{path}.cell", rows, leaf=True)
        if f"{path}.gene" in self.modules:
            self.linears(f"{path}.gene", self.genes)
            self.add(part, "values x genes", rows, self.genes, width, leaf=True)
        for i, layer in enumerate(self.modules[f"{path}.layers"]):
            head = width // layer.n_head
            self.add(part, "q, k, v", rows, width, 3 * width)
            self.add(part, "out", rows, width, width)
            self.attention(part, self.controls, head, self.controls, self.sets * layer.n_head)
            self.linears(f"{path}.layers.{i}.mlp", rows)
        self.linears(f"{path}.out", rows)

    def block(self, path: str) -> None:
        own = self.modules[f"{path}.self_attention.inner"]
        cross = self.modules.get(f"{path}.cross_attention.inner")
        width, head = own.out.in_features, own.head_dim
        rows, queries = self.cells * self.genes, self.genes * own.n_head  # heads are folded into the rows
        for side in ("q", "out"):
            self.add("self q and out projections", side, rows, width, width)
        self.add("self k/v projection", "k, v", rows, width, 2 * head)
        self.attention("self-attention QK^T and AV", queries, head, self.genes, self.cells)
        if cross is not None and self.controls:
            memory, queries = self.sets * self.controls, queries * self.cells // self.sets
            for side in ("q", "out"):
                self.add("cross q and out projections", side, rows, width, width)
            self.add("cross k/v projection", "k, v", memory, cross.kv.in_features, 2 * head)
            self.attention("cross-attention QK^T and AV", queries, head, self.controls, self.sets)
        self.linears(f"{path}.mlp.inner", rows)


def flops_by_part(config: Config, n_genes: int | None = None, n_controls: int = CONTROLS, cells_per_set: int = 1,
                  n_sets: int = 1) -> dict[str, int]:
    """Returns the operations of one forward pass, part by part, largest first; arguments as in `products`."""
    found: Counter[str] = Counter()
    for product in products(config, n_genes, n_controls, cells_per_set, n_sets):
        found[product.part] += product.flops
    return dict(found.most_common())


def training_flops(listed: list[Product], exact: bool = False) -> int:
    """Returns the operations of one training pass: 3 x forward, the usual definition for model FLOPs utilisation.

    Args:
        listed: The products of a forward pass.
        exact: What a counter sees with the MATH attention kernel: no gradients for inputs that are data.
    """
    return sum(product.flops * (2 if exact and product.leaf else 3) for product in listed)
