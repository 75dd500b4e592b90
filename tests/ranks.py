"""What several processes do in the tests: torchrun tests/ranks.py FOLDER. The first one writes what came of it."""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from helpers import tiny, toy_screen
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.training import shards
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start
from cdt_lite.training.train import train

STEPS, HALF = 50, 25
CASES = {"lite": ("lite", "finetune", False), "shard": ("lite", "finetune", True), "v1": ("v1", "finetune", False),
         "pretrain": ("lite", "pretrain", False)}


def begun(preset, stage):
    """A new model and its batches, of six sets; half of those of pretraining come without controls."""
    config = tiny(preset)
    screen, other = toy_screen(), toy_screen(seed=1, n_genes=10)
    checkpoint = start(config, screen)
    stores = [TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary) for cells in (screen, other)]
    changed = replace(getattr(config, stage), sets_per_batch=6, controls_dropout=0.5 if stage == "pretrain" else 0.0)
    only = stores if stage == "pretrain" and preset == "lite" else stores[:1]
    return checkpoint, SetSampler(only, changed, stage)


def run(case, out, steps=STEPS):
    """Trains a case, or goes on with what `out` holds of it; returns the losses."""
    preset, stage, shard = CASES[case]
    checkpoint, data = begun(preset, stage)
    if (out / "checkpoint.json").is_file():
        checkpoint = Checkpoint.load(out, resume=True)
    losses = []
    for progress in train(checkpoint, data, steps=STEPS, out=out, shard=shard and dist.is_initialized()):
        losses.append(progress.loss)
        if progress.step == steps:
            break
    return losses


def noting_sizes(sizes):
    """Lets `shards.whole` note how much it gathers."""
    whole = shards.whole

    def noted(value):
        found = whole(value)
        if found is not value:
            sizes.append(found.numel())
        return found

    shards.whole = noted


def assembled(folder):
    """Puts a state together; says which of its tensors the first process has, whole, or why that was refused."""
    folder.mkdir(exist_ok=True)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    state = {"rows": torch.randn(7, 5), "one row": torch.randn(1, 3), "vector": torch.randn(9),
             "cube": torch.randn(5, 3, 2)}
    cut = {name: distribute_tensor(value, mesh, [Shard(0)]) for name, value in state.items()}
    state = {name: value.full_tensor() for name, value in cut.items()}
    whole = {"number": torch.tensor(3.5), "integers": torch.arange(4), "none": torch.zeros(0, 0)}
    try:
        with shards.assembled(cut | whole, folder) as found:
            if dist.get_rank():
                return []
            return [name for name, value in (state | whole).items() if torch.equal(found[name], value)]
    except CDTError as error:
        return str(error)


def in_trouble(folder):
    """The same where the second process writes to another disk, and where its disk is full."""
    writer, fsync, second = dcp.HuggingFaceStorageWriter, os.fsync, dist.get_rank() == 1

    def elsewhere(place, **options):
        return writer(f"{place}-elsewhere", **options)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    if second:
        dcp.HuggingFaceStorageWriter = elsewhere
    apart = assembled(folder / "apart")
    dcp.HuggingFaceStorageWriter = writer
    if second:
        os.fsync = full
    crowded = assembled(folder / "full")
    os.fsync = fsync
    return apart, crowded


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group()
    sizes = []
    noting_sizes(sizes)
    losses = {case: run(case, folder / case) for case in CASES}
    losses["largest gathered"] = max(sizes)
    losses["assembled"], (losses["apart"], losses["full"]) = assembled(folder / "assembled"), in_trouble(folder)
    losses["half"] = run("lite", folder / "half", HALF)
    losses["resumed"] = run("shard", folder / "resumed")
    if dist.get_rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
