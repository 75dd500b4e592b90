"""The live model as pictures: names, shapes, parameters and FLOPs are read off one forward pass on the meta device.

Thick blue is the residual stream, orange the condition, green what comes from the control cells.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdt_lite.accounting import CONTROLS, Preset, meta_model, network, probe
from cdt_lite.config import Config, ModelConfig
from cdt_lite.diffusion import mask_probabilities, reveal_counts, v1_reveals
from cdt_lite.plots import MASK, PALETTE, tint
from cdt_lite.sketch import Diagram

_STEPS = {"self_attention": ("self-attention", "attention"), "cross_attention": ("cross-attention", "attention"),
          "mlp": ("FFN", "ffn")}


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


def amount(number: float, unit: str = "") -> str:
    """Returns a number in three figures with k, M or G, for instance "27.4 M"."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {letter}{unit}"
    return f"{number:g} {unit}".strip()


def _size(layer: Layer, out: bool = True) -> list[str]:
    return [*([f"out {shape(layer.output)}"] if out else []), f"{layer.parameters:,} parameters",
            *([amount(layer.flops, "FLOP")] if layer.flops else [])]


def _condition(d: Diagram, c: ModelConfig, seen: dict[str, Layer]) -> None:
    """Adds what the condition is made of, up to the one vector a cell."""
    d.box("told", "Perturbation", "target gene, sign, log2 FC", group="condition")
    d.box("when", "Time t", "share hidden" if c.time_input == "mask_ratio" else f"step 0 to {c.n_timesteps - 1}",
          group="condition")
    for name in ("perturbation", "time"):
        d.box(name, name, *_size(seen[name]), group="condition")
    d.box("condition", "condition", f"one vector of {c.dim} a cell", group="condition")
    d.link("told", "perturbation", "condition", kind="condition")
    d.link("when", "time", "condition", kind="condition")
    if c.depth_input:
        d.box("counts", "Depth", "counts in the cell", group="condition")
        d.box("depth", "depth", *_size(seen["depth"]), group="condition")
        d.link("counts", "depth", "condition", kind="condition")


def architecture_overview(config: Preset) -> Diagram:
    """Draws the whole model: what goes in, the residual stream through every block, what each block reads."""
    c, seen = network(config), trace(config)
    d = Diagram("architecture_overview", f"The whole model: {seen[''].parameters:,} parameters, "
                f"{amount(seen[''].flops, 'FLOP')} a cell",
                note=f"Each of the {c.n_layer} blocks reads the memory of the control cells.")
    _condition(d, c, seen)
    d.box("cell", "Cell, partly hidden", f"{c.n_genes:,} tokens: {c.n_bins} bins, [MASK]", group="token")
    d.box("controls", "Control cells", f"{CONTROLS} × {c.n_genes:,} tokens", group="control")
    d.box("gene_table", "gene_table", *_size(seen["gene_table"], False), group="head")
    d.box("embed", "embed", *_size(seen["embed"]), group="token")
    d.box("control_set", "control_set", *_size(seen["control_set"]), group="control")
    d.link("gene_table", "perturbation")
    d.link("cell", "embed", kind="stream")
    d.link("controls", "control_set", kind="control")
    for reads, reader in ((c.identity == "gene", "embed"), (c.control_input == "genes", "control_set")):
        if reads:
            d.link("gene_table", reader)
    if c.control_statistics:
        d.link("controls", "embed", kind="control")
    above = _entry(d, c, seen)
    for i in range(c.n_layer):
        _block_row(d, seen, i, above, modulated=c.modulation == "adaln")
        above = f"blocks.{i}"
    d.box("norm", "norm", *_size(seen["norm"], False), group="other")
    d.box("head", "head", *_size(seen["head"]), group="head")
    d.box("logits", "Logits", f"{c.n_logits} classes for each of {c.n_genes:,} genes; loss on hidden genes only",
          group="head")
    d.link(above, "norm", "head", "logits", kind="stream")
    return d


def _entry(d: Diagram, c: ModelConfig, seen: dict[str, Layer]) -> str:
    """Adds how the condition enters, and returns the box that the residual stream comes from."""
    if c.modulation == "adaln":
        d.box("modulation", "modulation", *_size(seen["modulation"]), group="condition")
        d.link("condition", "modulation", kind="condition")
        return "embed"
    d.box("add", "+", "the condition, at every position", group="token")
    d.link("embed", "add", kind="stream")
    d.link("condition", "add", kind="condition")
    return "add"


def _block_row(d: Diagram, seen: dict[str, Layer], i: int, above: str, modulated: bool) -> None:
    """Adds one block, and its taps on the buses of condition (left) and memory (right)."""
    name = f"blocks.{i}"
    d.box(name, name, group="attention", rows=[
        [f"p{j}|{label}\n{amount(seen[f'{name}.{step}'].parameters)}, {amount(seen[f'{name}.{step}'].flops, 'FLOP')}"
         for j, (step, (label, _)) in enumerate(_STEPS.items())]])
    d.link(above, name, kind="stream", label=f"   {shape(seen[name].inputs[0])}" if i == 0 else "", weight="8")
    buses = [("c", "condition", "modulation", f"   9 × {seen['modulation'].output[-1] // 9}")] * modulated if modulated else []
    for letter, kind, source, label in [*buses, ("m", "control", "control_set", f"   memory {shape(seen['control_set'].output)}")]:
        tap = f"{letter}{i}"
        d.box(tap, "", group=kind)
        d.link(f"{letter}{i - 1}" if i else source, tap, kind=kind, arrowhead="none", label="" if i else label, weight="4")
        d.link(tap, name, kind=kind, **({"flip": "yes"} if letter == "m" else {}))
    d.ranks.append([f"c{i}"] * modulated + [name, f"m{i}"])


def layer_breakdown(config: Preset) -> Diagram:
    """Lists every module that holds parameters, once; blocks and layers that repeat are listed as one."""
    c, seen, model = network(config), trace(config), meta_model(config)
    d = Diagram("layer_breakdown", f"Every layer with parameters: {seen[''].parameters:,} in all", "LR",
                note="Rows: module, what it is, its parameters, its FLOPs for one cell.")
    tables: dict[str, list[list[str]]] = {}
    for name, module in model.named_modules():
        if seen[name].own and not re.search(r"(blocks|layers)\.[1-9]", name):
            part, row = _part(name)
            leaf = seen[name].flops if not list(module.children()) else 0
            tables.setdefault(part, []).append([row, _kind(module), f"{seen[name].own:,}", amount(leaf, "FLOP") if leaf else "–"])
        if name.startswith("blocks.0") and name.endswith("attention.inner"):
            inside = seen[name].flops - sum(seen[f"{name}.{child}"].flops for child, _ in module.named_children())
            tables.setdefault(_part(name)[0], []).append(["(no weights)", "QK^T and AV", "0", amount(inside, "FLOP")])
    groups = {"embed": "token", "gene_table": "head", "control_set": "control", "head": "head", "norm": "other"}
    for part, rows in tables.items():
        each = f" each, × {c.n_layer}" if "*" in part else ""
        each += f"; layers.* × {c.control_set_encoder_layers}" if part == "control_set" else ""
        group = _STEPS[part.split(".")[-1]][1] if "*" in part else groups.get(part, "condition")
        d.box(part, part, f"{seen[part.replace('*', '0')].parameters:,} parameters{each}", group=group, rows=rows)
    right = [part for part in tables if "*" in part or part in ("norm", "head")]
    left = ["embed", "control_set", *(part for part in tables if part not in right and part not in ("embed", "control_set"))]
    d.ranks += [left, right]
    d.link("embed", right[0], kind="stream")
    d.link("control_set", right[1], kind="control")
    d.link(*right, kind="stream")
    return d


def _part(name: str) -> tuple[str, str]:
    """Splits a module's name into its table and its row: blocks.0.mlp.inner.0 -> blocks.*.mlp, inner.0."""
    pieces = re.sub(r"(blocks|layers)\.0", r"\1.*", name).split(".")
    n = 3 if pieces[0] == "blocks" else 1
    return ".".join(pieces[:n]), ".".join(pieces[n:]) or pieces[-1]


def _kind(module: nn.Module) -> str:
    held = {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False)}
    if isinstance(module, nn.Linear):
        return f"Linear {module.in_features:,} → {module.out_features:,}{'' if module.bias is not None else ', no bias'}"
    if isinstance(module, nn.Embedding | nn.LayerNorm):
        return f"{type(module).__name__} {shape(held['weight'])}"
    return ", ".join(f"{name} {shape(size)}" for name, size in held.items())


def forward_pass_flow(config: Preset) -> Diagram:
    """Draws one cell's way through the model step by step, with the shape after every step and its share of FLOPs."""
    c, seen = network(config), trace(config)
    total, stream = seen[""].flops, shape(seen["blocks.0"].output)
    d = Diagram("forward_pass_flow", f"One cell's forward pass: {amount(total, 'FLOP')}", note=f"The three steps repeat in each of {c.n_layer} blocks.")
    d.box("xt", "xt", f"{c.n_genes:,} tokens of 0..{c.n_bins}; {c.n_bins} is [MASK]", group="token")
    d.box("embed", "embed", "token + " + ("position" if c.identity == "position" else "gene") +
          " + target flag" * c.target_flag + " + control statistics" * c.control_statistics, stream, group="token")
    d.box("condition", "condition", "time + perturbation" + " + depth" * c.depth_input, f"{c.dim}", group="condition")
    d.box("memory", "control_set", f"{CONTROLS} control cells", shape(seen["control_set"].output), group="control")
    d.link("xt", "embed", kind="stream")
    above, modulated = "embed", c.modulation == "adaln"
    if modulated:
        d.box("modulation", "modulation", "shift, scale, gate", "for 3 steps: " + shape((9, c.dim)), group="condition")
        d.link("condition", "modulation", kind="condition")
        d.ranks += [["xt", "condition"], ["embed", "modulation"]]
        d.link("xt", "condition", style="invis")
    else:
        d.box("inject", "inject", "h + condition, at every position", stream, group="token")
        d.link("embed", "inject", kind="stream", weight="10")
        d.link("condition", "inject", kind="condition", flip="yes")
        d.ranks.append(["inject", "condition"])
        above = "inject"
    for step in _STEPS:
        above = _step(d, c, seen, step, above)
    d.box("norm", "norm", stream, group="other")
    d.box("head", "head", f"Linear → {shape(seen['head'].output)}", f"{seen['head'].flops / total:.1%} of FLOPs", group="head")
    d.box("loss", "softmax", "training: cross-entropy on hidden genes", "sampling: draw, reveal some, go on", group="head")
    d.link(above, "norm", "head", "loss", kind="stream")
    return d


def _step(d: Diagram, c: ModelConfig, seen: dict[str, Layer], step: str, above: str) -> str:
    """Adds one residual step: a tap on the stream, the branch with its shapes, the sum; returns the sum's key."""
    (label, group), modulated, tap, plus = _STEPS[step], c.modulation == "adaln", f"{step}.tap", f"{step}.sum"
    share = c.n_layer * seen[f"blocks.0.{step}"].flops / seen[""].flops
    d.box(tap, "", group="token")
    d.box(step, label, f"in each of {c.n_layer} blocks, together {share:.1%} of all FLOPs", group=group, rows=_branch(c, seen, step))
    d.box(plus, "+", group="token")
    d.link(above, tap, kind="stream", weight="20", arrowhead="none")
    d.link(tap, plus, kind="stream", weight="20")
    d.link(tap, step, kind="stream", penwidth="1.8")
    d.link(step, plus, kind="stream", penwidth="1.8")
    rank = [tap, step]
    if modulated:
        d.box(f"{step}.told", "", group="condition")
        before = {"self_attention": "modulation", "cross_attention": "self_attention.told", "mlp": "cross_attention.told"}
        d.link(before[step], f"{step}.told", kind="condition", arrowhead="none", weight="8")
        d.link(f"{step}.told", step, kind="condition", flip="yes")
        rank.append(f"{step}.told")
    if step == "cross_attention" and modulated:  # below, so that no arrow crosses the condition's
        d.link("memory", step, kind="control", flip="yes")
        d.ranks.append([plus, "memory"])
    elif step == "cross_attention":
        d.link("memory", step, kind="control", flip="yes")
        rank.append("memory")
    d.ranks.append(rank)
    return plus


def _branch(c: ModelConfig, seen: dict[str, Layer], step: str) -> list[list[str]]:
    """The rows of a residual branch: what happens, and the shape after it."""
    name, modulated = f"blocks.0.{step}", c.modulation == "adaln"

    def row(text: str, child: str) -> list[str]:
        return [text, shape(seen[f"{name}.inner.{child}"].output)]
    rows = [["LayerNorm" + ", × (1 + scale) + shift" * modulated, shape(seen[name].inputs[0])]]
    folded = f"{c.n_genes * c.n_head:,} × {c.head_dim}"
    if step == "mlp":
        rows += [row(f"Linear, GELU: {c.ffn_mult} times wider", "0"), row("Linear", "2")]
    else:
        own = step == "self_attention"
        rows += [row("q, k, v = qkv(x)", "qkv")] if own else [row("q = q(x)", "q"), row("k, v = kv(memory)", "kv")]
        rows += [[f"fold: {c.n_head} heads become rows of q", folded],
                 [f"softmax(q·k / √{c.head_dim}) v over {c.n_genes if own else CONTROLS:,} keys", folded],
                 row("unfold, out", "out")]
    return rows + [["× gate", shape(seen[name].output)]] * modulated


def attention_mechanism(config: Preset) -> Diagram:
    """Draws multi-query attention: every head has its own queries, all heads share one K and one V."""
    c, seen = network(config), trace(config)
    d = Diagram("attention_mechanism", f"Multi-query attention: {c.n_head} heads of {c.head_dim}, one shared K and V",
                note=f"Sharing saves {1 - 1 / c.n_head:.1%} of the K/V projection and of the bytes of K and V, "
                     "and no FLOP of attention itself.")
    for kind in ("self", "cross"):
        layer, memory = seen[f"blocks.0.{kind}_attention.inner"], f"{kind}.memory" if kind == "cross" else f"{kind}.x"
        n, width, group = (c.n_genes, c.dim, "ffn") if kind == "self" else (CONTROLS, c.control_set_dim_out, "control")
        heads = [f"h{i}|{i}" for i in range(c.n_head)]
        d.box(f"{kind}.x", f"{kind}-attention", f"x: {c.n_genes:,} genes × {c.dim}", group="token")
        if kind == "cross":
            d.box(memory, "memory", f"{n} control cells × {width}", group="control")
        d.box(f"{kind}.q", "q", f"Linear {c.dim} → {c.n_head} heads × {c.head_dim}", group="attention", rows=[heads])
        d.box(f"{kind}.kv", "K and V", f"Linear {width:,} → 2 × {c.head_dim}", group=group)
        d.box(f"{kind}.a", f"softmax(q·k / √{c.head_dim}) v", f"{c.n_genes * c.n_head:,} queries, {n:,} keys", group="attention",
              rows=[heads, [f"kv|{tint(PALETTE[group], 0.3)}|one K and one V, {n:,} × {c.head_dim}, for all {c.n_head} heads"]])
        d.box(f"{kind}.out", "out", f"Linear {c.dim} → {c.dim}", f"{layer.parameters:,} parameters,",
              f"{amount(layer.flops, 'FLOP')} a block in all", group="attention")
        d.link(f"{kind}.x", f"{kind}.q", kind="stream", weight="4")
        d.link(memory, f"{kind}.kv", kind="stream" if kind == "self" else "control")
        d.link(*(f"{kind}.kv", f"{kind}.a:kv:e"), kind="control" if kind == "cross" else "plain", penwidth="3")
        for i in range(c.n_head):
            d.link(f"{kind}.q:h{i}:s", f"{kind}.a:h{i}:n", weight="2")
        d.link(f"{kind}.a", f"{kind}.out", kind="stream")
    return d


def conditioning_pipeline(config: Preset) -> Diagram:
    """Draws how target gene, sign, magnitude, time, depth and controls become what the blocks are told."""
    c, seen = network(config), trace(config)
    d = Diagram("conditioning_pipeline", f"The condition: one vector of {c.dim} a cell, and a memory of {CONTROLS} control cells", "LR")
    inputs = (("gene", "Target gene", f"1 of {c.n_total_genes:,}", "gene_table", f"out {c.gene_embed_dim}"),
              ("sign", "Sign", "-1, 0, +1", "perturbation.sign", f"out {c.perturb_sign_dim}"),
              ("fold", "log2 fold change", f"clipped to ±{c.magnitude_clip:g}, / {c.magnitude_clip:g}", "perturbation.magnitude", f"out {c.dim}"))
    for key, title, line, module, out in inputs:
        d.box(key, title, line, group="condition")
        d.box(module, module, out, f"{seen[module].parameters:,} parameters", group="head" if module == "gene_table" else "condition")
        d.link(key, module, "perturbation.project", kind="condition")
    d.box("perturbation.project", "perturbation.project", f"concatenated: {seen['perturbation.project'].inputs[0][-1]} → {c.dim}",
          f"{seen['perturbation.project'].parameters:,} parameters", group="condition")
    d.box("condition", "+", f"condition: {c.dim}", group="condition")
    d.link("perturbation.project", "condition", kind="condition")
    others = [("when", "Time t", "sines and cosines", "time")] + [("counts", "Depth", "log counts", "depth")] * c.depth_input
    for key, title, line, module in others:
        d.box(key, title, line, group="condition")
        d.box(module, module, f"out {c.dim}", f"{seen[module].parameters:,} parameters", group="condition")
        d.link(key, module, "condition", kind="condition")
    d.box("controls", "Control cells", f"{CONTROLS} × {c.n_genes:,} tokens", group="control")
    d.box("control_set", "control_set", f"memory {shape(seen['control_set'].output)}", f"{seen['control_set'].parameters:,} parameters", group="control")
    steps = [["s|self-attention"], ["x|cross-attention"], ["f|FFN"]]
    d.box("blocks", f"{c.n_layer} blocks", group="attention", rows=steps + [["n|norm and gate of each step"]] * (c.modulation == "adaln"))
    d.link("controls", "control_set", "blocks:x", kind="control")
    _targets(d, c, seen)
    return d


def _targets(d: Diagram, c: ModelConfig, seen: dict[str, Layer]) -> None:
    """Adds where the condition goes, and what genes are told at their own positions."""
    if c.modulation == "adaln":
        d.box("modulation", "modulation", f"SiLU, Linear → 9 × {c.dim}", "shift, scale, gate", f"{seen['modulation'].parameters:,} parameters", group="condition")
        d.link("condition", "modulation", "blocks:n", kind="condition")
    else:
        d.box("h", "h + condition", f"at all {c.n_genes:,} positions", group="token")
        d.link("condition", "h", kind="condition")
        d.link("h", "blocks:s", kind="stream")
    if c.control_statistics:
        d.box("embed.statistics", "embed.statistics", "mean, share of non-zeros", f"at each of {c.n_genes:,} genes", group="control")
        d.link("controls", "embed.statistics", "embed", kind="control")
    if c.target_flag:
        d.box("flag", "embed.target_flag", "at the target's own position", group="condition")
        d.link("gene", "flag", "embed", kind="condition")
    if c.target_flag or c.control_statistics:
        d.box("embed", "embed", shape(seen["embed"].output), group="token")
        d.link("embed", "blocks:s", kind="stream")


def diffusion_process(config: Config, n_squares: int = 24) -> Diagram:
    """Draws hiding and revealing at the preset's own steps: one schematic cell, with the shares or counts it implies."""
    c, genes = config.diffusion, config.model.n_genes
    if c.sampler == "v1":
        p, counts = mask_probabilities(c).tolist(), v1_reveals(c, genes).tolist()
        forward = [(f"t = {t}", p[t]) for t in sorted({round(i * (len(p) - 1) / 4) for i in range(5)})]
    else:
        counts = [float(n) for n in reveal_counts(c, genes)]
        forward = [(f"t = {t:.2f}", t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    hidden = [genes - sum(counts[:i]) for i in range(len(counts) + 1)]
    picked = sorted({round(i * (len(counts)) / 4) for i in range(5)})
    d = Diagram("diffusion_process", f"Masked diffusion of {genes:,} genes: hidden at random, revealed in {len(counts)} steps", "LR")
    d.box("f", "Forward", "training:", "genes are hidden", "at random", group="other")
    d.box("r", "Reverse", "sampling: the model draws", "every hidden gene,", "some are kept", group="other")
    d.ranks.append(["f", "r"])
    d.link("f", "r", style="invis")
    rows = {"f": [(label, share, f"{share:.1%} hidden") for label, share in forward],
            "r": [(f"step {i}", hidden[i] / genes, f"{hidden[i]:,.0f} hidden") for i in picked]}
    for key, states in rows.items():
        _strip(d, key, states, n_squares)
    d.ranks += [[f"f{i}", f"r{i}"] for i in range(min(map(len, rows.values())))]
    return d


def _strip(d: Diagram, row: str, states: list[tuple[str, float, str]], n: int) -> None:
    """Adds a row of states of one schematic cell; a gene hidden at one state is hidden at every more hidden one."""
    shades = [tint(PALETTE["token"], share) for share in (0.15, 0.35, 0.15, 0.9, 0.15, 0.6, 0.15)]
    for i, (label, share, line) in enumerate(states):
        squares = [MASK if (j * 7 + 3) % n < round(share * n) else shades[j % 7] for j in range(n)]
        d.box(f"{row}{i}", label, line, group="token", rows=[squares[k: k + n // 3] for k in range(0, n, n // 3)])
        d.link(f"{row}{i - 1}" if i else row, f"{row}{i}", kind="plain" if row == "f" else "stream")


DIAGRAMS: dict[str, Callable[[Any], Diagram]] = {f.__name__: f for f in (
    architecture_overview, layer_breakdown, forward_pass_flow, attention_mechanism, conditioning_pipeline, diffusion_process)}
