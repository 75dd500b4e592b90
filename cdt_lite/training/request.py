"""A perturbation at the door: what the model will be told of it, and what the user should know."""

import warnings
from dataclasses import dataclass

from cdt_lite.errors import CDTError, CDTWarning, suggest
from cdt_lite.model.mean_effect import MeanEffect
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
        CDTError: A sign outside -1, 0, +1, a gene outside the vocabulary (close matches are named), or a word for
            `unseen` other than "average" and "vector".
    """
    if unseen not in ("average", "vector"):
        raise CDTError(f"unseen is 'average' or 'vector', not {unseen!r}{suggest(unseen, ('average', 'vector'))}")
    if sign not in (-1, 0, 1):
        raise CDTError(f"sign must be -1 (knockdown or knockout), 0 (control) or +1 (activation), not {sign!r}")
    if target == control or sign == 0:
        return Request(control, 0, 0.0, NO_TARGET)
    gene_id, guess = checkpoint.vocabulary.id(target), NO_TARGET
    notes = _magnitude_notes(target, sign, magnitude, checkpoint.config.model.magnitude_clip)
    table = checkpoint.model.effect
    if target not in checkpoint.trained_targets and table is not None:
        origin = "as the average perturbation"
        if unseen == "vector" and target in checkpoint.panel:
            origin, guess = _from_coexpression(table, gene_id, sign), gene_id
        notes.append(f"{target} was never perturbed in training: predicted {origin}")
        gene_id = UNKNOWN_TARGET
    size = float("nan") if magnitude is None else float(magnitude)
    return Request(target, sign, size, gene_id, guess, tuple(notes))


def _magnitude_notes(target: str, sign: int, magnitude: float | None, clip: float) -> list[str]:
    if magnitude is None:
        return []
    if magnitude * sign < 0:
        against = f"magnitude {magnitude:+.2f} (log2 fold change of {target}) points against sign {sign:+d}"
        kept = "kept as given, since a knockout's own mRNA need not fall; check that it is meant."
        warnings.warn(f"{against}: {kept}", CDTWarning, stacklevel=4)
    if abs(magnitude) <= clip:
        return []
    note = f"magnitude {magnitude:+.2f} lies outside [-{clip:g}, {clip:g}] and was clipped"
    warnings.warn(note, CDTWarning, stacklevel=4)
    return [note]


def _from_coexpression(table: MeanEffect, gene: int, sign: int) -> str:
    """Says where a guess comes from, and if it is no guess: the ridge behind it may have found nothing to go by."""
    if len(table.target):
        asked = Perturbation.of([UNKNOWN_TARGET] * 2, [sign] * 2, [float("nan")] * 2, [gene, NO_TARGET])
        guess, average = table.look_up(asked.to(table.effect.device), table.gene_ids).effect
        if (guess - average).norm() <= 0.01 * average.norm():
            return "from its co-expression, which says no more than the average perturbation"
    return "from its co-expression"
