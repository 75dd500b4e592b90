"""The whole with one thing more: does it make cells whose genes vary together as real ones do?

    python -m benchmarks.trials                            makes the runs that are missing in benchmarks/trials.json
    python -m benchmarks.trials --checkpoint FOLDER...     tries other samplers on trained models, seeds of one recipe

Without models every run trains a `lite` model from nothing on 96 genes of the training side less a validation part, and
is judged on that part, as in `benchmarks.one_out`. Trained models are judged on the cells that their fine-tuning set
aside: the network never saw these, but the table that it is told was made with them, too, in the end. Test
perturbations are never looked at. What is tried: `benchmarks/variants.py`.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData, concat

import cdt_lite as cdt
from benchmarks import variants
from benchmarks.one_out import LITE, sides
from cdt_lite.data import dense, log1p_counts, named_split
from cdt_lite.data.store import set_aside
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.files import write_atomically
from cdt_lite.model import CDT, MaskedDiffusion
from cdt_lite.model.diffusion import SHARES
from cdt_lite.model.response import Response
from cdt_lite.report.densities import prepared
from cdt_lite.report.quality import likeness
from cdt_lite.training.train import validation_curve

OUT = Path(__file__).with_name("trials.json")
NETWORKS = {  # tried by training
    "whole": (CDT, MaskedDiffusion),
    "a matched control's value in place of [MASK]": (variants.Matched, variants.MatchedDiffusion),
    "factor heads": (variants.Factors, variants.FactorDiffusion),
    "trained at the sampler's shares": (CDT, variants.SamplerShares),
    "half as many steps": (CDT, MaskedDiffusion),
    "twice as many steps": (CDT, MaskedDiffusion),
}
LONGER = {"half as many steps": 0.5, "twice as many steps": 2.0}
SAMPLERS: dict[str, type[MaskedDiffusion]] = {  # tried on trained models
    "one by one first": variants.EarlySteps,
    "64 steps": variants.MoreSteps,
    "Gibbs corrector": variants.Gibbs,
}
STATE_FIRST = "a cell's state drawn first"
N_CELLS = 128
SHORT, TRAINED = "short runs", "trained models"
STATISTICS = (("gene-gene correlations, agreement", "agreement"), ("energy distance", "energy"))


def trained(name: str, cells: AnnData, seed: int, steps: int) -> cdt.Checkpoint:
    """Returns a model trained from nothing."""
    network, process = NETWORKS[name]
    checkpoint = cdt.start(LITE, cells, seed=seed)
    if network is not CDT:
        model = network(LITE.model, seed)
        model.load_state_dict(checkpoint.model.state_dict(), strict=False)
        checkpoint.model = model
    own = (checkpoint.model,) if process in (variants.MatchedDiffusion, variants.FactorDiffusion) else ()
    checkpoint.process = process(checkpoint.process.config, checkpoint.tokenizer.mask_id, *own)
    store = cdt.TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    data = cdt.SetSampler(store, replace(LITE.finetune, seed=seed))
    for _ in cdt.train(checkpoint, data, steps=round(steps * LONGER.get(name, 1))):
        pass
    learned = checkpoint.process.config  # training ends with the schedule, and with our own process
    checkpoint.process = process(learned, checkpoint.tokenizer.mask_id, *own)
    return checkpoint


def escaped(cells: AnnData, training: AnnData, target: str, depth: float) -> float:
    """Share of cells whose answer is within that of nine controls in ten: the mean change of all genes, by variance."""
    log1p = dense(log1p_counts(training.X, depth))
    own = (training.obs["target_gene"] == target).to_numpy()
    plain = (training.obs["sign"] == 0).to_numpy()
    change = log1p[own].mean(0) - log1p[plain].mean(0)
    weight = change / (log1p[plain].var(0) + 1e-3) * (training.var_names != target)
    limit = np.quantile(log1p[plain] @ weight, 0.9)
    return float((dense(log1p_counts(cells.X, depth)) @ weight < limit).mean())


def judge(checkpoint: cdt.Checkpoint, training: AnnData, validation: AnnData, seed: int) -> dict[str, float]:
    """Returns bits per gene, and how like sampled cells are to real ones of the same perturbations."""
    quiet = replace(LITE.finetune, control_share=0.0, target_dropout=0.0, perturbation_dropout=0.0,
                    controls_dropout=0.0, validation_share=0.0)
    store = cdt.TokenStore.from_adata(validation, checkpoint.tokenizer, checkpoint.vocabulary)
    torch.manual_seed(seed)
    curve = validation_curve(checkpoint, cdt.SetSampler(store, quiet), n_batches=16) / np.log(2)
    real = validation[validation.obs["sign"] != 0].copy()
    controls = validation[validation.obs["sign"] == 0].copy()
    made = {}
    sizes = real.obs.groupby(["target_gene", "sign"], observed=True).size()
    for target, sign in sizes.index:
        made[target] = cdt.predict(checkpoint, controls, target, sign, n_cells=N_CELLS, seed=seed)
    tokenizer = checkpoint.tokenizer
    cells = concat(made, index_unique=" ")
    scores = {"bits per gene": float(np.trapezoid(curve, SHARES) / (SHARES[-1] - SHARES[0])),
              "bits, all hidden": float(curve[-1])}
    scores |= alike(real, cells, tokenizer, seed)
    for name, pool in (("escapees", cells), ("escapees, real", real)):
        own = pool[pool.obs["target_gene"] == "IFNGR1"]
        scores[name] = escaped(own, training, "IFNGR1", tokenizer.target_depth)
    return scores


def alike(real: AnnData, made: AnnData, tokenizer: Tokenizer, seed: int) -> dict[str, float]:
    """Returns agreement and energy distance of made cells to half of the real ones, and of the other half."""
    found = likeness(prepared(real, tokenizer), {"made": prepared(made, tokenizer)}, tokenizer.target_depth, seed)
    scores = {}
    for name, short in STATISTICS:
        scores |= {short: found[name]["made"][0], f"{short}, real": found[name]["real"][0]}
    return scores


def set_aside_cells(checkpoint: cdt.Checkpoint, screen: AnnData) -> AnnData:
    """Returns the cells of the training side that fine-tuning set aside, and the controls of the same replicates."""
    cells = screen[named_split(screen) == "train"].copy()
    store = cdt.TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    keys, number = store.groups()
    aside = np.isin(number, np.flatnonzero(set_aside(keys, LITE.finetune.validation_share)))
    return cells[aside | (cells.obs["sign"] == 0).to_numpy()].copy()


def judge_trained(checkpoint: cdt.Checkpoint, cells: AnnData, seed: int) -> dict[str, float]:
    """Returns how like real ones the cells of a trained model are, replicate by replicate."""
    real = cells[cells.obs["sign"] != 0].copy()
    made = {}
    for (target, sign, batch), _ in real.obs.groupby(["target_gene", "sign", "batch"], observed=True):
        controls = cells[(cells.obs["sign"] == 0) & (cells.obs["batch"] == batch)].copy()
        made[f"{target} {batch}"] = cdt.predict(checkpoint, controls, target, sign, n_cells=N_CELLS, seed=seed)
    return alike(real, concat(made, index_unique=" "), checkpoint.tokenizer, seed)


def make_trained(folders: list[str], known: list[dict[str, Any]]) -> None:
    """Tries every sampler on every model, and keeps each answer as soon as it is there."""
    screen = cdt.load_screen("papalexi2021")
    done = {(run["trial"], run["seed"]) for run in known if run["of"] == TRAINED}
    for seed, folder in enumerate(folders):
        checkpoint = cdt.Checkpoint.load(folder)
        cells = set_aside_cells(checkpoint, screen)
        config, mask_id, response = checkpoint.process.config, checkpoint.tokenizer.mask_id, checkpoint.model.response
        for name in ("whole", *SAMPLERS, STATE_FIRST):
            if (name, seed) in done:
                continue
            checkpoint.process = SAMPLERS.get(name, MaskedDiffusion)(config, mask_id)
            checkpoint.model.response = state_first(response) if name == STATE_FIRST else response
            keep({"of": TRAINED, "trial": name, "seed": seed}, judge_trained(checkpoint, cells, seed), known)


def state_first(response: Response) -> variants.StateFirst:
    """Returns the same module, which draws the state of a cell first."""
    made = variants.StateFirst(response.trust.in_features)
    made.load_state_dict(response.state_dict())
    return made


def keep(run: dict[str, Any], scores: dict[str, float], known: list[dict[str, Any]]) -> None:
    """Adds a run to the file."""
    known.append(run | {metric: round(float(value), 4) for metric, value in scores.items()})
    write_atomically(OUT, (json.dumps(known, indent=1) + "\n").encode())
    print(known[-1], flush=True)


def make(seeds: list[int], steps: int, known: list[dict[str, Any]]) -> None:
    """Makes the runs that are missing, seed by seed, and keeps each as soon as it is made."""
    training, validation = sides("papalexi2021")
    done = {(run["trial"], run["seed"]) for run in known if run["of"] == SHORT}
    for seed, name in product(seeds, NETWORKS):
        if (name, seed) in done:
            continue
        began = time.process_time()
        checkpoint = trained(name, training, seed, steps)
        scores = judge(checkpoint, training, validation, seed)
        run = {"of": SHORT, "trial": name, "seed": seed, "steps": steps}
        keep(run | {"seconds": round(time.process_time() - began)}, scores, known)


def averages(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns the whole, and for all others the mean difference from it over seeds, with its standard error."""
    table = pd.DataFrame(runs).drop(columns=["of", "steps", "seconds"], errors="ignore").set_index(["trial", "seed"])
    whole = table.loc["whole"]
    rows = {("whole", "mean"): whole.mean()}
    for name in table.index.unique("trial").drop("whole"):
        gaps = table.loc[name] - whole
        rows |= {(name, "difference"): gaps.mean(), (name, "error"): gaps.std() / np.sqrt(len(gaps))}
    return pd.DataFrame(rows).T


def main() -> None:
    """Makes what is missing and prints the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.trials", description=__doc__)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--checkpoint", nargs="*", help="trained models, seeds of one recipe")
    given = options.parse_args()
    known = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else []
    if given.checkpoint:
        make_trained(given.checkpoint, known)
    else:
        make(given.seeds, given.steps, known)
    for of, runs in pd.DataFrame(known).groupby("of", sort=False):
        print(of, averages(runs.dropna(axis=1, how="all").to_dict("records")).round(4).to_string(), sep="\n")


if __name__ == "__main__":
    main()
