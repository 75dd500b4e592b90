"""Capsules: small trained checkpoints that ship with the package, each made by one command, described by its card."""

import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch

from cdt_lite import __version__
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.gene_sets import Sets
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.public import blood_cells
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.files import user_folder
from cdt_lite.model.config import Config, TrainConfig
from cdt_lite.model.diffusion import SHARES
from cdt_lite.training.checkpoint import Checkpoint, open_folder
from cdt_lite.training.start import start
from cdt_lite.training.train import Progress, train, validation_curve

CAPSULES = Path(__file__).resolve().parents[1] / "capsules"  # those that ship
MAX_BYTES = 2_000_000
N_LOOKS = 12  # at held-out cells, in each stage
CURVE_POINTS = 60  # of a loss curve on a card
LIMITS = (
    "Made for teaching: one panel, and {cells}. An unseen target is predicted from what genes like it did, by {like}; "
    "one that is like none, as the average perturbation. Genes of generated cells vary together less than those of "
    "real ones, and fewer of them escape their perturbation. Scores beside baselines: figures/results.md."
)
LEARNED = ("magnitudes", "contexts", "validation")  # what fine-tuning itself writes on the card
READ = (
    "the screen's own training cells",
    "blood cells, scanpy.datasets.pbmc68k_reduced (Zheng et al. 2017, 10x Genomics)",
    "4,000 cells of another simulated screen, seed 1",
)


def capsule_folder(screen: ad.AnnData, preset: str = "lite") -> Path:
    """Returns the folder of a screen's capsule: one that was made on this machine, else the one that ships."""
    own = _own_folder(screen, preset)
    return own if (own / "checkpoint.json").is_file() else CAPSULES / f"{preset}-{screen.uns['screen']['name']}"


def _own_folder(screen: ad.AnnData, preset: str) -> Path:
    """Where a capsule that is made here for exactly these cells goes."""
    facts = screen.uns["screen"]
    return user_folder("data") / "capsules" / f"{preset}-{facts['name']}-{facts['sha256'][:8]}"


def open_capsule(screen: ad.AnnData, preset: str, out: str | Path | None = None, overwrite: bool = False) -> Path:
    """Makes the folder that a new capsule is to be written to.

    Args:
        screen: The cells it is for.
        preset: Of its model.
        out: The folder; None: the user's own, where `load_capsule` looks first.
        overwrite: Let it take the place of another one.

    Raises:
        CDTError: There is a model already, shipped or made here; or the folder cannot be written.
    """
    folder = Path(out or _own_folder(screen, preset))
    there = folder if out else capsule_folder(screen, preset)
    if (there / "checkpoint.json").is_file() and not overwrite:
        found = Checkpoint.load(there)
        cells = found.card.get("screen", {}).get("sha256")
        if there == folder or cells == screen.uns["screen"]["sha256"]:
            raise CDTError(f"{there} holds a model ({found.stage}, {found.step} steps) whose place a new one would "
                           "take: allow it (--overwrite), or name another folder (--out)")
    return open_folder(folder)


def load_capsule(screen: ad.AnnData, preset: str = "lite") -> Checkpoint:
    """Loads the capsule of a screen: one that was made here, else the one that ships.

    Raises:
        CDTError: There is none, or it was made for another panel; the message says which command makes it.
    """
    folder, name = capsule_folder(screen, preset), screen.uns["screen"]["name"]
    remedy = f"Make it with: cdt-lite capsule --screen {name}"
    if not (folder / "checkpoint.json").is_file():
        raise CDTError(f"no capsule for the screen {name!r} yet. {remedy}")
    capsule = Checkpoint.load(folder)
    if capsule.panel != list(screen.var_names):
        made_by = f"by cdt_lite {capsule.card.get('cdt_lite', 'unknown')}"
        raise CDTError(f"the capsule {folder.name} was made for another panel than this {name!r} ({made_by}). {remedy}")
    return capsule


def save_capsule(checkpoint: Checkpoint, folder: str | Path) -> Path:
    """Writes a capsule. Raises CDTError, and writes nothing, when it is larger than 2 MB."""
    with tempfile.TemporaryDirectory() as trial:
        size = sum(file.stat().st_size for file in checkpoint.save(trial, half=True).iterdir())
    if size > MAX_BYTES:
        raise CDTError(f"a capsule for {folder} would have {size:,} bytes, more than {MAX_BYTES:,}: too large to ship")
    return checkpoint.save(folder, half=True)


def pretraining_cells(training_cells: ad.AnnData) -> list[ad.AnnData]:
    """Returns what pretraining reads: the screen's own training cells, real blood cells, simulated cells.

    Their panels differ; the gene vocabulary joins them. Labels of perturbations are not used. The simulated cells come
    from another world than the simulated screen, so their genes get names of their own.
    """
    blood, simulated = blood_cells(), simulate_screen(n_cells=4000, seed=1)
    blood.obs["batch"] = blood.obs["cell_type"]
    simulated.var_names = "other_" + simulated.var_names
    simulated.obs = simulated.obs[["batch"]]
    return [training_cells, blood, simulated]


def make_capsule(screen: ad.AnnData, config: Config, *, gene_sets: Sets | None = None,
                 pretrain_steps: int | None = None, finetune_steps: int | None = None, seed: int = 0
                 ) -> Iterator[Progress | Checkpoint]:
    """Pretrains and fine-tunes a model on the training side of a screen's named split.

    A stage without a number of steps lasts the preset's epochs (50 and 20, as in the original document).
    Yields Progress after every step, and last the Checkpoint, its card filled in: what, on what, how long, how good.
    """
    began, side = time.perf_counter(), named_split(screen)
    cells = pretraining_cells(screen[side == "train"].copy())
    checkpoint = start(config, *cells, gene_sets=gene_sets, seed=seed)
    hidden = set(screen.obs["target_gene"]) - {CONTROL}
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(hidden))  # a name to ask for, with no trained vector
    stores = [TokenStore.from_adata(c, checkpoint.tokenizer, checkpoint.vocabulary) for c in cells]
    curves: dict[str, Any] = {}
    looks: list[dict[str, Any]] = []
    for stage, data, steps in (("pretrain", stores, pretrain_steps), ("finetune", stores[0], finetune_steps)):
        stage_config: TrainConfig = replace(getattr(config, stage), seed=seed)
        held_out, losses = held_out_sets(checkpoint, screen, side, stage), []
        for progress in train(checkpoint, SetSampler(data, stage_config, stage), steps=steps):
            losses.append(progress.loss)
            if progress.step * N_LOOKS // progress.n_steps > (progress.step - 1) * N_LOOKS // progress.n_steps:
                loss = validation_curve(checkpoint, held_out, n_batches=4).mean()
                looks.append({"stage": stage, "step": progress.step, "nats_per_gene": round(float(loss), 4)})
            yield progress
        curves[stage] = _thin(losses)
    learned = {name: checkpoint.card[name] for name in LEARNED if name in checkpoint.card}
    checkpoint.card = learned | _card(checkpoint, screen, side, stores)
    checkpoint.card |= {"seconds": round(time.perf_counter() - began), "curves": curves, "looks": looks}
    yield checkpoint


def held_out_sets(checkpoint: Checkpoint, screen: ad.AnnData, side: np.ndarray, stage: str = "finetune") -> SetSampler:
    """Draws cells of held-out replicates, and controls to show with them: looked at, never trained or chosen on.

    In pretraining no perturbation is told, since none was learned, and the other cells stand for controls.
    """
    chosen = side == "held_out"
    if stage == "finetune":
        chosen = chosen | (screen.obs["target_gene"] == CONTROL).to_numpy()
    store = TokenStore.from_adata(screen[chosen], checkpoint.tokenizer, checkpoint.vocabulary)
    quiet = replace(checkpoint.config.finetune, control_share=0.0, target_dropout=0.0, perturbation_dropout=0.0,
                    validation_share=0.0)
    return SetSampler(store, quiet, stage)


def _thin(losses: list[float]) -> dict[str, list]:
    """A loss curve as means of neighbouring steps."""
    parts = np.array_split(np.array(losses), min(CURVE_POINTS, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    means = [round(float(part.mean()), 4) for part in parts]
    return {"step": ends.tolist(), "nats_per_gene": means}


def _card(checkpoint: Checkpoint, screen: ad.AnnData, side: np.ndarray, stores: list[TokenStore]) -> dict[str, Any]:
    curve = validation_curve(checkpoint, held_out_sets(checkpoint, screen, side), n_batches=16)
    facts, obs = dict(screen.uns["screen"]), screen.obs
    names = [name for name in ("name", "version", "licence", "attribution", "sha256") if name in facts]
    held_out = obs[side == "held_out"]
    like = "co-expression" if checkpoint.prior is None else "co-expression or gene sets, as the likelihood chose"
    pretrained_on = []
    for what, store in zip(READ, stores, strict=True):
        read = {"what": what, "cells": len(store), "genes": len(store.gene_ids), "tokens": store.digest()}
        pretrained_on.append(read)
    return {
        "cdt_lite": __version__, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}, CPU",
        "seed": checkpoint.seed, "preset": checkpoint.config.name,
        "screen": {name: str(facts[name]) for name in names},
        "cells": {name: int((side == name).sum()) for name in sorted(set(side))},
        "data": [stores[0].digest()], "pretrained_on": pretrained_on,
        "unseen_targets": sorted(set(obs["target_gene"][side == "unseen"].astype(str))),
        "held_out": sorted(set(held_out["target_gene"].astype(str) + " in " + held_out["batch"].astype(str))),
        "held_out_curve": {"share_hidden": list(SHARES), "nats_per_gene": curve.round(4).tolist()},
        "limits": LIMITS.format(cells="simulated cells" if "truth" in screen.uns else "one cell line", like=like),
    }
