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
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import effect_table
from cdt_lite.training.predict import Generation, predict, predict_mean
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
    assert len(said) == 1 and (store.tokens[:60, 4] == store.tokens.max()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)
        counts[:60, 4] = min(10_000, counts[:60, 4].max())
        checkpoint.tokenizer.target_depth = 10_000.0
        deep.X = sp.csr_matrix(counts)
        TokenStore.from_adata(deep, checkpoint.tokenizer, checkpoint.vocabulary)


# --- labels ----------------------------------------------------------------------------------------------------------

def relabelled(screen, change):
    """The screen with other targets: change(name, number of the cell); signs and magnitudes left out."""
    names = screen.obs["target_gene"].astype(str)
    new = [change(name, i) for i, name in enumerate(names)]
    out = screen.copy()
    out.obs = out.obs[["batch"]].assign(target_gene=new)
    return out


@pytest.mark.parametrize("way", ["Non-Targeting", "non-targeting ", " NON-targeting"])
def test_controls_in_another_case_or_with_blanks_are_controls(screen, tmp_path, way):
    odd = relabelled(screen, lambda name, i: way if name == CONTROL and i % 3 else name)
    with pytest.warns(CDTWarning, match=f"'{way}' as '{CONTROL}'"):
        loaded = load_screen(saved(odd, tmp_path))
    assert loaded.obs["target_gene"].astype(str).tolist() == screen.obs["target_gene"].astype(str).tolist()
    assert ((loaded.obs["sign"] == 0) == (screen.obs["sign"] == 0)).all()


def test_a_gene_that_is_called_as_the_control_in_another_case_stays_a_gene(screen):
    odd = relabelled(screen, lambda name, i: {CONTROL: "nt", "G3": "NT"}.get(name, name))
    odd.var_names = ["NT" if gene == "G3" else gene for gene in odd.var_names]
    labels = read_labels(odd, Columns(control="nt"))
    assert (labels.is_control == (screen.obs["sign"] == 0)).all() and "NT" in labels.target


def gears(name, i):
    if name == CONTROL:
        return "ctrl"
    if i % 5 == 0:
        return ["G3+G5", "G5+G3", "G3 + G5"][i % 3]
    return [f"{name}+ctrl", f"ctrl+{name}", name, f"{name} "][i % 4]


def test_conditions_of_gears_are_targets_and_pairs_have_one_order(screen, tmp_path):
    with pytest.warns(CDTWarning, match=r"'G3\+ctrl' as 'G3'"):
        loaded = load_screen(saved(relabelled(screen, gears), tmp_path), Columns(control="ctrl"))
    truth = screen.obs["target_gene"].astype(str).to_numpy()
    pair = (truth != CONTROL) & (np.arange(len(truth)) % 5 == 0)
    assert loaded.obs["target_gene"].astype(str).tolist() == np.where(pair, "G3+G5", truth).tolist()
    assert list(loaded.uns["screen"]["unmeasured_targets"]) == ["G3+G5"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)  # once read, nothing is left to say
        assert (read_labels(loaded).target == loaded.obs["target_gene"].astype(str)).all()


def test_cells_labelled_as_in_gears_train_and_start_as_the_others_do(screen):
    columns = Columns(control="ctrl")
    odd = relabelled(screen, lambda name, i: "ctrl" if name == CONTROL else f"ctrl+{name}")
    with pytest.warns(CDTWarning):
        checkpoint = start(tiny(), odd, columns=columns)
        store = TokenStore.from_adata(odd, checkpoint.tokenizer, checkpoint.vocabulary, columns)
    assert checkpoint.vocabulary.symbols == list(screen.var_names)
    want = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    np.testing.assert_array_equal(store.target, want.target)


@pytest.mark.parametrize("way", ["{}g{}", "{}_{}", "{}-sg{}", "{}.{}"])
def test_guides_are_refused_and_the_advice_works(screen, tmp_path, way):
    guides = relabelled(screen, lambda name, i: name if name == CONTROL else way.format(name, 1 + i % 2))
    with pytest.raises(CDTError, match=r"targets look like guides.*of gene 'G\d'.*Columns\(target='gene'\)") as refused:
        load_screen(saved(guides, tmp_path))
    pattern = str(refused.value).split("str.replace(r'")[1].split("'")[0]
    guides.obs["gene"] = guides.obs["target_gene"].astype(str).str.replace(pattern, "", regex=True)
    loaded = load_screen(saved(guides, tmp_path), Columns(target="gene"))
    assert loaded.obs["target_gene"].astype(str).tolist() == screen.obs["target_gene"].astype(str).tolist()
    with pytest.raises(CDTError, match="targets look like guides"):
        start(tiny(), guides)


def test_a_single_odd_name_beside_measured_targets_is_no_guide(screen):
    check_screen(relabelled(screen, lambda name, i: "G3-2" if name == "G3" else name))


def test_targets_of_which_none_is_measured_are_named_with_what_is_close(screen, tmp_path):
    odd = relabelled(screen, lambda name, i: {"G3": "Gx3", "G5": "elsewhere"}.get(name, name))
    with pytest.warns(CDTWarning, match="none of its 2 targets is among its 12 genes: 'Gx3', close to 'G3'"):
        loaded = load_screen(saved(odd, tmp_path))
    assert list(loaded.uns["screen"]["unmeasured_targets"]) == ["Gx3", "elsewhere"]


# --- Ensembl ids -----------------------------------------------------------------------------------------------------

def with_ids(screen, key, ids=True):
    out = screen.copy()
    names = [f"ENSG{i:011d}" for i in range(screen.n_vars)] if ids else [f"probe{i}" for i in range(screen.n_vars)]
    out.var = pd.DataFrame({key: pd.Categorical(screen.var_names)}, index=names)
    return out


@pytest.mark.parametrize("key", ["gene_symbols", "gene_name", "feature_name", "symbol"])
def test_symbols_beside_ensembl_ids_name_the_genes(screen, tmp_path, key):
    with pytest.warns(CDTWarning, match=rf"genes are called by var\['{key}'\]"):
        loaded = load_screen(saved(with_ids(screen, key), tmp_path))
    assert list(loaded.var_names) == list(screen.var_names) and not len(loaded.uns["screen"]["unmeasured_targets"])
    np.testing.assert_array_equal(loaded.X.toarray(), screen.X.toarray())


def test_genes_without_a_symbol_of_their_own_keep_their_ids(screen, tmp_path):
    twice = with_ids(screen, "gene_name")
    twice.var["gene_name"] = ["G1", "G1", "", None, *screen.var_names[4:]]
    twice.obs["target_gene"] = twice.obs["target_gene"].astype(str).replace("G3", "G7")
    with pytest.warns(CDTWarning, match="4 without a symbol of their own"):
        loaded = load_screen(saved(twice, tmp_path))
    assert list(loaded.var_names) == [*twice.var_names[:4], *screen.var_names[4:]]


def test_targets_that_are_ids_keep_the_ids(screen, tmp_path):
    own = with_ids(screen, "gene_name")
    names = dict(zip(screen.var_names, own.var_names, strict=True))
    own.obs["target_gene"] = own.obs["target_gene"].astype(str).replace(names)
    assert list(load_screen(saved(own, tmp_path)).var_names) == list(own.var_names)


def test_symbols_in_another_column_are_offered_by_name(screen, tmp_path):
    for own in (with_ids(screen, "hgnc"), with_ids(screen, "symbol", ids=False)):
        key = own.var.columns[0]
        with pytest.raises(CDTError, match=rf"var\['{key}'\] holds 2 of them: adata.var_names = adata.var\['{key}'\]"):
            load_screen(saved(own, tmp_path))
        with pytest.raises(CDTError, match=rf"var\['{key}'\] holds 2"):
            start(tiny(), own)


# --- few targets, few replicates -------------------------------------------------------------------------------------

def test_the_only_target_keeps_cells_to_train_on(screen):
    one = screen[screen.obs["target_gene"] != "G3"].copy()
    side = named_split(one)
    replicate = one.obs["batch"].astype(str).to_numpy()
    held_out = (one.obs["target_gene"] == "G5").to_numpy() & (replicate == "b")
    np.testing.assert_array_equal(side, np.where(held_out, "held_out", "train"))


def test_the_only_target_in_one_replicate_is_not_withheld_and_that_is_said(screen):
    one = screen[(screen.obs["target_gene"] != "G3") & ((screen.obs["sign"] == 0) | (screen.obs["batch"] == "a"))]
    with pytest.warns(CDTWarning, match="'G5' is the screen's only target, in one replicate: no cells are withheld"):
        assert set(named_split(one.copy())) == {"train"}


def test_loading_says_that_there_is_one_replicate(screen, tmp_path):
    path = saved(screen, tmp_path)
    with pytest.warns(CDTWarning, match="the screen has one replicate") as said:
        load_screen(path, Columns(batch=None))
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)
        load_screen(path)


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


def test_what_the_given_controls_show_is_possible(screen):
    checkpoint, store = fine_tuned(screen)
    deep = screen.copy()
    deep.X = screen.X * 4
    cells = predict(checkpoint, deep, "G3", n_cells=60).X.toarray()
    controls = deep[deep.obs["sign"] == 0].X.toarray()
    highest = np.maximum(controls.max(0), checkpoint.tokenizer.centres[store.tokens.max(0)])
    assert (cells <= highest).all() and (cells > checkpoint.tokenizer.centres[store.tokens.max(0)]).any()


def test_a_model_of_before_has_no_limit_and_loads(screen, tmp_path):
    checkpoint, _ = fine_tuned(screen)
    want = checkpoint.model.state_dict()
    checkpoint.model.effect.highest = checkpoint.model.effect.highest[:0]
    cells = predict(checkpoint, screen, "G3", n_cells=20).X.toarray()
    state = {name: value for name, value in want.items() if not name.endswith("effect.highest")}
    checkpoint.model.state_dict = lambda: state
    loaded = Checkpoint.load(checkpoint.save(tmp_path))
    assert not len(loaded.model.effect.highest)
    np.testing.assert_array_equal(predict(loaded, screen, "G3", n_cells=20).X.toarray(), cells)
