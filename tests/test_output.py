"""The file of predicted cells: it costs what is added, is whole to every reader, and can be gone on with."""

import copy
import os
from contextlib import closing
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CONTROL, opened, tiny, toy_screen

from cdt_lite.errors import CDTError
from cdt_lite.training.output import Output
from cdt_lite.training.predict import Generation, as_log1p, predict
from cdt_lite.training.predict_many import predict_many
from cdt_lite.training.start import start

SCREEN = toy_screen()
MODEL = start(tiny(), SCREEN)
opened(MODEL.model)
MODEL.trained_targets = ["G3", "G5", "G7"]
WANTED = [("G3", -1, None), ("G5", 1, None), ("G7", -1, None), ("G9", -1, None)]
NAMES = [target for target, _, _ in WANTED]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)


def predicted(output, n=None, **options):
    """Predicts the first n perturbations, or all, three cells each, and returns those that were made now."""
    with closing(predict_many(MODEL, SCREEN, WANTED[:n], output, n_cells=3, **options)) as made:
        return [cells.uns["cdt_lite"]["target"] for cells in made]


def same_file(one, other):
    one, other = ad.read_h5ad(one), ad.read_h5ad(other)
    np.testing.assert_array_equal(one.to_df(), other.to_df())
    pd.testing.assert_frame_equal(one.obs, other.obs)
    assert one.uns["cdt_lite"].keys() == other.uns["cdt_lite"].keys() and one.var_names.equals(other.var_names)
    for name, value in one.uns["cdt_lite"].items():
        np.testing.assert_equal(other.uns["cdt_lite"][name], value, name)


def test_what_is_done_is_kept_when_predicting_stops(here):
    with closing(predict_many(MODEL, SCREEN, WANTED, Output("p.h5ad"), n_cells=3)) as made:
        next(made)
        next(made)
    cells = ad.read_h5ad("p.h5ad")
    found = cells.obs["target_gene"].astype(str).value_counts()
    assert found.drop(CONTROL).to_dict() == {target: 3 for target, _, _ in WANTED[:2]}
    assert not os.path.exists("p.h5ad.parts")


@pytest.mark.parametrize("space", ["counts", "log1p"])
def test_a_file_of_many_is_what_predict_returns_one_by_one_with_the_real_controls(here, space):
    predicted(Output("p.h5ad", space), 3)
    alone = [predict(MODEL, SCREEN, *each, n_cells=3) for each in WANTED[:3]]
    controls = SCREEN[(SCREEN.obs["target_gene"] == CONTROL).to_numpy()]
    if space == "log1p":
        alone = [as_log1p(cells) for cells in alone]
        controls = as_log1p(ad.AnnData(controls.X, controls.obs, controls.var), MODEL.tokenizer.target_depth)
    cells = ad.read_h5ad("p.h5ad")
    expected = np.concatenate([each.X.toarray() for each in [*alone, controls]])
    np.testing.assert_array_equal(cells.X.toarray(), expected)
    assert list(cells.obs_names) == [name for each in [*alone, controls] for name in each.obs_names]
    assert cells.uns["cdt_lite"]["space"] == space and "target" not in cells.uns["cdt_lite"]


def test_what_is_made_costs_what_is_added_and_a_reader_never_sees_half_a_file(here):
    """Bytes that were written before stay untouched while more is predicted; the file appears whole, at the end."""
    made = predict_many(MODEL, SCREEN, WANTED[:4], Output("p.h5ad"), n_cells=3)
    stamps = {}
    for n, _ in enumerate(made, 1):
        there = sorted(os.listdir("p.h5ad.parts"))
        assert len(there) == n and not os.path.exists("p.h5ad")
        for name in there:
            stamp = os.stat(f"p.h5ad.parts/{name}").st_mtime_ns
            assert stamps.setdefault(name, stamp) == stamp
            assert ad.read_h5ad(f"p.h5ad.parts/{name}").n_obs == 3
    assert ad.read_h5ad("p.h5ad").obs["target_gene"].nunique() == 5


def test_resume_leaves_out_what_is_there_and_adds_what_is_not(here):
    assert predicted(Output("one.h5ad"), 1) == NAMES[:1]
    before = os.stat("one.h5ad").st_mtime_ns
    assert predicted(Output("one.h5ad", resume=True), 1) == [] and os.stat("one.h5ad").st_mtime_ns == before
    assert predicted(Output("one.h5ad", resume=True), 4) == NAMES[1:4]  # the first is alone, without controls
    assert predicted(Output("four.h5ad"), 4) == NAMES[:4]
    same_file("one.h5ad", "four.h5ad")


def test_what_was_joined_before_a_crash_is_not_joined_twice(here, monkeypatch):
    with monkeypatch.context() as broken, pytest.raises(OSError, match="gone"):
        broken.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(OSError("gone")))
        predicted(Output("p.h5ad"), 2)
    assert len(os.listdir("p.h5ad.parts")) == 2
    assert predicted(Output("p.h5ad", resume=True), 3) == [NAMES[2]]
    predicted(Output("q.h5ad"), 3)
    same_file("p.h5ad", "q.h5ad")
    os.mkdir("q.h5ad.parts")  # as when a crash left the parts, and nothing was wanted after
    assert predicted(Output("q.h5ad", resume=True), 3) == [] and not os.path.exists("q.h5ad.parts")


OTHERWISE = {
    "seed 0, not 1": {"seed": 1},
    "guidance 1.0, not 2.0": {"options": Generation(guidance=2.0)},
    "sampling-steps None, not 3": {"options": Generation(steps=3)},
    "align False, not True": {"options": Generation(align=True)},
}


@pytest.mark.parametrize("said", OTHERWISE)
def test_a_file_is_not_gone_on_with_by_other_settings(here, said):
    predicted(Output("p.h5ad"), 2)
    with pytest.raises(CDTError, match=f"p.h5ad was begun with {said}"):
        predicted(Output("p.h5ad", resume=True), 3, **OTHERWISE[said])
    assert ad.read_h5ad("p.h5ad").obs["target_gene"].nunique() == 3


def test_a_file_is_not_gone_on_with_by_another_model_or_screen(here):
    predicted(Output("p.h5ad"), 2)
    output = Output("p.h5ad", resume=True)
    fewer = SCREEN[np.arange(SCREEN.n_obs) != np.flatnonzero(SCREEN.obs["target_gene"] == CONTROL)[0]].copy()
    with pytest.raises(CDTError, match="was begun with controls"):
        next(predict_many(MODEL, fewer, WANTED, output, n_cells=3))
    other = replace(MODEL, model=copy.deepcopy(MODEL.model))
    with torch.no_grad():
        other.model.gene_table.weight[0] += 1
    with pytest.raises(CDTError, match="was begun with checkpoint"):
        next(predict_many(other, SCREEN, WANTED, output, n_cells=3))
    SCREEN.write_h5ad("screen.h5ad")
    with pytest.raises(CDTError, match="no file that predictions can be added to"):
        predicted(Output("screen.h5ad", resume=True), 2)


def test_two_runs_do_not_write_to_one_file(here):
    with closing(predict_many(MODEL, SCREEN, WANTED, Output("p.h5ad"), n_cells=3)) as made:
        next(made)
        with pytest.raises(CDTError, match="in use by predict"):
            predicted(Output("p.h5ad", resume=True))
