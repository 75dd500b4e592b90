"""Real and predicted cells in, a table of scores out, beside the baselines that everyone must beat.

Control cells are split in two halves: one is subtracted from the truth, the other from predictions and baselines.
With shared controls the same sampling noise stands on both sides and inflates every correlation; the column
`pearson_delta_shared` shows by how much. Control means are mixed over batches like the cells that they serve.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.expression import gene_means, log1p_counts
from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.baselines import BASELINES, Baseline, ControlMean, PerturbedMean, Responses, dispersed_cells
from cdt_lite.evaluation.cells import (
    Cells,
    Changes,
    Halves,
    Key,
    Means,
    Names,
    Predicted,
    keys_of,
    read_cells,
    read_prediction,
)
from cdt_lite.evaluation.comparison import MIN_CELLS, Arena, BatchMeans, Guess
from cdt_lite.evaluation.metrics import METRICS, Metric, spearman_brown
from cdt_lite.evaluation.summary import LABELS, summarise

__all__ = ["Changes", "control_halves", "evaluate", "summarise"]


def control_halves(
    real: AnnData, *, target_key: str = "target_gene", control: str = "non-targeting",
    batch_key: str | None = "batch", seed: int = 0,
) -> tuple[AnnData, AnnData]:
    """Splits the control cells of a screen as `evaluate` does: those of the truth, and those to give to a model.

    Args:
        real: The screen that will be evaluated on.
        target_key: Column of obs with the perturbed gene.
        control: Label of control cells.
        batch_key: Column of obs with the batch, or None.
        seed: The seed of `evaluate`.
    """
    cells = read_cells(real, "the real screen", Names(target_key, control, batch_key, None))
    truth, ours = (cells.names[rows] for rows in cells.halves(seed))
    return real[truth], real[ours]


@dataclass(frozen=True)
class _Job:
    """What one call of `evaluate` works on."""

    real: Cells
    train: Cells | None
    predicted: dict[str, Predicted]
    baselines: list[Baseline]
    ceiling: bool
    depth: float
    max_cells: int
    seed: int

    def arena(self, halves: Halves, groups: Mapping[Key, np.ndarray] | None = None) -> Arena:
        log1p = log1p_counts(self.real.counts, self.depth)
        return Arena(self.real, log1p, halves, self.depth, self.seed, self.max_cells, groups)

    @property
    def keys(self) -> list[Key]:
        """The perturbations that any method predicts; all of them if there is no method."""
        named = {key for predicted in self.predicted.values() for key in keys_of(predicted)}
        return [key for key in self.real.groups if key in named or not self.predicted]


def _scores(job: _Job, metrics: Sequence[Metric], halves: Halves) -> pd.DataFrame:
    """Scores every method, every baseline and the ceiling with these two sets of control cells."""
    arena = job.arena(halves)
    cells = any(m.needs_cells for m in metrics)
    rows = []
    for method, predicted in job.predicted.items():
        for key in keys_of(predicted):
            if isinstance(predicted, Cells):
                guess = arena.guess(key, predicted)
            else:
                mean = arena.mean_of(key, predicted)
                guess = _disperse(arena, key, mean) if cells else Guess(mean)
            rows.append(_row(arena, method, key, guess, metrics))
    train = _responses(job, arena)
    for baseline in job.baselines:
        baseline.fit(train)
        for key in job.keys:
            answer = baseline.predict(*key, arena.controls[arena.index[key]])
            if answer is not None:
                unchanged = isinstance(baseline, ControlMean)
                guess = _disperse(arena, key, answer, unchanged) if cells else Guess(answer)
                rows.append(_row(arena, baseline.name, key, guess, metrics))
    return pd.DataFrame(rows + (_ceiling(job, metrics, halves) if job.ceiling else []))


def _row(arena: Arena, method: str, key: Key, guess: Guess, metrics: Sequence[Metric]) -> dict:
    n = 0 if guess.counts is None else guess.counts.shape[0]
    changed = arena.n_changed(key) if any(m.needs_cells for m in metrics) else float("nan")
    labels = dict(zip(LABELS, (method, *key, len(arena.groups[key]), n, changed), strict=True))
    return labels | arena.score(key, guess, metrics)


def _disperse(arena: Arena, key: Key, mean: np.ndarray, unchanged: bool = False) -> Guess:
    """Gives a mean cells of its own, so that metrics of cells can be computed.

    All matched control cells are moved to the mean, and some of them drawn, so that they scatter about it as sampled
    cells do: cells with exactly the predicted mean would look nearer to the real ones than real cells are.
    """
    rows, rng = arena.matched_controls(key), np.random.default_rng([arena.seed, arena.index[key]])
    if unchanged:
        return Guess(mean, arena.real.counts[rows], arena.real.batch[rows])
    pool = max(arena.controls_like(1, arena.real.batch[arena.groups[key]]), rows, key=len)
    cells = dispersed_cells(arena.real.counts[pool], mean, arena.depth, rng)
    drawn = rng.choice(len(pool), len(rows), replace=False)
    return Guess(mean, cells[drawn], arena.real.batch[pool[drawn]])


def _ceiling(job: _Job, metrics: Sequence[Metric], halves: Halves) -> list[dict]:
    """One half of the real cells predicts the other; correlations and MAE are corrected to full size."""
    first, second = {}, {}
    for i, (key, rows) in enumerate(job.real.groups.items()):
        mixed, half = np.random.default_rng([job.seed, i]).permutation(rows), len(rows) // 2
        if half:
            first[key], second[key] = np.sort(mixed[:half]), np.sort(mixed[half : 2 * half])
    arena, table = job.arena(halves, first), []
    for key in [key for key in job.keys if key in first]:
        guess = arena.guess(key, replace(job.real, groups=second))
        row = _row(arena, "ceiling", key, guess, metrics)
        for m in metrics:
            if m.correlation:
                row[m.name] = spearman_brown(row[m.name])
            elif m.name == "mae":  # the noise of half as many cells on each side is sqrt(2) times as large
                row[m.name] /= np.sqrt(2)
        table.append(row)
    return table


def _responses(job: _Job, arena: Arena) -> Responses:
    """Mean effects that baselines learn from: of the training screen, without the truth's half of the controls.

    Without a training screen, those of the real one: only baselines that leave the scored perturbation out see them.
    """
    cells, log1p, means = job.real, arena.log1p, arena.ours
    if job.train is not None:
        cells, log1p = job.train, log1p_counts(job.train.counts, job.depth)
        hidden = np.setdiff1d(*arena.halves)
        means = BatchMeans(cells, log1p, cells.control[~np.isin(_same_cells(job)[cells.control], hidden)])
    effects = [gene_means(log1p[rows]) - means.mix(cells.batch[rows]) for rows in cells.groups.values()]
    targets, signs = (np.array(column) for column in zip(*cells.groups, strict=True))
    return Responses(cells.genes, targets, signs, np.array(effects))


def _same_cells(job: _Job) -> np.ndarray:
    """For every training cell, the row of the very same cell (name and counts) in the real screen, or -1."""
    assert job.train is not None
    rows = pd.Index(job.real.names).get_indexer(job.train.names)
    at = np.flatnonzero(rows >= 0)
    differ = (job.real.counts[rows[at]] != job.train.counts[at]).sum(axis=1)
    rows[at[np.asarray(differ).ravel() > 0]] = -1
    return rows


def _choose(choice: bool | Sequence[str | Baseline], has_train: bool) -> list[Baseline]:
    free = [ControlMean.name, PerturbedMean.name]  # these two never see the scored perturbation
    if isinstance(choice, bool):
        choice = [] if not choice else list(BASELINES) if has_train else free
    chosen = []
    for baseline in choice:
        if isinstance(baseline, str):
            if baseline not in BASELINES:
                raise CDTError(f"unknown baseline {baseline!r}{suggest(baseline, BASELINES)}; known: {list(BASELINES)}")
            baseline = BASELINES[baseline]()
        if not has_train and baseline.name not in free:
            raise CDTError(f"baseline {baseline.name!r} learns from training cells; pass train=")
        chosen.append(baseline)
    return chosen


def _metrics(names: Sequence[str] | None) -> list[Metric]:
    for name in names or ():
        if name not in METRICS:
            raise CDTError(f"unknown metric {name!r}{suggest(name, METRICS)}; there are {list(METRICS)}")
    return list(METRICS.values()) if names is None else [METRICS[name] for name in names]


def _guesses(predicted: AnnData | Mapping[str, AnnData | pd.DataFrame | Changes] | None, names: Names, cells: Cells,
             depth: float) -> dict[str, Predicted]:
    methods = {} if predicted is None else {"prediction": predicted} if isinstance(predicted, AnnData) else predicted
    if taken := {*BASELINES, "ceiling"}.intersection(methods):
        raise CDTError(f"a prediction has the name of a baseline, {taken}; choose another")
    return {name: read_prediction(x, f"prediction {name!r}", names, cells, depth) for name, x in methods.items()}


def _check_splits(job: _Job, unseen: bool) -> None:
    if job.train is None:
        return
    trained = {key[0] for key in job.train.groups}
    if unseen and (leaked := sorted({target for target, _ in job.keys if target in trained})):
        raise CDTError(f"targets {leaked} are in the training screen, but unseen=True; take them out before training")
    rows = _same_cells(job)
    for key in job.keys:
        if n := int(np.isin(rows, job.real.groups[key]).sum()):
            raise CDTError(f"{n} cells of target {key[0]!r} are in both the training and the real screen; split first")


def evaluate(
    real: AnnData,
    predicted: AnnData | Mapping[str, AnnData | pd.DataFrame | Changes] | None = None,
    *,
    train: AnnData | None = None,
    baselines: bool | Sequence[str | Baseline] = True,
    target_key: str = "target_gene",
    control: str = "non-targeting",
    batch_key: str | None = "batch",
    sign_key: str | None = "sign",
    target_depth: float | None = None,
    metrics: Sequence[str] | None = None,
    ceiling: bool = True,
    shared_controls: bool = False,
    unseen: bool = False,
    max_cells: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores predicted cells against real ones, perturbation by perturbation, beside baselines and ceiling.

    Args:
        real: Held-out real cells, raw counts, with control cells. All its perturbations are rivals in the
            discrimination scores and part of the Systema reference; only predicted ones are scored, and only those
            must not share cells with `train`.
        predicted: Predicted cells, raw counts, or several methods by name; control cells among them are ignored. A
            DataFrame holds mean log1p expression, targets x genes; wrapped in `Changes`, it holds changes from control,
            which are put on the real control means. Both get cells as baselines do. None: baselines only.
        train: Training cells, for the baselines that learn; control cells that the truth uses are left out of them.
        baselines: All that can answer, none, or names and fitted-on-call objects of `cdt_lite.evaluation.baselines`.
        target_key: Column of obs with the perturbed gene, "A+B" for a pair.
        control: Label of control cells.
        batch_key: Column of obs with the batch (replicate), or None.
        sign_key: Column of obs with -1, 0 or +1, or None.
        target_depth: Depth of the log1p scale; by default the median depth of training (else real) controls.
        metrics: Names from `METRICS`; all by default.
        ceiling: Whether to add what one half of the real cells says about the other.
        shared_controls: Use all control cells on both sides: the trap, to show it.
        unseen: Refuse a scored target that is in `train`.
        max_cells: At most this many cells a side in metrics that compare cells.
        seed: Same seed, same table.

    Returns:
        One row per method and perturbation: method, target, sign, n_real, n_predicted, n_changed (genes that the real
        cells say are changed; 0: a null target), one column per metric, and pearson_delta_shared (NaN for a table of
        means: nobody knows on which control cells it stands). `attrs` holds seed, target_depth and notes (why NaN).

    Raises:
        CDTError: If columns, labels, genes, counts or splits are not as expected.
    """
    names = Names(target_key, control, batch_key, sign_key)
    cells = read_cells(real, "the real screen", names)
    trained = None if train is None else read_cells(train, "the training screen", names, cells.genes)
    chosen = _metrics(metrics)
    source = cells if trained is None else trained
    depth = target_depth or float(np.median(np.asarray(source.counts[source.control].sum(axis=1))))
    guesses = _guesses(predicted, names, cells, depth)
    job = _Job(cells, trained, guesses, _choose(baselines, train is not None), ceiling, depth, max_cells, seed)
    _check_splits(job, unseen)
    everyone = (cells.control, cells.control)
    table = _scores(job, chosen, everyone if shared_controls else cells.halves(seed))
    shared = _scores(job, [METRICS["pearson_delta"]], everyone)["pearson_delta"]
    unknown = [method for method, guess in guesses.items() if isinstance(guess, Means) and not guess.change]
    table["pearson_delta_shared"] = shared.mask(table["method"].isin(unknown))
    table.attrs = {"seed": seed, "target_depth": depth, "shared_controls": shared_controls, "notes": _notes(job, table)}
    for note in table.attrs["notes"]:
        warnings.warn(note, stacklevel=2)
    return table


def _notes(job: _Job, table: pd.DataFrame) -> list[str]:
    notes = []
    n_predicted = table["n_predicted"].where(table["n_predicted"] > 0, MIN_CELLS)
    few = table[(table["n_real"] < MIN_CELLS) | (n_predicted < MIN_CELLS)]
    if len(few):
        targets = sorted(set(few["target"]))
        notes.append(f"fewer than {MIN_CELLS} cells for {targets} (a ceiling has half): metrics of cells are NaN")
    lone = table[(table["n_real"] >= MIN_CELLS) & table["n_changed"].isna() & (table["method"] != "ceiling")]
    if len(lone) and any(m.needs_cells for m in METRICS.values() if m.name in table):
        notes.append(f"fewer than {MIN_CELLS} control cells on a side in the batches of {sorted(set(lone['target']))}: "
                     "what is tested against control cells is NaN")
    if len(job.real.control) < 2 * MIN_CELLS:
        notes.append(f"fewer than {2 * MIN_CELLS} control cells: what is tested against them is NaN")
    if len(job.real.groups) == 1:
        notes.append("one perturbation only: systema_pearson is NaN and discrimination scores are 1 by definition")
    return notes
