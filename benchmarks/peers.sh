#!/usr/bin/env bash
# Trains published models on the same split as the capsule, three seeds, each in an environment of its own under
# output/peers, and leaves their predictions where `evaluate` scores them; what is there already is kept.
# benchmarks/peers.json keeps time and versions.
#
#     bash benchmarks/peers.sh state scgen scvi
#     cdt-lite evaluate --tasks --predicted output/peers/*-seed*.h5ad
#     python -m benchmarks.densities
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/output/peers
export WANDB_MODE=disabled HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
export CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu TQDM_MININTERVAL=30

run_state() {
    rm -rf "$out/state_run"
    "$bin/state" tx train \
        data.kwargs.toml_config_path="$out/split.toml" data.kwargs.embed_key=X_hvg data.kwargs.output_space=gene \
        data.kwargs.pert_col=target_gene data.kwargs.control_pert=non-targeting data.kwargs.cell_type_key=cell_type \
        data.kwargs.batch_col=gem_group data.kwargs.num_workers=0 data.kwargs.pin_memory=false \
        model=state_sm model.kwargs.cell_set_len=32 model.kwargs.hidden_dim=128 \
        training.max_steps=4000 training.batch_size=4 training.train_seed="$1" training.val_freq=40000 \
        training.ckpt_every_n_steps=4000 use_wandb=false overwrite=true output_dir="$out" name=state_run
    "$bin/state" tx predict --output-dir "$out/state_run" --checkpoint final.ckpt --predict-only --profile anndata
    cp "$out"/state_run/eval_*/adata_pred.h5ad "$out/state_made.h5ad"
}

run_scgen() {
    "$bin/python" benchmarks/scgen.py "$out/data/screen.h5ad" "$out/scgen_made.h5ad" "$1"
}

run_scvi() {
    "$bin/python" benchmarks/scvi_cells.py "$out/counts/screen.h5ad" "$out/scvi-seed$1.json" "$1"
}

python -m benchmarks.peers prepare
for peer in "$@"; do
    case $peer in
    state) needs=('arc-state==0.11.*') ;;
    scgen) needs=(pertpy==1.0.3 'statsmodels<0.15' scvi-tools) ;;
    scvi) needs=(scvi-tools) ;;
    *)
        echo "there is no recipe for $peer: state, scgen, scvi" >&2
        exit 2
        ;;
    esac
    bin=$out/$peer/bin
    [ -x "$bin/python" ] || python -m venv "$out/$peer"
    "$bin/pip" install -q "${needs[@]}"
    "$bin/pip" freeze > "$out/$peer.txt"
    for seed in 0 1 2; do
        ls "$out/$peer-seed$seed".* > /dev/null 2>&1 && continue
        SECONDS=0
        "run_$peer" "$seed"
        [ "$peer" = scvi ] || python -m benchmarks.peers collect "$peer" "$seed" "$SECONDS"
    done
done
