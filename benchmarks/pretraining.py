"""Does identity that was learned in pretraining tell anything about a target that was never perturbed?

    python -m benchmarks.pretraining --seeds 0 1 2 --steps 400

Without a table of mean effects (which asks no network) all that a model knows of an unseen target is its gene's vector:
where co-expression put it, and where pretraining moved it. Two arms, with pretraining and without, as small as the runs
of `ablations.py` and on the same genes: measured targets of the training side, those with the largest effects, are
withheld altogether, and their change is predicted. Test perturbations are never looked at. One JSON a run in
benchmarks/ablations/pretraining/; a run whose file is there is not made again.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from benchmarks.ablations import FOLDER, N_GENES, effect_sizes, panel
from cdt_lite import __version__
from cdt_lite.data.batches import SetSampler
from cdt_lite.data.screens import load_screen
from cdt_lite.data.splits import named_split, split_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation.cells import Changes
from cdt_lite.evaluation.evaluate import control_halves, evaluate
from cdt_lite.files import write_atomically
from cdt_lite.model.config import PRESETS
from cdt_lite.training.capsule import pretraining_cells
from cdt_lite.training.changes import mean_changes, wanted_cells
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start
from cdt_lite.training.train import train

METRICS = ["pearson_delta", "systema_pearson", "mae"]
N_UNSEEN = {"papalexi2021": 2, "simulated": 6}  # of seven measured targets on the training side, of twenty-odd


def withheld_targets(cells: ad.AnnData, n: int) -> list[str]:
    """Returns the n measured targets whose mean expression moves most."""
    sizes = effect_sizes(cells)
    targets = dict.fromkeys(name.split(" ")[0] for name in sizes.sort_values(ascending=False).index)
    return [t for t in targets if t in set(cells.var_names)][:n]


def one_run(screen: ad.AnnData, unseen: list[str], arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains one model on the cells of the other targets and predicts the change of the withheld ones."""
    began, side = time.perf_counter(), split_screen(screen, unseen=unseen)
    files = pretraining_cells(screen[side == "train"].copy())
    lite = PRESETS["lite"]
    config = replace(lite, model=replace(lite.model, n_genes=N_GENES, mean_effect=False),
                     pretrain=replace(lite.pretrain, seed=seed), finetune=replace(lite.finetune, seed=seed))
    checkpoint = start(config, *files, seed=seed)
    checkpoint.vocabulary = checkpoint.vocabulary.extended(unseen)
    stores = [TokenStore.from_adata(f, checkpoint.tokenizer, checkpoint.vocabulary) for f in files]
    stages = [SetSampler(stores, config.pretrain, "pretrain")] * (arm == "with")
    for data in [*stages, SetSampler(stores[0], config.finetune)]:
        for _ in train(checkpoint, data, steps=steps):
            pass
    return {"metrics": judge(checkpoint, screen, unseen, seed), "seconds": round(time.perf_counter() - began)}


def judge(checkpoint: Checkpoint, screen: ad.AnnData, unseen: list[str], seed: int) -> dict[str, float]:
    """Scores the expected changes of the withheld targets, and the perturbed mean beside them."""
    names = screen.obs["target_gene"].astype(str)
    test, train_cells = screen[names.isin([*unseen, "non-targeting"])].copy(), screen[~names.isin(unseen)].copy()
    ours = control_halves(test, seed=seed)[1]
    changes = mean_changes(checkpoint, ours.copy(), wanted_cells(test[(test.obs["sign"] != 0).to_numpy()]), 128, seed)
    table = evaluate(test, {"model": Changes(changes)}, train=train_cells, metrics=METRICS, seed=seed,
                     baselines=["perturbed mean", "linear", "kNN"], ceiling=False, unseen=True)
    means = table.groupby("method")[METRICS].mean()
    return {f"{metric}, {method}": float(means.loc[method, metric]) for method in means.index for metric in METRICS}


def runs(screens: list[str], seeds: list[int], steps: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Makes the runs that are missing, seed by seed, yielding each file and what it holds."""
    folder = FOLDER / "pretraining"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name in screens:
            screen = panel(load_screen(name))
            screen = screen[named_split(screen) == "train"].copy()
            unseen = withheld_targets(screen, N_UNSEEN[name])
            for arm in ("without", "with"):
                path = folder / f"{name}-{arm}-{seed}.json"
                if path.exists():
                    continue
                result = {"screen": name, "pretraining": arm, "seed": seed, "steps": steps, "unseen": unseen,
                          **one_run(screen, unseen, arm, seed, steps), "cdt_lite": __version__}
                write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
                yield path, result


def table(folder: Path = FOLDER / "pretraining") -> pd.DataFrame:
    """Returns mean and standard error over seeds, a row per screen and arm."""
    records = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    flat = pd.DataFrame([{"screen": r["screen"], "pretraining": r["pretraining"], **r["metrics"]} for r in records])
    return flat.groupby(["screen", "pretraining"]).agg(["mean", "sem"]).round(3).T


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screen", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help="of each stage")
    args = parser.parse_args()
    for path, result in runs(args.screen or list(N_UNSEEN), args.seeds, args.steps):
        print(path.name, result["seconds"], {k: round(v, 3) for k, v in result["metrics"].items()}, flush=True)
    print(table().to_string())


if __name__ == "__main__":
    main()
