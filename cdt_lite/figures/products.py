"""Every matrix product of a forward pass, in closed form: operations, traffic and time are sums over this list."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from cdt_lite.model.config import Config, ModelConfig

Preset: TypeAlias = Config | ModelConfig
CONTROLS = 64  # control cells that a cell is shown, unless said otherwise


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
        return 2 * self.times * (self.m * self.k + self.k * self.n + self.m * self.n - self.unstored)


def network(config: Preset) -> ModelConfig:
    """Returns the network's part of a preset."""
    return config.model if isinstance(config, Config) else config


def _mlp(part: str, rows: int, *widths: int, leaf: bool = True) -> list[Product]:
    return [Product(part, f"Linear {a} to {b}", rows, a, b, leaf=leaf and i == 0)
            for i, (a, b) in enumerate(pairwise(widths))]


def _attention(part: str, rows: int, width: int, memory: int, times: int) -> list[Product]:
    return [Product(part, "QK^T", rows, width, memory, times, unstored=rows * memory),
            Product(part, "AV", rows, memory, width, times, unstored=rows * memory)]


def products(config: Preset, n_genes: int | None = None, n_controls: int = CONTROLS, cells_per_set: int = 1,
             n_sets: int = 1) -> list[Product]:
    """Lists every matrix product of one forward pass.

    Args:
        config: A preset or its model.
        n_genes: Genes per cell; by default the preset's panel.
        n_controls: Control cells per set; 0 is the unconditional mode.
        cells_per_set: Cells that share one control set.
        n_sets: Sets.
    """
    c = network(config)
    d, mag, genes = c.dim, c.perturb_magnitude_dim, c.n_genes if n_genes is None else n_genes
    cells, told = n_sets * cells_per_set, c.gene_embed_dim + c.perturb_sign_dim + d
    found = [*_mlp("magnitude MLP", n_sets, 1, mag, mag, d),
             *_mlp("conditioning projection", n_sets, told, d, d, leaf=False)]
    found += (c.time_input != "none") * _mlp("time MLP", cells, d, d, d)
    found += c.depth_input * _mlp("depth MLP", cells, 1, d, d)
    found += (c.modulation == "adaln") * _mlp("adaLN modulation", cells, d, 9 * d, leaf=False)
    found += c.ordinal_input * _mlp("ordinal token MLP", c.vocab_size, 1, d, d)
    found += (c.identity == "gene") * _mlp("gene identity projection", genes, c.gene_embed_dim, d, leaf=False)
    found += (c.control_statistics and n_controls > 0) * _mlp("control statistics MLP", n_sets * genes, 2, d, d)
    found += c.mean_effect * _mlp("mean effect MLP", n_sets * genes, 1, d, d)
    found += c.cell_summary * _cell_summary(c, genes, n_controls, cells)
    found += (n_controls > 0) * _control_set(c, genes, n_controls, n_sets)
    found += c.n_layer * _block(c, genes, n_controls, n_sets, cells_per_set)
    found += c.mean_effect * [Product("trust in the mean effect", "trust", cells * genes, d, 1)]
    return [*found, Product("output head", "head", cells * genes, d, c.n_logits)]


def _control_set(c: ModelConfig, genes: int, controls: int, sets: int) -> list[Product]:
    part, d, rows = "control-set encoder", c.control_set_dim_hidden, sets * controls
    read = _mlp(part, rows, genes, d, d) if c.control_input == "tokens" else [
        *_mlp(part, genes, c.gene_embed_dim, d, leaf=False), Product(part, "values x genes", rows, genes, d, leaf=True)]
    layer = [Product(part, "q, k, v", rows, d, 3 * d), Product(part, "out", rows, d, d),
             *_attention(part, controls, d // c.control_set_n_head, controls, sets * c.control_set_n_head),
             *_mlp(part, rows, d, 4 * d, d, leaf=False)]
    return read + c.control_set_encoder_layers * layer + _mlp(part, rows, d, c.control_set_dim_out, leaf=False)


def _cell_summary(c: ModelConfig, genes: int, controls: int, cells: int) -> list[Product]:
    part, d, e = "cell summary", c.control_set_dim_hidden, c.gene_embed_dim
    widths = [1] * (controls == 0) + [d, c.dim]  # the learned centre is read only where there are no controls
    return [*(p for w in widths for p in _mlp(part, genes, e, w, leaf=False)),
            Product(part, "departures x genes", cells, genes, d, leaf=controls > 0),
            *_mlp(part, cells, d, c.dim, c.dim, leaf=False)]


def _block(c: ModelConfig, genes: int, controls: int, sets: int, cells_per_set: int) -> list[Product]:
    d, rows, heads = c.dim, sets * cells_per_set * genes, genes * c.n_head  # heads are folded into the rows
    found = [Product("self q and out projections", side, rows, d, d) for side in ("q", "out")]
    found += [Product("self k/v projection", "k, v", rows, d, 2 * c.head_dim),
              *_attention("self-attention QK^T and AV", heads, c.head_dim, genes, sets * cells_per_set)]
    if controls:
        found += [Product("cross q and out projections", side, rows, d, d) for side in ("q", "out")]
        found += [Product("cross k/v projection", "k, v", sets * controls, c.control_set_dim_out, 2 * c.head_dim),
                  *_attention("cross-attention QK^T and AV", heads * cells_per_set, c.head_dim, controls, sets)]
    return found + _mlp("FFN", rows, d, c.ffn_mult * d, d, leaf=False)
