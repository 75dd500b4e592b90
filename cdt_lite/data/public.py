"""Public cells: where they are, what their hash is, how they are brought into the layout."""

import contextlib
import os
import socket
import threading
import warnings
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import anndata as ad
import numpy as np
import pandas as pd
import pooch
import scipy.sparse as sp

from cdt_lite.data.layout import CONTROL, in_layout, screen_hash
from cdt_lite.errors import CDTError

BASE_URL, PROBE_SECONDS = "https://raw.githubusercontent.com", 3.0
PUBLIC: dict[str, dict[str, Any]] = {"papalexi2021": {  # raise "version" when the conversion below changes
    "path": "Katsevich-Lab/sceptredata/ec722d5df90dfd34ace6cc9a5745ab6a5c2a6731/data/lowmoi_example_data.rda",
    "file_sha256": "e3f8ad09bb4b1d0deeeec2850a2d96f8f5062fef31a9ab1cc080e60560421b6a", "version": "2", "licence": "MIT",
    "attribution": "Papalexi et al. 2021, doi:10.1038/s41588-021-00778-2; GEO GSE153056; R package sceptredata"}}
MIN_GUIDE_UMI, MIN_GUIDE_SHARE = 5, 0.6  # what a cell's top guide needs, in UMI and as a share of its guide UMI


class Unreachable(CDTError):
    """The public screen is not on this machine and the network does not give it."""


def blood_cells() -> ad.AnnData:
    """Real unperturbed blood cells that ship inside scanpy (700 cells x 765 genes), with their raw counts recovered.

    scanpy keeps log1p of counts scaled to 10,000 a cell, and totals: undone and rounded (CDTError if off by over 0.1).
    """
    import scanpy as sc
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a reader says about the age of scanpy's own file
        source = sc.datasets.pbmc68k_reduced()
    counts = sp.csr_matrix(source.raw.X, dtype=np.float64, copy=True)
    counts.data = np.expm1(counts.data) * np.repeat(source.obs["n_counts"].to_numpy() / 1e4, np.diff(counts.indptr))
    if not (worst := np.abs(counts.data - counts.data.round()).max()) <= 0.1:
        raise CDTError(f"scanpy's cells should be scaled counts, but one value lies {worst:.2f} from a whole number")
    obs = pd.DataFrame({"target_gene": CONTROL, "batch": "pbmc68k", "sign": 0, "magnitude": 0.0,
                        "cell_type": source.obs["bulk_labels"].astype("category")}, index=source.obs_names)
    return in_layout(counts.rint(), obs, source.raw.var_names, {
        "name": "pbmc68k", "version": "1", "source": "scanpy.datasets.pbmc68k_reduced", "licence": "BSD-3-Clause",
        "attribution": "Zheng et al. 2017, Nature Communications, doi:10.1038/ncomms14049; 10x Genomics; scanpy"})


def _load_public(name: str) -> ad.AnnData:
    """Reads the converted file in the cache, or makes it: a second load takes a fraction of a second."""
    folder = Path(os.environ.get("CDT_LITE_DATA") or pooch.os_cache("cdt_lite"))
    converted = folder / f"{name}-{PUBLIC[name]['version']}-{PUBLIC[name]['file_sha256'][:12]}.h5ad"
    with contextlib.suppress(Exception):  # not there yet, cut short or of another version: made again
        adata = ad.read_h5ad(converted)
        if adata.uns["screen"]["sha256"] == screen_hash(adata):
            return adata
    adata = _convert_papalexi(_fetch(PUBLIC[name], folder), name)
    unfinished = converted.with_name(f"{os.getpid()}-{converted.name}")
    with contextlib.suppress(OSError):  # a full disk or a folder of someone else: the cache only saves time
        folder.mkdir(parents=True, exist_ok=True)
        adata.write_h5ad(unfinished)
        os.replace(unfinished, converted)
    with contextlib.suppress(OSError):  # what a full disk left
        unfinished.unlink()
    return adata


def _fetch(spec: dict[str, Any], folder: Path) -> Path:
    """Finds the public file in the cache, the mirror or the network, and refuses it if its hash is another."""
    url, cached = f"{BASE_URL}/{spec['path']}", folder / Path(spec["path"]).name
    path = Path(mirror) / cached.name if (mirror := os.getenv("CDT_LITE_MIRROR")) and not cached.exists() else cached
    if mirror and not path.exists():
        raise CDTError(f"the folder CDT_LITE_MIRROR={mirror} has no {path.name}: put {url} there, or unset it")
    if not path.exists():
        _download(url, path)
    if pooch.file_hash(str(path)) != spec["file_sha256"]:
        if path == cached:  # a mirror is the user's: nothing is removed there
            path.unlink()
        raise CDTError(f"{path.name} was refused{' and removed' if path == cached else ''}: it is truncated or altered "
                       f"(its sha256 is not {spec['file_sha256']}). Load again to fetch it anew, or put a good copy of "
                       f"{url} into a folder and name that with CDT_LITE_MIRROR")
    return path


def _download(url: str, path: Path) -> None:
    """Fetches a file that the caller will check, or says within `PROBE_SECONDS` that the network does not answer."""
    offline = os.environ.get("CDT_LITE_OFFLINE", "0") not in ("", "0")
    if offline or not _network_answers():
        raise Unreachable("CDT_LITE_OFFLINE is set" if offline else f"{urlsplit(BASE_URL).hostname} does not answer")
    downloader = pooch.HTTPDownloader(timeout=(PROBE_SECONDS, 30))
    pooch.get_logger().disabled = True  # its notices would go to stderr
    try:
        pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=downloader)
    except OSError as error:
        raise Unreachable(f"{url} could not be fetched into CDT_LITE_DATA or its default: {error}") from error
    finally:
        pooch.get_logger().disabled = False


def _network_answers() -> bool:
    """Says within `PROBE_SECONDS`, even if name look-up hangs, whether the host of BASE_URL or its proxy answers."""
    url, answered = urlsplit(getproxies().get(urlsplit(BASE_URL).scheme, BASE_URL)), threading.Event()

    def probe() -> None:
        with contextlib.suppress(Exception):  # blocked networks raise many kinds
            socket.create_connection((url.hostname, url.port or 443), timeout=PROBE_SECONDS).close()
            answered.set()

    (thread := threading.Thread(target=probe, daemon=True)).start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _convert_papalexi(path: Path, name: str) -> ad.AnnData:
    """Reads the R file, gives each cell to its top guide, and drops cells whose guide is not clear."""
    from rdata import conversion, read_rda

    def matrix(slots: Any, _: Any) -> tuple[sp.csr_matrix, np.ndarray]:  # R stores features x cells as triplets
        return sp.csr_matrix((slots.x, (slots.j, slots.i)), shape=slots.Dim[::-1]), np.asarray(slots.Dimnames[0])

    classes = {**conversion.DEFAULT_CLASS_MAP, "dgTMatrix": matrix}
    data = read_rda(path, constructor_dict=classes)["lowmoi_example_data"]
    (counts, genes), (guide_umi, guides) = data["response_matrix"], data["grna_matrix"]
    umi = guide_umi.toarray()
    kept = (umi.max(1) >= MIN_GUIDE_UMI) & (umi.max(1) >= MIN_GUIDE_SHARE * umi.sum(1))
    counts, guide = counts[kept], guides[umi[kept].argmax(1)]
    target = data["grna_target_data_frame"].set_index("grna_id")["grna_target"].loc[guide].to_numpy(str)
    is_control, depth = target == CONTROL, np.asarray(counts.sum(1)).ravel()
    scaled = sp.diags(np.median(depth[is_control]) / depth) @ counts
    batch, magnitude = data["extra_covariates"]["bio_rep"].to_numpy(str)[kept], np.where(is_control, 0.0, np.nan)
    for gene, replicate in product(np.intersect1d(target, genes), np.unique(batch)):
        own, here = scaled[:, np.flatnonzero(genes == gene)].toarray().ravel(), batch == replicate
        cells = (target == gene) & here  # each replicate by itself: a held-out one must not speak through the others
        means = [own[rows].mean() + 0.01 for rows in (cells, is_control & here)]  # a pseudocount; escapees included
        magnitude[cells] = np.log2(means[0] / means[1])
    obs = pd.DataFrame({
        "target_gene": target, "batch": batch, "sign": np.where(is_control, 0, -1), "magnitude": magnitude,
        "guide": pd.Categorical(guide), "cell_type": pd.Categorical(np.full(len(guide), "THP-1"))},
        index=[f"cell_{i + 1:05d}" for i in np.flatnonzero(kept)])
    return in_layout(counts, obs, genes, {"name": name, "source": BASE_URL, **PUBLIC[name]})
