"""Gene sets at the door: files as people have them, and what becomes of each."""

import json
import os
import tracemalloc

import anndata as ad
import numpy as np
import pytest
from helpers import tiny, toy_screen

import cdt_lite as cdt
from cdt_lite.data.gene_sets import memberships, planted_sets, sets_for
from cdt_lite.data.layout import neighbours
from cdt_lite.data.public import GENE_SETS, SCREENS
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.training.prior import give_gene_sets
from cdt_lite.training.start import start

PUBLIC = ad.AnnData(uns={"screen": SCREENS["papalexi2021"]})

NEEDS_SETS = pytest.mark.skipif(not os.environ.get("CDT_LITE_MIRROR"), reason="CDT_LITE_MIRROR has no gene sets")
GMT = "JAK-STAT\thttp://x\tJAK2\tSTAT1\nTGF-beta\t\tSMAD4\tSMAD3\n"
PARTED = {"JAK-STAT": frozenset({"JAK2", "STAT1"}), "TGF-beta": frozenset({"SMAD4", "SMAD3"})}


def written(tmp_path, text, name="sets.gmt"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("text", [
    GMT, GMT.replace("\n", "\r\n"), "\ufeff" + GMT, GMT + "\n\n", GMT.rstrip("\n"), GMT.replace("STAT1", " STAT1 \t"),
    GMT + "empty\tnothing in it\n", GMT + "JAK-STAT\tonce more\tSTAT1\tJAK2\n"])
def test_a_gmt_file_says_what_it_says_however_it_was_saved(tmp_path, text):
    assert cdt.load_gene_sets(written(tmp_path, text)) == PARTED


def test_json_of_sets_and_of_cell_types_with_sets(tmp_path):
    flat = {name: sorted(genes) for name, genes in PARTED.items()}
    assert cdt.load_gene_sets(written(tmp_path, json.dumps(flat), "sets.json")) == PARTED
    nested = {"global": flat, "B": {"receptor": ["CD79A"], "none": []}}
    loaded = cdt.load_gene_sets(written(tmp_path, json.dumps(nested), "nested.json"))
    assert loaded == {f"global: {name}": genes for name, genes in PARTED.items()} | {"B: receptor": {"CD79A"}}


@pytest.mark.parametrize(("text", "name", "said"), [
    ("JAK-STAT   http://x   JAK2 STAT1\n", "sets.gmt", "line 1: expected .* tabs between them, found no tab"),
    (GMT + "JAK-STAT\t\tTYK2\n", "sets.gmt", "'JAK-STAT' twice, with other genes"),
    ("", "sets.gmt", "holds no set with a gene"),
    ("empty\tx\n", "sets.gmt", "holds no set with a gene"),
    ("{\"a\": [\"JAK2\"", "sets.json", "is not JSON"),
    ("{\"a\": {\"b\": [1, 2]}}", "sets.json", "expected symbols by set"),
    ("[\"JAK2\"]", "sets.json", "expected symbols by set"),
    ("[" * 100_000, "deep.json", "is not JSON"),
])
def test_what_is_no_file_of_gene_sets_is_named(tmp_path, text, name, said):
    with pytest.raises(CDTError, match=said):
        cdt.load_gene_sets(written(tmp_path, text, name))


def test_a_file_that_is_not_there_is_named_with_the_collections_that_are():
    with pytest.raises(CDTError, match="no gene sets at 'nowhere.gmt'.*immune"):
        cdt.load_gene_sets("nowhere.gmt")


def test_fifty_megabytes_are_read(tmp_path):
    row = "\t".join(f"GENE{i}" for i in range(2500))
    text = "".join(f"set {i}\t\t{row}\n" for i in range(2500))
    assert len(text) > 50e6
    assert len(cdt.load_gene_sets(written(tmp_path, text))) == 2500


def test_a_membership_weighs_more_in_a_small_set():
    table = memberships({"small": frozenset("AB"), "large": frozenset("ABCD")}, ["A"])
    assert list(table.index) == list("ABCD")
    np.testing.assert_allclose(table.loc["A"], [1 / np.log(4), 1 / np.log(6)])
    np.testing.assert_allclose(table.loc["C"], [0, 1 / np.log(6)])


@pytest.mark.parametrize(("members", "why"), [
    (["Jak2", "Stat1"], "they differ by case alone"), (["ENSG00000096968", "ENSG00000115415"], "Ensembl ids"),
    (["ACTB"], "check the species")])
def test_sets_without_a_target_are_refused_with_the_reason(members, why):
    with pytest.raises(CDTError, match=f"none of the 2 targets, such as 'JAK2', is in the 1 gene sets.*{why}"):
        memberships({"s": frozenset(members)}, ["JAK2", "STAT1"])


def test_a_model_is_told_of_genes_that_it_never_measured():
    checkpoint = start(tiny(), toy_screen(), gene_sets={"s": frozenset({"G3", "G5", "ELSEWHERE"})})
    assert "ELSEWHERE" in checkpoint.vocabulary and "ELSEWHERE" not in checkpoint.panel
    symbols = [checkpoint.vocabulary.symbols[gene] for gene in checkpoint.prior.genes]
    assert sorted(symbols) == ["ELSEWHERE", "G3", "G5"]
    np.testing.assert_allclose(np.linalg.norm(checkpoint.prior.values.toarray(), axis=1), 1, atol=1e-3)


def test_a_target_in_every_set_and_a_set_of_every_target_are_no_trouble():
    genes = [f"G{i}" for i in range(12)]
    sets = {f"s{i}": frozenset({"G3", gene}) for i, gene in enumerate(genes)} | {"all": frozenset(genes)}
    checkpoint = start(tiny(), toy_screen(), gene_sets=sets)
    assert np.isfinite(checkpoint.prior.values.data).all()


def test_a_large_collection_takes_as_much_room_as_it_has_members():
    """20,000 genes in 4,000 sets of fifty: dense, 640 MB."""
    rng = np.random.default_rng(0)
    sets = {f"s{i}": frozenset(f"G{j}" for j in rng.integers(20_000, size=50)) for i in range(4000)}
    checkpoint = start(tiny(n_total_genes=20_100), toy_screen())
    tracemalloc.start()
    give_gene_sets(checkpoint, sets, ["G3"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert checkpoint.prior.values.nnz == sum(map(len, sets.values()))
    assert peak < 200e6


@NEEDS_SETS
def test_the_collection_of_immune_sets_knows_most_targets_of_the_public_screen():
    sets = cdt.load_gene_sets("immune")
    assert len(sets) == 181 and GENE_SETS["immune"]["licence"] == "MIT"
    members = frozenset().union(*sets.values())
    targets = set(cdt.load_screen("papalexi2021").obs["target_gene"]) - {"non-targeting"}
    assert len(targets) == 25 and len(targets & members) == 19
    assert sets_for(PUBLIC) == sets and sets_for(PUBLIC, "none") is None


def test_without_network_and_mirror_it_is_said_that_coexpression_is_all(tmp_path, monkeypatch):
    monkeypatch.setenv("CDT_LITE_DATA", str(tmp_path))
    monkeypatch.setenv("CDT_LITE_OFFLINE", "1")
    monkeypatch.delenv("CDT_LITE_MIRROR", raising=False)
    assert SCREENS["papalexi2021"]["gene_sets"] == "immune"
    assert sets_for(ad.AnnData(uns={"screen": {"name": "mine"}})) is None
    with pytest.warns(CDTWarning, match="without the gene sets 'immune'.*co-expression alone"):
        assert sets_for(PUBLIC) is None
    with pytest.raises(CDTError, match="OFFLINE"):
        sets_for(PUBLIC, "immune")


def test_planted_sets_hold_the_genes_that_move_together_and_neighbours_the_targets():
    screen = cdt.simulate_screen(n_genes=48, n_targets=16, n_cells=600)
    truth = screen.uns["truth"]
    table = truth["perturbations"]
    towards = truth["effect"] * table["sign"].to_numpy()[:, None]  # what a gain of the target's does
    moved = dict(zip(table["target_gene"], towards, strict=True))
    sets, alike = planted_sets(screen), neighbours(screen, [])
    program = {gene: name for name, genes in sets.items() for gene in genes}
    assert sum(map(len, sets.values())) == len(program), "a gene is in one set alone"
    own = set(table["target_gene"][table["gain"] != 0])
    assert own <= set(program) and set(alike) == own
    pairs = [(target, other) for target, others in alike.items() for other in others]
    assert pairs
    for target, other in pairs:
        assert program[target] == program[other] and target != other
        elsewhere = ~np.isin(truth["genes"], [target, other])
        assert np.corrcoef(moved[target][elsewhere], moved[other][elsewhere])[0, 1] > 0


def test_a_public_screen_names_its_pathway_and_any_screen_may():
    screen, asked = toy_screen(), ["G3", "NEVER PERTURBED"]
    assert neighbours(screen, asked) == {}
    screen.uns["screen"] = {"pathway": ["G3"]}
    assert neighbours(screen, asked) == {"G3": [], "NEVER PERTURBED": ["G3"]}
    screen.uns["neighbours"] = {"G5": np.array(["G7"])}
    assert neighbours(screen, asked) == {"G5": ["G7"]}


def test_of_a_simulated_screen_the_planted_programs_can_be_had_by_name():
    screen = cdt.simulate_screen(n_genes=48, n_targets=16, n_cells=600)
    assert sets_for(screen, "planted") == planted_sets(screen)
    assert sets_for(screen) is None
    with pytest.raises(CDTError, match="no gene sets at 'planted'"):
        sets_for(PUBLIC, "planted")


def test_a_json_that_names_a_set_twice_is_refused_unless_it_means_the_same(tmp_path):
    file = tmp_path / "sets.json"
    file.write_text('{"A": ["X"], "B": ["Z"], "A": ["Y"]}')
    with pytest.raises(CDTError, match="names the set 'A' twice"):
        cdt.load_gene_sets(file)
    file.write_text('{"A": ["X"], "A": ["X"]}')
    assert cdt.load_gene_sets(file) == {"A": frozenset({"X"})}


@pytest.mark.parametrize("given", [{"G3": "G5"}, ["G3", "G5"], "G3"])
def test_neighbours_that_are_no_lists_are_refused(given):
    screen = toy_screen()
    screen.uns["neighbours"] = given
    with pytest.raises(CDTError, match="expected lists of targets by target"):
        neighbours(screen, ["G3"])


def test_words_about_a_screen_that_are_no_table_are_no_trouble():
    screen = toy_screen()
    screen.uns["screen"] = "a screen of mine"
    assert neighbours(screen, ["G3"]) == {}
