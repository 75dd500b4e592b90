"""What enters and how it is read: log1p for counts, damaged matrices, high counts, labels, Ensembl ids, splits."""

import warnings

import anndata as ad
import h5py
import jaxtyping
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import tiny, toy_screen

from cdt_lite.data.layout import CONTROL, Columns, check_screen, read_labels
from cdt_lite.data.screens import load_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.training.predict import predict, predict_mean
from cdt_lite.training.start import start

NOT_COUNTS = "X must hold raw counts, but it holds"


@pytest.fixture
def screen():
    return toy_screen()


@pytest.fixture
def checkpoint(screen):
    return start(tiny(), screen)


def doors(checkpoint):
    """Every function that takes counts, but for `load_screen` and `evaluate`."""
    return {
        "predict": lambda cells: predict(checkpoint, cells, "G3", n_cells=2),
        "predict_mean": lambda cells: predict_mean(checkpoint, cells, "G3", n_cells=2),
        "start": lambda cells: start(checkpoint.config, cells),
        "store": lambda cells: TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary),
    }


def saved(adata, tmp_path, name="screen.h5ad"):
    adata.write_h5ad(tmp_path / name)
    return tmp_path / name


# --- values ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("door", ["predict", "predict_mean", "start", "store"])
@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, np.array])
def test_no_door_takes_log1p_or_truth_values_for_counts(screen, checkpoint, door, layout):
    dense = screen.X.toarray()
    for values, why in ((np.log1p(dense), "not a whole number"), (dense > 2, "values of type bool")):
        wrong = screen.copy()
        wrong.X = layout(values)
        with pytest.raises(CDTError, match=f"{NOT_COUNTS} .*{why}"):
            doors(checkpoint)[door](wrong)


def test_a_door_says_where_the_counts_are(screen, checkpoint):
    screen.layers["counts"] = screen.X.copy()
    screen.X = screen.X.log1p()
    for enter in doors(checkpoint).values():
        with pytest.raises(CDTError, match="counts are in layer 'counts'"):
            enter(screen)


def test_float_noise_is_a_count(screen, checkpoint, tmp_path):
    for factor in (1.0000001, 0.9999999):  # 5.0000005, and 4.9999995, which must not become 4
        noisy = screen.copy()
        noisy.X = (screen.X * factor).astype(np.float64)
        assert (noisy.X.data % 1 != 0).any()
        np.testing.assert_array_equal(load_screen(saved(noisy, tmp_path)).X.toarray(), screen.X.toarray())
        for name in ("predict", "store"):
            got, want = doors(checkpoint)[name](noisy), doors(checkpoint)[name](screen)
            if name == "store":
                np.testing.assert_array_equal(got.tokens, want.tokens)
            else:
                np.testing.assert_array_equal(got.X.toarray(), want.X.toarray())


def test_a_fraction_beside_large_counts_is_none(screen):
    screen.X.data[3] = 1.001
    with pytest.raises(CDTError, match="not a whole number"):
        check_screen(screen)


def test_prediction_refuses_empty_controls_a_gene_twice_and_half_a_cell(screen, checkpoint, monkeypatch):
    empty = screen.copy()
    empty.X = sp.csr_matrix(screen.X.toarray() * (screen.obs["sign"] != 0).to_numpy()[:, None])
    twice = screen.copy()
    twice.var_names = ["G0", "G0", *screen.var_names[2:]]
    for door in (predict, predict_mean):
        with pytest.raises(CDTError, match="cells have no count"):
            door(checkpoint, empty, "G3", n_cells=2)
        with pytest.raises(CDTError, match=r"more than once: \['G0'\]"):
            door(checkpoint, twice, "G3", n_cells=2)
        with monkeypatch.context() as user:
            user.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are checked in tests only
            with pytest.raises(CDTError, match="n_cells must be a whole number from 1, not 2.5"):
                door(checkpoint, screen, "G3", n_cells=2.5)


# --- structure -------------------------------------------------------------------------------------------------------

def damaged(path, part, value, place=7):
    with h5py.File(path, "r+") as file:
        file[f"X/{part}"][place] = value
    return path


@pytest.mark.parametrize(("part", "value"), [
    ("indices", 10**9), ("indices", "n_vars"), ("indices", -3), ("indptr", 10**6), ("indptr", -1)])
@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix])
def test_indices_that_do_not_fit_are_refused_everywhere(screen, checkpoint, tmp_path, layout, part, value):
    if value == "n_vars":
        value = screen.n_vars if layout is sp.csr_matrix else screen.n_obs
    screen.X = layout(screen.X)
    path = damaged(saved(screen, tmp_path), part, value)
    with pytest.raises(CDTError):
        load_screen(path)
    if part == "indptr":
        return
    for enter in doors(checkpoint).values():
        with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
            enter(ad.read_h5ad(path))
    with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
        evaluate(ad.read_h5ad(path), None)


def test_damage_in_a_layer_is_refused(screen, tmp_path):
    screen.layers["umi"] = screen.X.copy()
    path = saved(screen, tmp_path)
    with h5py.File(path, "r+") as file:
        file["layers/umi/indices"][3] = 10**9
    with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
        load_screen(path, layer="umi")
    assert load_screen(path).shape == screen.shape
