"""Ends training processes at random moments and looks at what is left. By hand: python tests/kills.py [kills] [seed]

After each kill: the folder holds a whole checkpoint, at most one interval is lost, the run that goes on ends with the
very bits of one that nobody stopped, and it leaves nothing in the folder but its checkpoint. A fifth of the kills fall
inside a save, a fifth on two trainers that want one folder.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from helpers import tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start
from cdt_lite.training.train import train

STEPS, INTERVAL = 40, 4
SCREEN, CONFIG = toy_screen(), tiny()


def sampler(checkpoint):
    store = TokenStore.from_adata(SCREEN, checkpoint.tokenizer, checkpoint.vocabulary)
    return SetSampler(store, replace(CONFIG.finetune, checkpoint_interval=INTERVAL))


def begun(folder):
    """The run of a folder, to go on with, or a new one."""
    if (folder / "checkpoint.json").is_file():
        return Checkpoint.load(folder, resume=True)
    return start(CONFIG, SCREEN)


def go_on(folder, say=lambda line: None):
    """Trains to the end of the stage."""
    checkpoint = begun(folder)
    for progress in train(checkpoint, sampler(checkpoint), steps=STEPS, out=folder):
        say(f"step {progress.step}")
    return checkpoint


class Trainer:
    """A process that trains, and a pipe in which it says what it does."""

    def __init__(self, folder):
        self.lines, self.rest = [], ""
        self.pipe, end = os.pipe()
        self.process = os.fork()
        if not self.process:
            os.close(self.pipe)
            os._exit(self._train(folder, lambda line: os.write(end, f"{line}\n".encode())))
        os.close(end)
        os.set_blocking(self.pipe, False)

    def _train(self, folder, say):
        save = Checkpoint.save

        def saved(*arguments, **named):
            say("saving")
            path = save(*arguments, **named)
            say("saved")
            return path

        Checkpoint.save = saved
        while True:
            try:
                go_on(folder, say)
                say("done")
                return 0
            except CDTError as error:
                if "in use by" not in str(error) and "holds a run of" not in str(error):
                    say(f"failed {error}")
                    return 1
                say("refused")
                time.sleep(0.003)

    def hear(self):
        """Reads what was said so far; returns all of it."""
        try:
            while chunk := os.read(self.pipe, 65536):
                self.rest += chunk.decode()
        except BlockingIOError:
            pass
        *whole, self.rest = self.rest.split("\n")
        self.lines += whole
        return self.lines

    def wait_for(self, words, seconds=60):
        """Waits until it has said one of these words once more."""
        known, end = len(self.hear()), time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.hear()[known:]:
                if line.startswith(words):
                    return
            time.sleep(0.0005)
        raise SystemExit(f"nothing of {words} was heard for {seconds} s: {self.lines[-3:]}")

    def kill(self):
        """Ends it; returns whether it was still at work."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        said = self.hear()
        os.close(self.pipe)
        for line in said:
            if line.startswith("failed"):
                raise SystemExit(f"a trainer failed: {line}")
        return "done" not in said

    def last_step(self):
        """The last step that it said it had done."""
        return max([int(line.split()[1]) for line in self.lines if line.startswith("step")], default=0)


def at_a_random_moment(folder, rng):
    trainer = Trainer(folder)
    trainer.wait_for(("step", "done"))
    time.sleep(rng.uniform(0, 0.5))
    return [trainer], [trainer.kill()]


def inside_a_save(folder, rng):
    trainer = Trainer(folder)
    for _ in range(rng.randint(1, 3)):
        trainer.wait_for(("saving", "done"))
    time.sleep(rng.uniform(0, 0.02))
    counts = trainer.kill()
    marks = [line for line in trainer.lines if line.startswith("sav")]
    return [trainer], [counts and marks[-1:] == ["saving"]]


def two_trainers(folder, rng):
    trainers = [Trainer(folder), Trainer(folder)]
    trainers[0].wait_for(("step", "refused", "done"))
    killed = []
    for trainer in rng.sample(trainers, 2):
        time.sleep(rng.uniform(0, 0.4))
        killed.append(trainer.kill())
    return trainers, killed


def is_as_if_nobody_had_stopped(folder, reference):
    """Goes on to the end in a copy; says whether every bit is the reference's and nothing else lies in the folder."""
    with tempfile.TemporaryDirectory() as copy:
        place = Path(copy) / "run"
        shutil.copytree(folder, place)
        ended = go_on(place)
        saved = Checkpoint.load(place, resume=True)
        names = {path.name.partition("-")[0] for path in place.iterdir()}
        alone = names == {"checkpoint.json", "weights"} and len(list(place.iterdir())) == 2
    equal = ended.step == saved.step == STEPS
    for found, expected in ((saved.model.state_dict(), reference.model.state_dict()),
                            (saved.training, reference.training)):
        equal &= found.keys() == expected.keys()
        for name, value in expected.items():
            equal &= torch.equal(found[name], value)
    return equal, alone


def main(n_kills=100, seed=0):
    rng, counts, lost = random.Random(seed), Counter(), Counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        tempfile.tempdir = place  # where locks lie
        go_on(Path(place) / "whole")
        reference = Checkpoint.load(Path(place) / "whole", resume=True)
        left = {at_a_random_moment: n_kills * 3 // 5, inside_a_save: n_kills // 5, two_trainers: n_kills // 5}
        folder, number = Path(place) / "run", 0
        while any(n > 0 for n in left.values()):
            if not (folder / "checkpoint.json").is_file() or Checkpoint.load(folder).step > STEPS - 2 * INTERVAL:
                number += 1
                folder = Path(place) / f"run{number}"
                folder.mkdir()
            way = rng.choice([way for way, n in left.items() if n > 0])
            trainers, killed = way(folder, rng)
            if not any(killed):
                counts["too late, not counted"] += 1
                continue
            left[way] -= sum(killed)
            counts[way.__name__.replace("_", " ")] += sum(killed)
            counts["files of a killed save that lay about"] += len(list(folder.glob(".*")))
            step = begun(folder).step  # reads it: whole, or an error
            gone = max(trainer.last_step() for trainer in trainers) - step
            lost[max(gone, 0)] += 1
            equal, alone = is_as_if_nobody_had_stopped(folder, reference)
            counts["goes on to other bits"] += not equal
            counts["leaves something behind"] += not alone
            counts["refusals of a second trainer"] += sum(t.lines.count("refused") > 0 for t in trainers)
    for what, n in counts.items():
        print(f"{n:5d}  {what}")
    print("steps lost:", dict(sorted(lost.items())), f"of an interval of {INTERVAL}")
    return int(max(lost) > INTERVAL or counts["goes on to other bits"] or counts["leaves something behind"])


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
