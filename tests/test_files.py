"""Files are written whole or not at all, and what cannot be read is said in one wording."""

import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import platformdirs
import pytest

from cdt_lite.errors import CDTError
from cdt_lite.files import read_h5ad, sweep, user_folder, write_atomically, write_h5ad


class Unwritable(ad.AnnData):
    def write_h5ad(self, path):
        path.write_bytes(b"half")
        raise OSError("disk full")


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "x.json"
    for content in (b"old", b"new"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644 and list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    for folder in (".shards-ab12", ".git-hooks", "kept"):
        (tmp_path / folder / "sharded").mkdir(parents=True)
        (tmp_path / folder / "sharded" / "half").touch()
    for name in (".weights-new", ".checkpoint.json-x1", "checkpoint.json"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".git-hooks", "kept", "checkpoint.json"}


def test_cells_come_back(tmp_path):
    write_h5ad(ad.AnnData(np.eye(3, dtype=np.float32)), tmp_path / "x.h5ad")
    assert np.array_equal(read_h5ad(str(tmp_path / "x.h5ad")).X, np.eye(3))


def test_a_failed_write_leaves_what_was_there_and_no_trace(tmp_path):
    path = tmp_path / "x.h5ad"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        write_h5ad(Unwritable(np.eye(3)), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(CDTError, match=r"there is no file '.*none\.h5ad'"):
        read_h5ad(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("gene,count")
    with pytest.raises(CDTError, match=r"text\.h5ad is not an \.h5ad file that can be read, or it is cut short"):
        read_h5ad(tmp_path / "text.h5ad")


def test_a_users_own_folder_is_where_the_system_keeps_it_or_where_they_say(monkeypatch, tmp_path):
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path))
    assert user_folder("data") == user_folder("cache") == tmp_path
    monkeypatch.delenv("CDT_LITE_DATA")
    assert user_folder("data") == platformdirs.user_data_path("cdt_lite")
    assert user_folder("cache") == platformdirs.user_cache_path("cdt_lite")


@pytest.mark.parametrize("old", [False, True])
def test_a_user_without_a_home_gets_a_temporary_folder(monkeypatch, old):
    def without_home(name):
        if old:
            return Path("~/.local/share") / name  # what expanduser leaves as it is
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("CDT_LITE_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_data_path", without_home)
    assert user_folder("data") == Path(tempfile.gettempdir()) / "cdt_lite"
