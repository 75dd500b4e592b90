"""What is known of a perturbation's mean effect, seen or unseen: kriging over genes, one formula for both.

    effect of perturbation p on gene g:  f_pg ~ N(0, v_g K(p, p)),  Cov(f_pg, f_qg) = v_g K(p, q)
    measured in replicate r:             y_prg = f_pg + noise, of variance v_g (1 / cells + 1 / controls)
    known of p:                          E[f_p | every measured effect that may be used]

    K(p, q) = s_p s_q (a sinh(c L_pq) / sinh(c) + d [p and q are one gene]) + b [s_p = s_q]

L_pq in [-1, 1] is the likeness of the perturbed genes, s the sign, v_g the variance of gene g among control cells: so
noise is known from the numbers of cells alone. The hyperbolic sine sharpens likeness as c grows, and its series has
positive coefficients only, so that K is a covariance whenever L is one (Schur 1911). The effect of a pair of genes is
the sum of both, and of a part of its own, of variance d. a, b, c, d are found by marginal likelihood on the training
cells. Where nothing is known of a gene, b alone speaks: the shrunken mean of all
perturbations. Where many cells were measured, they speak: the mean of their replicates.

Source: Cressie, Statistics for Spatial Data, 1993, chapter 3; Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, chapter 5.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize

from cdt_lite.errors import CDTError

START = (-4.0, -6.0, 0.3, -6.0)  # log of a, b, c, d: effects of a seventh of a gene's spread among cells
LEAST, MOST = -14.0, 4.0  # bounds of the same
ROUNDING = 1e-4  # below zero an eigenvalue may lie, by rounding, for each measured row
EVALUATIONS = 400  # of the likelihood, at most
ROWS = 600  # of all targets drawn at random, that it is asked of: a few seconds on any screen


@dataclass(frozen=True)
class Measured:
    """Mean effects that training cells show: K rows, one a perturbation and replicate, or part of one."""

    gene: Int[np.ndarray, " K"]  # perturbed, as its row in the likeness
    sign: Int[np.ndarray, " K"]  # -1 or +1
    part: Int[np.ndarray, " K"]  # of the perturbation's cells: its replicate, or a fold of the only one
    replicate: Int[np.ndarray, " K"]
    cells: Float[np.ndarray, " K"]  # that the effect is a mean over
    controls: Float[np.ndarray, " K"]  # that it is measured against: those of the same replicate
    effect: Float[np.ndarray, "K G"]  # change of mean log1p expression

    def noise(self) -> Float[np.ndarray, "K K"]:
        """Returns the covariance of the rows' errors, in units of v_g: rows of a replicate share their controls."""
        together = self.replicate[:, None] == self.replicate
        return np.diag(1 / self.cells) + together / np.sqrt(np.outer(self.controls, self.controls))

    def of(self, rows: Bool[np.ndarray, " K"]) -> "Measured":
        """Returns some of the rows."""
        return Measured(*(getattr(self, field.name)[rows] for field in fields(self)))

    def drawn(self, n_rows: int) -> Bool[np.ndarray, " K"]:
        """Draws targets at random, with all their rows, until there are about so many; all, where there are fewer."""
        genes, which, n = np.unique(self.gene, return_inverse=True, return_counts=True)
        order = np.random.default_rng(len(genes)).permutation(len(genes))
        taken = order[np.cumsum(n[order]) <= max(n_rows, n.max(initial=0))]
        return np.isin(which.ravel(), taken)


class Kriging:
    """The best linear prediction of mean effects from those that were measured.

    Args:
        measured: Mean effects.
        likeness: Of every gene that may be asked for, a row each, with the gene of every measured effect; of a pair,
            with the first, and then with the second of every pair (`genes_in`).
        sd: Of every gene among control cells, in log1p units.
        parameters: a, b, c, d; None finds them by marginal likelihood.
        members: Rows in the likeness of the genes that each row stands for, (V, 2): its own and -1, or a pair's. None:
            there are no pairs.

    Raises:
        CDTError: The likeness of the measured genes is no covariance.
    """

    def __init__(self, measured: Measured, likeness: Float[np.ndarray, "V K"], sd: Float[np.ndarray, " G"],
                 parameters: tuple[float, ...] | None = None,
                 members: Int[np.ndarray, "V 2"] | None = None) -> None:
        self.measured, self.likeness, self.sd = measured, likeness, sd
        if members is None:
            members = np.stack([np.arange(len(likeness)), np.full(len(likeness), -1)], 1)
        self.members = members
        self.noise = measured.noise()
        genes, _ = genes_in(measured.gene, members)
        lowest = np.linalg.eigvalsh(likeness[genes]).min(initial=0.0)
        if lowest < -ROUNDING * max(len(genes), 1):
            raise CDTError(f"the likeness of the measured genes has an eigenvalue of {lowest:.2g}: no covariance is "
                           "negative. Use the cosine of vectors, or a mean or product of such likenesses")
        if parameters is None:
            rows = measured.drawn(ROWS)
            columns = rows[genes_in(measured.gene, members)[1]]
            asked = Kriging(measured.of(rows), likeness[:, columns], sd, tuple(np.exp(START)), members)
            options = {"maxfev": EVALUATIONS, "xatol": 0.02, "fatol": 0.1}
            found = minimize(asked._misfit, START, method="Nelder-Mead", options=options)
            parameters = tuple(np.exp(np.clip(found.x, LEAST, MOST)))
        self.parameters = parameters
        rows = self.prior(measured.gene, measured.sign, parameters)
        self.precision = np.linalg.inv(rows + self.noise)

    def prior(self, gene: Int[np.ndarray, " P"], sign: Int[np.ndarray, " P"], parameters: tuple[float, ...]
              ) -> Float[np.ndarray, "P K"]:
        """Returns the covariance K of some perturbations with the measured ones, in units of v_g."""
        a, b, c, d = parameters
        measured = self.measured.gene
        one, of_one = genes_in(gene, self.members)
        other, of_other = genes_in(measured, self.members)
        signs, way = np.outer(sign, self.measured.sign), sign[:, None] == self.measured.sign
        alike = np.sinh(c * self.likeness[one]) / np.sinh(c)
        gene_by_gene = a * alike + d * (one[:, None] == other)
        total = _added(_added(gene_by_gene, of_one).T, of_other).T
        n_genes = np.outer(self.n_genes(gene), self.n_genes(measured))
        of_pair = (n_genes == 4) & (gene[:, None] == measured)
        return (total + d * of_pair) * signs + b * n_genes * way

    def n_genes(self, gene: Int[np.ndarray, " P"]) -> Int[np.ndarray, " P"]:
        """Counts the genes of some perturbations: 1, or 2 of a pair."""
        return 1 + (self.members[gene, 1] >= 0)

    def _misfit(self, logs: Float[np.ndarray, " 4"]) -> float:
        """Minus the log marginal likelihood of the measured effects, but for a constant."""
        parameters = tuple(np.exp(np.clip(logs, LEAST, MOST)))
        total = self.prior(self.measured.gene, self.measured.sign, parameters) + self.noise
        factor = np.linalg.cholesky(total)
        white = np.linalg.solve(factor, self.measured.effect / self.sd)
        n_genes = white.shape[1]
        return n_genes * np.log(np.diag(factor)).sum() + (white**2).sum() / 2

    @property
    def log_likelihood(self) -> float:
        """The log marginal likelihood of the measured effects, but for a constant: to compare likenesses by."""
        return -self._misfit(np.log(self.parameters))

    def known(self, gene: Int[np.ndarray, " P"], sign: Int[np.ndarray, " P"],
              hidden: Bool[np.ndarray, " K"] | None = None, named: bool = True
              ) -> tuple[Float[np.ndarray, "P K"], Float[np.ndarray, " P"]]:
        """Returns what each measured effect counts for some perturbations, and the share of variance that is left.

        Their expected effects are these weights times the measured effects.

        Args:
            gene: Perturbed, as its row in the likeness.
            sign: -1 or +1.
            hidden: Measured rows that must not be used, for any of them; None: all may.
            named: Whether it is known which gene it is; else what all perturbations of its sign share is all there is.
        """
        a, b, c, d = self.parameters
        shared = self.prior(gene, sign, self.parameters if named else (0.0, b, c, 0.0))
        weights = shared @ self.precision
        if hidden is not None:  # by the block inverse: few are left out at a time
            within = self.precision[np.ix_(hidden, hidden)]
            weights = weights - weights[:, hidden] @ np.linalg.solve(within, self.precision[hidden])
            weights[:, hidden] = 0.0
        n_genes = self.n_genes(gene)
        # the genes of a pair are taken for unlike
        variance = n_genes * (a + d) + n_genes**2 * b + (n_genes == 2) * d
        left = 1 - (weights * shared).sum(1) / variance
        return weights, np.clip(left, 0.0, 1.0)


def genes_in(gene: Int[np.ndarray, " P"], members: Int[np.ndarray, "V 2"]
             ) -> tuple[Int[np.ndarray, " Q"], Int[np.ndarray, " Q"]]:
    """Returns the single genes that some perturbations are made of, and which of them each belongs to.

    First come the first genes of all, then the second ones of pairs.
    """
    first, second = members[gene].T
    pairs = np.flatnonzero(second >= 0)
    return np.append(first, second[pairs]), np.append(np.arange(len(gene)), pairs)


def _added(by_gene: Float[np.ndarray, "Q K"], of: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "P K"]:
    """Adds the rows of a pair's second genes to those of its first, both as `genes_in` gives them."""
    n = int(of.max(initial=-1)) + 1
    total = by_gene[:n].copy()
    total[of[n:]] += by_gene[n:]
    return total
