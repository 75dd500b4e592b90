"""What several processes do in the tests: torchrun tests/ranks.py FOLDER. The first one writes what came of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from helpers import tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
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


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group()
    losses = {case: run(case, folder / case) for case in CASES}
    losses["half"] = run("lite", folder / "half", HALF)
    losses["resumed"] = run("shard", folder / "resumed")
    if dist.get_rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
