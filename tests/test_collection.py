"""Zarr collections of annbatch behind the same batches (where it is installed: Python 3.12 and later)."""

import sys

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import tiny, toy_screen

from cdt_lite.data import SetSampler, TokenStore, Vocabulary, fit_tokenizer
from cdt_lite.data.collection import collection_store
from cdt_lite.errors import CDTError

CONFIG, SCREEN = tiny(), toy_screen()
TOKENIZER, NAMES = fit_tokenizer(CONFIG.tokenizer, SCREEN), Vocabulary(SCREEN.var_names)


def test_without_annbatch_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "annbatch", None)
    with pytest.raises(CDTError, match="pip install annbatch.*or tokenise .h5ad files"):
        collection_store(tmp_path, TOKENIZER, NAMES)


@pytest.fixture
def collection(tmp_path):
    annbatch = pytest.importorskip("annbatch")
    for i, part in enumerate((SCREEN[:100], SCREEN[100:])):
        part.copy().write_h5ad(tmp_path / f"{i}.h5ad")
    files = [tmp_path / f"{i}.h5ad" for i in range(2)]
    annbatch.DatasetCollection(tmp_path / "all.zarr").add_adatas(files, n_obs_per_chunk=8, shuffle_chunk_size=10,
                                                                 rng=np.random.default_rng(0))
    return tmp_path / "all.zarr"


def test_a_collection_gives_the_batches_of_its_cells(collection):
    store = collection_store(collection, TOKENIZER, NAMES)
    cells = SCREEN[[name.split("-")[0] for name in store.tokens.obs.index]].copy()  # they were shuffled
    cells.obs["batch"] = cells.obs["batch"].cat.set_categories(store.tokens.obs["batch"].cat.categories)
    here = TokenStore.from_adata(cells, TOKENIZER, NAMES)
    assert store.digest() == here.digest() and len(store) == 240
    np.testing.assert_array_equal(store.tokens.max(0), here.tokens.max(0))
    for stage in ("finetune", "pretrain"):
        one, other = (SetSampler(s, getattr(CONFIG, stage), stage) for s in (store, here))
        for number in range(5):
            a, b = one.batch(number), other.batch(number)
            assert torch.equal(a.tokens, b.tokens) and torch.equal(a.log_depth, b.log_depth)
            assert (a.controls is None) == (b.controls is None)
            assert a.controls is None or torch.equal(a.controls, b.controls)


def test_what_is_no_collection_or_holds_no_counts_is_refused(tmp_path):
    annbatch = pytest.importorskip("annbatch")
    with pytest.raises(CDTError, match="there is no zarr collection"):
        collection_store(tmp_path / "nothing.zarr", TOKENIZER, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CDTError, match="cannot be read"):
        collection_store(tmp_path / "empty", TOKENIZER, NAMES)
    logged = SCREEN.copy()
    logged.X = logged.X.log1p()
    ad.AnnData(logged.X, logged.obs, logged.var).write_h5ad(tmp_path / "logs.h5ad")
    annbatch.DatasetCollection(tmp_path / "logs.zarr").add_adatas([tmp_path / "logs.h5ad"], n_obs_per_chunk=8)
    with pytest.raises(CDTError, match="not a whole number"):
        collection_store(tmp_path / "logs.zarr", TOKENIZER, NAMES)
