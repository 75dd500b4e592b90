"""What lessons say is what the numbers say, whichever side wins."""

import numpy as np
import pandas as pd
import pytest

from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.evaluation import differential_expression
from cdt_lite.teaching import (
    apart,
    beside,
    differences_of_controls,
    dud_guides,
    explained,
    explains,
    guides_of,
    held_out,
    in_short,
    levels,
    listed,
    moved,
    tipped,
    what_it_does,
)
from cdt_lite.teaching.lesson import Lesson
from cdt_lite.teaching.sentences import number


def scores(gap, n=12, spread=0.05, metric="pearson_delta", rival="replicate mean"):
    """A table in which the capsule is ahead of its rival by a gap."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.3, 0.6, n)
    ours = values + gap + spread * rng.normal(size=n)
    names = [f"T{i}" for i in range(n)]
    tables = [pd.DataFrame({"method": method, "target": names, "sign": -1, metric: column})
              for method, column in (("capsule", ours), (rival, values))]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=64, n_targets=12, n_cells=2400, design=ScreenDesign(unmeasured_fraction=0.25))


@pytest.mark.parametrize(("gap", "metric", "said"), [
    (0.2, "pearson_delta", "better than"), (-0.2, "pearson_delta", "worse than"), (0.0, "pearson_delta", "level with"),
    (0.2, "mae", "worse than"), (-0.2, "mae", "better than"), (0.0, "mae", "level with")])
@pytest.mark.parametrize("n", [1, 12])
def test_the_side_that_wins_is_named_whatever_is_the_better_direction(gap, metric, said, n):
    spread = 0.05 if n > 1 else 0.0
    sentence = beside(scores(gap, n, spread, metric), "capsule", ["replicate mean"], metric)
    assert f". {said.capitalize()} the replicate mean (" in sentence
    assert sentence.startswith("Over 12 held-out perturbations" if n > 1 else "For T0,")
    assert ("difference" in sentence) == (n > 1)  # of one there is no interval


@pytest.mark.parametrize(("gap", "metric", "said"), [
    (-0.006, "mae", "Better than"), (-0.001, "mae", "Level with"), (-0.006, "pearson_delta", "Level with")])
def test_of_one_perturbation_a_small_gap_is_one_of_errors_and_none_of_r(gap, metric, said):
    sentence = beside(scores(gap, 1, 0.0, metric), "capsule", ["replicate mean"], metric)
    assert f". {said} the replicate mean (" in sentence


def test_numbers_of_the_sentence_are_those_of_the_table():
    table = scores(0.1)
    means = table.groupby("method")["pearson_delta"].mean()
    sentence = beside(table, "capsule", ["replicate mean"])
    assert f"is {means['capsule']:.2f} [" in sentence and f"({means['replicate mean']:.2f};" in sentence
    assert f"difference {means['capsule'] - means['replicate mean']:.2f} [" in sentence


def test_a_rival_without_a_score_is_passed_over():
    table = scores(0.1, rival="control")
    table.loc[table["method"] == "control", "pearson_delta"] = np.nan
    both = pd.concat([table, scores(0.1)[lambda t: t["method"] != "capsule"]])
    assert "no change" not in beside(both, "capsule", ["control", "replicate mean"])


def test_what_moves_is_counted_and_what_goes_wrong_is_named():
    real = pd.Series({"STAT1": -1.0, "PSMB9": -0.8, "NFKBIA": 0.4})
    assert moved(real, real / 2) == ("Of these 3 genes 2 fall and 1 rise; all go the right way in the prediction, 50% "
                                     "as far on average.")
    wrong = moved(real, pd.Series({"STAT1": -1.0, "PSMB9": 0.8, "NFKBIA": -0.4}))
    assert "1 go the right way in the prediction, not so, or by less than 0.005, PSMB9 and NFKBIA, 100%" in wrong


def test_levels_are_shares_of_those_in_control_cells():
    means = pd.DataFrame({"control": [4.0, 2.0], "real": [1.0, 3.0], "generated": [2.0, 1.0]}, ["STAT1", "CD37"])
    assert levels(means, "IFNGR1") == ("IFNGR1 leaves STAT1 at 25% (generated: 50%) and CD37 at 150% (generated: 50%) "
                                       "of the level in control cells.")


@pytest.mark.parametrize(("value", "written"), [
    (0.5, "0.50"), (-0.25, "−0.25"), (0.0, "0.00"), (-0.004, "just below 0"), (0.00049, "just above 0"),
    (float("nan"), "undefined")])
def test_a_small_number_does_not_look_like_zero(value, written):
    assert number(value) == written


def test_lists():
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_a_sentence_is_shown_as_it_is_written(monkeypatch, screen):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    Lesson("00", "ci", "cpu", screen).say("SIM_1 < *SIM_2*:\n   $5")
    assert shown == [{"text/markdown": r"SIM\_1 &lt; \*SIM\_2\*: \$5", "text/plain": "SIM_1 < *SIM_2*: $5"}]


def test_held_out_cells_are_of_one_replicate_and_share_none_with_training_or_among_controls(screen):
    found = held_out(screen)
    assert set(found.test.obs["batch"]) == {found.replicate}
    halves = set(found.truth.obs_names), set(found.shown.obs_names)
    assert not halves[0] & halves[1] and halves[0] | halves[1] == set(
        found.test.obs_names[found.test.obs["sign"] == 0])
    perturbed = found.test.obs_names[found.test.obs["sign"] != 0]
    assert not set(perturbed) & set(found.train.obs_names)


def test_changes_are_means_of_log1p_minus_those_of_the_truths_controls(screen):
    found = held_out(screen)
    log1p = {}
    name = found.strongest
    for kind, cells in (("real", found.cells(*name)), ("control", found.truth)):
        counts = cells.X.toarray()
        log1p[kind] = np.log1p(counts / counts.sum(1, keepdims=True) * found.depth).mean(0)
    np.testing.assert_allclose(found.changes.loc[name], log1p["real"] - log1p["control"], atol=1e-5)
    size = np.sqrt((found.changes**2).sum(1))
    assert size[name] > size.median()


def test_a_simulated_gene_does_what_was_planted_and_a_real_one_what_is_known(screen):
    truth = screen.uns["truth"]
    for i in np.flatnonzero(np.abs(truth["loadings"]).sum(1))[:5]:
        program = np.abs(truth["loadings"][i]).argmax()
        word = "rises" if truth["loadings"][i, program] > 0 else "falls"
        assert what_it_does(truth["genes"][i], screen) == f"{word} with {truth['programs'][program]}"
    background = truth["genes"][(truth["loadings"] == 0).all(1)][0]
    assert what_it_does(background, screen) == "" and what_it_does("SIM99999", screen) == "not measured"
    real = screen.copy()
    del real.uns["truth"]
    assert "interferon gamma" in what_it_does("IFNGR1", real) and what_it_does("AAK1", real) == ""


def test_what_explains_a_component_is_named_and_what_explains_nothing_is_not_praised():
    shares = pd.DataFrame({"PC1": [0.4, 0.1], "PC2": [0.01, 0.03]}, ["IFNGR1", "depth"])
    assert explains(shares) == ("Of IFNGR1 and depth, IFNGR1 explains the largest part of PC1 (40% of its variance) "
                                "and none of them explains PC2 (at most 3%).")


def test_a_share_of_variance_is_one_between_constant_groups_and_near_zero_between_random_ones():
    values = pd.Series(np.random.default_rng(0).normal(size=4000))
    assert explained(pd.Series([1.0, 1, 5, 5]), pd.Series(list("aabb"))) == pytest.approx(1)
    assert explained(values, pd.Series(np.arange(4000) % 2)) < 0.01


@pytest.mark.parametrize(("before", "after", "moral"), [
    ((66, 33), (30, 42), "switches them off"),
    ((66, 33), (38, 42), "28 of the genes that rose did so by arithmetic"),
    ((20, 33), (20, 33), "composition moves little"),
    ((20, 33), (21, 30), "composition moves little"),
])
def test_composition_is_blamed_only_for_what_it_did(before, after, moral):
    assert moral in tipped(["STAT1"], before, after)


def test_replicates_are_apart_only_beyond_noise():
    assert "would add 55% of that" in apart(0.017, 0.03, 0.055, "IFNGR1")
    assert "would do as well" in apart(0.03, 0.03, 0.055, "IFNGR1")


def test_duds_are_counted_and_named():
    table = pd.DataFrame({"guide": ["Ag1", "Ag2", "Ag3"], "dud": [True, False, False]})
    said = dud_guides("A", ["Ag1"], table)
    assert said.startswith("Of A, Ag1 failed by your rule.") and "1 guides of 3" in said and said.endswith(": Ag1.")
    assert "no guide failed" in dud_guides("A", [], table.assign(dud=False))


def test_the_guides_that_a_simulated_screen_is_dealt_fail_as_planted(screen):
    guide = guides_of(screen)
    assert screen.obs["escaped"][guide.str.endswith("g4")].all()
    assert not screen.obs["escaped"][guide.str.endswith(("g1", "g2", "g3"))].any()
    assert guide[screen.obs["sign"] != 0].groupby(screen.obs["perturbation"], observed=True).nunique().max() == 4
    real = screen.copy()
    real.obs["guide"] = "own"
    assert set(guides_of(real)) == {"own"}


def test_halves_of_one_replicate_differ_by_noise_and_a_shift_between_replicates_is_found():
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(400, 50))
    cells[200:] += 0.5
    gaps = differences_of_controls(cells, np.repeat(["a", "b"], 200))
    assert gaps.loc["a", "b"] == pytest.approx(0.5, abs=0.1) and max(gaps.loc["a", "a"], gaps.loc["b", "b"]) < 0.15


def test_genes_that_rise_and_fall_are_counted_by_their_sign():
    rng = np.random.default_rng(0)
    control, cells = rng.gamma(2, 1, size=(2, 300, 6))
    cells[:, :2] += 3
    cells[:, 2] = 0
    assert differential_expression(cells, control).risen_and_fallen() == (2, 1)


@pytest.mark.parametrize(("direction", "error", "said"), [
    (0.2, -0.2, "yes. Which genes move, and which way, it tells better; how far, better."),
    (-0.2, 0.2, "no. Which genes move, and which way, it tells less well; how far, less well."),
    (-0.2, -0.2, "neither better nor worse. Which genes move, and which way, it tells less well; how far, better."),
    (0.0, -0.2, "yes. Which genes move, and which way, it tells not surely better or worse; how far, better.")])
def test_the_short_answer_follows_both_scores(direction, error, said):
    table = scores(direction).assign(mae=scores(error, metric="mae")["mae"])
    assert in_short(table, "capsule", "replicate mean") == f"In short, beside the replicate mean: {said}"
