"""What training cells say about perturbations before any network is trained: mean effects, known by kriging."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from cdt_lite.data.blocks import BLOCK
from cdt_lite.data.store import TokenStore, set_aside
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.model.mean_effect import NAMELESS, OWN, WHOLE, EffectTable
from cdt_lite.model.perturbation import UNKNOWN_TARGET
from cdt_lite.training.gene_vectors import coexpression, expression_of
from cdt_lite.training.kriging import Kriging, Measured, genes_in
from cdt_lite.training.prior import GeneVectors

LEAST_SD = 0.01  # of a gene among control cells: what varies less is taken for constant


class Answer(NamedTuple):
    """One row of the table."""

    target: int
    sign: int
    without: int
    weights: Float[np.ndarray, " k"]
    left: float


def effect_table(store: TokenStore, tokenizer: Tokenizer, prior: GeneVectors | None = None,
                 validation_share: float = 0.0) -> EffectTable:
    """Returns what is known of the mean change of log1p expression that each perturbation makes.

    Changes are measured against the control cells of the same replicate (of all, where it has none). What is known of a
    perturbation follows from all that was measured, by kriging (`training/kriging.py`), and for training from all but
    the set's own replicate. Genes are alike as their co-expression says, as the prior says, or as the mean of both: the
    likelihood of what was measured chooses.

    Args:
        store: Training cells, with controls.
        tokenizer: What their tokens mean.
        prior: What is known of genes beforehand (`add_prior`).
        validation_share: Of the groups of cells whose effects are taken for not measured (`set_aside`).
    """
    kriging, genes = fitted(store, tokenizer, prior, validation_share)
    answers = list(_answers(kriging, genes))
    columns = list(zip(*answers, strict=True)) or [()] * len(Answer._fields)
    target, sign, without = (np.array(column, int) for column in columns[:3])
    values = np.log1p(tokenizer.centres)
    shares = _control_shares(store, len(values))
    weights = np.array(columns[3]).reshape(len(answers), len(kriging.measured.effect))
    return EffectTable(target, sign, without, np.array(columns[4], float), weights, kriging.measured.effect, shares,
                       store.gene_ids, values, tokenizer.config.space == "counts", store.tokens.max(0).astype(int),
                       np.zeros(2))


def magnitudes(stores: Sequence[TokenStore]) -> dict[str, list[float]]:
    """Returns the lowest and the highest magnitude by sign ("-1", "1"); a sign is left out where none is known."""
    known: dict[str, list[float]] = {}
    for store in stores:
        for sign in (-1, 1):
            values = store.magnitude[(store.sign == sign) & np.isfinite(store.magnitude)]
            if len(values):
                both = [*known.get(str(sign), []), float(values.min()), float(values.max())]
                known[str(sign)] = [min(both), max(both)]
    return known


def fitted(store: TokenStore, tokenizer: Tokenizer, prior: GeneVectors | None = None,
           validation_share: float = 0.0) -> tuple[Kriging, Int[np.ndarray, " V"]]:
    """Returns the kriging of what was measured, under the likeliest likeness, and the gene of each of its rows.

    Args:
        store: Training cells, with controls.
        tokenizer: What their tokens mean.
        prior: As for `effect_table`.
        validation_share: As for `effect_table`.
    """
    sources = [coexpression_of(store, tokenizer)]
    if prior is not None:
        sources.append(prior)
    in_pairs = np.array([*store.pairs.values()], int).ravel()
    named = [store.target[store.sign != 0], in_pairs, *(source.genes for source in sources)]
    genes = np.unique(np.concatenate(named).astype(int))
    members = np.stack([np.arange(len(genes)), np.full(len(genes), -1)], 1)
    for pair, both in store.pairs.items():
        members[np.searchsorted(genes, pair)] = np.searchsorted(genes, both)
    measured, sd = measured_effects(store, tokenizer, genes)
    keys, _ = store.groups()
    measured = measured.of(~set_aside(keys, validation_share)[keys[:, 1] != 0])
    perturbed, _ = genes_in(measured.gene, members)
    alike = [likeness_of(source.of(genes), perturbed) for source in sources]
    if len(alike) > 1:
        alike.append(np.mean(alike, axis=0))
    candidates = [Kriging(measured, likeness, sd, members=members) for likeness in alike]
    return max(candidates, key=lambda kriging: kriging.log_likelihood), genes


def coexpression_of(store: TokenStore, tokenizer: Tokenizer) -> GeneVectors:
    """Returns vectors of the panel's genes that point the same way where genes vary together."""
    vectors = coexpression((block for _, block in expression_of(store, tokenizer)), above_noise=True)
    return GeneVectors(store.gene_ids, sparse.csr_array(vectors))


def likeness_of(vectors: sparse.csr_array, gene: Int[np.ndarray, " k"]) -> Float[np.ndarray, "V k"]:
    """Cosine of every gene's vector with that of each measured one; a gene without a vector is like itself alone.

    Args:
        vectors: Of V genes, (V, n).
        gene: Rows of the measured ones.
    """
    length = sparse.linalg.norm(vectors, axis=1)
    unit = sparse.csr_array(sparse.diags_array(1 / np.where(length > 0, length, 1.0)) @ vectors)
    alike = np.clip((unit @ unit[gene].T).toarray(), -1.0, 1.0)
    alike[np.arange(len(alike))[:, None] == gene] = 1.0
    return alike


def _answers(kriging: Kriging, genes: Int[np.ndarray, " V"]) -> Iterator[Answer]:
    """What is known of every gene by all that was measured, and of every measured one without its own cells."""
    m = kriging.measured
    every = np.arange(len(genes))
    for sign in np.unique(m.sign).tolist():
        signs = np.full(len(genes), sign)
        for gene, weights, left in zip(genes.tolist(), *kriging.known(every, signs), strict=True):
            yield Answer(gene, sign, WHOLE, weights, float(left))
        (weights,), (left,) = kriging.known(every[:1], signs[:1], named=False)
        yield Answer(UNKNOWN_TARGET, sign, WHOLE, weights, float(left))
    for row, sign in np.unique(np.stack([m.gene, m.sign], 1), axis=0):
        one, way, gene = np.array([row]), np.array([sign]), int(genes[row])
        own = (m.gene == row) & (m.sign == sign)
        for part in m.part[own].tolist():
            (weights,), (left,) = kriging.known(one, way, own & (m.part == part))
            yield Answer(gene, int(sign), part, weights, float(left))
        for without, named in ((OWN, True), (NAMELESS, False)):
            (weights,), (left,) = kriging.known(one, way, m.gene == row, named)
            yield Answer(gene, int(sign), without, weights, float(left))


def measured_effects(store: TokenStore, tokenizer: Tokenizer, genes: Int[np.ndarray, " V"]
              ) -> tuple[Measured, Float[np.ndarray, " G"]]:
    """Effects of every perturbation in every replicate (or fold of one), and the spread of control cells."""
    keys, which = store.groups()
    cells = np.bincount(which).astype(float)
    means, squares = np.zeros((2, len(keys), store.tokens.shape[1]))
    for rows, expression in expression_of(store, tokenizer):
        here, number = np.unique(which[rows], return_inverse=True)
        member = sparse.csr_array((np.ones(len(number)), (number, np.arange(len(number)))))
        means[here] += member @ expression
        squares[here] += member @ expression**2
    means, squares = means / cells[:, None], squares / cells[:, None]
    is_control = keys[:, 1] == 0
    share = cells[is_control] / cells[is_control].sum()
    variance = share @ (squares[is_control] - means[is_control] ** 2)
    of_all = (share @ means[is_control], cells[is_control].sum())
    controls = {int(keys[i, 2]): (means[i], cells[i]) for i in np.flatnonzero(is_control)}
    target, sign, replicate, part = keys[~is_control].T
    against = [controls.get(group, of_all) for group in replicate.tolist()]
    effect = means[~is_control] - np.array([mean for mean, _ in against]).reshape(len(against), means.shape[1])
    n_controls = np.array([n for _, n in against], float)
    gene = np.searchsorted(genes, target)
    measured = Measured(gene, sign, part, replicate, cells[~is_control], n_controls, effect)
    return measured, np.sqrt(np.maximum(variance, LEAST_SD**2))


def _control_shares(store: TokenStore, n_bins: int) -> Float[np.ndarray, "G bins"]:
    """Shares of the control cells in every bin, with half a cell more at 0 and at 1: no value is impossible."""
    n_genes = store.tokens.shape[1]
    found = np.zeros((n_genes, n_bins))
    found[:, :2] = 0.5
    controls = np.flatnonzero(store.sign == 0)
    first = n_bins * np.arange(n_genes)  # place of a gene's bin 0
    for begin in range(0, len(controls), BLOCK):
        places = first + store.tokens[controls[begin : begin + BLOCK]]
        found += np.bincount(places.ravel(), minlength=found.size).reshape(found.shape)
    return found / found.sum(1, keepdims=True)
