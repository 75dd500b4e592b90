"""What enters and what comes out: log1p for counts, damaged matrices, counts that are high, cells that cannot be."""

import warnings

import anndata as ad
import h5py
import jaxtyping
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from helpers import tiny, toy_screen
from hypothesis import given, settings
from hypothesis import strategies as st

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import CONTROL, check_screen
from cdt_lite.data.screens import load_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.data.tokenizer import bin_edges
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table
from cdt_lite.training.output import Output
from cdt_lite.training.predict import Generation, possible, predict, predict_mean
from cdt_lite.training.predict_many import predict_many
from cdt_lite.training.start import start
from cdt_lite.training.trust import denoiser

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
        got, want = ({name: enter(cells) for name, enter in doors(checkpoint).items()} for cells in (noisy, screen))
        np.testing.assert_array_equal(got["store"].tokens, want["store"].tokens)
        np.testing.assert_array_equal(got["predict"].X.toarray(), want["predict"].X.toarray())
        np.testing.assert_allclose(got["predict_mean"], want["predict_mean"], rtol=1e-5)
        depth = want["start"].tokenizer.target_depth
        assert got["start"].tokenizer.target_depth == pytest.approx(depth)


def test_views_and_files_give_the_cells_that_their_copies_give(screen, checkpoint, tmp_path):
    path = saved(screen, tmp_path)
    aligned = Generation(align=True)
    want = predict(checkpoint, screen, "G3", n_cells=8, options=aligned).X.toarray()
    rows = np.arange(screen.n_obs)
    for cells in (screen[:, ::-1], screen[rows], screen[:, ::-1].copy(), ad.read_h5ad(path, backed="r")):
        got = predict(checkpoint, cells, "G3", n_cells=8, options=aligned)
        np.testing.assert_array_equal(got.X.toarray(), want)
        assert list(got.var_names) == list(screen.var_names)


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, np.array])
@pytest.mark.parametrize("part", ["whole", "view"])
def test_cells_on_disk_give_what_cells_in_memory_give(screen, checkpoint, tmp_path, layout, part):
    screen.X = layout(screen.X.toarray())
    whole = ad.read_h5ad(saved(screen, tmp_path), backed="r")
    rows = slice(None) if part == "whole" else (screen.obs["batch"] == "a").to_numpy()
    on_disk, here = whole[rows] if part == "view" else whole, screen[rows].copy()
    for name, enter in doors(checkpoint).items():
        got, want = enter(on_disk), enter(here)
        if name == "start":
            assert got.tokenizer.target_depth == want.tokenizer.target_depth
            assert torch.equal(got.model.gene_table.weight, want.model.gene_table.weight)
        elif name == "store":
            np.testing.assert_array_equal(got.tokens, want.tokens)
            np.testing.assert_array_equal(got.target, want.target)
        else:
            np.testing.assert_array_equal(*(cells.X.toarray() if name == "predict" else cells for cells in (got, want)))
    for arguments in ((on_disk,), (screen, {"mine": on_disk})):
        with_memory = [{"mine": here} if isinstance(given, dict) else given for given in arguments]
        with_memory[0] = here if len(arguments) == 1 else screen
        pd.testing.assert_frame_equal(evaluate(*arguments, metrics=["mae"]), evaluate(*with_memory, metrics=["mae"]))
    wanted = [("G3", -1, None), ("G5", -1, None)]
    for cells, name in ((on_disk, "disk.h5ad"), (here, "memory.h5ad")):
        list(predict_many(checkpoint, cells, wanted, Output(tmp_path / name), n_cells=4))
    made, want = ad.read_h5ad(tmp_path / "disk.h5ad"), ad.read_h5ad(tmp_path / "memory.h5ad")
    np.testing.assert_array_equal(made.to_df(), want.to_df())
    pd.testing.assert_frame_equal(made.obs, want.obs)


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
            with pytest.raises(CDTError, match="n_cells must be a whole number from 1 to 1,000,000, not 2.5"):
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
    for name, enter in doors(checkpoint).items():
        with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
            enter(ad.read_h5ad(path))
        if layout is sp.csc_matrix or "predict" not in name:  # which reads the controls' rows alone
            with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
                enter(ad.read_h5ad(path, backed="r"))
    with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
        evaluate(ad.read_h5ad(path), None)


def test_damage_in_predicted_log1p_expression_is_refused(screen):
    predicted = screen[screen.obs["sign"] != 0].copy()
    predicted.X = predicted.X.log1p()
    predicted.uns["cdt_lite"] = {"space": "log1p", "target_depth": 50.0}
    predicted.X.indices[3] = 10**9
    with pytest.raises(CDTError, match="prediction.*: X holds a sparse matrix that is damaged"):
        evaluate(screen, predicted, target_depth=50.0)


def in_parts(counts):
    """The same counts, each in two entries of the same place."""
    halves = sp.csr_matrix(counts)
    data, indices = np.repeat(halves.data // 2, 2), np.repeat(halves.indices, 2)
    data[1::2] = halves.data - data[1::2]
    return sp.csr_matrix((data, indices, halves.indptr * 2), shape=halves.shape)


def test_a_count_in_two_entries_is_their_sum_everywhere(screen, checkpoint, tmp_path):
    parts = screen.copy()
    parts.X = in_parts(screen.X)
    assert parts.X.nnz == 2 * screen.X.nnz and (parts.X.toarray() == screen.X.toarray()).all()
    np.testing.assert_allclose(log1p_counts(parts.X, 50.0).toarray(), log1p_counts(screen.X, 50.0).toarray())
    assert load_screen(saved(parts, tmp_path)).X.nnz == screen.X.nnz
    pd.testing.assert_frame_equal(evaluate(parts, None, metrics=["mae"]), evaluate(screen, None, metrics=["mae"]))
    got, want = ({name: enter(cells) for name, enter in doors(checkpoint).items()} for cells in (parts, screen))
    np.testing.assert_array_equal(got["store"].tokens, want["store"].tokens)
    np.testing.assert_array_equal(got["predict"].X.toarray(), want["predict"].X.toarray())


@pytest.mark.parametrize("kind", ["f2", "f8", "?"])
@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_indices_that_are_no_whole_numbers_are_refused(screen, checkpoint, tmp_path, kind, part):
    path = saved(screen, tmp_path)
    with h5py.File(path, "r+") as file:
        values = file[f"X/{part}"][()].astype(kind)
        del file[f"X/{part}"]
        file[f"X/{part}"] = values
    with pytest.raises(CDTError, match=f"X/{part} must be whole numbers, not"):
        load_screen(path)
    with pytest.raises(CDTError, match="no whole numbers|cannot be read"):
        doors(checkpoint)["store"](ad.read_h5ad(path, backed="r"))


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix])
def test_bounds_of_rows_that_fall_are_refused_whatever_their_type(screen, checkpoint, tmp_path, layout):
    """scipy looks for falling bounds by differences, and those of unsigned numbers are never negative."""
    screen.X = layout(screen.X)
    path = saved(screen, tmp_path)
    with h5py.File(path, "r+") as file:
        values = file["X/indptr"][()].astype(np.uint8)  # 256 becomes 0
        del file["X/indptr"]
        file["X/indptr"] = values
    enters = {**doors(checkpoint), "evaluate": lambda cells: evaluate(cells, None)}
    for enter in enters.values():
        for reader in (ad.read_h5ad, lambda path: ad.read_h5ad(path, backed="r")):
            with pytest.raises(CDTError):
                enter(reader(path))
    with pytest.raises(CDTError, match="damaged"):
        load_screen(path)


@pytest.mark.parametrize("size", [10, 2**31])
@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix])
def test_a_matrix_of_another_shape_than_it_says_is_refused_unread(screen, checkpoint, tmp_path, layout, size):
    screen.X = layout(screen.X)
    path = saved(screen, tmp_path)
    shape = [screen.n_obs, size] if layout is sp.csc_matrix else [size, screen.n_vars]
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = shape
    with pytest.raises(CDTError):
        load_screen(path)
    with pytest.raises(CDTError, match="damaged .its indptr does not fit"):
        doors(checkpoint)["store"](ad.read_h5ad(path, backed="r"))


@pytest.mark.parametrize("part", ["data", "indices"])
def test_a_file_that_cannot_be_read_piece_by_piece_is_named(screen, checkpoint, tmp_path, part):
    path = saved(screen, tmp_path)
    with h5py.File(path, "r+") as file:
        del file[f"X/{part}"]
    for name, enter in doors(checkpoint).items():
        with pytest.raises(CDTError, match="X cannot be read"):
            enter(ad.read_h5ad(path, backed="r"))
            pytest.fail(name)
    with pytest.raises(CDTError, match="X cannot be read"):
        evaluate(ad.read_h5ad(path, backed="r"), None)


def test_damage_in_a_layer_is_refused(screen, tmp_path):
    screen.layers["umi"] = screen.X.copy()
    path = saved(screen, tmp_path)
    with h5py.File(path, "r+") as file:
        file["layers/umi/indices"][3] = 10**9
    with pytest.raises(CDTError, match="a sparse matrix that is damaged"):
        load_screen(path, layer="umi")
    assert load_screen(path).shape == screen.shape


# --- counts above the last bin ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("preset", ["lite", "v1"])
def test_values_above_the_last_bin_are_named_once(screen, preset):
    deep = screen.copy()
    counts = screen.X.toarray()
    if preset == "lite":
        counts[:60, 4] = 60_000
    else:
        counts[:60] = 0
        counts[:60, 4] = 100  # all of a cell's counts: scaled to the target depth, that is more than 10,000
    deep.X = sp.csr_matrix(counts)
    checkpoint = start(tiny(preset), screen)
    if preset == "v1":
        checkpoint.tokenizer.target_depth = 11_000.0
    share = 60 / (240 * 12)
    with pytest.warns(CDTWarning, match=f"{share:.2g} of all values .* taken for 10,000.*G4 .25.0% of cells") as said:
        store = TokenStore.from_adata(deep, checkpoint.tokenizer, checkpoint.vocabulary)
    assert [warning.category for warning in said].count(CDTWarning) == 1
    assert (store.tokens[:60, 4] == store.tokens.max()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)
        counts[:60, 4] = min(10_000, counts[:60, 4].max())
        checkpoint.tokenizer.target_depth = 10_000.0
        deep.X = sp.csr_matrix(counts)
        TokenStore.from_adata(deep, checkpoint.tokenizer, checkpoint.vocabulary)


def deep_screen(screen):
    """A gene with about 15,000 counts in a cell, 60,000 after a knockout."""
    mean = np.where(screen.obs["target_gene"] == "G5", 60_000, 15_000)
    counts = screen.X.toarray()
    counts[:, 4] = np.random.default_rng(0).poisson(mean)
    screen.X = sp.csr_matrix(counts)
    return screen, counts[:, 4], mean == 60_000


def test_bins_reach_to_the_largest_count_of_the_training_cells(screen, tmp_path):
    deep, counts, perturbed = deep_screen(screen)
    checkpoint = start(tiny(), deep)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)
        store = TokenStore.from_adata(deep, checkpoint.tokenizer, checkpoint.vocabulary)
    back = checkpoint.tokenizer.to_counts(store.tokens, counts)
    for group, mean in ((perturbed, 60_000), (~perturbed, 15_000)):
        assert back[group, 4].mean() == pytest.approx(mean, rel=0.2)  # within a bin
    np.testing.assert_array_equal(np.delete(back, 4, 1), np.delete(deep.X.toarray(), 4, 1))
    checkpoint.config = tiny()  # as a command does that changes a setting
    loaded = Checkpoint.load(checkpoint.save(tmp_path))
    np.testing.assert_array_equal(loaded.tokenizer.edges, checkpoint.tokenizer.edges)
    assert loaded.tokenizer.edges[-1] == counts.max() == loaded.config.tokenizer.highest


def test_bins_of_a_screen_without_such_counts_are_those_of_the_preset(screen):
    np.testing.assert_array_equal(start(tiny(), screen).tokenizer.edges, bin_edges(tiny().tokenizer))


# --- no impossible cells ---------------------------------------------------------------------------------------------

def fine_tuned(screen):
    checkpoint = start(tiny(), screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    checkpoint.model.effect.fill(effect_table(store, checkpoint.tokenizer))
    return checkpoint, store


def test_no_gene_is_drawn_above_what_it_showed_in_training(screen, tmp_path):
    """An untrained head draws all bins alike, so that without a limit nearly every value would be too high."""
    checkpoint, store = fine_tuned(screen)
    highest = checkpoint.tokenizer.centres[store.tokens.max(0)]
    checkpoint.save(tmp_path)
    for model in (checkpoint, Checkpoint.load(tmp_path)):
        for target, guidance in (("G3", 1.0), ("G3", 2.0), ("G7", 1.0), (CONTROL, 1.0)):
            cells = predict(model, screen, target, n_cells=40, options=Generation(guidance=guidance)).X.toarray()
            assert (cells <= highest).all() and cells.any(0).all()
    limited = predict_mean(checkpoint, screen, "G5")
    checkpoint.model.effect.highest = checkpoint.model.effect.highest[:0]  # as in a model that knows no limit
    assert (predict(checkpoint, screen, "G5", n_cells=40).X.toarray() > highest).any()
    free = predict_mean(checkpoint, screen, "G5")
    assert (free >= limited).all() and free.sum() > limited.sum() * 1.01


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), guidance=st.floats(0, 20), sign=st.sampled_from([-1, 0, 1]),
       target=st.sampled_from(["G0", "G3", "G5", "G11"]))
def test_no_way_to_make_cells_goes_above_the_training_maximum(tmp_path_factory, seed, guidance, sign, target):
    """The property, for one prediction, many, the mean, and the sampler as notebooks call it."""
    screen = toy_screen()
    checkpoint, store = fine_tuned(screen)
    highest = checkpoint.tokenizer.centres[store.tokens.max(0)]
    options = Generation(guidance=guidance)
    one = predict(checkpoint, screen, target, sign, n_cells=30, seed=seed, options=options)
    assert (one.X.toarray() <= highest).all()
    path = tmp_path_factory.mktemp("many") / "p.h5ad"
    wanted = [("G3", -1, None), ("G7", 1, None)]
    for cells in predict_many(checkpoint, screen, wanted, Output(path), n_cells=30, seed=seed, options=options):
        assert (cells.X.toarray() <= highest).all()
    assert (ad.read_h5ad(path).X.toarray() <= np.maximum(highest, screen.X.toarray().max(0))).all()
    depth = screen.X.sum(1).min() / checkpoint.tokenizer.target_depth
    mean = predict_mean(checkpoint, screen, target, sign, n_cells=30, seed=seed, options=options)
    assert (mean <= np.log1p(highest / depth)).all()
    batch = SetSampler(store, checkpoint.config.finetune).batch(seed % 1000)
    denoise = possible(denoiser(checkpoint.model, batch), checkpoint.model, batch.gene_ids)
    tokens = checkpoint.process.sample(denoise, tuple(batch.tokens.shape), torch.Generator().manual_seed(seed))
    assert (checkpoint.tokenizer.centres[tokens] <= highest).all()


def test_a_gene_that_training_never_saw_stays_below_the_highest_value_of_training(screen):
    checkpoint, store = fine_tuned(screen)
    table = checkpoint.model.effect
    kept = torch.arange(12) != 4  # fine-tuned without G4
    table.gene_ids, table.highest = table.gene_ids[kept], table.highest[kept]
    table.effect, table.shares = table.effect[:, kept], table.shares[kept]
    known = np.delete(checkpoint.tokenizer.centres[store.tokens.max(0)], 4)
    cells = predict(checkpoint, screen, "G3", n_cells=200).X.toarray()
    assert (np.delete(cells, 4, 1) <= known).all()
    assert screen.X.toarray()[:, 4].max() < cells[:, 4].max() <= known.max()


def test_what_the_given_controls_show_is_possible(screen):
    checkpoint, store = fine_tuned(screen)
    deep = screen.copy()
    deep.X = screen.X * 4
    cells = predict(checkpoint, deep, "G3", n_cells=60).X.toarray()
    controls = deep[deep.obs["sign"] == 0].X.toarray()
    highest = np.maximum(controls.max(0), checkpoint.tokenizer.centres[store.tokens.max(0)])
    assert (cells <= highest).all() and (cells > checkpoint.tokenizer.centres[store.tokens.max(0)]).any()
