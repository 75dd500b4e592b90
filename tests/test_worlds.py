"""Simulated screens that ask a question: what is withheld is the answer, and nothing else."""

import numpy as np

from benchmarks import worlds
from cdt_lite.data import CONTROL, named_split
from cdt_lite.data.simulate import ScreenDesign, simulate_screen


def test_a_third_of_the_pairs_is_withheld_and_every_gene_is_known_alone():
    design = ScreenDesign(n_pairs=9, both_fraction=0.0)
    screen = worlds.with_pairs_withheld(simulate_screen(n_genes=96, n_targets=12, n_cells=2000, design=design))
    side, target = np.asarray(named_split(screen)), screen.obs["target_gene"].astype(str).to_numpy()
    pairs = sorted({name for name in target if "+" in name})
    assert set(target[side == "unseen"]) == set(pairs[::3])
    others = [name for i, name in enumerate(pairs) if i % 3]
    held_out = screen.obs[side == "held_out"]
    assert set(held_out["target_gene"].astype(str)) == set(others)
    assert set(held_out["batch"].astype(str)) == {max(screen.obs["batch"].astype(str))}
    train = set(target[side == "train"])
    assert {gene for pair in pairs for gene in pair.split("+")} | set(others) | {CONTROL} <= train


def test_in_one_world_a_perturbation_moves_its_own_gene_alone():
    screen = worlds.screen_of("cis")
    truth = screen.uns["truth"]
    for target, effect in zip(truth["perturbations"]["target_gene"], truth["effect"], strict=True):
        assert (effect[screen.var_names != target] == 0).all()
        assert target not in screen.var_names or effect[screen.var_names == target] != 0
