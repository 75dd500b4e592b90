"""Every number a run depends on, as frozen data: the presets differ by named fields, never by other code.

`v1` is the original document's system exactly; `default` is the recommended recipe in the same size class; `lite` is
`default` small enough for a learner's CPU.
"""

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from cdt_lite.errors import CDTError, suggest

GENE_CAPACITY = 36_601  # rows of the gene table: the gene count of a Cell Ranger GRCh38 reference


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CDTError(message)


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
        _require(self.space in ("normalised", "counts"), f"space is 'normalised' or 'counts', not {self.space!r}")
        _require(2 <= self.n_bins <= 255,
                 f"n_bins must be 2 to 255 (uint8 tokens, one id for [MASK]), not {self.n_bins}")
        _require(0 < self.n_exact < self.n_bins, f"n_exact must be 1 to n_bins - 1, not {self.n_exact}")
        _require(0 < self.lowest < self.highest, "lowest must be positive and below highest")

    @property
    def mask_id(self) -> int:
        """The id of [MASK]: the one after the last data bin."""
        return self.n_bins

    @property
    def vocab_size(self) -> int:
        """Data bins and [MASK]."""
        return self.n_bins + 1


@dataclass(frozen=True)
class ModelConfig:
    """The network. The first group are v1's own fields; the second group are the switches between v1 and default."""

    dim: int = 512
    n_head: int = 8
    n_layer: int = 6
    ffn_mult: int = 4
    n_bins: int = 63
    n_genes: int = 2000
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
    n_timesteps: int = 10

    identity: Literal["position", "gene"] = "gene"  # what tells positions apart: their number (v1) or the gene table
    time_input: Literal["timestep", "mask_ratio", "none"] = "none"  # v1: a step index; the visible genes tell the rest
    modulation: Literal["add", "adaln"] = "adaln"  # v1 adds the condition once, default modulates every block
    control_input: Literal["tokens", "genes"] = "genes"  # v1 reads raw ids, default value-weighted gene vectors
    mask_in_logits: bool = False  # v1 may predict [MASK]
    ordinal_input: bool = True  # an MLP of the bin's rank beside its embedding
    depth_input: bool = True  # sequencing depth as a condition
    target_flag: bool = False  # a learned vector at the target's own position
    control_statistics: bool = True  # per-gene mean and non-zero share of the control set at every position
    cell_summary: bool = True  # the visible genes' departures from the controls, summed and given back to every gene
    mean_effect: bool = True  # the perturbation's mean effect in the training cells, at every gene's position
    unknown_target: bool = True  # learned vectors for "unknown target" and for "no perturbation"

    def __post_init__(self) -> None:
        _require(self.dim % self.n_head == 0, f"n_head must divide dim: {self.dim} / {self.n_head} is not whole; "
                 f"try n_head in {[h for h in range(1, 17) if self.dim % h == 0]}")
        _require(self.control_set_dim_hidden % self.control_set_n_head == 0,
                 f"control_set_n_head must divide control_set_dim_hidden ({self.control_set_dim_hidden} / "
                 f"{self.control_set_n_head} is not whole)")
        for name in ("dim", "n_layer", "ffn_mult", "n_genes", "n_total_genes", "gene_embed_dim", "n_timesteps"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        _require(self.identity == "gene" or not self.cell_summary, 'cell_summary needs identity="gene" (gene vectors)')
        _require(self.dim % 2 == 0, f"dim must be even (half sines, half cosines), not {self.dim}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_head

    @property
    def vocab_size(self) -> int:
        """Input ids: data bins and [MASK]."""
        return self.n_bins + 1

    @property
    def n_logits(self) -> int:
        """Output classes: the data bins, and [MASK] in v1."""
        return self.n_bins + int(self.mask_in_logits)


@dataclass(frozen=True)
class DiffusionConfig:
    """The masking process: its schedule, the law of training masks, and the sampler."""

    n_timesteps: int = 10
    mask_ratio: float = 0.3  # v1's largest mask probability, at the last timestep
    cosine_offset: float = 0.008
    mask_law: Literal["beta_batch", "uniform_batch", "uniform_cell"] = "uniform_batch"
    pretrain_mask_ratio: float = 0.5  # beta_batch: the factor before Beta(2, 5) in pretraining
    curriculum: tuple[float, float, float, int] = (0.3, 0.6, 0.9, 100_000)  # start, gain, ceiling, steps
    sampler: Literal["v1", "fixed"] = "fixed"
    sampling_schedule: Literal["cosine", "uniform", "geometric", "learned"] = "cosine"
    sampling_steps: int = 16
    order: Literal["random", "entropy"] = "random"  # which hidden genes are revealed first
    loss_curve: tuple[tuple[float, float], ...] = ()  # (share hidden, nats per gene) of the model, for "learned"

    def __post_init__(self) -> None:
        _require(0 < self.mask_ratio <= 1, f"mask_ratio is a share in (0, 1], not {self.mask_ratio}")
        _require(self.n_timesteps >= 2, f"n_timesteps must be at least 2, not {self.n_timesteps}")
        _require(self.sampling_steps >= 1, f"sampling_steps must be at least 1, not {self.sampling_steps}")
        _require(self.sampling_schedule != "learned" or bool(self.loss_curve),
                 'sampling_schedule="learned" needs loss_curve: measure it with validation_curve on training cells')


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
    ema_decay: float = 0.0  # 0: none
    target_dropout: float = 0.0  # share of sets whose target is replaced by "unknown target"
    perturbation_dropout: float = 0.0  # share of sets that keep their cells but lose the perturbation (for guidance)
    magnitude_dropout: float = 0.0  # share of sets whose magnitude is withheld: it is an outcome, rarely known
    control_share: float = 0.0  # share of sets made of control cells only
    controls_dropout: float = 0.0  # share of batches trained without any controls (the unconditional mode)
    log_interval: int = 50
    checkpoint_interval: int = 500
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        _require(self.precision in ("fp32", "bf16", "fp16"), f"precision is fp32, bf16 or fp16, not {self.precision!r}")
        for name in ("sets_per_batch", "cells_per_set", "controls_per_set", "log_interval", "checkpoint_interval"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def batch_size(self) -> int:
        """Cells in one step."""
        return self.sets_per_batch * self.cells_per_set


@dataclass(frozen=True)
class Config:
    """A whole preset."""

    name: str = "default"
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    pretrain: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=50))
    finetune: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=20))
    gene_vectors: Literal["random", "coexpression"] = "coexpression"  # what the gene table starts from

    def __post_init__(self) -> None:
        _require(self.model.n_bins == self.tokenizer.n_bins,
                 f"model and tokenizer disagree on n_bins: {self.model.n_bins} and {self.tokenizer.n_bins}")
        _require(self.model.n_timesteps == self.diffusion.n_timesteps,
                 "model and diffusion disagree on n_timesteps: "
                 f"{self.model.n_timesteps} and {self.diffusion.n_timesteps}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain nested data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Config":
        """Reads what `to_dict` wrote. Raises CDTError for a field that this version does not know."""
        return _from_dict(cls, data)


def _from_dict(cls: type, data: dict[str, Any]) -> Any:
    known = {f.name: f for f in fields(cls)}
    for key in data:
        if key not in known:
            raise CDTError(f"{cls.__name__} has no field {key!r}{suggest(key, known)} "
                           "(made by another version of cdt_lite?)")
    values = {}
    for key, value in data.items():
        kind = known[key].type
        if isinstance(kind, type) and is_dataclass(kind):
            value = _from_dict(kind, value)
        values[key] = _tuples(value)
    return cls(**values)


def _tuples(value: Any) -> Any:
    """JSON knows lists only; a frozen configuration holds tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


_V1_STAGE = TrainConfig(sets_per_batch=32, cells_per_set=1)
_V1 = Config(
    name="v1",
    tokenizer=TokenizerConfig(space="normalised"),
    model=ModelConfig(control_set_dropout=0.1, identity="position", time_input="timestep", modulation="add",
                      control_input="tokens", mask_in_logits=True, ordinal_input=False, depth_input=False,
                      target_flag=False, control_statistics=False, cell_summary=False, mean_effect=False,
                      unknown_target=False),
    diffusion=DiffusionConfig(mask_law="beta_batch", sampler="v1", sampling_steps=10),
    pretrain=replace(_V1_STAGE, epochs=50, controls_dropout=1.0),
    finetune=replace(_V1_STAGE, epochs=20),
    gene_vectors="random",
)
_DEFAULT_STAGE = TrainConfig(target_dropout=0.15, perturbation_dropout=0.1, magnitude_dropout=0.5,
                             control_share=0.1)
_DEFAULT = Config(name="default", pretrain=replace(_DEFAULT_STAGE, epochs=50, controls_dropout=0.5),
                  finetune=replace(_DEFAULT_STAGE, epochs=20))
_LITE_STAGE = replace(_DEFAULT_STAGE, learning_rate=2e-3, warmup_steps=100, sets_per_batch=6, controls_per_set=32)
_LITE = Config(
    name="lite",
    model=ModelConfig(dim=64, n_head=2, n_layer=3, n_genes=512, gene_embed_dim=32, perturb_magnitude_dim=16,
                      control_set_encoder_layers=1, control_set_dim_hidden=32, control_set_n_head=2,
                      control_set_dim_out=64),
    pretrain=replace(_LITE_STAGE, epochs=50, controls_dropout=0.5),
    finetune=replace(_LITE_STAGE, epochs=20),
)
PRESETS: dict[str, Config] = {"v1": _V1, "default": _DEFAULT, "lite": _LITE}


def get_preset(name: str) -> Config:
    """Returns a preset by name. Raises CDTError with close matches for an unknown one."""
    if name not in PRESETS:
        raise CDTError(f"there is no preset {name!r}{suggest(name, PRESETS)} Presets: {', '.join(PRESETS)}.")
    return PRESETS[name]
