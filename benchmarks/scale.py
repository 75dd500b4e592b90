"""What judging and predicting cost as a screen grows: a row of scores by controls, a file by perturbations.

Cells are simulated; the model is the untrained `lite`, of which few cells a perturbation are asked: what is measured is
everything around it. Seconds are of CPU, memory is the peak of a process of its own.

    python -m benchmarks.scale
    python -m benchmarks.scale --genes 2000 --cells 100000 --controls 12000 --perturbations 300 --rows 4
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import cdt_lite as cdt
from cdt_lite.data import CONTROL
from cdt_lite.data.simulate import ScreenDesign
from cdt_lite.evaluation import Changes, evaluate
from cdt_lite.terminal import peak_memory
from cdt_lite.training.output import Output
from cdt_lite.training.predict import Generation
from cdt_lite.training.predict_many import predict_many

CELLS_EACH = 8  # predicted of each perturbation


def simulated(n_genes: int, n_targets: int, n_controls: int, n_cells: int) -> ad.AnnData:
    """Returns a screen with one sign, all targets measured, so many controls, and cells in all."""
    design = ScreenDesign(control_fraction=n_controls / n_cells, both_fraction=0.0, unmeasured_fraction=0.0,
                          activation_fraction=0.0)
    return cdt.simulate_screen(n_genes, n_targets, n_cells, design=design)


def judged(screen: ad.AnnData, n_controls: int, n_rows: int) -> dict[str, float]:
    """Scores changes of n_rows targets beside the controls, and of one: the difference is what a row costs."""
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    hidden = np.zeros(screen.n_obs, bool)
    hidden[np.flatnonzero(is_control)[n_controls:]] = True
    real = screen[~hidden].copy()
    targets = sorted(set(real.obs["target_gene"]) - {CONTROL})
    spent = []
    for n in (1, n_rows):
        noise = np.random.default_rng(0).normal(0, 0.05, (n, real.n_vars))
        changes = Changes(pd.DataFrame(noise, targets[:n], real.var_names))
        began = time.process_time()
        evaluate(real, {"noise": changes}, baselines=["control"])
        spent.append(time.process_time() - began)
    a_row = (spent[1] - spent[0]) / (2 * (n_rows - 1))
    return {"cells": real.n_obs, "ms a row": 1000 * a_row, "rest, s": spent[1] - 2 * n_rows * a_row}


def predicted(screen: ad.AnnData, n: int, folder: Path) -> dict[str, float]:
    """Predicts n perturbations into a file, and reads none of it back."""
    targets = sorted(set(screen.obs["target_gene"]) - {CONTROL})[:n]
    model = cdt.start(cdt.PRESETS["lite"], screen)
    wanted = [(target, -1, None) for target in targets]
    output = Output(folder / f"{n}.h5ad")
    began, stamps = time.process_time(), []
    for _ in predict_many(model, screen, wanted, output, n_cells=CELLS_EACH, options=Generation(steps=1)):
        stamps.append(time.process_time())
    ended = time.process_time()
    return {"first, s": stamps[0] - began, "ms each after": 1000 * (stamps[-1] - stamps[0]) / (len(stamps) - 1),
            "joining, s": ended - stamps[-1], "file, MB": output.file.stat().st_size / 1e6}


def alone(kind: str, path: Path, numbers: tuple[int, ...]) -> dict[str, float]:
    """Measures in a process of its own, whose peak of memory is its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", kind, str(path), *map(str, numbers)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def one(kind: str, path: Path, numbers: list[int]) -> None:
    """Prints one measurement."""
    screen = ad.read_h5ad(path)
    before = peak_memory()
    found = judged(screen, *numbers) if kind == "judge" else predicted(screen, numbers[0], path.parent)
    print(json.dumps(found | {"GB, screen": before, "GB, peak": peak_memory()}))


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--cells", type=int, default=20_000, help="in all")
    parser.add_argument("--controls", type=int, nargs="+", default=[1000, 4000, 16_000])
    parser.add_argument("--perturbations", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--rows", type=int, default=8, help="targets that are scored")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return one(given.one[0], Path(given.one[1]), [int(number) for number in given.one[2:]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "screen.h5ad"
        simulated(given.genes, max(given.perturbations), max(given.controls), given.cells).write_h5ad(path)
        rows = {n: alone("judge", path, (n, given.rows)) for n in given.controls}
        print(pd.DataFrame(rows).T.rename_axis("controls").round(2).to_string(), flush=True)
        rows = {n: alone("predict", path, (n,)) for n in given.perturbations}
        print(pd.DataFrame(rows).T.rename_axis("perturbations").round(2).to_string())


if __name__ == "__main__":
    main()
