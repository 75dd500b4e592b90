"""Tokens in a folder: written through the file system, part by part, and whole only once `store.json` is there."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float, Int, UInt8

from cdt_lite.data.blocks import BLOCK
from cdt_lite.errors import CDTError
from cdt_lite.files import locked, replacing, sweep, write_atomically

FORMAT = 2
FACTS, TOKENS, LABELS, UNFINISHED = "store.json", "tokens.npy", "labels.npz", "unfinished.npz"
ARRAYS = ("gene_ids", "target", "sign", "magnitude", "group", "log_depth")


class TokenArray:
    """Tokens in memory, while they are made."""

    n_done = 0

    def __init__(self, shape: tuple[int, int]) -> None:
        self.tokens = np.empty(shape, np.uint8)
        self.log_depth = np.empty(shape[0], np.float32)

    def write(self, rows: Int[np.ndarray, " n"], tokens: UInt8[np.ndarray, "n G"], log_depth: Float[np.ndarray, " n"]
              ) -> None:
        """Takes the tokens of some cells."""
        self.tokens[rows], self.log_depth[rows] = tokens, log_depth

    def end_part(self, n_done: int) -> None:
        """All cells up to here are there."""
        self.n_done = n_done


class TokenFile:
    """Tokens on their way to a folder; one that is opened again goes on after the last part that was whole.

    They are written, not mapped: where the disk is full, a memory map ends the process, and writing says so.

    Args:
        folder: Where; `held` by the caller.
        shape: Cells and genes.
        key: `key_of` what is tokenised: only what was begun with the same is gone on with.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], key: str) -> None:
        self.folder, self.shape, self.key = folder, shape, key
        self.log_depth = np.zeros(shape[0], np.float32)
        self.n_done = 0  # cells of whole parts
        with self._writing():
            if not self._goes_on():
                (folder / FACTS).unlink(missing_ok=True)
                with (folder / TOKENS).open("wb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
            self._file = (folder / TOKENS).open("r+b", buffering=0)
            np.lib.format.read_magic(self._file)
            np.lib.format.read_array_header_1_0(self._file)
            self._start = self._file.tell()

    def __enter__(self) -> "TokenFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, rows: Int[np.ndarray, " n"], tokens: UInt8[np.ndarray, "n G"], log_depth: Float[np.ndarray, " n"]
              ) -> None:
        """Writes the tokens of some cells, those that follow each other at once."""
        self.log_depth[rows] = log_depth
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        with self._writing():
            for run in np.split(np.arange(len(rows)), ends):
                self._file.seek(self._start + int(rows[run[0]]) * self.shape[1])
                left = memoryview(tokens[run].tobytes())
                while left:
                    left = left[self._file.write(left):]

    def end_part(self, n_done: int) -> None:
        """Brings all cells up to here to the disk, and says there that they are done."""
        self.n_done = n_done
        with self._writing():
            os.fsync(self._file.fileno())
            with replacing(self.folder / UNFINISHED) as temporary, temporary.open("wb") as file:
                np.savez(file, key=np.array(self.key), log_depth=self.log_depth[:n_done])

    def blocks(self) -> Iterator[bytes]:
        """Reads all tokens back, block by block: pages of a memory map would count as memory."""
        self._file.seek(self._start)
        while block := self._file.read(BLOCK * self.shape[1]):
            yield block

    def finish(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Makes the store whole: labels, then what it is."""
        facts = {"format": FORMAT, "shape": self.shape, "key": self.key, "labels": key_of({}, arrays), **facts}
        with self._writing():
            kept: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
            with replacing(self.folder / LABELS) as temporary, temporary.open("wb") as file:
                np.savez(file, **kept)
            write_atomically(self.folder / FACTS, json.dumps({"sha256": key_of(facts, {}), **facts}).encode())
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            size = self.shape[0] * self.shape[1] / 1e9
            raise CDTError(f"{self.folder}: tokens of {self.shape[0]:,} cells x {self.shape[1]:,} genes ({size:.2g} "
                           f"GB) cannot be written: {error.strerror or error}. Nothing there is taken for whole: make "
                           "room and try again, or name another folder") from error

    def _goes_on(self) -> bool:
        """Says whether the folder holds the beginning of the same tokens, and reads how far it is."""
        try:
            with np.load(self.folder / UNFINISHED, allow_pickle=False) as kept:
                done, key = kept["log_depth"], str(kept["key"])
            there = (self.folder / TOKENS).stat().st_size >= len(done) * self.shape[1]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return False
        if key != self.key or not there:
            return False
        self.n_done = len(done)
        self.log_depth[: self.n_done] = done
        return True


def key_of(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Returns a hash of facts, as JSON writes them, and of arrays."""
    digest = sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype}".encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def digest_of(blocks: Iterable[bytes], labels: Mapping[str, np.ndarray]) -> str:
    """Returns the hash of tokens, block by block, and of genes, targets and signs."""
    digest = sha256()
    for block in blocks:
        digest.update(block)
    for name in ("gene_ids", "target", "sign"):
        digest.update(np.ascontiguousarray(labels[name]).data)
    return digest.hexdigest()[:16]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a folder, made where it is not, for the one process that writes tokens into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CDTError(f"{folder} cannot be a folder for tokens: {error.strerror or error}") from error
    with locked(folder, "store", "tokens are written"):
        sweep(folder)
        yield


def is_kept(folder: Path, key: str) -> bool:
    """Says whether a folder holds the whole store of a key. Raises CDTError where it holds another."""
    if not (folder / FACTS).is_file():
        return False
    facts, _ = read_kept(folder)
    if facts["key"] != key:
        raise CDTError(f"{folder} holds the tokens of other cells, or of these with other bins, labels or genes: name "
                       "another folder, or remove this one")
    return True


def read_kept(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Opens what a folder keeps: its facts, and its arrays, the tokens as a memory map.

    Raises:
        CDTError: There is no store, it is not finished, or a file of it was cut, changed or lost.
    """
    if not (folder / FACTS).is_file():
        if (folder / TOKENS).is_file():
            raise CDTError(f"the tokens in {folder} were not written to their end: tokenise the same cells into it "
                           "again, which goes on after the last whole file")
        raise CDTError(f"there is no token store in {folder} (no {FACTS}): tokenise cells into it first")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        told = facts.pop("sha256")
        if facts["format"] != FORMAT:
            raise CDTError(f"{folder} is a token store of format {facts['format']!r}, this version reads {FORMAT}: "
                           "tokenise the cells again, or install the version that wrote it")
        tokens = np.load(folder / TOKENS, mmap_mode="r", allow_pickle=False)
        with np.load(folder / LABELS, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
        size = (folder / TOKENS).stat().st_size
        whole = list(tokens.shape) == facts["shape"] and tokens.dtype == np.uint8
        whole &= size == tokens.offset + tokens.nbytes
        if not whole or told != key_of(facts, {}) or facts["labels"] != key_of({}, arrays):
            raise ValueError("its parts do not fit each other")
    except CDTError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise CDTError(f"the token store {folder} is damaged, or a file of it was cut ({error}): remove the folder and "
                       "tokenise the cells again") from error
    return facts, {"tokens": tokens, **arrays}
