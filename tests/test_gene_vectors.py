"""Gene vectors: read at the door, made from co-expression, written into the gene table."""

import csv

import numpy as np
import pandas as pd
import pytest

from cdt_lite.data.simulate import simulate_screen
from cdt_lite.errors import CDTError
from cdt_lite.model.config import PRESETS
from cdt_lite.training.gene_vectors import coexpression, give_vectors, read_gene_vectors
from cdt_lite.training.start import start


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=64, n_targets=8, n_cells=1200, seed=3)


@pytest.fixture(scope="module")
def logged(screen):
    counts = screen.X.toarray().astype(float)
    depth = counts.sum(1, keepdims=True)
    return np.log1p(counts / depth * np.median(depth))


def table_of(checkpoint):
    return checkpoint.model.gene_table.weight.detach().numpy()


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_inner_products_are_the_correlations_of_numpy_however_the_cells_come(logged):
    correlations = np.corrcoef(logged.T)
    for blocks in ([logged], np.array_split(logged, 7)):
        vectors = coexpression(blocks)
        assert vectors @ vectors.T == pytest.approx(correlations, abs=1e-6)
    lengths = np.linalg.norm(vectors, axis=0)
    assert (np.diff(lengths) <= 1e-9).all()  # the strongest direction first


def test_the_first_directions_find_the_planted_programs(screen, logged):
    cosine = np.abs(cosines(coexpression([logged])[:, :8]))
    truth = screen.uns["truth"]
    order = [list(truth["genes"]).index(gene) for gene in screen.var_names]
    loadings = np.abs(truth["loadings"][order])  # genes x programs
    program, strong = loadings.argmax(1), loadings.max(1) > 0.4
    pairs = np.triu(strong[:, None] & strong, 1)
    same = program[:, None] == program
    assert cosine[pairs & same].mean() > cosine[pairs & ~same].mean() + 0.15


def test_of_independent_genes_hardly_a_direction_is_above_noise(logged):
    noise = np.random.default_rng(0).normal(size=(2000, 50))
    assert coexpression([noise], above_noise=True).shape[1] <= 2
    kept = coexpression([logged], above_noise=True)
    assert 2 < kept.shape[1] < 40
    np.testing.assert_array_equal(kept, coexpression([logged])[:, : kept.shape[1]])


def test_a_new_model_starts_from_the_co_expression_of_its_screen(screen, logged):
    checkpoint = start(PRESETS["lite"], screen, seed=1)
    rows = table_of(checkpoint)[checkpoint.vocabulary.ids(list(screen.var_names))]
    expected = coexpression([logged])[:, :32]
    assert cosines(rows) == pytest.approx(cosines(expected), abs=0.02)  # depth: the controls' median, not of all cells
    assert (rows**2).mean() == pytest.approx(1, abs=1e-5)


def test_vectors_become_rows_of_the_gene_table_and_no_other_row_moves(screen, logged):
    checkpoint, fresh = (start(PRESETS["lite"], screen, seed=1) for _ in range(2))
    genes, known = list(screen.var_names[:20]), coexpression([logged])[:20, :16]
    vectors = pd.DataFrame(known, index=genes)
    vectors.loc["NOT_A_GENE"] = 1.0
    give_vectors(checkpoint, vectors)
    rows = checkpoint.vocabulary.ids(genes)
    table, before = table_of(checkpoint), table_of(fresh)
    assert table[rows, :16] == pytest.approx(known / np.sqrt((known**2).mean()), abs=1e-5)
    assert (table[rows, 16:] == before[rows, 16:]).all()
    assert (np.delete(table, rows, 0) == np.delete(before, rows, 0)).all()


def test_longer_vectors_are_projected_and_keep_the_distances_between_genes(screen):
    checkpoint, rng = start(PRESETS["lite"], screen, seed=1), np.random.default_rng(0)
    flat = rng.normal(size=(64, 5)) @ rng.normal(size=(5, 300))  # five true dimensions in three hundred columns
    give_vectors(checkpoint, pd.DataFrame(flat, index=screen.var_names))
    rows = table_of(checkpoint)[checkpoint.vocabulary.ids(list(screen.var_names))]
    pairs = np.triu_indices(64, 1)
    given, kept = (np.linalg.norm(x[:, None] - x, axis=-1)[pairs] for x in (flat, rows))
    assert np.corrcoef(given, kept)[0, 1] == pytest.approx(1, abs=1e-4)


def test_strangers_are_refused(screen):
    strangers = pd.DataFrame({"a": [1.0]}, index=["NOT_A_GENE"])
    with pytest.raises(CDTError, match="none of the 1 genes"):
        give_vectors(start(PRESETS["lite"], screen), strangers)


def test_a_file_is_read_as_it_was_written(tmp_path):
    table = pd.DataFrame({"a": [0.5, 1.0], "b": [2.0, -1.0]}, index=["STAT1", "JAK2"])
    table.to_csv(tmp_path / "v.csv")
    table.to_csv(tmp_path / "v.tsv", sep="\t")
    for name in ("v.csv", "v.tsv"):
        pd.testing.assert_frame_equal(read_gene_vectors(tmp_path / name), table, check_names=False)


TABLE = pd.DataFrame({"a": [0.5, 1.0, 7.0], "b": [2.0, -1.25, 0.0]}, index=["nan", "NA", "STAT1"])
WRITTEN = {
    "commas": {},
    "tabs in a .csv": {"sep": "\t"},
    "a spreadsheet in Europe": {"sep": ";", "decimal": ",", "encoding": "utf-8-sig"},
    "semicolons and points": {"sep": ";"},
    "every cell in quotes": {"quoting": csv.QUOTE_ALL, "lineterminator": "\r\n"},
    "as R does, without a name for the genes' column": {"index_label": False},
    "numbered columns": {"header": ["0", "1"]},
}


@pytest.mark.parametrize("way", WRITTEN)
def test_every_way_to_write_a_table_is_read_and_a_gene_called_nan_is_a_gene(tmp_path, way):
    TABLE.to_csv(tmp_path / "v.csv", **WRITTEN[way])
    read = read_gene_vectors(tmp_path / "v.csv")
    pd.testing.assert_frame_equal(read, TABLE.set_axis(WRITTEN[way].get("header", ["a", "b"]), axis=1))


def test_genes_called_nan_and_na_get_their_vectors(screen, tmp_path):
    named = screen.copy()
    named.var_names = ["nan", "NA", *screen.var_names[2:]]
    checkpoint = start(PRESETS["lite"], named, seed=1)
    TABLE.to_csv(tmp_path / "v.csv")
    give_vectors(checkpoint, read_gene_vectors(tmp_path / "v.csv"))
    known = TABLE.loc[[gene for gene in TABLE.index if gene in checkpoint.vocabulary]].to_numpy()
    rows = table_of(checkpoint)[:2, :2]
    np.testing.assert_allclose(rows, known[:2] / np.sqrt((known**2).mean()), rtol=1e-6)


@pytest.mark.parametrize("values", [0.0, 1e200])
def test_vectors_that_say_nothing_never_become_nan(screen, values):
    checkpoint = start(PRESETS["lite"], screen)
    with pytest.raises(CDTError, match="must tell genes apart"):
        give_vectors(checkpoint, pd.DataFrame(values, screen.var_names, list("abc")))
    assert np.isfinite(table_of(checkpoint)).all()


def test_a_table_whose_genes_pandas_lost_is_refused(screen, tmp_path):
    TABLE.to_csv(tmp_path / "v.csv")
    lost = pd.read_csv(tmp_path / "v.csv", index_col=0)
    with pytest.raises(CDTError, match="a row without a gene symbol"):
        give_vectors(start(PRESETS["lite"], screen), lost)


BAD = {
    "more than once": ",a\nSTAT1,1\nSTAT1,2\n",
    "other things are in that of 'STAT1': 'high'": ",a\nSTAT1,high\n",
    "other things are in that of 'STAT1': '1.234,5'": ";a\nSTAT1;1.234,5\n",  # a separator of thousands
    "not finite": ",a\nSTAT1,\n",
    "missing or not finite": ",a\nSTAT1,inf\n",
    "empty": ",a\n",
    "it is empty": "",
    "a gene and as many numbers in every line: line 3, 'JAK2', holds 2": ",a\nSTAT1,1\nJAK2,1,2\n",
    "line 2, 'STAT1', holds 0 values": "gene\nSTAT1\n",
    "names 4 columns and has 2": ",a,b,c\nSTAT1,1\n",
    "must name its columns, but holds numbers of 'STAT1'": "STAT1,0.5\nJAK2,1.5\n",
    "without a gene symbol": ",a\n,1\n",
    "not a CSV": b"\xff\xfe\x00a",
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_refused(tmp_path, message):
    content = BAD[message]
    (tmp_path / "v.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CDTError, match=message):
        read_gene_vectors(tmp_path / "v.csv")
    with pytest.raises(CDTError, match="no file of gene vectors"):
        read_gene_vectors(tmp_path / "none.csv")
    with pytest.raises(CDTError, match="no file of gene vectors"):
        read_gene_vectors(tmp_path)
