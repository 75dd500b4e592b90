"""What is known of a target by its relatives: the rule, the sets dealt anew, and the sentences on both."""

import numpy as np
import pandas as pd
import pytest
from helpers import tiny

from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.teaching import by_sets, every_target, relatives_of, sets_of, sets_used, told_by_relatives
from cdt_lite.teaching.check import find
from cdt_lite.teaching.held_out import held_out
from cdt_lite.teaching.relatives import EXPRESSION, KRIGED, RULE, by_rule, dealt_anew, measured
from cdt_lite.training.effects import fitted
from cdt_lite.training.start import start


def capsule_of(screen):
    new = start(tiny("lite", n_total_genes=200), screen)
    new.vocabulary = new.vocabulary.extended(sorted(set(screen.obs["target_gene"]) - {"non-targeting"}))
    return new


@pytest.fixture(scope="module")
def screen():
    design = ScreenDesign(unmeasured_fraction=0.25, null_fraction=0.1)
    return simulate_screen(n_genes=64, n_targets=12, n_cells=2400, design=design)


@pytest.fixture(scope="module")
def found(screen):
    return every_target(screen)


@pytest.fixture(scope="module")
def guesses(screen, found):
    return by_sets(found, capsule_of(screen), sets_of(screen), find("5.4").reference, n=2)


def test_every_target_is_there_but_no_held_out_cell(screen, found):
    side = named_split(screen)
    assert set(found.test.obs_names) == set(screen.obs_names[side != "held_out"])
    assert set(found.train.obs_names) == set(screen.obs_names[side == "train"])
    asked = screen.obs[(side != "held_out") & (screen.obs["sign"] != 0)]
    assert set(found.changes.index) == set(zip(asked["target_gene"], asked["sign"], strict=True))


def test_rules_see_training_targets_alone_against_controls_that_the_truth_does_not_subtract(screen, found):
    seen, unseen = measured(found), set(screen.obs["target_gene"][named_split(screen) == "unseen"])
    assert unseen and not unseen & set(seen.index.unique(0))
    name = seen.index[0]
    gap = found.changes.loc[name] - seen.loc[name]
    obs, wanted = found.train.obs, 0
    own = obs["batch"][(obs["target_gene"] == name[0]) & (obs["sign"] == name[1])].astype(str)
    for batch, share in own.value_counts(normalize=True).items():  # controls are mixed as the cells are
        here = [half[(half.obs["batch"] == batch).to_numpy()] for half in (found.shown, found.truth)]
        wanted = wanted + share * (found.mean(here[0]) - found.mean(here[1]))
    np.testing.assert_allclose(gap, wanted, atol=1e-5)
    shown = []
    by_rule(found, lambda target, changes: shown.append((target, set(changes.index))) or np.zeros(changes.shape[1]))
    ways = {sign: set(seen.xs(sign, level="sign").index) for sign in (-1, 1)}
    assert [names for _, names in shown] == [ways[sign] for _, sign in found.changes.index]


def test_sets_dealt_anew_are_as_many_and_as_large_and_other_genes_keep_their_place():
    sets = {"a": frozenset("ABx"), "b": frozenset("CDEy")}
    anew = [dealt_anew(sets, list("ABCDE"), seed) for seed in range(5)]
    for dealt in anew:
        assert {name: len(genes) for name, genes in dealt.items()} == {"a": 3, "b": 4}
        assert "x" in dealt["a"] and "y" in dealt["b"]
        assert sorted(dealt["a"] | dealt["b"]) == sorted("ABCDExy")
    assert any(dealt != sets for dealt in anew)


def test_a_real_screen_has_its_sets_and_one_without_has_none(screen):
    assert set(sets_of(screen)) and all(len(genes) for genes in sets_of(screen).values())
    real = screen.copy()
    del real.uns["truth"]
    assert sets_of(real) == {}


def test_what_kriging_says_of_a_target_is_the_formula_without_its_own_rows(screen, found, guesses):
    capsule, (target, sign) = capsule_of(screen), measured(found).index[0]
    kept = found.train[~found.train.obs_names.isin(found.truth.obs_names)].copy()
    kriging, genes = fitted(TokenStore.from_adata(kept, capsule.tokenizer, capsule.vocabulary), capsule.tokenizer)
    row = int(np.searchsorted(genes, capsule.vocabulary.id(target)))
    m, others = kriging.measured, kriging.measured.gene != row
    total = (kriging.prior(m.gene, m.sign, kriging.parameters) + kriging.noise)[np.ix_(others, others)]
    own = kriging.prior(np.array([row]), np.array([sign]), kriging.parameters)[0, others]
    wanted = own @ np.linalg.solve(total, m.effect[others])
    assert not others.all()
    np.testing.assert_allclose(guesses[EXPRESSION].loc[target, sign], wanted, atol=1e-8)


def test_true_sets_tell_more_of_planted_effects_than_none(found, guesses):
    real = found.changes
    r = {name: np.mean([np.corrcoef(real.loc[key], table.loc[key])[0, 1] for key in real.index])
         for name, table in guesses.items()}
    assert r[RULE] > r["mean of all"] and r[KRIGED] > r["mean of all"]
    assert set(guesses) == {RULE, KRIGED, "mean of all", EXPRESSION, *(f"{x}, dealt anew {i}" for i in range(2)
                                                                       for x in (RULE, KRIGED))}


@pytest.mark.parametrize(("sets", "anew", "said"), [
    (1.0, 0.0, "made use of the sets; of 2 collections dealt anew it made use of 0"),
    (0.0, 1.0, "kept to co-expression, to which the sets added nothing; of 2 collections dealt anew it made use of 2: "
               "that it uses sets does not say that they are right")])
def test_the_gate_says_which_sets_were_used(sets, anew, said):
    table = pd.DataFrame({"g": [1.0]})
    guesses = {EXPRESSION: table, KRIGED: table + sets, f"{KRIGED}, dealt anew 0": table + anew,
               f"{KRIGED}, dealt anew 1": table - anew, RULE: table, f"{RULE}, dealt anew 0": table + 5}
    assert sets_used(guesses) == f"The likelihood {said}."


def test_wins_are_counted_on_both_sides():
    r = pd.DataFrame({"m": [0.9, 0.1], "rival": [0.5, 0.4], "m, dealt anew 0": [0.2, 0.9],
                      "m, dealt anew 1": [0.4, 0.7], "other, dealt anew 0": [1.0, 1.0]}, ["JAK2", "SMAD4"])
    assert told_by_relatives(r, "m", "rival") == (
        "r of the m (of the rival; with sets dealt anew): JAK2 0.90 (0.50; 0.30) and SMAD4 0.10 (0.40; 0.80). It is "
        "better than the rival for 1 of 2, and than with sets dealt anew for 1.")


def test_relatives_are_named_those_of_most_sets_first(screen, found):
    one, other = measured(found).index.unique(0)[:2]
    sets = {"a": frozenset([one, "X"]), "b": frozenset([one, other, "X"])}
    assert relatives_of(["X", "Y"], sets, found) == (
        f"Training targets that share sets, with the smallest set. X: {one} (a, 2 genes), {other} (b, 3 genes); "
        "Y: none.")
    assert held_out(screen).replicate != found.replicate
