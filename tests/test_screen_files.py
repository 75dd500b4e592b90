"""Screens by name and from a file: options, what is refused at the door, the choice of a panel, blood cells."""
# ruff: noqa: F811 (a fixture is imported, then asked for by its name)

import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import shown_to_a_reader
from test_screens import empty_cache, mirror, saved, small  # noqa: F401

from cdt_lite.data import panel
from cdt_lite.data.layout import CONTROL, Columns, check_screen, read_labels, screen_hash
from cdt_lite.data.panel import choose_panel, on_panel
from cdt_lite.data.public import blood_cells
from cdt_lite.data.screens import load_screen
from cdt_lite.data.simulate import simulate_screen
from cdt_lite.data.splits import named_split
from cdt_lite.errors import CDTError, CDTWarning

# --- names and options -----------------------------------------------------------------------------------------------

def test_the_simulated_screen_by_name_has_its_default_options():
    assert screen_hash(load_screen("simulated")) == screen_hash(simulate_screen())


@pytest.mark.parametrize(("name", "close"), [("papalexi2020", "papalexi2021"), ("Simulatd", "simulated")])
def test_unknown_name_gets_close_matches(name, close):
    with pytest.raises(CDTError, match=f"did you mean '{close}'"):
        load_screen(name)


def test_unknown_path_gets_close_matches(small, tmp_path):
    saved(small, tmp_path)
    with pytest.raises(CDTError, match=r"did you mean '.*screen\.h5ad'"):
        load_screen(tmp_path / "scren.h5ad")


# --- a file of one's own ---------------------------------------------------------------------------------------------

def test_a_file_comes_into_the_layout(small, tmp_path):
    own = small.copy()
    own.obs = pd.DataFrame({
        "gene": small.obs["target_gene"].astype(str).replace(CONTROL, "ctrl"), "lane": small.obs["batch"],
        "direction": small.obs["sign"].astype(float), "lfc": small.obs["magnitude"], "donor": "d1"})
    own.X = own.X.toarray()
    screen = load_screen(saved(own, tmp_path), Columns("gene", "lane", "ctrl", "direction", "lfc"))
    assert screen_hash(screen) == screen_hash(small)
    assert isinstance(screen.X, sp.csr_matrix) and screen.obs["sign"].dtype == np.int8
    assert (screen.obs["donor"] == "d1").all()  # what else the file says about its cells stays
    assert list(screen.uns["screen"]["unmeasured_targets"]) == list(small.uns["screen"]["unmeasured_targets"])
    assert str(tmp_path) not in str(screen.uns)


def test_a_file_in_the_layout_comes_back_unchanged(small, tmp_path):
    back = load_screen(saved(small, tmp_path))
    assert screen_hash(back) == screen_hash(small) and (back.X != small.X).nnz == 0
    pd.testing.assert_frame_equal(back.obs, small.obs)
    assert back.obs["sign"].nunique() == 3 and back.obs["magnitude"].isna().any()
    assert list(back.var_names) == list(small.var_names)


@pytest.mark.parametrize("default_sign", [-1, 1])
def test_without_a_sign_column_the_default_sign_holds(small, tmp_path, default_sign):
    for columns, dropped in ((Columns(batch=None, sign=None, magnitude=None), []),
                             (Columns(), ["batch", "sign", "magnitude"])):
        own = small.copy()
        own.obs = own.obs.drop(columns=dropped)
        screen = load_screen(saved(own, tmp_path), columns, default_sign=default_sign)
        control = (screen.obs["target_gene"] == CONTROL).to_numpy()
        assert set(screen.obs["sign"][~control]) == {default_sign} and set(screen.obs["sign"][control]) == {0}
        assert screen.obs["magnitude"][~control].isna().all() and screen.obs["batch"].nunique() == 1


@pytest.mark.parametrize("role", ["target", "batch", "sign", "magnitude"])
def test_a_column_that_is_named_must_be_there(small, role):
    with pytest.raises(CDTError, match=rf"no column 'guess' in obs, only .*name yours with Columns\({role}=\.\.\.\)"):
        read_labels(small, replace(Columns(), **{role: "guess"}))


def test_counts_in_a_layer_are_named_and_used(small, tmp_path):
    own = small.copy()
    own.layers["umi"] = own.X.copy()
    own.X = own.X.log1p()
    path = saved(own, tmp_path)
    with pytest.raises(CDTError, match=r"not a whole number; counts are in layer 'umi': pass layer='umi'"):
        load_screen(path)
    assert (load_screen(path, layer="umi").X != small.X).nnz == 0
    with pytest.raises(CDTError, match=r"no layer 'um'.*did you mean 'umi'"):
        load_screen(path, layer="um")


def test_counts_in_raw_are_named_and_used(small, tmp_path):
    own = small[:, :10].copy()  # raw may hold genes that X has no more
    own.raw = small.copy()
    own.X = own.X * 0.5
    with pytest.raises(CDTError, match=r"counts are in adata\.raw: pass layer='raw', or adata\.raw"):
        check_screen(own)
    with pytest.raises(CDTError, match="layer='raw'"):
        load_screen(saved(own, tmp_path))
    found = load_screen(saved(own, tmp_path), layer="raw")
    assert list(found.var_names) == list(small.var_names)
    assert (found.X != small.X).nnz == 0
    assert list(found.obs["target_gene"]) == list(small.obs["target_gene"])


def spoil(adata, how):
    obs = adata.obs
    if how == "control":
        return adata[obs["target_gene"] != CONTROL].copy(), "has no control cells"
    if how == "misspelt control":
        adata.obs["target_gene"] = obs["target_gene"].astype(str).replace(CONTROL, "nontargeting")
        return adata, "did you mean 'nontargeting'"
    if how == "target_gene":
        adata.obs = obs.rename(columns={how: how + "s"})
        return adata, f"no column '{how}' in obs.*did you mean '{how}s'"
    if how == "unlabelled":
        adata.obs["target_gene"] = obs["target_gene"].where(np.arange(adata.n_obs) > 2)
        return adata, "3 cells have no value"
    if how == "duplicated":
        adata.var_names = [*adata.var_names[1:2], *adata.var_names[1:]]
        return adata, f"more than once: \\['{adata.var_names[1]}'\\]"
    if how in ("empty cells", "empty genes"):
        return (adata[:0].copy() if how == "empty cells" else adata[:, :0].copy()), "the screen is empty"
    if how in ("sign 2", "control with a sign", "perturbed without"):
        adata.obs["sign"] = {"sign 2": obs["sign"] * 2, "control with a sign": -1, "perturbed without": 0}[how]
        return adata, f"obs\\['sign'\\] must be {'-1' if how == 'sign 2' else '0 exactly for control'}"
    if how == "words for magnitude":
        adata.obs["magnitude"] = "high"
        return adata, "must be log2 fold changes"
    if how == "cell without counts":
        adata.X = sp.csr_matrix(adata.X.toarray() * (np.arange(adata.n_obs) > 0)[:, None])
        return adata, "1 cells have no count"
    adata.X.data[5] = {"fraction": 0.5, "negative": -1, "nan": np.nan, "infinite": np.inf}[how]
    return adata, {"fraction": "0.5, not a whole", "negative": "-1, a negative"}.get(how, "NaN or infinite")


@pytest.mark.parametrize("how", [
    "control", "misspelt control", "target_gene", "unlabelled", "duplicated", "empty cells", "empty genes",
    "sign 2", "control with a sign", "perturbed without", "words for magnitude", "cell without counts", "fraction",
    "negative", "nan", "infinite"])
@pytest.mark.parametrize("dense", [False, True])
def test_bad_screens_are_refused_at_the_door(small, how, dense):
    check_screen(small)
    bad, message = spoil(small, how)
    if dense:
        bad.X = bad.X.toarray()
    with pytest.raises(CDTError, match=message):
        check_screen(bad)


def test_bad_files_are_refused(small, tmp_path):
    path = saved(small, tmp_path)
    (tmp_path / "cut.h5ad").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "text.h5ad").write_text("gene,count")
    for name in ("cut.h5ad", "text.h5ad"):
        with pytest.raises(CDTError, match=f"{name} is not an .h5ad file that can be read"):
            load_screen(tmp_path / name)
    with pytest.raises(CDTError, match="default_sign must be -1"):
        load_screen(path, default_sign=0)
    with pytest.raises(CDTError, match="no column 'targt'"):
        load_screen(path, Columns(target="targt"))


# --- the panel -------------------------------------------------------------------------------------------------------

def test_panel_is_chosen_on_training_cells_and_keeps_perturbed_genes(tmp_path):
    """Only what varies among training cells gets in, whatever the held-out cells do; every measured target does."""
    rng = np.random.default_rng(0)
    n = 600
    counts = rng.poisson(np.exp(rng.normal(0.7, 0.7, 300)), (n, 300)).astype(np.float32)
    train = np.arange(n) < 400
    counts[train, 10:20] *= rng.choice([0, 2], (400, 10))  # varies in training cells, mean unchanged
    counts[~train, 20:30] *= rng.choice([0, 4], (200, 10))  # varies in held-out cells only
    target = np.array([CONTROL, "g0", "g1", "elsewhere"])[np.arange(n) % 4]
    adata = ad.AnnData(counts, obs=pd.DataFrame({"target_gene": target}, index=[f"c{i}" for i in range(n)]),
                       var=pd.DataFrame(index=[f"g{i}" for i in range(300)]))
    path = saved(adata, tmp_path)
    chosen = choose_panel(load_screen(path, n_top_genes=None), 12, train)
    assert list(chosen.var_names) == ["g0", "g1", *(f"g{i}" for i in range(10, 20))]
    assert list(chosen.uns["screen"]["unmeasured_targets"]) == ["elsewhere"]
    assert (chosen.obs["target_gene"] == "elsewhere").sum() == n // 4  # a condition still
    np.testing.assert_array_equal(chosen.obs["n_umi"], counts[:, [0, 1, *range(10, 20)]].sum(1))
    leaky = choose_panel(load_screen(path, n_top_genes=None), 22, np.ones(n, bool))
    assert {"g20", "g25"} <= set(leaky.var_names)
    assert load_screen(path).n_vars == 300  # fewer than 2000: all
    with pytest.raises(CDTError, match="n_top_genes must be at least 2"):
        load_screen(path, n_top_genes=1)
    for mask in (np.ones(5, bool), np.zeros(n, bool), np.ones(n)):
        with pytest.raises(CDTError, match="train_mask must be 600 booleans"):
            choose_panel(load_screen(path, n_top_genes=None), 12, mask)


def test_without_a_mask_what_the_named_split_withholds_chooses_no_gene(tmp_path):
    rng = np.random.default_rng(0)
    n = 600
    counts = rng.poisson(np.exp(rng.normal(0.7, 0.7, 300)), (n, 300)).astype(np.float32)
    target = np.array([CONTROL, *(f"g{i}" for i in range(6))])[np.arange(n) % 7]
    adata = ad.AnnData(counts, obs=pd.DataFrame({"target_gene": target, "batch": np.where(np.arange(n) % 2, "a", "b")},
                                                index=[f"c{i}" for i in range(n)]),
                       var=pd.DataFrame(index=[f"g{i}" for i in range(300)]))
    train = named_split(load_screen(saved(adata, tmp_path))) == "train"
    adata.X[~train, 20:30] *= rng.choice([0, 4], ((~train).sum(), 10))  # varies in withheld cells only
    adata.X[np.ix_(train, range(10, 20))] *= rng.choice([0, 2], (train.sum(), 10))
    chosen = load_screen(saved(adata, tmp_path), n_top_genes=16)
    assert list(chosen.var_names) == [f"g{i}" for i in [*range(6), *range(10, 20)]]
    assert (named_split(chosen) == named_split(load_screen(saved(adata, tmp_path)))).all()


@pytest.mark.parametrize("n_cells", [200, 400])
def test_a_panel_is_chosen_among_many_rare_genes(tmp_path, n_cells):
    """Most genes have the same few means, so that scanpy's own fit is singular; ten vary far beyond their means."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(10 ** rng.uniform(-3.5, -0.7, 2000), (n_cells, 2000)).astype(np.float32)
    varies = np.arange(100, 110)
    counts[:, varies] = rng.choice([0, 4], (n_cells, 10), p=[0.97, 0.03])
    counts[:, 1] += 1
    target = np.array([CONTROL, "g1", "g2", "g3", "g4", "g5"])[np.arange(n_cells) % 6]
    obs = pd.DataFrame({"target_gene": target, "batch": np.where(np.arange(n_cells) % 4 < 2, "a", "b")},
                       index=[f"c{i}" for i in range(n_cells)])
    adata = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(2000)]))
    with pytest.raises(ValueError):
        panel._above_trend(adata, 15, panel.SPANS[0])
    with pytest.warns(CDTWarning, match=r"could not be fitted to these 2,000 genes \(.*\): it was with span="):
        chosen = load_screen(saved(adata, tmp_path), n_top_genes=15)
    assert list(chosen.var_names) == [f"g{i}" for i in [1, 2, 3, 4, 5, *varies]]


def test_cells_without_a_count_in_the_panel_are_left_out_and_that_is_said(small):
    counts = small.X.toarray()
    counts[:, 0] = 1
    counts[:7, :10] = 0
    small.X = sp.csr_matrix(counts)
    with pytest.warns(CDTWarning, match=r"7 of 200 cells have no count in the 10 genes of the panel and are left out$"):
        kept = on_panel(small, list(small.var_names[:10]))
    np.testing.assert_array_equal(kept.X.toarray(), counts[7:, :10])
    assert list(kept.obs_names) == list(small.obs_names[7:])


def test_the_genes_of_a_model_are_taken_from_a_screen_in_its_order(small):
    genes = [*small.var_names[40:2:-1], "NOT_THERE"]
    kept = on_panel(small, genes)
    assert list(kept.var_names) == genes[:-1]
    np.testing.assert_array_equal(kept.X.toarray(), small[:, genes[:-1]].X.toarray())
    np.testing.assert_array_equal(kept.obs["n_umi"], kept.X.toarray().sum(1))
    assert on_panel(small, list(small.var_names)) is small
    assert on_panel(small, ["NOT_THERE"]) is small  # who asks says what is wrong


def test_a_panel_that_cannot_be_chosen_says_what_to_do(small, tmp_path):
    small.X = sp.csr_matrix(np.ones(small.shape, np.float32))
    with pytest.raises(CDTError, match="too few cells or counts to pick 10 of 64 genes"):
        load_screen(saved(small, tmp_path), n_top_genes=10)


# --- blood -----------------------------------------------------------------------------------------------------------

def test_blood_cells_have_their_counts_back(capfd):
    """A cell's values over their smallest are whole numbers: those are the counts, found without its total."""
    import scanpy as sc

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        blood = blood_cells()
    assert not shown_to_a_reader(said)
    assert capfd.readouterr().err == ""
    assert blood.shape == (700, 765) and blood.obs["cell_type"].nunique() == 10
    scaled = np.expm1(sc.datasets.pbmc68k_reduced().raw.X.toarray().astype(float))
    smallest = np.where(scaled > 0, scaled, np.inf).min(1, keepdims=True)
    np.testing.assert_array_equal(blood.X.toarray(), np.round(scaled / smallest))
    assert set(blood.obs["target_gene"]) == {CONTROL} and not blood.obs["sign"].any()
    check_screen(blood)


def test_blood_cells_that_are_not_counts_are_refused(monkeypatch):
    import scanpy as sc

    source = sc.datasets.pbmc68k_reduced()
    wrong = source.raw.to_adata()
    wrong.X = wrong.X * 1.01
    wrong.raw = wrong
    monkeypatch.setattr(sc.datasets, "pbmc68k_reduced", lambda: wrong)
    with pytest.raises(CDTError, match="from a whole number"):
        blood_cells()
