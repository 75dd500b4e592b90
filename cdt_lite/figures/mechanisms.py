"""Three mechanisms as pictures: attention with one shared K and V, the condition, and hiding and revealing genes."""

import numpy as np

from cdt_lite.figures.plots import MASK, PALETTE, tint
from cdt_lite.figures.sketch import Diagram
from cdt_lite.figures.trace import CONTROLS, Layer, amount, process_of, shape, trace
from cdt_lite.model import Config, V1Diffusion
from cdt_lite.model.v1 import expected_reveals, mask_probabilities

SQUARES = 24  # genes of the schematic cell


def attention_mechanism(config: Config) -> Diagram:
    """Draws multi-query attention: every head has its own queries, all heads share one K and one V."""
    c = config.model
    saved = f"Sharing saves {1 - 1 / c.n_head:.1%} of the K/V projection and of the bytes of K and V"
    d = Diagram("attention_mechanism", f"Multi-query attention: {c.n_head} heads of {c.head_dim}, one shared K and V",
                note=f"{saved}, and no FLOP of attention itself.")
    _attention(d, config, "self", "self.x", c.n_genes)
    _attention(d, config, "cross", "cross.memory", CONTROLS)
    return d


def _attention(d: Diagram, config: Config, side: str, memory: str, n_keys: int) -> None:
    c, layer = config.model, trace(config)[f"blocks.0.{side}_attention.inner"]
    stream, shared, keys = "stream", "plain", "ffn"
    width = c.dim
    d.box(f"{side}.x", f"{side}-attention", f"x: {c.n_genes:,} genes × {c.dim}", group="token")
    if side == "cross":
        stream, shared, keys = "control", "control", "control"
        width = c.control_set_dim_out
        d.box(memory, "memory", f"{n_keys} control cells × {width}", group="control")
    heads = [f"h{i}|{i}" for i in range(c.n_head)]
    split = f"Linear {c.dim} → {c.n_head} heads × {c.head_dim}"
    d.box(f"{side}.q", "q", split, group="attention", rows=[heads])
    d.box(f"{side}.kv", "K and V", f"Linear {width:,} → 2 × {c.head_dim}", group=keys)
    one = f"one K and one V, {n_keys:,} × {c.head_dim}, for all {c.n_head} heads"
    rows = [heads, [f"kv|{tint(PALETTE[keys], 0.3)}|{one}"]]
    asked = f"{c.n_genes * c.n_head:,} queries, {n_keys:,} keys"
    d.box(f"{side}.a", f"softmax(q·k / √{c.head_dim}) v", asked, group="attention", rows=rows)
    total = [f"a block in all: {layer.parameters:,}", f"parameters, {amount(layer.flops, 'FLOP')}"]
    d.box(f"{side}.out", "out", f"Linear {c.dim} → {c.dim}", *total, group="attention")
    d.link(f"{side}.x", f"{side}.q", kind="stream", look={"weight": "4"})
    d.link(memory, f"{side}.kv", kind=stream)
    d.link(f"{side}.kv", f"{side}.a:kv:e", kind=shared, look={"penwidth": "3"})
    for i in range(c.n_head):
        d.link(f"{side}.q:h{i}:s", f"{side}.a:h{i}:n", look={"weight": "2"})
    d.link(f"{side}.a", f"{side}.out", kind="stream")


def conditioning_pipeline(config: Config) -> Diagram:
    """Draws how target gene, sign, magnitude, time, depth and controls become what the blocks are told."""
    c, seen = config.model, trace(config)
    title = f"The condition: one vector of {c.dim} a cell, and a memory of {CONTROLS} control cells"
    d = Diagram("conditioning_pipeline", title, "LR")
    project, clip = "perturbation.project", f"{c.magnitude_clip:g}"
    _input(d, seen, "gene", "Target gene", f"1 of {c.n_total_genes:,}", "gene_table", project)
    _input(d, seen, "sign", "Sign", "-1, 0, +1", "perturbation.sign", project)
    _input(d, seen, "fold", "log2 fold change", f"clipped to ±{clip}, / {clip}", "perturbation.magnitude", project)
    _module(d, seen, project, f"concatenated: {seen[project].input[-1]} → {c.dim}")
    d.box("condition", "+", f"condition: {c.dim}", group="condition")
    d.link(project, "condition", kind="condition")
    if "time" in seen:
        _input(d, seen, "when", "Time t", "sines and cosines", "time", "condition")
    if "depth" in seen:
        _input(d, seen, "counts", "Depth", "log counts", "depth", "condition")
    d.box("controls", "Control cells", f"{CONTROLS} × {c.n_genes:,} tokens", group="control")
    _module(d, seen, "control_set", f"memory {shape(seen['control_set'].output)}")
    steps = [["s|self-attention"], ["x|cross-attention"], ["f|FFN"]]
    if "modulation" in seen:
        steps.append(["n|norm and gate of each step"])
    d.box("blocks", f"{c.n_layer} blocks", group="attention", rows=steps)
    d.link("controls", "control_set", "blocks:x", kind="control")
    if "modulation" in seen:
        _module(d, seen, "modulation", f"SiLU, Linear → 9 × {c.dim}", "shift, scale, gate")
        d.link("condition", "modulation", "blocks:n", kind="condition")
    else:
        d.box("h", "h + condition", f"at all {c.n_genes:,} positions", group="token")
        d.link("condition", "h", kind="condition")
        d.link("h", "blocks:s", kind="stream")
    _positions(d, config, seen)
    return d


def _input(
    d: Diagram, seen: dict[str, Layer], key: str, title: str, line: str, reader: str, target: str
) -> None:
    """Adds something that the model is told, the module that reads it, and where that leads."""
    d.box(key, title, line, group="condition")
    _module(d, seen, reader, f"out {seen[reader].output[-1]}")
    d.link(key, reader, target, kind="condition")


def _module(d: Diagram, seen: dict[str, Layer], name: str, *lines: str) -> None:
    group = {"gene_table": "head", "control_set": "control"}.get(name, "condition")
    d.box(name, name, *lines, f"{seen[name].parameters:,} parameters", group=group)


def _positions(d: Diagram, config: Config, seen: dict[str, Layer]) -> None:
    """Adds what genes are told at their own positions."""
    each = f"at each of {config.model.n_genes:,} genes"
    parts = {  # module -> where it reads, its colour, what it says
        "embed.statistics": ("controls", "control", ["mean, share of non-zeros", each]),
        "embed.summary": ("controls", "control", ["visible genes against", "the controls, summed"]),
        "embed.effect": ("gene", "condition", ["mean effect in training", f"{each};", "it also tilts the logits"]),
    }
    found = [name for name in parts if name in seen]
    for name in found:
        source, kind, lines = parts[name]
        d.box(name, name, *lines, group=kind)
        d.link(source, name, "embed", kind=kind)
    if found:
        d.box("embed", "embed", shape(seen["embed"].output), group="token")
        d.link("embed", "blocks:s", kind="stream")


def diffusion_process(config: Config) -> Diagram:
    """Draws hiding and revealing at the preset's own steps, on one schematic cell."""
    genes, process = config.model.n_genes, process_of(config)
    if isinstance(process, V1Diffusion):
        law = ["at timestep t each gene", "is hidden with", "this chance"]
        shares = {f"t = {t}": p for t, p in enumerate(mask_probabilities().tolist())}
        counts = expected_reveals(genes).tolist()
    else:
        law = ["training: a share t", "of the genes", "is hidden at random"]
        shares = {f"t = {t:.2f}": t for t in (0.0, 0.25, 0.5, 0.75, 1.0)}
        counts = process.counts(genes)
    title = f"Masked diffusion of {genes:,} genes: hidden at random, revealed in {len(counts)} steps"
    d = Diagram("diffusion_process", title, "LR")
    d.box("f", "Forward", *law, group="other")
    d.box("r", "Reverse", "sampling: the model draws", "every hidden gene,", "some are kept", group="other")
    d.ranks.append(["f", "r"])
    d.link("f", "r", look={"style": "invis"})
    for i, label in enumerate(_five(list(shares))):
        _state(d, "f", i, label, shares[label], f"{shares[label]:.1%} hidden")
    picked = _five(list(range(len(counts) + 1)))
    for i, step in enumerate(picked):
        hidden = genes - sum(counts[:step])
        _state(d, "r", i, f"step {step}", hidden / genes, f"{hidden:,.0f} hidden")
    d.ranks += [[f"f{i}", f"r{i}"] for i in range(len(picked))]
    return d


def _five(states: list) -> list:
    """Picks five states, evenly."""
    places = {round(i * (len(states) - 1) / 4) for i in range(5)}
    return [states[place] for place in sorted(places)]


def _state(d: Diagram, row: str, i: int, label: str, share: float, line: str) -> None:
    """Adds a state of the schematic cell; a gene hidden at one state is hidden at every more hidden one.

    Sampling makes another cell than the one that was hidden.
    """
    depths = (0.15, 0.35, 0.15, 0.9, 0.15, 0.6, 0.15)
    step, kind = (1, "plain") if row == "f" else (3, "stream")
    squares = []
    for j in range(SQUARES):
        hidden = (j * 7 + 3) % SQUARES < round(share * SQUARES)
        squares.append(MASK if hidden else tint(PALETTE["token"], depths[j * step % 7]))
    rows = np.reshape(squares, (3, -1)).tolist()
    d.box(f"{row}{i}", label, line, group="token", rows=rows)
    d.link(f"{row}{i - 1}" if i else row, f"{row}{i}", kind=kind)
