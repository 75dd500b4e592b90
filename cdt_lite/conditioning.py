"""What the model is told: how much is masked, which gene was perturbed, which way, how strongly, at what depth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cdt_lite.config import ModelConfig
from cdt_lite.errors import CDTError
from cdt_lite.layers import MLP

NO_TARGET = -1  # no perturbation is named: controls, and the unconditional mode
LIMIT = 8.0  # of a tilt: more than any gene needs whose values can be told apart
RANK_SPREAD = 0.2  # of a gene's token ranks among like cells, roughly
GUESSED = -1  # the replicate of an effect that was never measured
UNKNOWN_TARGET = -2  # something was perturbed, but the model has no vector for it


@dataclass(frozen=True)
class Perturbation:
    """One perturbation a set.

    Args:
        target: Row of the target gene in the gene table, or NO_TARGET, or UNKNOWN_TARGET, (B,).
        sign: -1 knockdown or knockout, 0 control, +1 activation, (B,).
        magnitude: log2 fold change of the target's own expression, NaN where unknown, (B,). It is an outcome of the
            experiment: for a perturbation that nobody has made it is unknown.
        guess: Gene whose guessed mean effect stands in where the target is UNKNOWN_TARGET, or -1 for the average, (B,).
        replicate: Of the training cells, (B,): in training a set is not told the mean effect of its own replicate.
        own: Their target, also where its name is withheld, (B,): in training it is no part of an average.
    """

    target: Int[Tensor, " B"]
    sign: Int[Tensor, " B"]
    magnitude: Float[Tensor, " B"]
    guess: Int[Tensor, " B"] | None = None
    replicate: Int[Tensor, " B"] | None = None
    own: Int[Tensor, " B"] | None = None

    @classmethod
    def of(cls, target: Sequence[int], sign: Sequence[int], magnitude: Sequence[float], guess: Sequence[int] = (),
           replicate: Sequence[int] = (), own: Sequence[int] = ()) -> "Perturbation":
        """Builds and checks. Raises CDTError for a sign outside -1, 0, +1 or a target below UNKNOWN_TARGET."""
        if any(s not in (-1, 0, 1) for s in sign):
            raise CDTError(f"sign must be -1 (knockdown), 0 (control) or +1 (activation), not {list(sign)}")
        if any(i < UNKNOWN_TARGET for i in target):
            raise CDTError(f"target must be a gene id (or NO_TARGET, UNKNOWN_TARGET), not {list(target)}")
        more = (torch.tensor(ids, dtype=torch.long) if len(ids) else None for ids in (guess, replicate, own))
        return cls(torch.tensor(target, dtype=torch.long), torch.tensor(sign, dtype=torch.long),
                   torch.tensor(magnitude, dtype=torch.float32), *more)

    @classmethod
    def none(cls, n_sets: int, device: torch.device | str = "cpu") -> "Perturbation":
        """Returns "no perturbation" for every set: what controls and the unconditional mode are told."""
        zeros = torch.zeros(n_sets, device=device)
        return cls(zeros.long() + NO_TARGET, zeros.long(), zeros)

    def to(self, device: torch.device | str) -> "Perturbation":
        """Returns a copy on a device."""
        more = (None if ids is None else ids.to(device) for ids in (self.guess, self.replicate, self.own))
        return Perturbation(self.target.to(device), self.sign.to(device), self.magnitude.to(device), *more)


def sinusoid(position: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape dim"]:
    """Returns sines and cosines of `position` at `dim / 2` frequencies, 1 to 1/10,000 (Vaswani 2017, section 3.5)."""
    half = dim // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, device=position.device) / half)
    angle = position[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """The amount of noise as a vector: sinusoid, Linear, GELU, Linear.

    v1 feeds the step index 0..T-1; `time_input="mask_ratio"` feeds the share of masked genes, stretched to 0..1000;
    `default` and `lite` have no such input.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.dim
        self.stretch = float(config.n_timesteps - 1) if config.time_input == "timestep" else 1000.0
        self.mlp = MLP(config.dim, config.dim, config.dim)

    def forward(self, t: Float[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """Embeds t in [0, 1]: in v1 timestep / (T - 1), else the share of masked genes."""
        return self.mlp(sinusoid(t * self.stretch, self.dim))


class PerturbationEmbedding(nn.Module):
    """Target gene, sign and magnitude as one vector: three parts concatenated, Linear, GELU, Linear.

    The gene table belongs to the model (default: the same table tells positions apart). A magnitude that is unknown
    (NaN) contributes nothing; without `unknown_target` (v1) so does a missing target.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.clip = config.magnitude_clip
        self.sign = nn.Embedding(3, config.perturb_sign_dim)
        self.magnitude = MLP(1, config.perturb_magnitude_dim, config.perturb_magnitude_dim, config.dim)
        self.project = MLP(config.gene_embed_dim + config.perturb_sign_dim + config.dim, config.dim, config.dim)
        self.no_target = self.unknown_target = None
        if config.unknown_target:
            self.no_target = nn.Parameter(torch.zeros(config.gene_embed_dim))
            self.unknown_target = nn.Parameter(torch.zeros(config.gene_embed_dim))

    def target_vector(self, target: Int[Tensor, " B"], gene_table: nn.Embedding) -> Float[Tensor, "B E"]:
        """Looks the target up: its row, the learned "no target" or "unknown target", or zeros in v1."""
        vector = gene_table(target.clamp(min=0)) * (target >= 0)[:, None]
        if self.no_target is None or self.unknown_target is None:
            return vector
        return (vector + (target == NO_TARGET)[:, None] * self.no_target
                + (target == UNKNOWN_TARGET)[:, None] * self.unknown_target)

    def forward(self, perturbation: Perturbation, gene_table: nn.Embedding) -> Float[Tensor, "B D"]:
        """Embeds one perturbation a set."""
        known = ~perturbation.magnitude.isnan()
        scaled = perturbation.magnitude.nan_to_num().clamp(-self.clip, self.clip) / self.clip
        parts = [self.target_vector(perturbation.target, gene_table), self.sign(perturbation.sign + 1),
                 self.magnitude(scaled[:, None]) * known[:, None]]
        return self.project(torch.cat(parts, dim=-1))


class ControlStatistics(nn.Module):
    """What the controls say about each gene, at that gene's own position: mean token rank and share of non-zeros."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = MLP(2, config.dim, config.dim)

    def forward(self, ranks: Float[Tensor, "B C G"]) -> Float[Tensor, "B G D"]:
        """Embeds the statistics over the C controls of each set."""
        return self.mlp(torch.stack([ranks.mean(1), (ranks > 0).to(ranks.dtype).mean(1)], dim=-1))


class CellSummary(nn.Module):
    """What the visible part of a cell says about its state, given back to every gene in that gene's own terms.

    state = MLP( sum over visible genes of (rank - centre) / RANK_SPREAD * u_g / sqrt(G) ), centre being the mean rank
    among the controls, or a learned one without controls; gene g receives w_g * state. u and w are linear in the gene
    vectors. Averaging attention over hundreds of genes finds the same sums, but many thousand steps later.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.control_set_dim_hidden
        self.centre = nn.Linear(config.gene_embed_dim, 1)
        self.read = nn.Linear(config.gene_embed_dim, width, bias=False)
        self.state = MLP(width, config.dim, config.dim)
        self.give = nn.Linear(config.gene_embed_dim, config.dim, bias=False)

    def forward(self, cells: Float[Tensor, "B S G"], visible: Bool[Tensor, "B S G"], vectors: Float[Tensor, "G E"],
                controls: Float[Tensor, "B C G"] | None) -> Float[Tensor, "B S G D"]:
        """Reads and gives. `cells` and `controls` are token ranks."""
        centre = self.centre(vectors).mT if controls is None else controls.mean(1, keepdim=True)
        departure = (cells - centre) / RANK_SPREAD * visible
        state = self.state(departure @ self.read(vectors) / math.sqrt(cells.shape[-1]))
        return self.give(vectors) * state[..., None, :]


@dataclass(frozen=True)
class EffectTable:
    """Mean changes of log1p expression against the controls: K rows, one a perturbation and replicate.

    Args:
        target: Gene id, (K,).
        sign: -1 or +1, (K,).
        replicate: Number of the replicate, or GUESSED, (K,).
        cells: Cells that the mean is over, (K,); of a guess, how many cells it is worth.
        effect: (K, G).
        shares: Share of the control cells in every bin, (G, bins).
        gene_ids: Gene id of every column, (G,).
        values: log1p expression that each bin stands for, (bins,).
    """

    target: Int[np.ndarray, " K"]
    sign: Int[np.ndarray, " K"]
    replicate: Int[np.ndarray, " K"]
    cells: Float[np.ndarray, " K"]
    effect: Float[np.ndarray, "K G"]
    shares: Float[np.ndarray, "G bins"]
    gene_ids: Int[np.ndarray, " G"]
    values: Float[np.ndarray, " bins"]


def tilts(shares: Float[Tensor, "G bins"], values: Float[Tensor, " bins"], change: Float[Tensor, "B G"]
          ) -> Float[Tensor, "B G"]:
    """Returns, for every gene, the tilt that moves the mean of its values by a change.

    A tilt a turns shares p into p exp(a value), normalised: of all distributions with the new mean, the one nearest to
    p (Csiszar 1975). Where no tilt within +-LIMIT moves the mean so far, the limit.

    Args:
        shares: Share of cells in every bin.
        values: What the bins are worth.
        change: Of the mean value.
    """
    p, grid = shares.double(), torch.linspace(-LIMIT, LIMIT, 401, dtype=torch.float64, device=shares.device)
    factor = torch.exp(values.double()[:, None] * grid)
    means = (p * values) @ factor / (p @ factor) - (p @ values.double())[:, None]  # (G, 401), rising
    wanted = change.double().T.contiguous()
    above = torch.searchsorted(means, wanted).clamp(1, len(grid) - 1)
    low, high = means.gather(1, above - 1), means.gather(1, above)
    part = ((wanted - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return (grid[above - 1] + part * (grid[1] - grid[0])).T.to(change.dtype)


class MeanEffect(nn.Module):
    """What the training cells say about a perturbation: the mean effect on every gene, given at its own position.

    A seen target: the mean over replicates and its guess, by cells; in training without the set's own replicate, so
    that the network learns how far an effect seen elsewhere can be trusted. A target that is unknown, or not seen
    elsewhere: the guess, if there is one, else the mean over the targets of its sign. No perturbation: zero.
    """

    target: Tensor
    sign: Tensor
    replicate: Tensor
    gene_ids: Tensor
    cells: Tensor
    share: Tensor
    effect: Tensor
    shares: Tensor
    values: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mlp = MLP(1, config.dim, config.dim)
        for name in ("target", "sign", "replicate", "gene_ids"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        self.register_buffer("cells", torch.zeros(0))
        self.register_buffer("share", torch.zeros(0))  # of its target's cells: every target counts once
        self.register_buffer("effect", torch.zeros(0, 0))
        self.register_buffer("shares", torch.zeros(0, config.n_bins))
        self.register_buffer("values", torch.zeros(config.n_bins))

    def fill(self, table: EffectTable) -> None:
        """Takes a table over, on the module's device."""
        device = self.effect.device
        for name in ("target", "sign", "replicate", "gene_ids"):
            setattr(self, name, torch.tensor(getattr(table, name), dtype=torch.long, device=device))
        for name in ("cells", "effect", "shares", "values"):
            setattr(self, name, torch.tensor(getattr(table, name), dtype=torch.float32, device=device))
        _, which = np.unique(np.stack([table.target, table.sign, table.replicate == GUESSED]), axis=1,
                             return_inverse=True)
        share = table.cells / np.maximum(np.bincount(which.ravel(), table.cells), 1)[which.ravel()]
        self.share = torch.tensor(share, dtype=torch.float32, device=device)

    def make_room(self, shape: Sequence[int]) -> None:
        """Empties the table to hold (K, G) effects, which a loaded state then fills."""
        k, g = shape
        zeros, bins = np.zeros(k, int), len(self.values)
        self.fill(EffectTable(zeros, zeros, zeros, np.zeros(k), np.zeros((k, g)), np.zeros((g, bins)),
                              np.zeros(g, int), np.zeros(bins)))

    def weights(self, p: Perturbation) -> Float[Tensor, "B K"]:
        """Returns what each row of the table counts for each set; rows sum to 1, or to 0 without a perturbation."""
        asked = p.target if p.guess is None else torch.where(p.target == UNKNOWN_TARGET, p.guess, p.target)
        of_sign, measured = self.sign == p.sign[:, None], self.replicate != GUESSED
        same = of_sign & (self.target == asked[:, None])
        seen = same & measured & (p.target >= 0)[:, None]
        if self.training and p.replicate is not None:
            seen = seen & (self.replicate != p.replicate[:, None])
        average = of_sign & measured & ~same
        if self.training and p.own is not None:
            average = average & (self.target != p.own[:, None])
        w = average * self.share
        guessed = same & ~measured
        w = torch.where(guessed.any(1, keepdim=True), guessed, w)  # what comes later is better
        w = torch.where(seen.any(1, keepdim=True), (seen | guessed) * self.cells, w)
        w = w * (p.target != NO_TARGET)[:, None]
        return w / w.sum(1, keepdim=True).clamp(min=1e-9)

    def look_up(self, perturbation: Perturbation, gene_ids: Int[Tensor, " g"]
                ) -> tuple[Float[Tensor, "B g"], Float[Tensor, "B g"]]:
        """Returns mean effects and the tilts that make them; 0 for a gene that the table does not have."""
        if not len(self.target):
            nothing = torch.zeros(len(perturbation.target), len(gene_ids), device=gene_ids.device)
            return nothing, nothing
        match, weights = gene_ids[:, None] == self.gene_ids, self.weights(perturbation)
        here, known = match.int().argmax(1), match.any(1)
        mixed = weights.double() @ self.effect.double()  # a tilt is steep where a gene is rare: not in half precision
        effect = mixed.to(self.effect.dtype)[:, here] * known
        return effect, tilts(self.shares[here], self.values, effect) * known

    def forward(self, perturbation: Perturbation, gene_ids: Int[Tensor, " G"]) -> Float[Tensor, "B G D"]:
        """Embeds the mean effect on every gene."""
        return self.mlp(self.look_up(perturbation, gene_ids)[0][..., None])
