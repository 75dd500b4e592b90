"""What notebook 06 says of scores is what the scores say, whichever side wins."""

import json

import numpy as np
import pandas as pd
import pytest

from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.figures import over_real, plots, scored, side_by_side, standings
from cdt_lite.teaching import (
    all_scores,
    averages,
    benchmark_summary,
    benchmark_table,
    beside,
    explain_failure,
    flattered,
    formatted,
    furthest,
    held_out,
    judgeable,
    leaders,
    plates,
    real_cells_score,
    right_way,
    shown_before,
    silence,
    told_apart,
    verdicts,
)
from cdt_lite.teaching.held_out import HeldOut

GENES = [f"G{i}" for i in range(12)]


def table(**methods):
    """Scores of some methods on perturbations T0, T1, ...: name -> (values of r, values of the error)."""
    rows = []
    for name, (r, error) in methods.items():
        for i, (a, b) in enumerate(zip(r, error, strict=True)):
            rows.append({"asked": "never seen", "method": name.replace("_", " "), "target": f"T{i}", "sign": -1,
                         "n_real": 100, "pearson_delta": a, "mae": b})
    return pd.DataFrame(rows)


def judged(capsule, rival=((np.nan,) * 4, (np.nan,) * 4)):
    """T0 to T2 can be judged (half against half .9), T3 not; silence errs .10, half against half .02."""
    none, half = ((np.nan,) * 4, (0.1,) * 4), ((0.9, 0.9, 0.9, 0.1), (0.02,) * 4)
    return verdicts(table(control=none, ceiling=half, capsule=capsule, rival=rival), ["capsule", "rival"])


def test_the_verdict_asks_for_direction_and_for_size():
    found = judged(((0.8, 0.8, 0.3, 0.8), (0.04, 0.09, 0.04, 0.04)))["capsule"].tolist()
    assert found == ["yes", "direction only", "no", "cannot be judged"]
    r, error = (0.721, 0.719, 0.9, 0.9), (0.0599, 0.06, 0.0601, 0.02)  # beside 0.8 x 0.9, and half of 0.08 removed
    edge = judged((r, error))["capsule"].tolist()
    assert edge == ["yes", "no", "direction only", "cannot be judged"]
    assert judged(((0.8,) * 4, (0.04,) * 4))["rival"].tolist() == [""] * 4


@pytest.mark.parametrize(("ours", "theirs", "said"), [
    ((0.9, 0.1, 0.1), (0.9, 0.1, 0.1), "saves the same."),
    ((0.9, 0.1, 0.1), (0.1, 0.1, 0.1), "saves none of T0."),
    ((0.9, 0.1, 0.1), (0.9, 0.9, 0.1), "saves the same and T1 beside."),
    ((0.9, 0.1, 0.1), (0.1, 0.9, 0.1), "saves none of T0 and T1 beside."),
    ((0.1, 0.1, 0.1), (0.1, 0.9, 0.9), "saves T1 and T2."),
    ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1), "saves none, either.")])
def test_plates_are_saved_by_whom_the_verdicts_say(ours, theirs, said):
    one, other = (((*r, 0.9), (0.03,) * 4) for r in (ours, theirs))
    sentence = plates(judged(one, other), "capsule", ["rival"])
    assert sentence.endswith(said) and "T3 cannot be judged" in sentence
    saved = "a plate for T0" if ours[0] > 0.5 else "no plate"
    assert sentence.startswith(f"The capsule could save {saved};")


def test_a_target_with_two_signs_is_named_with_its_sign():
    scores = table(control=([np.nan], [0.1]), ceiling=([0.9], [0.0]), capsule=([0.9], [0.0]))
    both = pd.concat([scores, scores.assign(sign=1)])
    assert "T0 -1 and T0 +1" in plates(verdicts(both, ["capsule"]), "capsule", ["capsule"])


def test_who_cannot_be_judged_is_named():
    some = judged(((0.8,) * 4, (0.04,) * 4))
    assert judgeable(some).startswith("In 3 of 4 perturbations") and judgeable(some).endswith("; not in T3.")
    assert judgeable(some.iloc[:3]).endswith(", all of them.")


def changes(rows, names=("A", "B")):
    return pd.DataFrame(rows, pd.MultiIndex.from_tuples([(name, -1) for name in names], names=["target", "sign"]),
                        GENES)


def test_genes_that_go_the_right_way_are_counted_among_the_largest():
    rows = np.tile(np.arange(1.0, 13.0), (2, 1))
    real, there = changes(rows), changes(rows, "CD")
    wrong = real.copy()
    wrong.iloc[0, -3:] *= -1
    wrong.iloc[1, :9] *= -1
    nothing = {"here": 0.0004 * real, "there": -there}  # a change of 0.00 goes no way
    said = right_way({"here": real, "there": there}, {"here": wrong, "there": 0.1 * there}, nothing, n=3)
    assert "moves 1.5 (here) and 3.0 (there) the right way; what others do on average moves 0.0 and 0.0." in said
    assert said.endswith("Most for B -1, C -1 and D -1 (3), fewest for A -1 (0).")


def test_answers_as_good_as_a_methods_are_told_from_those_behind():
    scores = pd.Series({"capsule": 0.50, "control": np.nan, "near": 0.48, "better": 0.9, "far": 0.1})
    assert told_apart(scores, "capsule", "r") == (
        "By r the capsule has 0.50; as good, or nearly: better (0.90) and near (0.48); behind: far (0.10); "
        "without a score: no change.")
    errors = told_apart(scores.drop(["control", "near"]), "capsule", "the error", higher_is_better=False)
    assert errors.endswith("as good, or nearly: far (0.100); behind: better (0.900).")
    assert "no other is as good" in told_apart(scores[["capsule", "far"]], "capsule", "r")


def test_silence_and_leaders_count_perturbations():
    scores = table(control=([np.nan] * 3, [0.1, 0.2, 0.3]), capsule=([0.5, 0.6, 0.1], [0.05, 0.25, 0.35]),
                   rival=([0.4, 0.7, 0.2], [0.2, 0.1, 0.1]))
    assert silence(scores, ["capsule", "rival"]) == \
        "No change errs less than the capsule for 2 of 3 and than the rival for 1 of 3 perturbations."
    assert leaders(scores, ["capsule", "rival"]) == "rival (2) and capsule (1)"
    assert leaders(scores, ["capsule", "control"], "mae") == "no change (2) and capsule (1)"
    scores.loc[scores["method"] == "capsule", "mae"] = [0.0502, 0.2001, 0.35]
    scores.loc[scores["method"] == "rival", "mae"] = [0.0501, 0.2002, 0.1]
    assert leaders(scores, ["capsule", "rival"], "mae") == "a tie (2) and rival (1)"  # as both are written


@pytest.mark.parametrize(("gains", "moral"), [
    ((0.05, 0.02), "whatever the method knows"), ((0.0, -0.05), "do not flatter here"), ((0.05, 0.0), "depends"),
    ((0.02, 0.01), "they flatter little")])
def test_what_shared_controls_add_is_said(gains, moral):
    scores = table(one=([0.2, 0.4], [0, 0]), two=([0.2, 0.4], [0, 0]))
    gain = np.repeat(gains, 2)
    assert moral in flattered(scores.assign(pearson_delta_shared=scores["pearson_delta"] + gain), ["one", "two"])


def test_who_passes_half_against_half_is_named():
    scores = table(ceiling=([0.5], [0]), copy=([0.9], [0]), capsule=([0.6], [0]), rival=([0.4], [0]))
    said = real_cells_score(scores, "copy")
    assert "r = 0.90: nobody gets there" in said and "would have 0.50" in said
    assert said.endswith("the capsule (0.60) passes it.")
    assert real_cells_score(scores[scores["method"] != "capsule"], "copy").endswith("nobody passes it.")


def test_the_failure_is_the_largest_gap_of_those_that_can_be_judged():
    assert furthest(judged(((0.8, 0.2, 0.5, -0.9), (0.04,) * 4)), "capsule") == ("T1", -1)


@pytest.mark.parametrize(("like", "r", "said"), [
    (1.0, 0.99, "of B (r = 1.00): it could have been told from that, and its direction was (r = 0.99)."),
    (1.0, 0.20, "of B (r = 1.00): it could have been told from that, and its direction was not (r = 0.20)."),
    (0.0, 0.20, "nothing in training showed it (prediction: r = 0.20).")])
def test_what_training_held_is_said_beside_the_prediction(like, r, said):
    rng = np.random.default_rng(0)
    change = pd.Series(rng.normal(size=12), GENES)
    trained = changes([change, like * change + (1 - like) * rng.normal(size=12)])  # its own effect, A, is no answer
    assert shown_before(("A", -1), change, trained, r).endswith(said)


def record(tmp_path, capsule, state):
    """A file of results in which the capsule and STATE have these scores (r and error), all others middling ones."""
    names = ["capsule, change", "capsule", "table alone", "scgen", "state, change", "state", "replicate mean",
             "perturbed mean", "control"]
    summary = {}
    for name in names:
        r, error = {"capsule, change": capsule, "state, change": state}.get(name, (0.4, 0.03))
        around = {"pearson_delta": r, "systema_pearson": r, "discrimination_score_l1": r, "mae": error}
        summary[name] = {metric: [value, value - 0.001, value + 0.001, 7] for metric, value in around.items()}
    summary["control"]["pearson_delta"] = [None, None, None, 0]
    path = tmp_path / "results.json"
    minus = {}
    for name in names[2:]:
        ours, theirs = summary[names[0]], summary[name]
        minus[name] = {metric: [ours[metric][0] - theirs[metric][0] + by if theirs[metric][0] is not None else None
                                for by in (0, -0.001, 0.001)] + [7] for metric in around}
    found = {"summary": summary, "capsule, change, minus": minus}
    path.write_text(json.dumps({"papalexi2021": {"tasks": {"task 1": {"groups": {"all": found}}}}}))
    return path


def test_the_field_is_led_by_whom_the_record_says(tmp_path):
    assert benchmark_summary(benchmark_table(tmp_path / "none.json")).startswith("figures/results.json is not here")
    ours = benchmark_summary(benchmark_table(record(tmp_path, (0.9, 0.01), (0.1, 0.08))))
    assert ours.count("the capsule (mean) leads") == 4 and ours.count("; surely before the") == 4
    assert ours.endswith("More error than no change: STATE.")
    theirs = benchmark_summary(benchmark_table(record(tmp_path, (0.1, 0.08), (0.9, 0.01))))
    assert theirs.count("the STATE leads") == 4 and theirs.count("; surely before the capsule (mean))") == 4
    assert theirs.endswith("More error than no change: capsule (mean).")
    level = benchmark_summary(benchmark_table(record(tmp_path, (0.4005, 0.03), (0.4, 0.03))))
    assert "Pearson's r the capsule (mean) leads (0.40; not surely before" in level


def test_the_written_field_shows_value_and_interval(tmp_path):
    shown = formatted(benchmark_table(record(tmp_path, (0.9, 0.0123), (0.1, 0.08))))
    assert shown.shape == (9, 4) and shown.loc["no change", "Pearson's r"] == ""
    r, error = "0.90 [0.90, 0.90]", "0.012 [0.011, 0.013]"
    assert shown.loc["capsule (mean)"].tolist() == [r, error, r, r]


def test_a_rival_that_answers_some_alone_is_said_to():
    scores = table(capsule=([0.5, 0.6, 0.1], [0] * 3), rival=([0.4, 0.7, np.nan], [0] * 3))
    assert "(0.55 over the 2 that it answers; difference" in beside(scores, "capsule", ["rival"])


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=64, n_targets=12, n_cells=2400, design=ScreenDesign(unmeasured_fraction=0.25))


def questions_of(screen):
    """The screen's own cells, split here: two replicates to learn from, the last to be asked about."""
    last = (screen.obs["batch"] == "rep_3").to_numpy()
    control = (screen.obs["sign"] == 0).to_numpy()
    train, test = screen[~last | control].copy(), screen[last].copy()
    plain = test[(test.obs["sign"] == 0).to_numpy()]
    return HeldOut("rep_3", train, test, plain[::2].copy(), plain[1::2].copy())


def test_what_was_planted_is_said(screen):
    planted = screen.uns["truth"]["perturbations"]
    row = planted[planted["gain"] != 0].iloc[0]
    name = (row["target_gene"], int(row["sign"]))
    said = explain_failure(name, screen, [])
    assert said == f"The truth: {name[0]} drives {row['program']}; no target in training does."
    null = planted[planted["gain"] == 0].iloc[0]
    assert "planted to do nothing" in explain_failure((null["target_gene"], int(null["sign"])), screen, [])


def test_changes_take_their_controls_from_the_replicates_of_the_cells(screen):
    found = questions_of(screen)
    (target, sign), change = next(found.trained.iterrows())
    cells = found.train[((found.train.obs["target_gene"] == target) & (found.train.obs["sign"] == sign)).to_numpy()]
    plain = found.train[(found.train.obs["sign"] == 0).to_numpy()]
    plain = plain[~plain.obs_names.isin(found.truth.obs_names)]
    share = cells.obs["batch"].astype(str).value_counts(normalize=True)
    expected = sum(part * found.mean(plain[(plain.obs["batch"] == name).to_numpy()]) for name, part in share.items())
    np.testing.assert_allclose(change, found.mean(cells) - expected, atol=1e-5)


def test_targets_never_seen_are_asked_about_in_all_replicates():
    shipped = simulate_screen()
    seen, unseen = held_out(shipped), held_out(shipped, "unseen")
    assert seen.test.obs["batch"].nunique() == 1 and unseen.test.obs["batch"].nunique() == 3
    targets = set(unseen.changes.index.get_level_values(0))
    assert targets and not targets & set(unseen.train.obs["target_gene"])
    assert set(seen.changes.index) <= set(seen.trained.index)


def test_figures_draw_the_scores_that_were_given(screen):
    found = questions_of(screen)
    guess = {"seen": 0.5 * found.changes}
    scores = all_scores({"seen": found}, guess)
    drawn = scored(pd.concat([scores, scores.assign(asked="again")]), ["control", "capsule", "ceiling"])
    assert {"seen", "again"} <= {text.get_text() for text in drawn.axes[1].texts}
    drawn = scored(scores, ["control", "capsule", "ceiling"])
    assert [text.get_text() for text in drawn.axes[0].get_xticklabels()] == ["capsule", "half against half"]
    assert drawn.axes[1].get_xticklabels()[0].get_text() == "no change"
    means = averages(scores, ["capsule", "replicate mean", "ceiling"])
    lines = standings(means).axes[0].get_lines()
    assert [lines[0].get_xdata()[0], lines[1].get_xdata()[0]] == pytest.approx(means.iloc[0][["low", "mean"]].tolist())
    assert lines[0].get_color() == plots.KINDS["generated"] and lines[2].get_color() == plots.KINDS["baseline"]
    left, right = side_by_side({"seen": found.changes}, guess).axes[:2]
    real, halved = (ax.collections[0].get_array() for ax in (left, right))
    np.testing.assert_allclose(np.ma.filled(real, np.nan) / 2, np.ma.filled(halved, np.nan), atol=1e-6)
    assert np.nanmax(np.abs(np.ma.filled(real, np.nan))) == pytest.approx(1)
    ax = over_real(found.changes, guess["seen"], [found.strongest]).axes[0]
    assert ax.get_xlim() == ax.get_ylim()
