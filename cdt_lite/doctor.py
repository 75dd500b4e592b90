"""What is installed, what will run, and how fast: lines to paste into a bug report."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import pandas as pd
import torch

from cdt_lite import __version__
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.layout import CONTROL, Columns
from cdt_lite.data.public import blood_cells
from cdt_lite.data.screens import load_screen
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.inputs import TEST_SIDES
from cdt_lite.files import user_folder
from cdt_lite.model.config import PRESETS, Config
from cdt_lite.teaching.lesson import profile_name
from cdt_lite.teaching.progress import folder as record_folder
from cdt_lite.terminal import peak_memory
from cdt_lite.training.capsule import CAPSULES
from cdt_lite.training.checkpoint import Checkpoint, open_folder
from cdt_lite.training.predict import Generation, predict
from cdt_lite.training.start import start
from cdt_lite.training.train import train

READY = "ready for the notebooks"
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
    dot = "on PATH" if shutil.which("dot") else "not on PATH; graphviz-pure draws instead"
    lines += [f"GPU: {gpu}", f"dot: {dot}", f"profile: {profile_name()}", *_proxies()]
    try:
        screen = load_screen("papalexi2021")
        lines.append(f"papalexi2021: at hand, {screen.n_obs:,} cells x {screen.n_vars} genes")
    except CDTError as error:
        lines.append(f"papalexi2021: not at hand ({error}); the notebooks will use the simulated screen")
    found = sorted(p.parent.name for p in CAPSULES.glob("*/checkpoint.json"))
    lines.append(f"capsules: {', '.join(found)}")
    wanting = shortcomings(free_memory(), shutil.disk_usage(os.getcwd()).free / 1e9)
    for what, (attempt, remedy) in TRIALS.items():
        try:
            attempt()
        except Exception as error:  # whatever comes is what a notebook would meet
            wanting.append(f"{what}: {type(error).__name__}: {error}: {remedy}")
    return [*lines, *wanting, "not ready: see the lines above" if wanting else READY]


def _proxies() -> list[str]:
    """The proxies of this machine, without the passwords that their addresses may hold."""
    lines = []
    for kind, address in sorted(getproxies().items()):
        host = urlsplit(address).hostname if "//" in address else address
        lines.append(f"proxy for {kind}: {host}")
    return lines


def _run_a_cell() -> None:
    import nbclient
    import nbformat

    cell = nbformat.v4.new_code_cell("import cdt_lite")
    try:
        nbclient.execute(nbformat.v4.new_notebook(cells=[cell]), timeout=60)
    except nbclient.exceptions.CellExecutionError as error:  # its own text is a coloured traceback
        raise CDTError(f"{error.ename}: {error.evalue}") from error


def _load_capsules() -> None:
    headers = list(CAPSULES.glob("*/checkpoint.json"))
    if not headers:
        raise CDTError(f"there is none in {CAPSULES}")
    for header in headers:
        Checkpoint.load(header.parent)


def _draw_a_plot() -> None:
    from matplotlib import pyplot as plt

    from cdt_lite.figures import plots

    plots.use_style()
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    figure.savefig(BytesIO())
    plt.close(figure)


def _draw_a_diagram() -> None:
    from cdt_lite.figures.sketch import Diagram, render

    drawn = Diagram("doctor", "A small diagram")
    drawn.box("box", "a box")
    render(drawn)


def _write() -> None:
    for folder in (Path.cwd(), user_folder("data"), user_folder("cache"), record_folder()):
        open_folder(folder)


INSTALL = "install again (python3 run.py setup, or pip install 'cdt-lite[notebooks]')"
HOME = "set HOME to a folder that you can write to"
TRIALS: dict[str, tuple[Callable[[], object], str]] = {  # what notebooks do: how it is tried, what mends it
    "scanpy and its cells": (blood_cells, f"{HOME}, or NUMBA_CACHE_DIR; else {INSTALL}"),
    "capsules": (_load_capsules, INSTALL),
    "plots": (_draw_a_plot, INSTALL),
    "diagrams": (_draw_a_diagram, "install Graphviz, or pip install graphviz-pure"),
    "kernel": (_run_a_cell, f"{HOME}, or JUPYTER_RUNTIME_DIR and IPYTHONDIR; else {INSTALL}"),
    "folders": (_write, "start in a folder of your own; name one with CDT_LITE_DATA for cells and models, one with "
                        "CDT_LITE_PROGRESS for solved exercises"),
}


def about_screen(name: str, columns: Columns = Columns(), layer: str | None = None, default_sign: int = -1
                 ) -> list[str]:
    """Returns what a screen holds, and how long the preset `lite` trains on it: `cdt-lite doctor --screen FILE`.

    Args:
        name: As for `load_screen`, as are columns and layer.
        columns: Where a file keeps its labels.
        layer: Layer of a file with the raw counts.
        default_sign: Of a file without a column of signs.

    Raises:
        CDTError: The file is no screen; the message says what to do.
    """
    screen = load_screen(name, columns, layer=layer, default_sign=default_sign, n_top_genes=None)
    obs, config = screen.obs, PRESETS["lite"]
    changed = obs[obs["target_gene"] != CONTROL]
    made = changed.groupby(["target_gene", "sign"], observed=True).size()
    targets = set(changed["target_gene"])
    pairs = [target for target in sorted(targets) if "+" in target]
    unmeasured = sorted(targets - set(screen.var_names) - set(pairs))
    side = np.asarray(named_split(screen))
    n_cells = int((side == "train").sum())
    withheld = []
    for name_of_side in TEST_SIDES:
        names = sorted(set(obs["target_gene"][side == name_of_side]) - {CONTROL})
        withheld.append(f"{name_of_side}: {_first(names)}")
    n_genes = min(screen.n_vars, config.model.n_genes)
    hours = hours_of_training(config, n_genes, n_cells)
    return [
        f"{name}: {screen.n_obs:,} cells x {screen.n_vars:,} genes",
        f"space: counts, {obs['n_umi'].median():,.0f} a cell (median)",
        f"replicates: {_listed(obs['batch'])}",
        f"control cells: {screen.n_obs - len(changed):,}",
        f"perturbations: {len(made)}, of {len(targets)} targets",
        f"cells a perturbation: {made.min()} at least, {made.median():.0f} (median)",
        f"measured targets: {len(targets) - len(unmeasured) - len(pairs)}; not measured: {_first(unmeasured)}",
        f"combinations, pairs learned as sums: {_first(pairs)}",
        f"signs: {_listed(changed['sign'])}",
        f"sides of the split: {_listed(pd.Series(side))}",
        f"withheld from training, to test on: {'; '.join(withheld)}",
        f"panel of lite: {n_genes:,} genes",
        f"lite's pretraining and fine-tuning on {n_cells:,} cells: about {hours:.2g} h on this CPU",
    ]


def _first(names: list[str], most: int = 9) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def _listed(values: pd.Series, most: int = 8) -> str:
    """Each value with the number of its cells, the most frequent ones first."""
    counts = values.value_counts()
    words = [f"{value} ({number:,} cells)" for value, number in counts[:most].items()]
    return ", ".join(words) + (f" and {len(counts) - most} others" if len(counts) > most else "")


def hours_of_training(config: Config, n_genes: int, n_cells: int) -> float:
    """Returns the hours that both stages of a preset take on this CPU, from a few steps on simulated cells.

    Args:
        config: The preset.
        n_genes: Genes of the panel.
        n_cells: Cells to train on.
    """
    one_set = replace(config, finetune=replace(config.finetune, sets_per_batch=1))
    speed = bench(one_set, "cpu", max(n_genes, 16), steps=3)["training_cells_per_second"]
    return (config.pretrain.epochs + config.finetune.epochs) * n_cells / speed / 3600


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
        "precision": "bf16" if config.finetune.in_half(torch.device(device).type) else "fp32",
        "training_cells_per_second": round(config.finetune.batch_size / seconds, 2),
        "sampling_cells_per_second": round(SAMPLED_CELLS / sampling, 2),
        "sampling_steps": config.diffusion.sampling_steps,
        "peak_memory_gb": round(peak, 3),
    }
