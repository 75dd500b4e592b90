"""A model with all that is needed to use it, on disk as safetensors + JSON, written so that a crash loses nothing.

A checkpoint is a folder: `checkpoint.json` and a weights file whose name holds its own hash. The weights are written
first, the JSON is replaced last, in one step: whatever stops the program, the folder holds a whole checkpoint.
A capsule is a small checkpoint: half precision, and of the gene table only the rows that training moved.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cdt_lite import __version__
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError
from cdt_lite.files import write_atomically
from cdt_lite.model.cdt import CDT
from cdt_lite.model.config import Config

SCHEMA_VERSION = 1
GENE_TABLE = "gene_table.weight"


@dataclass
class Checkpoint:
    """A model, its vocabulary, its bins, and how far it has come.

    Args:
        model: The network.
        config: The preset it was made from.
        tokenizer: Bins and target depth.
        vocabulary: Gene symbol of every row in use.
        panel: Gene symbols of the screen it was made for, in order.
        control_depths: Total counts of training control cells (a sample), for the record.
        trained_targets: Targets whose perturbation was seen in fine-tuning.
        seed: Seed of the initial weights.
        stage: "new", "pretrain" or "finetune".
        step: Training steps done in that stage.
        card: Free-form provenance: data, hashes, time, scores.
        training: Optimizer state and moving average, while training goes on.
    """

    model: CDT
    config: Config
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    panel: list[str]
    control_depths: list[float] = field(default_factory=list)
    trained_targets: list[str] = field(default_factory=list)
    seed: int = 0
    stage: str = "new"
    step: int = 0
    card: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Tensor] = field(default_factory=dict)

    def save(self, folder: str | Path, half: bool = False) -> Path:
        """Writes the checkpoint and returns its folder; `half` makes a capsule (no training state)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = _capsule_tensors(self) if half else {
            **{f"model.{k}": v for k, v in self.model.state_dict().items()}, **self.training}
        blob = save_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        digest = hashlib.sha256(blob).hexdigest()
        weights = f"weights-{digest[:12]}.safetensors"
        write_atomically(folder / weights, blob)
        header = {"schema": SCHEMA_VERSION, "weights": weights, "sha256": digest, "capsule": half, **self.header()}
        write_atomically(folder / "checkpoint.json", (json.dumps(header, indent=1) + "\n").encode())
        for old in folder.glob("weights-*.safetensors"):
            if old.name != weights:
                old.unlink()
        return folder

    def header(self) -> dict[str, Any]:
        """Returns everything but the weights, as plain data."""
        return {"config": self.config.to_dict(), "vocabulary": self.vocabulary.symbols, "panel": self.panel,
                "target_depth": self.tokenizer.target_depth, "bin_edges": self.tokenizer.edges.tolist(),
                "control_depths": self.control_depths, "trained_targets": self.trained_targets, "seed": self.seed,
                "stage": self.stage, "step": self.step, "card": self.card}

    @classmethod
    def load(cls, folder: str | Path, resume: bool = False) -> "Checkpoint":
        """Reads a checkpoint or a capsule.

        Args:
            folder: What `save` wrote.
            resume: Take the weights as training left them, with the optimizer's state, to go on training; by default
                the model holds the moving average of its weights, if there is one.

        Raises:
            CDTError: The folder holds none, it is damaged, or another version of the schema wrote it.
        """
        header, blob = read_verified(Path(folder))
        config = Config.from_dict(header["config"])
        model = CDT(config.model, seed=header["seed"])
        tensors = load_tensors(blob)
        prefix = "model." if resume or not any(k.startswith("ema.") for k in tensors) else "ema."
        weights = {k.removeprefix(prefix): v.float() if v.is_floating_point() else v for k, v in tensors.items()
                   if k.startswith(prefix)}
        if "gene_rows" in tensors:
            table = model.state_dict()[GENE_TABLE].clone()
            table[tensors["gene_rows"].long()] = tensors["gene_vectors"].float()
            weights[GENE_TABLE] = table
        if model.embed.effect is not None and "embed.effect.effect" in weights:
            model.embed.effect.make_room(weights["embed.effect.effect"].shape)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise CDTError(f"the weights in {folder} do not fit the model that this version builds: they were made by "
                           f"cdt_lite {header['card'].get('cdt_lite', 'unknown')}, this is {__version__}. Remake them, "
                           f"or install that version. ({str(error).splitlines()[-1].strip()})") from error
        model.eval()
        training = {k: v for k, v in tensors.items() if resume and k.startswith(("ema.", "optimizer."))}
        tokenizer = Tokenizer(config.tokenizer, header["target_depth"])
        return cls(model, config, tokenizer, Vocabulary(header["vocabulary"], config.model.n_total_genes),
                   header["panel"], header["control_depths"], header["trained_targets"], header["seed"],
                   header["stage"], header["step"], header["card"], training)


def _capsule_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    state = checkpoint.model.state_dict()
    fresh = CDT(checkpoint.config.model, seed=checkpoint.seed).state_dict()[GENE_TABLE]
    rows = (state[GENE_TABLE].cpu() != fresh).any(1).nonzero()[:, 0]
    tensors = {f"model.{k}": v.half() if v.is_floating_point() else v.int() for k, v in state.items()
               if k != GENE_TABLE}
    return tensors | {"gene_rows": rows.to(torch.int32), "gene_vectors": state[GENE_TABLE].cpu()[rows].half()}


def read_verified(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Returns a checkpoint's header and the bytes of its weights, after checking schema, presence and hash."""
    remedy = "Point to a folder written by cdt_lite, or make one: cdt-lite pretrain, finetune or capsule."
    path = folder / "checkpoint.json"
    if not path.is_file():
        raise CDTError(f"no checkpoint in {folder} (checkpoint.json is missing). {remedy}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        schema, weights, digest = header["schema"], folder / header["weights"], header["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CDTError(f"{path} is not a checkpoint of cdt_lite ({error!r}). {remedy}") from error
    if schema != SCHEMA_VERSION:
        raise CDTError(f"{path} has schema {schema}, this version reads {SCHEMA_VERSION}: remake it with this version "
                       f"or install the one that made it ({header.get('card', {}).get('cdt_lite', 'unknown')}).")
    blob = weights.read_bytes() if weights.is_file() else b""
    if hashlib.sha256(blob).hexdigest() != digest:
        raise CDTError(f"{weights} is missing, truncated or altered: its hash is not that in checkpoint.json. {remedy}")
    try:
        load_tensors(blob)
    except SafetensorError as error:
        raise CDTError(f"{weights} is not a safetensors file ({error}). {remedy}") from error
    return header, blob
