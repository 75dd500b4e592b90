"""What training cells say about perturbations before any network is trained: mean effects, and guesses by ridge."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.data.batches import ALL
from cdt_lite.data.store import TokenStore
from cdt_lite.data.tokenizer import BLOCK, Tokenizer
from cdt_lite.evaluation.baselines import Linear, Responses
from cdt_lite.model.mean_effect import GUESSED, EffectTable
from cdt_lite.training.gene_vectors import coexpression


class Row(NamedTuple):
    """One row of the table: a perturbation in a replicate, the number of its cells, its mean effect (G,)."""

    target: int
    sign: int
    replicate: int
    cells: float
    effect: Float[np.ndarray, " G"]


Pair = tuple[int, int]  # target and sign


def effect_table(store: TokenStore, tokenizer: Tokenizer) -> EffectTable:
    """Returns the mean change of log1p expression of every perturbation, replicate by replicate, and guesses.

    Changes are against the control cells of the same replicate (of all, where it has none). A guess is what a ridge on
    the genes' co-expression says of a gene's perturbation without having seen it: for a trained one, fitted on the
    others (the strength of the ridge and the co-expression are those of all training cells). A target that is not in
    the panel has no co-expression: its guess is the mean of the others. A guess counts as so many cells as, mixed with
    what some replicates measured, best says what another replicate measured (empirical Bayes: Efron and Morris 1975).

    Args:
        store: Training cells, with controls.
        tokenizer: What their tokens mean.
    """
    measured = list(_measured(store, tokenizer))
    known = coexpression((block for _, block in _expression(store, tokenizer)), above_noise=True)
    guesses = _guesses(measured, store.gene_ids, known)
    worth = worth_in_cells(measured, guesses)
    rows = list(measured)
    for (target, sign), effect in guesses.items():
        rows.append(Row(target, sign, GUESSED, worth, effect))
    labels = np.array([row[:3] for row in rows], int).reshape(len(rows), 3)
    cells = np.array([row.cells for row in rows], float)
    effect = np.array([row.effect for row in rows]).reshape(len(rows), len(store.gene_ids))
    values = np.log1p(tokenizer.centres)
    shares = _control_shares(store, len(values))
    return EffectTable(labels[:, 0], labels[:, 1], labels[:, 2], cells, _target_shares(labels, cells), effect,
                       shares, store.gene_ids, values, store.tokens.max(0).astype(int))


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


def _target_shares(labels: Int[np.ndarray, "K 3"], cells: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Each row's share of its target's cells, guesses apart."""
    keys = labels.copy()
    keys[:, 2] = keys[:, 2] == GUESSED
    _, which = np.unique(keys, axis=0, return_inverse=True)
    total = np.maximum(np.bincount(which.ravel(), cells), 1)
    return cells / total[which.ravel()]


def worth_in_cells(measured: list[Row], guesses: dict[Pair, Float[np.ndarray, " G"]]) -> float:
    """Returns how many cells a guess is worth, by leaving each replicate out; 0 where nothing was measured twice.

    Args:
        measured: Effects by replicate.
        guesses: Effects by target and sign.
    """
    grid = np.array([0.0, *np.geomspace(1, 10_000, 81)])
    error = np.zeros(len(grid))
    for row in measured:
        pair = (row.target, row.sign)
        others = [r for r in measured if (r.target, r.sign) == pair and r.replicate != row.replicate]
        if not others or pair not in guesses:
            continue
        n, mean = _pooled(others)
        share = grid / (n + grid)  # of the guess in the mixture
        missed, guessed_more = row.effect - mean, guesses[pair] - mean
        squares = np.mean(missed**2) - 2 * share * np.mean(missed * guessed_more) + share**2 * np.mean(guessed_more**2)
        error += row.cells * squares
    return float(grid[np.argmin(error)])


def _pooled(rows: list[Row]) -> tuple[float, Float[np.ndarray, " G"]]:
    """Cells of several replicates, and their mean effect."""
    cells = [row.cells for row in rows]
    return sum(cells), np.average([row.effect for row in rows], axis=0, weights=cells)


def _measured(store: TokenStore, tokenizer: Tokenizer) -> Iterator[Row]:
    """Effects of every perturbation in every replicate, or, where it has one alone, in each of its folds."""
    labels = np.stack([store.target, store.sign, store.group, store.folds()], 1)
    keys, which = np.unique(labels, axis=0, return_inverse=True)
    cells = np.bincount(which.ravel())
    means = np.zeros((len(keys), store.tokens.shape[1]))
    for rows, expression in _expression(store, tokenizer):
        np.add.at(means, which.ravel()[rows], expression)
    means /= cells[:, None]
    is_control = keys[:, 1] == 0
    overall = np.average(means[is_control], axis=0, weights=cells[is_control])
    controls = {ALL: overall}
    for i in np.flatnonzero(is_control):
        controls[int(keys[i, 2])] = means[i]
    for i in np.flatnonzero(~is_control):
        target, sign, group, fold = map(int, keys[i])
        yield Row(target, sign, fold, float(cells[i]), means[i] - controls.get(group, overall))


def _expression(store: TokenStore, tokenizer: Tokenizer) -> Iterator[tuple[slice, Float[np.ndarray, "rows G"]]]:
    """Reads log1p expression block by block; a token stands for its bin's centre."""
    centres = np.asarray(tokenizer.centres)
    for begin in range(0, len(store), BLOCK):
        rows = slice(begin, begin + BLOCK)
        values = centres[store.tokens[rows]]
        if tokenizer.config.space == "counts":
            values = values * np.exp(-store.log_depth[rows, None])
        yield rows, np.log1p(values)


def _control_shares(store: TokenStore, n_bins: int) -> Float[np.ndarray, "G bins"]:
    """Shares of the control cells in every bin, with half a cell more at 0 and at 1: no value is impossible."""
    found = np.zeros((store.tokens.shape[1], n_bins))
    found[:, :2] = 0.5
    controls = np.flatnonzero(store.sign == 0)
    for begin in range(0, len(controls), BLOCK):
        tokens = np.asarray(store.tokens[controls[begin : begin + BLOCK]])
        np.add.at(found, (np.arange(len(found)), tokens), 1)
    return found / found.sum(1, keepdims=True)


def _guesses(measured: list[Row], gene_ids: Int[np.ndarray, " G"], known: Float[np.ndarray, "G K"]
            ) -> dict[Pair, Float[np.ndarray, " G"]]:
    """Guesses for every gene of the panel that might be asked for, from a ridge on the targets' vectors."""
    by_pair: dict[Pair, list[Row]] = {}
    for row in measured:
        by_pair.setdefault((row.target, row.sign), []).append(row)
    pairs = sorted(by_pair)
    if len(pairs) < 3:
        return {}
    pooled = np.array([_pooled(by_pair[pair])[1] for pair in pairs])
    targets, signs = np.array(pairs).T
    train = Responses(gene_ids.astype(str), targets.astype(str), signs, pooled)
    vectors = dict(zip(gene_ids.astype(str), known, strict=True))
    whole = Linear(vectors=vectors)
    whole.fit(train)
    guesses = {}
    for sign in sorted(set(signs)):
        for gene in sorted({*gene_ids, *targets[signs == sign]}):
            own = np.flatnonzero(targets == gene)
            model = whole
            if len(own):
                model = Linear(whole.chosen, vectors=vectors)
                model.fit(train.drop(own))
            guess = model.effect(str(gene), int(sign))
            if guess is not None:
                guesses[int(gene), int(sign)] = guess
    return guesses
