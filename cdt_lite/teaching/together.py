"""Several processes, started from a notebook and held beside one: losses, weights, seconds, what each holds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.expression import gene_means
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.model import PRESETS
from cdt_lite.teaching.sentences import listed
from cdt_lite.teaching.train_together import run
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start

SCRIPT = Path(__file__).with_name("train_together.py")
SECONDS = 300  # for all cases of a call: a busy machine takes one
SAME_LOSS, SAME_WEIGHT = 1e-5, 1e-4  # what rounding alone may make of sums in another order
N_GENES = 64  # those with the most counts
LAST_LINES = 12  # of what a failed call printed


def begun(cells: AnnData, folder: Path, n_sets: int = 6) -> str:
    """Writes what several processes need: `tokens`, a new model in `begun`, and the script; returns the script.

    The model is `lite` with a narrow network, on few genes and without a table of mean effects: it steps fast.

    Args:
        cells: The training side of a screen.
        folder: Where to write.
        n_sets: Sets of a batch.
    """
    loud = np.sort(np.argsort(-gene_means(cells.X), kind="stable")[:N_GENES])
    cells = cells[:, loud].copy()
    lite = PRESETS["lite"]
    size = replace(lite.model, dim=32, n_layer=2, gene_embed_dim=16, control_set_dim_hidden=16, control_set_dim_out=32)
    stage = replace(lite.finetune, learning_rate=1e-3, sets_per_batch=n_sets, cells_per_set=2, controls_per_set=8,
                    validation_share=0.0, mean_effects=False)
    network = start(replace(lite, model=size, finetune=stage), cells)
    TokenStore.from_adata(cells, network.tokenizer, network.vocabulary, path=folder / "tokens")
    network.save(folder / "begun")
    shutil.copy(SCRIPT, folder)
    return SCRIPT.read_text(encoding="utf-8")


def launch(folder: Path, cases: Sequence[str], n: int) -> pd.DataFrame:
    """Runs the script of a folder with torchrun, and prints the command.

    The processes talk over this machine's own loopback, at a free port.

    Args:
        folder: From `begun`.
        cases: What to train, one after the other.
        n: Processes.

    Returns:
        A row a case and process: "weights" that it held, "seconds" a step, "losses" by step.

    Raises:
        CDTError: It failed; with the last lines that it printed.
    """
    words = ["--standalone", "--local-addr", "localhost", "--nproc-per-node", str(n), SCRIPT.name, *cases]
    print(f"$ torchrun {' '.join(words)}")
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": "0"}  # torch for Windows comes without libuv
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise CDTError(f"{n} processes did not come to their end (exit status {done.returncode}):\n{last}")
    return _told(folder, cases, n)


def alone(folder: Path, cases: Sequence[str]) -> pd.DataFrame:
    """Does the same in this process, which is then the only one; returns as much."""
    for case in cases:
        run(case, folder)
    return _told(folder, cases, 1)


def _told(folder: Path, cases: Sequence[str], n: int) -> pd.DataFrame:
    told = []
    for case in cases:
        for process in range(n):
            path = folder / f"{case}, process {process} of {n}.json"
            told.append(json.loads(path.read_text(encoding="utf-8")))
    return pd.DataFrame(told).set_index(["case", "process"])


def losses_of(*rows: pd.Series) -> pd.Series:
    """Joins the losses, by step, of runs that went on from each other; rows of `launch` and `alone`."""
    joined: dict[int, float] = {}
    for row in rows:
        joined |= {int(step): loss for step, loss in row["losses"].items()}
    return pd.Series(joined).rename_axis("step")


def weights_apart(one: Path, other: Path) -> float:
    """Returns the largest difference of a weight between two kept models."""
    states = [Checkpoint.load(folder).model.state_dict() for folder in (one, other)]
    gaps = [(states[0][name] - states[1][name]).abs() for name in states[0]]
    return max(float(gap.max()) for gap in gaps if gap.numel())


def one_model(losses: pd.DataFrame, apart: float, what: str) -> str:
    """Says whether a run is that of one process: the same losses, the same weights, but for rounding.

    Args:
        losses: By step; the first column is that of one process.
        apart: The largest difference of their weights in the end.
        what: What the other run is, at the start of the sentence.
    """
    gap = float((losses.iloc[:, 1] - losses.iloc[:, 0]).abs().max())
    same = gap <= SAME_LOSS and apart <= SAME_WEIGHT
    verdict = "one and the same model, but for rounding" if same else "not the same model"
    return (f"{what}: over {len(losses)} steps the losses are within {gap:.1g} nats of those of one process, the "
            f"weights in the end within {apart:.1g}: {verdict}.")


def held_by(table: pd.DataFrame) -> str:
    """Says how many weights each process held, copied and cut.

    Args:
        table: From `launch`: the cases "two" and "cut".
    """
    copied, cut = (table.loc[case, "weights"] for case in ("two", "cut"))
    every = [f"{n:,}" for n in cut]
    save = 1 - cut.max() / copied.max()
    return (f"Copied, each process held all {copied.max():,} weights; cut, {listed(every)}: "
            f"{save:.0%} less in the fullest.")


def faster(one: float, two: float) -> str:
    """Says how much faster two processes were, from the seconds of a step."""
    return "no faster" if one < 1.05 * two else f"{one / two:.1f} times as fast"


def quicker(one: float, two: float) -> str:
    """Says whether two processes took less time a step than one; seconds."""
    return (f"A step took {one * 1e3:.0f} ms alone and {two * 1e3:.0f} ms with two processes (medians): "
            f"{faster(one, two)}, where twice as fast was hoped for. Steps of milliseconds, on a machine that does "
            "other things too: another run may differ, and it says nothing of a GPU.")


def equal_batches(one: Sequence[np.ndarray], other: Sequence[np.ndarray], where: str) -> str:
    """Says whether batches are equal, bit for bit.

    Args:
        one: Tokens of some batches.
        other: The same batches from elsewhere.
        where: From where.
    """
    n = sum(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    verdict = "all are equal, bit for bit" if n == len(one) else f"only {n} are equal"
    return f"Of {len(one)} batches drawn from memory and from {where}, {verdict}."


def talk(sent: float, n: int, links: pd.Series, step: float) -> str:
    """Says how long gradients are on the way, over several links, and which of them take longer than a step.

    Args:
        sent: Bytes that a process sends in a step.
        n: Processes.
        links: Bytes a second, by name.
        step: Seconds of a step of 32 cells.
    """
    seconds = sent / links
    told = listed([f"{1e3 * span:.1f} ms over {name}" for name, span in seconds.items()])
    slow = seconds.index[seconds > step].tolist()
    moral = f"over {listed(slow)} the talk takes longer than the step" if slow else "the talk is shorter everywhere"
    return (f"Gradients of v1, {sent / 1e6:.0f} MB a step in each of {n} processes: {told}. Where each has 32 cells a "
            f"step takes {1e3 * step:.0f} ms at least: {moral}.")
