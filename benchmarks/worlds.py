"""Simulated screens that no notebook trains on, a question each; every answer is that of three training seeds.

contexts        A cell type of which the models saw controls alone: cell types take the place of replicates, and all
                perturbed cells of the last type are withheld. Rival "replicate mean": the mean change of the same
                perturbation in the other types, carried over; "perturbed mean": that of all perturbations.
pairs           Two targets perturbed together, each known alone. Every third pair is withheld altogether, and of every
                other one the last replicate; both signs occur. Rivals: "additive", the sum of both measured effects,
                and "matching mean", their mean. Where a program saturates, the truth is less than the sum.
sets            104 targets, whose planted programs the models are told as gene sets.
unidentifiable  104 targets whose effects were dealt out at random: of an unseen one nothing can be known.
cis             Every perturbation moves its own gene, and no other.

    python -m benchmarks.worlds contexts pairs sets unidentifiable cis
"""

import argparse
from pathlib import Path

from anndata import AnnData

import cdt_lite as cdt
from cdt_lite.data import CONTROL, sets_for
from cdt_lite.data.simulate import ScreenDesign
from cdt_lite.data.splits import choose_split
from cdt_lite.model import PRESETS
from cdt_lite.report.results import write_report
from cdt_lite.report.tasks import ReportOptions
from cdt_lite.training.capsule import make_capsule
from cdt_lite.training.checkpoint import Checkpoint

OUT, RESULTS = Path("output/worlds"), Path("figures/results.json")
SEEDS = (0, 1, 2)
PRETRAIN_STEPS, FINETUNE_STEPS = 600, 1200
N_CELLS = 64
COMMAND = "python -m benchmarks.worlds {}"
SETS = "sets"
WORLDS = ("contexts", "pairs", SETS, "unidentifiable", "cis")


def screen_of(world: str) -> AnnData:
    """Returns the simulated screen that asks a question, with the split that withholds the answer."""
    if world == "contexts":
        return by_cell_type(cdt.simulate_screen())
    if world == "pairs":
        design = ScreenDesign(n_pairs=30, both_fraction=0.0)
        return with_pairs_withheld(cdt.simulate_screen(n_cells=16_000, design=design))
    if world == "cis":
        return renamed(cdt.simulate_screen(128, 24, 8_000, design=ScreenDesign(null_fraction=1.0)), "own gene alone")
    law = "regulatory" if world == SETS else world
    return cdt.simulate_screen(n_genes=208, n_targets=104, world=law)


def renamed(screen: AnnData, what: str, **more: str) -> AnnData:
    """Returns a copy of a simulated screen that is reported under a name of its own."""
    screen = screen.copy()
    screen.uns["screen"] = {**screen.uns["screen"], "name": f"simulated, {what}", **more}
    return screen


def by_cell_type(screen: AnnData) -> AnnData:
    """Returns a simulated screen whose replicates are its cell types, the last one known by its controls alone."""
    screen = renamed(screen, "an unseen cell type", contexts="cell types")
    screen.obs["batch"] = screen.obs["cell_type"].astype(str)
    perturbed = screen.obs[screen.obs["target_gene"] != CONTROL]
    last = max(perturbed["batch"])
    targets = sorted(set(perturbed["target_gene"][perturbed["batch"] == last]))
    return choose_split(screen, held_out=[(target, last) for target in targets])


def with_pairs_withheld(screen: AnnData) -> AnnData:
    """Returns a simulated screen whose split withholds every third pair, and the last replicate of every other one."""
    screen = renamed(screen, "pairs of targets")
    targets = screen.obs["target_gene"].astype(str)
    pairs = sorted({target for target in targets if "+" in target})
    last = max(screen.obs["batch"].astype(str))
    held_out = [(target, last) for i, target in enumerate(pairs) if i % 3]
    return choose_split(screen, pairs[::3], held_out)


def trained(world: str, screen: AnnData, seed: int) -> Path:
    """Trains a model on the training side; one that is there already is kept."""
    out = OUT / (f"{world}-{seed}" if seed else world)
    if (out / "checkpoint.json").is_file():
        return out
    sets = sets_for(screen, "planted" if world == SETS else "none")
    steps = {"pretrain_steps": PRETRAIN_STEPS, "finetune_steps": FINETUNE_STEPS}
    for made in make_capsule(screen, PRESETS["lite"], gene_sets=sets, seed=seed, **steps):
        if isinstance(made, Checkpoint):
            made.card["command"] = COMMAND.format(world)
            made.save(out)
        elif made.step % 50 == 0:
            print(out.name, made.stage, made.step, made.n_steps, f"{made.loss:.3f}", flush=True)
    return out


def main() -> None:
    """Trains, and adds the reports to the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worlds", description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=WORLDS, metavar="WORLD")
    for world in parser.parse_args().worlds:
        screen = screen_of(world)
        folders = [trained(world, screen, seed) for seed in SEEDS]
        options = ReportOptions(n_cells=N_CELLS)
        write_report(screen, folders, options, path=RESULTS, command=COMMAND.format(world), say=print)


if __name__ == "__main__":
    main()
