"""A screen whose counts stay on the disk: the same labels, panel, split, model and tokens as in memory."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny, toy_screen

from cdt_lite.data import Columns, TokenStore, load_screen, named_split, simulate_screen
from cdt_lite.data.blocks import in_memory, part_of
from cdt_lite.data.panel import choose_panel, on_panel
from cdt_lite.data.splits import choose_split
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.report.results import score
from cdt_lite.training.output import Output
from cdt_lite.training.predict import Generation
from cdt_lite.training.predict_many import predict_many
from cdt_lite.training.start import start


@pytest.fixture
def path(tmp_path):
    screen = simulate_screen(64, 8, 900, seed=3)
    screen.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


def same_cells(on_disk, here):
    pd.testing.assert_frame_equal(on_disk.obs, here.obs)
    assert list(on_disk.var_names) == list(here.var_names)
    np.testing.assert_array_equal(in_memory(on_disk).X.toarray(), here.X.toarray())


def test_counts_stay_on_the_disk_and_nothing_else_differs(path):
    on_disk, here = (load_screen(path, n_top_genes=None, backed=backed) for backed in (True, False))
    assert on_disk.isbacked and not here.isbacked
    same_cells(on_disk, here)
    assert on_disk.uns["screen"]["name"] == "screen" and not on_disk.uns["screen"]["sha256"]
    np.testing.assert_array_equal(named_split(on_disk), named_split(here))


def test_the_panel_is_the_same_and_depths_are_those_of_the_file(path):
    on_disk, here = (load_screen(path, n_top_genes=20, backed=backed) for backed in (True, False))
    assert list(on_disk.var_names) == list(here.var_names) and on_disk.shape == here.shape
    np.testing.assert_array_equal(in_memory(on_disk).X.toarray(), here.X.toarray())
    fewer = list(here.var_names[3:9])
    assert on_panel(on_disk, fewer).shape == on_panel(here, fewer).shape


def test_a_large_file_chooses_its_panel_on_some_cells(path, monkeypatch):
    monkeypatch.setattr("cdt_lite.data.panel.MOST_CELLS", 300)
    chosen = [choose_panel(load_screen(path, n_top_genes=None, backed=True), 20).var_names for _ in range(2)]
    assert chosen[0].equals(chosen[1]) and len(chosen[0]) == 20


def test_genes_perturbed_in_other_files_are_kept(path):
    screen = load_screen(path, n_top_genes=None, backed=True)
    wanted = sorted(set(screen.var_names) - set(choose_panel(screen, 20).var_names))[:3]
    assert set(wanted) < set(choose_panel(screen, 20, targets=wanted).var_names)


def test_a_split_that_is_chosen_holds_for_parts(path):
    on_disk, here = (load_screen(path, n_top_genes=None, backed=backed) for backed in (True, False))
    unseen = sorted(set(here.obs["target_gene"]) - {"non-targeting"})[:2]
    sides = [named_split(on_panel(choose_split(cells, unseen), list(here.var_names[:30]))) for cells in (on_disk, here)]
    np.testing.assert_array_equal(*sides)
    assert set(sides[0]) == {"train", "unseen"}
    with pytest.raises(CDTError, match="takes no split"):
        choose_split(on_disk[:500], unseen)


def test_a_model_that_is_begun_from_disk_is_that_of_memory(path):
    models, stores = [], []
    for backed in (True, False):
        screen = load_screen(path, n_top_genes=20, backed=backed)
        cells = part_of(screen, named_split(screen) == "train")
        checkpoint = start(tiny(n_genes=20), cells)
        targets = sorted(set(screen.obs["target_gene"]) - {"non-targeting"})
        models.append(checkpoint)
        stores.append(TokenStore.from_adata(cells, checkpoint.tokenizer, checkpoint.vocabulary.extended(targets)))
    one, other = models
    assert one.tokenizer == other.tokenizer and one.vocabulary == other.vocabulary and one.panel == other.panel
    assert torch.equal(one.model.gene_table.weight, other.model.gene_table.weight)
    assert stores[0].digest() == stores[1].digest()


def test_predictions_and_scores_are_bit_for_bit_those_of_memory(path, tmp_path):
    """Cells of a file whose genes stand in another order than the model's, and whose counts are of float64."""
    stored = ad.read_h5ad(path)
    stored.X = stored.X.astype(np.float64)
    stored.write_h5ad(path)
    panel = list(load_screen(path, n_top_genes=30).var_names[::-1])
    found, tables = [], []
    for backed in (True, False):
        screen = on_panel(load_screen(path, n_top_genes=None, backed=backed), panel)
        side = named_split(screen)
        checkpoint = start(tiny(n_genes=30), in_memory(part_of(screen, side == "train")))
        wanted = [(target, -1, None) for target in sorted(set(screen.obs["target_gene"][side == "held_out"]))[:2]]
        output = Output(tmp_path / f"{backed}.h5ad")
        assert screen.isbacked == backed
        list(predict_many(checkpoint, screen, wanted, output, n_cells=12, options=Generation(steps=2)))
        found.append(ad.read_h5ad(tmp_path / f"{backed}.h5ad"))
        tables.append(score(screen, {"model": found[-1]}))
    one, other = found
    pd.testing.assert_frame_equal(one.obs, other.obs)
    assert one.X.dtype == other.X.dtype and (one.X != other.X).nnz == 0 and one.n_obs > 24
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_what_is_wrong_is_said_of_files_on_disk_too(tmp_path):
    screen = toy_screen()
    screen.layers["counts"] = screen.X.copy()
    screen.write_h5ad(tmp_path / "layers.h5ad")
    with pytest.raises(CDTError, match="layer 'counts': of a file that stays on the disk"):
        load_screen(tmp_path / "layers.h5ad", layer="counts", backed=True)
    screen.X = screen.X.log1p()
    screen.write_h5ad(tmp_path / "logs.h5ad")
    with pytest.raises(CDTError, match="not a whole number"):
        load_screen(tmp_path / "logs.h5ad", backed=True)
    empty = toy_screen()
    empty.X[5] = 0
    empty.write_h5ad(tmp_path / "empty.h5ad")
    with pytest.raises(CDTError, match="1 cells have no count"):
        load_screen(tmp_path / "empty.h5ad", backed=True)
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "empty.h5ad").read_bytes()[:3000])
    with pytest.raises(CDTError, match="cut short"):
        load_screen(tmp_path / "cut.h5ad", backed=True)


def test_the_direction_is_judged_block_by_block_as_at_once(tmp_path, monkeypatch):
    """A screen whose every target falls, declared as activation, is warned of: the same with blocks of any size."""
    screen = simulate_screen(64, 8, 900, seed=3)
    screen = screen[screen.obs["sign"] <= 0].copy()
    del screen.obs["sign"], screen.obs["magnitude"]
    screen.write_h5ad(tmp_path / "s.h5ad")
    said = []
    for backed, block in ((False, 4096), (True, 50)):
        monkeypatch.setattr("cdt_lite.data.blocks.BLOCK", block)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_screen(tmp_path / "s.h5ad", default_sign=1, backed=backed)
        said.append([str(w.message) for w in caught if issubclass(w.category, CDTWarning)])
    assert said[0] == said[1] and any("falls" in text for text in said[0])


def test_ensembl_ids_and_own_columns_are_read_on_disk(tmp_path):
    screen = toy_screen()
    screen.var["gene_symbols"] = screen.var_names
    screen.var_names = [f"ENSG{i:011d}" for i in range(screen.n_vars)]
    screen.obs = screen.obs.rename(columns={"target_gene": "gene"})
    screen.write_h5ad(tmp_path / "s.h5ad")
    with pytest.warns(CDTWarning, match="genes are called by"):
        found = load_screen(tmp_path / "s.h5ad", Columns(target="gene"), backed=True)
    assert list(found.var_names) == list(toy_screen().var_names) and "target_gene" in found.obs
    assert isinstance(found, ad.AnnData) and found.isbacked
