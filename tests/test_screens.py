"""Screens: the real file's facts, what is refused at the door, and where the network is and is not needed."""

import functools
import http.server
import json
import shutil
import socket
import threading
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pooch
import pytest
import scipy.sparse as sp

from cdt_lite import screens
from cdt_lite.errors import CDTError
from cdt_lite.screens import PUBLIC, blood_cells, check_screen, load_screen, resolve_screen
from cdt_lite.simulate import screen_hash, simulate_screen

FILE = Path(PUBLIC["papalexi2021"]["path"]).name
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    """Every test starts with an empty cache, no mirror and no preference."""
    for name in ("CDT_LITE_MIRROR", "CDT_LITE_OFFLINE", "CDT_SCREEN", "http_proxy", "https_proxy", "HTTP_PROXY",
                 "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mirror(monkeypatch, real_screen_dir):
    monkeypatch.setenv("CDT_LITE_MIRROR", str(real_screen_dir))
    return real_screen_dir


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A web server on loopback that stands in for the public address; returns the path of the file that it serves."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = tmp_path / "www" / PUBLIC["papalexi2021"]["path"]
    served.parent.mkdir(parents=True)
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(screens, "BASE_URL", f"http://127.0.0.1:{running.server_port}")
        yield served
        running.shutdown()


@pytest.fixture
def small():
    """A good small screen in the layout."""
    return simulate_screen(64, 4, 200, unmeasured_fraction=0.25)


def saved(adata, tmp_path, name="screen.h5ad"):
    adata.write_h5ad(tmp_path / name)
    return tmp_path / name


# --- the real screen -------------------------------------------------------------------------------------------------

def test_papalexi_facts(mirror):
    """The numbers of a first look at the file, made without this code."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the R file is read without a word
        screen = load_screen("papalexi2021")
    assert screen.shape == (18_826, 299) and isinstance(screen.X, sp.csr_matrix) and screen.X.dtype == np.float32
    assert (screen.X.data % 1 == 0).all() and screen.X.data.min() == 1 and screen.X.data.max() == 278
    counts = screen.obs["target_gene"].value_counts()
    first_look = {"non-targeting": 2205, "IFNGR1": 1166, "IFNGR2": 1116, "CD86": 1074, "IRF1": 1016, "ATF2": 1008,
                  "JAK2": 982, "CUL3": 236, "MYC": 93, "SPI1": 43}
    assert counts[list(first_look)].to_dict() == first_look and len(counts) == 26
    assert sorted(screen.obs["batch"].unique()) == ["rep_1", "rep_2", "rep_3"]
    unmeasured = set(screen.uns["screen"]["unmeasured_targets"])
    assert len(unmeasured) == 16 and unmeasured >= {"IFNGR1", "SMAD4", "IRF1", "BRD4", "CUL3", "MYC"}
    measured = set(counts.index) - unmeasured - {"non-targeting"}
    assert measured == {"STAT1", "JAK2", "CMTM6", "STAT2", "UBE2L6", "STAT3", "TNFRSF14", "IFNGR2", "NFKBIA"}
    magnitude = screen.obs.groupby(["target_gene", "batch"], observed=True)["magnitude"].agg(["min", "max"])
    by_hand = log2_fold_change(screen, "JAK2", "rep_2")  # of each replicate by itself, so that none leaks into another
    assert magnitude.loc[("JAK2", "rep_2")].tolist() == pytest.approx([by_hand, by_hand], abs=0.005)
    assert magnitude.loc[list(unmeasured)].isna().all(axis=None) and (magnitude.loc["non-targeting"] == 0).all(axis=None)
    assert screen.obs.groupby("guide", observed=True)["target_gene"].nunique().max() == 1
    check_screen(screen, sign_key="sign", magnitude_key="magnitude")


def test_interferon_knockouts_move_many_genes_and_cd86_none(mirror):
    """The biology that the file is known for: log1p of depth-scaled counts, Welch z against non-targeting cells."""
    screen = load_screen("papalexi2021")
    log1p = np.log1p(screen.X.toarray() / screen.obs["n_umi"].to_numpy()[:, None] * 200)
    label = screen.obs["target_gene"].to_numpy()

    def moved(gene):
        a, b = log1p[label == gene], log1p[label == "non-targeting"]
        z = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
        return (np.abs(z) > 4).sum()

    assert min(map(moved, ["IFNGR1", "IFNGR2", "JAK2"])) > 45
    assert 35 < moved("STAT1") < 70 and moved("SMAD4") > 20 and moved("CD86") <= 2


def test_second_load_is_fast_and_the_same(mirror, empty_cache):
    first = load_screen("papalexi2021")
    start = time.perf_counter()
    again = load_screen("papalexi2021")
    assert time.perf_counter() - start < 1
    pd.testing.assert_frame_equal(first.obs, again.obs)
    assert screen_hash(first) == screen_hash(again) == again.uns["screen"]["sha256"]
    converted = next(empty_cache.glob("*.h5ad"))
    converted.write_bytes(converted.read_bytes()[:100_000])  # cut short: made again from the checked file
    assert screen_hash(load_screen("papalexi2021")) == screen_hash(first)
    altered = ad.read_h5ad(converted)
    altered.X.data[:] = 1
    altered.write_h5ad(converted)
    assert screen_hash(load_screen("papalexi2021")) == screen_hash(first)


def test_a_smaller_panel_of_the_real_screen_keeps_its_targets(mirror):
    screen = load_screen("papalexi2021", n_top_genes=60)
    assert screen.n_vars == 60 and {"JAK2", "STAT1", "NFKBIA"} <= set(screen.var_names)
    assert len(screen.uns["screen"]["unmeasured_targets"]) == 16


def test_the_manifest_says_what_the_code_says():
    manifest = json.loads((ROOT / "data" / "manifest.json").read_text())
    for name, facts in PUBLIC.items():
        entry = manifest[name]
        assert entry["url"] == f"{screens.BASE_URL}/{facts['path']}" and entry["sha256"] == facts["file_sha256"]
        assert entry["licence"] == facts["licence"]


def test_the_manifest_gives_the_size(real_screen_dir):
    manifest = json.loads((ROOT / "data" / "manifest.json").read_text())
    assert (real_screen_dir / FILE).stat().st_size == manifest["papalexi2021"]["bytes"]


# --- getting the file ------------------------------------------------------------------------------------------------

def test_download_from_a_server(server, real_screen_dir, empty_cache):
    said, logger = [], pooch.get_logger()
    logger.addFilter(said.append)  # what pooch would write to stderr; None lets nothing through
    shutil.copy(real_screen_dir / FILE, server)
    screen = load_screen("papalexi2021")
    assert screen.n_obs == 18_826 and (empty_cache / FILE).is_file()
    server.unlink()
    assert load_screen("papalexi2021").n_obs == 18_826  # once is enough
    logger.removeFilter(said.append)
    assert not said and not logger.disabled  # silent then, and as talkative as before afterwards


def log2_fold_change(screen, gene, batch):
    """log2 of the mean share of a gene's counts, perturbed over control cells of one replicate."""
    own = screen[:, gene].X.toarray().ravel() / screen.X.sum(1).A1
    here, target = screen.obs["batch"] == batch, screen.obs["target_gene"]
    depth = np.median(np.asarray(screen.X.sum(1)).ravel()[target == "non-targeting"])
    return np.log2((own[here & (target == gene)].mean() * depth + 0.01)
                   / (own[here & (target == "non-targeting")].mean() * depth + 0.01))


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_download_is_refused_and_removed(server, empty_cache, damage):
    server.write_bytes(b"RDX2" if damage == "truncated" else b"RDX2" + b"x" * 1_358_263)
    with pytest.raises(CDTError, match=r"refused and removed.*(?s:.)*sha256.*(?s:.)*CDT_LITE_MIRROR"):
        load_screen("papalexi2021")
    with pytest.raises(CDTError, match="refused"):  # never a reason to fall back in silence
        resolve_screen()
    assert list(empty_cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused_and_removed(empty_cache):
    empty_cache.mkdir()
    (empty_cache / FILE).write_bytes(b"cut short")
    with pytest.raises(CDTError, match="refused and removed"):
        load_screen("papalexi2021")
    assert not (empty_cache / FILE).exists()


def test_a_damaged_mirror_is_refused_and_left_alone(monkeypatch, tmp_path):
    (tmp_path / FILE).write_bytes(b"cut short")
    monkeypatch.setenv("CDT_LITE_MIRROR", str(tmp_path))
    with pytest.raises(CDTError, match="was refused: it is truncated"):
        load_screen("papalexi2021")
    assert (tmp_path / FILE).read_bytes() == b"cut short"
    (tmp_path / FILE).unlink()
    with pytest.raises(CDTError, match=f"has no {FILE}"):
        load_screen("papalexi2021")


def test_a_missing_page_falls_back_and_says_so(server):
    screen, note = resolve_screen()
    assert screen.uns["screen"]["name"] == "simulated" and "404" in note and "\n" not in note


def test_a_cache_that_cannot_be_written_does_not_stop_the_mirror(mirror, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path / "file"))
    assert load_screen("papalexi2021").n_obs == 18_826


@pytest.mark.parametrize("network", ["refused", "look-up hangs", "connection hangs", "offline"])
def test_without_network_the_simulated_screen_comes_within_three_seconds(monkeypatch, network):
    probed = []
    if network == "refused":
        monkeypatch.setattr(screens, "BASE_URL", "http://127.0.0.1:9")
    elif network == "look-up hangs":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(60))
    elif network == "connection hangs":
        monkeypatch.setattr(socket, "create_connection", lambda *a, **k: time.sleep(60))
    else:
        monkeypatch.setenv("CDT_LITE_OFFLINE", "1")
        monkeypatch.setattr(socket, "create_connection", lambda *a, **k: probed.append(a))
    start = time.perf_counter()
    with pytest.raises(screens.Unreachable):
        load_screen("papalexi2021")
    assert time.perf_counter() - start < 3.3 and not probed
    monkeypatch.setattr(screens, "PROBE_SECONDS", 0.2)
    screen, note = resolve_screen()
    assert screen.uns["screen"]["name"] == "simulated" and "simulated" in note and "papalexi2021" in note
    assert "\n" not in note and note.endswith("12,000 simulated cells x 256 genes, 30 targets, 3 replicates")


def test_offline_still_uses_a_mirror_or_a_cache(mirror, monkeypatch):
    monkeypatch.setenv("CDT_LITE_OFFLINE", "1")
    note = resolve_screen()[1]
    assert note == "papalexi2021: 18,826 real cells x 299 genes, 25 targets, 3 replicates"
    monkeypatch.delenv("CDT_LITE_MIRROR")
    assert resolve_screen()[1] == note


def test_cdt_screen_overrides(mirror, monkeypatch):
    monkeypatch.setenv("CDT_SCREEN", "simulated")
    assert resolve_screen()[1].startswith("simulated: 12,000 simulated cells")


# --- names and options -----------------------------------------------------------------------------------------------

def test_simulated_takes_its_options_and_others_refuse_them(mirror):
    screen = load_screen("simulated", n_genes=64, n_targets=4, n_cells=150, seed=3, world="linear")
    assert screen_hash(screen) == screen_hash(simulate_screen(64, 4, 150, seed=3, world="linear"))
    with pytest.raises(CDTError, match=r"n_genes.*simulated screen only"):
        load_screen("papalexi2021", n_genes=64)


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
        "gene": small.obs["target_gene"].astype(str).replace("non-targeting", "ctrl"), "lane": small.obs["batch"],
        "direction": small.obs["sign"].astype(float), "lfc": small.obs["magnitude"], "donor": "d1"})
    own.X = own.X.toarray()
    screen = load_screen(saved(own, tmp_path), target_key="gene", control="ctrl", batch_key="lane",
                         sign_key="direction", magnitude_key="lfc")
    assert screen_hash(screen) == screen_hash(small)
    assert isinstance(screen.X, sp.csr_matrix) and screen.obs["sign"].dtype == np.int8
    assert (screen.obs["donor"] == "d1").all()  # what else the file says about its cells stays
    assert list(screen.uns["screen"]["unmeasured_targets"]) == list(small.uns["screen"]["unmeasured_targets"])
    assert str(tmp_path) not in str(screen.uns)


@pytest.mark.parametrize("default_sign", [-1, 1])
def test_without_a_sign_column_the_default_sign_holds(small, tmp_path, default_sign):
    screen = load_screen(saved(small, tmp_path), batch_key=None, default_sign=default_sign)
    control = (screen.obs["target_gene"] == "non-targeting").to_numpy()
    assert set(screen.obs["sign"][~control]) == {default_sign} and set(screen.obs["sign"][control]) == {0}
    assert screen.obs["magnitude"][~control].isna().all() and screen.obs["batch"].nunique() == 1


def test_counts_in_a_layer_are_named_and_used(small, tmp_path):
    own = small.copy()
    own.layers["umi"] = own.X.copy()
    own.X = own.X.log1p()
    path = saved(own, tmp_path)
    with pytest.raises(CDTError, match=r"not a whole number; counts are in layer 'umi': pass layer='umi'"):
        load_screen(path)
    assert (load_screen(path, layer="umi", sign_key="sign").X != small.X).nnz == 0
    with pytest.raises(CDTError, match=r"no layer 'um'.*did you mean 'umi'"):
        load_screen(path, layer="um")


def test_counts_in_raw_are_named(small):
    small.raw = small.copy()
    small.X = small.X * 0.5
    with pytest.raises(CDTError, match=r"adata\.raw"):
        check_screen(small)


def spoil(adata, how):
    obs = adata.obs
    if how == "control":
        return adata[obs["target_gene"] != "non-targeting"].copy(), "no control cells"
    if how == "misspelt control":
        adata.obs["target_gene"] = obs["target_gene"].astype(str).replace("non-targeting", "Non-Targeting")
        return adata, "did you mean 'Non-Targeting'"
    if how in ("target_gene", "batch"):
        adata.obs = obs.rename(columns={how: how + "s"})
        return adata, f"obs has no '{how}'.*did you mean '{how}s'"
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
        return adata, "obs\\['sign'\\] must be -1 or \\+1"
    if how == "words for magnitude":
        adata.obs["magnitude"] = "high"
        return adata, "must be log2 fold changes"
    if how == "cell without counts":
        adata.X = sp.csr_matrix(adata.X.toarray() * (np.arange(adata.n_obs) > 0)[:, None])
        return adata, "1 cells have no count"
    adata.X.data[5] = {"fraction": 0.5, "negative": -1, "nan": np.nan, "infinite": np.inf}[how]
    return adata, {"fraction": "0.5, not a whole", "negative": "-1, a negative"}.get(how, "NaN or infinite")


@pytest.mark.parametrize("how", [
    "control", "misspelt control", "target_gene", "batch", "unlabelled", "duplicated", "empty cells", "empty genes",
    "sign 2", "control with a sign", "perturbed without", "words for magnitude", "cell without counts", "fraction",
    "negative", "nan", "infinite"])
@pytest.mark.parametrize("dense", [False, True])
def test_bad_screens_are_refused_at_the_door(small, how, dense):
    check_screen(small, sign_key="sign", magnitude_key="magnitude")
    bad, message = spoil(small, how)
    if dense:
        bad.X = bad.X.toarray()
    with pytest.raises(CDTError, match=message):
        check_screen(bad, sign_key="sign", magnitude_key="magnitude")


def test_bad_files_are_refused(small, tmp_path):
    path = saved(small, tmp_path)
    (tmp_path / "cut.h5ad").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "text.h5ad").write_text("gene,count")
    for name in ("cut.h5ad", "text.h5ad"):
        with pytest.raises(CDTError, match=f"{name} is not an .h5ad file that can be read"):
            load_screen(tmp_path / name)
    with pytest.raises(CDTError, match="default_sign must be -1"):
        load_screen(path, default_sign=0)
    with pytest.raises(CDTError, match="obs has no 'targt'"):
        load_screen(path, target_key="targt")


# --- the panel -------------------------------------------------------------------------------------------------------

def test_panel_is_chosen_on_training_cells_and_keeps_perturbed_genes(tmp_path):
    """Only what varies among training cells gets in, whatever the held-out cells do; every measured target does."""
    rng = np.random.default_rng(0)
    n = 600
    counts = rng.poisson(np.exp(rng.normal(0.7, 0.7, 300)), (n, 300)).astype(np.float32)
    train = np.arange(n) < 400
    counts[train, 10:20] *= rng.choice([0, 2], (400, 10))  # varies in training cells, mean unchanged
    counts[~train, 20:30] *= rng.choice([0, 4], (200, 10))  # varies in held-out cells only
    target = np.array(["non-targeting", "g0", "g1", "elsewhere"])[np.arange(n) % 4]
    adata = ad.AnnData(counts, obs=pd.DataFrame({"target_gene": target}, index=[f"c{i}" for i in range(n)]),
                       var=pd.DataFrame(index=[f"g{i}" for i in range(300)]))
    path = saved(adata, tmp_path)
    panel = load_screen(path, batch_key=None, n_top_genes=12, train_mask=train)
    assert list(panel.var_names) == ["g0", "g1", *(f"g{i}" for i in range(10, 20))]
    assert list(panel.uns["screen"]["unmeasured_targets"]) == ["elsewhere"]
    assert (panel.obs["target_gene"] == "elsewhere").sum() == n // 4  # a condition still
    np.testing.assert_array_equal(panel.obs["n_umi"], counts[:, [0, 1, *range(10, 20)]].sum(1))
    leaky = load_screen(path, batch_key=None, n_top_genes=22)
    assert {"g20", "g25"} <= set(leaky.var_names)
    assert load_screen(path, batch_key=None).n_vars == 300  # fewer than 2000: all
    with pytest.raises(CDTError, match="n_top_genes must be at least 2"):
        load_screen(path, batch_key=None, n_top_genes=1)
    for mask in (np.ones(5, bool), np.zeros(n, bool), np.ones(n)):
        with pytest.raises(CDTError, match="train_mask must be 600 booleans"):
            load_screen(path, batch_key=None, n_top_genes=12, train_mask=mask)


def test_a_panel_that_cannot_be_chosen_says_what_to_do(small, tmp_path):
    counts = np.random.default_rng(0).poisson(0.02, (small.n_obs, small.n_vars)).astype(np.float32)
    counts[:, 0] = 1
    small.X = sp.csr_matrix(counts)
    with pytest.raises(CDTError, match="too few cells or counts to pick 10 of 64 genes"):
        load_screen(saved(small, tmp_path), n_top_genes=10)


# --- blood -----------------------------------------------------------------------------------------------------------

def test_blood_cells_have_their_counts_back(capfd):
    """A cell's values over their smallest are whole numbers: those are the counts, found without its total."""
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blood = blood_cells()
    assert capfd.readouterr().err == ""
    assert blood.shape == (700, 765) and blood.obs["cell_type"].nunique() == 10
    scaled = np.expm1(sc.datasets.pbmc68k_reduced().raw.X.toarray().astype(float))
    smallest = np.where(scaled > 0, scaled, np.inf).min(1, keepdims=True)
    np.testing.assert_array_equal(blood.X.toarray(), np.round(scaled / smallest))
    assert set(blood.obs["target_gene"]) == {"non-targeting"} and not blood.obs["sign"].any()
    check_screen(blood, sign_key="sign", magnitude_key="magnitude")


def test_blood_cells_that_are_not_counts_are_refused(monkeypatch):
    import scanpy as sc

    source = sc.datasets.pbmc68k_reduced()
    wrong = source.raw.to_adata()
    wrong.X = wrong.X * 1.01
    wrong.raw = wrong
    monkeypatch.setattr(sc.datasets, "pbmc68k_reduced", lambda: wrong)
    with pytest.raises(CDTError, match="from a whole number"):
        blood_cells()
