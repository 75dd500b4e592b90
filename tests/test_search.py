"""Reverse search: planted answers, and cases small enough to count."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cdt_lite.data import gene_means, log1p_counts
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.errors import CDTError
from cdt_lite.evaluation import drawn_changes, hit_rate, mean_effects, places, search, similarity

NAMES = pd.MultiIndex.from_tuples([(f"T{i}", -1) for i in range(4)])


def table(seed=0, n=4):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, 6)), NAMES[:n], list("abcdef"))


def test_similarity_is_pearson_whatever_the_size_and_level():
    queries, candidates = table(), table(1)
    found = similarity(3 * queries + 1, candidates)
    np.testing.assert_allclose(found, np.corrcoef(queries, candidates)[:4, 4:], atol=1e-12)
    without = similarity(queries, candidates, without=["b", "e", "not measured"])
    kept = list("acdf")
    np.testing.assert_allclose(without, np.corrcoef(queries[kept], candidates[kept])[:4, 4:], atol=1e-12)


def test_what_does_not_vary_is_like_nothing():
    flat = table() * 0 + 2
    assert (similarity(table(), flat) == 0).all(axis=None)
    assert places(similarity(table(), flat)).tolist() == [2.5] * 4  # luck: the middle of four


def test_a_table_finds_itself_and_one_that_lacks_the_answer_does_not():
    assert places(similarity(table(), table())).tolist() == [1] * 4
    short = table(n=3)
    found = search(table(), {"all": table(), "three": short})
    assert found["three"].isna().tolist() == [False, False, False, True]
    assert hit_rate(found).to_dict() == {"all": 1.0, "three": 0.75}


def test_of_each_query_its_own_gene_alone_is_left_out():
    """The candidate a is like query a in gene a alone, b is like query b everywhere: a loses its place, b keeps it."""
    names = pd.MultiIndex.from_tuples([("a", -1), ("b", -1)])
    queries = pd.DataFrame([[-9.0, 1, 2, 3], [0, 3, 1, -2]], names, list("abcd"))
    candidates = pd.DataFrame([[-9.0, 3, 2, 1], [0, 3, 1, -2]], names, list("abcd"))
    assert search(queries, {"it": candidates})["it"].tolist() == [1, 1]
    found = search(queries, {"it": candidates}, without_own=True)["it"]
    by_hand = [places(similarity(queries.iloc[[i]], candidates, [gene])).iloc[0] for i, gene in enumerate("ab")]
    assert found.tolist() == by_hand and found.index.equals(queries.index)
    both = search(queries, {"it": candidates}, ["c"], without_own=True)["it"]
    assert both.iloc[0] == places(similarity(queries.iloc[[0]], candidates, ["a", "c"])).iloc[0]


def test_by_luck_every_place_is_as_likely():
    """All orders of four answers: the right one is first in a quarter of them."""
    firsts = []
    for order in permutations(range(4)):
        likeness = pd.DataFrame([[-float(order.index(j)) for j in range(4)]], NAMES[:1], NAMES)
        firsts.append(places(likeness).iloc[0] == 1)
    assert np.mean(firsts) == 0.25


def test_other_genes_and_too_few_are_refused():
    with pytest.raises(CDTError, match="same order"):
        similarity(table(), table()[list("bacdef")])
    with pytest.raises(CDTError, match="two genes"):
        similarity(table(), table(), without=list("abcde"))


def test_drawn_changes_are_means_of_so_many_cells():
    cells = {("A", -1): sparse.csr_matrix(np.arange(12.0).reshape(4, 3)), ("B", 1): np.ones((2, 3))}
    plain = pd.Series([1.0, 0, 0], list("xyz"))
    whole = drawn_changes(cells, plain, 99)
    np.testing.assert_allclose(whole, [[3.5, 5.5, 6.5], [0, 1, 1]])
    assert whole.index.tolist() == [("A", -1), ("B", 1)] and whole.columns.tolist() == list("xyz")
    one = drawn_changes(cells, plain, 1, seed=3).loc[("A", -1)] + plain
    assert one.tolist() in np.arange(12.0).reshape(4, 3).tolist()


def test_mean_effects_subtract_controls_of_the_same_replicate():
    screen = simulate_screen(n_genes=32, n_targets=4, n_cells=900)
    log1p = log1p_counts(screen.X, 100.0)
    effects = mean_effects(log1p, screen.obs, screen.var_names)
    target, sign = effects.index[1]
    expected, n = np.zeros(32), 0
    for batch in screen.obs["batch"].cat.categories:
        here = (screen.obs["batch"] == batch).to_numpy()
        own = here & ((screen.obs["target_gene"] == target) & (screen.obs["sign"] == sign)).to_numpy()
        change = gene_means(log1p[own]) - gene_means(log1p[here & (screen.obs["sign"] == 0).to_numpy()])
        expected, n = expected + change * own.sum(), n + own.sum()
    np.testing.assert_allclose(effects.iloc[1], expected / n, atol=1e-6)
    planted = screen.uns["truth"]["perturbations"]
    assert len(effects) == len(planted)
