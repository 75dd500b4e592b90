"""Screens: the real file's facts, what is refused at the door, and where the network is and is not needed."""

import functools
import http.server
import shutil
import socket
import threading
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import anndata as ad
import numpy as np
import pandas as pd
import pooch
import pytest
import scipy.sparse as sp
from helpers import shown_to_a_reader

from cdt_lite.data import public
from cdt_lite.data.layout import check_screen, screen_hash
from cdt_lite.data.public import SCREENS
from cdt_lite.data.screens import load_screen, resolve_screen
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.errors import CDTError

ENTRY = SCREENS["papalexi2021"]
FILE = ENTRY["file"]


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

    served = tmp_path / "www" / FILE
    served.parent.mkdir(parents=True)
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setitem(ENTRY, "url", f"http://127.0.0.1:{running.server_port}/{FILE}")
        yield served
        running.shutdown()


@pytest.fixture
def small():
    """A good small screen in the layout."""
    return simulate_screen(64, 4, 200, design=ScreenDesign(unmeasured_fraction=0.25))


def saved(adata, tmp_path, name="screen.h5ad"):
    adata.write_h5ad(tmp_path / name)
    return tmp_path / name


# --- the real screen -------------------------------------------------------------------------------------------------

def test_papalexi_facts(mirror):
    """The numbers of a first look at the file, made without this code."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        screen = load_screen("papalexi2021")
    assert not shown_to_a_reader(said)
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
    assert magnitude.loc[list(unmeasured)].isna().all(axis=None)
    assert (magnitude.loc["non-targeting"] == 0).all(axis=None)
    assert screen.obs.groupby("guide", observed=True)["target_gene"].nunique().max() == 1
    check_screen(screen)


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


def test_the_manifest_gives_the_size(real_screen_dir):
    assert (real_screen_dir / FILE).stat().st_size == ENTRY["bytes"]
    assert Path(urlsplit(ENTRY["url"]).path).name == FILE


def test_the_address_of_a_download_stands_in_the_manifest_alone():
    root = Path(public.__file__).parents[2]
    for path in [*root.glob("cdt_lite/**/*"), *root.glob("tools/*"), *root.glob("data/*")]:
        if path.suffix in (".py", ".json", ".md", ".toml") and path.name != "manifest.json":
            text = path.read_text(encoding="utf-8")
            assert ENTRY["sha256"] not in text and "raw.githubusercontent" not in text, path


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
        monkeypatch.setitem(ENTRY, "url", f"http://127.0.0.1:9/{FILE}")
    elif network == "look-up hangs":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(60))
    elif network == "connection hangs":
        monkeypatch.setattr(socket, "create_connection", lambda *a, **k: time.sleep(60))
    else:
        monkeypatch.setenv("CDT_LITE_OFFLINE", "1")
        monkeypatch.setattr(socket, "create_connection", lambda *a, **k: probed.append(a))
    start = time.perf_counter()
    with pytest.raises(public.Unreachable):
        load_screen("papalexi2021")
    assert time.perf_counter() - start < 3.3 and not probed
    monkeypatch.setattr(public, "PROBE_SECONDS", 0.2)
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
