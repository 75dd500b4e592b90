"""Task 5: a simulated cell type of which the model has seen nothing but controls.

The screen's cell types take the place of replicates, and all perturbed cells of the last type are withheld. Rivals in
the report: "replicate mean" is the mean change of the same perturbation in the other types, carried over; "perturbed
mean" that of all perturbations.

    python -m benchmarks.contexts
"""

import argparse
from pathlib import Path

from anndata import AnnData

import cdt_lite as cdt
from cdt_lite.data import CONTROL
from cdt_lite.data.splits import choose_split
from cdt_lite.model import PRESETS, Config
from cdt_lite.report.results import write_report
from cdt_lite.report.tasks import ReportOptions
from cdt_lite.training import Checkpoint
from cdt_lite.training.capsule import make_capsule

SCREEN = "simulated, an unseen cell type"
OUT, RESULTS = Path("output/contexts"), Path("figures/results.json")
COMMAND = "python -m benchmarks.contexts"


def by_cell_type(screen: AnnData) -> AnnData:
    """Returns a simulated screen whose replicates are its cell types, the last one known by its controls alone."""
    screen = screen.copy()
    screen.obs["batch"] = screen.obs["cell_type"].astype(str)
    screen.uns["screen"] = screen.uns["screen"] | {"name": SCREEN, "contexts": "cell types"}
    perturbed = screen.obs[screen.obs["target_gene"] != CONTROL]
    last = max(perturbed["batch"])
    targets = sorted(set(perturbed["target_gene"][perturbed["batch"] == last]))
    return choose_split(screen, held_out=[(target, last) for target in targets])


def trained(screen: AnnData, config: Config, out: Path, pretrain_steps: int,
            finetune_steps: int) -> Path:
    """Trains a model on the other cell types, and on this one's controls; one that is there already is kept."""
    if (out / "checkpoint.json").is_file():
        return out
    made = None
    steps = {"pretrain_steps": pretrain_steps, "finetune_steps": finetune_steps}
    for made in make_capsule(screen, config, **steps):
        if not isinstance(made, Checkpoint) and made.step % 50 == 0:
            print(made.stage, made.step, made.n_steps, f"{made.loss:.3f}", flush=True)
    assert isinstance(made, Checkpoint)
    return made.save(out)


def main() -> None:
    """Trains, and adds the report to the results."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--pretrain-steps", type=int, default=600)
    parser.add_argument("--finetune-steps", type=int, default=1200)
    given = parser.parse_args()
    screen = by_cell_type(cdt.simulate_screen())
    folder = trained(screen, PRESETS["lite"], OUT, given.pretrain_steps, given.finetune_steps)
    options = ReportOptions(n_cells=64)
    write_report(screen, [folder], options, path=RESULTS, command=COMMAND, say=print)


if __name__ == "__main__":
    main()
