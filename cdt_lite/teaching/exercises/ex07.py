"""Exercises of notebook 07: a test that depth cannot fool, and genes that vary together."""

import numpy as np
from jaxtyping import Bool, Float, Int

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "7.1", "A test that depth cannot fool", difficulty=4, minutes=15,
    objective="tell real from generated cells whatever their depths",
    misconception="a small p value says that cells are made differently, and not just that they are less deep",
    hints=("Three steps: take its class mean from every value, write gap(labels), then shuffle labels and count.",
           "Shuffle within a class: labels[own] = rng.permutation(is_made[own]), with labels a copy.",
           "The arrangement that you found is one of those possible: (1 + draws at least as large) / (1 + n_draws)."),
)
def fair_p(value: Float[np.ndarray, " cells"], is_made: Bool[np.ndarray, " cells"],
           depth_class: Int[np.ndarray, " cells"], n_draws: int, rng: np.random.Generator) -> float:
    """Returns how often chance alone sets generated and real cells so far apart, among cells of like depth.

    The gap is the absolute difference of the two means, after each class's own mean is taken from its values; chance
    deals the labels out anew within every class.
    """
    rest = np.array(value, float)
    classes = [depth_class == name for name in np.unique(depth_class)]
    for own in classes:
        rest[own] -= rest[own].mean()

    def gap(labels: np.ndarray) -> float:
        return abs(rest[labels].mean() - rest[~labels].mean())

    found, labels, n_large = gap(is_made), is_made.copy(), 0
    for _ in range(n_draws):
        for own in classes:
            labels[own] = rng.permutation(is_made[own])
        n_large += gap(labels) >= found - 1e-12
    return float((1 + n_large) / (1 + n_draws))


def _p(fn: Answer, real: list[list[float]], made: list[list[float]], n_draws: int,
       seed: int = 0) -> float:
    """The answer's p for the values of some depth classes, which are called 3, 7, 8 ..."""
    value, label, name = [], [], []
    for i, both in enumerate(zip(real, made, strict=True)):
        for is_made, own in enumerate(both):
            value += own
            label += [bool(is_made)] * len(own)
            name += [(3, 7, 8)[i]] * len(own)
    return fn(np.array(value, float), np.array(label), np.array(name), n_draws, np.random.default_rng(seed))

@fair_p.requires("four generated cells of ten lie far off: a small p")
def _(fn: Answer) -> Pair:
    """The gap is that of the means; the medians are alike here, and see nothing."""
    found = _p(fn, [[0.0] * 10], [[0.0] * 6 + [8.0] * 4], 300)
    return "small", "small" if found < 0.5 else f"{found:.1f}", {
        "You counted the draws with a smaller gap; those at least as large are evidence against a difference.": "0.9",
    }

@fair_p.requires("ten cells against ten, far apart, 19 draws: 1 in 20")
def _(fn: Answer) -> Pair:
    """Count the draws whose gap is at least the one found, then (1 + that) / (1 + n_draws)."""
    return 0.05, _p(fn, [[0.0] * 10], [[8.0] * 10], 19), {
        "p is never 0: the arrangement that was found is one of those possible, (1 + count) / (1 + n_draws).": 0.0,
        "You counted the draws with a smaller gap; those at least as large are evidence against a difference.": 1.0,
        "Divide by 1 + n_draws: what was found is counted above and below.": 1 / 19,
        "You counted the draws with a smaller gap, without the one found.": 0.95,
    }

@fair_p.requires("all cells alike: p is 1")
def _(fn: Answer) -> Pair:
    """No gap at all is no evidence: a draw that is as large as the one found counts, too: >=."""
    return 1.0, _p(fn, [[2.0] * 10], [[2.0] * 10], 19)

@fair_p.requires("depth explains all of it: p is 1")
def _(fn: Answer) -> Pair:
    """Depth fooled your test: labels may change places only among cells of one class."""
    return 1.0, _p(fn, [[1.0] * 8, [9.0] * 2], [[1.0] * 2, [9.0] * 8], 99)

@fair_p.requires("two classes, a real and a generated cell each: 1 in 2")
def _(fn: Answer) -> Pair:
    """Of the four ways to deal labels out within both classes, two are as far apart."""
    found = _p(fn, [[1.0], [5.0]], [[3.0], [7.0]], 2000)
    return 0.5, float(round(12 * found) / 12), {
        "You dealt the labels out over both classes together: within each class there are four ways, not six.": 4 / 12,
        "Yours looks at one direction only: a gap the other way is as telling, take the absolute value.": 0.25,
        "You drew labels with replacement: shuffle them, each class keeps as many generated cells as it has.": 2 / 12,
        "You drew labels with replacement: shuffle, so that a class keeps its number of generated cells.": 1 / 12,
    }

@fair_p.requires("two classes in which few and many cells are generated: 3 in 5")
def _(fn: Answer) -> Pair:
    """Take from each value the mean of all cells of its class, and nothing else; then shuffle within classes."""
    found = _p(fn, [[9.0, 11.0, 1.0, 8.0], [34.0, 4.0]], [[10.0], [19.0, 0.0, 8.0]], 2000)
    return 0.6, float(round(5 * found) / 5), {
        "You took the mean of the real cells from each class: take that of all its cells, real and generated.": 0.4,
        "You divided by each class's standard deviation, too: only its mean is taken away.": 0.8,
    }

@fair_p.requires("a gap that shows only beside cells of like depth is found")
def _(fn: Answer) -> Pair:
    """What classes differ by hides it: take each class's own mean from its values before anything is compared."""
    return True, bool(_p(fn, [[1.0] * 9, [101.0]], [[0.0], [100.0] * 9], 999) < 0.05)

@fair_p.requires("the same rng, the same p; another rng, another p")
def _(fn: Answer) -> Pair:
    """Chance came from elsewhere (np.random): take it from the `rng` that is given, so that it can be repeated."""
    rows = np.random.default_rng(1).normal(size=(6, 12)).round(2).tolist()
    first, again, other = ([_p(fn, [row[:6]], [row[6:]], 60, seed) for row in rows] for seed in (0, 0, 1))
    found = "new" if first != again else "repeated, varied" if first != other else "repeated, fixed"
    return "repeated, varied", found, {
        "You made an rng of your own: with another one that is given p must vary a little.": "repeated, fixed"}


@exercise(
    "7.2", "Do the same genes vary together?", difficulty=2, minutes=8,
    objective="compare gene-gene correlations of two sets of cells",
    misconception="cells whose every gene is distributed as it should be are right",
    hints=("np.corrcoef(cells, rowvar=False) has a row and a column for each gene; np.nan_to_num makes NaN 0.",
           "np.triu_indices(G, 1) names each pair of genes once, without the diagonal."),
)
def agreement(x: Float[np.ndarray, "cells G"], y: Float[np.ndarray, "others G"]) -> float:
    """Returns the correlation, over pairs of genes, of the gene-gene correlations in two sets of cells.

    Each pair counts once, no gene is paired with itself, and a gene that is constant correlates with none: 0.
    """
    pairs = np.triu_indices(x.shape[1], 1)
    both = []
    for cells in (x, y):
        with np.errstate(invalid="ignore", divide="ignore"):
            both.append(np.nan_to_num(np.corrcoef(cells, rowvar=False))[pairs])
    return float(np.corrcoef(*both)[0, 1])


def _together(seed: int, n: int = 40) -> np.ndarray:
    """Cells in which six genes follow two programs, on different scales."""
    rng = np.random.default_rng(seed)
    programs = rng.normal(size=(n, 2)) @ np.array([[1, 1, 1, -1, 0, 0], [0, 1, 0, 0, 1, 1]])
    return (programs + rng.normal(size=(n, 6))) * [1, 5, 2, 1, 1, 3]

@agreement.requires("six genes, 40 cells against 40 others")
def _(fn: Answer) -> Pair:
    """Correlate genes (not cells) in each set, take each pair of genes once, then correlate the two lists of pairs."""
    x, y = _together(0), _together(1)
    pairs = np.triu_indices(6, 1)
    r, s = np.corrcoef(x, rowvar=False), np.corrcoef(y, rowvar=False)
    cells = np.triu_indices(40, 1)
    return agreement.reference(x, y), fn(x, y), {
        "The diagonal is among your pairs: a gene's correlation with itself is 1 in any cells, and flatters.":
            float(np.corrcoef(r.ravel(), s.ravel())[0, 1]),
        "The diagonal is among your pairs: np.triu_indices(G, 1) begins beside it.":
            float(np.corrcoef(r[np.triu_indices(6)], s[np.triu_indices(6)])[0, 1]),
        "These are covariances: a loud gene decides alone. Correlate.":
            float(np.corrcoef(np.cov(x.T)[pairs], np.cov(y.T)[pairs])[0, 1]),
        "You correlated cells with cells: genes are columns, rowvar=False.":
            float(np.corrcoef(np.corrcoef(x)[cells], np.corrcoef(y)[cells])[0, 1]),
        "Keep the sign of a correlation: genes that go opposite ways are not together.":
            float(np.corrcoef(np.abs(r[pairs]), np.abs(s[pairs]))[0, 1]),
        "This is a mean difference; the correlation over pairs is asked for.": float(np.abs(r - s)[pairs].mean()),
    }

@agreement.requires("cells agree with themselves: 1")
def _(fn: Answer) -> Pair:
    """The same cells twice must give 1: a correlation over pairs, not a product or a difference."""
    return 1.0, fn(_together(2), _together(2))

@agreement.requires("the two sets may differ in size")
def _(fn: Answer) -> Pair:
    """Each set has a correlation matrix of its own, genes x genes: how many cells it has does not matter."""
    x, y = _together(3), _together(4, 25)
    return agreement.reference(x, y), fn(x, y)

@agreement.requires("a gene without a count correlates with none")
def _(fn: Answer) -> Pair:
    """A constant gene has no standard deviation, and its correlations are NaN: make them 0, np.nan_to_num."""
    x, y = _together(5), _together(6)
    y[:, 2] = 0
    kept = [0, 1, 3, 4, 5]
    return agreement.reference(x, y), fn(x, y), {
        "You left the constant gene out; its pairs count as 0, or a model could drop what it cannot do.":
            agreement.reference(x[:, kept], y[:, kept]),
    }
