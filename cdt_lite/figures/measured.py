"""Panels that need a trained model and real cells: what it attends to, and one cell hidden and made again."""

import hashlib
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image

from cdt_lite.data.batches import Batch
from cdt_lite.data.expression import dense
from cdt_lite.data.layout import read_labels
from cdt_lite.figures import plots
from cdt_lite.figures.trace import process_of
from cdt_lite.model import Config, Perturbation, V1Diffusion
from cdt_lite.model.diffusion import hide, random_turns, sample_steps
from cdt_lite.model.response import drawn_states
from cdt_lite.model.schedule import cosine_counts
from cdt_lite.model.v1 import N_TIMESTEPS, expected_reveals, mask_probabilities
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.predict import align_panel, possible
from cdt_lite.training.trust import denoiser


class Panel(NamedTuple):
    """A figure, its alt text, and the numbers that it draws."""

    figure: Figure
    alt: str
    data: dict[str, Any]


def example(capsule: Checkpoint, screen: AnnData) -> tuple[Batch, str]:
    """Picks a cell of middling depth of the trained target with the most cells that the panel measures, and controls.

    Returns:
        One set of one cell, its controls ordered from shallow to deep, and a line that says which cell it is.
    """
    cells = align_panel(capsule, screen, align=False)
    labels, counts = read_labels(cells), dense(cells.X)
    depth, seen = counts.sum(1), pd.Series(labels.target).value_counts()
    trained = [name for name in capsule.trained_targets if name in seen]
    target = max(trained, key=lambda name: (name in cells.var_names, seen[name], name))
    own = np.flatnonzero(labels.target == target)
    cell = own[np.argsort(depth[own], kind="stable")[len(own) // 2]]
    replicate = labels.batch[cell]
    pool = np.flatnonzero(labels.is_control & (labels.batch == replicate))
    n = min(capsule.config.finetune.controls_per_set, len(pool))
    controls = np.random.default_rng(0).choice(pool, n, replace=False)
    controls = controls[np.argsort(depth[controls], kind="stable")]

    tokens = capsule.tokenizer.tokenize(counts[[cell, *controls]])
    told = Perturbation.of([capsule.vocabulary.id(target)], [int(labels.sign[cell])], [float("nan")])
    log_depth = np.log(depth[[[cell]]] / capsule.tokenizer.target_depth)
    gene_ids = capsule.vocabulary.ids(list(cells.var_names))
    batch = Batch.of(tokens[None, :1], tokens[None, 1:], told, log_depth, gene_ids)
    return batch.to("cpu"), f"one cell of {target} ({replicate}, {depth[cell]:,.0f} counts)"


@torch.no_grad()
def attention_weights(capsule: Checkpoint, batch: Batch) -> dict[str, np.ndarray]:
    """Returns the last block's weights, mean over heads, with half the cell hidden: self (G, G), cross (G, C)."""
    turns = random_turns(batch.tokens.shape, torch.Generator().manual_seed(0))
    hidden = hide(batch.tokens, turns < batch.tokens.shape[-1] / 2, capsule.tokenizer.mask_id)
    block: Any = capsule.model.blocks[-1]
    found = {}
    for side, layer in (("self", block.self_attention.inner), ("cross", block.cross_attention.inner)):
        given: list[Any] = []
        hook = layer.register_forward_pre_hook(lambda _, inputs, given=given: given.extend(inputs))
        denoiser(capsule.model, batch)(hidden)
        hook.remove()
        found[side] = layer.weights(*given)[0].mean(0).numpy()
    return found


def attention_maps(own: Float[np.ndarray, "G G"], cross: Float[np.ndarray, "G C"], names: pd.Index, n: int = 14
                   ) -> tuple[Figure, pd.Series]:
    """Draws which genes are read by the n genes that are read most, and which control cells.

    Args:
        own: Attention among genes, rows sum to 1.
        cross: Of genes to control cells, ordered from shallow to deep.
        names: Of the genes.
        n: How many genes to draw.

    Returns:
        The figure, and the mean attention that these genes receive.
    """
    most = np.argsort(-own.mean(0))[:n]
    figure, axes = plots.grid(1, 2, (11, 4.2))
    plots.attention_map(own[np.ix_(most, most)], names[most], names[most], axes[0])
    axes[0].set_title("genes read genes")
    relative = cross[most] * cross.shape[1]
    cells = ["shallow", *[""] * (cross.shape[1] - 2), "deep"]
    plots.attention_map(relative, names[most], cells, axes[1], relative.min(), "weight / equal share")
    axes[1].set_title(f"genes read {cross.shape[1]} control cells")
    return figure, pd.Series(own.mean(0)[most].astype(float), names[most], name="mean weight")


def attention_panel(capsule: Checkpoint, screen: AnnData) -> Panel:
    """Draws which genes a real cell's genes attend to, and which control cells."""
    batch, what = example(capsule, screen)
    weights = attention_weights(capsule, batch)
    rows = np.argsort(-batch.tokens[0, 0].numpy(), kind="stable")[:14]
    columns = np.argsort(-weights["self"][rows].mean(0), kind="stable")[:18]
    genes, looked_at = list(screen.var_names[rows]), list(screen.var_names[columns])
    own, cross = weights["self"][np.ix_(rows, columns)], weights["cross"][rows]
    n_controls = cross.shape[1]
    relative = cross * n_controls

    figure, axes = plots.grid(1, 2, (10, 5))
    plots.attention_map(own, genes, looked_at, axes[0])
    axes[0].set_title("Self-attention: to genes")
    names = ["shallow", *[""] * (n_controls - 2), "deep"]
    plots.attention_map(relative, genes, names, axes[1], relative.min(), "weight / equal share")
    axes[1].set_title(f"Cross-attention: to {n_controls} control cells")
    most = f"half hidden; its {len(genes)} most expressed genes; last block, mean of heads"
    _caption(figure, f"{what[0].upper()}{what[1:]}, {most}. {credit(screen)}")

    favourites = {looked_at[i]: round(float(own[:, i].mean()), 4) for i in range(min(5, len(looked_at)))}
    alt = (f"Measured attention of the trained {capsule.config.name} model on {what}. "
           f"{plots.alt_text('Genes looked at most, mean weight', favourites)} "
           f"Control cells get between {relative.min():.2f} and {relative.max():.2f} times an equal share.")
    return Panel(figure, alt, _provenance(capsule, screen, what) | {
        "genes": genes, "looked at": looked_at, "self": np.round(own.astype(float), 4).tolist(),
        "cross": np.round(cross.astype(float), 4).tolist()})


def schedules(config: Config) -> dict[str, tuple[Sequence[int], list[float]]]:
    """Returns steps and the share of hidden genes: v1's sampler, fixed counts, v1's mask probabilities."""
    genes, process = config.model.n_genes, process_of(config)
    if isinstance(process, V1Diffusion):
        name, counts = "cosine", cosine_counts(genes, N_TIMESTEPS).tolist()
    else:
        name, counts = process.config.sampling_schedule, process.counts(genes)
    shares = {
        "v1's sampler": 1 - np.cumsum([0, *expected_reveals(genes).tolist()]) / genes,
        f"{name}, fixed counts": 1 - np.cumsum([0, *counts]) / genes,
        "v1's mask probability at each timestep": mask_probabilities().flip(0).numpy(),
    }
    return {name: (range(len(share)), share.tolist()) for name, share in shares.items()}


@torch.no_grad()
def down_and_up(capsule: Checkpoint, batch: Batch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns one cell's states going down the forward process, and coming up again under the model, step by step."""
    shape, mask_id = (1, 1, batch.tokens.shape[-1]), capsule.tokenizer.mask_id
    generator = torch.Generator().manual_seed(0)
    denoise = possible(denoiser(capsule.model, batch, drawn_states(generator)), capsule.model, batch.gene_ids)
    if isinstance(capsule.process, V1Diffusion):
        steps = capsule.process.sample_steps(denoise, shape, generator)
    else:
        steps = sample_steps(denoise, capsule.process.counts(shape[-1]), shape, mask_id, generator)
    up = [state[0, 0].numpy() for state in steps]
    turn = np.random.default_rng(0).permutation(shape[-1])
    down = []
    for state in reversed(up):
        hidden = turn < (state == mask_id).sum()
        down.append(np.where(hidden, mask_id, batch.tokens[0, 0].numpy()))
    return down, up


def diffusion_panel(config: Config, capsule: Checkpoint | None = None, screen: AnnData | None = None) -> Panel:
    """Draws the schedules, and below them (with a trained model) one real cell hidden and made again."""
    walks = schedules(config)
    half_way = {name: round(shares[len(shares) // 2], 3) for name, (_, shares) in walks.items()}
    alt = plots.alt_text("Share of genes hidden half way", half_way)
    rounded = {name: np.round(shares, 4).tolist() for name, (_, shares) in walks.items()}
    data: dict[str, Any] = {"hidden after each step": rounded}
    if capsule is None or screen is None:
        figure, ax = plots.grid(1, 1, (10, 3.6))
        plots.mask_schedule(walks, ax)
        return Panel(figure, alt, data)

    figure, axes = plots.grid(3, 1, (10, 11.5), height_ratios=[0.75, 1, 1])
    plots.mask_schedule(walks, axes[0])
    batch, what = example(capsule, screen)
    down, up = down_and_up(capsule, batch)
    real, made, mask_id = down[0], up[-1], capsule.tokenizer.mask_id
    order = np.argsort(-(real + 0.01 * made), kind="stable")[:60]
    genes = list(screen.var_names[order])
    for ax, states in ((axes[1], down), (axes[2], up)):
        labels = [f"{(state == mask_id).sum()} hidden" for state in states]
        plots.cell_heatmap(np.stack(states)[:, order], genes, ax, mask_id, labels)
    axes[1].set_title(f"Forward: {what} is hidden")
    axes[2].set_title(f"Reverse: the trained {capsule.config.name} model makes one from masks")
    most = f"The real cell's {len(genes)} most expressed genes; grey is [MASK], darker is more"
    _caption(figure, f"{most}. {credit(screen)}")
    data |= _provenance(capsule, screen, what)
    data |= {"genes": genes, "real": real[order].tolist(), "made": made[order].tolist()}
    alt += (f" Then {what}, hidden in {len(down) - 1} steps, and a cell made by the trained model in as many: its "
            f"tokens sum to {made.sum():,}, those of the real cell to {real.sum():,}.")
    return Panel(figure, alt, data)


def denoising_gif(capsule: Checkpoint, screen: AnnData) -> bytes:
    """Draws the reverse process as an animation: a trained model makes a cell from masks, beside a real one."""
    batch, _ = example(capsule, screen)
    down, up = down_and_up(capsule, batch)
    return animated(up, down[0], capsule.tokenizer.mask_id)


def animated(states: Sequence[np.ndarray], real: np.ndarray, mask_id: int) -> bytes:
    """Returns a GIF of one cell's states, a frame each: every gene is a square, grey until it is revealed.

    Args:
        states: Tokens (G,) after every step.
        real: Tokens of a real cell of the same depth, beside them.
        mask_id: The id of [MASK].
    """
    frames = []
    width = int(np.ceil(np.sqrt(1.4 * len(real))))
    highest = np.log1p(max(real.max(), max(state[state != mask_id].max(initial=0) for state in states)))
    for i, state in enumerate(states):
        figure, axes = plots.grid(1, 2, (9, 3.7))
        hidden = f"{(state == mask_id).sum()} of {len(state)} genes hidden"
        titles = [f"made: step {i} of {len(states) - 1}, {hidden}", "a real cell of this knockout"]
        for ax, cell, title in zip(axes, (state, real), titles, strict=True):
            squares = np.append(cell, np.zeros(-len(cell) % width)).reshape(-1, width)
            plots.cell_heatmap(squares, [""] * width, ax, mask_id)
            ax.images[0].set_clim(0, highest)  # one scale for all frames and both cells
            ax.set(xticks=[], yticks=[])
            ax.set_title(title, fontsize=11)
        png = BytesIO()
        figure.savefig(png, format="png", dpi=100)
        plots.plt.close(figure)
        frames.append(Image.open(png).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    out, times = BytesIO(), [400] * (len(frames) - 1) + [2500]
    frames[0].save(out, "gif", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return out.getvalue()


def _caption(figure: Figure, text: str) -> None:
    figure.supxlabel(textwrap.fill(text, 125), fontsize=8.5, x=0.01, ha="left")
    plots.as_written(figure)


def _provenance(capsule: Checkpoint, screen: AnnData, what: str) -> dict[str, Any]:
    return {"capsule": fingerprint(capsule), "cell": what, "credit": credit(screen)}


def fingerprint(capsule: Checkpoint) -> str:
    """Returns a short hash of a model's weights, by which a committed figure names the model that it shows."""
    found = hashlib.sha256()
    for _, weight in sorted(capsule.model.state_dict().items()):
        found.update(weight.half().numpy().tobytes())
    return found.hexdigest()[:16]


def credit(screen: AnnData) -> str:
    """Returns the data's attribution, which goes with every value of a real cell."""
    facts = screen.uns.get("screen", {})
    return f"Cells: {facts.get('attribution', facts.get('name', 'unnamed screen'))}"
