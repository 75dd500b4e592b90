"""Screens in one layout: a public one by name, the simulated one, or any .h5ad file.

`load_screen` returns raw counts (X: CSR float32, cells x genes) with obs "target_gene", "batch", "sign" (-1 knockout or
knockdown, +1 activation, 0 exactly for controls), "magnitude" (log2 fold change of the target's own mRNA, NaN where not
measured: an outcome, unknown for a perturbation not made yet) and "n_umi"; `uns["screen"]`: origin, unmeasured targets.
Environment: CDT_LITE_DATA (cache folder), CDT_LITE_MIRROR (folder read instead of the network), CDT_LITE_OFFLINE=1.
"""

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

from cdt_lite.data import named_split
from cdt_lite.errors import CDTError, suggest
from cdt_lite.simulate import CONTROL, in_layout, screen_hash, simulate_screen

BASE_URL, PROBE_SECONDS = "https://raw.githubusercontent.com", 3.0
PUBLIC: dict[str, dict[str, Any]] = {"papalexi2021": {  # raise "version" when the conversion below changes
    "path": "Katsevich-Lab/sceptredata/ec722d5df90dfd34ace6cc9a5745ab6a5c2a6731/data/lowmoi_example_data.rda",
    "file_sha256": "e3f8ad09bb4b1d0deeeec2850a2d96f8f5062fef31a9ab1cc080e60560421b6a", "version": "2", "licence": "MIT",
    "attribution": "Papalexi et al. 2021, doi:10.1038/s41588-021-00778-2; GEO GSE153056; R package sceptredata"}}
MIN_GUIDE_UMI, MIN_GUIDE_SHARE = 5, 0.6  # what a cell's top guide needs, in UMI and as a share of its guide UMI


class Unreachable(CDTError):
    """The public screen is not on this machine and the network does not give it."""


def load_screen(  # noqa: D417 (arguments that belong together are described together)
    name_or_path: str | Path, *, target_key: str = "target_gene", control: str = CONTROL, layer: str | None = None,
    batch_key: str | None = "batch", sign_key: str | None = None, magnitude_key: str | None = None,
    default_sign: int = -1, n_top_genes: int = 2000, train_mask: np.ndarray | None = None, n_genes: int | None = None,
    n_targets: int | None = None, n_cells: int | None = None, seed: int | None = None, world: str | None = None,
) -> ad.AnnData:
    """Loads the cells of a perturbation screen, in the one layout that everything here reads.

    Args:
        name_or_path: "papalexi2021" (real, 1.4 MB once), "simulated", or the path of an .h5ad file.
        target_key, control: Of a file, like all keys: obs column with the perturbed gene; its label of control cells.
        batch_key: obs column with the replicate; None: all cells are one replicate.
        sign_key: obs column with -1, 0 or +1; None: every perturbed cell has `default_sign`.
        default_sign: -1 (knockout or knockdown, as in the Virtual Cell Challenge) or +1 (activation).
        magnitude_key: obs column with the log2 fold change of the target's own mRNA; None: unknown.
        layer: Layer with the raw counts; None: X.
        n_top_genes: Size of the panel if there are more genes: all perturbed genes, then highly variable ones.
        train_mask: Cells (bool) on which the panel is chosen; None: the training side of `named_split`.
        n_genes, n_targets, n_cells, seed, world: Of the simulated screen only, see `simulate_screen`.

    Raises:
        CDTError: Unknown name, missing column or control, counts that are not counts, a file that was refused.
    """
    options = {"n_genes": n_genes, "n_targets": n_targets, "n_cells": n_cells, "seed": seed, "world": world}
    simulation: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if (name := str(name_or_path)) == "simulated":
        return simulate_screen(**simulation)
    if simulation:
        raise CDTError(f"{', '.join(simulation)}: for the simulated screen only, without effect on {name}")
    keys = {"target_key": target_key, "batch_key": batch_key, "sign_key": sign_key, "magnitude_key": magnitude_key}
    adata = _load_public(name) if name in PUBLIC else _load_file(Path(name), layer, default_sign, control, keys)
    return _choose_panel(adata, n_top_genes, train_mask)


def resolve_screen(name: str = "papalexi2021") -> tuple[ad.AnnData, str]:
    """Loads a screen, or the simulated one where the network is blocked; the second value says which, in one line.

    A screen in the cache or a mirror needs no network, else it is probed for `PROBE_SECONDS` at most. A file that fails
    its hash is an error, never a reason to fall back. CDT_SCREEN in the environment overrides `name`.
    """
    name, reason = os.environ.get("CDT_SCREEN") or name, ""
    try:
        adata = load_screen(name)
    except Unreachable as error:
        adata, reason = simulate_screen(), f" ({name} is not on this machine and {error})"
    kind, n_targets = "simulated" if "truth" in adata.uns else "real", adata.obs["target_gene"].nunique() - 1
    return adata, (f"{adata.uns['screen']['name']}{reason}: {adata.n_obs:,} {kind} cells x {adata.n_vars:,} genes, "
                   f"{n_targets} targets, {adata.obs['batch'].nunique()} replicates")


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


def check_screen(
    adata: ad.AnnData, *, target_key: str = "target_gene", control: str = CONTROL, batch_key: str | None = "batch",
    sign_key: str | None = None, magnitude_key: str | None = None,
) -> None:
    """Refuses what is not a screen of raw counts; the message says what was expected, what came and what to do.

    Raises:
        CDTError: Nothing left, genes named twice, a missing column or value, no controls, a bad sign, no counts.
    """
    obs = adata.obs
    if 0 in adata.shape:
        raise CDTError(f"the screen is empty: {adata.n_obs} cells x {adata.n_vars} genes; check the selection")
    if twice := adata.var_names[adata.var_names.duplicated()].unique().tolist():
        raise CDTError(f"gene names stand more than once: {twice[:5]}; call adata.var_names_make_unique() or sum them")
    keys = {"target_key": target_key, "batch_key": batch_key, "sign_key": sign_key, "magnitude_key": magnitude_key}
    for argument, key in ((argument, key) for argument, key in keys.items() if key is not None):
        if key not in obs:
            raise CDTError(f"obs has no {key!r}, only {list(obs)}{suggest(key, obs)} Name it with {argument}=")
        if argument != "magnitude_key" and (n := obs[key].isna().sum()):
            raise CDTError(f"{n} cells have no value in obs[{key!r}]: label them, or remove them first")
    target = obs[target_key].astype(str)
    if not (is_control := (target == control).to_numpy()).any():
        raise CDTError(f"no control cells: none has {control!r} in obs[{target_key!r}]{suggest(control, set(target))} "
                       "Name the label of unperturbed cells with control=")
    if sign_key is not None:
        sign = pd.to_numeric(obs[sign_key].astype(str), errors="coerce").to_numpy()
        if not np.isin(sign, (-1, 0, 1)).all() or ((sign == 0) != is_control).any():
            raise CDTError(f"obs[{sign_key!r}] must be -1 or +1 for perturbed cells and 0 for controls only; "
                           f"it holds {sorted(obs[sign_key].astype(str).unique())[:8]}")
    if magnitude_key is not None and obs[magnitude_key].dtype.kind not in "iuf":
        raise CDTError(f"obs[{magnitude_key!r}] must be log2 fold changes, not {obs[magnitude_key].dtype}")
    if problem := _why_not_counts(adata.X):
        places = [f"layer {k!r}: pass layer={k!r}" for k, values in adata.layers.items() if not _why_not_counts(values)]
        if adata.raw is not None and not _why_not_counts(adata.raw.X):
            places.append("adata.raw: save adata.raw.to_adata() and load that")
        raise CDTError(f"X must hold raw counts, but it holds {problem}" + "; counts are in ".join(["", *places[:1]]))
    if n := int((np.asarray(adata.X.sum(1)).ravel() == 0).sum()):
        raise CDTError(f"{n} cells have no count in these {adata.n_vars} genes: scanpy.pp.filter_cells(min_counts=1)")


def _why_not_counts(values: Any) -> str:
    """What keeps a matrix from being raw counts, or ""."""
    data = values.data if sp.issparse(values) else np.asarray(np.nan if values is None else values)
    if not np.isfinite(data).all():
        return "nothing" if values is None else "NaN or infinite values"
    wrong = data[(data < 0) | (data % 1 != 0)]
    return f"{wrong[0]:.3g}, {'a negative number' if wrong[0] < 0 else 'not a whole number'}" if wrong.size else ""


def _load_file(path: Path, layer: str | None, default_sign: int, control: str, keys: dict[str, Any]) -> ad.AnnData:
    """Reads an .h5ad file, checks it, and puts it into the layout."""
    if not path.is_file():
        known = ["simulated", *PUBLIC, *map(str, path.parent.glob("*.h5ad"))]
        raise CDTError(f"no screen or file is called {str(path)!r}; screens: {known[:2]}{suggest(str(path), known)}")
    try:
        adata = ad.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds
        raise CDTError(f"{path.name} is not an .h5ad file that can be read, or it is cut short: {error}") from error
    if layer is not None and layer not in adata.layers:
        raise CDTError(f"no layer {layer!r}; the file has {list(adata.layers)}{suggest(layer, adata.layers)}")
    if default_sign not in (-1, 1):
        raise CDTError(f"default_sign must be -1 (knockdown) or +1 (activation), not {default_sign}")
    adata.X = adata.X if layer is None else adata.layers[layer]
    check_screen(adata, control=control, **keys)
    batch, sign, magnitude = (adata.obs[key] if key else None for key in list(keys.values())[1:])
    is_control = ((target := adata.obs[keys["target_key"]].astype(str)) == control).to_numpy()
    obs = adata.obs.assign(
        target_gene=np.where(is_control, CONTROL, target), batch="batch_1" if batch is None else batch,
        sign=np.where(is_control, 0, default_sign) if sign is None else pd.to_numeric(sign.astype(str)),
        magnitude=np.where(is_control, 0.0, np.nan if magnitude is None else magnitude))
    return in_layout(adata.X, obs, adata.var_names, {
        "name": path.stem, "version": "", "source": path.name, "licence": "", "attribution": ""})


def _choose_panel(adata: ad.AnnData, n_top_genes: int, train_mask: np.ndarray | None) -> ad.AnnData:
    """Keeps the perturbed genes and, up to `n_top_genes`, the most variable others of the training cells."""
    mask = named_split(adata) == "train" if train_mask is None else np.asarray(train_mask)
    if mask.dtype != bool or mask.shape != (adata.n_obs,) or not mask.any():
        raise CDTError(f"train_mask must be {adata.n_obs} booleans, some true, not {mask.dtype} of shape {mask.shape}")
    if adata.n_vars <= n_top_genes:
        return adata
    import scanpy as sc
    panel = adata.var_names.isin(adata.obs["target_gene"].cat.categories)
    if (n_free := n_top_genes - panel.sum()) < 0:
        raise CDTError(f"n_top_genes must be at least {panel.sum()}, the measured targets, not {n_top_genes}")
    train = ad.AnnData(adata.X[mask].copy(), var=pd.DataFrame(index=adata.var_names))
    try:
        sc.pp.highly_variable_genes(train, n_top_genes=n_top_genes, flavor="seurat_v3")  # the flavour for raw counts
    except ValueError as error:
        raise CDTError(f"too few cells or counts to pick {n_top_genes} of {adata.n_vars} genes ({error}): keep all or "
                       "remove rare genes first with scanpy.pp.filter_genes(min_cells=10)") from error
    variability = np.where(panel, -np.inf, train.var["variances_norm"].fillna(-np.inf))
    panel[np.argsort(-variability, kind="stable")[:n_free]] = True
    check_screen(chosen := in_layout(adata.X[:, panel], adata.obs, adata.var_names[panel], adata.uns["screen"]))
    return chosen


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
