"""Trains a small model, alone or as one of several processes: python train_together.py CASE ...

Each process runs all of this. Of the cases, "half" is stopped half way if nothing is there to go on from, and "cut"
keeps the model in shards.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cdt_lite import Checkpoint, SetSampler, TokenStore, train
from cdt_lite.training.processes import joined, n_processes, rank

STEPS = 16


def run(case: str, folder: Path = Path()) -> None:
    """Trains one case to its end, and writes what this process saw of it."""
    goes_on = (folder / case / "checkpoint.json").is_file()
    checkpoint = Checkpoint.load(folder / case if goes_on else folder / "begun", resume=goes_on)
    data = SetSampler(TokenStore.open(folder / "tokens"), checkpoint.config.finetune)
    stop = STEPS // 2 if case == "half" and not goes_on else STEPS
    losses, ended = {}, []
    for progress in train(checkpoint, data, steps=STEPS, out=folder / case, shard=case == "cut"):
        losses[progress.step] = progress.loss
        ended.append(time.perf_counter())
        if progress.step == stop:
            break
    parts = [getattr(own, "to_local", lambda own=own: own)() for own in checkpoint.model.parameters()]
    facts = {"case": case, "process": rank(), "weights": sum(part.numel() for part in parts), "losses": losses,
             "seconds": float(np.median(np.diff(ended)))}
    path = folder / f"{case}, process {rank()} of {n_processes()}.json"
    path.write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu"):
        for each in sys.argv[1:]:
            run(each)
