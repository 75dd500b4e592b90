"""The guide to the figure folder: the original document's sections in its order, its claims kept or corrected."""

from typing import Any

from cdt_lite import __version__
from cdt_lite.figures import accounting as count
from cdt_lite.model.config import Config
from cdt_lite.model.diffusion import curriculum_ratio, v1_reveals

RELEASED = "2026-11-24"  # the release's date, as in CITATION.cff: not the day on which someone ran this
BETA_MEAN = 2 / 7  # of Beta(2, 5), v1's law of mask ratios
WHAT = {
    "architecture_overview": "High-level overview of the model",
    "layer_breakdown": "Every layer that holds parameters",
    "forward_pass_flow": "One cell's forward pass, step by step",
    "attention_mechanism": "Multi-query self-attention and cross-attention",
    "conditioning_pipeline": "How a perturbation and control cells become a condition",
    "diffusion_process": "Hiding genes, and revealing them again",
    "parameter_breakdown": "Where the parameters are, and three totals",
    "computational_analysis": "Operations, memory and time",
}
# Section -> (what the document says, verdict, what is computed here). {names} are filled in by `facts`.
CLAIMS: dict[str, list[tuple[str, str, str]]] = {
    "Key components": [
        ("24,752,265 parameters, 94.4 MB", "corrected",
         "A closed-form estimate, {nominal:,} for this preset. It counts four full D × D matrices a layer where "
         "multi-query attention has 2 D² + 2 D hd, and leaves out cross-attention, biases, norms, the control-set "
         "encoder, the conditioning projection and the time MLP. The module holds {n:,} ({surplus:+,}). The "
         "document's own breakdown file adds up to a third total, {other:,}. All three, term by term: "
         "`parameter_breakdown.txt`."),
        ("Token embeddings map expression bins to 512D vectors", "holds",
         "{ids} ids to {dim}D: {bins} bins and [MASK]."),
        ("Perturbation and control-set encoding", "holds",
         "One vector of {dim} a cell, and a memory of {controls} control cells."),
        ("6 layers with multi-query attention", "holds, and more",
         "{layers} blocks, {heads} query heads, one shared K and V; and in every block a cross-attention, "
         "{cross:,} parameters in all that the estimate does not count."),
        ("10 timesteps with 0.3 masking", "{sampling}",
         "v1's largest mask probability is {mask_ratio:g}. Its sampler reveals, in expectation, {reveals} genes: "
         "nine effective steps, the tenth forward does nothing. This preset samples in {forwards} forward passes "
         "({sampler})."),
        ("The head predicts original tokens at masked positions", "holds",
         "{logits} logits at every position, [MASK] {among} them; only hidden genes enter the loss."),
    ],
    "Conditioning types": [
        ("Target gene, 36,601-gene vocabulary", "holds",
         "{vocabulary:,} rows of {gene_width}: {table:,} parameters."),
        ("Sign: -1 knockdown, 0 control, +1 activation", "holds",
         "A table of 3 × {sign_width}; a knockout is -1 too."),
        ("Magnitude: continuous log2 fold change", "holds",
         "Clipped to ±{clip:g}, and may be unknown: it is an outcome, nobody has it for an experiment not yet "
         "made."),
        ("Control set, encoded via set transformer", "holds",
         "The order of the controls changes nothing (a test says so). Reading {controls} of them costs {read:,.0f}"
         " MFLOP."),
    ],
    "Training strategy": [
        ("Pretraining 50 epochs, fine-tuning 20", "holds",
         "{pretrain} and {finetune} epochs. For 1,000,000 and 200,000 cells that is {hours:.1f} hours at least on "
         "one H200 (computed from the ceiling of its matrix products; unmeasured)."),
        ("Partial masking with curriculum learning", "{masking}",
         "v1 hides {first:.1%} of genes on average when fine-tuning begins and {last:.1%} when its curriculum "
         "ends, but samples from 100 % hidden.{instead}"),
        ("Cross-entropy on masked positions", "holds",
         "A model that knows nothing costs exactly log {logits} (a test)."),
    ],
    "Usage notes": [
        ("Input: tokenized expression, 64 bins", "corrected", "{bins} bins; the last of the {ids} ids is [MASK]."),
        ("Output: logits over the vocabulary for each gene", "holds", "{genes:,} × {logits}."),
        ("Iterative denoising from fully masked input", "holds",
         "{forwards} forward passes of {forward:,.2f} GFLOP a cell."),
        ("Conditioning is optional", "holds",
         "Without controls a pass takes {bare:,.2f} GFLOP instead of {forward:,.2f}."),
    ],
    "Implementation details": [
        ("Multi-query attention for efficiency", "holds for bytes",
         "It removes {saved:.1%} of the K/V projection and of the bytes of K and V, and no FLOP of attention "
         "itself."),
        ("Memory scales linearly with batch size, quadratically with gene count", "half holds",
         "Saved activations follow a law fitted to small sizes (off by {error:.1%} at 32 cells, which it never saw): "
         "naive attention keeps {naive} bytes a cell and gene², a fused kernel {fused}, and with it {per_gene:,} a "
         "cell and gene. Compute stays quadratic."),
        ("FP16 for memory efficiency", "holds",
         "bf16 autocast keeps {low:.1f} GB of activations for 32 cells, fp32 {high:.1f} (fused attention, "
         "PyTorch's CPU kernels). fp16 with gradient scaling is unmeasured: no GPU was at hand."),
        ("About 0.1 GB of GPU memory for training", "corrected",
         "The weights alone are {weights:.2f} GB, with gradients and AdamW's moments {state:.2f}, and with the "
         "activations of 32 cells {all:.1f} (fused, bf16)."),
        ("1,427.1 GFLOP a forward pass at batch 32", "corrected",
         "The document's formula gives {claimed:,.1f} for this preset: one for a multiply-add, QK^T without AV, no"
         " cross-attention. Counted: {true:,.1f}, {ratio:.2f} times as much."),
        ("0.73 GB of activations, 0.82 GB in all", "corrected",
         "{low:.1f} and {all:.1f} GB at 32 cells (fused, bf16)."),
    ],
}


def facts(config: Config) -> dict[str, Any]:
    """Computes every number that the guide quotes."""
    m, d, parts, flops = config.model, config.diffusion, count.parameters_by_part(config), count.flops_by_part(config)
    n, nominal = sum(parts.values()), sum(count.nominal_parameters(config).values())
    memory = count.memory(config, bf16=True)
    claimed, forward = sum(count.document_flops(config).values()) / 1e9, sum(flops.values()) / 1e9
    (law, error), v1 = count.activation_law(config), d.sampler == "v1"
    return {
        "n": n, "nominal": nominal, "surplus": n - nominal, "other": sum(count.document_breakdown(config).values()),
        "ids": m.vocab_size, "bins": m.n_bins, "dim": m.dim, "controls": count.CONTROLS, "layers": m.n_layer,
        "heads": m.n_head, "cross": parts["cross-attention"], "sampling": "corrected" if v1 else "replaced",
        "mask_ratio": d.mask_ratio, "reveals": ", ".join(f"{x:.0f}" for x in v1_reveals(d, m.n_genes).tolist()),
        "forwards": d.sampling_steps - v1, "sampler": "v1's own" if v1 else f"fixed counts, {d.sampling_schedule}",
        "logits": m.n_logits, "among": "among" if m.mask_in_logits else "not among", "genes": m.n_genes,
        "vocabulary": m.n_total_genes, "gene_width": m.gene_embed_dim, "table": parts["gene table"],
        "sign_width": m.perturb_sign_dim, "clip": m.magnitude_clip, "read": flops["control-set encoder"] / 1e6,
        "pretrain": config.pretrain.epochs, "finetune": config.finetune.epochs,
        "hours": count.plan_hours(config, "H200 (measured)", 1_000_000, 200_000),
        "masking": "holds, with a flaw" if d.mask_law == "beta_batch" else "replaced",
        "first": curriculum_ratio(d, 0) * BETA_MEAN, "last": curriculum_ratio(d, d.curriculum[3]) * BETA_MEAN,
        "instead": "" if d.mask_law == "beta_batch" else " This preset draws the share evenly from 0 to 1.",
        "forward": forward, "bare": sum(count.flops_by_part(config, n_controls=0).values()) / 1e9,
        "saved": 1 - 1 / m.n_head, "fused": law[4], "naive": count.activation_law(config, fused=False)[0][4],
        "per_gene": law[3], "error": abs(error), "low": memory["activations"] / 1e9,
        "high": count.memory(config)["activations"] / 1e9, "weights": 4 * n / 1e9, "state": 16 * n / 1e9,
        "all": sum(memory.values()) / 1e9, "claimed": claimed, "true": 32 * forward, "ratio": 32 * forward / claimed}


def guide(config: Config, figures: dict[str, dict[str, Any]], measured: bool) -> str:
    """Returns the folder's README.

    Args:
        config: The preset that is drawn.
        figures: Name -> its alt text ("alt"), the rows of its table ("rows"), and its files ("files").
        measured: Whether a trained model was at hand.
    """
    known, m = facts(config), config.model
    lines = [
        "# Model architecture visualizations", "",
        f"Made by `cdt-lite figures --preset {config.name}` from the live model (cdt-lite {__version__}): no number or",
        "box was typed by hand. Text and figures: CC BY 4.0.", "", "## Generated files", "",
        "Configuration: [`model_config.json`](model_config.json), [`model_config.txt`](model_config.txt).", "",
        "| figure | what it shows | files |", "|---|---|---|"]
    for name, shown in figures.items():
        files = ", ".join(f"[{file[len(name) + 1:]}]({file})" for file in shown["files"])
        lines.append(f"| [{name}](#{name}) | {WHAT[name]} | {files} |")
    lines += ["", *_denoising(measured), "", "## Model overview", "",
              "**Architecture**: Conditional Diffusion Transformer  ",
              f"**Parameters**: {known['n']:,} in the module; the document's formula gives {known['nominal']:,}  ",
              f"**Model size**: {4 * known['n'] / 1e6:.1f} MB in fp32 ({4 * known['n'] / 2**20:.1f} MiB)"]
    for title, claims in CLAIMS.items():
        lines += ["", f"## {title}", "", "| the document says | verdict | computed here |", "|---|---|---|"]
        lines += [f"| {said} | {verdict} | {found} |".format_map(known) for said, verdict, found in claims]
    lines += ["", f"Date of release: {RELEASED}  ", f"Model configuration: {config.name} (dim {m.dim}, {m.n_layer} "
              f"blocks, {m.n_head} heads, {m.n_genes:,} genes)", "", "## The figures"]
    for name, shown in figures.items():
        lines += _figure(name, shown)
    return "\n".join(lines) + "\n"


def _denoising(measured: bool) -> list[str]:
    if not measured:
        return ["No trained model was at hand, so what it attends to, its denoising of a real cell and `denoising.gif` "
                "are left out: `cdt-lite capsule` makes one."]
    return ["`denoising.gif`: a trained model makes a cell from masks alone.", "",
            "![Every gene of one cell is a square: grey while hidden, then the value drawn for it](denoising.gif)"]


def _figure(name: str, shown: dict[str, Any]) -> list[str]:
    """One figure's part: the picture with its alt text, and its content as a table."""
    picture = [f"![{shown['alt']}]({name}.png)", ""] if f"{name}.png" in shown["files"] else []
    width = max(map(len, shown["rows"]))
    clean = [[str(cell).replace("|", "/").replace("\n", " ") for cell in row] for row in shown["rows"]]
    first, *rest = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in clean]
    return ["", f"### {name}", "", f"{WHAT[name]}.", "", *picture, "<details><summary>As a table</summary>", "",
            first, "|---" * width + "|", *rest, "", "</details>"]
