"""Trains a small model, alone or as one of several processes: python train_together.py CASE ...

Each process runs all of this. Of the cases, "half" is stopped half way if nothing is there to go on from, and "cut"
keeps the model in shards.
"""

import json
import sys
import time
from pathlib import Path

import torch

from cdt_lite import Checkpoint, SetSampler, TokenStore, train
from cdt_lite.training.processes import joined, n_processes, rank

STEPS = 24


def run(case: str) -> None:
    """Trains one case to its end, and writes what this process saw of it."""
    goes_on = Path(case, "checkpoint.json").is_file()
    checkpoint = Checkpoint.load(case if goes_on else "begun", resume=goes_on)
    data = SetSampler(TokenStore.open("tokens"), checkpoint.config.finetune)
    stop = STEPS // 2 if case == "half" and not goes_on else STEPS
    losses, began = {}, time.perf_counter()
    for progress in train(checkpoint, data, steps=STEPS, out=case, shard=case == "cut"):
        losses[progress.step] = progress.loss
        if progress.step == stop:
            break
    seconds = (time.perf_counter() - began) / len(losses)
    weights = sum(getattr(own, "to_local", lambda own=own: own)().numel() for own in checkpoint.model.parameters())
    facts = {"case": case, "of": n_processes(), "process": rank(), "weights": weights, "seconds": seconds}
    name = f"{case}, process {rank()} of {n_processes()}.json"
    Path(name).write_text(json.dumps({**facts, "losses": losses}), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu"):
        for each in sys.argv[1:]:
            run(each)
