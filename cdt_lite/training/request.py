"""A perturbation at the door: what the model will be told of it, and what the user should know."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cdt_lite.data.labels import tidy_targets
from cdt_lite.errors import CDTError, CDTWarning, suggest
from cdt_lite.model.mean_effect import GUESSED, MeanEffect
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Request:
    """A checked perturbation."""

    target: str  # gene symbol, or the control label
    sign: int  # -1, 0 or +1
    magnitude: float  # log2 fold change of the target's own expression, NaN where unknown
    gene_id: int  # row of the target in the gene table, NO_TARGET or UNKNOWN_TARGET
    guess: int = NO_TARGET  # gene whose guessed mean effect stands in for an unknown one
    notes: tuple[str, ...] = ()  # what the user should know

    def perturbation(self) -> Perturbation:
        """Returns what the model is told, for one set."""
        return Perturbation.of([self.gene_id], [self.sign], [self.magnitude], [self.guess])


def check_request(checkpoint: Checkpoint, target: str, sign: int, magnitude: float | None, control: str,
                  unseen: str = "vector") -> Request:
    """Checks a perturbation at the door.

    Raises:
        CDTError: A sign outside -1, 0, +1, a gene outside the vocabulary (close matches are named), a combination
            that training did not have, or a word for `unseen` other than "average" and "vector".
    """
    if unseen not in ("average", "vector"):
        raise CDTError(f"unseen is 'average' or 'vector', not {unseen!r}{suggest(unseen, ('average', 'vector'))}")
    if sign not in (-1, 0, 1):
        raise CDTError(f"sign must be -1 (knockdown or knockout), 0 (control) or +1 (activation), not {sign!r}")
    genes = pd.Index(checkpoint.vocabulary.symbols)
    target, sign = str(tidy_targets(np.array([target], str), control, genes, "the request")[0]), int(sign)
    if target == control or sign == 0:
        return Request(control, 0, 0.0, NO_TARGET)
    if "+" in target and target not in checkpoint.vocabulary:
        raise CDTError(f"{target} was not in training: a combination is learned as one name, not from its genes. "
                       f"Predict {' and '.join(target.split('+'))} one by one, or train on cells of the combination")
    gene_id, guess = checkpoint.vocabulary.id(target), NO_TARGET
    if magnitude is not None and math.isnan(magnitude):
        magnitude = None  # as files write what is unknown
    notes = _magnitude_notes(target, sign, magnitude, checkpoint)
    table = checkpoint.model.effect
    if table is not None and len(table.target):
        seen = target in checkpoint.trained_targets
        notes += _sign_notes(target, sign, gene_id if seen else NO_TARGET, table)
    if target not in checkpoint.trained_targets and table is not None:
        origin = "as the average perturbation"
        if unseen == "vector" and target in checkpoint.panel:
            origin, guess = _from_coexpression(table, gene_id, sign), gene_id
        notes.append(f"{target} was never perturbed in training: predicted {origin}")
        gene_id = UNKNOWN_TARGET
    size = float("nan") if magnitude is None else float(magnitude)
    return Request(target, sign, size, gene_id, guess, tuple(notes))


def _sign_notes(target: str, sign: int, gene: int, table: MeanEffect) -> list[str]:
    """Says where training had no perturbation of this sign, or none of this target."""
    measured = table.replicate != GUESSED
    if sign not in table.sign[measured]:
        return [f"training had no perturbation of sign {sign:+d}: nothing is known of what it does"]
    own = table.sign[measured & (table.target == gene)]  # none of a gene that was not perturbed
    if len(own) and sign not in own:
        return [f"{target} was perturbed in training with sign {-sign:+d} only"]
    return []


def _magnitude_notes(target: str, sign: int, magnitude: float | None, checkpoint: Checkpoint) -> list[str]:
    if magnitude is None:
        return []
    clip = checkpoint.config.model.magnitude_clip
    if magnitude * sign < 0:
        against = f"magnitude {magnitude:+.2f} (log2 fold change of {target}) points against sign {sign:+d}"
        kept = "kept as given, since a knockout's own mRNA need not fall; check that it is meant."
        warnings.warn(f"{against}: {kept}", CDTWarning, stacklevel=4)
    if abs(magnitude) > clip:
        note = f"magnitude {magnitude:+.2f} lies outside [-{clip:g}, {clip:g}] and was clipped"
        warnings.warn(note, CDTWarning, stacklevel=4)
        return [note]
    trained = checkpoint.card.get("magnitudes")  # older models do not know
    if trained is None:
        return []
    if str(sign) not in trained:
        return [f"training knew no magnitude of sign {sign:+d}: what this one means was never learned"]
    low, high = trained[str(sign)]
    if low <= magnitude <= high:
        return []
    return [f"magnitude {magnitude:+.2f} lies outside those of training, {low:+.2f} to {high:+.2f}"]


def _from_coexpression(table: MeanEffect, gene: int, sign: int) -> str:
    """Says where a guess comes from, and if it is no guess: the ridge behind it may have found nothing to go by."""
    if len(table.target):
        asked = Perturbation.of([UNKNOWN_TARGET] * 2, [sign] * 2, [float("nan")] * 2, [gene, NO_TARGET])
        guess, average = table.look_up(asked.to(table.effect.device), table.gene_ids).effect
        if (guess - average).norm() <= 0.01 * average.norm():
            return "from its co-expression, which says no more than the average perturbation"
    return "from its co-expression"
