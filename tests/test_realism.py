"""What notebook 07 measures is what was planted, and what it says is what the numbers say, whichever side wins."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from cdt_lite import evaluation, teaching, training
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.figures import likeness, plots
from cdt_lite.teaching.check import find
from cdt_lite.teaching.realism import HALF, RIVAL

escape_shares = find("7.3").reference
agreement = find("7.2").reference


def cells(seed, n, rate):
    return np.random.default_rng(seed).poisson(rate, (n, 30)).astype(np.float32)


def log1p(counts):
    return np.log1p(counts)


def ends(real, made, alone, width=0.05):
    """A table such as that of `against_half`."""
    means = pd.Series({HALF: real, "generated": made, RIVAL: alone})
    return pd.DataFrame({"mean": means, "low": means - width, "high": means + width})


@pytest.fixture(scope="module")
def found():
    return teaching.held_out(simulate_screen())


def test_cells_are_paired_with_others_of_like_depth_and_none_twice():
    rng = np.random.default_rng(0)
    a, b = (AnnData(rng.poisson(rate, (n, 20)).astype(np.float32)) for n, rate in ((60, 5), (90, 6)))
    first, second = teaching.same_depth(a, b)
    assert 30 < first.n_obs == second.n_obs
    assert len(set(first.obs_names)) == len(first) and len(set(second.obs_names)) == len(second)
    ratio = first.X.sum(1) / second.X.sum(1)
    assert ratio.max() <= 1.1 + 1e-6 and ratio.min() >= 1 / 1.1 - 1e-6


def test_components_are_those_of_real_cells_whatever_the_generated_ones_are():
    real, control = (AnnData(cells(seed, 40, 5)) for seed in (0, 1))
    placed = [teaching.components({"control": control, "real": real, "generated": AnnData(cells(2, 20, rate))}, 100.0)
              for rate in (5, np.arange(1, 31))]
    for kind in ("control", "real"):
        one, two = (table.loc[table["kind"] == kind, ["x", "y"]].to_numpy() for table in placed)
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_half_against_half_is_chance_and_others_stand_in_the_place_of_the_other_half():
    real, alike, off = log1p(cells(0, 120, 4)), log1p(cells(1, 120, 4)), log1p(cells(2, 50, 6))
    table = teaching.against_half(evaluation.energy_distance, real, {"generated": alike, "gene by gene": off}, 8)
    assert abs(table["mean"][HALF]) < 0.1 and abs(table["mean"]["generated"]) < 0.1 < table["mean"][RIVAL]
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    sizes = teaching.against_half(lambda a, b: float(len(a) == len(b) == 50), real, {"generated": off}, 2)
    assert (sizes["mean"] == 1).all()


def test_strength_is_1_for_the_same_cells_and_less_where_correlations_are_weaker():
    rng = np.random.default_rng(0)
    program, noise = rng.normal(size=(400, 1)), rng.normal(size=(2, 400, 6))
    strong, weak = program + noise[0], 0.5 * program + noise[1]
    strong[:, 5] = weak[:, 5] = 0  # a gene without a count
    assert teaching.strength(strong, strong) == pytest.approx(1)
    assert teaching.strength(strong, weak) == pytest.approx(0.2 / 0.5, abs=0.1)  # r of two genes: 1/5 and 1/2
    assert agreement(strong, weak) > 0.85  # which does not see it


@pytest.mark.parametrize("sign", [1, -1])  # whichever direction is better
def test_the_way_is_0_for_the_rival_and_1_for_real_cells(sign):
    table = ends(0.5 * sign, 0.4 * sign, 0.1 * sign)
    assert teaching.normalised(table)["mean"] == pytest.approx(0.75)
    assert [teaching.normalised(table, name)["mean"] for name in (HALF, RIVAL)] == pytest.approx([1, 0])
    assert teaching.normalised(table)[["low", "high"]].tolist() == pytest.approx([0.625, 0.875])


def test_within_classes_of_depth_a_score_that_reads_depth_alone_is_worth_nothing():
    rng = np.random.default_rng(0)
    depth = rng.integers(5, size=600)
    is_made = rng.random(600) < 0.2 + 0.15 * depth
    noise = 0.01 * rng.normal(size=600)
    assert teaching.auc_in_classes(depth + noise, is_made, depth) == pytest.approx(0.5, abs=0.06)
    assert teaching.auc_in_classes(is_made + noise, is_made, depth) == 1


def test_mixing_is_1_for_the_same_cloud_and_0_for_clouds_apart():
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(200, 5))
    assert teaching.mixing(cloud, rng.normal(size=(150, 5))) == pytest.approx(1, abs=0.1)
    assert teaching.mixing(cloud, cloud + 50) == 0


def test_scores_of_the_classifier_tell_what_its_area_tells():
    real, made = log1p(cells(0, 80, 4)), log1p(cells(1, 80, np.append([8.0] * 4, [4.0] * 26)))
    score = evaluation.two_sample_scores(real, made)
    above = (score[80:, None] > score[:80]).mean()
    assert above == pytest.approx(evaluation.two_sample_auc(real, made), abs=0.05) and above > 0.9


def test_cells_made_gene_by_gene_have_the_means_and_no_gene_knows_another(found):
    target, sign = found.strongest
    own = (found.train.obs["target_gene"] == target) & (found.train.obs["sign"] == sign)
    real = found.train[own.to_numpy()]
    made = teaching.gene_by_gene(training.load_capsule(simulate_screen()), found.train, real)
    assert (made.obs_names == real.obs_names).all() and (made.X >= 0).all()
    counts = real.X.toarray()
    assert np.corrcoef(counts.mean(0), made.X.mean(0))[0, 1] > 0.98
    rates = (made.X / made.obs["depth"].to_numpy()[:, None])[:, counts.mean(0) > 1]  # uneven depth joins counts
    together = np.corrcoef(rates, rowvar=False)[np.triu_indices(rates.shape[1], 1)]
    assert abs(together.mean()) < 0.02 and np.abs(together).mean() < 0.1


def test_answers_are_0_for_controls_and_escapees_and_near_1_for_cells_that_respond(found):
    real = found.cells(*found.strongest)
    score = teaching.answers(found, {"control": found.truth, "real": real, "shown": found.shown})
    escaped = real.obs["escaped"].to_numpy()
    assert abs(score["control"].mean()) < 1e-4 and abs(score["shown"].mean()) < 0.3
    assert score["real"][~escaped].mean() == pytest.approx(1, abs=0.4)
    assert score["real"][escaped].mean() < score["real"][~escaped].mean() - 0.4


def test_shares_have_intervals_that_hold_what_was_planted_and_all_is_the_mean_over_cells():
    rng = np.random.default_rng(0)
    guide = np.repeat(["Ag1", "Ag2"], [200, 100])
    escaped = rng.random(300) < np.where(guide == "Ag1", 0.1, 0.5)
    score = np.where(escaped, 0.0, 2.0) + 0.5 * rng.normal(size=300)
    table = teaching.shares_with_intervals(escape_shares, score, guide, 0.5 * rng.normal(size=200), 40)
    for name, planted in (("Ag1", 0.1), ("Ag2", 0.5)):
        assert table["low"][name] - 0.02 < planted < table["high"][name] + 0.02
    assert table["share"]["all"] == pytest.approx((2 * table["share"]["Ag1"] + table["share"]["Ag2"]) / 3)
    assert table["cells"].tolist() == [200, 100, 300]


def test_five_cells_that_all_escaped_do_not_make_a_certainty():
    rng = np.random.default_rng(0)
    guide = np.repeat(["Ag1", "Ag2"], [200, 5])
    score = np.r_[2 + 0.3 * rng.normal(size=200), 0.3 * rng.normal(size=5)]
    row = teaching.shares_with_intervals(escape_shares, score, guide, 0.3 * rng.normal(size=200), 20).loc["Ag2"]
    assert row["share"] > 0.95 and row["low"] < 0.65 and row["high"] == pytest.approx(1)


@pytest.mark.parametrize(("made", "said"), [
    (171.0, "these differ by less than a tenth"), (215.0, "deeper than real cells, and as deep as control cells"),
    (100.0, "less deep than real cells"), (300.0, "deeper than real cells")])
def test_depth(made, said):
    sentence = teaching.depths_told(171.0, made, 215.0, "JAK2")
    assert said in sentence and ("as deep as control" in sentence) == (made == 215)


@pytest.mark.parametrize(("fair", "said"), [
    ([0.5, 0.09], "like depth, nothing. Depth is enough to explain that genes differed (now p = 0.090), which"),
    ([0.01, 0.09], "like depth, depth (p = 0.010). Depth is enough to explain that genes differed"),
    ([0.5, 0.01], "like depth, genes (p = 0.010). Of nothing but depth itself"),
    ([0.5, 0.055], "like depth, nothing. Of nothing but depth itself")])  # 0.02 is not clearly less
def test_what_still_differs_among_cells_of_like_depth(fair, said):
    p = pd.DataFrame({"shuffled over all": [0.01, 0.02], "within depth classes": fair}, ["depth", "genes"])
    assert said in teaching.still_apart(p)


@pytest.mark.parametrize(("made", "alone", "said"), [
    (0.38, 0.1, "70% [48%, 92%] of the way from cells made gene by gene to real ones, surely short of them"),
    (0.47, 0.1, "92% [70%, 115%] of the way from cells made gene by gene to real ones, not surely short of them"),
    (0.05, 0.1, "no nearer to real cells than those made gene by gene"), (0.3, 0.48, "cannot even tell those made")])
def test_where_generated_cells_stand(made, alone, said):
    table = ends(0.5, made, alone)
    table.loc["generated", ["low", "high"]] = made - 0.09, made + 0.09
    assert said in teaching.between(table, "Agreement")


@pytest.mark.parametrize(("over_all", "fair", "area", "said"), [
    (0.001, 0.001, 0.6, "it tells them, and by more than depth"), (0.01, 0.4, 0.6, "depth is enough to explain that"),
    (0.3, 0.4, 0.6, "does not show that they are alike"), (0.3, 0.001, 0.4, "does not show that they are alike")])
def test_a_classifier_tells_or_does_not(over_all, fair, area, said):
    assert said in teaching.classifier_told(0.65, area, pd.Series([over_all, fair]))


@pytest.mark.parametrize(("inside", "n", "said"), [
    (0.4, 400, "more generated than real"), (0.02, 400, "fewer generated than real"), (0.4, 20, "do not tell"),
    (0.2, 400, "do not tell")])
def test_cells_answer_by_half_or_not_or_cannot_be_told(inside, n, said):
    def two_humps(share, n):
        kinds = np.arange(n) / n
        return np.where(kinds < share, 0.5, np.where(kinds < 0.5, 0.0, 1.0))

    made = two_humps(inside, n)
    sentence = teaching.valley_told({"control": np.zeros(9), "real": two_humps(0.2, n), "generated": made})
    assert said in sentence and f"{inside:.0%} of the generated" in sentence


def shares(**values):
    return pd.DataFrame({"cells": 100, "share": values, "low": {k: v - 0.08 for k, v in values.items()},
                         "high": {k: v + 0.08 for k, v in values.items()}})


def test_guides_differ_or_cannot_be_told_apart():
    assert "g4 50% [42%, 58%] escaped, of those with other guides 10%: a poor guide" in teaching.guides_told(
        shares(g1=0.1, g3=0.1, g4=0.5, all=0.2))
    assert "too few cells" in teaching.guides_told(shares(g1=0.1, g3=0.1, g4=0.15, all=0.12))


@pytest.mark.parametrize(("made", "width", "said"), [
    (0.0, 0.02, ": no."), (0.05, 0.06, ": too few, and perhaps none."), (0.12, 0.08, ": yes, but too few."),
    (0.28, 0.08, "neither too few nor too many can be shown"), (0.50, 0.08, ": yes, too many.")])
def test_whether_the_model_makes_escapees(made, width, said):
    own = pd.Series({"share": made, "low": made - width, "high": made + width})
    assert said in teaching.escapees_told(shares(real=0.3).loc["real"], own, "JAK2")


@pytest.mark.parametrize(("made", "idle", "said"), [(0.8, 0.95, "no worse than"), (0.98, 0.95, "nearly as well as"),
                                                    (0.98, 0.5, "neighbours do see")])
def test_a_model_that_does_nothing(made, idle, said):
    assert said in teaching.mixing_told(made, idle, "JAK2", "CD86")


def test_prices_ahead_level_and_behind():
    table = pd.DataFrame({"bits per gene": [0.93, 0.95, 0.93, 0.91], "model minus it": [0, -0.02, 0, 0.02],
                          "low": [0, -0.03, -0.01, 0.01], "high": [0, -0.01, 0.01, 0.03]}, ["model", "a", "b", "c"])
    said = teaching.densities_told(table)
    assert said.endswith("fewer than a (0.950); not told from b (0.930); more than c (0.910).")
    assert "No density" in teaching.densities_told(table[:0])


def test_densities_are_on_record_for_both_screens_and_for_no_other():
    screen = simulate_screen(n_genes=40, n_targets=4, n_cells=400)
    assert "negative binomial, condition" in teaching.densities(screen).index
    del screen.uns["truth"]
    screen.uns["screen"]["name"] = "papalexi2021"
    assert {"model", "scVI"} <= set(teaching.densities(screen).index)
    screen.uns["screen"]["name"] = "my_screen"
    assert teaching.densities(screen).empty


def test_the_answer_follows_the_measures():
    near, half, far, blind = (ends(0.5, *made) for made in ((0.49, 0.1), (0.4, 0.1), (0.2, 0.1), (0.2, 0.52)))
    alike = teaching.are_they_cells({"depth": near, "energy": near}, 0.52, 0.4)
    assert alike.startswith("Nothing here tells them surely") and "In none of these" in alike
    assert "does not tell" in alike and "(AUC 0.52, p = 0.400)" in alike
    only_told = teaching.are_they_cells({"energy": near}, 0.7, 0.001)
    assert only_told.startswith("Not quite.") and "98% [85%, 110%] by energy" in only_told
    only_short = teaching.are_they_cells({"depth": near, "energy": half}, 0.52, 0.4)
    assert only_short.startswith("Not quite.") and "Surely behind: energy." in only_short
    assert teaching.are_they_cells({"energy": half}, 0.7, 0.001).startswith("No.")
    assert teaching.are_they_cells({"depth": near, "energy": far}, 0.52, 0.4).startswith("No.")
    noisy = ends(0.5, 0.2, 0.1)
    noisy.loc["generated", ["low", "high"]] = 0.1, 0.35  # a point estimate below half, and an interval that is not
    assert teaching.are_they_cells({"escapees": noisy}, 0.52, 0.4).startswith("Not quite.")
    silent = teaching.are_they_cells({"energy": blind}, 0.5, 0.4)
    assert "nowhere that can be measured" in silent and silent.endswith("No say: energy.")
    assert "classifier does not tell" in teaching.are_they_cells({"energy": near}, 0.4, 0.001)


def test_the_middle_of_a_cloud_is_measured_along_the_way_from_control_to_real():
    corners = np.array([[-1, -1], [1, 1], [-1, 1], [1, -1.0]])
    points = pd.concat([pd.DataFrame(scale * corners + [at, 5], columns=["x", "y"]).assign(kind=kind)
                        for kind, at, scale in (("control", 0, 1), ("real", 10, 1), ("generated", 8, 0.5))])
    assert "gone 80% of the way" in teaching.centre_told(points, "JAK2")
    assert "spread 50% as far" in teaching.centre_told(points, "JAK2")


def test_pictures_are_drawn_with_the_colours_of_their_kinds():
    rng = np.random.default_rng(0)
    points = pd.DataFrame(rng.normal(size=(60, 2)), columns=["x", "y"])
    points["kind"] = np.repeat(["control", "real A"], 30)
    drawn = likeness.clouds(points, {"one": ["control"], "two": ["real A"]}, ("PC1", "PC2"))
    assert [ax.get_title(loc="left") or ax.get_title() for ax in drawn.axes] == ["one", "two"]
    table = pd.DataFrame({"depth": rng.random(9), "genes": rng.random(9)})
    lines = likeness.quality({"real": table, "generated": table}).axes[0].lines
    assert [line.get_color() for line in lines] == [plots.KINDS["real"], plots.KINDS["generated"]]
    maps = likeness.correlations({"real": table.corr(), "made": table.corr()})
    assert len(maps.axes) == 3  # and one scale for both
    scores = {"real": rng.normal(size=30), "gene by gene": rng.normal(size=30)}
    humps, dots = likeness.escapees(scores, shares(g1=0.1, generated=0.2)).axes
    assert [to_hex(line.get_color()).upper() for line in humps.lines] == [plots.KINDS["real"], plots.KINDS["baseline"]]
    assert dots.get_xlim()[0] == 0
    assert likeness.come_so_far(ends(1, 0.7, 0)).axes[0].get_yticklabels()[1].get_text() == "generated"
    ways = ends(1, 0.7, 0)
    ways.loc["generated"] = np.nan
    mute = likeness.come_so_far(ways).axes[0]
    assert [text.get_position()[1] for text in mute.texts] == [1]


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is_written():
    rng = np.random.default_rng(0)
    names = [r"$\frac$", "$x$ and $y$", "a_b^c"]
    table = pd.DataFrame(rng.normal(size=(20, 3)), columns=names)
    points = pd.DataFrame(rng.normal(size=(20, 2)), columns=["x", "y"]).assign(kind=rf"real {names[0]}")
    drawn = [likeness.correlations({names[0]: table.corr(), "made": table.corr()}),
             likeness.clouds(points, {f"{names[0]}: mixed": [f"real {names[0]}"]}, ("PC1", "PC2")),
             likeness.escapees({"real": rng.normal(size=9)}, shares(**{names[0]: 0.1, "generated": 0.2}))]
    for figure in drawn:
        figure.canvas.draw()
    assert [text.get_text() for text in drawn[0].axes[0].get_yticklabels()] == names
