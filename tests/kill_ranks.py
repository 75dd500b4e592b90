"""Ends one of two processes, or their launcher, at random moments.

By hand: python tests/kill_ranks.py [kills] [seed] [1 for a model in shards]

One run is killed again and again, each time gone on with by torchrun. After each kill the folder holds a whole
checkpoint, at most one interval is lost, and no process is left behind; in the end the run has the very bits of one
that nobody stopped, and its folder holds nothing else. Linux only.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Thread

import torch
import torch.distributed as dist
from ranks import begun

from cdt_lite.data.batches import SetSampler
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.train import train

INTERVAL, LIFE = 10, 1.5  # steps between two saves; seconds that a run lives at most, once it is under way
STEPS_A_KILL = 40


def train_on(folder, n_steps, shard):
    """One of the two: goes on from the folder, and says what it does."""
    torch.set_num_threads(1)
    dist.init_process_group()
    print(f"process {os.getpid()}", flush=True)
    checkpoint, data = begun("lite", "finetune")
    data = SetSampler(data.stores, replace(data.config, checkpoint_interval=INTERVAL))
    if (folder / "checkpoint.json").is_file():
        checkpoint = Checkpoint.load(folder, resume=True)
    for progress in train(checkpoint, data, steps=n_steps, out=folder, shard=shard):
        if not dist.get_rank():
            print(f"step {progress.step}", flush=True)
    dist.destroy_process_group()


class Launched:
    """torchrun with two processes, and what they said."""

    def __init__(self, folder, *numbers):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
        self.launcher = subprocess.Popen([*command, str(folder), *map(str, numbers)], stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True)
        self.lines, self.errors = [], []
        for pipe, kept in ((self.launcher.stdout, self.lines), (self.launcher.stderr, self.errors)):
            Thread(target=lambda pipe=pipe, kept=kept: kept.extend(pipe), daemon=True).start()

    def numbers(self, word):
        return [int(line.split()[1]) for line in list(self.lines) if line.startswith(word)]

    def wait_for(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"nothing for {seconds} s: {self.lines[-3:]} {''.join(self.errors)[-2000:]}")
            time.sleep(0.002)

    def kill(self, rng):
        """Ends one of the three with no warning, and waits until all are gone; returns who it was."""
        self.wait_for(lambda: self.numbers("step") or self.launcher.poll() is not None)
        time.sleep(rng.uniform(0, LIFE))
        who = rng.choice(["a process", "a process", "the launcher"])
        number = self.launcher.pid if who == "the launcher" else rng.choice(self.numbers("process"))
        if not is_there(number):
            return None
        os.kill(number, signal.SIGKILL)
        self.wait_for(lambda: not any(map(is_there, [self.launcher.pid, *self.numbers("process")])))
        return who


def is_there(number):
    """Says whether a process lives; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def differing(found, expected):
    """Names of tensors whose bits are not the same."""
    found, expected = (Checkpoint.load(folder, resume=True) for folder in (found, expected))
    mine = found.model.state_dict() | found.training
    theirs = expected.model.state_dict() | expected.training
    return [name for name, value in theirs.items() if not torch.equal(mine[name], value)]


def main(n_kills=30, seed=0, shard=0):
    rng, counts, lost = random.Random(seed), Counter(), Counter()
    n_steps = n_kills * STEPS_A_KILL
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "killed"
        for name in (whole, folder):
            name.mkdir()
        Launched(whole, n_steps, shard).launcher.wait()
        while sum(lost.values()) < n_kills:
            run = Launched(folder, n_steps, shard)
            who = run.kill(rng)
            step = Checkpoint.load(folder, resume=True).step if (folder / "checkpoint.json").is_file() else 0
            if who is None:
                raise SystemExit(f"the run ended by itself after {dict(counts)}: raise STEPS_A_KILL")
            counts[who] += 1
            counts["left half a save"] += len(list(folder.iterdir())) > 2
            lost[max(run.numbers("step")[-1] - step, 0)] += 1
            print(f"{sum(lost.values()):3d} {who}, at step {run.numbers('step')[-1]}, saved {step}", flush=True)
        Launched(folder, n_steps, shard).launcher.wait()
        others, n_files = differing(folder, whole), len(list(folder.iterdir()))
    print(dict(counts), "steps lost:", dict(sorted(lost.items())), f"of an interval of {INTERVAL}")
    print("other bits:", others or "none", "files in the end:", n_files)
    return int(max(lost) > INTERVAL or bool(others) or n_files != 2)


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        train_on(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    else:
        sys.exit(main(*map(int, sys.argv[1:])))
