"""AnnData in, AnnData out: control cells and a perturbation go in, generated perturbed cells come out as counts."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from cdt_lite import __version__
from cdt_lite.data.batches import Batch
from cdt_lite.data.blocks import BLOCK
from cdt_lite.data.counts import check_depths
from cdt_lite.data.expression import check_target_depth, dense, depths, log1p_counts
from cdt_lite.data.layout import Columns, read_controls
from cdt_lite.errors import CDTError, require_whole
from cdt_lite.model import CDT, V1
from cdt_lite.model.config import MOST
from cdt_lite.model.diffusion import guide
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.model.read import Conditioned, Read
from cdt_lite.model.response import States, drawn_states
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.request import Request, align_panel, check_request, context_notes, panel_notes
from cdt_lite.training.runs import require_device
from cdt_lite.training.trust import denoiser, one_step_mean, trusting

Wanted = tuple[str, int, float | None]  # target, sign, magnitude (None: not known)


@dataclass(frozen=True)
class Generation:
    """How cells are generated."""

    guidance: float = 1.0  # 1 is plain, above exaggerates what the perturbation changes; 0 to 20
    steps: int | None = None  # of sampling; None: the checkpoint's
    align: bool = False  # predict only the shared genes when the panel differs
    columns: Columns = Columns()  # where the screen keeps its labels
    device: torch.device | str = "cpu"
    cells_per_pass: int = 64  # that share one control set and one forward pass

    def __post_init__(self) -> None:
        if not 0 <= self.guidance <= 20:
            raise CDTError(f"guidance must lie in [0, 20] (1 is plain, above 1 exaggerates), not {self.guidance}")
        require_whole("cells_per_pass", self.cells_per_pass, 1, MOST)
        require_device(str(self.device))


def predict(checkpoint: Checkpoint, screen: ad.AnnData, target: str, sign: int = -1,
            magnitude: float | None = None, *, n_cells: int = 256, seed: int = 0,
            options: Generation = Generation()) -> ad.AnnData:
    """Generates cells after a perturbation, given control cells.

    A target that training never perturbed is predicted from what genes like it did when they were perturbed, by gene
    sets, co-expression or a user's vectors; one that is like none, as the average perturbation.

    Args:
        checkpoint: A trained model.
        screen: Raw counts; only its control cells are read. No ground truth is needed or used.
        target: Gene symbol, or the control label to generate controls.
        sign: -1 knockdown or knockout, +1 activation.
        magnitude: log2 fold change of the target's own expression, if known; it is an outcome of an experiment.
        n_cells: Cells to generate, spread over replicates as the controls are.
        seed: The same seed gives the same cells.
        options: How they are generated.

    Returns:
        AnnData of integer counts with the columns of `options`, n_umi, provenance in uns["cdt_lite"], and
        beyond_average: by how much of its effect's variance this prediction is expected to be better than the average
        perturbation. Depths are drawn from the controls of the same replicate.

    Raises:
        CDTError: See `check_request` and `align_panel`; no control cells; steps out of range.
    """
    wanted = [(target, sign, magnitude)]
    return next(predict_each(checkpoint, screen, wanted, n_cells=n_cells, seed=seed, options=options))


def predict_each(checkpoint: Checkpoint, screen: ad.AnnData, wanted: Iterable[Wanted], *, n_cells: int = 256,
                 seed: int = 0, options: Generation = Generation()) -> Iterator[ad.AnnData]:
    """Yields what `predict` returns for each of several perturbations; control cells are read once for all of them."""
    plan = None
    for target, sign, magnitude in wanted:
        request = check_request(checkpoint, target, sign, magnitude, options.columns.control)
        plan = plan.about(request) if plan else _Plan(checkpoint, screen, request, seed, options)
        yield _generated(plan, n_cells)


def _generated(plan: "_Plan", n_cells: int) -> ad.AnnData:
    checkpoint, request, options = plan.checkpoint, plan.request, plan.options
    tokenizer, generator = checkpoint.tokenizer, torch.Generator().manual_seed(plan.seed)
    blocks, batches = [], []
    for replicate, batch in plan.batches(n_cells):
        denoise = plan.possible(_guided(plan, batch, replicate, drawn_states(generator)))
        shape = (1, batch.log_depth.shape[1], plan.n_genes)
        tokens = checkpoint.process.sample(denoise, shape, generator, options.device, options.steps)[0].cpu().numpy()
        tokens[tokens == tokenizer.mask_id] = 0  # v1 may leave [MASK] behind: a gene without a value is written as 0
        depth = np.exp(batch.log_depth[0].cpu().numpy()) * tokenizer.target_depth
        blocks.append(tokenizer.to_counts(tokens, depth))
        batches += [replicate] * len(tokens)
    counts = np.concatenate(blocks)
    obs = _labels(request, batches, counts, options.columns)
    notes = [*request.notes, *context_notes(checkpoint, request, plan.replicate), *plan.notes]
    facts = {"sign": request.sign, "magnitude": request.magnitude, "notes": notes}
    provenance = _provenance(checkpoint, options, plan.n_genes) | facts | {"seed": plan.seed, "target": request.target}
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=plan.var, uns={"cdt_lite": provenance})


@torch.no_grad()
def predict_mean(checkpoint: Checkpoint, screen: ad.AnnData, target: str, sign: int = -1,
                 magnitude: float | None = None, *, n_cells: int = 256, seed: int = 0,
                 options: Generation = Generation()) -> Float[np.ndarray, " G"]:
    """Returns the predicted mean log1p expression of every gene, (G,), in one pass a set, without sampling noise.

    It is the expectation from the fully masked state. log1p is the natural log of 1 + counts scaled to the checkpoint's
    target depth. Arguments as in `predict`.
    """
    request = check_request(checkpoint, target, sign, magnitude, options.columns.control)
    plan = _Plan(checkpoint, screen, request, seed, options)
    total = np.zeros(plan.n_genes)
    for replicate, batch in plan.batches(n_cells):
        denoise = plan.possible(trusting(checkpoint, batch, replicate))
        total += one_step_mean(denoise, batch, checkpoint.tokenizer)[0].sum(0).cpu().numpy()
    return total / n_cells


def as_log1p(cells: ad.AnnData, target_depth: float | None = None) -> ad.AnnData:
    """Returns predicted cells as log1p of counts scaled to one depth, said in uns where `evaluate` and scanpy look.

    Args:
        cells: From `predict`: integer counts.
        target_depth: Counts a cell is scaled to; by default what the model was trained at.

    Raises:
        CDTError: The cells are no counts (any more).
    """
    facts = dict(cells.uns.get("cdt_lite", {}))
    if target_depth is None and "target_depth" not in facts:
        raise CDTError("these cells do not say the depth that log1p is scaled to: pass target_depth, counts a cell")
    depth = check_target_depth(facts["target_depth"] if target_depth is None else target_depth)
    if facts.get("space") == "log1p":
        raise CDTError("expected counts from predict(), got log1p expression")
    out = cells.copy()
    out.X = sparse.csr_matrix(log1p_counts(cells.X, depth), dtype=np.float32)
    out.uns = {**cells.uns, "cdt_lite": facts | {"space": "log1p", "target_depth": depth}, "log1p": {}}
    return out


def _labels(request: Request, batches: list[str], counts: np.ndarray, columns: Columns) -> pd.DataFrame:
    names = [f"{request.target}_{request.sign:+d}_{i}" for i in range(len(counts))]
    obs = pd.DataFrame({columns.target: request.target}, index=names)
    obs[columns.sign or "sign"] = np.int8(request.sign)
    obs[columns.batch or "batch"] = batches
    return obs.assign(n_umi=counts.sum(1), beyond_average=np.float32(request.beyond_average))


def _provenance(checkpoint: Checkpoint, options: Generation, n_genes: int) -> dict:
    return {
        "version": __version__,
        "preset": checkpoint.config.name,
        "system": checkpoint.config.system,
        "guidance": options.guidance,
        "steps": checkpoint.process.n_steps(n_genes, options.steps),
        "space": "counts",
        "target_depth": checkpoint.tokenizer.target_depth,
        "trained_on": [str(digest) for digest in checkpoint.card.get("data", [])],
    }


def _guided(plan: "_Plan", batch: Batch, replicate: str, states: States | None = None) -> Conditioned:
    checkpoint, guidance = plan.checkpoint, plan.options.guidance
    conditional = trusting(checkpoint, batch, replicate, states)
    if guidance == 1:
        return conditional
    plain = denoiser(checkpoint.model, replace(batch, perturbation=Perturbation.none(1, batch.tokens.device)))
    n = checkpoint.config.model.n_bins


    def logits(*state: Tensor, read: Read | None) -> Tensor:
        told, untold = conditional.logits(*state, read=read), plain.logits(*state, read=read)
        return guide(told[..., :n], untold[..., :n], guidance)

    return Conditioned(logits)


def possible(denoise: Conditioned, model: CDT | V1, gene_ids: Int[Tensor, " G"],
             shown: Int[Tensor, " G"] | None = None) -> Conditioned:
    """Returns a denoiser that gives no gene a value above all that it showed in training.

    Args:
        denoise: The model with its condition filled in.
        model: Knows the highest bin of every gene, once it was fine-tuned.
        gene_ids: Of the genes.
        shown: Bins that are possible, too: the highest that cells at hand show.
    """
    if model.effect is None:  # the original's network
        return denoise
    n_bins = model.config.n_bins
    highest = model.effect.limits(gene_ids.to(model.effect.highest.device))
    if shown is not None:
        highest = highest.maximum(shown.to(highest.device))
    impossible = torch.arange(n_bins, device=highest.device) > highest[:, None]
    if not impossible.any():
        return denoise
    return denoise.then(lambda logits, genes: logits[..., :n_bins].masked_fill(impossible[genes], float("-inf")))


class _Plan:
    """Replicates, controls and depths of the cells to generate, all from one seed."""

    def __init__(self, checkpoint: Checkpoint, screen: ad.AnnData, request: Request, seed: int,
                 options: Generation) -> None:
        self.seed = require_whole("seed", seed)
        controls, self.replicate = read_controls(screen, options.columns)
        check_depths(controls)
        controls = align_panel(checkpoint, controls, options.align)
        values = controls.X
        kept = _share_kept(checkpoint, controls.var_names)
        self.notes = panel_notes(len(checkpoint.panel), controls.n_vars, kept)
        self.depth = depths(values).astype(np.float32) / (kept or 1.0)
        self.tokens = np.empty(values.shape, np.uint8)
        for begin in range(0, len(self.tokens), BLOCK):  # all of them would be dense at once
            self.tokens[begin : begin + BLOCK] = checkpoint.tokenizer.tokenize(dense(values[begin : begin + BLOCK]))
        self.var, self.n_genes = controls.var[[]].copy(), controls.n_vars
        self.gene_ids = checkpoint.vocabulary.ids(list(controls.var_names))
        self.shown = torch.as_tensor(self.tokens.max(0)).long()  # the highest bin of every gene
        self.checkpoint, self.request, self.options = checkpoint, request, options
        self.rng = np.random.default_rng(self.seed)
        checkpoint.model.to(options.device).eval()

    def about(self, request: Request) -> "_Plan":
        """Returns the plan for another perturbation: the same controls, and the seed's draws anew."""
        plan = copy.copy(self)
        plan.request, plan.rng = request, np.random.default_rng(self.seed)
        return plan

    def possible(self, denoise: Conditioned) -> Conditioned:
        """Returns a denoiser that gives no gene a value above all that training and these controls have shown."""
        return possible(denoise, self.checkpoint.model, torch.as_tensor(self.gene_ids), self.shown)

    def batches(self, n_cells: int) -> Iterator[tuple[str, Batch]]:
        """Yields sets of cells to make, replicate by replicate."""
        for replicate, n in self.share_out(n_cells):
            for begin in range(0, n, self.options.cells_per_pass):
                size = min(self.options.cells_per_pass, n - begin)
                yield replicate, self.batch(replicate, size)

    def share_out(self, n_cells: int) -> list[tuple[str, int]]:
        """Splits n_cells over the replicates as the controls are split (largest remainders)."""
        require_whole("n_cells", n_cells, 1, MOST)
        names, n = np.unique(self.replicate, return_counts=True)
        exact = n_cells * n / n.sum()
        whole = np.floor(exact).astype(int)
        whole[np.argsort(whole - exact)[: n_cells - whole.sum()]] += 1
        return [(str(name), int(k)) for name, k in zip(names, whole, strict=True) if k]

    def batch(self, replicate: str, size: int) -> Batch:
        """Returns one set of `size` cells to make, with controls and depths of the same replicate."""
        pool = np.flatnonzero(self.replicate == replicate)
        n_controls = self.checkpoint.config.finetune.controls_per_set
        controls = self.rng.choice(pool, n_controls, replace=len(pool) < n_controls)
        depth = self.depth[self.rng.choice(pool, size)]
        log_depth = np.log(np.maximum(depth, 1.0) / self.checkpoint.tokenizer.target_depth)
        nothing = np.zeros((1, size, self.n_genes), np.uint8)
        batch = Batch.of(
            nothing, self.tokens[controls][None], self.request.perturbation(), log_depth[None], self.gene_ids
        )
        return batch.to(self.options.device)


def _share_kept(checkpoint: Checkpoint, genes: pd.Index) -> float:
    """Of a training control's counts the share on these genes of the panel; 0 where the model has no table of them."""
    table = checkpoint.model.effect
    if len(genes) == len(checkpoint.panel):
        return 1.0
    if table is None or not len(table.gene_ids):
        return 0.0
    mean = table.shares.cpu().numpy() @ checkpoint.tokenizer.centres
    kept = np.isin(table.gene_ids.cpu().numpy(), checkpoint.vocabulary.ids(list(genes)))
    return float(mean[kept].sum() / mean.sum())
