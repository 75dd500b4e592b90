"""Panels that need a trained model and real cells: what it attends to, and one cell hidden and made again."""

import hashlib
import textwrap
from collections import Counter
from io import BytesIO
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from matplotlib.figure import Figure
from PIL import Image

from cdt_lite.data.batches import Batch
from cdt_lite.data.expression import dense
from cdt_lite.figures import plots
from cdt_lite.model.config import Config
from cdt_lite.model.diffusion import hide, mask_probabilities, reveal_counts, sample_steps, v1_reveals
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.predict import align_panel
from cdt_lite.training.train import denoiser

Panel = tuple[Figure, str, dict[str, Any]]  # a figure, its alt text, its data


def example(capsule: Checkpoint, screen: AnnData, control: str = "non-targeting") -> tuple[Batch, str]:
    """Picks a cell of middling depth of the trained target with the most cells that the panel measures, and controls.

    Returns:
        One set of one cell, its controls ordered from shallow to deep, and a line that says which cell it is.
    """
    cells = align_panel(capsule, screen, align=False)
    label, replicate = cells.obs["target_gene"].astype(str).to_numpy(), cells.obs["batch"].astype(str).to_numpy()
    counts = dense(cells.X)
    depth = counts.sum(1)
    seen = Counter(label[np.isin(label, capsule.trained_targets)].tolist())
    target = max(seen, key=lambda t: (t in set(cells.var_names), seen[t], t))
    own = np.flatnonzero(label == target)
    cell = int(own[np.argsort(depth[own], kind="stable")[len(own) // 2]])
    pool = np.flatnonzero((label == control) & (replicate == replicate[cell]))
    n = min(capsule.config.finetune.controls_per_set, len(pool))
    chosen = np.random.default_rng(0).choice(pool, n, replace=False)
    chosen = chosen[np.argsort(depth[chosen], kind="stable")]
    tokens = torch.from_numpy(capsule.tokenizer.tokenize(counts[[cell, *chosen]])).long()
    told = Perturbation.of([capsule.vocabulary.id(target)], [int(cells.obs["sign"].iloc[cell])], [float("nan")])
    log_depth = torch.tensor([[np.log(depth[cell] / capsule.tokenizer.target_depth)]], dtype=torch.float32)
    gene_ids = torch.from_numpy(capsule.vocabulary.ids(list(cells.var_names)))
    return (Batch(tokens[None, :1], tokens[None, 1:], told, log_depth, gene_ids),
            f"one cell of {target} ({replicate[cell]}, {depth[cell]:,.0f} counts)")


@torch.no_grad()
def attention_weights(capsule: Checkpoint, batch: Batch, share: float = 0.5) -> dict[str, np.ndarray]:
    """Returns the last block's weights, mean over heads, with a share of the cell hidden: self (G, G), cross (G, C)."""
    generator, inputs = torch.Generator().manual_seed(0), {}
    mask = torch.rand(batch.tokens.shape, generator=generator).argsort(-1).argsort(-1) < share * batch.tokens.shape[-1]
    block: Any = capsule.model.blocks[-1]
    layers = {"self": block.self_attention.inner, "cross": block.cross_attention.inner}
    hooks = [layer.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given}))
             for name, layer in layers.items()]
    denoiser(capsule.model, batch)(hide(batch.tokens, mask, capsule.tokenizer.mask_id), mask.float().mean(-1))
    for hook in hooks:
        hook.remove()
    return {name: layer.weights(*inputs[name])[0].mean(0).numpy() for name, layer in layers.items()}


def attention_panel(capsule: Checkpoint, screen: AnnData, n_rows: int = 14, n_columns: int = 18) -> Panel:
    """Draws which genes a real cell's genes attend to, and which control cells."""
    batch, what = example(capsule, screen)
    weights = attention_weights(capsule, batch)
    rows = np.argsort(-batch.tokens[0, 0].numpy(), kind="stable")[:n_rows]
    columns = np.argsort(-weights["self"][rows].mean(0), kind="stable")[:n_columns]
    names, looked_at = ([str(screen.var_names[i]) for i in chosen] for chosen in (rows, columns))
    shown = {"self": weights["self"][np.ix_(rows, columns)], "cross": weights["cross"][rows]}
    figure, axes = plots.grid(1, 2, (10, 5))
    plots.attention_map(shown["self"], names, looked_at, axes[0])
    axes[0].set_title("Self-attention: to genes")
    n_controls = shown["cross"].shape[1]
    relative = shown["cross"] * n_controls
    plots.attention_map(relative, names, ["shallow", *[""] * (n_controls - 2), "deep"], axes[1], relative.min(),
                        "weight / equal share")
    axes[1].set_title(f"Cross-attention: to {n_controls} control cells")
    caption(figure, f"{what[0].upper()}{what[1:]}, half hidden; its {n_rows} most expressed genes; last block, mean of "
                    f"heads. {credit(screen)}")
    favourites = {name: round(float(mean), 4) for name, mean in zip(looked_at[:5], shown["self"].mean(0), strict=False)}
    alt = (f"Measured attention of the trained {capsule.config.name} model on {what}. "
           + plots.alt_text("Genes looked at most, mean weight", favourites)
           + f" Control cells get between {relative.min():.2f} and {relative.max():.2f} times an equal share.")
    data = {"capsule": fingerprint(capsule), "cell": what, "credit": credit(screen), "genes": names,
            "looked at": looked_at,
            **{name: np.round(w.astype(float), 4).tolist() for name, w in shown.items()}}
    return figure, alt, data


def schedules(config: Config) -> dict[str, tuple[list[int], list[float]]]:
    """Returns the share of hidden genes after each step: v1's sampler, fixed counts, v1's mask probabilities."""
    d, genes = config.diffusion, config.model.n_genes
    v1, cosine = (torch.cat([torch.zeros(1), counts.double()]).cumsum(0) for counts in
                  (v1_reveals(d, genes), reveal_counts(d, genes)))
    p = mask_probabilities(d).flip(0)
    return {"v1's sampler": (list(range(len(v1))), (1 - v1 / genes).tolist()),
            f"{d.sampling_schedule}, fixed counts": (list(range(len(cosine))), (1 - cosine / genes).tolist()),
            "v1's mask probability at each timestep": (list(range(len(p))), p.tolist())}


@torch.no_grad()
def down_and_up(capsule: Checkpoint, batch: Batch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns one cell's states going down the forward process, and coming up again under the model, step by step."""
    config, genes, mask_id = capsule.config.diffusion, batch.tokens.shape[-1], capsule.tokenizer.mask_id
    up = [state[0, 0].numpy() for state in sample_steps(denoiser(capsule.model, batch), config, (1, 1, genes), mask_id,
                                                        torch.Generator().manual_seed(0))]
    turn = np.random.default_rng(0).permutation(genes)
    down = [np.where(turn < (state == mask_id).sum(), mask_id, batch.tokens[0, 0].numpy()) for state in up[::-1]]
    return down, up


def diffusion_panel(config: Config, capsule: Checkpoint | None = None, screen: AnnData | None = None) -> Panel:
    """Draws the schedules, and below them (with a trained model) one real cell hidden and made again."""
    walks = schedules(config)
    data: dict[str, Any] = {"hidden after each step": {k: [round(x, 4) for x in y] for k, (_, y) in walks.items()}}
    alt = plots.alt_text("Share of genes hidden half way", {k: round(y[len(y) // 2], 3) for k, (_, y) in walks.items()})
    if capsule is None or screen is None:
        figure, ax = plots.grid(1, 1, (10, 3.6))
        plots.mask_schedule(walks, ax)
        return figure, alt, data
    figure, axes = plots.grid(3, 1, (10, 11.5), height_ratios=[0.75, 1, 1])
    plots.mask_schedule(walks, axes[0])
    batch, what = example(capsule, screen)
    down, up = down_and_up(capsule, batch)
    order = np.argsort(-(batch.tokens[0, 0].numpy() + 0.01 * up[-1]), kind="stable")[:60]
    mask_id, genes = capsule.tokenizer.mask_id, [str(screen.var_names[i]) for i in order]
    for ax, states, title in ((axes[1], down, f"Forward: {what} is hidden"),
                              (axes[2], up, f"Reverse: the trained {capsule.config.name} model makes one from masks")):
        hidden = [int((s == mask_id).sum()) for s in states]
        plots.cell_heatmap([s[order] for s in states], genes, ax, mask_id, [f"{n} hidden" for n in hidden])
        ax.set_title(title)
    caption(figure, f"The real cell's {len(genes)} most expressed genes; grey is [MASK], darker is more. "
                    f"{credit(screen)}")
    made = float(up[-1].sum())
    data |= {"capsule": fingerprint(capsule), "cell": what, "credit": credit(screen), "genes": genes,
             "real": down[0][order].tolist(), "made": up[-1][order].tolist()}
    alt += (f" Then {what}, hidden in {len(down) - 1} steps, and a cell made by the trained model in as many: its "
            f"tokens sum to {made:,.0f}, those of the real cell to {float(batch.tokens.sum()):,.0f}.")
    return figure, alt, data


def denoising_gif(capsule: Checkpoint, screen: AnnData) -> bytes:
    """Draws the reverse process as an animation: every gene a square, grey until it is revealed."""
    batch, _ = example(capsule, screen)
    states, mask_id, frames = down_and_up(capsule, batch)[1], capsule.tokenizer.mask_id, []
    width = int(np.ceil(np.sqrt(2 * len(states[0]))))
    for i, state in enumerate(states):
        padded = np.append(state, np.full(-len(state) % width, 0))
        figure, ax = plots.grid(1, 1, (6, 3.4))
        plots.cell_heatmap(list(padded.reshape(-1, width)), [""] * width, ax, mask_id)
        hidden = f"{(state == mask_id).sum()} of {len(state)} hidden"
        ax.set(xticks=[], yticks=[], title=f"step {i} of {len(states) - 1}: {hidden}")
        out = BytesIO()
        figure.savefig(out, format="png", dpi=100)
        frames.append(Image.open(out).convert("RGB").quantize(64, dither=Image.Dither.NONE))
        plots.plt.close(figure)
    out = BytesIO()
    times = [400] * (len(frames) - 1) + [2500]
    frames[0].save(out, "gif", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return out.getvalue()


def caption(figure: Figure, text: str) -> None:
    """Writes a wrapped line under a figure."""
    figure.supxlabel("\n".join(textwrap.wrap(text, 125)), fontsize=8.5, x=0.01, ha="left")


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
