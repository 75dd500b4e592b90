"""How fast cells are read: batches from a memory map, and tokens from a file, beside limits of the same run.

    python -m benchmarks.speed_data                      # batches of 1 M cells, files of 200,000: two minutes
    python -m benchmarks.speed_data 1000000 1000000      # files of 1 M, too: 5 GB of disk

Times are CPU times of one thread, rates that are compared alternate. The cells are made up: 15 % controls, three
replicates, 1,500 targets; a tenth of all counts is not zero.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cdt_lite.data import CONTROL, SetSampler, TokenStore, Vocabulary, fit_tokenizer, load_screen
from cdt_lite.model import PRESETS
from cdt_lite.terminal import peak_memory

N_GENES, N_TARGETS, PER_CELL, BLOCK = 2000, 1500, 200, 20_000
N_BATCHES, ROUNDS = 40, 5
GENES = [f"G{i:04d}" for i in range(N_GENES)]


def seconds(function: Callable[..., Any], *given: Any) -> float:
    """CPU time of a call."""
    began = time.process_time()
    function(*given)
    return time.process_time() - began


def peak() -> float:
    """Peak of memory of this program alone, GB: what Linux counts of a process begins with that of its parent."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak_memory()
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e6


def mapped(folder: Path, n_cells: int) -> TokenStore:
    """A store of random tokens, memory-mapped and warm."""
    rng = np.random.default_rng(0)
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.uint8, (n_cells, N_GENES))
    for begin in range(0, n_cells, BLOCK):
        tokens[begin : begin + BLOCK] = rng.integers(0, 63, (min(BLOCK, n_cells - begin), N_GENES), np.uint8)
    tokens.flush()
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    target = np.where(rng.random(n_cells) < 0.15, -1, rng.integers(0, N_TARGETS, n_cells))
    zeros = np.zeros(n_cells, np.float32)
    return TokenStore(tokens, np.arange(N_GENES), target, -(target >= 0).astype(int), zeros,
                      rng.integers(0, 3, n_cells), zeros)


def of_batches(store: TokenStore, preset: str) -> list[dict[str, Any]]:
    """Construction of a sampler, and rows of controls and cells a second beside a gather of random rows."""
    config = replace(PRESETS[preset].finetune, controls_dropout=0.0)
    made: list[SetSampler] = []
    construction = seconds(lambda: made.append(SetSampler(store, config)))
    (sampler,) = made
    n_controls = config.sets_per_batch * config.controls_per_set
    n_rows = n_controls + config.batch_size
    rng, taken, limit = np.random.default_rng(1), 0.0, 0.0
    for turn in range(ROUNDS):
        numbers = range(turn * N_BATCHES, (turn + 1) * N_BATCHES)
        taken += seconds(lambda every: [sampler.gather(sampler.plan(i)) for i in every], numbers)
        random = rng.integers(0, len(store), (N_BATCHES, n_rows))
        limit += seconds(lambda every: [store.tokens[rows] for rows in every], random)
    n = ROUNDS * N_BATCHES
    return [
        row(f"{preset}: rows gathered (controls and cells)", n * n_rows / taken, n * n_rows / limit, "rows/s"),
        row(f"{preset}: of these controls", n * n_controls / taken, n * n_rows / limit, "rows/s"),
        row(f"{preset}: a batch, planned and gathered", 1e3 * taken / n, 1e3 * limit / n, "ms"),
        row(f"{preset}: a sampler is made", construction, None, "s"),
    ]


def of_digest(store: TokenStore) -> dict[str, Any]:
    """Hash of a store, beside that of as many bytes."""
    some = store.tokens[:BLOCK].tobytes()
    limit = seconds(lambda: sha256(some).digest()) * store.tokens.nbytes / len(some)
    return row("digest of the store, once", seconds(store.digest), limit, "s")


def write_screen(path: Path, n_cells: int) -> None:
    """Writes a screen as .h5ad, block by block."""
    rng = np.random.default_rng(0)
    target = np.where(rng.random(n_cells) < 0.15, N_GENES, rng.integers(0, N_TARGETS, n_cells))
    obs = pd.DataFrame({"target_gene": pd.Categorical.from_codes(target, [*GENES, CONTROL])},
                       index=[f"cell{i}" for i in range(n_cells)])
    obs["batch"] = pd.Categorical.from_codes(rng.integers(0, 3, n_cells), ["a", "b", "c"])
    obs["sign"] = np.where(target < N_GENES, -1, 0).astype(np.int8)
    empty = sp.csr_matrix((n_cells, N_GENES), dtype=np.float32)
    ad.AnnData(empty, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        counts = file["X"]
        for name, kind in (("data", "f4"), ("indices", "i4")):
            del counts[name]
            counts.create_dataset(name, (n_cells * PER_CELL,), kind, chunks=(2**18,))
        counts["indptr"][:] = np.arange(n_cells + 1) * PER_CELL
        for begin in range(0, n_cells, BLOCK):
            n = min(BLOCK, n_cells - begin)
            places = slice(begin * PER_CELL, (begin + n) * PER_CELL)
            first = rng.integers(0, N_GENES // PER_CELL, (n, PER_CELL))
            counts["indices"][places] = (first + np.arange(PER_CELL) * (N_GENES // PER_CELL)).ravel()
            counts["data"][places] = rng.geometric(0.4, n * PER_CELL)


def of_files(folder: Path, n_cells: int) -> list[dict[str, Any]]:
    """Tokens made of files of two sizes, each in a process of its own, so that its peak of memory is its own."""
    found = []
    for n in (n_cells // 5, n_cells):
        write_screen(folder / "screen.h5ad", n)
        paths = [str(folder / "screen.h5ad"), str(folder / f"store{n}")]
        command = [sys.executable, "-m", "benchmarks.speed_data", "tokenise", *paths]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        cpu, limit, before, most = map(float, ended.stdout.split()[-4:])
        found.append(row(f"{n:,} cells loaded, fitted and tokenised from disk", n / cpu, n / limit, "cells/s"))
        found.append(row(f"{n:,} cells: peak of memory (beside: libraries alone)", most, before, "GB"))
    return found


def tokenise(path: str, out: str) -> None:
    """Prints CPU seconds of tokenising a file and of reading its counts, and memory before and at its peak."""
    def made() -> None:
        screen = load_screen(path, backed=True)
        tokenizer = fit_tokenizer(PRESETS["lite"].tokenizer, screen)
        TokenStore.from_adata(screen, tokenizer, Vocabulary(GENES), path=out)

    def read() -> None:
        with h5py.File(path) as file:
            for name in ("data", "indices"):
                values = file["X"][name]
                for begin in range(0, len(values), BLOCK * PER_CELL):
                    values[begin : begin + BLOCK * PER_CELL]

    before = peak()
    cpu, most = seconds(made), peak()
    print(cpu, seconds(read), before, most)


def row(what: str, measured: float, limit: float | None, unit: str) -> dict[str, Any]:
    """One line of the table."""
    return {"what": what, "measured": measured, "limit": limit, "unit": unit}


def rows(n_mapped: int = 1_000_000, n_on_disk: int = 200_000) -> list[dict[str, Any]]:
    """Measures everything; the limit of a rate is that of a plain gather or read in the same run."""
    with tempfile.TemporaryDirectory(prefix="cdt-lite-speed-") as name:
        folder = Path(name)
        store = mapped(folder, n_mapped)
        table = [*of_batches(store, "v1"), *of_batches(store, "default"), *of_batches(store, "lite"), of_digest(store)]
        del store
        os.remove(folder / "tokens.npy")
        return [*table, *of_files(folder, n_on_disk)]


if __name__ == "__main__":
    if "tokenise" in sys.argv:
        tokenise(*sys.argv[2:])
    else:
        print(pd.DataFrame(rows(*map(int, sys.argv[1:]))).to_string(float_format="{:,.4g}".format))
