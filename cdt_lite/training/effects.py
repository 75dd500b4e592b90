"""What training cells say about perturbations before any network is trained: mean effects, and guesses by ridge."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from cdt_lite.data.batches import ALL
from cdt_lite.data.store import BLOCK, TokenStore
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.evaluation.baselines import Linear, Responses
from cdt_lite.model.mean_effect import GUESSED, EffectTable

Row = tuple[int, int, int, float, Float[np.ndarray, " G"]]  # target, sign, replicate, cells, effect


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
    measured = list(_rows(store, tokenizer))
    vectors = _coexpression(store, tokenizer)
    guesses = list(_guesses(measured, store.gene_ids, vectors))
    worth = worth_in_cells(measured, {row[:2]: row[4] for row in guesses})
    rows = [*measured, *(row[:3] + (worth,) + row[4:] for row in guesses)]
    target, sign, replicate = (np.array([row[i] for row in rows], int) for i in range(3))
    effect = np.array([row[4] for row in rows]).reshape(len(rows), len(store.gene_ids))
    values = np.log1p(tokenizer.centres)
    return EffectTable(target, sign, replicate, np.array([row[3] for row in rows], float), effect,
                       _control_shares(store, len(values)), store.gene_ids, values)


def worth_in_cells(measured: list[Row], guesses: dict[tuple[int, int], Float[np.ndarray, " G"]]) -> float:
    """Returns how many cells a guess is worth, by leaving each replicate out; 0 where nothing was measured twice.

    Args:
        measured: Target, sign, replicate, cells and effect.
        guesses: Effects by target and sign.
    """
    parts = []
    for target, sign, replicate, cells, effect in measured:
        others = [row for row in measured if row[:2] == (target, sign) and row[2] != replicate]
        if others and (target, sign) in guesses:
            n = sum(row[3] for row in others)
            mean = np.average([row[4] for row in others], axis=0, weights=[row[3] for row in others])
            guess = guesses[target, sign]
            parts.append((cells, n, np.mean((effect - mean)**2), np.mean((effect - mean) * (mean - guess)),
                          np.mean((mean - guess)**2)))
    if not parts:
        return 0.0
    cells, n, own, cross, apart = np.array(parts).T

    def error(worth: float) -> float:
        share = worth / (n + worth)  # of the guess in the mixture
        return float(cells @ (own + 2 * share * cross + share**2 * apart))
    return float(min([0.0, *np.geomspace(1, 10_000, 81)], key=error))


def _control_shares(store: TokenStore, n_bins: int) -> Float[np.ndarray, "G bins"]:
    """Shares of the control cells in every bin, with half a cell more at 0 and at 1: no value is impossible."""
    found = np.zeros((store.tokens.shape[1], n_bins))
    found[:, :2] = 0.5
    controls = np.flatnonzero(store.sign == 0)
    for begin in range(0, len(controls), BLOCK):
        tokens = np.asarray(store.tokens[controls[begin : begin + BLOCK]])
        np.add.at(found, (np.arange(len(found)), tokens), 1)
    return found / found.sum(1, keepdims=True)


def _rows(store: TokenStore, tokenizer: Tokenizer) -> Iterator[Row]:
    keys, which = np.unique(np.stack([store.target, store.sign, store.group], 1), axis=0, return_inverse=True)
    means = _means(store, tokenizer, which.ravel(), len(keys))
    cells, is_control = np.bincount(which.ravel()), keys[:, 1] == 0
    controls = {int(keys[i, 2]): means[i] for i in np.flatnonzero(is_control)}
    controls[ALL] = np.average(means[is_control], axis=0, weights=cells[is_control])
    for (target, sign, group), mean, n in zip(keys, means, cells, strict=True):
        if sign != 0:
            yield int(target), int(sign), int(group), float(n), mean - controls.get(int(group), controls[ALL])


def _expression(store: TokenStore, tokenizer: Tokenizer) -> Iterator[tuple[slice, Float[np.ndarray, "rows G"]]]:
    """Reads log1p expression block by block; a token stands for its bin's centre."""
    by_depth = tokenizer.config.space == "counts"
    for begin in range(0, len(store), BLOCK):
        rows = slice(begin, begin + BLOCK)
        scale = np.exp(-store.log_depth[rows, None]) if by_depth else 1.0
        yield rows, np.log1p(np.asarray(tokenizer.centres)[store.tokens[rows]] * scale)


def _means(store: TokenStore, tokenizer: Tokenizer, which: Int[np.ndarray, " cells"], n: int
           ) -> Float[np.ndarray, "n G"]:
    """Mean log1p expression of every group of cells."""
    total = np.zeros((n, store.tokens.shape[1]))
    for rows, expression in _expression(store, tokenizer):
        np.add.at(total, which[rows], expression)
    return total / np.bincount(which, minlength=n)[:, None]


def _coexpression(store: TokenStore, tokenizer: Tokenizer) -> dict[str, Float[np.ndarray, " K"]]:
    """A vector for every gene of the panel, by gene id; inner products are what of their correlations is not noise.

    Of the correlation matrix of n cells only eigenvalues above (1 + sqrt(G / n))^2 are kept, the largest that G
    independent genes show (Marchenko and Pastur 1967).
    """
    n_genes, n = store.tokens.shape[1], len(store)
    total, squares = np.zeros(n_genes), np.zeros((n_genes, n_genes))
    for _, expression in _expression(store, tokenizer):
        total += expression.sum(0)
        squares += expression.T @ expression
    covariance = squares / n - np.outer(total, total) / n**2
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-6))
    values, directions = np.linalg.eigh(covariance / np.outer(sd, sd))
    kept = values > (1 + np.sqrt(n_genes / n)) ** 2
    kept[-1] = True  # a vector has at least one direction, even where nothing rises above noise
    vectors = directions[:, kept] * np.sqrt(np.maximum(values[kept], 0))
    return dict(zip(store.gene_ids.astype(str), vectors, strict=True))


def _guesses(measured: list[Row], gene_ids: Int[np.ndarray, " G"], vectors: dict[str, Float[np.ndarray, " K"]]
             ) -> Iterator[Row]:
    """Rows for every gene of the panel that might be asked for, from a ridge on the targets' vectors."""
    pairs = sorted({row[:2] for row in measured})
    if len(pairs) < 3:
        return
    pooled = []
    for pair in pairs:
        own = [row for row in measured if row[:2] == pair]
        pooled.append(np.average([row[4] for row in own], axis=0, weights=[row[3] for row in own]))
    train = Responses(gene_ids.astype(str), np.array([str(t) for t, _ in pairs]),
                      np.array([s for _, s in pairs]), np.array(pooled))
    whole = Linear(vectors=vectors)
    whole.fit(train)
    for sign in sorted({s for _, s in pairs}):
        for gene in sorted({*map(int, gene_ids), *(t for t, s in pairs if s == sign)}):
            here = np.flatnonzero(train.targets == str(gene))
            model = Linear(whole.chosen, vectors=vectors).fit(train.drop(here)) if len(here) else whole
            guess = model.effect(str(gene), sign)
            if guess is not None:
                yield gene, sign, GUESSED, 1.0, guess
