"""The simple predictors that a model has to beat: each learns mean responses and predicts a mean response.

All work on the change from control in log1p units, so that the control mean of another batch can be put under it.
A pair of genes perturbed together is labelled "A+B".
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import sparse

from cdt_lite.data.expression import Matrix, Vector

COMPONENTS = 10  # of the gene scores
FOLDS = 30  # at most so many training perturbations are left out, one at a time, to choose a number
ROUNDS = 4  # corrections of the mean of dispersed cells


@dataclass(frozen=True)
class Responses:
    """What training cells teach a simple predictor: the mean change of every perturbation."""

    genes: Shaped[np.ndarray, " G"]  # symbols
    targets: Shaped[np.ndarray, " P"]  # perturbed gene of every row; "A+B" for a pair
    signs: Int[np.ndarray, " P"]  # -1 knockout or knockdown, +1 activation
    effects: Float[np.ndarray, "P G"]  # mean log1p expression minus that of controls of the same batches
    neighbours: Mapping[str, Sequence[str]] = field(default_factory=dict)  # targets that do what a target does

    def others(self, target: str | None, sign: int) -> Bool[np.ndarray, "P"]:
        """Marks the rows of other perturbations; of the same sign, where there are any."""
        other = self.targets != target
        same = other & (self.signs == sign)
        return same if same.any() else other

    def mean(self, rows: Bool[np.ndarray, "P"]) -> Vector | None:
        """Returns the mean effect of some rows; None of none."""
        return self.effects[rows].mean(axis=0) if rows.any() else None

    def drop(self, rows: int | Int[np.ndarray, " n"]) -> "Responses":
        """Returns a copy without one or more rows."""
        targets, signs, effects = (np.delete(a, rows, axis=0) for a in (self.targets, self.signs, self.effects))
        return replace(self, targets=targets, signs=signs, effects=effects)


def gene_scores(train: Responses) -> Float[np.ndarray, "G K"]:
    """Describes every gene by how it answers to the training perturbations: scores on their first components.

    The mean effect of each sign is removed first; scores are scaled to mean square 1.
    """
    centred = train.effects.copy()
    for sign in np.unique(train.signs):
        centred[train.signs == sign] -= centred[train.signs == sign].mean(axis=0)
    u, s, _ = np.linalg.svd(centred.T, full_matrices=False)
    scores = (u * s)[:, : min(COMPONENTS, max(len(centred) - 1, 1))]
    return scores / max(np.sqrt(np.mean(scores**2)), 1e-12)


def perturbed_mean(train: Responses, target: str, sign: int) -> Vector | None:
    """A perturbation does what the others, of the same sign, do on average."""
    return train.mean(train.others(target, sign))


def neighbour_mean(train: Responses, target: str, sign: int) -> Vector | None:
    """A perturbation does what others of its pathway do on average: what a person predicts who knows the pathway."""
    others = [name for name in train.neighbours.get(target, ()) if name != target]
    return train.mean(np.isin(train.targets, others) & (train.signs == sign))


def replicate_mean(train: Responses, target: str, sign: int) -> Vector | None:
    """A perturbation does what it did in the training replicates; no answer for one that was never seen."""
    return train.mean((train.targets == target) & (train.signs == sign))


def additive(train: Responses, target: str, sign: int, weight: float = 1.0) -> Vector | None:
    """Two genes perturbed together do the (weighted) sum of what each does alone; answers for pairs of seen genes."""
    effects = [replicate_mean(train, part, sign) for part in target.split("+")]
    if len(effects) != 2 or effects[0] is None or effects[1] is None:
        return None
    return weight * (effects[0] + effects[1])


class Tuned:
    """A baseline on gene vectors with one number, chosen by leaving out training perturbations.

    Args:
        value: The number; None chooses it from `grid`.
        vectors: A vector per gene symbol, such as a learned gene table; None takes the gene scores of the training
            responses. A target without a vector gets the mean of the others: nothing says what it is.
    """

    grid: tuple[float, ...] = ()
    chosen: float

    def __init__(self, value: float | None = None, vectors: Mapping[str, np.ndarray] | None = None) -> None:
        self.value, self.vectors = value, vectors

    def fit(self, train: Responses) -> "Tuned":
        """Learns from mean responses, the number included unless it was given."""
        self._prepare(train)
        self.chosen = self.grid[-1] if self.value is None else self.value
        known = np.flatnonzero(self.known)
        if self.value is None and len(known) and len(train.targets) > 2:
            folds = np.unique(np.linspace(0, len(known) - 1, FOLDS).round().astype(int))
            errors = sum(self._errors(train, int(row)) for row in known[folds])
            self.chosen = self.grid[int(np.argmin(errors))]
        return self

    def _errors(self, train: Responses, held_out: int) -> Float[np.ndarray, " grid"]:
        """Squared error of every grid value on one row, by a copy that has seen nothing of it, scores included."""
        model = copy.copy(self)
        model._prepare(train.drop(held_out))
        target, sign = str(train.targets[held_out]), int(train.signs[held_out])
        effects = np.array([model._with(value, target, sign) for value in self.grid])
        return ((effects - train.effects[held_out]) ** 2).sum(axis=1)

    def _prepare(self, train: Responses) -> None:
        self.train, self.scores = train, gene_scores(train)
        self.table = self.vectors
        if self.table is None:
            self.table = dict(zip(map(str, train.genes), self.scores, strict=True))
        rows = [self._row(str(t), int(s)) for t, s in zip(train.targets, train.signs, strict=True)]
        self.known = np.array([row is not None for row in rows])
        self.rows = np.array([row for row in rows if row is not None])

    def _row(self, target: str, sign: int) -> np.ndarray | None:
        assert self.table is not None
        parts = [self.table[gene] for gene in target.split("+") if gene in self.table]
        return sign * np.sum(parts, axis=0) if parts else None

    def effect(self, target: str, sign: int = -1) -> Vector | None:
        """Predicts with the chosen number."""
        return self._with(self.chosen, target, sign)

    def _with(self, value: float, target: str, sign: int) -> Vector | None:
        raise NotImplementedError


class Linear(Tuned):
    """The effect is linear in the vector of the target gene: by default, in how that gene answers to the others.

    effect = b + G W (p - mean p): G the gene scores, p the vector of the target gene times the sign, b the mean
    effect, W = (G'G + r I)^-1 G' (effects - b)' P (P'P + r I)^-1 over the training rows P, with r relative to the
    mean eigenvalue.

    Source: Ahlmann-Eltze et al., Nature Methods 2025; there p is not centred and r is fixed to 0.1.
    """

    grid = tuple(float(r) for r in 10.0 ** np.arange(-6, 5))

    def _prepare(self, train: Responses) -> None:
        super()._prepare(train)
        residual, p = train.effects[self.known], self.rows.copy()
        for sign in np.unique(train.signs):
            of_sign = train.signs[self.known] == sign
            if of_sign.any():
                residual[of_sign] -= train.effects[train.signs == sign].mean(axis=0)
                p[of_sign] -= p[of_sign].mean(axis=0)
        self.gram_genes, self.gram_rows = self.scores.T @ self.scores, p.T @ p
        self.cross = self.scores.T @ residual.T @ p

    def _with(self, value: float, target: str, sign: int) -> Vector | None:
        same, p = self.train.others(None, sign), self._row(target, sign)
        b, known = self.train.mean(same), same[self.known]
        if b is None or p is None or not known.any():
            return b
        w = np.linalg.solve(_ridge(self.gram_genes, value), self.cross)
        p = np.linalg.solve(_ridge(self.gram_rows, value), p - self.rows[known].mean(axis=0))
        return b + self.scores @ (w @ p)


def _ridge(gram: np.ndarray, value: float) -> np.ndarray:
    return gram + (value * np.trace(gram) / len(gram) + 1e-12) * np.eye(len(gram))


class NearestNeighbours(Tuned):
    """A perturbation does what those of the most similar genes do, on average (cosine of their vectors)."""

    grid = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)

    def _with(self, value: float, target: str, sign: int) -> Vector | None:
        others, p = self.train.others(target, sign), self._row(target, sign)
        near = others[self.known]
        if p is None or not near.any():
            return self.train.mean(others)
        rows = self.rows[near]
        cosine = rows @ p / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(p), 1e-12)
        nearest = np.argsort(-cosine, kind="stable")[: int(value)]
        return self.train.effects[np.flatnonzero(self.known & others)[nearest]].mean(axis=0)


Predictor = Callable[[str, int], Vector | None]  # target and sign to the change from control; None: no answer
BASELINES: dict[str, Callable[[Responses], Predictor]] = {
    "control": lambda train: lambda target, sign: np.zeros(len(train.genes)),
    "perturbed mean": lambda train: partial(perturbed_mean, train),
    "pathway neighbour": lambda train: partial(neighbour_mean, train),
    "replicate mean": lambda train: partial(replicate_mean, train),
    "linear": lambda train: Linear().fit(train).effect,
    "kNN": lambda train: NearestNeighbours().fit(train).effect,
    "matching mean": lambda train: partial(additive, train, weight=0.5),
    "additive": lambda train: partial(additive, train),
}


def dispersed_cells(control_counts: Matrix, mean_log1p: Vector, target_depth: float, rng: np.random.Generator
                    ) -> sparse.csr_matrix:
    """Turns a predicted mean into cells: control cells, every gene moved until its mean is the predicted one.

    A gene that falls is thinned, each transcript kept with the same probability; one that rises gets Poisson
    transcripts in proportion to the depth of the cell. Corrections follow, because depth and logarithm
    bend the means; a mean that no cells of one depth can have is approached only.

    Args:
        control_counts: Cells x genes; as many cells come back.
        mean_log1p: To be reached.
        target_depth: Of the log1p scale, counts per cell.
        rng: Source of randomness.
    """
    base = sparse.csr_matrix(control_counts, dtype=np.int64, copy=True)
    base.eliminate_zeros()
    depth = np.asarray(base.sum(axis=1), dtype=np.float64).ravel()
    share, before = depth / depth.mean(), np.asarray(base.mean(axis=0)).ravel()
    goal = np.expm1(np.maximum(mean_log1p, 0.0))
    rate = goal * depth.mean() / target_depth  # wanted transcripts per cell
    for _ in range(ROUNDS + 1):
        keep = np.minimum(np.divide(rate, before, out=np.ones_like(rate), where=before > 0), 1.0)
        more = np.maximum(rate - before, 0.0)
        cells = base.toarray()
        cells[base.nonzero()] = rng.binomial(base.data, keep[base.indices])
        cells[:, more > 0] += rng.poisson(np.outer(share, more[more > 0]))
        scale = target_depth / np.maximum(cells.sum(axis=1), 1)
        now = np.expm1(np.log1p(cells * scale[:, None]).mean(axis=0))
        rate = rate * np.clip(np.divide(goal, now, out=np.ones_like(goal), where=now > 0), 0.2, 5.0)
    return sparse.csr_matrix(cells, dtype=np.float32)
