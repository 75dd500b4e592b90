"""The live model as pictures: names, shapes, parameters and FLOPs are read off one forward pass on the meta device.

A module that the model lacks is not drawn. Thick blue is the residual stream, orange the condition, green what comes
from the control cells.
"""

import re
from collections import defaultdict
from collections.abc import Callable

from torch import nn

from cdt_lite.figures.mechanisms import attention_mechanism, conditioning_pipeline, diffusion_process
from cdt_lite.figures.sketch import Diagram
from cdt_lite.figures.trace import CONTROLS, Layer, amount, shape, trace
from cdt_lite.model import Config
from cdt_lite.model.v1 import N_TIMESTEPS

STEPS = {"self_attention": "self-attention", "cross_attention": "cross-attention", "mlp": "FFN"}
GROUPS = {"attention": "attention", "mlp": "ffn", "embed": "token", "gene_table": "head", "control_set": "control",
          "head": "head", "norm": "other"}  # what a module's name contains -> its colour
ADDED = {"embed.statistics": "control statistics", "embed.summary": "cell summary", "embed.effect": "mean effect"}


def _group(name: str) -> str:
    return next((group for word, group in GROUPS.items() if word in name), "condition")


def _module(d: Diagram, seen: dict[str, Layer], name: str) -> None:
    """Adds a module's box: shape of its output where it changes, parameters, FLOPs."""
    layer, lines = seen[name], []
    if name not in ("gene_table", "norm"):
        lines.append(f"out {shape(layer.output)}")
    lines.append(f"{layer.parameters:,} parameters")
    if layer.flops:
        lines.append(amount(layer.flops, "FLOP"))
    d.box(name, name, *lines, group=_group(name))


def architecture_overview(config: Config) -> Diagram:
    """Draws the whole model: what goes in, the residual stream through every block, what each block reads."""
    c, seen = config.model, trace(config)
    total = f"{seen[''].parameters:,} parameters, {amount(seen[''].flops, 'FLOP')} a cell"
    note = f"Each of the {c.n_layer} blocks reads the memory of the control cells."
    d = Diagram("architecture_overview", f"The whole model: {total}", note=note)
    _condition(d, config, seen)
    d.box("cell", "Cell, partly hidden", f"{c.n_genes:,} tokens: {c.n_bins} bins, [MASK]", group="token")
    d.box("controls", "Control cells", f"{CONTROLS} × {c.n_genes:,} tokens", group="control")
    for name in ("gene_table", "embed", "control_set"):
        _module(d, seen, name)
    d.link("gene_table", "perturbation")
    d.link("cell", "embed", kind="stream")
    d.link("controls", "control_set", kind="control")
    if "embed.identity" in seen:
        d.link("gene_table", "embed")
    if "control_set.gene" in seen:
        d.link("gene_table", "control_set")
    if "embed.statistics" in seen:
        d.link("controls", "embed", kind="control")
    above = "embed"
    if "modulation" in seen:
        _module(d, seen, "modulation")
        d.link("condition", "modulation", kind="condition")
    else:
        above = "add"
        d.box("add", "+", "the condition, at every position", group="token")
        d.link("embed", "add", kind="stream")
        d.link("condition", "add", kind="condition")
    for i in range(c.n_layer):
        _block(d, seen, i, above)
        above = f"blocks.{i}"
    _module(d, seen, "norm")
    _module(d, seen, "head")
    classes = f"{seen['head'].output[-1]} classes for each of {c.n_genes:,} genes"
    d.box("logits", "Logits", f"{classes}; loss on hidden genes only", group="head")
    d.link(above, "norm", "head", "logits", kind="stream")
    return d


def _condition(d: Diagram, config: Config, seen: dict[str, Layer]) -> None:
    """Adds what the condition is made of, up to the one vector a cell."""
    inputs = [("told", "Perturbation", "target gene, sign, log2 FC", "perturbation")]
    if "time" in seen:
        inputs.append(("when", "Time t", f"step 0 to {N_TIMESTEPS - 1}", "time"))
    if "depth" in seen:
        inputs.append(("counts", "Depth", "counts in the cell", "depth"))
    for key, title, line, _ in inputs:
        d.box(key, title, line, group="condition")
    for *_, reader in inputs:
        _module(d, seen, reader)
    d.box("condition", "condition", f"one vector of {config.model.dim} a cell", group="condition")
    for key, _, _, reader in inputs:
        d.link(key, reader, "condition", kind="condition")


def _block(d: Diagram, seen: dict[str, Layer], i: int, above: str) -> None:
    """Adds one block, and its taps on the buses of condition (left) and memory (right)."""
    name, cells = f"blocks.{i}", []
    for j, (step, label) in enumerate(STEPS.items()):
        layer = seen[f"{name}.{step}"]
        cells.append(f"p{j}|{label}\n{amount(layer.parameters)}, {amount(layer.flops, 'FLOP')}")
    d.box(name, name, group="attention", rows=[cells])
    stream = "" if i else f"   {shape(seen[name].input)}"
    d.link(above, name, kind="stream", label=stream, look={"weight": "8"})
    rank = [name, f"m{i}"]
    if "modulation" in seen:
        _tap(d, i, "c", "condition", "modulation", f"9 × {seen['norm'].input[-1]}")
        d.link(f"c{i}", name, kind="condition")
        rank.insert(0, f"c{i}")
    _tap(d, i, "m", "control", "control_set", f"memory {shape(seen['control_set'].output)}")
    d.link(f"m{i}", name, kind="control", look={"flip": "yes"})
    d.ranks.append(rank)


def _tap(d: Diagram, i: int, letter: str, kind: str, source: str, label: str) -> None:
    """Leads a bus on to the height of block i."""
    before, text = (f"{letter}{i - 1}", "") if i else (source, f"   {label}")
    d.box(f"{letter}{i}", "", group=kind)
    d.link(before, f"{letter}{i}", kind=kind, label=text, look={"arrowhead": "none", "weight": "4"})


def layer_breakdown(config: Config) -> Diagram:
    """Lists every module that holds parameters, once; blocks and layers that repeat are listed as one."""
    c, seen = config.model, trace(config)
    d = Diagram("layer_breakdown", f"Every layer with parameters: {seen[''].parameters:,} in all", "LR",
                note="Rows: module, what it is, its parameters, its FLOPs for one cell.")
    tables = defaultdict(list)
    for name, layer in seen.items():
        part, row = _part(name)
        children = [child for child, _ in layer.module.named_children()]
        if layer.own and not re.search(r"(blocks|layers)\.[1-9]", name):
            flops = amount(layer.flops, "FLOP") if layer.flops and not children else "–"
            tables[part].append([row, _kind(layer.module), f"{layer.own:,}", flops])
        if re.fullmatch(r"blocks\.0\.\w+_attention\.inner", name):
            own = layer.flops - sum(seen[f"{name}.{child}"].flops for child in children)
            tables[part].append(["(no weights)", "QK^T and AV", "0", amount(own, "FLOP")])
    for part, rows in tables.items():
        line = f"{seen[part.replace('*', '0')].parameters:,} parameters"
        if "*" in part:
            line += f" each, × {c.n_layer}"
        if part == "control_set":
            line += f"; layers.* × {c.control_set_encoder_layers}"
        d.box(part, part, line, group=_group(part), rows=rows)
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
    held = {name: shape(tuple(p.shape)) for name, p in module.named_parameters(recurse=False)}
    if isinstance(module, nn.Linear):
        bias = "" if "bias" in held else ", no bias"
        return f"Linear {module.in_features:,} → {module.out_features:,}{bias}"
    if isinstance(module, nn.Embedding | nn.LayerNorm):
        return f"{type(module).__name__} {held['weight']}"
    return ", ".join(f"{name} {size}" for name, size in held.items())


def forward_pass_flow(config: Config) -> Diagram:
    """Draws one cell's way through the model step by step, with the shape after every step and its share of FLOPs."""
    c, seen = config.model, trace(config)
    head, total, stream = seen["head"], seen[""].flops, shape(seen["blocks.0"].output)
    note = f"The three steps repeat in each of {c.n_layer} blocks."
    d = Diagram("forward_pass_flow", f"One cell's forward pass: {amount(total, 'FLOP')}", note=note)
    above = _entry(d, config, seen, stream)
    for step in STEPS:
        above = _step(d, config, seen, step, above)
    if "modulation" in seen:
        _lead_condition(d)
    d.box("norm", "norm", stream, group="other")
    d.box("head", "head", f"Linear → {shape(head.output)}", f"{head.flops / total:.1%} of FLOPs", group="head")
    d.box("loss", "softmax", "training: cross-entropy on hidden genes", "sampling: draw, keep some", group="head")
    d.link(above, "norm", "head", "loss", kind="stream")
    if "response" in seen:
        d.box("effects", "table of mean effects", "from the training cells", group="condition")
        answers = ["this cell answers or escapes,", "by its visible genes: the mean effect", "tilts the logits, or not"]
        d.box("response", "response", *answers, group="condition")
        d.link("effects", "response", "loss", kind="condition")
        d.link("norm", "response", kind="condition")
        d.ranks += [["norm", "effects"], ["head", "response"]]
    return d


def _entry(d: Diagram, config: Config, seen: dict[str, Layer], stream: str) -> str:
    """Adds what enters and how the condition does; returns the box that the residual stream comes from."""
    c = config.model
    added = ["token", "gene" if "embed.identity" in seen else "position"]
    added += [what for module, what in ADDED.items() if module in seen]
    told = [name for name in ("time", "perturbation", "depth") if name in seen]
    d.box("xt", "xt", f"{c.n_genes:,} tokens of 0..{c.n_bins}; {c.n_bins} is [MASK]", group="token")
    d.box("embed", "embed", " + ".join(added), stream, group="token")
    d.box("condition", "condition", " + ".join(told), f"{c.dim}", group="condition")
    memory = shape(seen["control_set"].output)
    d.box("memory", "control_set", f"{CONTROLS} control cells", memory, group="control")
    d.link("xt", "embed", kind="stream")
    if "modulation" in seen:
        each = f"for 3 steps: {shape((9, c.dim))}"
        d.box("modulation", "modulation", "shift, scale, gate", each, group="condition")
        d.link("condition", "modulation", kind="condition")
        d.link("xt", "condition", look={"style": "invis"})
        d.ranks += [["xt", "condition"], ["embed", "modulation"]]
        return "embed"
    d.box("inject", "inject", "h + condition, at every position", stream, group="token")
    d.link("embed", "inject", kind="stream", look={"weight": "10"})
    d.link("condition", "inject", kind="condition", look={"flip": "yes"})
    d.ranks.append(["inject", "condition"])
    return "inject"


def _step(d: Diagram, config: Config, seen: dict[str, Layer], step: str, above: str) -> str:
    """Adds one residual step: a tap on the stream, the branch with its shapes, the sum; returns the sum's key."""
    n_layer, tap, plus = config.model.n_layer, f"{step}.tap", f"{step}.sum"
    share = n_layer * seen[f"blocks.0.{step}"].flops / seen[""].flops
    line = f"in each of {n_layer} blocks, together {share:.1%} of all FLOPs"
    d.box(tap, "", group="token")
    d.box(step, STEPS[step], line, group=_group(step), rows=_branch(config, seen, step))
    d.box(plus, "+", group="token")
    d.link(above, tap, kind="stream", look={"weight": "20", "arrowhead": "none"})
    d.link(tap, plus, kind="stream", look={"weight": "20"})
    d.link(tap, step, plus, kind="stream", look={"penwidth": "1.8"})
    rank = [tap, step]
    if step == "cross_attention":
        d.link("memory", step, kind="control", look={"flip": "yes"})
        if "modulation" in seen:  # below, so that no arrow crosses the condition's
            d.ranks.append([plus, "memory"])
        else:
            rank.append("memory")
    d.ranks.append(rank)
    return plus


def _lead_condition(d: Diagram) -> None:
    """Leads shift, scale and gate down a line of their own to every step."""
    above = "modulation"
    for step in STEPS:
        tap = f"{step}.told"
        d.box(tap, "", group="condition")
        d.link(above, tap, kind="condition", look={"arrowhead": "none", "weight": "8"})
        d.link(tap, step, kind="condition", look={"flip": "yes"})
        d.ranks.append([step, tap])
        above = tap


def _branch(config: Config, seen: dict[str, Layer], step: str) -> list[list[str]]:
    """The rows of a residual branch: what happens, and the shape after it."""
    c, name = config.model, f"blocks.0.{step}"
    after = {path.rpartition(".")[2]: shape(layer.output) for path, layer in seen.items() if name in path}
    stream = shape(seen[name].input)
    norm, gate = [["LayerNorm", stream]], []
    if "modulation" in seen:
        norm, gate = [["LayerNorm, × (1 + scale) + shift", stream]], [["× gate", stream]]
    if step == "mlp":
        rows = [[f"Linear, GELU: {c.ffn_mult} times wider", after["0"]], ["Linear", after["2"]]]
        return norm + rows + gate
    if step == "self_attention":
        keys, rows = c.n_genes, [["q, k, v = qkv(x)", after["qkv"]]]
    else:
        keys, rows = CONTROLS, [["q = q(x)", after["q"]], ["k, v = kv(memory)", after["kv"]]]
    folded = f"{c.n_genes * c.n_head:,} × {c.head_dim}"
    rows.append([f"fold: {c.n_head} heads become rows of q", folded])
    rows.append([f"softmax(q·k / √{c.head_dim}) v over {keys:,} keys", folded])
    rows.append(["unfold, out", after["out"]])
    return norm + rows + gate


DIAGRAMS: dict[str, Callable[[Config], Diagram]] = {
    "architecture_overview": architecture_overview, "layer_breakdown": layer_breakdown,
    "forward_pass_flow": forward_pass_flow, "attention_mechanism": attention_mechanism,
    "conditioning_pipeline": conditioning_pipeline, "diffusion_process": diffusion_process,
}
