import re
import warnings
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import scanpy as sc
import torch
from helpers import CONTROL, opened, tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.layout import Columns, read_controls
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.model.read import Conditioned
from cdt_lite.training import predict as module
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import Generation, _guided, _Plan, as_log1p, predict, predict_each, predict_mean
from cdt_lite.training.request import check_request
from cdt_lite.training.start import start
from cdt_lite.training.train import train
from cdt_lite.training.trust import denoiser

SCREEN = toy_screen()
IS_CONTROL = (SCREEN.obs["target_gene"] == CONTROL).to_numpy()
ALIGNED = Generation(align=True)


def model(preset="lite"):
    checkpoint = start(tiny(preset), SCREEN)
    opened(checkpoint.model)
    checkpoint.trained_targets = ["G3"]
    return checkpoint


def counts_of(checkpoint, screen=SCREEN, options=Generation(), seed=0):
    return predict(checkpoint, screen, "G3", n_cells=20, seed=seed, options=options).X.toarray()


def notes_of(checkpoint, target, screen=SCREEN, options=Generation()):
    return predict(checkpoint, screen, target, n_cells=3, options=options).uns["cdt_lite"]["notes"]


def mean_of(checkpoint, target, sign=-1, options=Generation()):
    return predict_mean(checkpoint, SCREEN, target, sign, n_cells=64, options=options)


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_out_come_counts_in_the_screens_layout(preset, tmp_path):
    out = predict(model(preset), SCREEN, "G3", n_cells=50)
    x = out.X.toarray()
    assert out.shape == (50, 12) and list(out.var_names) == list(SCREEN.var_names)
    assert (x == np.rint(x)).all() and (x >= 0).all()
    assert set(out.obs["target_gene"]) == {"G3"} and set(out.obs["sign"]) == {-1}
    share = (SCREEN.obs.loc[IS_CONTROL, "batch"] == "a").mean()
    assert (out.obs["batch"] == "a").mean() == pytest.approx(share, abs=0.02)
    facts = out.uns["cdt_lite"]
    assert (facts["seed"], facts["space"]) == (0, "counts")
    assert (facts["preset"], facts["system"]) == (preset, tiny(preset).system)
    out.write_h5ad(tmp_path / "p.h5ad")


@pytest.mark.parametrize(("preset", "asked", "taken"), [("v1", None, 9), ("lite", None, 12), ("lite", 5, 5)])
def test_provenance_says_how_many_steps_were_taken(preset, asked, taken, monkeypatch):
    checkpoint = model(preset)
    calls = []
    forward = type(checkpoint.model).given

    def counted(self, *condition):
        denoise = forward(self, *condition)

        def call(*state, read):
            calls.append(1)
            return denoise.logits(*state, read=read)

        return Conditioned(call)

    monkeypatch.setattr(type(checkpoint.model), "given", counted)
    controls = SCREEN[IS_CONTROL & (SCREEN.obs["batch"] == "a").to_numpy()]
    out = predict(checkpoint, controls, "G3", n_cells=3, options=Generation(steps=asked))  # one pass a step
    assert out.uns["cdt_lite"]["steps"] == len(calls) == taken


def test_labels_may_have_other_names():
    renamed = toy_screen()
    renamed.obs["target_gene"] = renamed.obs["target_gene"].cat.rename_categories({CONTROL: "NT"})
    renamed.obs.columns = ["gene", "lane", "way", "size"]
    columns = Columns(target="gene", batch="lane", control="NT", sign="way", magnitude="size")
    out = predict(model(), renamed, "G3", n_cells=20, options=Generation(columns=columns))
    assert np.array_equal(out.X.toarray(), counts_of(model()))
    assert list(out.obs.columns) == ["gene", "way", "lane", "n_umi", "beyond_average"]
    assert set(out.obs["gene"]) == {"G3"}


def test_the_same_seed_gives_the_same_cells_and_no_ground_truth_is_read():
    cells = counts_of(model(), seed=1)
    assert np.array_equal(cells, counts_of(model(), SCREEN[IS_CONTROL].copy(), seed=1))
    assert not np.array_equal(cells, counts_of(model(), seed=2))


def test_cells_do_not_depend_on_what_else_is_asked_and_controls_are_read_once(monkeypatch):
    wanted = [("G3", -1, None), ("G5", 1, None), ("G3", -1, -2.0)]
    alone = [predict(model(), SCREEN, *asked, n_cells=20, seed=4) for asked in wanted]
    reads = []
    monkeypatch.setattr(module, "read_controls", lambda *args: reads.append(1) or read_controls(*args))
    monkeypatch.setattr(module, "BLOCK", 7)
    together = list(predict_each(model(), SCREEN, wanted, n_cells=20, seed=4))
    assert len(reads) == 1
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
        assert one.obs.equals(other.obs) and one.uns["cdt_lite"].keys() == other.uns["cdt_lite"].keys()


def test_the_perturbation_reaches_the_cells():
    known = mean_of(model(), "G3")
    for target, sign in (("G3", 1), (CONTROL, 0)):
        assert not np.allclose(known, mean_of(model(), target, sign), atol=1e-3)


def test_the_expected_mean_agrees_with_the_mean_of_one_step_samples():
    expected = predict_mean(model(), SCREEN, "G3", n_cells=3000)
    cells = predict(model(), SCREEN, "G3", n_cells=3000, options=Generation(steps=1))
    assert np.corrcoef(np.log1p(cells.X.toarray()).mean(0), expected)[0, 1] > 0.98


@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_guidance_asks_with_and_without_the_perturbation_over_data_bins_alone(preset):
    checkpoint = model(preset)
    request = check_request(checkpoint, "G3", -1, None, CONTROL)
    plan = _Plan(checkpoint, SCREEN, request, 0, Generation(guidance=3.0))
    batch = plan.batch("a", 4)
    n = checkpoint.config.model.n_bins  # v1 has a [MASK] logit beyond them: cut off
    xt = torch.full_like(batch.tokens, checkpoint.tokenizer.mask_id)
    plain = replace(batch, perturbation=Perturbation.none(1))
    told, untold = (denoiser(checkpoint.model, b)(xt)[..., :n].log_softmax(-1) for b in (batch, plain))
    torch.testing.assert_close(_guided(plan, batch, "a")(xt), 3 * told - 2 * untold)
    assert not torch.allclose(told, untold)
    assert not np.array_equal(counts_of(checkpoint), counts_of(checkpoint, options=Generation(guidance=3.0)))


def test_cells_can_be_written_as_counts_or_as_log1p_and_score_alike():
    real = simulate_screen(n_genes=16, n_targets=2, n_cells=300, design=ScreenDesign(n_batches=1))
    control = (real.obs["target_gene"] == CONTROL).to_numpy()
    target = real.obs.loc[~control, "target_gene"].iloc[0]
    counts = real[(real.obs["target_gene"] == target).to_numpy()].copy()  # stands in for predicted cells
    depth = float(np.median(real.obs.loc[control, "n_umi"]))
    counts.uns["cdt_lite"] = {"space": "counts", "target_depth": depth}
    logged, expected = as_log1p(counts), counts.copy()
    sc.pp.normalize_total(expected, target_sum=depth)
    sc.pp.log1p(expected)  # the independent authority
    np.testing.assert_allclose(logged.X.toarray(), expected.X.toarray(), rtol=1e-5)
    assert counts.uns["cdt_lite"]["space"] == "counts" and (counts.X.data % 1 == 0).all()  # the input is left alone
    metrics, scores = ["mae", "pearson_delta", "systema_pearson"], []
    for cells in (counts, logged):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = evaluate(real, {"mine": cells}, baselines=False, metrics=metrics, target_depth=depth)
        scores.append(table[metrics])
    np.testing.assert_allclose(*scores, atol=1e-6)
    for cells, what in ((logged, "got log1p"), (real, "do not say the depth .* pass target_depth")):
        with pytest.raises(CDTError, match=what):
            as_log1p(cells)


def test_unseen_targets_are_predicted_each_from_genes_like_it():
    checkpoint = model()
    one, other = mean_of(checkpoint, "G5"), mean_of(checkpoint, "G6")
    assert not np.allclose(one, other, atol=1e-4)
    assert "predicted from genes like it" in notes_of(checkpoint, "G5")[0]
    table = checkpoint.model.effect
    asked = torch.from_numpy(checkpoint.vocabulary.ids(["G5", "G6"]))
    table.target[torch.isin(table.target, asked)] = 0  # of genes that nothing is known of
    assert np.allclose(*(mean_of(checkpoint, gene) for gene in ("G5", "G6")))  # one answer for all


def test_what_the_model_is_told_of_a_target():
    checkpoint = model()
    three, five = checkpoint.vocabulary.ids(["G3", "G5"]).tolist()

    def told(target, sign=-1):
        p = check_request(checkpoint, target, sign, None, CONTROL).perturbation()
        return p.target.item(), p.sign.item(), p.guess.item()

    assert told("G3") == (three, -1, NO_TARGET)
    assert told("G5") == (UNKNOWN_TARGET, -1, five)
    assert told(CONTROL) == told("G3", 0) == (NO_TARGET, 0, NO_TARGET)
    table = checkpoint.model.effect
    table.target[(table.target == five) & (table.sign == -1)] = 0  # of a gene that nothing is known of
    assert told("G5") == (UNKNOWN_TARGET, -1, NO_TARGET)
    assert check_request(model("v1"), "G5", -1, None, CONTROL).gene_id == five  # v1 has a row for every gene


def test_a_target_nobody_perturbed_comes_with_what_is_known_of_it():
    checkpoint = model()
    table = checkpoint.model.effect
    unnamed = (table.target == UNKNOWN_TARGET).nonzero().item()
    of_gene = ((table.target == checkpoint.vocabulary.id("G5")) & (table.sign == -1)).nonzero().item()
    table.left[unnamed], table.left[of_gene] = 0.9, 0.25  # a share of the variance each
    said = ("G5 was never perturbed in training: predicted from genes like it, by which 65% of its effect's variance "
            "is known beyond what all perturbations share; 25% stays unknown")
    assert notes_of(checkpoint, "G5") == [said]
    table.left[of_gene] = 0.895
    assert notes_of(checkpoint, "G5")[0].endswith("as the average perturbation: nothing is known of a gene like it")


def pair_model():
    """Knows a pair as a target, as after fine-tuning on cells with both perturbed."""
    checkpoint = model()
    checkpoint.vocabulary = checkpoint.vocabulary.extended(["G3+G5"])
    checkpoint.trained_targets = ["G3", "G3+G5"]
    return checkpoint


MEANT = {"G5+G3": "G3+G5", " G3 + G5": "G3+G5", " G3": "G3", "ctrl+G3": "G3", "G3+Non-Targeting": "G3",
         "non-targeting ": CONTROL, "NON-TARGETING": CONTROL, "ctrl+ctrl": CONTROL}


@pytest.mark.parametrize("written", MEANT)
def test_a_target_is_tidied_as_the_labels_of_a_file_are(written):
    with pytest.warns(CDTWarning, match=f"{re.escape(repr(written))} as '{re.escape(MEANT[written])}'"):
        tidied = predict(pair_model(), SCREEN, written, n_cells=8)
    meant = predict(pair_model(), SCREEN, MEANT[written], n_cells=8)
    assert set(tidied.obs["target_gene"]) == {MEANT[written]}
    assert np.array_equal(tidied.X.toarray(), meant.X.toarray())


def test_a_gene_is_never_renamed():
    with pytest.raises(CDTError, match="'g3' is not in the vocabulary.*did you mean 'G3'"):
        predict(model(), SCREEN, "g3")
    odd = model()
    odd.vocabulary = odd.vocabulary.extended(["G5+G3", "CTRL"])  # as they may stand in a model of before
    assert check_request(odd, "G5+G3", -1, None, CONTROL).target == "G5+G3"
    assert check_request(odd, "CTRL", -1, None, "ctrl").target == "CTRL"


@pytest.mark.parametrize("n_cells", [2.5, 2.0, True, 0, -3, 10**12, float("nan"), "4", None])
def test_a_number_of_cells_that_is_none_is_refused(n_cells, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in tests only
    for door in (predict, predict_mean):
        with pytest.raises(CDTError, match=f"n_cells must be a whole number from 1 to 1,000,000, not {n_cells!r}"):
            door(model(), SCREEN, "G3", n_cells=n_cells)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16])
def test_whole_numbers_of_numpy_are_whole_numbers(kind, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    cells = predict(model(), SCREEN, "G3", n_cells=kind(20))
    assert np.array_equal(cells.X.toarray(), counts_of(model()))
    assert np.array_equal(counts_of(model(), seed=kind(3)), counts_of(model(), seed=3))
    for sign in (np.int8(-1), -1.0):
        assert np.array_equal(predict(model(), SCREEN, "G3", sign, n_cells=20).X.toarray(), counts_of(model()))


STRANGE = {"seed": (-1, 2.5, 10**30), "cells_per_pass": (0, -1, 2.5), "device": ("G3", "", "\0", "cuda:99")}


@pytest.mark.parametrize("name", STRANGE)
def test_settings_that_make_no_sense_are_refused_where_they_enter(name, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for value in STRANGE[name]:
        with pytest.raises(CDTError, match=f"{name} must be a whole number|there is no device"):
            if name == "seed":
                predict(model(), SCREEN, "G3", n_cells=2, seed=value)
            else:
                Generation(**{name: value})
    for depth in (float("nan"), float("inf"), -1.0):
        with pytest.raises(CDTError, match="target_depth"):
            as_log1p(predict(model(), SCREEN, "G3", n_cells=2), depth)
        with pytest.raises(CDTError, match="target_depth"):
            evaluate(SCREEN, None, metrics=["mae"], target_depth=depth)
    with pytest.raises(CDTError, match="nothing to score"):
        evaluate(SCREEN, None, baselines=False)


def test_what_training_never_had_is_said():
    checkpoint = model()  # measured: G3 down, G5 up
    checkpoint.trained_targets = ["G3", "G5"]
    assert notes_of(checkpoint, "G3") == []

    def notes(target, sign, magnitude=None):
        return list(check_request(checkpoint, target, sign, magnitude, CONTROL).notes)

    assert notes("G3", 1) == ["G3 was perturbed in training with sign -1 only"]
    assert notes("G5", -1) == ["G5 was perturbed in training with sign +1 only"]
    checkpoint.card["magnitudes"] = {"-1": [-3.0, -0.5]}
    assert notes("G3", -1, -2.0) == notes("G3", -1, float("nan")) == notes("G3", -1) == []
    assert notes("G3", -1, -0.25) == ["magnitude -0.25 lies outside those of training, -3.00 to -0.50"]
    assert notes("G5", 1, 2.0) == ["training knew no magnitude of sign +1: what this one means was never learned"]
    table = checkpoint.model.effect
    table.sign[table.sign == 1] = -1
    said = "training had no perturbation of sign +1: nothing is known of what it does"
    assert said in notes("G3", 1) and said in notes("G7", 1)


def test_the_magnitudes_of_training_stay_with_the_model(tmp_path):
    screen = toy_screen()
    screen.obs["magnitude"] = np.where(screen.obs["target_gene"] == "G3", -2.0, np.where(IS_CONTROL, 0.0, np.nan))
    checkpoint = start(tiny(), screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    for _ in train(checkpoint, SetSampler(store, tiny().finetune), steps=1, out=tmp_path):
        pass
    loaded = Checkpoint.load(tmp_path)
    assert loaded.card["magnitudes"] == {"-1": [-2.0, -2.0]}
    far = predict(loaded, screen, "G3", magnitude=-4.0, n_cells=2)
    assert far.uns["cdt_lite"]["notes"] == ["magnitude -4.00 lies outside those of training, -2.00 to -2.00"]


BAD_REQUESTS = {
    "sign must be": {"target": "G3", "sign": 2},
    "'g33' is not in the vocabulary.*'G3'": {"target": "g33"},
    "n_cells": {"target": "G3", "n_cells": 0},
    "target_genes.*target_gene": {"target": "G3", "options": Generation(columns=Columns(target="target_genes"))},
}


@pytest.mark.parametrize("message", BAD_REQUESTS)
def test_bad_requests_are_refused(message):
    with pytest.raises(CDTError, match=message):
        predict(model(), SCREEN, **BAD_REQUESTS[message])


def test_options_out_of_range_and_screens_without_controls_are_refused():
    for guidance in (-1.0, 20.1, float("nan")):
        with pytest.raises(CDTError, match="guidance"):
            Generation(guidance=guidance)
    for steps in (0, 13, 1_000_000):  # there are 12 genes, and each step reveals one at least
        with pytest.raises(CDTError, match=rf"sampling_steps\) must lie in 1 to 12.*not {steps}"):
            counts_of(model(), options=Generation(steps=steps))
    with pytest.raises(CDTError, match="no control cells"):
        counts_of(model(), SCREEN[~IS_CONTROL])


def test_a_magnitude_against_the_sign_warns_and_one_beyond_the_clip_is_clipped():
    checkpoint = model()
    with pytest.warns(CDTWarning, match="against sign"):
        predict(checkpoint, SCREEN, "G3", magnitude=0.4, n_cells=2)
    with pytest.warns(CDTWarning, match="clipped"):
        far = predict(checkpoint, SCREEN, "G3", magnitude=-50.0, n_cells=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)
        edge = predict(checkpoint, SCREEN, "G3", magnitude=-5.0, n_cells=8)
    assert np.array_equal(far.X.toarray(), edge.X.toarray()) and "clipped" in far.uns["cdt_lite"]["notes"][0]


def test_another_panel_is_refused_and_can_be_aligned():
    checkpoint = model()
    part = SCREEN[:, ["G4", "G1", "G0", "G2"]].copy()
    with pytest.raises(CDTError, match=r"8 missing \['G3'.*align=True"):
        counts_of(checkpoint, part)
    aligned = predict(checkpoint, part, "G3", n_cells=3, options=ALIGNED)
    assert list(aligned.var_names) == ["G0", "G1", "G2", "G4"]
    shuffled = SCREEN[:, SCREEN.var_names[::-1]].copy()
    with pytest.raises(CDTError, match="order differs"):
        counts_of(checkpoint, shuffled)
    assert np.array_equal(counts_of(checkpoint, shuffled, ALIGNED), counts_of(checkpoint))
    with pytest.raises(CDTError, match="whole panel"):
        counts_of(model("v1"), part, ALIGNED)


def test_cells_on_a_part_of_the_panel_are_as_deep_as_on_all_of_it():
    """Depth is that of the whole panel in training: shared genes alone would pass for a shallow cell."""
    checkpoint = model()
    store = TokenStore.from_adata(SCREEN, checkpoint.tokenizer, checkpoint.vocabulary)
    checkpoint.model.effect.fill(effect_table(store, checkpoint.tokenizer))
    controls = SCREEN[IS_CONTROL]
    rarest = np.asarray(controls.X.mean(0)).ravel().argsort()[:6]
    part = SCREEN[:, np.sort(rarest)].copy()
    kept = controls[:, part.var_names].X.sum() / controls.X.sum()
    assert kept < 0.45
    request = check_request(checkpoint, "G3", -1, None, CONTROL)
    whole, aligned = (_Plan(checkpoint, cells, request, 0, ALIGNED) for cells in (SCREEN, part))
    assert np.mean(aligned.depth) == pytest.approx(np.mean(whole.depth), rel=0.02)
    missing = "6 of the panel's 12 genes are missing"
    share = f"the others hold {kept:.0%} of a training control's counts, and depths are scaled up by that"
    assert notes_of(checkpoint, "G3", part, ALIGNED) == [f"{missing}: {share}"]
    checkpoint.model.effect.make_room({"target": (0,), "gene_ids": (0,)})  # a model that knows no effects
    assert "less deep than they are" in notes_of(checkpoint, "G3", part, ALIGNED)[0]
