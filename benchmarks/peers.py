"""Runs published models on the same split as the capsule, and leaves their predictions where `evaluate` scores them.

    python benchmarks/peers.py --install          # once: an environment of its own for each peer, under output/peers
    python benchmarks/peers.py state scgen        # trains, predicts, writes output/peers/NAME.h5ad and peers.json
    cdt-lite evaluate --tasks --predicted output/peers/state.h5ad output/peers/scgen.h5ad

Peers see log1p expression; held-out cells never reach their training. They predict as many cells as were measured. A
peer that does not install or run is written down as such, with the last line that it said, beside what it reached
before. Not part of the tests.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.screens import load_screen
from cdt_lite.data.splits import named_split
from cdt_lite.files import write_atomically

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "output" / "peers"
REQUIREMENTS = {"state": ["arc-state==0.11.*"], "scgen": ["pertpy==1.0.3", "statsmodels<0.15", "scvi-tools"]}
PACKAGES = {"state": ["arc-state", "cell-load", "torch"], "scgen": ["pertpy", "scvi-tools", "statsmodels", "torch"]}
QUIET = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
         "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TQDM_MININTERVAL": "30"}


def python_of(peer: str) -> Path:
    return OUT / peer / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(peer: str) -> None:
    if not python_of(peer).exists():
        subprocess.run([sys.executable, "-m", "venv", str(OUT / peer)], check=True)
    subprocess.run([str(python_of(peer)), "-m", "pip", "install", "-q", *REQUIREMENTS[peer]], check=True)


def versions(peer: str) -> dict[str, str]:
    code = ("import json, sys; from importlib.metadata import version; "
            "print(json.dumps({p: version(p) for p in sys.argv[1:]}))")
    out = subprocess.run([str(python_of(peer)), "-c", code, *PACKAGES[peer]], capture_output=True, text=True)
    return json.loads(out.stdout) if out.returncode == 0 else {}


def peak_of(process: subprocess.Popen, found: list[float]) -> None:
    """Follows a process' resident memory, in GB (Linux; elsewhere nothing is found)."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        except OSError:
            return
        if lines:
            found[:] = [int(lines[0].split()[1]) / 2**20]
        time.sleep(1)


def watched(command: list[str], log: Path) -> dict[str, float]:
    """Runs a command and returns its time and peak memory; raises with its last line if it fails."""
    began, peak, before = time.perf_counter(), list[float](), os.times()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | QUIET, cwd=OUT)
        follower = threading.Thread(target=peak_of, args=(process, peak))
        follower.start()
        code = process.wait()
        follower.join()
    if code:
        raise RuntimeError((log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1][:300])
    after, memory = os.times(), round(peak[0], 2) if peak else None
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(cpu, 1),
            "peak_gb": memory}


def with_log1p(screen: ad.AnnData, side: np.ndarray) -> tuple[ad.AnnData, float]:
    """Returns the screen in log1p, as the peers want it, and the depth of its scale (median training control)."""
    control = ((screen.obs["target_gene"] == "non-targeting") & (side == "train")).to_numpy()
    depth = float(np.median(screen.obs["n_umi"].to_numpy()[control]))
    out = screen.copy()
    out.X = sparse.csr_matrix(log1p_counts(screen.X, depth), dtype=np.float32)
    out.obs = pd.DataFrame({"target_gene": screen.obs["target_gene"].astype(str), "side": side.astype(str),
                            "batch": screen.obs["batch"].astype(str), "sign": screen.obs["sign"]})
    out.uns = {}
    return out, depth


def predicted(values: np.ndarray, obs: pd.DataFrame, genes: pd.Index, depth: float, path: Path) -> None:
    """Writes predicted cells in log1p, and says so where `evaluate` looks."""
    obs = pd.DataFrame({"target_gene": obs["target_gene"].astype(str).to_numpy(), "sign": -1,
                        "batch": obs["batch"].astype(str).to_numpy()}, index=[f"cell_{i}" for i in range(len(obs))])
    facts = {"space": "log1p", "target_depth": depth}
    cells = ad.AnnData(np.maximum(values, 0).astype(np.float32), obs=obs, var=pd.DataFrame(index=genes),
                       uns={"cdt_lite": facts})
    cells[(cells.obs["target_gene"] != "non-targeting").to_numpy()].copy().write_h5ad(path)


def state_split(cells: ad.AnnData, data: Path) -> str:
    """STATE's own description of the split: a replicate is a context, its withheld targets are few-shot tests."""
    text = f'[datasets]\nscreen = "{data.as_posix()}"\n\n[training]\nscreen = "train"\n\n[zeroshot]\n\n[fewshot]\n'
    withheld = cells.obs[cells.obs["side"] != "train"]
    for batch, rows in withheld.groupby("batch", observed=True):
        names = ", ".join(f'"{t}"' for t in sorted(rows["target_gene"].unique()))
        text += f'\n[fewshot."screen.{batch}"]\nval = []\ntest = [{names}]\n'
    return text


def run_state(screen: ad.AnnData, side: np.ndarray, steps: int, seed: int) -> dict:
    cells, depth = with_log1p(screen, side)
    data, run = OUT / "state_data", OUT / f"state_run_{seed}"
    data.mkdir(parents=True, exist_ok=True)
    cells.obsm["X_hvg"] = cells.X.toarray()
    cells.obs["cell_type"] = cells.obs["gem_group"] = cells.obs["batch"]
    cells.write_h5ad(data / "screen.h5ad")
    (OUT / "state_split.toml").write_text(state_split(cells, data))
    settings = {
        "data.kwargs.toml_config_path": OUT / "state_split.toml", "data.kwargs.embed_key": "X_hvg",
        "data.kwargs.output_space": "gene", "data.kwargs.pert_col": "target_gene", "data.kwargs.num_workers": 0,
        "data.kwargs.cell_type_key": "cell_type", "data.kwargs.batch_col": "gem_group",
        "data.kwargs.control_pert": "non-targeting", "data.kwargs.pin_memory": "false", "model": "state_sm",
        "model.kwargs.cell_set_len": 32, "model.kwargs.hidden_dim": 128, "training.max_steps": steps,
        "training.batch_size": 4, "training.train_seed": seed, "training.val_freq": 10 * steps,
        "training.ckpt_every_n_steps": steps, "use_wandb": "false", "overwrite": "true", "output_dir": OUT,
        "name": run.name}
    state, began = python_of("state").with_name("state"), time.time()
    train = watched([str(state), "tx", "train", *(f"{k}={v}" for k, v in settings.items())], OUT / "state_train.log")
    predict = watched([str(state), "tx", "predict", "--output-dir", str(run), "--checkpoint", "final.ckpt",
                       "--predict-only", "--profile", "anndata"], OUT / "state_predict.log")
    made = [path for path in run.glob("eval_*/adata_pred.h5ad") if path.stat().st_mtime >= began]
    if not made:
        raise RuntimeError("STATE ended without writing its predictions")
    found = ad.read_h5ad(made[0])
    found.obs["batch"] = found.obs["gem_group"] if "gem_group" in found.obs else found.obs["cell_type"]
    values = found.X.toarray() if sparse.issparse(found.X) else found.X
    predicted(values, found.obs, cells.var_names, depth, OUT / "state.h5ad")
    return {"settings": {k: str(v) for k, v in settings.items() if k.split(".")[0] in ("model", "training")},
            "train": train, "predict": predict}


SCGEN = """
import sys, anndata as ad, numpy as np, pertpy as pt
import scvi
folder, epochs, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
scvi.settings.seed = seed
cells = ad.read_h5ad(folder + "/scgen_in.h5ad")
train = cells[cells.obs["side"] == "train"].copy()
pt.tl.Scgen.setup_anndata(train, batch_key="target_gene", labels_key="batch")
model = pt.tl.Scgen(train, n_latent=32, n_hidden=128)
model.train(max_epochs=epochs, batch_size=128, early_stopping=False)
out, control = [], train[train.obs["target_gene"] == "non-targeting"]
for (target, batch), rows in cells.obs[cells.obs["side"] != "train"].groupby(["target_gene", "batch"], observed=True):
    if target not in set(train.obs["target_gene"]):
        continue  # scGen moves cells by the mean latent shift of that very perturbation: an unseen one has none
    here = control[control.obs["batch"] == batch]
    here = here[np.random.default_rng(seed).choice(here.n_obs, len(rows))].copy()
    here.obs_names_make_unique()
    pred, _ = model.predict(ctrl_key="non-targeting", stim_key=target, adata_to_predict=here)
    pred.obs["target_gene"], pred.obs["batch"] = target, batch
    out.append(pred)
found = ad.concat(out, index_unique="_")
found.obs = found.obs[["target_gene", "batch"]].astype(str)
ad.AnnData(found.X, obs=found.obs).write_h5ad(folder + "/scgen_out.h5ad")
"""


def run_scgen(screen: ad.AnnData, side: np.ndarray, epochs: int, seed: int) -> dict:
    cells, depth = with_log1p(screen, side)
    cells.write_h5ad(OUT / "scgen_in.h5ad")
    command = [str(python_of("scgen")), "-c", SCGEN, str(OUT), str(epochs), str(seed)]
    both = watched(command, OUT / "scgen.log")
    found = ad.read_h5ad(OUT / "scgen_out.h5ad")
    values = found.X.toarray() if sparse.issparse(found.X) else np.asarray(found.X)
    predicted(values, found.obs, cells.var_names, depth, OUT / "scgen.h5ad")
    return {"settings": {"n_latent": 32, "n_hidden": 128, "max_epochs": epochs, "seed": seed},
            "train": both, "predict": {"seconds": "within train", "peak_gb": both["peak_gb"]}}


def as_table(entries: dict[str, dict]) -> str:
    """Renders peers.json: versions, time and memory, or why there is nothing."""
    lines = ["# Peers", "", "Made by `python benchmarks/peers.py` on one CPU thread; scores: figures/results.md.", "",
             "| peer | versions | training s (CPU s) | prediction s | peak GB | |", "|---|---|---|---|---|---|"]
    for peer, entry in entries.items():
        named = ", ".join(f"{k} {v}" for k, v in entry.get("versions", {}).items())
        train, predict = entry.get("train", {}), entry.get("predict", {})
        lines.append(f"| {peer} | {named} | {train.get('seconds', '')} ({train.get('cpu_seconds', 'not taken')}) | "
                     f"{predict.get('seconds', '')} | {train.get('peak_gb', '')} | "
                     f"{entry.get('failed', entry.get('note', ''))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("peers", nargs="*", choices=["state", "scgen", []], default=[])
    options.add_argument("--install", action="store_true")
    options.add_argument("--screen", default="papalexi2021")
    options.add_argument("--steps", type=int, default=4000, help="training steps of STATE")
    options.add_argument("--epochs", type=int, default=50, help="epochs of scGen")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    path, screen = Path(os.environ.get("PEERS_JSON", HERE / "peers.json")), load_screen(args.screen)
    table = json.loads(path.read_text()) if path.exists() else {}
    for peer in args.peers or list(REQUIREMENTS):
        entry: dict = {"screen": args.screen, "command": " ".join(["python", "benchmarks/peers.py", *sys.argv[1:]]),
                       "machine": f"{platform.system()} {platform.machine()}, one CPU thread"}
        try:
            if args.install:
                install(peer)
            else:
                side = named_split(screen)
                entry |= (run_state(screen, side, args.steps, args.seed) if peer == "state"
                          else run_scgen(screen, side, args.epochs, args.seed))
            entry["versions"] = versions(peer)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            entry["failed"] = str(error) or repr(error)
        print(peer, json.dumps(entry, indent=1))
        if "failed" in entry and peer in table:
            table[peer]["failed"] = f"again, by {entry['command']}: {entry['failed']}"
        elif "failed" in entry or not args.install:
            table[peer] = entry
        write_atomically(path, (json.dumps(table, indent=1) + "\n").encode())
        write_atomically(path.with_suffix(".md"), as_table(table).encode())
    print(as_table(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
