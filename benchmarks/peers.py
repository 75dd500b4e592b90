"""What peers.sh needs on our side of published models: their input, and their predictions as `evaluate` reads them.

Peers see log1p expression; held-out cells never reach their training. They predict as many cells as were measured.
"""

import json
import re
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from cdt_lite.data import CONTROL, dense, load_screen, log1p_counts, named_split
from cdt_lite.files import write_atomically

OUT = Path(__file__).resolve().parents[1] / "output" / "peers"
PACKAGES = ("arc-state", "cell-load", "pertpy", "scvi-tools", "statsmodels", "torch")


def prepare(screen: ad.AnnData, out: Path) -> None:
    """Writes the screen in log1p, and STATE's description of the split: withheld targets are few-shot tests."""
    side = named_split(screen)
    obs = screen.obs[["target_gene", "batch", "sign"]].astype(str).assign(side=side.astype(str))
    is_control = (obs["side"] == "train") & (obs["target_gene"] == CONTROL)
    depth = float(np.median(screen.obs["n_umi"][is_control]))
    logged = sparse.csr_matrix(log1p_counts(screen.X, depth), dtype=np.float32)
    obs = obs.assign(cell_type=obs["batch"], gem_group=obs["batch"])
    cells = ad.AnnData(logged, obs, screen.var[[]], uns={"target_depth": depth})
    cells.obsm["X_hvg"] = logged.toarray()
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    cells.write_h5ad(data / "screen.h5ad")
    (out / "counts").mkdir(exist_ok=True)
    ad.AnnData(screen.X, obs, screen.var[[]]).write_h5ad(out / "counts" / "screen.h5ad")
    text = f'[datasets]\nscreen = "{data.as_posix()}"\n[training]\nscreen = "train"\n[zeroshot]\n[fewshot]\n'
    for batch, rows in obs[obs["side"] != "train"].groupby("batch"):
        targets = json.dumps(sorted(rows["target_gene"].unique()))
        text += f'[fewshot."screen.{batch}"]\nval = []\ntest = {targets}\n'
    (out / "split.toml").write_text(text)


def collect(peer: str, seed: int, seconds: int, out: Path, record: Path) -> None:
    """Writes the cells that a peer predicts with one training seed as `evaluate` reads them, and what they took.

    Control cells that it predicts are kept: what it says of a change is the difference from these.
    """
    screen = ad.read_h5ad(out / "data" / "screen.h5ad")
    made = ad.read_h5ad(out / f"{peer}_made.h5ad")
    made.obs_names = [f"cell_{i}" for i in range(made.n_obs)]
    batch = made.obs["gem_group" if "gem_group" in made.obs else "batch"]
    obs = pd.DataFrame({"target_gene": made.obs["target_gene"], "batch": batch}).astype(str)
    is_control = (obs["target_gene"] == CONTROL).to_numpy()
    about = {"space": "log1p", "target_depth": screen.uns["target_depth"]}
    about["controls"] = "predicted" if is_control.any() else "none"
    obs = obs.assign(sign=np.where(is_control, 0, -1))
    cells = ad.AnnData(np.maximum(dense(made.X), 0), obs, screen.var[[]], uns={"cdt_lite": about})
    cells.write_h5ad(out / f"{peer}-seed{seed}.h5ad")
    installed = dict(re.findall(r"^(\S+)==(\S+)$", (out / f"{peer}.txt").read_text(), re.MULTILINE))
    versions = {name: installed[name] for name in PACKAGES if name in installed}
    entries = json.loads(record.read_text())
    took = entries.get(peer, {}).get("seconds", {})
    took = took if isinstance(took, dict) else {}  # of before: one seed
    entry = {"command": f"bash benchmarks/peers.sh {peer}", "versions": versions}
    entries[peer] = entry | {"seconds": took | {f"seed {seed}": seconds}}
    write_atomically(record, (json.dumps(entries, indent=1) + "\n").encode())


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(load_screen("papalexi2021"), OUT)
    else:
        collect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), OUT, Path(__file__).with_name("peers.json"))
