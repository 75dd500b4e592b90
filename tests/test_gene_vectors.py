"""Gene vectors: read at the door, made from co-expression, written into the gene table."""

import numpy as np
import pandas as pd
import pytest

from cdt_lite.data.simulate import simulate_screen
from cdt_lite.errors import CDTError
from cdt_lite.model.config import PRESETS
from cdt_lite.training.gene_vectors import coexpression_vectors, give_vectors, read_gene_vectors
from cdt_lite.training.start import start


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_genes=64, n_targets=8, n_cells=1200, seed=3)


def test_all_dimensions_reproduce_the_correlations_of_scipy_and_few_find_the_planted_programs(screen):
    vectors = coexpression_vectors(screen, 64)
    counts = screen.X.toarray().astype(float)
    depth = counts.sum(1, keepdims=True)
    logged = np.log1p(counts / depth * np.median(depth))
    assert vectors.to_numpy() @ vectors.to_numpy().T == pytest.approx(np.corrcoef(logged.T), abs=1e-4)
    few = coexpression_vectors(screen, 8)
    unit = few.div(np.linalg.norm(few, axis=1), axis=0)
    cosine = np.abs(unit @ unit.T).to_numpy()
    truth = screen.uns["truth"]
    loadings = truth["loadings"][[list(truth["genes"]).index(g) for g in screen.var_names]]  # genes x programs
    program, strong = np.abs(loadings).argmax(1), np.abs(loadings).max(1) > 0.4
    pairs = np.triu(strong[:, None] & strong, 1)
    same = program[:, None] == program
    assert cosine[pairs & same].mean() > cosine[pairs & ~same].mean() + 0.15


def test_of_a_large_screen_only_a_part_is_read(screen, monkeypatch):
    monkeypatch.setattr("cdt_lite.training.gene_vectors.MOST_CELLS", 500)
    pd.testing.assert_frame_equal(coexpression_vectors(screen, 8), coexpression_vectors(screen[::3].copy(), 8))


def test_vectors_become_rows_of_the_gene_table_and_no_other_row_moves(screen):
    checkpoint, fresh = (start(PRESETS["lite"], screen, seed=1) for _ in range(2))
    vectors = coexpression_vectors(screen, 16).iloc[:20]
    vectors.loc["NOT_A_GENE"] = 1.0
    assert give_vectors(checkpoint, vectors) == list(screen.var_names[:20])
    rows = checkpoint.vocabulary.ids(list(screen.var_names[:20]))
    table, before = (c.model.gene_table.weight.detach().numpy() for c in (checkpoint, fresh))
    known = vectors.iloc[:20].to_numpy()
    assert table[rows, :16] == pytest.approx(known / np.sqrt((known**2).mean()), abs=1e-5)
    assert (table[rows, 16:] == before[rows, 16:]).all()
    assert (np.delete(table, rows, 0) == np.delete(before, rows, 0)).all()


def test_longer_vectors_are_projected_and_keep_the_distances_between_genes(screen):
    checkpoint = start(PRESETS["lite"], screen, seed=1)
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(64, 5)) @ rng.normal(size=(5, 300))  # five true dimensions in three hundred columns
    give_vectors(checkpoint, pd.DataFrame(flat, index=screen.var_names))
    rows = checkpoint.model.gene_table.weight.detach().numpy()[checkpoint.vocabulary.ids(list(screen.var_names))]
    given, kept = (np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(64, 1)] for x in (flat, rows))
    assert np.corrcoef(given, kept)[0, 1] == pytest.approx(1, abs=1e-4)


def test_a_file_is_read_as_it_was_written(tmp_path):
    table = pd.DataFrame({"a": [0.5, 1.0], "b": [2.0, -1.0]}, index=["STAT1", "JAK2"])
    table.to_csv(tmp_path / "v.csv")
    table.to_csv(tmp_path / "v.tsv", sep="\t")
    for name in ("v.csv", "v.tsv"):
        pd.testing.assert_frame_equal(read_gene_vectors(tmp_path / name), table, check_names=False)


@pytest.mark.parametrize(("text", "message"), [
    (",a\nSTAT1,1\nSTAT1,2\n", "more than once"), (",a\nSTAT1,high\n", "other things"), (",a\nSTAT1,\n", "not finite"),
    (",a\n", "empty")])
def test_bad_files_are_refused(tmp_path, text, message):
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(CDTError, match=message):
        read_gene_vectors(tmp_path / "v.csv")


def test_a_missing_file_and_strangers_are_refused(tmp_path, screen):
    with pytest.raises(CDTError, match="no file of gene vectors"):
        read_gene_vectors(tmp_path / "none.csv")
    with pytest.raises(CDTError, match="none of the 1 genes"):
        give_vectors(start(PRESETS["lite"], screen), pd.DataFrame({"a": [1.0]}, index=["NOT_A_GENE"]))
