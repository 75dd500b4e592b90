"""The live model as pictures: names, shapes, parameters and FLOPs are read off one forward pass on the meta device.

Thick blue is the residual stream, orange the condition, green what comes from the control cells.
"""

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from cdt_lite.figures.accounting import CONTROLS, Preset, meta_model, network
from cdt_lite.figures.mechanisms import attention_mechanism, conditioning_pipeline, diffusion_process
from cdt_lite.figures.sketch import Diagram
from cdt_lite.figures.trace import Layer, amount, shape, size_lines, trace
from cdt_lite.model.config import ModelConfig

_STEPS = {"self_attention": ("self-attention", "attention"), "cross_attention": ("cross-attention", "attention"),
          "mlp": ("FFN", "ffn")}


def _condition(d: Diagram, c: ModelConfig, seen: dict[str, Layer]) -> None:
    """Adds what the condition is made of, up to the one vector a cell."""
    d.box("told", "Perturbation", "target gene, sign, log2 FC", group="condition")
    when = {"mask_ratio": ["share hidden"], "timestep": [f"step 0 to {c.n_timesteps - 1}"], "none": []}[c.time_input]
    if when:
        d.box("when", "Time t", *when, group="condition")
    for name in ("perturbation", *["time"] * len(when)):
        d.box(name, name, *size_lines(seen[name]), group="condition")
    d.box("condition", "condition", f"one vector of {c.dim} a cell", group="condition")
    d.link("told", "perturbation", "condition", kind="condition")
    if when:
        d.link("when", "time", "condition", kind="condition")
    if c.depth_input:
        d.box("counts", "Depth", "counts in the cell", group="condition")
        d.box("depth", "depth", *size_lines(seen["depth"]), group="condition")
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
    d.box("gene_table", "gene_table", *size_lines(seen["gene_table"], False), group="head")
    d.box("embed", "embed", *size_lines(seen["embed"]), group="token")
    d.box("control_set", "control_set", *size_lines(seen["control_set"]), group="control")
    d.link("gene_table", "perturbation")
    d.link("cell", "embed", kind="stream")
    d.link("controls", "control_set", kind="control")
    for reads, reader in ((c.identity == "gene", "embed"), (c.control_input == "genes", "control_set")):
        if reads:
            d.link("gene_table", reader)
    if c.control_statistics or c.cell_summary:
        d.link("controls", "embed", kind="control")
    above = _entry(d, c, seen)
    for i in range(c.n_layer):
        _block_row(d, seen, i, above, modulated=c.modulation == "adaln")
        above = f"blocks.{i}"
    d.box("norm", "norm", *size_lines(seen["norm"], False), group="other")
    d.box("head", "head", *size_lines(seen["head"]), group="head")
    d.box("logits", "Logits", f"{c.n_logits} classes for each of {c.n_genes:,} genes; loss on hidden genes only",
          group="head")
    d.link(above, "norm", "head", "logits", kind="stream")
    return d


def _entry(d: Diagram, c: ModelConfig, seen: dict[str, Layer]) -> str:
    """Adds how the condition enters, and returns the box that the residual stream comes from."""
    if c.modulation == "adaln":
        d.box("modulation", "modulation", *size_lines(seen["modulation"]), group="condition")
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
    buses = [("m", "control", "control_set", "memory " + shape(seen["control_set"].output))]
    if modulated:
        buses = [("c", "condition", "modulation", shape((9, seen["modulation"].output[-1] // 9))), *buses]
    for letter, kind, source, label in buses:
        tap, before = f"{letter}{i}", f"{letter}{i - 1}" if i else source
        d.box(tap, "", group=kind)
        d.link(before, tap, kind=kind, arrowhead="none", label="" if i else f"   {label}", weight="4")
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
            flops = amount(leaf, "FLOP") if leaf else "–"
            tables.setdefault(part, []).append([row, _kind(module), f"{seen[name].own:,}", flops])
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
    left = ["embed", "control_set"]
    left += [part for part in tables if part not in left + right]
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
        return f"Linear {module.in_features:,} → {module.out_features:,}" + ("" if "bias" in held else ", no bias")
    if isinstance(module, nn.Embedding | nn.LayerNorm):
        return f"{type(module).__name__} {shape(held['weight'])}"
    return ", ".join(f"{name} {shape(size)}" for name, size in held.items())


def forward_pass_flow(config: Preset) -> Diagram:
    """Draws one cell's way through the model step by step, with the shape after every step and its share of FLOPs."""
    c, seen = network(config), trace(config)
    total, stream = seen[""].flops, shape(seen["blocks.0"].output)
    d = Diagram("forward_pass_flow", f"One cell's forward pass: {amount(total, 'FLOP')}",
                note=f"The three steps repeat in each of {c.n_layer} blocks.")
    d.box("xt", "xt", f"{c.n_genes:,} tokens of 0..{c.n_bins}; {c.n_bins} is [MASK]", group="token")
    d.box("embed", "embed", "token + " + ("position" if c.identity == "position" else "gene") +
          " + target flag" * c.target_flag + " + control statistics" * c.control_statistics
          + " + cell summary" * c.cell_summary + " + mean effect" * c.mean_effect, stream, group="token")
    parts = "time + " * (c.time_input != "none") + "perturbation" + " + depth" * c.depth_input
    d.box("condition", "condition", parts, f"{c.dim}", group="condition")
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
    d.box("head", "head", f"Linear → {shape(seen['head'].output)}", f"{seen['head'].flops / total:.1%} of FLOPs",
          group="head")
    d.box("loss", "softmax", "training: cross-entropy on hidden genes", "sampling: draw, keep some", group="head")
    d.link(above, "norm", "head", "loss", kind="stream")
    if c.mean_effect:
        d.box("tilt", "tilt", "the target's mean effect, as far as trusted", "added to the logits", group="condition")
        d.box("effects", "table of mean effects", "from the training cells", group="condition")
        d.link("norm", "tilt", "loss", kind="condition")
        d.link("effects", "tilt", kind="condition")
        d.ranks += [["norm", "effects"], ["head", "tilt"]]
    return d


def _step(d: Diagram, c: ModelConfig, seen: dict[str, Layer], step: str, above: str) -> str:
    """Adds one residual step: a tap on the stream, the branch with its shapes, the sum; returns the sum's key."""
    (label, group), modulated, tap, plus = _STEPS[step], c.modulation == "adaln", f"{step}.tap", f"{step}.sum"
    share = c.n_layer * seen[f"blocks.0.{step}"].flops / seen[""].flops
    d.box(tap, "", group="token")
    d.box(step, label, f"in each of {c.n_layer} blocks, together {share:.1%} of all FLOPs", group=group,
          rows=_branch(c, seen, step))
    d.box(plus, "+", group="token")
    d.link(above, tap, kind="stream", weight="20", arrowhead="none")
    d.link(tap, plus, kind="stream", weight="20")
    d.link(tap, step, kind="stream", penwidth="1.8")
    d.link(step, plus, kind="stream", penwidth="1.8")
    rank = [tap, step]
    if modulated:
        d.box(f"{step}.told", "", group="condition")
        before = dict(zip(_STEPS, ["modulation", *(f"{name}.told" for name in _STEPS)], strict=False))[step]
        d.link(before, f"{step}.told", kind="condition", arrowhead="none", weight="8")
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


DIAGRAMS: dict[str, Callable[[Any], Diagram]] = {f.__name__: f for f in (
    architecture_overview, layer_breakdown, forward_pass_flow, attention_mechanism, conditioning_pipeline,
    diffusion_process)}
