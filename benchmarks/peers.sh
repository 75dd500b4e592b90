#!/usr/bin/env bash
# Trains published models on the same split as the capsule, each in an environment of its own under output/peers, and
# leaves their predictions where `evaluate` scores them; benchmarks/peers.json keeps time and versions.
#
#     bash benchmarks/peers.sh state scgen
#     cdt-lite evaluate --tasks --predicted output/peers/state.h5ad output/peers/scgen.h5ad
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/output/peers
export WANDB_MODE=disabled HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
export CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu TQDM_MININTERVAL=30

python -m benchmarks.peers prepare
for peer in "$@"; do
    bin=$out/$peer/bin
    [ -x "$bin/python" ] || python -m venv "$out/$peer"
    case $peer in
    state)
        "$bin/pip" install -q 'arc-state==0.11.*'
        rm -rf "$out/state_run"
        SECONDS=0
        "$bin/state" tx train \
            data.kwargs.toml_config_path="$out/split.toml" data.kwargs.embed_key=X_hvg data.kwargs.output_space=gene \
            data.kwargs.pert_col=target_gene data.kwargs.control_pert=non-targeting data.kwargs.cell_type_key=cell_type \
            data.kwargs.batch_col=gem_group data.kwargs.num_workers=0 data.kwargs.pin_memory=false \
            model=state_sm model.kwargs.cell_set_len=32 model.kwargs.hidden_dim=128 \
            training.max_steps=4000 training.batch_size=4 training.train_seed=0 training.val_freq=40000 \
            training.ckpt_every_n_steps=4000 use_wandb=false overwrite=true output_dir="$out" name=state_run
        "$bin/state" tx predict --output-dir "$out/state_run" --checkpoint final.ckpt --predict-only --profile anndata
        cp "$out"/state_run/eval_*/adata_pred.h5ad "$out/state_made.h5ad"
        ;;
    scgen)
        "$bin/pip" install -q pertpy==1.0.3 'statsmodels<0.15' scvi-tools
        SECONDS=0
        "$bin/python" benchmarks/scgen.py "$out/data/screen.h5ad" "$out/scgen_made.h5ad"
        ;;
    scvi)
        "$bin/pip" install -q scvi-tools
        "$bin/python" benchmarks/scvi_cells.py "$out/counts/screen.h5ad" "$out/scvi.json" 0 1 2
        continue
        ;;
    *)
        echo "there is no recipe for $peer: state, scgen, scvi" >&2
        exit 2
        ;;
    esac
    "$bin/pip" freeze > "$out/$peer.txt"
    python -m benchmarks.peers collect "$peer" "$SECONDS"
done
