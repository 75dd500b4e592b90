"""From v1 to the default recipe, one switch at a time, at a learner's size: what does each switch buy?

    python benchmarks/ablations.py --screen papalexi2021 --screen simulated --seeds 3 --steps 400

Every run trains a `lite`-sized model from nothing on the training side of the named split less a validation part, and
is judged on that part: test perturbations are never looked at. One JSON a run in benchmarks/ablations/; a run
whose file is there is not made again, so the command resumes. `--table` prints what is there.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

from cdt_lite import __version__
from cdt_lite.checkpoint import Checkpoint, write_atomically
from cdt_lite.config import PRESETS, Config
from cdt_lite.data import SetSampler, TokenStore, named_split, split_screen
from cdt_lite.evaluation import evaluate
from cdt_lite.prediction import predict
from cdt_lite.screens import load_screen
from cdt_lite.training import start, train, validation_curve

FOLDER = Path(__file__).parent / "ablations"
METRICS = ["pearson_delta", "mae", "energy_distance", "sd_ratio"]
SHARES = (0.05, 0.25, 0.5, 0.75, 1.0)


def ladder(n_genes: int) -> dict[str, Config]:
    """Returns the configurations, each one switch further than the one before."""
    lite, v1 = PRESETS["lite"], PRESETS["v1"]
    switches = {name: getattr(v1.model, name) for name in (
        "identity", "time_input", "modulation", "control_input", "mask_in_logits", "ordinal_input", "depth_input",
        "target_flag", "control_statistics", "cell_summary", "unknown_target")}
    plain = {"target_dropout": 0.0, "perturbation_dropout": 0.0, "ema_decay": 0.0}
    config = replace(lite, name="lite-v1", tokenizer=v1.tokenizer, diffusion=v1.diffusion, gene_vectors="random",
                     model=replace(lite.model, **switches, n_genes=n_genes),
                     finetune=replace(lite.finetune, **plain))
    steps: dict[str, dict[str, dict[str, Any]]] = {
        "v1": {},
        "mask law": {"diffusion": {"mask_law": "uniform_batch", "sampler": "fixed", "sampling_steps": 16}},
        "objective": {"diffusion": {"mask_law": "uniform_cell"}},
        "time input": {"model": {"time_input": "mask_ratio"}},
        "tied table": {"model": {"identity": "gene", "unknown_target": True},
                       "finetune": {"target_dropout": 0.15, "perturbation_dropout": 0.1}},
        "controls": {"model": {"control_input": "genes", "control_statistics": True}},
        "target flag": {"model": {"target_flag": True}},
        "adaLN": {"model": {"modulation": "adaln"}},
        "cell summary": {"model": {"cell_summary": True}},
        "gene vectors": {"config": {"gene_vectors": "coexpression"}},
        "tokens": {"tokenizer": {"space": "counts"},
                   "model": {"depth_input": True, "ordinal_input": True, "mask_in_logits": False}},
        "EMA": {"finetune": {"ema_decay": 0.99}},
    }
    rungs = {}
    for name, changes in steps.items():
        parts = {part: replace(getattr(config, part), **values) for part, values in changes.items() if part != "config"}
        config = replace(config, name=f"lite, up to {name}", **parts, **changes.get("config", {}))
        rungs[name] = config
    return rungs


def validation_part(screen: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    """Returns training cells and validation cells, both from the training side of the named split.

    Validation: the second replicate of the four training targets whose mean expression moves most in the first.
    """
    cells = screen[named_split(screen) == "train"].copy()
    batches = sorted(set(cells.obs["batch"].astype(str)))
    first = cells[cells.obs["batch"].astype(str) == batches[0]]
    label = first.obs["target_gene"].astype(str).to_numpy()
    share = pd.DataFrame(np.asarray(first.X.todense() / first.X.sum(1)), columns=first.var_names)
    means = np.log1p(share.groupby(label).mean() * float(np.median(np.asarray(first.X.sum(1)))))
    in_second = set(cells.obs["target_gene"][cells.obs["batch"].astype(str) == batches[1]].astype(str))
    size = (means - means.loc["non-targeting"]).abs().mean(axis=1).drop("non-targeting")
    strongest = size[[t for t in size.index if t in in_second]].sort_values().index[-4:]
    side = split_screen(cells, held_out=[(str(t), batches[1]) for t in strongest])
    is_control = (cells.obs["target_gene"].astype(str) == "non-targeting").to_numpy()
    here = (cells.obs["batch"].astype(str) == batches[1]).to_numpy()
    return cells[side == "train"].copy(), cells[(side == "held_out") | (is_control & here)].copy()


def one_run(config: Config, training: ad.AnnData, validation: ad.AnnData, seed: int, steps: int) -> dict[str, Any]:
    """Trains and judges one model; returns what its JSON holds."""
    began = time.perf_counter()
    config = replace(config, finetune=replace(config.finetune, seed=seed))
    checkpoint = start(config, training, seed=seed)
    store = TokenStore.from_adata(training, checkpoint.tokenizer, checkpoint.vocabulary)
    for _ in train(checkpoint, SetSampler(store, config.finetune), steps=steps):
        pass
    seconds = time.perf_counter() - began
    metrics = judge(checkpoint, validation, seed)
    return {"metrics": metrics, "seconds": round(seconds), "steps": steps, "cells_per_step": config.finetune.batch_size,
            "parameters": sum(p.numel() for p in checkpoint.model.parameters())}


def judge(checkpoint: Checkpoint, validation: ad.AnnData, seed: int) -> dict[str, float]:
    """Bits per gene (comparable between rungs with the same tokens only) and the scores of sampled cells."""
    quiet = replace(checkpoint.config.finetune, control_share=0.0, target_dropout=0.0, perturbation_dropout=0.0,
                    cells_per_set=32)
    data = SetSampler(TokenStore.from_adata(validation, checkpoint.tokenizer, checkpoint.vocabulary), quiet)
    curve = validation_curve(checkpoint, data, n_batches=4, shares=SHARES) / np.log(2)
    targets = sorted(set(validation.obs["target_gene"].astype(str)) - {"non-targeting"})
    signs = validation.obs.groupby("target_gene", observed=True)["sign"].first()
    cells = ad.concat([predict(checkpoint, validation, t, int(signs[t]), n_cells=128, seed=seed) for t in targets],
                      index_unique="-")
    table = evaluate(validation, cells, metrics=METRICS, baselines=False, ceiling=False, seed=seed)
    scores = table[METRICS].mean().to_dict()
    return {"bits_per_gene": float(np.trapezoid(curve, SHARES) / (SHARES[-1] - SHARES[0])),
            "bits_all_hidden": float(curve[-1]), **{k: float(v) for k, v in scores.items()}}


def runs(screens: list[str], seeds: int, steps: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Makes the runs that are missing, seed by seed, yielding each file and what it holds."""
    FOLDER.mkdir(exist_ok=True)
    parts = {name: validation_part(load_screen(name)) for name in screens}
    for seed in range(seeds):
        for screen, (training, validation) in parts.items():
            for number, (switch, config) in enumerate(ladder(training.n_vars).items()):
                path = FOLDER / f"{screen}-{number:02d}-{switch.replace(' ', '-')}-{seed}.json"
                if path.exists():
                    continue
                result = {"screen": screen, "number": number, "switch": switch, "seed": seed,
                          **one_run(config, training, validation, seed, steps),
                          "cdt_lite": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
                write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
                yield path, result


def table(folder: Path = FOLDER) -> pd.DataFrame:
    """Returns mean and standard error over seeds, a row per screen and switch."""
    records = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    keys = ("screen", "number", "switch", "seed")
    flat = pd.DataFrame([{**{k: r[k] for k in keys}, **r["metrics"]} for r in records])
    groups = flat.drop(columns="seed").groupby(["screen", "number", "switch"])
    return groups.agg(["mean", "sem"]).round(3)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screen", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not args.table:
        for path, result in runs(args.screen or ["papalexi2021", "simulated"], args.seeds, args.steps):
            print(path.name, result["seconds"], {k: round(v, 3) for k, v in result["metrics"].items()}, flush=True)
    print(table().to_string())


if __name__ == "__main__":
    main()
