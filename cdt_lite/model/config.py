"""Every number a run depends on, as frozen data: presets differ by named fields, never by other code.

`v1` is the original document's system exactly (`model/v1.py`); `default` is the recommended recipe in the same size
class (`model/cdt.py`); `lite` is `default` small enough for a learner's CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cdt_lite.errors import CDTError, require_between, require_whole, suggest

GENE_CAPACITY = 36_601  # rows of the gene table: the gene count of a Cell Ranger GRCh38 reference
MOST = 1_000_000  # of any size: more is a mistake, and would fill a machine before it is found


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CDTError(message)


def _require_range(config: object, low: int | float, high: int | float, *names: str) -> None:
    for name in names:
        require_between(name, getattr(config, name), low, high)


def _require_whole(config: object, low: int, *names: str) -> None:
    for name in names:
        object.__setattr__(config, name, require_whole(name, getattr(config, name), low, MOST))


def _require_one_of(config: object, name: str, known: Sequence[str]) -> None:
    value = getattr(config, name)
    _require(value in known, f"{name} is one of {', '.join(known)}, not {value!r}")


def _require_divides(config: object, part: str, whole: str) -> None:
    n, m = getattr(config, part), getattr(config, whole)
    _require(m % n == 0, f"{part} must divide {whole}: {m} / {n} is not whole")


@dataclass(frozen=True)
class TokenizerConfig:
    """How expression becomes bins.

    `space="normalised"` (v1): counts scaled to a target depth, zero in bin 0, log-spaced edges `lowest`..`highest`.
    `space="counts"`: raw counts, one bin each for 0..n_exact-1, geometric integer bins above, up to `highest`.
    """

    space: Literal["normalised", "counts"] = "counts"
    n_bins: int = 63
    n_exact: int = 40
    lowest: float = 0.1
    highest: float = 10_000.0

    def __post_init__(self) -> None:
        _require_one_of(self, "space", ("normalised", "counts"))
        _require_whole(self, 1, "n_bins", "n_exact")
        _require(2 <= self.n_bins <= 255, f"n_bins must be 2 to 255 (uint8 tokens and [MASK]), not {self.n_bins}")
        _require(0 < self.n_exact < self.n_bins, f"n_exact must be 1 to n_bins - 1, not {self.n_exact}")
        _require(0 < self.lowest < self.highest < 1e30, "lowest must be positive and below highest, that below 1e30")

    @property
    def mask_id(self) -> int:
        """The id of [MASK]: the one after the last data bin."""
        return self.n_bins


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of the network."""

    dim: int = 512
    n_head: int = 8
    n_layer: int = 6
    ffn_mult: int = 4
    n_bins: int = 63
    n_genes: int = 2000  # the panel; v1 has a position for each of so many genes
    n_total_genes: int = GENE_CAPACITY
    gene_embed_dim: int = 128
    perturb_sign_dim: int = 3
    perturb_magnitude_dim: int = 64
    magnitude_clip: float = 5.0
    control_set_encoder_layers: int = 2
    control_set_dim_hidden: int = 128
    control_set_n_head: int = 4
    control_set_dim_out: int = 512
    control_set_dropout: float = 0.0

    def __post_init__(self) -> None:
        _require_whole(self, 1, "dim", "ffn_mult", "n_genes", "gene_embed_dim", "perturb_sign_dim", "n_layer")
        _require_whole(self, 1, "perturb_magnitude_dim", "control_set_dim_hidden", "control_set_dim_out", "n_bins")
        _require_whole(self, 1, "n_total_genes", "n_head", "control_set_n_head", "control_set_encoder_layers")
        _require_range(self, 1, 1000, "n_layer", "control_set_encoder_layers")
        _require_divides(self, "n_head", "dim")
        _require_divides(self, "control_set_n_head", "control_set_dim_hidden")
        _require(self.dim % 2 == 0, f"dim must be even (half sines, half cosines), not {self.dim}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_head

    @property
    def vocab_size(self) -> int:
        """Input ids: data bins and [MASK]."""
        return self.n_bins + 1


@dataclass(frozen=True)
class DiffusionConfig:
    """How cells are sampled: the schedule and its steps. In v1 there is no choice: see `model/v1.py`."""

    sampling_schedule: Literal["cosine", "uniform", "learned"] = "cosine"
    sampling_steps: int = 16
    loss_curve: tuple[tuple[float, float], ...] = ()  # (share hidden, nats per gene) of the model, for "learned"

    def __post_init__(self) -> None:
        _require_one_of(self, "sampling_schedule", ("cosine", "uniform", "learned"))
        _require_whole(self, 1, "sampling_steps")
        if self.sampling_schedule == "learned" and not self.loss_curve:
            raise CDTError('sampling_schedule="learned" needs loss_curve: measure it with validation_curve')


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training. Batch: `sets_per_batch` sets of `cells_per_set` cells, each set with its own controls."""

    epochs: int = 20
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup_steps: int = 1000
    sets_per_batch: int = 4
    cells_per_set: int = 8
    controls_per_set: int = 64
    gradient_clip: float = 1.0
    target_dropout: float = 0.0  # share of sets whose target is replaced by "unknown target"
    perturbation_dropout: float = 0.0  # share of sets that keep their cells but lose the perturbation (for guidance)
    magnitude_dropout: float = 0.0  # share of sets whose magnitude is withheld: it is an outcome, rarely known
    control_share: float = 0.0  # share of sets made of control cells only
    controls_dropout: float = 0.0  # share of batches trained without any controls (the unconditional mode)
    validation_share: float = 0.1  # of perturbed groups, set aside in fine-tuning to judge it; 0: nothing does
    mean_effects: bool = True  # whether fine-tuning begins with a table of what its cells say of mean effects
    checkpoint_interval: int = 500
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of matrix products; auto: bf16 on CUDA
    compile: bool = False

    def __post_init__(self) -> None:
        _require_one_of(self, "precision", ("auto", "fp32", "bf16"))
        _require_whole(self, 1, "sets_per_batch", "cells_per_set", "controls_per_set", "checkpoint_interval")
        _require_range(self, 0, 1, "target_dropout", "perturbation_dropout", "magnitude_dropout", "control_share")
        _require_range(self, 0, 1, "controls_dropout", "weight_decay", "validation_share")
        _require_range(self, 1e-9, 10, "learning_rate")
        require_whole("seed", self.seed)

    @property
    def batch_size(self) -> int:
        """Cells in one step."""
        return self.sets_per_batch * self.cells_per_set

    def in_half(self, device: str) -> bool:
        """Says whether matrix products are made in bf16 on a kind of device ("cpu", "cuda", "mps")."""
        return self.precision == "bf16" or (self.precision == "auto" and device == "cuda")


@dataclass(frozen=True)
class Config:
    """A whole preset. `system` says whose network and process it is: ours ("cdt") or the original's ("v1")."""

    name: str = "default"
    system: Literal["cdt", "v1"] = "cdt"
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    pretrain: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=50))
    finetune: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=20))
    gene_vectors: Literal["random", "coexpression"] = "coexpression"  # what the gene table starts from

    def __post_init__(self) -> None:
        _require_one_of(self, "system", ("cdt", "v1"))
        n, m = self.model.n_bins, self.tokenizer.n_bins
        _require(n == m, f"model and tokenizer disagree on n_bins: {n} and {m}")


_V1_STAGE = TrainConfig(sets_per_batch=32, cells_per_set=1, validation_share=0.0)
_V1 = Config(
    name="v1",
    system="v1",
    tokenizer=TokenizerConfig(space="normalised"),
    model=ModelConfig(control_set_dropout=0.1),
    pretrain=replace(_V1_STAGE, epochs=50, controls_dropout=1.0),
    finetune=replace(_V1_STAGE, epochs=20),
    gene_vectors="random",
)
_DEFAULT_STAGE = TrainConfig(
    target_dropout=0.15, perturbation_dropout=0.1, magnitude_dropout=0.5, control_share=0.1
)
_DEFAULT = Config(
    name="default",
    pretrain=replace(_DEFAULT_STAGE, epochs=50, controls_dropout=0.5),
    finetune=replace(_DEFAULT_STAGE, epochs=20),
)
_LITE_STAGE = replace(
    _DEFAULT_STAGE, learning_rate=2e-3, warmup_steps=100, sets_per_batch=6, controls_per_set=32
)
_LITE = Config(
    name="lite",
    model=ModelConfig(
        dim=64, n_head=2, n_layer=3, n_genes=512, gene_embed_dim=32, perturb_magnitude_dim=16,
        control_set_encoder_layers=1, control_set_dim_hidden=32, control_set_n_head=2, control_set_dim_out=64,
    ),
    pretrain=replace(_LITE_STAGE, epochs=50, controls_dropout=0.5),
    finetune=replace(_LITE_STAGE, epochs=20),
)
PRESETS: dict[str, Config] = {"v1": _V1, "default": _DEFAULT, "lite": _LITE}


def get_preset(name: str) -> Config:
    """Returns a preset by name. Raises CDTError with close matches for an unknown one."""
    if name not in PRESETS:
        raise CDTError(f"there is no preset {name!r}{suggest(name, PRESETS)} Presets: {', '.join(PRESETS)}.")
    return PRESETS[name]
