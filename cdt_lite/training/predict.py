"""AnnData in, AnnData out: control cells and a perturbation go in, generated perturbed cells come out as counts."""

import warnings
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from cdt_lite import __version__
from cdt_lite.data.batches import Batch
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.errors import CDTError, suggest
from cdt_lite.model.diffusion import Denoiser, check_guidance, guide, one_step_mean, sample, with_steps
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.train import denoiser


@dataclass(frozen=True)
class Request:
    """A checked perturbation: what the model will be told, and what the user should know about it."""

    target: str
    sign: int
    magnitude: float
    gene_id: int
    notes: tuple[str, ...]
    guess: int = NO_TARGET


def check_request(checkpoint: Checkpoint, target: str, sign: int, magnitude: float | None, control: str,
                  unseen: str = "vector") -> Request:
    """Checks a perturbation at the door.

    Raises:
        CDTError: A sign outside -1, 0, +1, a gene outside the vocabulary (close matches are named), or a word for
            `unseen` other than "average" and "vector".
    """
    if unseen not in ("average", "vector"):
        raise CDTError(f"unseen is 'average' or 'vector', not {unseen!r}{suggest(unseen, ('average', 'vector'))}")
    if sign not in (-1, 0, 1):
        raise CDTError(f"sign must be -1 (knockdown or knockout), 0 (control) or +1 (activation), not {sign!r}")
    if target == control or sign == 0:
        return Request(control, 0, 0.0, NO_TARGET, ())
    gene_id, model = checkpoint.vocabulary.id(target), checkpoint.config.model
    notes, guess, clip = [], NO_TARGET, model.magnitude_clip
    if magnitude is not None and magnitude * sign < 0:
        warnings.warn(f"magnitude {magnitude:+.2f} (log2 fold change of {target}) points against sign {sign:+d}: kept "
                      "as given, since a knockout's own mRNA need not fall; check that it is meant.", stacklevel=3)
    if magnitude is not None and abs(magnitude) > clip:
        notes.append(f"magnitude {magnitude:+.2f} lies outside [-{clip:g}, {clip:g}] and was clipped")
        warnings.warn(notes[-1], stacklevel=3)
    if target not in checkpoint.trained_targets and model.unknown_target:
        by_vector = unseen == "vector" and target in checkpoint.panel
        notes.append(f"{target} was never perturbed in training: predicted "
                     + (_from_coexpression(checkpoint, gene_id, sign) if by_vector else "as the average perturbation"))
        guess = gene_id if by_vector else NO_TARGET
        gene_id = gene_id if by_vector and not model.mean_effect else UNKNOWN_TARGET
    return Request(target, sign, float("nan") if magnitude is None else float(magnitude), gene_id, tuple(notes), guess)


def _from_coexpression(checkpoint: Checkpoint, gene: int, sign: int) -> str:
    """Says where a guess comes from, and if it is no guess: the ridge behind it may have found nothing to go by."""
    table = checkpoint.model.embed.effect
    if table is not None and len(table.target):
        asked = Perturbation.of([UNKNOWN_TARGET] * 2, [sign] * 2, [float("nan")] * 2, [gene, NO_TARGET])
        guess, average = table.look_up(asked.to(table.effect.device), table.gene_ids)[0]
        if (guess - average).norm() <= 0.01 * average.norm():
            return "from its co-expression, which says no more than the average perturbation"
    return "from its co-expression"


def align_panel(checkpoint: Checkpoint, cells: ad.AnnData, align: bool) -> ad.AnnData:
    """Returns the cells on the model's panel.

    Raises:
        CDTError: Genes differ and `align` is off, or nothing is shared, or v1's fixed panel is incomplete.
    """
    genes, panel = list(cells.var_names), checkpoint.panel
    if genes == panel:
        return cells
    missing, extra = [g for g in panel if g not in set(genes)], [g for g in genes if g not in set(panel)]
    shared = [g for g in panel if g in set(genes)]
    what = (f"the panel does not match the checkpoint's {len(panel)} genes: {len(missing)} missing {missing[:5]}, "
            f"{len(extra)} not in it {extra[:5]}" + ("" if missing or extra else "; the order differs"))
    if not align:
        raise CDTError(f"{what}. Pass align=True to predict the {len(shared)} shared genes, in the model's order.")
    if not shared or (missing and checkpoint.config.model.identity == "position"):
        raise CDTError(f"{what}. Nothing to align: this model needs "
                       + ("its whole panel (positions are fixed in v1)." if shared else "genes that it knows."))
    return cells[:, shared]


def predict(checkpoint: Checkpoint, screen: ad.AnnData, target: str, sign: int = -1, magnitude: float | None = None, *,
            n_cells: int = 256, seed: int = 0, guidance: float = 1.0, steps: int | None = None,
            unseen: str = "vector", align: bool = False,
            target_key: str = "target_gene", batch_key: str = "batch", control: str = "non-targeting",
            device: torch.device | str = "cpu", cells_per_pass: int = 64) -> ad.AnnData:
    """Generates cells after a perturbation, given control cells.

    Args:
        checkpoint: A trained model.
        screen: Raw counts; only its control cells are read. No ground truth is needed or used.
        target: Gene symbol, or the control label to generate controls.
        sign: -1 knockdown or knockout, +1 activation.
        magnitude: log2 fold change of the target's own expression, if known; it is an outcome of an experiment.
        n_cells: Cells to generate, spread over replicates as the controls are.
        seed: The same seed gives the same cells.
        guidance: 1 is plain; above 1 exaggerates what the perturbation changes.
        steps: Sampling steps; by default the checkpoint's.
        unseen: For a target that training never perturbed: "vector", what its co-expression with other genes suggests
            (only for genes on the panel; of others nothing is known), or "average", the average perturbation.
        align: Predict only the shared genes when the panel differs.
        target_key: Column of targets.
        batch_key: Column of replicates.
        control: Label of control cells.
        device: Where to run.
        cells_per_pass: Cells that share one control set and one forward pass.

    Returns:
        AnnData of integer counts with obs target_gene, sign, batch, n_umi, and provenance in uns["cdt_lite"].
        Depths are drawn from the controls of the same replicate.

    Raises:
        CDTError: See `check_request` and `align_panel`; no control cells; guidance or steps out of range.
    """
    check_guidance(guidance)
    request = check_request(checkpoint, target, sign, magnitude, control, unseen)
    controls = _controls(checkpoint, screen, align, target_key, control)
    config = with_steps(checkpoint.config.diffusion, steps, controls.n_vars)
    plan = _Plan(checkpoint, controls, request, batch_key, seed, device)
    blocks, batches = [], []
    for replicate, n in plan.share_out(n_cells):
        for begin in range(0, n, cells_per_pass):
            size = min(cells_per_pass, n - begin)
            batch = plan.batch(replicate, size)
            tokens = sample(_guided(checkpoint, batch, guidance), config, (1, size, controls.n_vars),
                            checkpoint.tokenizer.mask_id, plan.generator, device)[0].cpu().numpy()
            depth = np.exp(batch.log_depth[0].cpu().numpy()) * checkpoint.tokenizer.target_depth
            blocks.append(checkpoint.tokenizer.to_counts(_settle(tokens, checkpoint.tokenizer.mask_id), depth))
            batches += [replicate] * size
    counts = np.concatenate(blocks)
    names = [f"{request.target}_{request.sign:+d}_{i}" for i in range(len(counts))]
    obs = pd.DataFrame({target_key: request.target, "sign": np.int8(request.sign), batch_key: batches,
                        "n_umi": counts.sum(1)}, index=names)
    provenance = {"version": __version__, "preset": checkpoint.config.name, "seed": seed,
                  "guidance": guidance, "steps": config.sampling_steps, "sampler": config.sampler, "unseen": unseen,
                  "target": request.target, "sign": request.sign, "magnitude": request.magnitude,
                  "notes": [*request.notes, *plan.notes], "space": "counts", "target_depth": plan.target_depth,
                  "trained_on": [str(d) for d in checkpoint.card.get("data", [])]}
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=controls.var[[]].copy(), uns={"cdt_lite": provenance})


def as_log1p(cells: ad.AnnData, target_depth: float | None = None) -> ad.AnnData:
    """Returns predicted cells as log1p of counts scaled to one depth, said in uns where `evaluate` and scanpy look.

    Args:
        cells: From `predict`: integer counts.
        target_depth: Counts a cell is scaled to; by default what the model was trained at.

    Raises:
        CDTError: The cells are no counts (any more).
    """
    facts = dict(cells.uns.get("cdt_lite", {}))
    depth = float(target_depth or facts.get("target_depth", 0))
    if facts.get("space") == "log1p" or depth <= 0:
        raise CDTError("expected counts from predict() and a target_depth above 0, got "
                       + ("log1p expression" if depth > 0 else f"a depth of {depth:g}; pass target_depth"))
    out = cells.copy()
    out.X = sparse.csr_matrix(log1p_counts(cells.X, depth), dtype=np.float32)
    out.uns = {**cells.uns, "cdt_lite": facts | {"space": "log1p", "target_depth": depth}, "log1p": {}}
    return out


@torch.no_grad()
def predict_mean(checkpoint: Checkpoint, screen: ad.AnnData, target: str, sign: int = -1,
                 magnitude: float | None = None, *, n_cells: int = 256, seed: int = 0, unseen: str = "vector",
                 align: bool = False,
                 target_key: str = "target_gene", batch_key: str = "batch", control: str = "non-targeting",
                 device: torch.device | str = "cpu", cells_per_pass: int = 64) -> np.ndarray:
    """Returns the predicted mean log1p expression of every gene, (G,), in one pass a set, without sampling noise.

    log1p is the natural log of 1 + counts scaled to the checkpoint's target depth. Arguments as in `predict`.
    """
    request = check_request(checkpoint, target, sign, magnitude, control, unseen)
    controls = _controls(checkpoint, screen, align, target_key, control)
    plan = _Plan(checkpoint, controls, request, batch_key, seed, device)
    total, tokenizer = np.zeros(controls.n_vars), checkpoint.tokenizer
    centres = torch.as_tensor(tokenizer.centres, dtype=torch.float32)
    for replicate, n in plan.share_out(n_cells):
        for begin in range(0, n, cells_per_pass):
            size = min(cells_per_pass, n - begin)
            batch = plan.batch(replicate, size)
            scale = torch.ones(size) if tokenizer.config.space == "normalised" else torch.exp(-batch.log_depth[0].cpu())
            denoise, shape = denoiser(checkpoint.model, batch), (1, size, controls.n_vars)
            values = torch.log1p(centres * scale[:, None])  # what a bin is worth depends on the cell's depth
            total += one_step_mean(denoise, shape, values, tokenizer.mask_id, device)[0].sum(0).cpu().numpy()
    return total / n_cells


def _controls(checkpoint: Checkpoint, screen: ad.AnnData, align: bool, target_key: str, control: str) -> ad.AnnData:
    if target_key not in screen.obs:
        raise CDTError(f"obs has no column {target_key!r}{suggest(target_key, screen.obs.columns)}")
    is_control = (screen.obs[target_key].astype(str) == control).to_numpy()
    if not is_control.any():
        labels = sorted(set(screen.obs[target_key].astype(str)))[:8]
        raise CDTError(f"no control cells: nothing in obs[{target_key!r}] is {control!r}. Labels there: {labels}.")
    return align_panel(checkpoint, screen[is_control], align)


def _settle(tokens: np.ndarray, mask_id: int) -> np.ndarray:
    """v1 may leave [MASK] behind; such a gene has no value and is written as bin 0."""
    return np.where(tokens == mask_id, 0, tokens)


def _guided(checkpoint: Checkpoint, batch: Batch, guidance: float) -> Denoiser:
    conditional = denoiser(checkpoint.model, batch)
    if guidance == 1:
        return conditional
    device = batch.tokens.device
    plain = denoiser(checkpoint.model, replace(batch, perturbation=Perturbation.none(1, device)))
    n = checkpoint.config.model.n_bins
    return lambda xt, t: guide(conditional(xt, t)[..., :n], plain(xt, t)[..., :n], guidance)


def _share_kept(checkpoint: Checkpoint, genes: list[str]) -> float:
    """Of a training control's counts the share on these genes of the panel; 0 where the model has no table of them."""
    table = checkpoint.model.embed.effect
    if len(genes) == len(checkpoint.panel):
        return 1.0
    if table is None or not len(table.gene_ids):
        return 0.0
    mean = table.shares.cpu().numpy() @ checkpoint.tokenizer.centres
    return float(mean[np.isin(table.gene_ids.cpu().numpy(), checkpoint.vocabulary.ids(genes))].sum() / mean.sum())


class _Plan:
    """Replicates, controls and depths of the cells to generate, all from one seed."""

    def __init__(self, checkpoint: Checkpoint, controls: ad.AnnData, request: Request, batch_key: str, seed: int,
                 device: torch.device | str) -> None:
        counts, kept = dense(controls.X), _share_kept(checkpoint, list(controls.var_names))
        self.depth = counts.sum(1) / (kept or 1.0)
        missing = len(checkpoint.panel) - controls.n_vars
        self.notes = [f"{missing} of the panel's {len(checkpoint.panel)} genes are missing: " + (
            f"the others hold {kept:.0%} of a training control's counts, and depths are scaled up by that" if kept else
            "this model does not know how many counts they hold, and takes the cells for less deep than they are"),
            ] if missing else []
        self.tokens = checkpoint.tokenizer.tokenize(counts)
        self.replicate = (controls.obs[batch_key].astype(str).to_numpy() if batch_key in controls.obs
                          else np.full(controls.n_obs, "all"))
        self.rng, self.generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        self.gene_ids = torch.from_numpy(checkpoint.vocabulary.ids(list(controls.var_names)))
        self.n_controls = checkpoint.config.finetune.controls_per_set
        self.target_depth, self.request, self.device = checkpoint.tokenizer.target_depth, request, device
        checkpoint.model.to(device).eval()

    def share_out(self, n_cells: int) -> list[tuple[str, int]]:
        """Splits n_cells over the replicates as the controls are split (largest remainders)."""
        if n_cells < 1:
            raise CDTError(f"n_cells must be at least 1, not {n_cells}")
        names, n = np.unique(self.replicate, return_counts=True)
        exact = n_cells * n / n.sum()
        whole = np.floor(exact).astype(int)
        whole[np.argsort(whole - exact)[: n_cells - whole.sum()]] += 1
        return [(str(name), int(k)) for name, k in zip(names, whole, strict=True) if k]

    def batch(self, replicate: str, size: int) -> Batch:
        """Returns one set of `size` cells to make, with controls and depths of the same replicate."""
        pool = np.flatnonzero(self.replicate == replicate)
        controls = self.rng.choice(pool, self.n_controls, replace=len(pool) < self.n_controls)
        depth = self.depth[self.rng.choice(pool, size)]
        log_depth = torch.from_numpy(np.log(np.maximum(depth, 1.0) / self.target_depth).astype(np.float32))
        asked = self.request
        request = Perturbation.of([asked.gene_id], [asked.sign], [asked.magnitude], [asked.guess])
        return Batch(torch.empty(1, size, self.tokens.shape[1], dtype=torch.long),
                     torch.from_numpy(self.tokens[controls]).long()[None], request, log_depth[None], self.gene_ids
                     ).to(self.device)
