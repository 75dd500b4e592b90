"""The file that predicted cells go to: it grows by perturbations, and is whole to every reader at every moment."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from cdt_lite.data.blocks import BLOCK
from cdt_lite.errors import CDTError
from cdt_lite.files import named, replacing, write_h5ad
from cdt_lite.training.checkpoint import open_folder

Run = dict[str, str]  # what cells depend on beside their perturbation, by the names of the command line's options


def open_output(path: str | Path) -> Path:
    """Makes the folder of a file that is to be written. Raises CDTError where it cannot be."""
    path = named(path)
    if path.is_dir():
        raise CDTError(f"{path} is a folder: name a file in it")
    open_folder(path.parent)
    return path


@dataclass(frozen=True)
class _Piece:
    """Predicted cells in a file, whose first rows they are: real controls come last."""

    path: Path
    obs: pd.DataFrame
    uns: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        return self.uns["cdt_lite"]


@dataclass
class Output:
    """Where predicted cells go, an .h5ad file that costs as much to extend as what is added.

    Each perturbation is written as soon as it is made, as a whole .h5ad of its own in a folder beside the file
    (NAME.parts). `close` puts all of them into the file in one step. What a killed run leaves there, `resume` takes up.
    """

    path: str | Path
    space: str = "counts"  # or "log1p": what the file holds
    resume: bool = False  # keep what is there, and go on
    total: int = 0  # perturbations that the file is to hold
    there: set[str] = field(default_factory=set)  # those that have been predicted, "TARGET SIGN" each
    pieces: list[_Piece] = field(default_factory=list)
    run: Run = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The file."""
        return Path(self.path)

    @property
    def parts(self) -> Path:
        """The folder of what is not in the file yet."""
        return self.file.with_name(f"{self.file.name}.parts")

    def begin(self, run: Run) -> None:
        """Looks at what is there.

        Raises:
            CDTError: The file cannot be written; a killed run left parts, and `resume` is off; what is there was made
                otherwise than `run` says.
        """
        open_output(self.path)
        self.run, self.pieces, self.there = run, [], set()
        left = sorted(self.parts.glob("*.h5ad"))
        if not self.resume:
            if left:
                raise CDTError(f"{self.parts} holds {len(left)} perturbations of a run that was ended: go on with it "
                               "(resume=True), or remove that folder")
            return
        for path in [self.file, *left]:
            piece = self._read(path) if path.is_file() else None
            if piece and not self.there.issuperset(piece.facts["perturbations"]):  # else it was joined already
                self._take(piece)

    def _take(self, piece: _Piece) -> None:
        self.pieces.append(piece)
        self.there.update(map(str, piece.facts["perturbations"]))

    def _read(self, path: Path) -> _Piece:
        try:
            with h5py.File(path) as file:
                obs, uns = ad.io.read_elem(file["obs"]), ad.io.read_elem(file["uns"])
            facts = uns["cdt_lite"]
            known, n, _ = facts["run"], int(facts["n_predicted"]), facts["perturbations"]
        except (OSError, LookupError, ValueError, TypeError) as error:
            raise CDTError(f"{path} is no file that predictions can be added to ({error}): name another") from error
        for name, value in self.run.items():
            if known.get(name) != value:
                raise CDTError(f"{path} was begun with {name} {known.get(name)}, not {value}: go on with the same, "
                               "or name another file")
        return _Piece(path, obs.iloc[:n], uns)

    def add(self, cells: ad.AnnData, name: str) -> None:
        """Writes the cells of one perturbation, as `predict` returns them."""
        self.parts.mkdir(exist_ok=True)
        path = self.parts / f"{len(self.there):06d}.h5ad"
        facts = {"perturbations": [name], "n_predicted": cells.n_obs, "run": self.run}
        uns = cells.uns | {"cdt_lite": cells.uns["cdt_lite"] | facts}
        write_h5ad(ad.AnnData(cells.X, cells.obs, cells.var, uns), path)
        self._take(_Piece(path, cells.obs, uns))

    def close(self, controls: ad.AnnData | None) -> None:
        """Puts all that was predicted into the file, real controls last, and removes the parts."""
        if any(piece.path != self.file for piece in self.pieces):
            self._join(controls)
        if self.parts.is_dir():
            shutil.rmtree(self.parts)

    def _join(self, controls: ad.AnnData | None) -> None:
        obs = [piece.obs for piece in self.pieces]
        if controls is not None:
            obs.append(controls.obs)
        cells = ad.AnnData(obs=pd.concat(obs), var=self._genes(), uns=self._about(controls is not None))
        with replacing(self.file) as temporary:
            cells.write_h5ad(temporary)
            blocks = self._blocks(controls)
            first = sparse.csr_matrix(next(blocks))
            first.indptr = first.indptr.astype(np.int64)  # more than 2^31 counts may follow
            with h5py.File(temporary, "r+") as file:
                ad.io.write_elem(file, "X", first)
                growing = ad.io.sparse_dataset(file["X"])
                for block in blocks:
                    growing.append(sparse.csr_matrix(block))

    def _genes(self) -> pd.DataFrame:
        with h5py.File(self.pieces[0].path) as file:
            return ad.io.read_elem(file["var"])

    def _about(self, several: bool) -> dict[str, Any]:
        """What uns says of all pieces; of each cell obs says what was asked."""
        uns, facts = self.pieces[0].uns, dict(self.pieces[0].facts)
        notes: list[str] = []
        for piece in self.pieces:
            notes += map(str, piece.facts["notes"])
        for name in ("target", "sign", "magnitude") if several else ():
            facts.pop(name, None)
        n_cells = sum(len(piece.obs) for piece in self.pieces)
        facts |= {"notes": list(dict.fromkeys(notes)), "perturbations": sorted(self.there), "n_predicted": n_cells}
        return uns | {"cdt_lite": facts}

    def _blocks(self, controls: ad.AnnData | None) -> Iterator[Any]:
        """Yields all counts, block by block: the whole file is never in memory."""
        for piece in self.pieces:
            with h5py.File(piece.path) as file:
                values, n = ad.io.sparse_dataset(file["X"]), len(piece.obs)
                for begin in range(0, n, BLOCK):
                    yield values[begin : min(begin + BLOCK, n)]
        if controls is not None:
            yield controls.X
