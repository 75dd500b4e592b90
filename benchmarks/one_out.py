"""The whole less one part: what does each part of the recipe buy when all the others are there?

    python -m benchmarks.one_out               trains the runs that are missing in benchmarks/one_out/, one JSON a run
    python -m benchmarks.one_out --recorded    prints the runs of the first edition, whose switches are gone

Every run trains a `lite` model from nothing, on 96 genes of the training side of the named split less a validation
part, and is judged on that part: test perturbations are never looked at.
"""

import argparse
import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData, concat

import cdt_lite as cdt
from cdt_lite.data import CONTROL, dense, log1p_counts, named_split
from cdt_lite.evaluation import Changes, control_halves
from cdt_lite.files import write_atomically
from cdt_lite.model.diffusion import SHARES
from cdt_lite.training.changes import with_clean_table
from cdt_lite.training.train import validation_curve

FOLDER = Path(__file__).with_name("one_out")
METRICS = ["pearson_delta", "mae", "systema_pearson", "energy_distance", "cell_sd_ratio"]
LITE = cdt.PRESETS["lite"]


def less(**stage: float) -> cdt.Config:
    """Returns the recipe with a changed stage."""
    return replace(LITE, finetune=replace(LITE.finetune, **stage))


RECIPES = {
    "nothing": LITE,
    "controls": less(controls_dropout=1.0),
    "all controls but 4": less(controls_per_set=4),
    "sets of controls": less(control_share=0.0),
    "table of mean effects": less(mean_effects=False),
    "gene vectors": replace(LITE, gene_vectors="random"),
    "target dropout": less(target_dropout=0.0),
    "perturbation dropout": less(perturbation_dropout=0.0),
    "magnitude dropout": less(magnitude_dropout=0.0),
    "magnitude": less(magnitude_dropout=1.0),
    "sign": less(magnitude_dropout=1.0),  # which has a sign, too; and see `blind`
    "learned schedule": LITE,  # it is learned at the end of training: see `trained`
}


@cache
def sides(name: str) -> tuple[AnnData, AnnData]:
    """Returns training cells and, as validation, the second replicate of those targets that move most in the first."""
    screen = cdt.simulate_screen(96) if name == "simulated" else cdt.load_screen(name, n_top_genes=96)
    cells = screen[named_split(screen) == "train"].copy()
    target, batch = cells.obs["target_gene"].astype(str), cells.obs["batch"].astype(str)
    one, two = sorted(batch.unique())[:2]
    logged = dense(log1p_counts(cells.X, float(np.median(cells.obs["n_umi"]))))
    means = pd.DataFrame(logged, target.index)[batch == one].groupby(target).mean()
    size = (means - means.loc[CONTROL]).abs().mean(axis=1)
    often = target[batch == two].value_counts().reindex(size.index) >= 30
    strongest = size[often].drop(CONTROL).nlargest(6).index
    side = cdt.split_screen(cells, held_out=[(name, two) for name in strongest])
    shown = (side == "held_out") | ((target == CONTROL) & (batch == two))
    return cells[side == "train"].copy(), cells[shown].copy()


def blind(part: str, cells: AnnData) -> AnnData:
    """Returns the cells as a run is told of them: without signs, all perturbed ones are called -1."""
    cells = cells.copy()
    if part == "sign":
        cells.obs.loc[cells.obs["sign"] != 0, "sign"] = -1
    return cells


def trained(part: str, cells: AnnData, seed: int, steps: int) -> cdt.Checkpoint:
    """Returns a model trained from nothing."""
    config = RECIPES[part]
    checkpoint = cdt.start(config, cells, seed=seed)
    store = cdt.TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    data = cdt.SetSampler(store, replace(config.finetune, seed=seed))
    for _ in cdt.train(checkpoint, data, steps=steps):
        pass
    if part == "learned schedule":
        checkpoint.process = replace(checkpoint.process, config=LITE.diffusion)
    return checkpoint


def judge(part: str, checkpoint: cdt.Checkpoint, training: AnnData, validation: AnnData, seed: int) -> dict:
    """Returns bits per gene, scores of sampled cells, and the Pearson correlation of the one-step change.

    The model, its table of mean effects included, sees one half of the controls; the truth subtracts the other.
    """
    stage = RECIPES[part].finetune
    truth, ours = control_halves(validation, seed=seed)
    if stage.mean_effects:
        checkpoint = with_clean_table(checkpoint, training, truth)
    known = blind(part, validation)
    store = cdt.TokenStore.from_adata(known, checkpoint.tokenizer, checkpoint.vocabulary)
    quiet = replace(stage, control_share=0.0, target_dropout=0.0, perturbation_dropout=0.0, validation_share=0.0)
    curve = validation_curve(checkpoint, cdt.SetSampler(store, quiet), n_batches=16) / np.log(2)
    if stage.controls_dropout == 1:  # it never saw any, so none are shown to it
        given = checkpoint.model.given
        checkpoint.model.given = lambda asked, controls, *rest: given(asked, None, *rest)
    cells, changes = {}, {}
    plain = cdt.predict_mean(checkpoint, ours, CONTROL, 0, seed=seed)
    perturbed = validation.obs[validation.obs["sign"] != 0]
    doses = perturbed.groupby(["target_gene", "sign"], observed=True)["magnitude"].first()
    for (target, sign), dose in doses.items():
        asked = -1 if part == "sign" else sign
        told = None if stage.magnitude_dropout == 1 or np.isnan(dose) else dose
        made = cdt.predict(checkpoint, ours, target, asked, told, n_cells=128, seed=seed)
        made.obs["sign"] = sign
        cells[f"{target} {sign}"] = made
        changes[target, sign] = cdt.predict_mean(checkpoint, ours, target, asked, seed=seed) - plain
    predicted = {"cells": concat(cells, index_unique=" ")}
    predicted["change"] = Changes(pd.DataFrame(changes, ours.var_names).T)
    table = cdt.evaluate(validation, predicted, metrics=METRICS, baselines=False, seed=seed)
    means = table.groupby("method")[METRICS].mean()
    scores = {"bits_per_gene": np.trapezoid(curve, SHARES) / (SHARES[-1] - SHARES[0])}
    scores |= {"bits_all_hidden": float(curve[-1]), "pearson_change": means.loc["change", "pearson_delta"]}
    return scores | means.loc["cells"].to_dict()


def make(screens: list[str], seeds: list[int], steps: int) -> None:
    """Makes the runs that are missing, seed by seed."""
    FOLDER.mkdir(exist_ok=True)
    for seed, name, (number, part) in product(seeds, screens, enumerate(RECIPES)):
        training, validation = sides(name)
        path = FOLDER / f"{name}-{number:02d}-{seed}.json"
        if path.exists():
            continue
        told = blind(part, training)
        checkpoint = trained(part, told, seed, steps)
        scores = judge(part, checkpoint, told, validation, seed)
        run = {"screen": name, "number": number, "switch": part, "seed": seed, **scores}
        write_atomically(path, (json.dumps(run, indent=1) + "\n").encode())
        print(run, flush=True)


def averages(runs: list[dict]) -> pd.DataFrame:
    """Returns mean and standard error over seeds, a row per screen and switch."""
    groups = pd.DataFrame(runs).drop(columns="seed").groupby(["screen", "number", "switch"])
    return groups.agg(["mean", "sem"]).round(3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--screens", nargs="+", default=["papalexi2021", "simulated"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--recorded", action="store_true")
    options = parser.parse_args()
    if options.recorded:
        recorded = json.loads(FOLDER.with_name("ladder.json").read_text(encoding="utf-8"))
        for name in ("ladder", "one_out"):
            print(name, averages(recorded[name]).to_string(), sep="\n")
    else:
        make(options.screens, options.seeds, options.steps)
        found = [json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")]
        print(averages(found).to_string())
