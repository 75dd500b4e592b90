"""What makes a prediction good: small pure functions on arrays, and `METRICS`, which applies them to a `Comparison`.

`counts` are integers; `log1p` is ln(1 + counts scaled to a common depth). A mean is the mean log1p expression
of every gene, (G,); a delta is a mean minus the mean of control cells. `exclude` holds positions of perturbed
genes: a knockout is too easily recognised by its own target, so that gene is left out of every metric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist, pdist
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from cdt_lite.data.expression import Matrix, Vector, gene_sds
from cdt_lite.errors import require_whole
from cdt_lite.evaluation.comparison import MIN_CELLS, Comparison
from cdt_lite.evaluation.differential import DE, Genes, dense_kept

ROUNDING = 1e-12  # a change this small is no change
CLASSIFIED_CELLS = 300  # at most so many cells a side meet the classifier


def _ratio(a: Any, b: Any) -> float:
    return float(a) / float(b) if b > 0 else float("nan")


def mae(real_mean: Vector, predicted_mean: Vector, exclude: Genes = ()) -> float:
    """How far predicted mean expression is from the real one: mean absolute error, log1p units."""
    return float(np.delete(np.abs(real_mean - predicted_mean), exclude).mean())


def pearson_delta(real_delta: Vector, predicted_delta: Vector, exclude: Genes = ()) -> float:
    """Whether genes move in the right direction and proportion: correlation of the two changes.

    Take the two deltas from different control cells: shared ones carry the same noise into both and
    inflate the score. NaN where one side is constant: a prediction of no change has no direction.
    """
    a, b = np.delete(real_delta, exclude), np.delete(predicted_delta, exclude)
    a, b = a - a.mean(), b - b.mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale > ROUNDING else float("nan")


def pearson_composition(real_delta: Vector, predicted_delta: Vector, sensitivity: Vector, exclude: Genes = ()) -> float:
    """As `pearson_delta`, without the shadow that a loud program throws on all other genes.

    Counts are scaled to one depth: where a loud program falls silent, every other gene seems to rise. By what factor
    says the median of ratios to the controls, over the better expressed half of the genes; in log1p a gene follows
    that factor as far as its `sensitivity` goes. Each side loses its own.

    Args:
        real_delta: Real change, (G,).
        predicted_delta: Predicted change, (G,).
        sensitivity: Change of each gene's mean log1p per unit of log expression: the controls' mean of x / (1 + x), x
            being counts at the common depth, (G,).
        exclude: Positions of genes to leave out.

    Source: size factors, Anders and Huber 2010.
    """
    expressed = sensitivity >= max(np.median(sensitivity), ROUNDING)
    without = []
    for delta in (real_delta, predicted_delta):
        factor = np.median(delta[expressed] / sensitivity[expressed]) if expressed.any() else 0.0
        without.append(delta - factor * sensitivity)
    real, predicted = without
    return pearson_delta(real, predicted, exclude)


def systema_pearson(real_mean: Vector, predicted_mean: Vector, reference: Vector, exclude: Genes = ()) -> float:
    """Whether what is special about this perturbation is predicted, beyond the shift that all of them share.

    `reference` is the mean of the other perturbations' real means, (G,); a prediction equal to it scores NaN.

    Source: Systema, Nature Biotechnology 2025. There the reference holds the scored perturbation too, which
        gives the mean of the others a correlation of exactly -1.
    """
    return pearson_delta(real_mean - reference, predicted_mean - reference, exclude)


def discrimination_score(predicted_delta: Vector, real_deltas: Float[np.ndarray, "P G"], index: int,
                         exclude: Genes = (), metric: str = "l1") -> float:
    """Whether a prediction is nearer to its own perturbation than to the others: 1 is nearest, 0.5 chance.

    Args:
        predicted_delta: Predicted change of one perturbation, (G,).
        real_deltas: Real changes of all P perturbations, (P, G).
        index: Row of the right answer.
        exclude: Positions of genes to leave out.
        metric: Distance, "l1" or "cosine".

    Source: discrimination_score (PDS) of cell-eval 0.8, 1 - rank / P. Ties share their mean rank here; there
        the order of rows decides.
    """
    a, b = np.delete(real_deltas, exclude, axis=1), np.delete(predicted_delta, exclude)
    if metric == "cosine":
        scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
        distance = 1.0 - np.divide(a @ b, scale, out=np.zeros(len(a)), where=scale > ROUNDING)
    else:
        distance = np.abs(a - b).sum(axis=1)
    tied = np.isclose(distance, distance[index], rtol=1e-9, atol=1e-12)
    rank = np.sum((distance < distance[index]) & ~tied) + (tied.sum() - 1) / 2
    return float(1.0 - rank / len(distance))


def overlap_at_n(real: DE, predicted: DE) -> float:
    """Which share of the N truly changed genes is among the N most changed predicted ones (the DES).

    NaN where nothing changed in truth, because there is nothing to find; cell-eval writes 0 there.
    """
    truth = real.significant()
    found = predicted.significant()[: len(truth)]
    return _ratio(len(np.intersect1d(truth, found)), len(truth))


def significant_gene_ratio(real: DE, predicted: DE) -> float:
    """How many genes a prediction calls changed for each truly changed one; test equal numbers of cells."""
    return _ratio(len(predicted.significant()), len(real.significant()))


def energy_distance(real: Matrix, predicted: Matrix, exclude: Genes = (), max_cells: int = 500) -> float:
    """How different two clouds of cells are: `2 E|x-y| - E|x-x'| - E|y-y'|`, 0 in expectation if alike.

    No cell is compared with itself: unbiased, so real against real scatters around 0 and may be negative.

    Args:
        real: log1p expression, at least 2 cells x genes.
        predicted: The same of predicted cells.
        exclude: Positions of genes to leave out.
        max_cells: Larger groups are subsampled to this many cells.

    Source: Szekely and Rizzo 2013. The E-distance of scPerturb has squared norms instead.
    """
    require_whole("max_cells", max_cells, 2)
    rng = np.random.default_rng(0)
    groups = []
    for cells in (real, predicted):
        if cells.shape[0] > max_cells:
            cells = cells[np.sort(rng.choice(cells.shape[0], max_cells, replace=False))]
        groups.append(dense_kept(cells, exclude))
    x, y = groups
    return float(2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean())


def two_sample_auc(real: Matrix, predicted: Matrix, exclude: Genes = ()) -> float:
    """How well a classifier tells predicted cells from real ones: area under the ROC curve, 0.5 if it cannot.

    Ridge-penalised logistic regression on every gene's value and its square (so that a wrong spread is seen, too),
    standardised; each fold is judged by a classifier that has not seen it. Larger groups are subsampled.

    Source: Lopez-Paz and Oquab 2017, arXiv:1610.06545, with the area in place of the accuracy.
    """
    rng = np.random.default_rng(0)
    groups = []
    for cells in (real, predicted):
        chosen = rng.permutation(cells.shape[0])[:CLASSIFIED_CELLS]
        groups.append(dense_kept(cells[chosen], exclude))
    model, x, label = _classifier(*groups)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return float(cross_val_score(model, x, label, cv=folds, scoring="roc_auc").mean())


def two_sample_scores(real: Matrix, predicted: Matrix) -> Vector:
    """How generated each cell looks to the classifier of `two_sample_auc`, which has not seen it: log odds.

    Args:
        real: log1p expression, cells x genes.
        predicted: The same of predicted cells.

    Returns:
        A number a cell: first the real ones, then the predicted ones.
    """
    model, x, label = _classifier(dense_kept(real, ()), dense_kept(predicted, ()))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return cross_val_predict(model, x, label, cv=folds, method="decision_function")


def _classifier(real: np.ndarray, predicted: np.ndarray) -> tuple[Pipeline, np.ndarray, np.ndarray]:
    """The classifier, still to be fitted, its features and labels."""
    x = np.vstack([real, predicted])
    x = np.hstack([x, x**2])
    label = np.repeat([0, 1], [len(real), len(predicted)])
    logistic = LogisticRegression(C=10 / x.shape[1], max_iter=1000)  # one unit of ridge penalty per ten features
    bounded = FunctionTransformer(np.clip, kw_args={"a_min": -10, "a_max": 10})  # a rare gene's square is no lever
    return make_pipeline(StandardScaler(), bounded, logistic), x, label


def cell_sd_ratio(real: Matrix, predicted: Matrix, exclude: Genes = ()) -> float:
    """Whether predicted cells vary as much as real ones: standard deviations summed over genes."""
    return _ratio(*(np.delete(gene_sds(cells), exclude).sum() for cells in (predicted, real)))


def library_size_sd_ratio(real_counts: Matrix, predicted_counts: Matrix, exclude: Genes = ()) -> float:
    """Whether the spread of total counts per cell is right: standard deviation over the real."""
    keep = np.setdiff1d(np.arange(real_counts.shape[1]), exclude)
    both = (predicted_counts, real_counts)
    return _ratio(*(np.std(counts[:, keep].sum(axis=1), ddof=1) for counts in both))


@dataclass(frozen=True)
class Metric:
    """A score of one comparison, with its direction."""

    name: str  # of its column in a table
    function: Callable[[Comparison], float]
    best: float  # the value of a perfect prediction
    higher_is_better: bool | None  # None where the best value lies in the middle (a ratio of 1)
    needs_cells: bool = True  # otherwise means are enough
    of_full_size: Callable[[float], float] = float  # what the score of two halves says of two full samples

    def score(self, comparison: Comparison) -> float:
        """Returns the score; NaN where too few cells are there to tell."""
        few = comparison.real.log1p.shape[0] < MIN_CELLS
        return float("nan") if self.needs_cells and few else self.function(comparison)


def spearman_brown(r: float) -> float:
    """Turns the correlation of two halves into that of two full samples, 2r / (1 + r); 0 where r is not positive.

    Halves that do not agree leave nothing that could be predicted. (NaN stays NaN.)
    """
    r = np.maximum(r, 0.0)
    return float(2 * r / (1 + r))


def _discrimination(c: Comparison, metric: str) -> float:
    return discrimination_score(c.predicted_delta, c.real_deltas, c.index, c.exclude, metric)


def _if_known(function: Callable[..., float], real: Any, predicted: Any, *exclude: Genes) -> float:
    """NaN where there are too few control cells to test against, or no counts."""
    return float("nan") if real is None or predicted is None else function(real, predicted, *exclude)


_METRICS = [
    Metric("mae", lambda c: mae(c.real_mean, c.predicted_mean, c.exclude),
           0.0, False, needs_cells=False, of_full_size=lambda error: error / np.sqrt(2)),  # as its noise is
    Metric("pearson_delta", lambda c: pearson_delta(c.real_delta, c.predicted_delta, c.exclude),
           1.0, True, needs_cells=False, of_full_size=spearman_brown),
    Metric("pearson_composition",
           lambda c: pearson_composition(c.real_delta, c.predicted_delta, c.sensitivity, c.exclude),
           1.0, True, needs_cells=False, of_full_size=spearman_brown),
    Metric("systema_pearson", lambda c: systema_pearson(c.real_mean, c.predicted_mean, c.reference, c.exclude),
           1.0, True, needs_cells=False, of_full_size=spearman_brown),
    Metric("discrimination_score_l1", lambda c: _discrimination(c, "l1"),
           1.0, True, needs_cells=False),
    Metric("discrimination_score_cosine", lambda c: _discrimination(c, "cosine"),
           1.0, True, needs_cells=False),
    Metric("overlap_at_n", lambda c: _if_known(overlap_at_n, c.real.changed, c.predicted.changed), 1.0, True),
    Metric("significant_gene_ratio",
           lambda c: _if_known(significant_gene_ratio, c.real.changed, c.predicted.changed), 1.0, None),
    Metric("energy_distance",
           lambda c: energy_distance(c.real.log1p, c.predicted.log1p, c.exclude), 0.0, False),
    Metric("two_sample_auc",
           lambda c: two_sample_auc(c.real.log1p, c.predicted.log1p, c.exclude), 0.5, False),
    Metric("cell_sd_ratio", lambda c: cell_sd_ratio(c.real.log1p, c.predicted.log1p, c.exclude), 1.0, None),
    Metric("library_size_sd_ratio",
           lambda c: _if_known(library_size_sd_ratio, c.real.counts, c.predicted.counts, c.exclude), 1.0, None),
]
METRICS = {metric.name: metric for metric in _METRICS}
