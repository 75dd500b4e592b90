"""Two targets perturbed together: pairs that nobody made, of genes that were perturbed alone, on a simulated screen.

Every third pair is withheld altogether, and of every other one the last replicate; both signs occur. A pair's condition
and its expected effect are the sums of those of its genes. Rivals in the report: "additive", the sum of both measured
effects, and "matching mean", their mean. Where a program saturates, the truth is less than the sum.

    python -m benchmarks.pairs
"""

import argparse
from pathlib import Path

from anndata import AnnData

import cdt_lite as cdt
from benchmarks.contexts import RESULTS, trained
from cdt_lite.data.simulate import ScreenDesign
from cdt_lite.data.splits import choose_split
from cdt_lite.model import PRESETS
from cdt_lite.report.results import write_report
from cdt_lite.report.tasks import ReportOptions

SCREEN = "simulated, pairs of targets"
OUT = Path("output/pairs")
COMMAND = "python -m benchmarks.pairs"
DESIGN = ScreenDesign(n_pairs=30, both_fraction=0.0)
N_CELLS = 16_000


def with_pairs_withheld(screen: AnnData) -> AnnData:
    """Returns a simulated screen whose split withholds every third pair, and the last replicate of every other one."""
    screen = screen.copy()
    screen.uns["screen"] = screen.uns["screen"] | {"name": SCREEN}
    targets = screen.obs["target_gene"].astype(str)
    pairs = sorted({target for target in targets if "+" in target})
    last = max(screen.obs["batch"].astype(str))
    held_out = [(target, last) for i, target in enumerate(pairs) if i % 3]
    return choose_split(screen, pairs[::3], held_out)


def main() -> None:
    """Trains, and adds the report to the results."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--pretrain-steps", type=int, default=600)
    parser.add_argument("--finetune-steps", type=int, default=1200)
    given = parser.parse_args()
    screen = with_pairs_withheld(cdt.simulate_screen(n_cells=N_CELLS, design=DESIGN))
    folder = trained(screen, PRESETS["lite"], OUT, given.pretrain_steps, given.finetune_steps)
    write_report(screen, [folder], ReportOptions(n_cells=64), path=RESULTS, command=COMMAND, say=print)


if __name__ == "__main__":
    main()
