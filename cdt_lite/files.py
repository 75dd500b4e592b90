"""Files that are written whole or not at all, and cells in and out of .h5ad."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdt_lite.errors import CDTError

if TYPE_CHECKING:
    from anndata import AnnData


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
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_h5ad(cells: "AnnData", path: Path) -> None:
    """Writes cells as .h5ad, whole or not at all."""
    with replacing(path) as temporary:
        cells.write_h5ad(temporary)


def read_h5ad(path: str | Path) -> "AnnData":
    """Reads cells from an .h5ad file. Raises CDTError where there is none, or it cannot be read."""
    import anndata  # here, so that writing bytes does not wait for it

    if not Path(path).is_file():
        raise CDTError(f"there is no file {str(path)!r}")
    try:
        return anndata.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds
        raise CDTError(f"{path} is not an .h5ad file that can be read, or it is cut short: {error}") from error
