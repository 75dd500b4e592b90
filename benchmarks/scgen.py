"""scGen, in its own environment (peers.sh): trains on the training side, predicts withheld cells of seen targets."""

import sys

import anndata as ad
import numpy as np
import pertpy
import scvi

scvi.settings.seed = int(sys.argv[3])
cells = ad.read_h5ad(sys.argv[1])
train = cells[cells.obs["side"] == "train"].copy()
pertpy.tl.Scgen.setup_anndata(train, batch_key="target_gene", labels_key="batch")
model = pertpy.tl.Scgen(train, n_latent=32, n_hidden=128)
model.train(max_epochs=50, batch_size=128, early_stopping=False)
control, made = train[train.obs["target_gene"] == "non-targeting"], []
withheld = cells.obs[cells.obs["side"] != "train"]
for (target, batch), rows in withheld.groupby(["target_gene", "batch"], observed=True):
    if target not in set(train.obs["target_gene"]):
        continue  # cells are moved by the mean latent shift of that very perturbation
    here = control[control.obs["batch"] == batch]
    here = here[np.random.default_rng(0).choice(here.n_obs, len(rows))].copy()
    here.obs_names_make_unique()
    predicted, _ = model.predict(ctrl_key="non-targeting", stim_key=target, adata_to_predict=here)
    predicted.obs["target_gene"], predicted.obs["batch"] = target, batch
    made.append(predicted)
ad.concat(made, index_unique="_").write_h5ad(sys.argv[2])
