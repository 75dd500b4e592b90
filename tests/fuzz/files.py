"""Files of cells, changed in structure, values or bytes; each door that reads one is asked for what the file says."""

import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from helpers import tiny, toy_screen

from cdt_lite.data.screens import load_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError
from cdt_lite.evaluation.evaluate import evaluate
from cdt_lite.files import read_h5ad
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.predict import predict
from cdt_lite.training.start import start

from . import truth
from .verdict import Outcome, judge

LAYOUTS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.array}
TYPES = ["f4", "f8", "i4", "i8", "i1", "u1", "u8", "f2", "?", "S4", "c8"]
NUMBERS = [0, 1, -1, -3, 7, 8, 79, 80, 81, 127, 2**31 - 1, 2**31, 10**9, 2**62, 0.5, 5.0000005, 1e30, np.nan, np.inf]


@cache
def whole(layout: str, categories: bool) -> bytes:
    """A good file."""
    screen = small().copy()
    screen.X = LAYOUTS[layout](screen.X.toarray())
    if not categories:
        for name in ("target_gene", "batch"):
            screen.obs[name] = screen.obs[name].astype(object)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        screen.write_h5ad(Path(folder) / "s.h5ad")
        return (Path(folder) / "s.h5ad").read_bytes()


@cache
def small() -> ad.AnnData:
    """80 cells of 8 genes."""
    return toy_screen(n_cells=80, n_genes=8)


@cache
def model() -> Checkpoint:
    """A model of those."""
    return start(tiny(n_genes=8), small())


def case(rng: np.random.Generator, folder: Path) -> Outcome:
    """Changes a file in one to three places and asks one door for it."""
    path = folder / "s.h5ad"
    layout = str(rng.choice(list(LAYOUTS)))
    path.write_bytes(whole(layout, bool(rng.integers(2))))
    done = [layout]
    if rng.random() < 0.2:
        done.append(change_bytes(rng, path))
    else:
        for _ in range(rng.integers(1, 4)):
            done.append(change_structure(rng, path))
    door = str(rng.choice(list(DOORS)))
    act, problem = DOORS[door]
    return judge(f"{door}: {', '.join(done)}", lambda: act(path), lambda value: problem(value, truth.read(path)))


def change_bytes(rng: np.random.Generator, path: Path) -> str:
    """Flips bits, or cuts the end off."""
    places = []
    with h5py.File(path) as file:  # HDF5's own tables are left alone: the library itself hangs on some of those
        file.visititems(lambda _, node: places.extend(_stored_at(node)))
    content = bytearray(path.read_bytes())
    if rng.random() < 0.2:
        keep = int(rng.integers(len(content)))
        path.write_bytes(content[:keep])
        return f"cut at {keep}"
    places = rng.choice(places, size=rng.integers(1, 20)).tolist()
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return f"bits at {places}"


def _stored_at(node: Any) -> range:
    """Where in the file the numbers of a dataset lie."""
    if not isinstance(node, h5py.Dataset) or node.id.get_offset() is None or node.dtype.kind == "O":
        return range(0)
    begin = node.id.get_offset()
    return range(begin, begin + node.id.get_storage_size())


def change_structure(rng: np.random.Generator, path: Path) -> str:
    """Changes one dataset or attribute by what HDF5 allows."""
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visit(found.append)
        of_x = [name for name in found if name.startswith("X")]
        name = str(rng.choice(of_x if of_x and rng.random() < 0.6 else found))
        node = file[name]
        try:
            if isinstance(node, h5py.Dataset) and rng.random() < 0.85:
                return f"{name} {_change_dataset(rng, file, name)}"
            if rng.random() < 0.8 and len(node.attrs):
                return f"{name} {_change_attribute(rng, node)}"
            del file[name]
            return f"{name} removed"
        except (TypeError, ValueError, OverflowError, OSError, UnicodeError):
            return f"{name} as it was"  # HDF5 does not allow it


def _change_dataset(rng: np.random.Generator, file: h5py.File, name: str) -> str:
    values = np.array(file[name][()])
    way = rng.choice(["value", "value", "value", "type", "length", "swap", "shape"])
    is_text = values.dtype.kind == "O"
    if way == "value" and values.size:
        place = tuple(int(rng.integers(n)) for n in values.shape)
        value: Any = str(rng.choice(["", "nan", "G3", "a", "non-targeting", "Ü"])) if is_text else NUMBERS[
            rng.integers(len(NUMBERS))]
        file[name][place] = value
        return f"{place} = {value}"
    attributes = dict(file[name].attrs)
    if way == "type":
        kind = str(rng.choice(TYPES))
        with np.errstate(all="ignore"):
            values = values.astype(kind)
        way = f"as {kind}"
    elif way == "length" and values.ndim:
        n = int(rng.integers(-3, 4))
        values = values[:n] if n < 0 else np.concatenate([values, values[:n]])
        way = f"{n} longer"
    elif way == "swap" and values.ndim and len(values) > 1:
        i, j = rng.integers(len(values), size=2)
        values[[i, j]] = values[[j, i]]
        way = f"{i} and {j} swapped"
    else:
        values = values[None] if rng.random() < 0.5 or not values.size else values.ravel()[0]
        way = "of another shape"
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)
    return way


def _change_attribute(rng: np.random.Generator, node: Any) -> str:
    name = str(rng.choice(list(node.attrs)))
    old = node.attrs[name]
    if rng.random() < 0.2:
        del node.attrs[name]
        return f"without {name}"
    choices: list[Any] = ["csr_matrix", "csc_matrix", "array", "categorical", "dataframe", "string-array", "", 0]
    if name == "shape":
        n, m = old
        choices = [(n + 1, m), (n, m + 1), (n - 1, m), (n, m - 1), (m, n), (0, m), (-1, m), (2**40, m), (n, 2**31)]
    value = choices[rng.integers(len(choices))]
    node.attrs[name] = value
    return f"{name} = {value}"


def _read(path: Path, on_disk: bool = False) -> ad.AnnData:
    if not on_disk:
        return read_h5ad(path)
    try:
        return ad.read_h5ad(path, backed="r")
    except Exception as error:
        raise CDTError("anndata does not open it") from error


def _clean(found: truth.Truth) -> ad.AnnData:
    """The cells that a file holds, made anew."""
    obs = pd.DataFrame(found.labels, index=found.cells)
    obs["magnitude"] = obs["magnitude"].astype(np.float32)
    var = pd.DataFrame(index=found.genes)
    return ad.AnnData(sp.csr_matrix(np.rint(found.counts).astype(np.float32)), obs=obs, var=var)


def _differ(got: Any, want: Any, what: str) -> str:
    same = np.allclose(got, want, rtol=1e-5, equal_nan=True) if np.shape(got) == np.shape(want) else False
    return "" if same else f"{what} differs from what the file says"


def _loaded(screen: ad.AnnData, found: truth.Truth) -> str:
    if problem := found.problem():
        return f"taken, though {problem}"
    if list(screen.var_names) != found.genes:
        return "genes differ"
    for name in ("target_gene", "batch", "sign"):
        if screen.obs[name].tolist() != found.labels[name]:
            return f"{name} differs"
    return _differ(screen.X.toarray(), np.rint(found.counts), "X")


def _stored(store: TokenStore, found: truth.Truth) -> str:
    if problem := found.problem(depth=False):
        return f"taken, though {problem}"
    want = model().tokenizer.encode(np.rint(found.counts))
    names = [model().vocabulary.symbols[i] if i >= 0 else truth.CONTROL for i in store.target]
    if names != found.labels["target_gene"] or store.sign.tolist() != found.labels["sign"]:
        return "labels differ"
    return _differ(store.tokens, want, "tokens")


def _predicted(cells: ad.AnnData, found: truth.Truth) -> str:
    rows = slice(None) if found.damage else found.is_control
    if problem := found.problem(rows):
        return f"taken, though {problem}"
    return _differ(cells.X.toarray(), _predict(_clean(found)[found.is_control].copy()).X.toarray(), "prediction")


def _scored(table: pd.DataFrame, found: truth.Truth) -> str:
    if problem := found.problem(depth=False):
        return f"taken, though {problem}"
    want = _evaluate(_clean(found))
    return _differ(table.select_dtypes("number"), want.select_dtypes("number"), "table")


def _store(path: Path, on_disk: bool) -> TokenStore:
    cells = _read(path, on_disk)
    try:
        return TokenStore.from_adata(cells, model().tokenizer, model().vocabulary)
    finally:
        if on_disk:
            cells.file.close()


def _predict(cells: ad.AnnData) -> ad.AnnData:
    return predict(model(), cells, "G3", n_cells=4)


def _evaluate(cells: ad.AnnData) -> pd.DataFrame:
    return evaluate(cells, None, metrics=["mae"], baselines=["control"])


DOORS = {
    "load_screen": (load_screen, _loaded),
    "TokenStore": (lambda path: _store(path, False), _stored),
    "TokenStore, on disk": (lambda path: _store(path, True), _stored),
    "predict": (lambda path: _predict(_read(path)), _predicted),
    "evaluate": (lambda path: _evaluate(_read(path)), _scored),
}
