"""From v1 to all that was tried, one switch at a time, at a learner's size: what does each switch buy?

    python -m benchmarks.ablations --seeds 0 1 2
    python -m benchmarks.ablations --one-out --seeds 0 1 2

The first climbs the ladder, each rung on top of the one before. The second takes single switches out of the whole:
what does each still buy when all the others are on? The recipe left out the four that bought nothing (`switches.LOST`).

Every run trains a `lite`-sized model from nothing, on 96 genes of the training side of the named split less a
validation part, and is judged on that part: test perturbations are never looked at. On the simulated screen, where sign
and dose are planted, two more runs withhold the sign and the magnitude. One JSON a run in benchmarks/ablations/; a run
whose file is there is not made again, so the command resumes. `--table` prints what is there.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

from benchmarks.switches import ladder, without
from cdt_lite import __version__
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.expression import dense, log1p_counts
from cdt_lite.data.screens import load_screen
from cdt_lite.data.splits import named_split, split_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation.cells import Changes
from cdt_lite.evaluation.evaluate import control_halves, evaluate
from cdt_lite.files import write_atomically
from cdt_lite.model.config import PRESETS, Config
from cdt_lite.training.changes import mean_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.predict import predict
from cdt_lite.training.start import start
from cdt_lite.training.train import train, validation_curve

FOLDER = Path(__file__).parent / "ablations"
METRICS = ["pearson_delta", "mae", "systema_pearson", "energy_distance", "cell_sd_ratio"]
N_GENES, N_VALIDATION, N_CELLS = 96, 6, 128
SHARES = (0.05, 0.25, 0.5, 0.75, 1.0)


def panel(screen: ad.AnnData) -> ad.AnnData:
    """Keeps the targets that are measured and, of the other genes, those whose variance is largest for their mean."""
    train = screen[named_split(screen) == "train"]
    mean = np.asarray(train.X.mean(0)).ravel()
    spread = np.asarray(train.X.multiply(train.X).mean(0)).ravel() - mean**2
    excess = pd.Series((spread - mean) / np.maximum(mean, 0.05), index=screen.var_names)
    targets = [g for g in screen.var_names if g in set(screen.obs["target_gene"].astype(str))]
    others = excess.drop(targets).sort_values(ascending=False).index
    keep = {*targets, *others[: max(0, N_GENES - len(targets))]}
    return screen[:, [g for g in screen.var_names if g in keep]].copy()


def perturbations(cells: ad.AnnData) -> pd.Series:
    """Names every cell's perturbation: target and sign."""
    return cells.obs["target_gene"].astype(str) + " " + cells.obs["sign"].astype(int).astype(str)


def effect_sizes(cells: ad.AnnData) -> pd.Series:
    """Returns how far every perturbation moves the mean log1p expression of a gene, on average over genes."""
    logged = log1p_counts(cells.X, float(np.median(np.asarray(cells.X.sum(1)))))
    means = pd.DataFrame(dense(logged), columns=cells.var_names).groupby(perturbations(cells).to_numpy()).mean()
    return (means - means.loc["non-targeting 0"]).abs().mean(axis=1)


def validation_part(screen: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    """Returns training cells and validation cells, both from the training side of the named split.

    Validation: the second replicate of the targets whose mean expression moves most in the first, and its controls.
    """
    cells = screen[named_split(screen) == "train"].copy()
    batch = cells.obs["batch"].astype(str).to_numpy()
    one, two = sorted(set(batch))[:2]
    size = effect_sizes(cells[batch == one])
    label = perturbations(cells).to_numpy()
    here = [p for p in size.sort_values().index if (label[batch == two] == p).sum() >= 30 and not p.endswith(" 0")]
    strongest = list(dict.fromkeys(p.split(" ")[0] for p in reversed(here)))[:N_VALIDATION]
    side = split_screen(cells, held_out=[(t, two) for t in strongest])
    control = (cells.obs["target_gene"].astype(str) == "non-targeting").to_numpy()
    return cells[side == "train"].copy(), cells[(side == "held_out") | (control & (batch == two))].copy()


def withheld(cells: ad.AnnData, what: str) -> ad.AnnData:
    """Returns the cells with every perturbation's sign called -1, or with no magnitude."""
    cells, perturbed = cells.copy(), (cells.obs["sign"] != 0).to_numpy()
    if what == "sign":
        cells.obs.loc[perturbed, "sign"] = -1
    cells.obs.loc[perturbed, "magnitude"] = np.nan  # a magnitude has a sign, too
    return cells


def trained(config: Config, cells: ad.AnnData, seed: int, steps: int) -> tuple[Checkpoint, float]:
    """Returns a model trained from nothing, and the seconds it took."""
    began = time.perf_counter()
    config = replace(config, finetune=replace(config.finetune, seed=seed))
    checkpoint = start(config, cells, seed=seed)
    data = SetSampler(TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary), config.finetune)
    for _ in train(checkpoint, data, steps=steps):
        pass
    return checkpoint, time.perf_counter() - began


def one_run(config: Config, training: ad.AnnData, validation: ad.AnnData, seed: int, steps: int, withhold: str = "",
            last: dict[Any, tuple[Checkpoint, float]] | None = None) -> dict[str, Any]:
    """Trains and judges one model; returns what its JSON holds.

    `last` holds the model before: a run that differs in the sampler alone takes it, since training knows no sampler.
    """
    last = {} if last is None else last
    law = (config.diffusion.mask_law, config.diffusion.mask_ratio)
    key = (id(training), seed, steps, withhold, law, replace(config, name="", diffusion=PRESETS["lite"].diffusion))
    if key not in last:
        made = trained(config, withheld(training, withhold) if withhold else training, seed, steps)
        last.clear()
        last[key] = made
    checkpoint, seconds = last[key]
    checkpoint.config = replace(checkpoint.config, diffusion=config.diffusion)
    return {"metrics": judge(checkpoint, training, validation, seed, withhold), "seconds": round(seconds),
            "steps": steps, "cells_per_step": config.finetune.batch_size, "genes": training.n_vars,
            "parameters_used": sum(p.numel() for p in checkpoint.model.parameters())
            - checkpoint.model.gene_table.weight.numel() + len(checkpoint.vocabulary) * config.model.gene_embed_dim}


def judge(checkpoint: Checkpoint, training: ad.AnnData, validation: ad.AnnData, seed: int, withhold: str = ""
          ) -> dict[str, float]:
    """Bits per gene (comparable between rungs with the same tokens only) and the scores of sampled cells.

    The model is shown one half of the controls and the truth subtracts the other, which the table of mean effects is
    made without, too.
    """
    asked = withheld(validation, withhold) if withhold else validation
    truth, ours = control_halves(validation, seed=seed)
    told = with_clean_table(checkpoint, withheld(training, withhold) if withhold else training, truth)
    quiet = replace(checkpoint.config.finetune, control_share=0.0, target_dropout=0.0, perturbation_dropout=0.0,
                    cells_per_set=32)
    data = SetSampler(TokenStore.from_adata(asked, checkpoint.tokenizer, checkpoint.vocabulary), quiet)
    curve = validation_curve(told, data, n_batches=4, shares=SHARES) / np.log(2)
    made = []
    for (target, sign), rows in validation.obs[validation.obs["sign"] != 0].groupby(["target_gene", "sign"],
                                                                                    observed=True):
        dose = float("nan") if withhold else float(rows["magnitude"].iloc[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a measured magnitude may point against its sign
            cells = predict(told, ours, str(target), -1 if withhold == "sign" else int(sign),
                            None if np.isnan(dose) else dose, n_cells=N_CELLS, seed=seed)
        cells.obs["sign"] = np.int8(sign)
        made.append(cells)
    change = one_step_change(told, validation, ours, asked, seed)
    table = evaluate(validation, ad.concat(made, index_unique="-", keys=[str(i) for i in range(len(made))]),
                     metrics=METRICS, baselines=False, ceiling=False, seed=seed)
    scores = {k: float(v) for k, v in table[METRICS].mean().items()}
    return {"bits_per_gene": float(np.trapezoid(curve, SHARES) / (SHARES[-1] - SHARES[0])),
            "bits_all_hidden": float(curve[-1]), "pearson_change": change, **scores}


def one_step_change(checkpoint: Checkpoint, validation: ad.AnnData, ours: ad.AnnData, asked: ad.AnnData, seed: int
                    ) -> float:
    """Returns the Pearson correlation of real and expected changes: no noise of sampled cells in it.

    `asked` holds what the model is told: without sign (both are told -1) the changes are handed out again by target.
    """
    wanted = wanted_cells(validation[validation.obs["sign"] != 0])
    told = wanted_cells(asked[asked.obs["sign"] != 0])
    changes = mean_changes(checkpoint, ours, told, 256, seed)
    rows = [changes.loc[(t, s)] if (t, s) in changes.index else changes.loc[(t, -1)] for t, s, _ in wanted.index]
    index = pd.MultiIndex.from_tuples([(t, s) for t, s, _ in wanted.index])
    table = evaluate(validation, {"change": Changes(pd.DataFrame(np.stack(rows), index, changes.columns))},
                     metrics=["pearson_delta"], baselines=False, ceiling=False, seed=seed)
    return float(table["pearson_delta"].mean())


def plan(screens: list[str], one_out: bool = False) -> Iterator[tuple[str, int, str, Config, str]]:
    """Lists the runs of one seed: screen, number, switch, configuration, and what is withheld."""
    for screen in screens:
        if one_out:
            yield from ((screen, i, switch, c, "") for i, (switch, c) in enumerate(without(N_GENES).items()))
            continue
        rungs = ladder(N_GENES)
        for number, (switch, config) in enumerate(rungs.items()):
            yield screen, number, switch, config, ""
        if screen == "simulated":
            for number, what in enumerate(("sign", "magnitude"), len(rungs)):
                yield screen, number, f"without {what}", config, what


def runs(screens: list[str], seeds: list[int], steps: int, one_out: bool = False
         ) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Makes the runs that are missing, seed by seed, yielding each file and what it holds."""
    folder = FOLDER / "one_out" if one_out else FOLDER
    folder.mkdir(exist_ok=True)
    parts = {name: validation_part(panel(load_screen(name))) for name in screens}
    last: dict[Any, tuple[Checkpoint, float]] = {}
    for seed in seeds:
        for screen, number, switch, config, withhold in plan(screens, one_out):
            path = folder / f"{screen}-{number:02d}-{switch.replace(' ', '-')}-{seed}.json"
            if path.exists():
                continue
            training, validation = parts[screen]
            made = one_run(config, training, validation, seed, steps, withhold, last)
            result = {"screen": screen, "number": number, "switch": switch, "seed": seed, **made,
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--one-out", action="store_true", help="take single switches out of the whole")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    args = parser.parse_args()
    if not args.table:
        for path, result in runs(args.screen or ["papalexi2021", "simulated"], args.seeds, args.steps, args.one_out):
            print(path.name, result["seconds"], {k: round(v, 3) for k, v in result["metrics"].items()}, flush=True)
    print(table(FOLDER / "one_out" if args.one_out else FOLDER).to_string())


if __name__ == "__main__":
    main()
