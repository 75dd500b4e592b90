"""Which genes are alike? Every likeness by its marginal likelihood on training cells, and by what it predicts.

    python -m benchmarks.likenesses                      papalexi2021, its collection of immune gene sets
    python -m benchmarks.likenesses --screen simulated   104 targets, the planted programs as gene sets

No network: what is known of mean effects, alone (`cdt_lite/training/kriging.py`). Truth is measured against one half
of the control cells, predictions against the other. "Left out" predicts each target of the screen from all others; the
four numbers of the formula are those of all targets. "Unseen" predicts the targets that the named split withholds.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import cdt_lite as cdt
from cdt_lite.data import CONTROL, named_split
from cdt_lite.data.gene_sets import Sets, load_gene_sets, planted_sets
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation import control_halves
from cdt_lite.files import write_atomically
from cdt_lite.training.effects import coexpression_of, likeness_of, measured_effects
from cdt_lite.training.kriging import Kriging, Measured
from cdt_lite.training.start import start

OUT = Path(__file__).with_name("likenesses.json")
SHUFFLES = 12
SCORES = ["Pearson", "MAE", "perturbed mean, Pearson", "perturbed mean, MAE", "no change, MAE"]
DRAWS = 3  # of the halves of the controls
WEIGHTS: dict[str, Callable[[int], float]] = {  # of a set, by its size
    "1/log(2+n)": lambda n: 1 / np.log(2 + n),
    "1/n": lambda n: 1 / n,
    "1": lambda n: 1.0,
}


class Side(NamedTuple):
    """What predictions may be made from, and the genes that may be asked for."""

    genes: np.ndarray  # ids, rows of every likeness
    symbols: np.ndarray
    measured: Measured
    sd: np.ndarray
    coexpression: sparse.csr_array


def side_of(cells: AnnData, targets: np.ndarray) -> Side:
    """Measures the effects of some cells."""
    checkpoint = start(cdt.PRESETS["lite"], cells)
    checkpoint.vocabulary = checkpoint.vocabulary.extended(sorted(targets))
    store = TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary)
    ids = np.unique([*store.gene_ids, *checkpoint.vocabulary.ids(sorted(targets))])
    measured, sd = measured_effects(store, checkpoint.tokenizer, ids)
    vectors = coexpression_of(store, checkpoint.tokenizer).of(ids)
    return Side(ids, np.array(checkpoint.vocabulary.symbols)[ids], measured, sd, vectors)


def by_sets(side: Side, sets: Sets, weight: Callable[[int], float],
            rng: np.random.Generator | None = None) -> np.ndarray:
    """Likeness by shared sets; `rng` shuffles the sets among the targets."""
    table = np.zeros((len(side.symbols), len(sets)))
    for i, members in enumerate(sets.values()):
        table[np.isin(side.symbols, sorted(members)), i] = weight(len(members))
    if rng is not None:
        targets = np.unique(side.measured.gene)
        table[targets] = table[rng.permutation(targets)]
    return likeness_of(sparse.csr_array(table), side.measured.gene)


def likenesses(side: Side, sets: Sets, rng: np.random.Generator
               ) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every likeness by name."""
    together = likeness_of(side.coexpression, side.measured.gene)
    shared = by_sets(side, sets, WEIGHTS["1/log(2+n)"])
    yield "none", likeness_of(sparse.csr_array((len(side.genes), 1)), side.measured.gene)
    yield "co-expression", together
    for name, weight in WEIGHTS.items():
        yield f"gene sets, weight {name}", by_sets(side, sets, weight)
    yield "mean of both", (together + shared) / 2
    yield "product of both", together * shared
    for i in range(SHUFFLES):
        yield f"gene sets shuffled {i}", by_sets(side, sets, WEIGHTS["1/log(2+n)"], rng)


def scored(predicted: np.ndarray, truth: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Pearson and mean absolute error over all genes but the target itself."""
    correlation = np.corrcoef(predicted[other], truth[other])[0, 1]
    return float(correlation), float(np.abs(predicted - truth)[other].mean())


def pooled(side: Side) -> dict[tuple[str, int], np.ndarray]:
    """Mean change of every perturbation, over replicates as its cells are."""
    m, found = side.measured, {}
    for gene, sign in set(zip(m.gene.tolist(), m.sign.tolist(), strict=True)):
        rows = (m.gene == gene) & (m.sign == sign)
        mean = np.average(m.effect[rows], axis=0, weights=m.cells[rows])
        found[str(side.symbols[gene]), sign] = mean
    return found


def judged(side: Side, likeness: np.ndarray, truth: dict[tuple[str, int], np.ndarray],
           panel: list[str]) -> tuple[Kriging, pd.DataFrame]:
    """Predicts every perturbation of the truth from all measured ones but those of its own target."""
    kriging, rows = Kriging(side.measured, likeness, side.sd), []
    for (target, sign), change in sorted(truth.items()):
        gene = np.flatnonzero(side.symbols == target)
        weights, left = kriging.known(gene, np.array([sign]), side.measured.gene == gene)
        predicted = weights[0] @ side.measured.effect
        own = np.array(panel) != target
        of_sign = (side.measured.sign == sign) & (side.measured.gene != gene)
        mean = side.measured.effect[of_sign].mean(0)
        rows.append((target, sign, *scored(predicted, change, own), *scored(mean, change, own),
                     float(np.abs(change)[own].mean()), float(left[0])))
    return kriging, pd.DataFrame(rows, columns=["target", "sign", *SCORES, "share unknown"])


def compared(screen: AnnData, sets: Sets, seed: int) -> pd.DataFrame:
    """Scores all likenesses on targets left out, and on those that the named split withholds."""
    names = np.array(sorted(set(screen.obs["target_gene"]) - {CONTROL}))
    split = np.asarray(named_split(screen))
    truth_half, given = control_halves(screen, seed=seed)
    is_control = (screen.obs["target_gene"] == CONTROL).to_numpy()
    told = ~is_control | screen.obs_names.isin(given.obs_names)
    asked = ~is_control | screen.obs_names.isin(truth_half.obs_names)
    questions = {
        "left out": (told, asked),
        "unseen": (told & (split == "train"), asked & (split != "train")),
    }
    tables = []
    for question, (from_these, of_these) in questions.items():
        side = side_of(screen[from_these].copy(), names)
        truth = pooled(side_of(screen[of_these | (is_control & asked)].copy(), names))
        if question == "unseen":
            unseen = set(screen.obs["target_gene"][split == "unseen"])
            truth = {key: change for key, change in truth.items() if key[0] in unseen}
        for name, likeness in likenesses(side, sets, np.random.default_rng(seed)):
            kriging, table = judged(side, likeness, truth, list(screen.var_names))
            table.insert(0, "question", question)
            table.insert(0, "log likelihood", round(kriging.log_likelihood, 1))
            table.insert(0, "likeness", name.rstrip(" 0123456789") if "shuffled" in name else name)
            numbers = dict(zip("abcd", np.round(kriging.parameters, 4), strict=True))
            tables.append(table.assign(**numbers, seed=seed))
    return pd.concat(tables, ignore_index=True)


def main() -> None:
    """Prints and keeps the tables."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.likenesses", description=__doc__)
    options.add_argument("--screen", default="papalexi2021", choices=["papalexi2021", "simulated"])
    options.add_argument("--world", default="regulatory", help="of the simulated screen")
    given = options.parse_args()
    if given.screen == "simulated":
        screen = cdt.simulate_screen(n_genes=208, n_targets=104, world=given.world)
        name, sets = f"simulated, {given.world}", planted_sets(screen)
    else:
        screen = cdt.load_screen(given.screen)
        name, sets = given.screen, load_gene_sets("immune")
    tables = [compared(screen, sets, seed) for seed in range(DRAWS)]
    by = pd.concat(tables, ignore_index=True).groupby
    numbers = ["log likelihood", *"abcd", *SCORES]
    print(by(["question", "likeness"], sort=False)[numbers].mean().round(4).to_markdown())
    known = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    mean = by(["question", "likeness", "target", "sign"], sort=False).mean(numeric_only=True)
    mean = mean.round(4)
    known[name] = mean.drop(columns="seed").reset_index().to_dict("records")
    write_atomically(OUT, json.dumps(known, indent=1).encode())


if __name__ == "__main__":
    main()
