"""A request at the door: what the model will be told of a perturbation, and whether cells have its genes."""

import math
import warnings
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Shaped

from cdt_lite.data.labels import tidy_targets
from cdt_lite.data.vocabulary import genes_of
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.model.mean_effect import MeanEffect
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.trust import is_new_context

LITTLE = 0.01  # share of an effect's variance that is not worth a word
NAMED = 5  # of many replicates


@dataclass(frozen=True)
class Request:
    """A checked perturbation."""

    target: str  # gene symbol, or the control label
    sign: int  # -1, 0 or +1
    magnitude: float  # log2 fold change of the target's own expression, NaN where unknown
    gene_id: int  # row of the target in the gene table, NO_TARGET or UNKNOWN_TARGET
    guess: int = NO_TARGET  # gene whose effect, known by its like, stands in for an unknown one
    notes: tuple[str, ...] = ()  # what the user should know
    beyond_average: float = 0.0  # share of its effect's variance known beyond what all perturbations share
    pair: tuple[int, int] = (NO_TARGET, NO_TARGET)  # genes, where two are perturbed together

    def perturbation(self) -> Perturbation:
        """Returns what the model is told, for one set."""
        pair = None if self.pair[0] == NO_TARGET else [self.pair]
        return Perturbation.of([self.gene_id], [self.sign], [self.magnitude], [self.guess], pair=pair)


def check_request(checkpoint: Checkpoint, target: str, sign: int, magnitude: float | None, control: str) -> Request:
    """Checks a perturbation at the door.

    Raises:
        CDTError: A sign outside -1, 0, +1, a gene outside the vocabulary (close matches are named), or a combination
            that training did not have (but for a pair of its targets).
    """
    if sign not in (-1, 0, 1):
        raise CDTError(f"sign must be -1 (knockdown or knockout), 0 (control) or +1 (activation), not {sign!r}")
    genes = pd.Index(checkpoint.vocabulary.symbols)
    target, sign = str(tidy_targets(np.array([target], str), control, genes, "the request")[0]), int(sign)
    if target == control or sign == 0:
        return Request(control, 0, 0.0, NO_TARGET)
    if target not in checkpoint.trained_targets and (pair := _trained_pair(checkpoint, target)):
        return _unmade(checkpoint, target, sign, pair)
    if genes_of(target) and target not in checkpoint.vocabulary:
        raise CDTError(f"{target} was not in training, and a combination is predicted from its genes only if it is a "
                       f"pair and both were perturbed. Predict {' and '.join(target.split('+'))} one by one, or train "
                       "on cells of the combination")
    gene_id, guess = checkpoint.vocabulary.id(target), NO_TARGET
    if magnitude is not None and math.isnan(magnitude):
        magnitude = None  # as files write what is unknown
    notes = _magnitude_notes(target, sign, magnitude, checkpoint)
    table = checkpoint.model.effect
    if table is not None and len(table.target):
        seen = target in checkpoint.trained_targets
        notes += _sign_notes(target, sign, gene_id if seen else NO_TARGET, table)
    if target not in checkpoint.trained_targets and table is not None:
        guess, origin = _from_its_like(table, gene_id, sign)
        notes.append(f"{target} was never perturbed in training: predicted {origin}")
        gene_id = UNKNOWN_TARGET
    beyond = 0.0 if table is None else known_shares(table, gene_id, guess, sign)[0]
    size = float("nan") if magnitude is None else float(magnitude)
    pair = checkpoint.vocabulary.pair(target) if gene_id >= 0 else None
    return Request(target, sign, size, gene_id, guess, tuple(notes), beyond, pair or (NO_TARGET, NO_TARGET))


def align_panel(checkpoint: Checkpoint, cells: ad.AnnData, align: bool) -> ad.AnnData:
    """Returns the cells on the model's panel.

    Raises:
        CDTError: Genes differ and `align` is off, or nothing is shared, or v1's fixed panel is incomplete.
    """
    genes, panel = cells.var_names, pd.Index(checkpoint.panel)
    if list(genes) == checkpoint.panel:
        return cells
    missing = panel.difference(genes, sort=False).tolist()
    extra = genes.difference(panel, sort=False).tolist()
    shared = panel.intersection(genes, sort=False)
    what = (
        f"the panel does not match the checkpoint's {len(panel)} genes: {len(missing)} missing {missing[:5]}, "
        f"{len(extra)} not in it {extra[:5]}"
    )
    if not missing and not extra:
        what += "; the order differs"
    if not align:
        raise CDTError(f"{what}. Pass align=True to predict the {len(shared)} shared genes, in the model's order.")
    if not len(shared):
        raise CDTError(f"{what}. Nothing to align: this model needs genes that it knows.")
    if missing and checkpoint.model.fixed_panel:
        raise CDTError(f"{what}. This model needs its whole panel (positions are fixed in v1).")
    return cells[:, shared]


def context_notes(checkpoint: Checkpoint, request: Request, replicate: Shaped[np.ndarray, " controls"]) -> list[str]:
    """Says what it means for a perturbation that training perturbed nothing in a replicate or cell type."""
    new = [name for name in np.unique(replicate).tolist() if is_new_context(checkpoint, name)]
    if not new or not request.sign:
        return []
    names = ", ".join(new[:NAMED]) + (f" and {len(new) - NAMED} more" if len(new) > NAMED else "")
    return [f"training saw no perturbed cell of {names}: the mean change there is what is known of it from elsewhere, "
            "not the network's"]


def panel_notes(n_panel: int, n_genes: int, kept: float) -> list[str]:
    """Says what a smaller panel means for the depth of cells; `kept` is the share of counts on its genes."""
    if n_genes == n_panel:
        return []
    missing = f"{n_panel - n_genes} of the panel's {n_panel} genes are missing"
    if not kept:
        return [f"{missing}: this model does not know how many counts they hold, and takes the cells for less deep "
                "than they are"]
    return [f"{missing}: the others hold {kept:.0%} of a training control's counts, and depths are scaled up by that"]


def _unmade(checkpoint: Checkpoint, target: str, sign: int, pair: tuple[int, int]) -> Request:
    """A pair of which training had no cells, but of both genes: what they do, added up."""
    table, (one, other) = checkpoint.model.effect, target.split("+")
    assert table is not None
    notes = _sign_notes(target, sign, NO_TARGET, table)
    notes.append(f"{target} was never made in training: predicted as {one} and {other}, added up")
    beyond = float(np.mean([known_shares(table, gene, NO_TARGET, sign)[0] for gene in pair]))
    return Request(target, sign, float("nan"), UNKNOWN_TARGET, NO_TARGET, tuple(notes), beyond, pair)


def _trained_pair(checkpoint: Checkpoint, target: str) -> tuple[int, int] | None:
    """Returns the genes of a pair that the model adds up: training had both, and it knows mean effects."""
    pair = checkpoint.vocabulary.pair(target)
    if pair is None or checkpoint.model.effect is None:
        return None
    return pair if set(checkpoint.trained_targets).issuperset(target.split("+")) else None


def _sign_notes(target: str, sign: int, gene: int, table: MeanEffect) -> list[str]:
    """Says where training had no perturbation of this sign, or none of this target."""
    measured = table.measured()
    if sign not in {way for _, way in measured}:
        return [f"training had no perturbation of sign {sign:+d}: nothing is known of what it does"]
    if (gene, -sign) in measured and (gene, sign) not in measured:
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


def known_shares(table: MeanEffect, target: int, guess: int, sign: int) -> tuple[float, float]:
    """Returns the share of an effect's variance that is known beyond what all perturbations share, and what is left.

    Args:
        table: What training cells say.
        target: What the model is told, as in `Perturbation`.
        guess: Likewise.
        sign: -1 or +1.
    """
    asked = Perturbation.of([target, UNKNOWN_TARGET], [sign] * 2, [float("nan")] * 2, [guess, NO_TARGET])
    rows = table.rows(asked.to(table.sign.device))
    if (rows < 0).any():
        return 0.0, 1.0
    left, of_average = table.left[rows].tolist()
    return max(of_average - left, 0.0), left


def _from_its_like(table: MeanEffect, gene: int, sign: int) -> tuple[int, str]:
    """Which gene to ask the table for, and how much is known of its effect beside what all perturbations share."""
    more, left = known_shares(table, UNKNOWN_TARGET, gene, sign)
    if more >= LITTLE:
        return gene, (f"from genes like it, by which {more:.0%} of its effect's variance is known beyond what all "
                      f"perturbations share; {left:.0%} stays unknown")
    return NO_TARGET, "as the average perturbation: nothing is known of a gene like it"
