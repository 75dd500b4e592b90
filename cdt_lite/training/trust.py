"""How far what is known of mean effects is trusted beside the network, judged by cells that fine-tuning set aside."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cdt_lite.data.batches import Batch, SetSampler
from cdt_lite.data.store import set_aside
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.evaluation.metrics import discrimination_score
from cdt_lite.model import CDT, V1
from cdt_lite.model.diffusion import Denoiser
from cdt_lite.model.mean_effect import tilts
from cdt_lite.model.perturbation import UNKNOWN_TARGET, Perturbation
from cdt_lite.model.read import Conditioned
from cdt_lite.model.response import States
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import measured_effects

ASKED = ("seen", "unseen")  # by name; and as a target that training never perturbed
CHOICES = np.linspace(0, 1, 21)  # shares of the table
ROUNDS = 3  # of a tilt: the third reaches what was asked for to half a percent


class Changes(NamedTuple):
    """Mean changes of log1p expression of n groups of cells, in units of the spread of control cells."""

    real: Float[np.ndarray, "n G"]
    network: Float[np.ndarray, "n G"]
    table: Float[np.ndarray, "n G"]
    weight: Float[np.ndarray, " n"]  # 1 / variance of the noise of `real`

    def mixture(self, share: float) -> Float[np.ndarray, "n G"]:
        """Returns the changes that are predicted with a share of the table."""
        return self.network + share * (self.table - self.network)

    def error(self, predicted: Float[np.ndarray, "n G"]) -> float:
        """Returns the mean squared error, each group weighted by its precision."""
        return float(np.average(((self.real - predicted) ** 2).mean(1), weights=self.weight))

    def discrimination(self, predicted: Float[np.ndarray, "n G"]) -> float:
        """Returns the mean discrimination score: whether each group is told apart from the others."""
        return float(np.mean([discrimination_score(one, self.real, i) for i, one in enumerate(predicted)]))


def denoiser(model: CDT | V1, batch: Batch, states: States | None = None) -> Conditioned:
    """Returns the model with a batch's condition filled in: xt -> logits.

    To make cells, `states` chooses in every call which of them answer to their perturbation (`drawn_states`).
    """
    return model.given(batch.perturbation, batch.controls, batch.gene_ids, batch.log_depth, states)


def one_step_mean(denoise: Denoiser, batch: Batch, tokenizer: Tokenizer) -> Float[Tensor, "B S G"]:
    """Returns the expected log1p expression of every gene of every cell, from the fully masked state."""
    return expected(denoise(torch.full_like(batch.tokens, tokenizer.mask_id)), batch, tokenizer)


def expected(logits: Float[Tensor, "B S G classes"], batch: Batch, tokenizer: Tokenizer) -> Float[Tensor, "B S G"]:
    """Returns the log1p expression that logits expect, at the depth of each cell."""
    logits = logits[..., : tokenizer.mask_id]
    centres = torch.as_tensor(tokenizer.centres, dtype=torch.float32, device=logits.device)
    scale = torch.ones_like(batch.log_depth)
    if tokenizer.config.space == "counts":
        scale = torch.exp(-batch.log_depth)
    values = torch.log1p(centres * scale[..., None])  # what a bin is worth depends on the depth
    return (logits.float().softmax(-1) * values[..., None, :]).sum(-1)


def change(model: CDT | V1, batch: Batch, tokenizer: Tokenizer) -> Float[Tensor, "B S G"]:
    """Returns how the network changes the expected log1p expression of control cells of the same depths."""
    nothing = Perturbation.none(len(batch.tokens), batch.tokens.device)
    plain = replace(batch, perturbation=nothing)
    changed = one_step_mean(denoiser(model, batch), batch, tokenizer)
    return changed - one_step_mean(denoiser(model, plain), plain, tokenizer)


def is_new_context(checkpoint: Checkpoint, context: str) -> bool:
    """Says whether training saw no perturbed cell of a replicate or cell type, and learned in others whom to trust."""
    judged, known = checkpoint.card.get("validation", {}), checkpoint.card.get("contexts", ())  # older models: neither
    return bool(judged and known) and context not in known


@torch.no_grad()
def trusting(checkpoint: Checkpoint, batch: Batch, context: str, states: States | None = None) -> Conditioned:
    """Returns the denoiser of one set, tilted so that its mean change is the mixture that held-out cells asked for.

    Where the network's own mean change is n and the table's is t, the mean change becomes n + share (t - n). The cells
    that the share was learned from are of contexts that the network knows perturbed: in a new one nothing has shown
    that it adds to what it is told, and the table is trusted whole.

    Args:
        checkpoint: A trained model.
        batch: One set.
        context: Name of the replicate or cell type that its controls come from.
        states: As for `denoiser`.
    """
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    denoise = denoiser(model, batch, states)
    if model.effect is None or int(model.effect.rows(batch.perturbation)[0]) < 0:
        return denoise
    share = model.effect.trusted[int(batch.perturbation.target[0] < 0)]
    if is_new_context(checkpoint, context):
        share = torch.ones_like(share)
    if not share:
        return denoise
    told = model.effect.look_up(batch.perturbation, batch.gene_ids).effect
    missing = share * (told - change(model, batch, tokenizer).mean(1))
    share_answering = float(model.response.responders.sigmoid())
    every: list[States | None] = [None]
    weights = [1.0]
    if states is not None:  # each cell is in one of both, whatever the tilt
        every = [lambda odds: torch.ones_like(odds, dtype=torch.bool),
                 lambda odds: torch.zeros_like(odds, dtype=torch.bool)]
        weights = [share_answering, 1 - share_answering]
    masked = torch.full_like(batch.tokens, tokenizer.mask_id)
    laws = [denoiser(model, batch, choice)(masked)[..., : tokenizer.mask_id].float() for choice in every]
    tilt = _tilt(laws, weights, missing, model.effect.values, lambda law: expected(law, batch, tokenizer).mean(1))
    return denoise.then(lambda logits, genes: logits[..., : tokenizer.mask_id] + tilt[genes])


def _tilt(laws: Sequence[Float[Tensor, "1 S G bins"]], weights: Sequence[float], missing: Float[Tensor, "1 G"],
          values: Float[Tensor, " bins"], mean_of: Callable[[Tensor], Float[Tensor, "1 G"]]
          ) -> Float[Tensor, "G bins"]:
    """Returns what to add to logits so that their mean moves as far as is missing.

    Args:
        laws: Of the cells of one set before anything is revealed, for each state, as logits.
        weights: Shares of the states.
        missing: Change of mean log1p expression.
        values: What the bins are worth at the target depth.
        mean_of: Logits -> mean log1p expression at the depths of the cells.
    """
    average = torch.stack([law[0].softmax(-1).mean(0) for law in laws])
    start = sum(weight * mean_of(law) for law, weight in zip(laws, weights, strict=True))
    asked, tilt = missing, torch.zeros_like(laws[0][0, 0])
    for _ in range(ROUNDS):  # cells differ in law and depth: the tilt of their average falls short
        tilt = tilts(average, values, asked, weights)[0, :, None] * values
        moved = sum(weight * mean_of(law + tilt) for law, weight in zip(laws, weights, strict=True)) - start
        asked = asked + missing - moved
    return tilt


def trust(checkpoint: Checkpoint, data: SetSampler) -> tuple[Float[np.ndarray, " 2"], dict[str, Any]]:
    """Finds the share of the table that predicts the cells that were set aside best, of seen and of unseen targets.

    The model's table must not know these cells yet. Asked as unseen, a target is told what follows without any of its
    cells; the network has met others of them, so this errs in its favour. Where none could be set aside nothing can be
    shown, and the table is trusted whole; where none was to be (validation_share 0), the network stands alone.

    Args:
        checkpoint: At the end of fine-tuning.
        data: What it was tuned on.

    Returns:
        The two shares, and for the card the mean squared errors of network, table and mixture in units of the spread
        of control cells, the noise of what was measured included, and their discrimination scores.
    """
    held_out = data.validation()
    if held_out is None:
        return np.full(2, float(data.config.validation_share > 0)), {}
    shares, card = np.ones(2), {}
    for i, name in enumerate(ASKED):
        found = _changes(checkpoint, held_out, name == "unseen")
        shares[i] = best_share(found)
        card[name] = {"share": round(float(shares[i]), 3), "groups": len(found.real), **_judged(found, shares[i])}
    return shares, card


def best_share(found: Changes) -> float:
    """Returns the share of the table with the least error, of those that tell groups apart as well as it does alone.

    The network may come nearer by what all perturbations have in common, and lose what is special about each.
    """
    apart = np.array([found.discrimination(found.mixture(share)) for share in CHOICES])
    errors = np.array([found.error(found.mixture(share)) for share in CHOICES])
    return float(CHOICES[np.where(apart >= apart[-1], errors, np.inf).argmin()])


def _judged(found: Changes, share: float) -> dict[str, Any]:
    """What a card says of network, table and mixture."""
    methods = {"network": found.network, "table": found.table, "mixture": found.mixture(share)}
    apart = {method: round(found.discrimination(predicted), 4) for method, predicted in methods.items()}
    methods["no change"] = np.zeros_like(found.real)
    errors = {method: float(f"{found.error(predicted):.4g}") for method, predicted in methods.items()}
    return {**errors, "discrimination": apart}


@torch.no_grad()
def _changes(checkpoint: Checkpoint, held_out: SetSampler, as_unseen: bool) -> Changes:
    """Changes of the groups that were set aside."""
    model, store, tokenizer = checkpoint.model.eval(), held_out.stores[0], checkpoint.tokenizer
    assert isinstance(model, CDT)
    measured, sd = measured_effects(store, tokenizer, np.unique(store.target))
    keys, _ = store.groups()
    rows = np.flatnonzero(set_aside(keys, held_out.config.validation_share)[keys[:, 1] != 0])
    model.effect.training = as_unseen  # so that a set is told what follows without its target's cells; eval() ends it
    network, table = [], []
    for i in range(len(rows)):
        batch = held_out.batch_of(i).to(model.head.weight.device)
        if as_unseen:
            told = batch.perturbation
            unnamed = replace(told, target=torch.full_like(told.target, UNKNOWN_TARGET), guess=told.own)
            batch = replace(batch, perturbation=unnamed)
        network.append(change(model, batch, tokenizer).mean((0, 1)))
        table.append(model.effect.look_up(batch.perturbation, batch.gene_ids).effect[0])
    model.effect.training = False
    by_network, by_table = (torch.stack(found).cpu().numpy() / sd for found in (network, table))
    weight = 1 / (1 / measured.cells[rows] + 1 / measured.controls[rows])
    return Changes(measured.effect[rows] / sd, by_network, by_table, weight)
