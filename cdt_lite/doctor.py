"""What is installed, what will run, and how fast: lines to paste into a bug report."""

import os
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from cdt_lite import __version__
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.layout import CONTROL
from cdt_lite.data.screens import load_screen
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.model.config import Config
from cdt_lite.teaching.lesson import profile_name
from cdt_lite.terminal import peak_memory
from cdt_lite.training.capsule import CAPSULES
from cdt_lite.training.predict import Generation, predict
from cdt_lite.training.start import start
from cdt_lite.training.train import train

PACKAGES = ("torch", "numpy", "anndata", "scanpy", "rdata", "safetensors", "jupyterlab", "ipywidgets", "matplotlib",
            "seaborn", "graphviz", "graphviz-pure", "cell-eval")
NEEDED_MEMORY, NEEDED_DISK = 2.5, 0.5  # GB: above what a notebook takes in the laptop profile; room for outputs
SAMPLED_CELLS = 32  # whose sampling is timed


def report() -> list[str]:
    """Returns the lines of `cdt-lite doctor`: versions, device, profile, which screen and capsules are at hand."""
    lines = [f"cdt_lite {__version__}, Python {sys.version.split()[0]}, {platform.system()} {platform.machine()}",
             f"cores {os.cpu_count()}, torch threads {torch.get_num_threads()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: models run on the CPU in fp32"
    lines += [f"GPU: {gpu}", f"dot: {'on PATH' if shutil.which('dot') else 'not on PATH; graphviz-pure draws instead'}",
              f"profile: {profile_name()}"]
    try:
        screen = load_screen("papalexi2021")
        lines.append(f"papalexi2021: at hand, {screen.n_obs:,} cells x {screen.n_vars} genes")
    except CDTError as error:
        lines.append(f"papalexi2021: not at hand ({error}); the notebooks will use the simulated screen")
    found = sorted(p.parent.name for p in CAPSULES.glob("*/checkpoint.json"))
    lines.append(f"capsules: {', '.join(found) or 'none; make one with cdt-lite capsule'}")
    wanting = shortcomings(free_memory(), shutil.disk_usage(os.getcwd()).free / 1e9)
    return [*lines, *wanting, "not ready: see the lines above" if wanting else "ready for the notebooks"]


def free_memory() -> float:
    """Returns the memory that is free for programs, in GB (NaN where psutil is not installed)."""
    try:
        import psutil
    except ImportError:
        return float("nan")
    return psutil.virtual_memory().available / 1e9


def shortcomings(memory: float, disk: float) -> list[str]:
    """Returns what stands between this machine and the notebooks, each with what to do about it.

    Args:
        memory: Free memory in GB, or NaN.
        disk: Free space in GB.
    """
    missing = [name for name in ("jupyterlab", "ipykernel", "ipywidgets", "matplotlib") if not find_spec(name)]
    wanting = []
    if missing:
        wanting.append(f"missing: {', '.join(missing)}: run python3 run.py setup")
    if memory < NEEDED_MEMORY:
        wanting.append(f"memory: {memory:.1f} GB free, {NEEDED_MEMORY} wanted: close programs, set CDT_PROFILE=ci")
    if disk < NEEDED_DISK:
        wanting.append(f"disk: {disk:.1f} GB free, {NEEDED_DISK} wanted: free some, or name a folder elsewhere with "
                       "CDT_LITE_DATA")
    return wanting


def bench(config: Config, device: str, n_genes: int = 0, steps: int = 8) -> dict[str, Any]:
    """Measures training and sampling speed and peak memory of a preset on this device, on simulated cells.

    Args:
        config: The preset; its batch sizes are used as they are.
        device: "cpu" or "cuda".
        n_genes: Genes a cell; 0 takes the preset's panel (v1 can only have its own).
        steps: Training steps that are timed, after two to warm up.

    Returns:
        training_cells_per_second, sampling_cells_per_second, peak_memory_gb, and what was measured.
    """
    n_genes = n_genes or config.model.n_genes
    screen = simulate_screen(n_genes=n_genes, n_targets=8, n_cells=1000, seed=0)
    checkpoint = start(config, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    marks: list[float] = []
    for _ in train(checkpoint, SetSampler(store, config.finetune), steps=steps + 2, device=device):
        if device == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    seconds = (marks[-1] - marks[1]) / steps
    began = time.perf_counter()
    predict(checkpoint, screen, CONTROL, 0, n_cells=SAMPLED_CELLS, options=Generation(device=device))
    sampling = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else peak_memory()
    return {
        "preset": config.name,
        "device": device,
        "threads": torch.get_num_threads(),
        "n_genes": n_genes,
        "batch_cells": config.finetune.batch_size,
        "precision": config.finetune.precision,
        "training_cells_per_second": round(config.finetune.batch_size / seconds, 2),
        "sampling_cells_per_second": round(SAMPLED_CELLS / sampling, 2),
        "sampling_steps": config.diffusion.sampling_steps,
        "peak_memory_gb": round(peak, 3),
    }
