"""A model with all that is needed to use it, on disk as safetensors + JSON, written so that a crash loses nothing.

A checkpoint is a folder: `checkpoint.json` and a weights file whose name holds its own hash. The weights are written
first, the JSON is replaced last, in one step: whatever stops the program, the folder holds a whole checkpoint.
A capsule is a small trained checkpoint that ships with the package: half precision, and of the gene table only the rows
that training moved.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import dacite
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cdt_lite import __version__
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError
from cdt_lite.files import hash_of, locked, named, replacing, sync_folder, write_atomically
from cdt_lite.model import CDT, V1, MaskedDiffusion, V1Diffusion, build
from cdt_lite.model.config import Config
from cdt_lite.training import hub
from cdt_lite.training.prior import GeneVectors, prior_of, prior_tensors

SCHEMA_VERSION = 4
GENE_TABLE = "gene_table.weight"
READ_AGAIN = 20  # times, while a writer is at work beside the reader
SAVE_SECONDS = 60.0  # how long a save waits for another one
T = TypeVar("T")
REMEDY = "Point to a folder written by cdt_lite, or make one: cdt-lite pretrain, finetune or capsule."


@dataclass(frozen=True)
class _Facts:
    """What a header says beside its hashes, with the types that it must have."""

    config: dict
    vocabulary: list[str]
    panel: list[str]
    target_depth: float
    trained_targets: list[str]
    seed: int
    stage: Literal["new", "pretrain", "finetune"]
    step: int
    card: dict

    def __post_init__(self) -> None:
        if not (0 <= self.seed < 2**63 and self.step >= 0):
            raise CDTError(f"seed and step must be whole numbers from 0, not {self.seed} and {self.step}")


@dataclass
class Checkpoint:
    """A model, its vocabulary, its bins, and how far it has come."""

    model: CDT | V1
    process: MaskedDiffusion | V1Diffusion  # how it is trained and sampled from
    config: Config  # the preset it was made from
    tokenizer: Tokenizer  # bins and target depth
    vocabulary: Vocabulary  # gene symbol of every row in use
    panel: list[str]  # gene symbols of the screen it was made for, in order
    trained_targets: list[str] = field(default_factory=list)  # whose perturbation was seen in fine-tuning
    seed: int = 0  # of the initial weights
    stage: str = "new"  # or "pretrain", "finetune"
    step: int = 0  # training steps done in that stage
    card: dict[str, Any] = field(default_factory=dict)  # provenance: data, hashes, time, scores
    training: dict[str, Tensor] = field(default_factory=dict)  # optimizer state, while training goes on
    prior: GeneVectors | None = None  # what is known of genes beforehand

    from_pretrained = classmethod(hub.from_pretrained)
    save_pretrained = hub.save_pretrained

    def save(self, folder: str | Path, half: bool = False, tensors: dict[str, Tensor] | None = None) -> Path:
        """Writes the checkpoint and returns its folder.

        Args:
            folder: Where to.
            half: Make a capsule: half precision, no training state.
            tensors: Model and training state, where they are not in this process's memory.

        Raises:
            CDTError: A weight is not finite (what was there stays), or the folder cannot be written.
        """
        folder = open_folder(folder)
        if tensors is None:
            tensors = _capsule_tensors(self) if half else _all_tensors(self)
        tensors = tensors | prior_tensors(self.prior)
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        _require_finite(tensors, "nothing was saved")
        with locked(folder, "save", "a save", seconds=SAVE_SECONDS):
            fresh = folder / ".weights-new"  # until their hash, and so their name, is known
            try:
                with replacing(fresh) as temporary:
                    save_file(tensors, temporary)
            except (SafetensorError, OSError) as error:
                raise CDTError(f"nothing was saved to {folder}: {error}. Make room, or name another folder") from error
            digest = hash_of(fresh)
            weights = f"weights-{digest[:12]}.safetensors"
            header = {"schema": SCHEMA_VERSION, "weights": weights, "sha256": digest, "capsule": half, **self.header()}
            header["header_sha256"] = header_hash(header)
            fresh.replace(folder / weights)
            sync_folder(folder)
            write_atomically(folder / "checkpoint.json", (json.dumps(header, indent=1) + "\n").encode())
            for old in folder.glob("weights-*.safetensors"):
                if old.name != weights:
                    with suppress(PermissionError):  # Windows keeps what someone reads; the next save removes it
                        old.unlink()
        return folder

    def header(self) -> dict[str, Any]:
        """Returns everything but the weights, as plain data."""
        return {
            "config": asdict(replace(self.config, tokenizer=self.tokenizer.config)),
            "vocabulary": self.vocabulary.symbols,
            "panel": self.panel,
            "target_depth": self.tokenizer.target_depth,
            "trained_targets": self.trained_targets,
            "seed": self.seed,
            "stage": self.stage,
            "step": self.step,
            "card": self.card,
        }

    @classmethod
    def load(cls, folder: str | Path, resume: bool = False) -> "Checkpoint":
        """Reads a checkpoint or a capsule.

        Args:
            folder: What `save` wrote.
            resume: Take the optimizer's state, too, to go on training.

        Raises:
            CDTError: The folder holds none, it is damaged, or another version of the schema wrote it.
        """
        header, tensors = read_verified(named(folder))
        facts = _parsed(_Facts, {name: value for name, value in header.items() if name in _Facts.__annotations__})
        config = read_config(facts.config)
        _check_sizes(config, tensors, folder)
        model, process = build(config, facts.seed)
        _load_weights(model, tensors, folder, facts.card)
        state = {}
        if resume:
            state = {name: value for name, value in tensors.items() if name.startswith("optimizer.")}
        vocabulary = Vocabulary(facts.vocabulary, config.model.n_total_genes)
        vocabulary.ids(facts.panel)  # all are known
        tokenizer = Tokenizer(config.tokenizer, facts.target_depth)
        return cls(model, process, config, tokenizer, vocabulary, facts.panel, facts.trained_targets, facts.seed,
                   facts.stage, facts.step, facts.card, state, prior_of(tensors))


def open_folder(folder: str | Path) -> Path:
    """Makes a folder to write to, and writes to it. Raises CDTError where that cannot be done."""
    folder = named(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".probe", b"")
        (folder / ".probe").unlink(missing_ok=True)
    except OSError as error:
        raise CDTError(f"nothing can be written to {folder}: {error}. Name another folder, or make room") from error
    return folder


def header_hash(header: dict[str, Any]) -> str:
    """Returns the hash of a header's content, its own hash left out."""
    content = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _require_finite(tensors: dict[str, Tensor], remedy: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CDTError(f"{name} holds values that are not finite: {remedy}")


def read_config(data: dict[str, Any]) -> Config:
    """Reads a preset from plain data. Raises CDTError for a field that this version does not know."""
    return _parsed(Config, data)


def _parsed(kind: type[T], data: dict[str, Any]) -> T:
    try:
        return dacite.from_dict(kind, data, dacite.Config(strict=True, cast=[tuple], type_hooks={float: float}))
    except CDTError:
        raise
    except (dacite.DaciteError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CDTError(f"the configuration does not fit ({error}): made by another version of cdt_lite?") from error


def read_verified(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns a checkpoint's header and its tensors, mapped from disk, after checking schema, presence and hashes.

    A writer may replace both between two looks, so a look that does not fit is taken again.
    """
    for _ in range(READ_AGAIN):
        before = _stamp(folder)
        try:
            return _read_once(folder)
        except CDTError:
            if _stamp(folder) == before:
                raise
    return _read_once(folder)


def _stamp(folder: Path) -> tuple[int, int] | None:
    """What changes with every save: weights go only after the header that names them has been replaced."""
    try:
        about = (folder / "checkpoint.json").stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ino


def _read_once(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = folder / "checkpoint.json"
    if not path.is_file():
        raise CDTError(f"no checkpoint in {folder} (checkpoint.json is missing). {REMEDY}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        schema, weights, digest = header["schema"], folder / header["weights"], header["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CDTError(f"{path} is not a checkpoint of cdt_lite ({error!r}). {REMEDY}") from error
    if schema != SCHEMA_VERSION:
        made_by = header.get("card", {}).get("cdt_lite", "unknown")
        raise CDTError(f"{path} has schema {schema}, this version reads {SCHEMA_VERSION}: remake it with this version "
                       f"or install the one that made it ({made_by}).")
    if header.get("header_sha256") != header_hash(header):
        raise CDTError(f"{path} was altered: its content does not have the hash that it names. {REMEDY}")
    try:
        found = hash_of(weights)
    except (OSError, ValueError):  # none, or a name that no file can have
        found = ""
    if found != digest:
        raise CDTError(f"{weights} is missing, truncated or altered: its hash is not that in checkpoint.json. {REMEDY}")
    try:
        return header, load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CDTError(f"{weights} is not a safetensors file ({error}). {REMEDY}") from error


def _check_sizes(config: Config, tensors: dict[str, Tensor], folder: str | Path) -> None:
    """Refuses sizes that the file's own tensors do not have, before a model of those sizes is made."""
    _require_finite(tensors, f"{folder} holds no usable model. {REMEDY}")
    layers = {name.split(".")[2] for name in tensors if name.startswith("model.blocks.")}
    head = tensors.get("model.head.weight", torch.empty(0, 0))
    table = tensors.get("gene_vectors", tensors.get(f"model.{GENE_TABLE}", torch.empty(0, 0)))
    found = (len(layers), head.shape[-1], table.shape[-1])
    told = (config.model.n_layer, config.model.dim, config.model.gene_embed_dim)
    if found != told:
        raise CDTError(f"the weights in {folder} do not fit their header: n_layer, dim, gene_embed_dim: {found}, and "
                       f"{told} in checkpoint.json. {REMEDY}")


def _load_weights(model: CDT | V1, tensors: dict[str, Tensor], folder: str | Path, card: dict[str, Any]) -> None:
    weights = {}
    for name, value in tensors.items():
        if name.startswith("model."):
            weights[name.removeprefix("model.")] = value.float() if value.is_floating_point() else value
    if "gene_rows" in tensors:
        table = model.gene_table.weight.detach().clone()
        table[tensors["gene_rows"].long()] = tensors["gene_vectors"].float()
        weights[GENE_TABLE] = table
    if model.effect is not None:
        prefix = "embed.effect."
        model.effect.make_room({name.removeprefix(prefix): w.shape for name, w in weights.items() if prefix in name})
        if not model.effect.fits():
            raise CDTError(f"the table of mean effects in {folder} has parts that do not fit each other. {REMEDY}")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        made_by = card.get("cdt_lite", "unknown")
        raise CDTError(f"the weights in {folder} do not fit the model that this version builds: they were made by "
                       f"cdt_lite {made_by}, this is {__version__}. Remake them, or install that version. ({reason})"
                       ) from error
    model.eval()


def _all_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in checkpoint.model.state_dict().items()}
    return tensors | checkpoint.training


def _capsule_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    state = checkpoint.model.state_dict()
    table = state.pop(GENE_TABLE).cpu()
    fresh, _ = build(checkpoint.config, checkpoint.seed)
    rows = (table != fresh.gene_table.weight).any(1).nonzero()[:, 0]
    tensors = {"gene_rows": rows.to(torch.int32), "gene_vectors": table[rows].half()}
    for name, value in state.items():
        tensors[f"model.{name}"] = value.half() if value.is_floating_point() else value.int()
    return tensors
