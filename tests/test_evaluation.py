"""The table of scores: what it must equal, what it must not notice, what it must refuse, and the traps it shows."""

import subprocess
import sys
import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import Columns
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation import METRICS, Changes, control_halves, evaluate, summarise

MEANS = ["mae", "pearson_delta", "systema_pearson", "discrimination_score_l1", "discrimination_score_cosine"]


def world(seed=0, targets=("G0", "G1", "G2", "X"), n_cells=60, n_control=160, n_genes=30, strength=1.0, batches="ab",
          prefix="cell", signs=None):
    """A screen with planted effects: the same seed is the same cells, another `prefix` the same biology anew."""
    biology, chance = np.random.default_rng(99), np.random.default_rng([seed, len(prefix)])
    rate = biology.gamma(1.0, 1.5, n_genes)
    effects = {t: strength * biology.normal(size=n_genes) * (biology.random(n_genes) < 0.4) for t in targets}
    signs = signs or [-1] * len(targets)
    labels = ["non-targeting"] * n_control + [t for t in targets for _ in range(n_cells)]
    sign = [0] * n_control + [s for s in signs for _ in range(n_cells)]
    batch = chance.choice(list(batches), len(labels))
    per_batch = {b: biology.normal(0, 0.3, n_genes) for b in "abc"}
    log_rate = np.log(rate) + np.array([effects.get(t, np.zeros(n_genes)) for t in labels])
    log_rate += np.array([per_batch[b] for b in batch]) + chance.normal(0, 0.3, (len(labels), 1))
    genes = [f"G{i}" for i in range(n_genes)]
    for i, t in enumerate(labels):
        for part in t.split("+"):
            if part in genes:
                log_rate[i, genes.index(part)] -= 3
    obs = pd.DataFrame({"target_gene": pd.Categorical(labels), "batch": pd.Categorical(batch),
                        "sign": np.array(sign, dtype=np.int8)}, index=[f"{prefix}{i}" for i in range(len(labels))])
    counts = sparse.csr_matrix(chance.poisson(np.exp(log_rate)).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))


def relabelled(cells, target, sign=-1):
    cells = cells.copy()
    cells.obs["target_gene"], cells.obs["sign"] = target, np.int8(sign)
    return cells


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return evaluate(*args, **kwargs)


def of(table, method):
    return table[table["method"] == method].set_index("target")


def test_the_table_has_one_row_per_method_and_target():
    real, train = world(), world(prefix="train")
    table = evaluate(real, world(prefix="again"), train=train)
    assert list(table.columns[:6]) == ["method", "target", "sign", "n_real", "n_predicted", "n_changed"]
    assert list(table.columns[6:]) == ["own_real", "own_predicted", *METRICS, "pearson_delta_shared"]
    methods = ["prediction", "control", "perturbed mean", "replicate mean", "linear", "kNN", "ceiling"]
    assert list(table["method"].unique()) == methods and len(table) == 4 * len(methods)
    assert table.attrs["notes"] == [] and table.attrs["seed"] == 0
    controls = train[train.obs["target_gene"] == "non-targeting"]
    assert table.attrs["target_depth"] == np.median(np.asarray(controls.X.sum(1)))
    assert of(table, "ceiling")["n_real"].eq(30).all()
    metrics = summarise(table)["metric"]
    assert set(metrics) == {*METRICS, "pearson_delta_shared"}  # the change of the own gene is no score
    alone = of(evaluate(real, metrics=["systema_pearson"]), "perturbed mean")
    assert alone["systema_pearson"].isna().all()  # it is the reference; with itself in there, it would score -1


def test_a_better_prediction_scores_better_and_the_ceiling_is_close_to_a_replicate():
    real = world(n_cells=120)
    methods = {"replicate": world(prefix="again", n_cells=120), "half": world(prefix="half", n_cells=120, strength=0.3)}
    table = evaluate(real, methods, train=world(prefix="train", strength=0.0)).groupby("method").mean(numeric_only=True)
    for name, metric in METRICS.items():
        if metric.higher_is_better is not None and not name.startswith("discrimination"):
            gain = table.loc["replicate", name] - table.loc["half", name]
            assert (gain > 0) == metric.higher_is_better, name
    assert table.loc["replicate", "pearson_delta"] > 0.9
    assert table.loc["ceiling", "pearson_delta"] == pytest.approx(table.loc["replicate", "pearson_delta"], abs=0.05)
    assert table.loc["ceiling", "mae"] == pytest.approx(table.loc["replicate", "mae"], rel=0.2)
    assert table.loc["control", "overlap_at_n"] == 0 and np.isnan(table.loc["control", "pearson_delta"])


def test_control_cells_as_a_prediction_equal_the_control_row():
    real = world()
    _, ours = control_halves(real)
    predicted = ad.concat([relabelled(ours, t) for t in ("G0", "G1", "G2", "X")], index_unique=" ", keys=list("abcd"))
    table = evaluate(real, predicted)
    a, b = of(table, "prediction")[MEANS], of(table, "control")[MEANS]
    pd.testing.assert_frame_equal(a, b, atol=1e-6)
    assert b["discrimination_score_cosine"].eq(0.5 + 1 / 8).all()  # no direction: all four tie


def test_a_vanished_own_gene_alone_is_no_changed_gene():
    real = world(targets=("G0", "G1"))
    _, ours = control_halves(real)
    X = ours.X.toarray()
    X[:, 0] = 0
    silenced = ad.AnnData(sparse.csr_matrix(X), obs=ours.obs, var=ours.var)
    predicted = ad.concat([relabelled(silenced, t) for t in ("G0", "G1")], index_unique=" ", keys=list("ab"))
    ratio = of(evaluate(real, predicted, metrics=["significant_gene_ratio"]), "prediction")["significant_gene_ratio"]
    assert ratio["G0"] == 0 < ratio["G1"]  # there, G0 is a finding


def test_the_ceiling_is_corrected_to_full_size(monkeypatch):
    options = {"metrics": ["pearson_delta", "mae", "cell_sd_ratio"], "baselines": ["ceiling"]}
    corrected = evaluate(world(strength=0.3), **options)
    assert set(corrected["method"]) == {"ceiling"}
    for name, metric in METRICS.items():
        monkeypatch.setitem(METRICS, name, replace(metric, of_full_size=float))
    half = evaluate(world(strength=0.3), **options)
    assert half["pearson_delta"].gt(0).sum() >= 3
    expected = (2 * half["pearson_delta"] / (1 + half["pearson_delta"])).where(half["pearson_delta"] > 0, 0)
    np.testing.assert_allclose(corrected["pearson_delta"], expected)
    np.testing.assert_allclose(corrected["mae"], half["mae"] / np.sqrt(2))
    np.testing.assert_array_equal(corrected["cell_sd_ratio"], half["cell_sd_ratio"])  # left as the halves say


def test_control_halves_are_disjoint_and_balanced():
    real = world()
    truth, ours = control_halves(real)
    assert not set(truth.obs_names) & set(ours.obs_names) and truth.n_obs + ours.n_obs == 160
    for batch in "ab":
        assert abs((truth.obs["batch"] == batch).sum() - (ours.obs["batch"] == batch).sum()) <= 1


def test_same_seed_same_table_and_order_does_not_matter():
    real, predicted, train, rng = world(), world(prefix="again"), world(prefix="train"), np.random.default_rng(0)

    def shuffled(cells):
        return cells[rng.permutation(cells.n_obs)][:, rng.permutation(cells.n_vars)].copy()

    first = evaluate(real, predicted, train=train)
    pd.testing.assert_frame_equal(first, evaluate(shuffled(real), shuffled(predicted), train=shuffled(train)))
    assert not first.equals(evaluate(real, predicted, train=train, seed=1))


def test_shared_control_noise_inflates_a_null_target_and_the_split_does_not():
    nulls = tuple(f"N{i}" for i in range(40))
    real = world(targets=nulls, n_cells=25, n_control=40, strength=0.0, batches="a")
    predicted = world(targets=nulls, n_cells=400, n_control=4, strength=0.0, batches="a", prefix="again")
    table = quiet(real, predicted, metrics=["pearson_delta"]).groupby("method").mean(numeric_only=True)
    assert abs(table.loc["prediction", "pearson_delta"]) < 0.12  # 40 targets, but one and the same split
    assert table.loc["prediction", "pearson_delta_shared"] > 0.4
    assert table.loc["perturbed mean", "pearson_delta_shared"] > 0.3


def test_training_controls_that_the_truth_uses_are_hidden_from_baselines():
    nulls = tuple(f"N{i}" for i in range(40))
    screen = world(targets=nulls, n_cells=25, n_control=40, strength=0.0, batches="a")
    is_control = (screen.obs["target_gene"] == "non-targeting").to_numpy()
    test = np.isin(screen.obs["target_gene"], nulls[:20])
    table = quiet(screen[is_control | test], train=screen[~test], metrics=["pearson_delta"])
    scores = of(table, "perturbed mean")
    assert scores["pearson_delta"].mean() < 0.15 < 0.3 < scores["pearson_delta_shared"].mean()


def test_batches_are_not_mistaken_for_effects():
    real = world(strength=0.0)
    keep = (real.obs["target_gene"] == "non-targeting") | (real.obs["batch"] == "b")  # all perturbed cells in one batch
    real = real[keep.to_numpy()]

    def error(real, predicted, method, batch):
        table = evaluate(real, predicted, metrics=["mae"], columns=Columns(batch=batch))
        return of(table, method)["mae"].mean()

    assert error(real, None, "control", "batch") < 0.8 * error(real, None, "control", None)
    one_batch = world(prefix="again")
    one_batch = one_batch[(one_batch.obs["batch"] == "a").to_numpy()]
    assert error(world(), one_batch, "prediction", "batch") < error(world(), one_batch, "prediction", None)


def test_the_change_of_the_own_gene_stands_beside_the_scores():
    real = world(targets=("G0", "G1", "X", "G2+G3"), batches="a")
    changes = pd.DataFrame(0.25, index=["G0", "X", "G2+G3"], columns=real.var_names)
    changes.loc["G0", "G0"] = 0.5
    changes.loc["G2+G3", ["G2", "G3"]] = 0.1, 0.3
    table = quiet(real, {"told": Changes(changes)}, metrics=["mae"], target_depth=100.0, seed=3)
    subtracted, _ = control_halves(real, seed=3)
    expected = {"G0": ["G0"], "G2+G3": ["G2", "G3"]}
    for target, genes in expected.items():
        cells = real[real.obs["target_gene"] == target]
        mean = {}
        for name, these in (("perturbed", cells), ("subtracted", subtracted)):
            mean[name] = log1p_counts(these.X, 100.0)[:, real.var_names.isin(genes)].mean(0)
        change = float(np.mean(mean["perturbed"] - mean["subtracted"]))
        assert change < -0.5
        assert of(table, "told")["own_real"][target] == pytest.approx(change, abs=1e-5)
        assert of(table, "control")["own_predicted"][target] == pytest.approx(0, abs=1e-5)
    assert of(table, "told")["own_predicted"].round(5).to_dict() == {"G0": 0.5, "G2+G3": 0.2, "X": pytest.approx(
        np.nan, nan_ok=True)}
    assert np.isnan(of(table, "told")["own_real"]["X"])


@pytest.mark.parametrize(("setting", "said"), [
    ({"target_depth": -1.0}, "target_depth"), ({"target_depth": 0.0}, "target_depth"),
    ({"target_depth": np.nan}, "target_depth"), ({"target_depth": np.inf}, "target_depth"), ({"seed": -1}, "seed")])
def test_settings_that_make_no_sense_are_refused(setting, said):
    with pytest.raises(CDTError, match=said):
        quiet(world(), metrics=["mae"], **setting)


def test_both_signs_of_one_gene_are_two_perturbations():
    targets = ("G0", "G1", "G0", "G2")
    real, train = (world(targets=targets, signs=[-1, -1, 1, 1], prefix=p) for p in ("cell", "train"))
    flipped = (real.obs["sign"] == 1).to_numpy()
    real.X[flipped] *= 3
    table = evaluate(real, train=train, metrics=["mae"], baselines=["control", "replicate mean", "ceiling"])
    keys = table[["method", "target", "sign"]].value_counts()
    assert len(table) == 12 and keys.max() == 1


def test_pairs_get_the_pair_baselines_and_both_genes_are_left_out():
    targets = ("G0", "G1", "G0+G1")
    real, train = world(targets=targets), world(targets=targets, prefix="train")
    table = evaluate(real, train=train, metrics=["mae"], baselines=["additive", "matching mean", "control"])
    assert list(of(table, "additive").index) == list(of(table, "matching mean").index) == ["G0+G1"]
    means = pd.DataFrame(1.0, ["G0", "G0+G1"], real.var_names)
    spiked = means.assign(G0=50.0, G1=50.0)
    plain, huge = (of(evaluate(real, {"m": m}, metrics=["mae"]), "m")["mae"] for m in (means, spiked))
    assert plain["G0+G1"] == huge["G0+G1"] and huge["G0"] > plain["G0"] + 1  # G1 counts where G0 alone is perturbed


def test_means_alone_are_scored_and_get_cells_as_the_baselines_do():
    real = world()
    depth = 60.0
    log1p = log1p_counts(real.X.toarray(), depth)
    table = pd.DataFrame({t: log1p[(real.obs["target_gene"] == t).to_numpy()].mean(0) for t in ("G0", "X")}).T
    table.columns = real.var_names
    scores = of(evaluate(real, {"means": table}, target_depth=depth), "means")
    assert list(scores.index) == ["G0", "X"]
    np.testing.assert_allclose(scores["mae"], 0, atol=1e-6)
    assert scores["cell_sd_ratio"].between(0.7, 1.3).all() and scores["energy_distance"].lt(0.3).all()


def test_changes_stand_on_the_real_controls_and_a_table_of_means_has_no_shared_score():
    """One prediction, as a change and as a mean on our half of the controls: the same scores where both are known."""
    real = world()
    _, ours = control_halves(real)
    log1p = log1p_counts(ours.X.toarray(), 60.0)
    batch = real.obs["batch"].to_numpy()
    change = pd.DataFrame(np.random.default_rng(0).normal(0, 0.1, (1, 30)), ["G0"], real.var_names)
    own = batch[(real.obs["target_gene"] == "G0").to_numpy()]
    base = sum(log1p[(ours.obs["batch"] == b).to_numpy()].mean(0) * np.mean(own == b) for b in "ab")
    means = pd.DataFrame(np.maximum(base + change.to_numpy(), 0), ["G0"], real.var_names)
    table = quiet(real, {"change": Changes(change), "mean": means}, target_depth=60.0, metrics=MEANS)
    a, b = (table.set_index("method").loc[name] for name in ("change", "mean"))
    np.testing.assert_allclose(a[MEANS].astype(float), b[MEANS].astype(float), rtol=1e-4)
    assert np.isfinite(a["pearson_delta_shared"]) and np.isnan(b["pearson_delta_shared"])


def test_few_cells_are_said_and_the_rest_is_reported():
    real = world()
    few = np.flatnonzero((real.obs["target_gene"] == "G1").to_numpy())[5:]
    real = real[np.setdiff1d(np.arange(real.n_obs), few)]
    with pytest.warns(CDTWarning, match=r"fewer than 10 cells for \['G1'\]"):
        table = evaluate(real, baselines=["perturbed mean"])
    scores = of(table, "perturbed mean")
    assert scores.loc["G1", [m for m in METRICS if METRICS[m].needs_cells]].isna().all()
    assert scores.loc["G1", ["mae", "pearson_delta"]].notna().all()
    assert scores.loc["G0"].drop("systema_pearson").notna().all()  # that one is undefined for the mean of the others
    with pytest.warns(CDTWarning, match="one perturbation only"):
        evaluate(real[real.obs["target_gene"].isin(["G0", "non-targeting"]).to_numpy()], baselines=["control"])


def test_few_controls_in_a_batch_are_said_and_only_tests_against_them_are_lost():
    real = world(batches="ab")
    rare = (real.obs["target_gene"] == "non-targeting") & (real.obs["batch"] == "b")
    alone = (real.obs["target_gene"] == "G1") & (real.obs["batch"] == "a")  # G1 is left with batch b
    real = real[~alone.to_numpy() & ~(rare & (rare.cumsum() > 8)).to_numpy()]
    with pytest.warns(CDTWarning, match=r"fewer than 10 control cells on a side in the batches of \[.*'G1'"):
        table = evaluate(real, baselines=["perturbed mean"])
    scores = of(table, "perturbed mean").loc["G1"]
    assert np.isnan(scores["overlap_at_n"]) and np.isnan(scores["n_changed"])
    assert np.isfinite(scores[["mae", "pearson_delta", "energy_distance", "two_sample_auc"]].astype(float)).all()


def test_baselines_can_be_chosen():
    real, train = world(), world(prefix="train")
    table = evaluate(real, train=train, metrics=["mae"], baselines=["control", "kNN"])
    assert list(table["method"].unique()) == ["control", "kNN"]
    assert evaluate(real, train, baselines=False, metrics=["mae"])["method"].unique() == ["prediction"]


def test_a_screen_of_one_batch_and_sign_needs_no_such_columns():
    bare = world(batches="a", n_cells=30)
    named = evaluate(bare, metrics=["mae", "overlap_at_n"])
    del bare.obs["batch"], bare.obs["sign"]
    pd.testing.assert_frame_equal(evaluate(bare, metrics=["mae", "overlap_at_n"]), named)


def test_cells_given_to_a_mean_scatter_as_cells_do():
    """Targets without effect and a prediction that says so: its cells are control cells, and score as those do."""
    rng = np.random.default_rng(21)
    n_targets, n, genes = 40, 16, 50
    counts = rng.poisson(rng.gamma(8, 0.3, (400 + n_targets * n, 1)) * rng.gamma(0.7, 0.8, genes)).astype(np.float32)
    labels = ["non-targeting"] * 400 + [f"T{i // n}" for i in range(n_targets * n)]
    obs = pd.DataFrame({"target_gene": labels, "sign": [0] * 400 + [-1] * (n_targets * n), "batch": "one"},
                       index=[f"c{i}" for i in range(len(labels))])
    real = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))
    nothing = pd.DataFrame(0.0, index=[f"T{i}" for i in range(n_targets)], columns=real.var_names)
    table = evaluate(real, {"nothing": Changes(nothing)}, baselines=["control"],
                     metrics=["energy_distance", "two_sample_auc"])
    for metric in ("energy_distance", "two_sample_auc"):
        wide = table.pivot_table(metric, "target", "method")
        apart = wide["nothing"] - wide["control"]
        assert abs(apart.mean()) < 3 * apart.sem()


def test_the_judge_imports_neither_torch_nor_a_model():
    code = "import sys, cdt_lite.evaluation; print({'torch', 'cdt_lite.model'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_pathway_neighbour_is_the_mean_of_the_trained_targets_that_are_named():
    real, train = world(), world(prefix="train")
    first, second, third, *_ = sorted(set(train.obs["target_gene"]) - {"non-targeting"})
    train.uns["neighbours"] = {first: [second], second: [second, third], third: ["nobody"]}
    scored = evaluate(real, train=train, metrics=["mae", "pearson_delta"], baselines=["pathway neighbour"])
    assert set(scored["target"]) == {first, second}
    controls = (train.obs["target_gene"] == "non-targeting").to_numpy()
    truth, _ = control_halves(real)
    hidden = train.obs_names.isin(truth.obs_names)
    depth = scored.attrs["target_depth"]
    log1p = np.log1p(np.asarray(train.X.todense()) / np.asarray(train.X.sum(1)) * depth)
    means = {}
    for target in (second, third):
        cells = (train.obs["target_gene"] == target).to_numpy()
        means[target] = log1p[cells].mean(0) - log1p[controls & ~hidden].mean(0)
    table = pd.DataFrame([means[second], means[third]], index=[first, second], columns=train.var_names)
    same = evaluate(real, {"by hand": Changes(table)}, train=train, metrics=["mae", "pearson_delta"], baselines=False)
    for metric in ("mae", "pearson_delta"):
        np.testing.assert_allclose(of(scored, "pathway neighbour")[metric], of(same, "by hand")[metric], atol=0.02)
