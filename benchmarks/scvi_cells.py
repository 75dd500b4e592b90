"""scVI and its linear kin, in their own environment (peers.sh): what held-out cells cost them, nats a cell.

Both are negative binomials around depth times rate, gene by gene independent given 20 numbers a cell; these are found
by a network, and the rates follow from them by a network (scVI) or linearly: a factor model (LinearSCVI). Both are told
the depth and the target, scVI the replicate, too. The likelihood is estimated by importance sampling.

    python scvi_cells.py COUNTS.h5ad OUT.json SEED
"""

import json
import sys
import time

import anndata as ad
import numpy as np
import scvi

N_LATENT, EPOCHS, SAMPLES = 20, 400, 1000
NB = {"n_latent": N_LATENT, "gene_likelihood": "nb", "use_observed_lib_size": True}

cells = ad.read_h5ad(sys.argv[1])
train = cells[cells.obs["side"] == "train"].copy()
held_out = cells[cells.obs["side"] == "held_out"].copy()
found, seed = [], int(sys.argv[3])
kinds = (
    ("scVI", scvi.model.SCVI, {"categorical_covariate_keys": ["batch"]}),
    ("negative-binomial factors", scvi.model.LinearSCVI, {}),
)
for name, kind, more in kinds:
    scvi.settings.seed = seed
    began = time.perf_counter()
    kind.setup_anndata(train, batch_key="target_gene", **more)
    model = kind(train, **NB)
    model.train(max_epochs=EPOCHS, early_stopping=True, batch_size=512, accelerator="cpu")
    found_ll = model.get_marginal_ll(held_out, n_mc_samples=SAMPLES, return_mean=False)
    nats = -np.asarray(found_ll, float)
    row = {"density": name, "seed": seed, "nats_per_cell": float(nats.mean())}
    row["bound"] = -float(model.get_elbo(held_out))
    row["epochs"] = len(model.history["elbo_train"])
    row["seconds"] = round(time.perf_counter() - began)
    print(row, flush=True)
    of_cells = dict(zip(held_out.obs_names, nats.round(3).tolist(), strict=True))
    found.append(row | {"cells": of_cells})
with open(sys.argv[2], "w", encoding="utf-8") as file:
    json.dump(found, file)
