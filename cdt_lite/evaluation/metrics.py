"""What makes a prediction good: small pure functions on arrays, each with a direction and a best value.

`counts` are integers; `log1p` is ln(1 + counts scaled to a common depth). A mean is the mean log1p expression
of every gene, (G,); a delta is a mean minus the mean of control cells. `exclude` holds positions of perturbed
genes: a knockout is too easily recognised by its own target, so that gene is left out of every metric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import expit
from scipy.stats import rankdata

from cdt_lite.data.expression import Matrix, Vector, gene_sds
from cdt_lite.evaluation.differential import DE, kept

ROUNDING = 1e-12  # a change this small is no change


def _ratio(a: Any, b: Any) -> float:
    return float(a / b) if b > 0 else float("nan")


def mae(real_mean: Vector, predicted_mean: Vector, exclude: Sequence[int] = ()) -> float:
    """How far predicted mean expression is from the real one: mean absolute error, log1p units."""
    return float(np.abs(real_mean - predicted_mean)[kept(len(real_mean), exclude)].mean())


def pearson_delta(real_delta: Vector, predicted_delta: Vector, exclude: Sequence[int] = ()) -> float:
    """Whether genes move in the right direction and proportion: correlation of the two changes.

    Take the two deltas from different control cells: shared ones carry the same noise into both and
    inflate the score. NaN where one side is constant: a prediction of no change has no direction.
    """
    keep = kept(len(real_delta), exclude)
    a, b = (d[keep] - d[keep].mean() for d in (real_delta, predicted_delta))
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale > ROUNDING else float("nan")


def systema_pearson(
    real_mean: Vector, predicted_mean: Vector, reference: Vector, exclude: Sequence[int] = ()
) -> float:
    """Whether what is special about this perturbation is predicted, beyond the shift that all of them share.

    `reference` is the mean of the other perturbations' real means, (G,); a prediction equal to it scores NaN.

    Source: Systema, Nature Biotechnology 2025. There the reference holds the scored perturbation too, which
        gives the mean of the others a correlation of exactly -1.
    """
    return pearson_delta(real_mean - reference, predicted_mean - reference, exclude)


def discrimination_score(
    predicted_delta: Vector, real_deltas: Float[np.ndarray, "P G"], index: int, exclude: Sequence[int] = (),
    metric: str = "l1",
) -> float:
    """Whether a prediction is nearer to its own perturbation than to the others: 1 is nearest, 0.5 chance.

    Args:
        predicted_delta: Predicted change of one perturbation, (G,).
        real_deltas: Real changes of all P perturbations, (P, G).
        index: Row of the right answer.
        exclude: Positions of genes to leave out.
        metric: Distance, "l1", "l2" or "cosine".

    Source: discrimination_score (PDS) of cell-eval 0.8, 1 - rank / P. Ties share their mean rank here; there
        the order of rows decides.
    """
    keep = kept(len(predicted_delta), exclude)
    a, b = real_deltas[:, keep], predicted_delta[keep]
    if metric == "cosine":
        scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
        distance = 1.0 - np.divide(a @ b, scale, out=np.zeros(len(a)), where=scale > ROUNDING)
    else:
        distance = cdist(a, b[None], {"l1": "cityblock", "l2": "euclidean"}[metric])[:, 0]
    tied = np.isclose(distance, distance[index], rtol=1e-9, atol=1e-12)
    rank = np.sum((distance < distance[index]) & ~tied) + (tied.sum() - 1) / 2
    return float(1.0 - rank / len(distance))


def overlap_at_n(real_de: DE, predicted_de: DE) -> float:
    """Which share of the N truly changed genes is among the N most changed predicted ones (the DES).

    NaN where nothing changed in truth, because there is nothing to find; cell-eval writes 0 there.
    """
    truth = real_de.significant()
    found = predicted_de.significant()[: len(truth)]
    return _ratio(len(np.intersect1d(truth, found)), len(truth))


def significant_gene_ratio(real_de: DE, predicted_de: DE) -> float:
    """How many genes a prediction calls changed for each truly changed one; test equal numbers of cells."""
    return _ratio(len(predicted_de.significant()), len(real_de.significant()))


def energy_distance(
    real: Matrix, predicted: Matrix, exclude: Sequence[int] = (), max_cells: int = 500, seed: int = 0
) -> float:
    """How different two clouds of cells are: 2 E|x-y| - E|x-x'| - E|y-y'|, 0 in expectation if alike.

    No cell is compared with itself: unbiased, so real against real scatters around 0 and may be negative.

    Args:
        real: log1p expression, at least 2 cells x genes.
        predicted: log1p expression, at least 2 cells x genes.
        exclude: Positions of genes to leave out.
        max_cells: Larger groups are subsampled to this many cells.
        seed: Chooses the subsample.

    Source: Szekely and Rizzo 2013. The E-distance of scPerturb has squared norms instead.
    """
    rng, keep = np.random.default_rng(seed), kept(real.shape[1], exclude)

    def dense(X: Matrix) -> np.ndarray:
        if X.shape[0] > max_cells:
            X = X[np.sort(rng.choice(X.shape[0], max_cells, replace=False))]
        return np.asarray(X.toarray() if sparse.issparse(X) else X, dtype=np.float64)[:, keep]

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0))

    def within(a: np.ndarray) -> float:
        d = distances(a, a)
        return (d.sum() - np.trace(d)) / (len(a) * (len(a) - 1))

    x, y = dense(real), dense(predicted)
    x, y = x - x.mean(0), y - x.mean(0)  # the same distances, fewer digits lost
    return float(2 * distances(x, y).mean() - within(x) - within(y))


def cell_sd_ratio(real: Matrix, predicted: Matrix, exclude: Sequence[int] = ()) -> float:
    """Whether predicted cells vary as much as real ones: standard deviations summed over genes."""
    keep = kept(real.shape[1], exclude)
    return _ratio(gene_sds(predicted)[keep].sum(), gene_sds(real)[keep].sum())


def library_size_sd_ratio(
    real_counts: Matrix, predicted_counts: Matrix, exclude: Sequence[int] = ()
) -> float:
    """Whether the spread of total counts per cell is right: standard deviation over the real."""
    keep = kept(real_counts.shape[1], exclude)
    totals = (np.asarray(X[:, keep].sum(axis=1)).ravel() for X in (predicted_counts, real_counts))
    return _ratio(*(float(np.std(t, ddof=1)) for t in totals))


def two_sample_auc(
    real: Matrix, predicted: Matrix, exclude: Sequence[int] = (), max_cells: int = 300, folds: int = 3, seed: int = 0
) -> float:
    """How well a classifier tells predicted cells from real ones: area under the ROC curve, 0.5 if it cannot.

    Ridge-penalised logistic regression on every gene's value and its square (so that a wrong spread is seen, too),
    standardised; each fold is judged by a classifier that has not seen it.

    Args:
        real: log1p expression, cells x genes.
        predicted: log1p expression, cells x genes.
        exclude: Positions of genes to leave out.
        max_cells: Larger groups are subsampled to this many cells.
        folds: Number of folds.
        seed: Chooses cells and folds.

    Source: Lopez-Paz and Oquab 2017, arXiv:1610.06545, with the area in place of the accuracy.
    """
    rng, keep, blocks = np.random.default_rng(seed), kept(real.shape[1], exclude), []
    for X in (real, predicted):
        rows = rng.permutation(X.shape[0])[:max_cells]
        blocks.append(np.asarray(X[rows].toarray() if sparse.issparse(X) else X[rows], dtype=np.float64)[:, keep])
    x, label = np.vstack(blocks), np.repeat([0.0, 1.0], [len(b) for b in blocks])
    x = np.hstack([x, x**2])
    fold, areas = np.concatenate([np.arange(len(b)) % folds for b in blocks]), []
    for i in range(folds):
        train, test = fold != i, fold == i
        centre, scale = x[train].mean(0), np.maximum(x[train].std(0), 1e-6)
        score = _logistic((x[train] - centre) / scale, label[train], (x[test] - centre) / scale)
        ranks, positive = rankdata(score), label[test] == 1
        n = positive.sum()
        areas.append((ranks[positive].sum() - n * (n + 1) / 2) / (n * (test.sum() - n)))
    return float(np.mean(areas))


def _logistic(x: np.ndarray, label: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Fits a logistic regression, one unit of ridge penalty per ten features, and scores new rows."""
    penalty, sign, x = 0.1 * x.shape[1], 2 * label - 1, np.clip(x, -10, 10)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w)
        return np.logaddexp(0, -margin).sum() + penalty * (w @ w) / 2, -(sign * expit(-margin)) @ x + penalty * w

    return np.clip(new, -10, 10) @ minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B",
                                            options={"maxiter": 50}).x


def spearman_brown(r: float) -> float:
    """Turns the correlation of two halves into that of two full samples, 2r / (1 + r); 0 where r is not positive.

    Halves that do not agree leave nothing that could be predicted. (NaN stays NaN.)
    """
    return 2 * max(r, 0.0) / (1 + max(r, 0.0)) if np.isfinite(r) else float("nan")


@dataclass(frozen=True)
class Metric:
    """A score with its direction.

    Attributes:
        name: Name of its column in a table.
        function: A pure function; the names of its parameters say what it compares.
        best: The value of a perfect prediction.
        higher_is_better: None where the best value lies in the middle (a ratio of 1).
        meaning: One sentence.
        correlation: Whether a split-half value becomes a ceiling by `spearman_brown`.
    """

    name: str
    function: Callable[..., float]
    best: float
    higher_is_better: bool | None
    meaning: str
    correlation: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the function is given."""
        return tuple(signature(self.function).parameters)

    @property
    def needs_cells(self) -> bool:
        """Whether cells are compared; otherwise their means are enough."""
        return not {"predicted", "predicted_counts", "predicted_de"}.isdisjoint(self.inputs)


_PDS = [
    Metric(f"discrimination_score_{d}", partial(discrimination_score, metric=d), 1.0, True,
           f"Rank of the right perturbation among all, by {d} distance of changes.")
    for d in ("l1", "l2", "cosine")
]
METRICS: dict[str, Metric] = {m.name: m for m in [
    Metric("mae", mae, 0.0, False, "Mean absolute error of mean log1p expression."),
    Metric("pearson_delta", pearson_delta, 1.0, True, "Correlation of real and predicted change.", True),
    Metric("systema_pearson", systema_pearson, 1.0, True, "Correlation of what sets a perturbation apart.", True),
    *_PDS,
    Metric("overlap_at_n", overlap_at_n, 1.0, True, "Share of truly changed genes among the top predicted."),
    Metric("significant_gene_ratio", significant_gene_ratio, 1.0, None, "Changed genes, predicted / real."),
    Metric("energy_distance", energy_distance, 0.0, False, "Distance between real and predicted cells."),
    Metric("two_sample_auc", two_sample_auc, 0.5, False, "How well real and predicted cells are told apart."),
    Metric("cell_sd_ratio", cell_sd_ratio, 1.0, None, "Cell-to-cell spread, predicted / real."),
    Metric("library_size_sd_ratio", library_size_sd_ratio, 1.0, None, "Spread of depth, predicted / real."),
]}
