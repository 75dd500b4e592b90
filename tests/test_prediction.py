import warnings
from dataclasses import replace

import numpy as np
import pytest
import scanpy as sc
import torch
from helpers import opened, tiny, toy_screen

from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.model.mean_effect import GUESSED
from cdt_lite.model.perturbation import Perturbation
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import _guided, _Plan, as_log1p, check_request, predict, predict_mean
from cdt_lite.training.start import start
from cdt_lite.training.train import denoiser


def model(preset="lite", **changes):
    checkpoint = start(tiny(preset, **changes), toy_screen())
    opened(checkpoint.model)
    checkpoint.trained_targets = ["G3"]
    return checkpoint


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_out_come_counts_in_the_screens_layout(preset):
    screen = toy_screen()
    out = predict(model(preset), screen, "G3", n_cells=50)
    x = out.X.toarray()
    assert out.shape == (50, 12) and list(out.var_names) == list(screen.var_names)
    assert (x == np.rint(x)).all() and (x >= 0).all()
    assert set(out.obs["target_gene"]) == {"G3"} and set(out.obs["sign"]) == {-1}
    share = (screen.obs.loc[screen.obs["target_gene"] == "non-targeting", "batch"] == "a").mean()
    assert (out.obs["batch"] == "a").mean() == pytest.approx(share, abs=0.02)
    assert out.uns["cdt_lite"]["seed"] == 0 and out.uns["cdt_lite"]["space"] == "counts"


def test_predictions_can_be_written(tmp_path):
    predict(model(), toy_screen(), "G5", n_cells=5).write_h5ad(tmp_path / "p.h5ad")


def test_the_same_seed_gives_the_same_cells_and_another_does_not():
    a, b, c = (predict(model(), toy_screen(), "G3", n_cells=20, seed=s).X.toarray() for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_no_ground_truth_is_read():
    screen = toy_screen()
    controls = screen[screen.obs["target_gene"] == "non-targeting"].copy()
    a = predict(model(), screen, "G3", n_cells=20).X.toarray()
    assert np.array_equal(a, predict(model(), controls, "G3", n_cells=20).X.toarray())


def test_the_perturbation_reaches_the_cells():
    known = predict_mean(model(), toy_screen(), "G3", n_cells=64)
    assert not np.allclose(known, predict_mean(model(), toy_screen(), "G3", sign=1, n_cells=64), atol=1e-3)
    assert not np.allclose(known, predict_mean(model(), toy_screen(), "non-targeting", n_cells=64), atol=1e-3)


@pytest.mark.parametrize("mean_effect", [False, True])
def test_an_unseen_target_is_guessed_unless_the_average_is_asked_for(mean_effect):
    checkpoint = model(mean_effect=mean_effect)
    average, other = (predict_mean(checkpoint, toy_screen(), g, n_cells=64, unseen="average") for g in ("G5", "G6"))
    assert np.allclose(average, other)  # one answer for all
    guessed = [predict_mean(checkpoint, toy_screen(), g, n_cells=64) for g in ("G5", "G6")]
    assert not np.allclose(average, guessed[0], atol=1e-4) and not np.allclose(*guessed, atol=1e-4)
    note = predict(checkpoint, toy_screen(), "G5", n_cells=4).uns["cdt_lite"]["notes"][0]
    assert "from its co-expression" in note
    with pytest.raises(CDTError, match="did you mean 'vector'"):
        predict_mean(checkpoint, toy_screen(), "G5", unseen="vectors")


def test_a_guess_that_is_the_average_says_so():
    checkpoint = model(mean_effect=True)
    table = checkpoint.model.embed.effect
    note = predict(checkpoint, toy_screen(), "G5", n_cells=4).uns["cdt_lite"]["notes"][0]
    assert "no more than the average" not in note
    table.effect[table.replicate == GUESSED] = table.effect[0].clone()  # the only measured knockdown
    note = predict(checkpoint, toy_screen(), "G5", n_cells=4).uns["cdt_lite"]["notes"][0]
    assert note.endswith("from its co-expression, which says no more than the average perturbation")


def test_the_expected_mean_agrees_with_the_mean_of_one_step_samples():
    checkpoint = model()
    cells = predict(checkpoint, toy_screen(), "G3", n_cells=3000, steps=1).X.toarray()
    depth_free = predict_mean(checkpoint, toy_screen(), "G3", n_cells=3000)
    # log1p of counts scaled by the depth that the model was told, which is what predict_mean averages
    expected = np.log1p(cells).mean(0)
    assert np.corrcoef(expected, depth_free)[0, 1] > 0.98


def test_an_unseen_target_is_the_unknown_target_and_says_so():
    a, b = (predict(model(), toy_screen(), t, n_cells=10, unseen="average") for t in ("G5", "G7"))
    assert np.array_equal(a.X.toarray(), b.X.toarray())  # asked for the average, two unseen targets get the same
    assert "never perturbed in training" in a.uns["cdt_lite"]["notes"][0]


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_guidance_asks_with_and_without_the_perturbation_over_data_bins_alone(preset):
    m = model(preset)
    screen = toy_screen()
    controls = screen[screen.obs["target_gene"] == "non-targeting"].copy()
    request = check_request(m, "G3", -1, None, "non-targeting")
    batch = _Plan(m, controls, request, "batch", 0, "cpu").batch("a", 4)
    xt, t = torch.full_like(batch.tokens, m.tokenizer.mask_id), torch.full(batch.tokens.shape[:2], 0.5)
    n = m.config.model.n_bins
    plain = replace(batch, perturbation=Perturbation.none(1, "cpu"))
    told, untold = (denoiser(m.model, b)(xt, t)[..., :n].log_softmax(-1) for b in (batch, plain))
    torch.testing.assert_close(_guided(m, batch, 3.0)(xt, t), 3 * told - 2 * untold)  # v1 has a [MASK] logit: cut off
    assert not torch.allclose(told, untold)


def test_bad_requests_are_refused():
    m, screen = model(), toy_screen()
    with pytest.raises(CDTError, match="sign must be"):
        predict(m, screen, "G3", sign=2)
    with pytest.raises(CDTError, match="'g33' is not in the vocabulary.*'G3'"):
        predict(m, screen, "g33")
    with pytest.raises(CDTError, match="guidance"):
        predict(m, screen, "G3", guidance=-1.0)
    for steps in (0, 13, 1_000_000):  # there are 12 genes, and each step reveals one at least
        with pytest.raises(CDTError, match=r"sampling_steps\) must lie in 1 to 12.*not " + str(steps)):
            predict(m, screen, "G3", steps=steps)
    with pytest.raises(CDTError, match="v1's sampler takes its 9 timesteps"):
        predict(model("v1"), screen, "G3", steps=5)
    with pytest.raises(CDTError, match="n_cells"):
        predict(m, screen, "G3", n_cells=0)
    with pytest.raises(CDTError, match="no control cells"):
        predict(m, screen[screen.obs["target_gene"] == "G3"], "G3")
    with pytest.raises(CDTError, match="target_genes.*'target_gene'"):
        predict(m, screen, "G3", target_key="target_genes")


def test_cells_can_be_written_as_counts_or_as_log1p_and_score_alike():
    real = simulate_screen(n_genes=16, n_targets=2, n_cells=300, n_batches=1, seed=0)
    target = next(t for t in real.obs["target_gene"].unique() if t != "non-targeting")
    counts = real[(real.obs["target_gene"] == target).to_numpy()].copy()  # stands in for predicted cells
    depth = float(np.median(real[(real.obs["target_gene"] == "non-targeting").to_numpy()].obs["n_umi"]))
    counts.uns["cdt_lite"] = {"space": "counts", "target_depth": depth}
    logged = as_log1p(counts)
    expected = counts.copy()
    sc.pp.normalize_total(expected, target_sum=depth)
    sc.pp.log1p(expected)  # the independent authority
    np.testing.assert_allclose(logged.X.toarray(), expected.X.toarray(), rtol=1e-5)
    assert counts.uns["cdt_lite"]["space"] == "counts" and (counts.X.data % 1 == 0).all()  # the input is left alone
    metrics = ["mae", "pearson_delta", "systema_pearson"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        a, b = (evaluate(real, {"mine": x}, baselines=False, ceiling=False, metrics=metrics, target_depth=depth)
                for x in (counts, logged))
    np.testing.assert_allclose(a[metrics], b[metrics], atol=1e-6)
    for cells, what in ((logged, "got log1p"), (real, "a depth of 0; pass target_depth")):
        with pytest.raises(CDTError, match=what):
            as_log1p(cells)


def test_a_magnitude_against_the_sign_warns_and_one_beyond_the_clip_is_clipped():
    m, screen = model(), toy_screen()
    with pytest.warns(UserWarning, match="against sign"):
        predict(m, screen, "G3", sign=-1, magnitude=0.4, n_cells=2)
    with pytest.warns(UserWarning, match="clipped"):
        far = predict(m, screen, "G3", sign=-1, magnitude=-50.0, n_cells=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edge = predict(m, screen, "G3", sign=-1, magnitude=-5.0, n_cells=8)
    assert np.array_equal(far.X.toarray(), edge.X.toarray()) and "clipped" in far.uns["cdt_lite"]["notes"][0]


def test_another_panel_is_refused_and_can_be_aligned():
    m, screen = model(), toy_screen()
    other = screen[:, ["G4", "G1", "G0", "G2"]].copy()
    with pytest.raises(CDTError, match=r"8 missing \['G3'.*align=True"):
        predict(m, other, "G3")
    assert list(predict(m, other, "G3", n_cells=3, align=True).var_names) == ["G0", "G1", "G2", "G4"]
    shuffled = screen[:, screen.var_names[::-1]].copy()
    with pytest.raises(CDTError, match="order differs"):
        predict(m, shuffled, "G3")
    aligned = predict(m, shuffled, "G3", n_cells=6, align=True)
    assert np.array_equal(aligned.X.toarray(), predict(m, screen, "G3", n_cells=6).X.toarray())


def test_cells_on_a_part_of_the_panel_are_as_deep_as_on_all_of_it():
    """Depth is that of the whole panel in training: shared genes alone would pass for a shallow cell."""
    m, screen = model(), toy_screen()
    control = (screen.obs["target_gene"] == "non-targeting").to_numpy()
    m.model.embed.effect.fill(effect_table(TokenStore.from_adata(screen, m.tokenizer, m.vocabulary), m.tokenizer))
    genes = list(np.asarray(screen[control].X.mean(0)).ravel().argsort()[:6].astype(str))
    part = screen[:, [f"G{i}" for i in genes]]
    kept = screen[control][:, part.var_names].X.sum() / screen[control].X.sum()
    assert kept < 0.45
    plans = [_Plan(m, x[control], check_request(m, "G3", -1, None, "non-targeting"), "batch", 0, "cpu")
             for x in (screen, part)]
    assert np.mean(plans[1].depth) == pytest.approx(np.mean(plans[0].depth), rel=0.02)
    note = predict(m, part[:, [g for g in screen.var_names if g in set(part.var_names)]].copy(), "G3", n_cells=3,
                   align=True).uns["cdt_lite"]["notes"]
    assert note == [f"6 of the panel's 12 genes are missing: the others hold {kept:.0%} of a training control's "
                    "counts, and depths are scaled up by that"]
    m.model.embed.effect.make_room((0, 0))
    assert "less deep than they are" in predict(m, part, "G3", n_cells=3, align=True).uns["cdt_lite"]["notes"][0]


def test_v1_needs_its_whole_panel():
    with pytest.raises(CDTError, match="whole panel"):
        predict(model("v1"), toy_screen()[:, ["G0", "G1"]].copy(), "G3", align=True)
