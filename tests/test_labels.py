"""Labels and genes as people write them, and screens with few targets or replicates: read right, said, or refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import tiny, toy_screen

from cdt_lite.data.layout import CONTROL, Columns, check_screen, read_labels
from cdt_lite.data.screens import load_screen
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.training.start import start


@pytest.fixture
def screen():
    return toy_screen()


def saved(adata, tmp_path):
    adata.write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


# --- labels ----------------------------------------------------------------------------------------------------------

def relabelled(screen, change):
    """The screen with other targets: change(name, number of the cell); signs and magnitudes left out."""
    names = screen.obs["target_gene"].astype(str)
    new = [change(name, i) for i, name in enumerate(names)]
    out = screen.copy()
    out.obs = out.obs[["batch"]].assign(target_gene=new)
    return out


@pytest.mark.parametrize("way", ["Non-Targeting", "non-targeting ", " NON-targeting"])
def test_controls_in_another_case_or_with_blanks_are_controls(screen, tmp_path, way):
    odd = relabelled(screen, lambda name, i: way if name == CONTROL and i % 3 else name)
    with pytest.warns(CDTWarning, match=f"'{way}' as '{CONTROL}'"):
        loaded = load_screen(saved(odd, tmp_path))
    assert loaded.obs["target_gene"].astype(str).tolist() == screen.obs["target_gene"].astype(str).tolist()
    assert ((loaded.obs["sign"] == 0) == (screen.obs["sign"] == 0)).all()


def test_a_gene_that_is_called_as_the_control_in_another_case_stays_a_gene(screen):
    odd = relabelled(screen, lambda name, i: {CONTROL: "nt", "G3": "NT"}.get(name, name))
    odd.var_names = ["NT" if gene == "G3" else gene for gene in odd.var_names]
    labels = read_labels(odd, Columns(control="nt"))
    assert (labels.is_control == (screen.obs["sign"] == 0)).all() and "NT" in labels.target


def gears(name, i):
    if name == CONTROL:
        return "ctrl"
    if i % 5 == 0:
        return ["G3+G5", "G5+G3", "G3 + G5"][i % 3]
    return [f"{name}+ctrl", f"ctrl+{name}", name, f"{name} "][i % 4]


def test_conditions_of_gears_are_targets_and_pairs_have_one_order(screen, tmp_path):
    with pytest.warns(CDTWarning, match=r"'G3\+ctrl' as 'G3'"):
        loaded = load_screen(saved(relabelled(screen, gears), tmp_path), Columns(control="ctrl"))
    truth = screen.obs["target_gene"].astype(str).to_numpy()
    pair = (truth != CONTROL) & (np.arange(len(truth)) % 5 == 0)
    assert loaded.obs["target_gene"].astype(str).tolist() == np.where(pair, "G3+G5", truth).tolist()
    assert list(loaded.uns["screen"]["unmeasured_targets"]) == ["G3+G5"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)  # once read, nothing is left to say
        assert (read_labels(loaded).target == loaded.obs["target_gene"].astype(str)).all()


def test_cells_labelled_as_in_gears_train_and_start_as_the_others_do(screen):
    columns = Columns(control="ctrl")
    odd = relabelled(screen, lambda name, i: "ctrl" if name == CONTROL else f"ctrl+{name}")
    with pytest.warns(CDTWarning):
        checkpoint = start(tiny(), odd, columns=columns)
        store = TokenStore.from_adata(odd, checkpoint.tokenizer, checkpoint.vocabulary, columns)
    assert checkpoint.vocabulary.symbols == list(screen.var_names)
    want = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    np.testing.assert_array_equal(store.target, want.target)


@pytest.mark.parametrize("way", ["{}g{}", "{}_{}", "{}-sg{}", "{}.{}"])
def test_guides_are_refused_and_the_advice_works(screen, tmp_path, way):
    guides = relabelled(screen, lambda name, i: name if name == CONTROL else way.format(name, 1 + i % 2))
    with pytest.raises(CDTError, match=r"targets look like guides.*of gene 'G\d'.*Columns\(target='gene'\)") as refused:
        load_screen(saved(guides, tmp_path))
    pattern = str(refused.value).split("str.replace(r'")[1].split("'")[0]
    guides.obs["gene"] = guides.obs["target_gene"].astype(str).str.replace(pattern, "", regex=True)
    loaded = load_screen(saved(guides, tmp_path), Columns(target="gene"))
    assert loaded.obs["target_gene"].astype(str).tolist() == screen.obs["target_gene"].astype(str).tolist()
    with pytest.raises(CDTError, match="targets look like guides"):
        start(tiny(), guides)


def test_a_single_odd_name_beside_measured_targets_is_no_guide(screen):
    check_screen(relabelled(screen, lambda name, i: "G3-2" if name == "G3" else name))


def test_targets_of_which_none_is_measured_are_named_with_what_is_close(screen, tmp_path):
    odd = relabelled(screen, lambda name, i: {"G3": "Gx3", "G5": "elsewhere"}.get(name, name))
    with pytest.warns(CDTWarning, match="none of its 2 targets is among its 12 genes: 'Gx3', close to 'G3'"):
        loaded = load_screen(saved(odd, tmp_path))
    assert list(loaded.uns["screen"]["unmeasured_targets"]) == ["Gx3", "elsewhere"]


# --- Ensembl ids -----------------------------------------------------------------------------------------------------

def with_ids(screen, key, ids=True):
    out = screen.copy()
    names = [f"ENSG{i:011d}" for i in range(screen.n_vars)] if ids else [f"probe{i}" for i in range(screen.n_vars)]
    out.var = pd.DataFrame({key: pd.Categorical(screen.var_names)}, index=names)
    return out


@pytest.mark.parametrize("key", ["gene_symbols", "gene_name", "feature_name", "symbol"])
def test_symbols_beside_ensembl_ids_name_the_genes(screen, tmp_path, key):
    with pytest.warns(CDTWarning, match=rf"genes are called by var\['{key}'\]"):
        loaded = load_screen(saved(with_ids(screen, key), tmp_path))
    assert list(loaded.var_names) == list(screen.var_names) and not len(loaded.uns["screen"]["unmeasured_targets"])
    np.testing.assert_array_equal(loaded.X.toarray(), screen.X.toarray())


def test_genes_without_a_symbol_of_their_own_keep_their_ids(screen, tmp_path):
    twice = with_ids(screen, "gene_name")
    twice.var["gene_name"] = ["G1", "G1", "", None, *screen.var_names[4:]]
    twice.obs["target_gene"] = twice.obs["target_gene"].astype(str).replace("G3", "G7")
    with pytest.warns(CDTWarning, match="4 without a symbol of their own"):
        loaded = load_screen(saved(twice, tmp_path))
    assert list(loaded.var_names) == [*twice.var_names[:4], *screen.var_names[4:]]


def test_targets_that_are_ids_keep_the_ids(screen, tmp_path):
    own = with_ids(screen, "gene_name")
    names = dict(zip(screen.var_names, own.var_names, strict=True))
    own.obs["target_gene"] = own.obs["target_gene"].astype(str).replace(names)
    assert list(load_screen(saved(own, tmp_path)).var_names) == list(own.var_names)


def test_symbols_in_another_column_are_offered_by_name(screen, tmp_path):
    for own in (with_ids(screen, "hgnc"), with_ids(screen, "symbol", ids=False)):
        key = own.var.columns[0]
        with pytest.raises(CDTError, match=rf"var\['{key}'\] holds 2 of them: adata.var_names = adata.var\['{key}'\]"):
            load_screen(saved(own, tmp_path))
        with pytest.raises(CDTError, match=rf"var\['{key}'\] holds 2"):
            start(tiny(), own)


# --- few targets, few replicates -------------------------------------------------------------------------------------

def test_the_only_target_keeps_cells_to_train_on(screen):
    one = screen[screen.obs["target_gene"] != "G3"].copy()
    side = named_split(one)
    replicate = one.obs["batch"].astype(str).to_numpy()
    held_out = (one.obs["target_gene"] == "G5").to_numpy() & (replicate == "b")
    np.testing.assert_array_equal(side, np.where(held_out, "held_out", "train"))


def test_of_the_only_target_in_one_replicate_random_cells_are_withheld(screen):
    one = screen[(screen.obs["target_gene"] != "G3") & ((screen.obs["sign"] == 0) | (screen.obs["batch"] == "a"))]
    side = named_split(one.copy())
    perturbed = (one.obs["sign"] != 0).to_numpy()
    assert set(side[~perturbed]) == {"train"}
    assert 0.1 < np.mean(side[perturbed] == "held_out") < 0.4


def test_loading_says_that_there_is_one_replicate(screen, tmp_path):
    path = saved(screen, tmp_path)
    with pytest.warns(CDTWarning, match="the screen has one replicate") as said:
        load_screen(path, Columns(batch=None))
    assert [warning.category for warning in said].count(CDTWarning) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", CDTWarning)
        load_screen(path)
