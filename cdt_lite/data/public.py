"""Public cells: where they are, what their hash is, how they are brought into the layout.

Environment: CDT_LITE_DATA (cache folder), CDT_LITE_MIRROR (folder read instead of the network), CDT_LITE_OFFLINE=1.
"""

import contextlib
import json
import os
import socket
import threading
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import pandas as pd
import pooch
import scipy.sparse as sp
from anndata import AnnData

from cdt_lite.data.expression import depths
from cdt_lite.data.layout import CONTROL, in_layout, screen_hash
from cdt_lite.errors import CDTError
from cdt_lite.files import read_h5ad, user_folder, write_h5ad

# Address, hash and licence of every download; raise "version" when the conversion of a file changes.
_MANIFEST = json.loads(Path(__file__).with_name("manifest.json").read_text(encoding="utf-8"))
SCREENS, GENE_SETS = _MANIFEST["screens"], _MANIFEST["gene sets"]
PROBE_SECONDS = 3.0
MIN_GUIDE_UMI, MIN_GUIDE_SHARE = 5, 0.6  # what a cell's top guide needs, in UMI and as a share of its guide UMI


class Unreachable(CDTError):
    """The public screen is not on this machine and the network does not give it."""


def blood_cells() -> AnnData:
    """Real unperturbed blood cells that ship inside scanpy (700 cells x 765 genes), with their raw counts recovered.

    scanpy keeps log1p of counts scaled to 10,000 a cell, and totals: undone and rounded (CDTError if off by over 0.1).
    """
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a reader says about the age of scanpy's own file
        source = sc.datasets.pbmc68k_reduced()
    counts = sp.csr_matrix(source.raw.X, dtype=np.float64, copy=True)
    scale = source.obs["n_counts"].to_numpy() / 1e4
    counts.data = np.expm1(counts.data) * np.repeat(scale, np.diff(counts.indptr))
    worst = np.abs(counts.data - counts.data.round()).max()
    if not worst <= 0.1:
        raise CDTError(f"scanpy's cells should be scaled counts; one value lies {worst:.2f} from a whole number")
    kind = source.obs["bulk_labels"].astype("category")
    obs = pd.DataFrame(index=source.obs_names)
    obs = obs.assign(target_gene=CONTROL, batch="pbmc68k", sign=0, magnitude=0.0, cell_type=kind)
    return in_layout(counts.rint(), obs, source.raw.var_names, {
        "name": "pbmc68k", "version": "1", "source": "scanpy.datasets.pbmc68k_reduced", "licence": "BSD-3-Clause",
        "attribution": "Zheng et al. 2017, Nature Communications, doi:10.1038/ncomms14049; 10x Genomics; scanpy"})


def cached(entry: dict[str, Any]) -> Path:
    """Returns a public file of the manifest, whole: from the cache, the mirror or the network."""
    return _fetch(entry, user_folder("cache"))


def load_public(name: str) -> AnnData:
    """Reads the converted file in the cache, or makes it: a second load takes a fraction of a second."""
    entry, folder = SCREENS[name], user_folder("cache")
    converted = folder / f"{name}-{entry['version']}-{entry['sha256'][:12]}.h5ad"
    with contextlib.suppress(Exception):  # not there yet, cut short or of another version: made again
        adata = read_h5ad(converted)
        if adata.uns["screen"]["sha256"] == screen_hash(adata):
            return adata
    adata = _convert_papalexi(_fetch(entry, folder), name)
    with contextlib.suppress(OSError):  # a full disk or a folder of someone else: the cache only saves time
        folder.mkdir(parents=True, exist_ok=True)
        write_h5ad(adata, converted)
    return adata


def _fetch(entry: dict[str, Any], folder: Path) -> Path:
    """Finds a public file in the cache, the mirror or the network, and refuses it if its hash is another."""
    url = entry["url"]
    path = cached = folder / entry["file"]
    mirror = os.environ.get("CDT_LITE_MIRROR")
    if mirror and not cached.exists():
        path = Path(mirror) / entry["file"]
        if not path.exists():
            raise CDTError(f"CDT_LITE_MIRROR={mirror} has no {path.name}: put {url} there, or unset it")
    if not path.exists():
        _download(url, path)
    if pooch.file_hash(str(path)) == entry["sha256"]:
        return path
    removed = ""
    if path == cached:  # a mirror is the user's: nothing is removed there
        path.unlink()
        removed = " and removed"
    raise CDTError(f"{path.name} was refused{removed}: it is truncated or altered (its sha256 is not "
                   f"{entry['sha256']}). Load again to fetch it anew, or put a good copy of {url} into a folder "
                   "and name that with CDT_LITE_MIRROR")


def _download(url: str, path: Path) -> None:
    """Fetches a file that the caller will check, or says within `PROBE_SECONDS` that the network does not answer."""
    if os.environ.get("CDT_LITE_OFFLINE", "0") not in ("", "0"):
        raise Unreachable("CDT_LITE_OFFLINE is set")
    if not _network_answers(url):
        raise Unreachable(f"{urlsplit(url).hostname} does not answer")
    downloader = pooch.HTTPDownloader(timeout=(PROBE_SECONDS, 30))
    pooch.get_logger().disabled = True  # its notices would go to stderr
    try:
        pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=downloader)
    except OSError as error:
        raise Unreachable(f"{url} could not be fetched into CDT_LITE_DATA or its default: {error}") from error
    finally:
        pooch.get_logger().disabled = False


def _network_answers(url: str) -> bool:
    """Says within `PROBE_SECONDS`, even if name look-up hangs, whether the host of a URL or its proxy answers."""
    proxy = getproxies().get(urlsplit(url).scheme)
    place = urlsplit(proxy or url)
    answered = threading.Event()

    def probe() -> None:
        with contextlib.suppress(Exception):  # blocked networks raise many kinds
            address = (place.hostname, place.port or 443)
            socket.create_connection(address, timeout=PROBE_SECONDS).close()
            answered.set()

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _convert_papalexi(path: Path, name: str) -> AnnData:
    """Reads the R file, gives each cell to its top guide, and drops cells whose guide is not clear."""
    from rdata import conversion, read_rda

    def matrix(slots: Any, _: Any) -> tuple[sp.csr_matrix, np.ndarray]:
        # R stores features x cells as triplets
        counts = sp.csr_matrix((slots.x, (slots.j, slots.i)), shape=slots.Dim[::-1])
        return counts, np.asarray(slots.Dimnames[0])

    classes = {**conversion.DEFAULT_CLASS_MAP, "dgTMatrix": matrix}
    data = read_rda(path, constructor_dict=classes)["lowmoi_example_data"]
    counts, genes = data["response_matrix"]
    guide_counts, guides = data["grna_matrix"]
    umi = guide_counts.toarray()
    top = umi.max(1)
    kept = (top >= MIN_GUIDE_UMI) & (top >= MIN_GUIDE_SHARE * umi.sum(1))
    guide = guides[umi[kept].argmax(1)]
    target_of = data["grna_target_data_frame"].set_index("grna_id")["grna_target"]
    target = target_of.loc[guide].to_numpy(str)
    batch = data["extra_covariates"]["bio_rep"].to_numpy(str)[kept]
    obs = pd.DataFrame(index=[f"cell_{i + 1:05d}" for i in np.flatnonzero(kept)])
    obs["target_gene"] = target
    obs["batch"] = batch
    obs["sign"] = np.where(target == CONTROL, 0, -1)
    obs["magnitude"] = _own_mrna(counts[kept], genes, target, batch)
    obs["guide"] = pd.Categorical(guide)
    obs["cell_type"] = pd.Categorical(np.full(len(guide), "THP-1"))
    return in_layout(counts[kept], obs, genes, {"name": name, "source": SCREENS[name]["url"], **SCREENS[name]})


def _own_mrna(counts: sp.csr_matrix, genes: np.ndarray, target: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """The log2 fold change of each cell's target within its replicate; 0 for controls, NaN for targets not measured.

    Each replicate by itself: a held-out one must not speak through the others. Cells that escaped are included.
    """
    is_control = target == CONTROL
    depth = depths(counts)
    scaled = sp.diags(np.median(depth[is_control]) / depth) @ counts
    magnitude = np.where(is_control, 0.0, np.nan)
    for gene in np.intersect1d(target, genes):
        values = scaled[:, np.flatnonzero(genes == gene)].toarray().ravel()
        for replicate in np.unique(batch):
            here = batch == replicate
            perturbed = here & (target == gene)
            mean = values[perturbed].mean() + 0.01  # a pseudocount
            of_controls = values[here & is_control].mean() + 0.01
            magnitude[perturbed] = np.log2(mean / of_controls)
    return magnitude
