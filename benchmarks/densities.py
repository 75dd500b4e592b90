"""What held-out cells cost the model and densities of cells that are told the depth, too: nats a gene, exact counts.

The model prices bins; a bin of several counts is shared out among them evenly, which can only cost it more. Its price
is an upper bound (the area under its H curve), the others' an importance-sampled likelihood.

    bash benchmarks/peers.sh scvi
    python -m benchmarks.densities --checkpoint FOLDER...
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

import cdt_lite as cdt
from benchmarks.peers import OUT
from cdt_lite.data import CONTROL, named_split
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.evaluation import bootstrap_means
from cdt_lite.files import write_atomically
from cdt_lite.report.densities import NegativeBinomial, prepared
from cdt_lite.report.quality import hidden_nats
from cdt_lite.training import Checkpoint, load_capsule

RECORD = Path(__file__).with_name("densities.json")


def shared_out(tokenizer: Tokenizer, bins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns what naming a count within its bin costs, nats: the log of how many counts the bin holds.

    The last bin, which has no end, holds what was seen in it.
    """
    edges = np.append(tokenizer.edges, max(counts.max() + 1, tokenizer.edges[-1] + 1))
    return np.log(np.diff(np.ceil(edges)))[bins]


def compared(nats: dict[str, pd.Series], condition: pd.Series) -> pd.DataFrame:
    """Means over cells, and the model's gap to each with its interval over perturbations."""
    rows = []
    model = nats["model"]
    for name, cost in nats.items():
        gaps = (model - cost.reindex(model.index)).groupby(condition).mean()
        low, high = np.quantile(bootstrap_means(gaps.to_numpy()[:, None]), [0.025, 0.975])
        row = {"density": name, "nats_per_gene": cost.mean(), "model_minus_it": gaps.mean()}
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def main() -> None:
    """Prices the cells, prints the table and keeps it."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.densities", description=__doc__)
    what = "trained models, seeds of one recipe (default: the capsule)"
    options.add_argument("--checkpoint", nargs="*", help=what)
    given = options.parse_args()
    screen = cdt.load_screen("papalexi2021")
    models = [Checkpoint.load(folder) for folder in given.checkpoint or []]
    models = models or [load_capsule(screen)]
    tokenizer, side = models[0].tokenizer, named_split(screen)
    train = prepared(screen[side == "train"], tokenizer)
    held_out = prepared(screen[side == "held_out"], tokenizer)
    controls = train[(train.obs["target_gene"] == CONTROL).to_numpy()]
    beyond = shared_out(tokenizer, held_out.layers["bins"], held_out.X).mean(1)
    costs = []
    for seed, model in enumerate(models):
        costs.append(hidden_nats(model, controls, held_out, seed).mean(1) + beyond)
    names = held_out.obs_names
    nats = {"model": pd.Series(np.mean(costs, 0), names)}
    by_condition = NegativeBinomial(train, "condition").nats(held_out, tokenizer).mean(1) + beyond
    nats["negative binomial, condition"] = pd.Series(by_condition, names)
    peers = []
    for path in sorted(OUT.glob("scvi-seed*.json")):
        peers += json.loads(path.read_text())
    for name, rows in pd.DataFrame(peers).groupby("density", sort=False):
        of_cells = pd.DataFrame(rows["cells"].tolist()).mean()
        nats[str(name)] = of_cells.reindex(names) / held_out.n_vars
    table = compared(nats, held_out.obs["condition"])
    print(table.round(4).to_markdown(index=False))
    seeds = [{key: value for key, value in row.items() if key != "cells"} for row in peers]
    facts = {"cells": len(names), "genes": held_out.n_vars, "peers": seeds}
    facts["model, by seed"] = [float(cost.mean()) for cost in costs]
    text = json.dumps(facts | {"table": table.to_dict("records")}, indent=1)
    write_atomically(RECORD, f"{text}\n".encode())


if __name__ == "__main__":
    main()
