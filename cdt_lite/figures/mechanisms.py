"""Three mechanisms as pictures: attention with one shared K and V, the condition, and hiding and revealing genes."""

from cdt_lite.figures.accounting import CONTROLS, Preset, network
from cdt_lite.figures.plots import MASK, PALETTE, tint
from cdt_lite.figures.sketch import Diagram
from cdt_lite.figures.trace import Layer, amount, shape, trace
from cdt_lite.model.config import Config, ModelConfig
from cdt_lite.model.diffusion import mask_probabilities, reveal_counts, v1_reveals


def attention_mechanism(config: Preset) -> Diagram:
    """Draws multi-query attention: every head has its own queries, all heads share one K and one V."""
    c, seen = network(config), trace(config)
    d = Diagram("attention_mechanism", f"Multi-query attention: {c.n_head} heads of {c.head_dim}, one shared K and V",
                note=f"Sharing saves {1 - 1 / c.n_head:.1%} of the K/V projection and of the bytes of K and V, "
                     "and no FLOP of attention itself.")
    for kind in ("self", "cross"):
        layer, memory = seen[f"blocks.0.{kind}_attention.inner"], f"{kind}.memory" if kind == "cross" else f"{kind}.x"
        n, width, group = c.n_genes, c.dim, "ffn"
        if kind == "cross":
            n, width, group = CONTROLS, c.control_set_dim_out, "control"
        heads = [f"h{i}|{i}" for i in range(c.n_head)]
        d.box(f"{kind}.x", f"{kind}-attention", f"x: {c.n_genes:,} genes × {c.dim}", group="token")
        if kind == "cross":
            d.box(memory, "memory", f"{n} control cells × {width}", group="control")
        d.box(f"{kind}.q", "q", f"Linear {c.dim} → {c.n_head} heads × {c.head_dim}", group="attention", rows=[heads])
        d.box(f"{kind}.kv", "K and V", f"Linear {width:,} → 2 × {c.head_dim}", group=group)
        shared = f"kv|{tint(PALETTE[group], 0.3)}|one K and one V, {n:,} × {c.head_dim}, for all {c.n_head} heads"
        d.box(f"{kind}.a", f"softmax(q·k / √{c.head_dim}) v", f"{c.n_genes * c.n_head:,} queries, {n:,} keys",
              group="attention", rows=[heads, [shared]])
        d.box(f"{kind}.out", "out", f"Linear {c.dim} → {c.dim}", f"a block in all: {layer.parameters:,}",
              f"parameters, {amount(layer.flops, 'FLOP')}", group="attention")
        d.link(f"{kind}.x", f"{kind}.q", kind="stream", weight="4")
        d.link(memory, f"{kind}.kv", kind="stream" if kind == "self" else "control")
        d.link(f"{kind}.kv", f"{kind}.a:kv:e", kind="control" if kind == "cross" else "plain", penwidth="3")
        for i in range(c.n_head):
            d.link(f"{kind}.q:h{i}:s", f"{kind}.a:h{i}:n", weight="2")
        d.link(f"{kind}.a", f"{kind}.out", kind="stream")
    return d


def conditioning_pipeline(config: Preset) -> Diagram:
    """Draws how target gene, sign, magnitude, time, depth and controls become what the blocks are told."""
    c, seen = network(config), trace(config)
    d = Diagram("conditioning_pipeline", f"The condition: one vector of {c.dim} a cell, and a memory of {CONTROLS} "
                "control cells", "LR")

    def module(name: str, *lines: str, group: str = "condition") -> None:
        d.box(name, name, *lines, f"{seen[name].parameters:,} parameters", group=group)
    inputs = (("gene", "Target gene", f"1 of {c.n_total_genes:,}", "gene_table", f"out {c.gene_embed_dim}"),
              ("sign", "Sign", "-1, 0, +1", "perturbation.sign", f"out {c.perturb_sign_dim}"),
              ("fold", "log2 fold change", f"clipped to ±{c.magnitude_clip:g}, / {c.magnitude_clip:g}",
               "perturbation.magnitude", f"out {c.dim}"))
    for key, title, line, name, out in inputs:
        d.box(key, title, line, group="condition")
        module(name, out, group="head" if name == "gene_table" else "condition")
        d.link(key, name, "perturbation.project", kind="condition")
    module("perturbation.project", f"concatenated: {seen['perturbation.project'].inputs[0][-1]} → {c.dim}")
    d.box("condition", "+", f"condition: {c.dim}", group="condition")
    d.link("perturbation.project", "condition", kind="condition")
    depth = [("counts", "Depth", "log counts", "depth")] * c.depth_input
    time = [("when", "Time t", "sines and cosines", "time")] * (c.time_input != "none")
    for key, title, line, name in [*time, *depth]:
        d.box(key, title, line, group="condition")
        module(name, f"out {c.dim}")
        d.link(key, name, "condition", kind="condition")
    d.box("controls", "Control cells", f"{CONTROLS} × {c.n_genes:,} tokens", group="control")
    module("control_set", f"memory {shape(seen['control_set'].output)}", group="control")
    steps = [["s|self-attention"], ["x|cross-attention"], ["f|FFN"]]
    steps += [["n|norm and gate of each step"]] * (c.modulation == "adaln")
    d.box("blocks", f"{c.n_layer} blocks", group="attention", rows=steps)
    d.link("controls", "control_set", "blocks:x", kind="control")
    _targets(d, c, seen)
    return d


def _targets(d: Diagram, c: ModelConfig, seen: dict[str, Layer]) -> None:
    """Adds where the condition goes, and what genes are told at their own positions."""
    if c.modulation == "adaln":
        d.box("modulation", "modulation", f"SiLU, Linear → 9 × {c.dim}", "shift, scale, gate",
              f"{seen['modulation'].parameters:,} parameters", group="condition")
        d.link("condition", "modulation", "blocks:n", kind="condition")
    else:
        d.box("h", "h + condition", f"at all {c.n_genes:,} positions", group="token")
        d.link("condition", "h", kind="condition")
        d.link("h", "blocks:s", kind="stream")
    if c.control_statistics:
        d.box("embed.statistics", "embed.statistics", "mean, share of non-zeros", f"at each of {c.n_genes:,} genes",
              group="control")
        d.link("controls", "embed.statistics", "embed", kind="control")
    if c.cell_summary:
        d.box("embed.summary", "embed.summary", "visible genes against", "the controls, summed", group="token")
        d.link("controls", "embed.summary", kind="control")
        d.link("embed.summary", "embed", kind="stream")
    if c.target_flag:
        d.box("flag", "embed.target_flag", "at the target's own position", group="condition")
        d.link("gene", "flag", "embed", kind="condition")
    if c.mean_effect:
        d.box("embed.effect", "embed.effect", "mean effect in the training cells", f"at each of {c.n_genes:,} genes;",
              "it also tilts the logits", group="condition")
        d.link("gene", "embed.effect", "embed", kind="condition")
    if c.target_flag or c.control_statistics or c.cell_summary or c.mean_effect:
        d.box("embed", "embed", shape(seen["embed"].output), group="token")
        d.link("embed", "blocks:s", kind="stream")


def diffusion_process(config: Config, n_squares: int = 24) -> Diagram:
    """Draws hiding and revealing at the preset's own steps, on one schematic cell."""
    c, genes = config.diffusion, config.model.n_genes
    if c.sampler == "v1":
        p, counts = mask_probabilities(c).tolist(), v1_reveals(c, genes).tolist()
        forward = [(f"t = {t}", p[t]) for t in sorted({round(i * (len(p) - 1) / 4) for i in range(5)})]
    else:
        counts = [float(n) for n in reveal_counts(c, genes)]
        forward = [(f"t = {t:.2f}", t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    hidden = [genes - sum(counts[:i]) for i in range(len(counts) + 1)]
    picked = sorted({round(i * (len(counts)) / 4) for i in range(5)})
    title = f"Masked diffusion of {genes:,} genes: hidden at random, revealed in {len(counts)} steps"
    d = Diagram("diffusion_process", title, "LR")
    law = ("at timestep t each gene", "is hidden with", "this chance") if c.sampler == "v1" else (
        "training: a share t", "of the genes", "is hidden at random")
    d.box("f", "Forward", *law, group="other")
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
    """Adds a row of states of one schematic cell; a gene hidden at one state is hidden at every more hidden one.

    Sampling makes another cell than the one that was hidden.
    """
    shades = [tint(PALETTE["token"], share) for share in (0.15, 0.35, 0.15, 0.9, 0.15, 0.6, 0.15)]
    step = 1 if row == "f" else 3
    for i, (label, share, line) in enumerate(states):
        squares = [MASK if (j * 7 + 3) % n < round(share * n) else shades[j * step % 7] for j in range(n)]
        d.box(f"{row}{i}", label, line, group="token", rows=[squares[k: k + n // 3] for k in range(0, n, n // 3)])
        d.link(f"{row}{i - 1}" if i else row, f"{row}{i}", kind="plain" if row == "f" else "stream")
