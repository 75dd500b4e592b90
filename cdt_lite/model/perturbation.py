"""What the model is told of a perturbation: which gene, which way, how strongly."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cdt_lite.errors import CDTError
from cdt_lite.model.config import ModelConfig
from cdt_lite.model.layers import MLP

NO_TARGET = -1  # no perturbation is named: controls, and the unconditional mode
UNKNOWN_TARGET = -2  # something was perturbed, but the model has no vector for it


@dataclass(frozen=True)
class Perturbation:
    """One perturbation a set.

    A magnitude is an outcome of the experiment: for a perturbation that nobody has made it is unknown. The fields
    replicate and own are for training: a set is not told the mean effect of its own replicate, nor is its target part
    of an average. A pair that training had is a target of its own; of any pair the model is told the two genes.
    """

    target: Int[Tensor, " B"]  # row in the gene table, or NO_TARGET, or UNKNOWN_TARGET
    sign: Int[Tensor, " B"]  # -1 knockdown or knockout, 0 control, +1 activation
    magnitude: Float[Tensor, " B"]  # log2 fold change of the target's own expression, NaN where unknown
    guess: Int[Tensor, " B"] | None = None  # gene of UNKNOWN_TARGET, whose effect is known by its like; -1: by all
    replicate: Int[Tensor, " B"] | None = None  # of the training cells
    own: Int[Tensor, " B"] | None = None  # their target, also where its name is withheld
    pair: Int[Tensor, "B 2"] | None = None  # genes of a pair; NO_TARGET twice where there is none

    @classmethod
    def of(cls, target: Sequence[int], sign: Sequence[int], magnitude: Sequence[float],
           guess: Sequence[int] | None = None, replicate: Sequence[int] | None = None,
           own: Sequence[int] | None = None, pair: Sequence[tuple[int, int]] | None = None) -> "Perturbation":
        """Builds and checks. Raises CDTError for a sign outside -1, 0, +1 or a target below UNKNOWN_TARGET."""
        if not set(sign) <= {-1, 0, 1}:
            raise CDTError(f"sign must be -1 (knockdown), 0 (control) or +1 (activation), not {list(sign)}")
        if min(target, default=0) < UNKNOWN_TARGET:
            raise CDTError(f"target must be a gene id (or NO_TARGET, UNKNOWN_TARGET), not {list(target)}")
        return cls(
            _ids(target), _ids(sign), torch.tensor(magnitude, dtype=torch.float32),
            *(None if values is None else _ids(values) for values in (guess, replicate, own, pair)),
        )

    @classmethod
    def none(cls, n_sets: int, device: torch.device | str = "cpu") -> "Perturbation":
        """Returns "no perturbation" for every set: what controls and the unconditional mode are told."""
        zeros = torch.zeros(n_sets, device=device)
        return cls(zeros.long() + NO_TARGET, zeros.long(), zeros)

    def to(self, device: torch.device | str) -> "Perturbation":
        """Returns a copy on a device."""
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            moved[name] = None if value is None else value.to(device, non_blocking=True)
        return Perturbation(**moved)


def _ids(values: Sequence[int] | Sequence[tuple[int, int]]) -> Int[Tensor, "B ..."]:
    return torch.tensor(values, dtype=torch.long)


class PerturbationEmbedding(nn.Module):
    """Target gene, sign and magnitude as one vector: three parts concatenated, Linear, GELU, Linear.

    The gene table belongs to the model. A target or a magnitude (NaN) that is unknown contributes nothing.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.gene_embed_dim + config.perturb_sign_dim + config.dim
        self.clip = config.magnitude_clip
        self.sign = nn.Embedding(3, config.perturb_sign_dim)
        self.magnitude = MLP(1, config.perturb_magnitude_dim, config.perturb_magnitude_dim, config.dim)
        self.project = MLP(width, config.dim, config.dim)

    def target_vector(self, target: Int[Tensor, " B"], gene_table: nn.Embedding) -> Float[Tensor, "B E"]:
        """Looks the target up in the gene table: its row, or zeros."""
        return gene_table(target.clamp(min=0)) * (target >= 0)[:, None]

    def forward(self, perturbation: Perturbation, gene_table: nn.Embedding) -> Float[Tensor, "B D"]:
        """Embeds one perturbation a set."""
        known = ~perturbation.magnitude.isnan()
        scaled = perturbation.magnitude.nan_to_num().clamp(-self.clip, self.clip) / self.clip
        target = self.target_vector(perturbation.target, gene_table)
        sign = self.sign(perturbation.sign + 1)
        magnitude = self.magnitude(scaled[:, None]) * known[:, None]
        return self.project(torch.cat([target, sign, magnitude], dim=-1))


class PartialPerturbationEmbedding(PerturbationEmbedding):
    """The same, with learned vectors for a target that is not there and for one that is there but unknown.

    A pair is the sum of two conditions.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.no_target = nn.Parameter(torch.zeros(config.gene_embed_dim))
        self.unknown_target = nn.Parameter(torch.zeros(config.gene_embed_dim))

    def forward(self, perturbation: Perturbation, gene_table: nn.Embedding) -> Float[Tensor, "B D"]:
        """Embeds one perturbation a set."""
        told = super().forward(perturbation, gene_table)
        if perturbation.pair is None:
            return told
        one, other = (replace(perturbation, target=gene) for gene in perturbation.pair.T)
        both = super().forward(one, gene_table) + super().forward(other, gene_table)
        return torch.where(perturbation.pair[:, :1] >= 0, both, told)

    def target_vector(self, target: Int[Tensor, " B"], gene_table: nn.Embedding) -> Float[Tensor, "B E"]:
        """Looks the target up: its row, the learned "no target", or "unknown target"."""
        row = super().target_vector(target, gene_table)
        absent = (target == NO_TARGET)[:, None] * self.no_target
        unknown = (target == UNKNOWN_TARGET)[:, None] * self.unknown_target
        return row + absent + unknown
