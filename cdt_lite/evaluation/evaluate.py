"""Real and predicted cells in, a table of scores out, beside the baselines that everyone must beat.

Control cells are split in two halves: one is subtracted from the truth, the other from predictions and baselines.
With shared controls the same sampling noise stands on both sides and inflates every correlation; the column
`pearson_delta_shared` shows by how much. Control means are mixed over batches like the cells that they serve, and are
over all control cells; of those that cells are tested against, or that are moved to a predicted mean, `MAX_CONTROLS` a
half are drawn by the seed where there are more.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.expression import Matrix, check_target_depth, gene_means, log1p_counts
from cdt_lite.data.layout import Columns, neighbours, read_labels
from cdt_lite.errors import CDTError, CDTWarning, require_whole, suggest
from cdt_lite.evaluation.baselines import BASELINES, Responses
from cdt_lite.evaluation.cells import Cells, Given, Key, Predicted, Split, keys_of, read_predictions, read_screen
from cdt_lite.evaluation.comparison import MIN_CELLS, Controls, Prediction, Truth
from cdt_lite.evaluation.metrics import METRICS, Metric
from cdt_lite.evaluation.summary import LABELS

CEILING = "ceiling"  # what one half of the real cells says about the other
WITHOUT_TRAINING = ["control", "perturbed mean", CEILING]  # these never see the scored perturbation


def control_halves(real: AnnData, *, columns: Columns = Columns(), seed: int = 0) -> tuple[AnnData, AnnData]:
    """Splits the control cells of a screen as `evaluate` does: those of the truth, and those to give to a model.

    Args:
        real: The screen that will be evaluated on.
        columns: Where its labels are.
        seed: The seed of `evaluate`.
    """
    cells = read_screen(real, "the real screen", columns)
    truth, given = cells.split_controls(seed)
    return real[cells.names[truth]], real[cells.names[given]]


def check_unseen(targets: Iterable[str], train: AnnData, *, columns: Columns = Columns()) -> None:
    """Raises CDTError, by name, where targets that are called unseen are in the training screen."""
    trained = read_labels(train, columns, what="the training screen").target.tolist()
    leaked = sorted(set(targets).intersection(trained))
    if leaked:
        raise CDTError(f"targets {leaked} are in the training screen, but called unseen; "
                       "take them out before training")


@dataclass(frozen=True)
class _Task:
    """What one call of `evaluate` works on."""

    real: Cells
    train: Cells | None
    predicted: dict[str, Predicted]
    baselines: list[str]
    depth: float
    seed: int
    neighbours: Mapping[str, Sequence[str]]

    @cached_property
    def log1p(self) -> Matrix:
        """Expression of the real cells, made once for all that compare with them."""
        return log1p_counts(self.real.counts, self.depth)

    @cached_property
    def keys(self) -> list[Key]:
        """The perturbations that any method predicts; all of them if there is no method."""
        named = {key for predicted in self.predicted.values() for key in keys_of(predicted)}
        return [key for key in self.real.groups if key in named or not self.predicted]


def _scores(task: _Task, metrics: Sequence[Metric], split: Split) -> pd.DataFrame:
    """Scores every method and every baseline with these two sets of control cells."""
    with_cells = any(metric.needs_cells for metric in metrics)
    truth = Truth(task.real, split, task.depth, task.seed, with_cells, task.log1p)
    rows = []
    for method, predicted in task.predicted.items():
        for key in keys_of(predicted):
            rows.append(_row(truth, method, key, truth.read(key, predicted), metrics))
    train = _responses(task, truth, split)
    for name in task.baselines:
        if name == CEILING:
            rows += _ceiling(task, metrics, split)
            continue
        predictor = BASELINES[name](train)
        for key in task.keys:
            change = predictor(*key)
            if name == "control":
                rows.append(_row(truth, name, key, truth.from_controls(key), metrics))
            elif change is not None:
                rows.append(_row(truth, name, key, truth.from_change(key, change), metrics))
    return pd.DataFrame(rows)


def _row(truth: Truth, method: str, key: Key, prediction: Prediction, metrics: Sequence[Metric]) -> dict:
    changed = truth.real_side(key).n_changed if truth.with_cells else float("nan")
    comparison = truth.compare(key, prediction)
    counted = (len(truth.real.groups[key]), len(prediction.batch), changed)
    labels = (method, *key, *counted, *comparison.own_change)
    scores = {metric.name: metric.score(comparison) for metric in metrics}
    return dict(zip(LABELS, labels, strict=True)) | scores


def _ceiling(task: _Task, metrics: Sequence[Metric], split: Split) -> list[dict]:
    """One half of the real cells predicts the other; scores are corrected to full size."""
    first, second = {}, {}
    for i, (key, rows) in enumerate(task.real.groups.items()):
        mixed = np.random.default_rng([task.seed, i]).permutation(rows)
        half = len(rows) // 2
        if half:
            first[key], second[key] = np.sort(mixed[:half]), np.sort(mixed[half : 2 * half])
    with_cells = any(metric.needs_cells for metric in metrics)
    truth = Truth(replace(task.real, groups=first), split, task.depth, task.seed, with_cells, task.log1p)
    other = replace(task.real, groups=second)
    table = []
    for key in task.keys:
        if key in first:
            row = _row(truth, CEILING, key, truth.from_cells(key, other), metrics)
            for metric in metrics:
                row[metric.name] = metric.of_full_size(row[metric.name])
            table.append(row)
    return table


def _responses(task: _Task, truth: Truth, split: Split) -> Responses:
    """Mean effects that baselines learn from: of the training screen, without the truth's half of the controls.

    Without a training screen, those of the real one: only baselines that leave the scored perturbation out see them.
    """
    cells, log1p, controls = task.real, truth.log1p, truth.given
    if task.train is not None:
        cells, log1p = task.train, log1p_counts(task.train.counts, task.depth)
        hidden = np.isin(_same_cells(task.real, cells)[cells.control], np.setdiff1d(*split))
        controls = Controls(cells, log1p, cells.control[~hidden])
    effects = []
    for rows in cells.groups.values():
        effects.append(gene_means(log1p[rows]) - controls.mean_like(cells.batch[rows]))
    targets, signs = zip(*cells.groups, strict=True)
    return Responses(cells.genes, np.array(targets), np.array(signs), np.array(effects), task.neighbours)


def _same_cells(real: Cells, train: Cells) -> np.ndarray:
    """For every training cell, the row of the very same cell (name and counts) in the real screen, or -1."""
    rows = pd.Index(real.names).get_indexer(train.names)
    found = np.flatnonzero(rows >= 0)
    differ = (real.counts[rows[found]] != train.counts[found]).sum(axis=1)
    rows[found[np.asarray(differ).ravel() > 0]] = -1
    return rows


def evaluate(
    real: AnnData,
    predicted: AnnData | Mapping[str, Given] | None = None,
    *,
    train: AnnData | None = None,
    baselines: bool | Sequence[str] = True,
    columns: Columns = Columns(),
    target_depth: float | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores predicted cells against real ones, perturbation by perturbation, beside baselines and ceiling.

    Args:
        real: Held-out real cells, raw counts, with control cells. All its perturbations are rivals in discrimination
            scores and in the Systema reference; predicted ones are scored, and must not share cells with `train`.
        predicted: Predicted cells, raw counts, or several methods by name; control cells among them are ignored. A
            DataFrame holds mean log1p expression, targets x genes; wrapped in `Changes`, it holds changes from control,
            which are put on the real control means. Both get cells as baselines do. None: baselines only.
        train: Training cells, for the baselines that learn; control cells that the truth uses are left out of them.
            uns["neighbours"], by target other targets of its pathway, is for the baseline "pathway neighbour".
        baselines: All that can answer, none, or names from `BASELINES` and "ceiling", one half of the real cells.
        columns: Where the labels are; a pair of targets is "A+B".
        target_depth: Depth of the log1p scale; by default the median depth of training (else real) controls.
        metrics: Names from `METRICS`; all by default.
        seed: Same seed, same table.

    Returns:
        One row per method and perturbation: method, target, sign, n_real, n_predicted, n_changed (genes that the real
        cells say are changed; 0: a null target), own_real and own_predicted (change of the perturbed gene itself, log1p
        units, which no metric counts; NaN where it is not measured), one column per metric, and pearson_delta_shared
        (NaN for a table of means: nobody knows on which control cells it stands). `attrs` holds seed, target_depth and
        notes (why NaN).

    Raises:
        CDTError: If columns, labels, genes, counts or splits are not as expected.
    """
    cells = read_screen(real, "the real screen", columns)
    trained = None
    if train is not None:
        trained = read_screen(train, "the training screen", columns, cells.genes.tolist())
    depth = check_target_depth((trained or cells).control_depth() if target_depth is None else target_depth)
    seed = require_whole("seed", seed)
    names = _known(METRICS if metrics is None else metrics, METRICS, "metric")
    methods = read_predictions(predicted, columns, cells, depth)
    task = _Task(cells, trained, methods, _chosen(baselines, train is not None), depth, seed,
                 {} if train is None else neighbours(train, [target for target, _ in cells.groups]))
    _check(task)
    table = _scores(task, [METRICS[name] for name in names], cells.split_controls(seed))
    shared = _scores(task, [METRICS["pearson_delta"]], (cells.control, cells.control))
    means = [name for name, method in methods.items() if isinstance(method, pd.DataFrame)]
    table["pearson_delta_shared"] = shared["pearson_delta"].mask(table["method"].isin(means))
    table.attrs = {"seed": seed, "target_depth": depth, "notes": _notes(task, table)}
    for note in table.attrs["notes"]:
        warnings.warn(note, CDTWarning, stacklevel=2)
    return table


def _known(names: Iterable[str], known: Collection[str], what: str) -> Iterable[str]:
    for name in names:
        if name not in known:
            raise CDTError(f"unknown {what} {name!r}{suggest(name, known)}; known: {list(known)}")
    return names


def _chosen(choice: bool | Sequence[str], has_train: bool) -> list[str]:
    if isinstance(choice, bool):
        possible = [*BASELINES, CEILING] if has_train else WITHOUT_TRAINING
        return possible if choice else []
    for name in _known(choice, [*BASELINES, CEILING], "baseline"):
        if not has_train and name not in WITHOUT_TRAINING:
            raise CDTError(f"baseline {name!r} learns from training cells; pass train=")
    return list(choice)


def _check(task: _Task) -> None:
    if not task.predicted and not task.baselines:
        raise CDTError("nothing to score: pass predicted cells, or baselines")
    for name in [*BASELINES, CEILING]:
        if name in task.predicted:
            raise CDTError(f"a prediction has the name of a baseline, {name!r}; choose another")
    if task.train is None:
        return
    rows = _same_cells(task.real, task.train)
    trained = np.zeros(len(task.real.names), bool)
    trained[rows[rows >= 0]] = True
    for key in task.keys:
        if n := int(trained[task.real.groups[key]].sum()):
            raise CDTError(f"{n} cells of target {key[0]!r} are in both the training and the real "
                           "screen; split first")


def _notes(task: _Task, table: pd.DataFrame) -> list[str]:
    notes = []
    n_predicted = table["n_predicted"].where(table["n_predicted"] > 0, MIN_CELLS)
    few = table[(table["n_real"] < MIN_CELLS) | (n_predicted < MIN_CELLS)]
    if len(few):
        targets = sorted(set(few["target"]))
        notes.append(f"fewer than {MIN_CELLS} cells for {targets} (a ceiling has half): metrics of cells are NaN")
    unknown = table["n_changed"].isna() & (table["method"] != CEILING)
    lone = table[(table["n_real"] >= MIN_CELLS) & unknown]
    if len(lone) and any(METRICS[name].needs_cells for name in METRICS.keys() & table.columns):
        notes.append(f"fewer than {MIN_CELLS} control cells on a side in the batches of "
                     f"{sorted(set(lone['target']))}: what is tested against control cells is NaN")
    if len(task.real.control) < 2 * MIN_CELLS:
        notes.append(f"fewer than {2 * MIN_CELLS} control cells: what is tested against them is NaN")
    if len(task.real.groups) == 1:
        notes.append("one perturbation only: systema_pearson is NaN and discrimination scores are 1 by definition")
    return notes
