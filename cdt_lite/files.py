"""Files that are written whole or not at all, and cells in and out of .h5ad."""

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from filelock import FileLock, Timeout

from cdt_lite.errors import CDTError

if TYPE_CHECKING:
    from anndata import AnnData


def user_folder(kind: str) -> Path:
    """Returns where this user's own files lie: CDT_LITE_DATA, else where this system keeps them.

    Args:
        kind: "data" is kept until someone deletes it, "cache" can be had again.
    """
    if named := os.environ.get("CDT_LITE_DATA"):
        return Path(named).expanduser()
    with suppress(RuntimeError):  # there is no home; older platformdirs then return "~/..."
        folder = getattr(platformdirs, f"user_{kind}_path")("cdt_lite")
        if folder.is_absolute():
            return folder
    return Path(tempfile.gettempdir()) / "cdt_lite"


def named(path: str | Path) -> Path:
    """Returns a path. Raises CDTError for an empty one, which would be the folder one is in."""
    if not str(path).strip():
        raise CDTError(f"a path is empty ({str(path)!r}): name a file or a folder")
    return Path(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary file to write, which takes the place of `path` once it is whole.

    A reader sees the old content or the new, never a part; a failed write leaves no trace.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # a temporary file is private by default
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Brings a renaming to the disk, where the system can (Windows cannot open a folder)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path, name: str, what: str, seconds: float = 0.0) -> Iterator[None]:
    """Holds a folder for one process of this machine; it is free again when the process ends, however it ends.

    The lock lies with the system's temporary files, so that nothing is left in the folder.

    Args:
        folder: The folder.
        name: Of the lock: each purpose has its own.
        what: What is done meanwhile, for the one who comes second.
        seconds: How long to wait for another holder.

    Raises:
        CDTError: Another process holds it; the message says which.
    """
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    owner = Path(tempfile.gettempdir()) / f"cdt-lite-{place}-{name}"
    lock = FileLock(owner.with_suffix(".lock"), mode=0o666)
    try:
        lock.acquire(timeout=seconds)
    except Timeout as error:
        held = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        raise CDTError(f"{folder} is in use by {held}: wait for it, or name another folder") from error
    try:
        owner.write_text(f"{what}, process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def sweep(folder: Path) -> None:
    """Removes what killed writers left: temporary files, and shards. Call it while the folder is locked."""
    for left in folder.glob(".*-*"):
        if left.is_file():
            left.unlink(missing_ok=True)
        elif left.name.startswith(".shards-"):
            shutil.rmtree(left, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_h5ad(cells: "AnnData", path: Path) -> None:
    """Writes cells as .h5ad, whole or not at all."""
    with replacing(path) as temporary:
        cells.write_h5ad(temporary)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Says what cells could not be read, where a damaged file is read piece by piece."""
    try:
        yield
    except CDTError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:  # h5py and anndata raise many kinds
        raise CDTError(f"{what}: X cannot be read: {error}") from error


def _require_whole_indices(path: str | Path) -> None:
    """Refuses sparse matrices whose indices are no whole numbers: they would be rounded without a word."""
    import h5py

    def look(name: str, node: object) -> None:
        if name.endswith(("/indices", "/indptr")) and isinstance(node, h5py.Dataset) and node.dtype.kind not in "iu":
            raise CDTError(f"{name} must be whole numbers, not {node.dtype}")

    with h5py.File(path, "r") as file:
        file.visititems(look)


def read_h5ad(path: str | Path, backed: bool = False) -> "AnnData":
    """Reads cells from an .h5ad file. Raises CDTError where there is none, or it cannot be read.

    Args:
        path: The file.
        backed: Leave X on the disk.
    """
    import anndata  # here, so that writing bytes does not wait for it

    if not Path(path).is_file():
        raise CDTError(f"there is no file {str(path)!r}")
    try:
        _require_whole_indices(path)
        return anndata.read_h5ad(path, backed="r" if backed else None)
    except Exception as error:  # h5py and anndata raise many kinds
        raise CDTError(f"{path} is not an .h5ad file that can be read, or it is cut short: {error}") from error


def in_markdown(name: str) -> str:
    """Returns a name, such as a gene's, so that a page of Markdown shows it as it is written: no HTML, no formula."""
    return re.sub(r"([\\`*_\[\]<>|$~])", r"\\\1", name)
