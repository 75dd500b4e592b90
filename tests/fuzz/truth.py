"""An .h5ad file of cells read by loops over h5py alone: what any reader must make of it, or why none may."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CONTROL = "non-targeting"


@dataclass
class Truth:
    """What a file says; `damage` is what keeps it from saying anything."""

    counts: np.ndarray | None = None  # dense, float64
    cells: list[str] = field(default_factory=list)
    genes: list[str] = field(default_factory=list)
    labels: dict[str, list] = field(default_factory=dict)  # None where a value is missing
    damage: str = ""

    @property
    def is_control(self) -> np.ndarray:
        """Which cells are controls."""
        return np.array([target == CONTROL for target in self.labels["target_gene"]])

    def problem(self, rows: Any = slice(None), depth: bool = True) -> str:
        """Why these rows are no counts, or why the labels are none; empty where all is well."""
        if self.damage:
            return self.damage
        values = self.counts[rows]
        if not np.isfinite(values).all() or (values < 0).any():
            return "negative or not finite"
        if (np.abs(values - np.rint(values)) > 1e-5 * np.maximum(values, 1)).any():
            return "not whole"
        if depth and (values.sum(1) == 0).any():
            return "a cell without counts"
        if len(set(self.genes)) < len(self.genes):
            return "a gene twice"
        return self._labels()

    def _labels(self) -> str:
        for name in ("target_gene", "batch", "sign"):
            if None in self.labels[name] or any(value != value for value in self.labels[name]):
                return f"no value in {name}"
        signs = self.labels["sign"]
        if any(sign not in (-1, 0, 1) for sign in signs):
            return "a sign that is none"
        if [sign == 0 for sign in signs] != self.is_control.tolist():
            return "signs and controls differ"
        if not self.is_control.any():
            return "no controls"
        return ""


class Damaged(Exception):
    """A file that says nothing certain."""


def read(path: Path) -> Truth:
    """Reads a file, whatever state it is in."""
    found = Truth()
    try:
        with h5py.File(path, "r") as file:
            obs = file["obs"]
            names = found.cells = _column(obs, obs.attrs["_index"])
            if "var" in file:
                found.genes = _column(file["var"], file["var"].attrs["_index"])
            else:
                found.genes = [str(i) for i in range(_size(file["X"])[1])]
            listed = set(obs.attrs["column-order"]) & set(obs)
            found.labels = {"target_gene": _column(obs, "target_gene")} if "target_gene" in listed else {}
            found.labels["batch"] = ["all"] * len(names)
            found.labels["sign"] = [0 if target == CONTROL else -1 for target in found.labels["target_gene"]]
            found.labels["magnitude"] = [float("nan")] * len(names)
            for name in listed.intersection(found.labels):
                is_one = isinstance(obs[name], h5py.Dataset) and obs[name].ndim == 0  # for all cells
                found.labels[name] = [obs[name][()]] * len(names) if is_one else _column(obs, name)
            found.labels["sign"] = [float(s) if isinstance(s, str) else s for s in found.labels["sign"]]
            if any(len(values) != len(names) for values in found.labels.values()):
                raise Damaged("columns of another length")
            found.counts = _matrix(file["X"], (len(names), len(found.genes)))
    except Exception as error:  # damaged in any of many ways
        found.damage = f"{type(error).__name__}: {error}"
    return found


def _column(group: h5py.Group, name: str) -> list:
    node = group[name]
    if isinstance(node, h5py.Group) and "values" in node:  # strings that may be missing, as newer pandas has them
        mask = node["mask"][()]
        return [None if gone else value for value, gone in zip(_strings(node["values"]), mask, strict=True)]
    if isinstance(node, h5py.Group):
        codes, categories = node["codes"][()], _strings(node["categories"])
        if len(set(categories)) < len(categories) or codes.dtype.kind not in "iu":
            raise Damaged("categories that are none")
        if codes.size and not (int(codes.min()) >= -1 and int(codes.max()) < len(categories)):
            raise Damaged("a code without a category")
        return [None if code < 0 else categories[code] for code in codes.tolist()]
    return _strings(node)


def _strings(node: h5py.Dataset) -> list:
    values = node.asstr()[()] if h5py.check_string_dtype(node.dtype) else node[()]
    if values.ndim != 1:
        raise Damaged("no column")
    return values.tolist()


def _size(node: Any) -> tuple[int, ...]:
    return tuple(node.shape if isinstance(node, h5py.Dataset) else node.attrs["shape"])


def _matrix(node: Any, shape: tuple[int, int]) -> np.ndarray:
    if isinstance(node, h5py.Dataset):
        if node.dtype.kind not in "iuf" or node.shape != shape:
            raise Damaged(f"X is {node.dtype} {node.shape}")
        return node[()].astype(np.float64)
    kind = node.attrs["encoding-type"]
    if kind not in ("csr_matrix", "csc_matrix") or tuple(map(int, node.attrs["shape"])) != shape:
        raise Damaged(f"X is {kind} of {node.attrs['shape']}")
    data, indices, indptr = (node[part][()] for part in ("data", "indices", "indptr"))
    if data.dtype.kind not in "iuf" or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise Damaged("types")
    if data.ndim != 1 or min(len(data), len(indices)) < indptr[-1]:
        raise Damaged("lengths")
    major, minor = shape if kind == "csr_matrix" else shape[::-1]
    bounds = indptr.tolist()
    if len(bounds) != major + 1 or bounds[0] != 0:
        raise Damaged("bounds")
    dense = np.zeros((major, minor))
    for row in range(major):
        if bounds[row] > bounds[row + 1]:
            raise Damaged("bounds fall")
        for place in range(bounds[row], bounds[row + 1]):
            column = int(indices[place])
            if not 0 <= column < minor:
                raise Damaged("an index outside")
            dense[row, column] += float(data[place])
    return dense if kind == "csr_matrix" else dense.T
