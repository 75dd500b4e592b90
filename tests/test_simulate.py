"""The simulated screen: its cells obey the equations that it states, and what is planted can be found (or cannot)."""

from dataclasses import asdict, fields, replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from cdt_lite.data.layout import CONTROL, screen_hash
from cdt_lite.data.simulate import SIMULATOR_VERSION, WORLDS, ScreenDesign, _checked, simulate_screen
from cdt_lite.data.world import KAPPA, plant
from cdt_lite.errors import CDTError

NAN = float("nan")
SIZE = {"n_genes": 96, "n_targets": 20, "n_cells": 600, "seed": 0, "world": "regulatory"}


def planted(**size):
    """The world alone, without cells."""
    return plant(np.random.default_rng(0), _checked(SIZE | asdict(ScreenDesign()) | size))


@pytest.fixture(scope="module")
def screen():
    return simulate_screen(n_cells=24_000)


def per_unit(screen):
    """Counts over size and batch effect: by the equations their mean is a rate."""
    batch = screen.obs["batch"].cat.codes.to_numpy()
    scale = screen.obs["size_factor"].to_numpy()[:, None] * np.exp(screen.uns["truth"]["batch_effect"])[batch]
    return screen.X.toarray() / scale


def scores(values, expected):
    """z of a mean against its planted value, (genes,)."""
    return (values.mean(0) - expected) / (values.std(0, ddof=1) / np.sqrt(len(values)))


def test_layout(screen):
    assert isinstance(screen.X, sp.csr_matrix) and screen.X.dtype == np.float32
    assert (screen.X.data % 1 == 0).all() and screen.X.data.min() >= 1
    obs = screen.obs
    assert [obs[k].dtype for k in ("sign", "magnitude", "n_umi")] == [np.int8, np.float32, np.float32]
    control = (obs["target_gene"] == CONTROL).to_numpy()
    assert ((obs["sign"] == 0) == control).all() and (obs["magnitude"][control] == 0).all()
    np.testing.assert_array_equal(obs["n_umi"], np.asarray(screen.X.sum(1)).ravel())
    unmeasured = screen.uns["screen"]["unmeasured_targets"]
    assert set(unmeasured) == set(obs["target_gene"]) - set(screen.var_names) - {CONTROL} and len(unmeasured) == 3
    assert (obs["magnitude"].isna() == obs["target_gene"].isin(unmeasured)).all()
    assert (np.sign(obs["magnitude"].fillna(obs["sign"])) == obs["sign"]).all()
    both = obs[~control].groupby("target_gene", observed=True)["sign"].nunique()
    assert (both == 2).sum() == 6 and screen.uns["screen"]["version"] == SIMULATOR_VERSION
    assert (obs.groupby(["perturbation", "batch"], observed=False).size() > 0).all()
    assert not obs["escaped"][control].any() and 0.08 < obs["escaped"][~control].mean() < 0.12
    controls = obs["n_umi"][control].mean() / np.exp(screen.uns["truth"]["batch_effect"]).mean()
    assert abs(controls / 204.8 - 1) < 0.05  # the depth asked for


def test_same_seed_same_bytes_and_more_cells_same_world():
    a, b, c, more = (simulate_screen(**SIZE | o) for o in ({}, {}, {"seed": 1}, {"n_cells": 900}))
    assert a.X.data.tobytes() == b.X.data.tobytes() and a.X.indices.tobytes() == b.X.indices.tobytes()
    assert a.obs.equals(b.obs) and screen_hash(a) == screen_hash(b) != screen_hash(c)
    assert (a.uns["truth"]["effect"] == more.uns["truth"]["effect"]).all()
    assert not np.array_equal(a.uns["truth"]["loadings"], c.uns["truth"]["loadings"])


@pytest.mark.parametrize(("size", "design", "expected"), [
    ({}, {}, "de561327718e5d76"),
    ({"world": "unidentifiable", "seed": 5, "n_genes": 100, "n_cells": 900}, {
        "n_batches": 2, "null_fraction": 0.5, "both_fraction": 0.0, "activation_fraction": 0.0,
        "unmeasured_fraction": 0.3}, "b0bd225c1314fd9b"),
    ({"n_genes": 640, "n_cells": 800}, {
        "depth": 900.0, "n_programs": 9, "escape_fraction": 0.3, "control_fraction": 0.4}, "1edd6656e82af768")])
def test_frozen(size, design, expected):
    """The cells of a seed never change without a new SIMULATOR_VERSION."""
    screen = simulate_screen(**SIZE | size, design=ScreenDesign(**design))
    assert (SIMULATOR_VERSION, screen_hash(screen)[:16]) == ("1", expected)
    assert list(screen.uns["screen"]["options"]) == [*SIZE, *(field.name for field in fields(ScreenDesign))]


def test_hash_sees_counts_and_labels_and_survives_a_file(tmp_path):
    screen = simulate_screen(**SIZE)
    screen.write_h5ad(tmp_path / "screen.h5ad")
    back = ad.read_h5ad(tmp_path / "screen.h5ad")
    assert screen_hash(back) == screen_hash(screen) == screen.uns["screen"]["sha256"]
    for key, value in screen.uns["truth"].items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back.uns["truth"][key], value)
    tables = [each.uns["truth"]["perturbations"] for each in (back, screen)]
    np.testing.assert_array_equal(*(table["null"] for table in tables))
    back.X[0, 0] += 1
    assert screen_hash(back) != screen_hash(screen)
    back = screen.copy()
    back.obs["sign"] = -back.obs["sign"]
    assert screen_hash(back) != screen_hash(screen)


def test_cell_means_are_the_planted_rates(screen):
    """Over all perturbations and genes, (mean - planted rate) / standard error is standard normal."""
    truth, values = screen.uns["truth"], per_unit(screen)
    genes = truth["control_mean"] > 0.3  # a rare gene's sample variance is no estimate
    groups = [(screen.obs["target_gene"] == CONTROL, np.zeros(screen.n_vars))]
    for name, all_cells, effect in zip(
            truth["perturbations"].index, truth["effect_observed"], truth["effect"], strict=True):
        labelled = screen.obs["perturbation"] == name
        groups += [(labelled, all_cells), (labelled & ~screen.obs["escaped"], effect)]
    z = np.array([scores(values[rows.to_numpy()][:, genes], (truth["control_mean"] * np.exp(effect))[genes])
                  for rows, effect in groups])
    assert abs(z.mean()) < 0.1 and abs(z.std() - 1) < 0.1 and (np.abs(z) > 4).mean() < 2e-3
    assert (np.abs(z[0]) < 4.5).all()  # controls, where cells are many


@pytest.mark.parametrize(("group", "slope"), [("responding", 1.0), ("escaped", 0.0)])
def test_responding_cells_show_the_whole_effect_and_escaped_cells_none(screen, group, slope):
    """Observed against planted change, over all perturbations and genes but the targets, weighted by precision."""
    truth, values = screen.uns["truth"], per_unit(screen)
    chosen = screen.obs["escaped"].to_numpy() == (group == "escaped")
    products, squares = 0.0, 0.0
    for name, effect in zip(truth["perturbations"].index, truth["effect"], strict=True):
        cells = values[(screen.obs["perturbation"] == name).to_numpy() & chosen]
        mean = truth["control_mean"] * np.exp(slope * effect)  # as planted: what is seen must not choose the weights
        planted, weight = truth["control_mean"] * np.expm1(effect), len(cells) / (mean + 2 * mean**2)
        weight = np.where(screen.var_names == truth["perturbations"].loc[name, "target_gene"], 0, weight)
        products += (weight * planted * (cells.mean(0) - truth["control_mean"])).sum()
        squares += (weight * planted**2).sum()
    assert abs(products / squares - slope) < 4 / np.sqrt(squares) < 0.1


def test_null_targets_change_their_own_mrna_and_nothing_else(screen):
    truth, values = screen.uns["truth"], per_unit(screen)
    table, control = truth["perturbations"], values[(screen.obs["target_gene"] == CONTROL).to_numpy()]
    z = []
    for name in table.index[table["null"]]:
        other = screen.var_names != table.loc[name, "target_gene"]
        row = truth["effect"][table.index.get_loc(name)]
        assert (np.abs(row[other]) < 1e-6).all()
        if table.loc[name, "measured"]:
            assert row[~other] == pytest.approx(table.loc[name, "magnitude"] * np.log(2), rel=1e-5)
        cells = values[(screen.obs["perturbation"] == name).to_numpy()]
        se = np.sqrt(cells.var(0) / len(cells) + control.var(0) / len(control))
        z.append(((cells.mean(0) - control.mean(0)) / se)[other & (truth["control_mean"] > 0.3)])
    assert len(z) >= 6 and abs(np.std(np.concatenate(z)) - 1) < 0.1


def test_own_mrna_changes_by_the_magnitude(screen):
    truth, values = screen.uns["truth"], per_unit(screen)
    table = truth["perturbations"].query("measured")
    responding = ~screen.obs["escaped"].to_numpy()
    for name, row in table.iterrows():
        gene = screen.var_names.get_loc(row["target_gene"])
        cells = values[(screen.obs["perturbation"] == name).to_numpy() & responding, gene]
        expected = truth["control_mean"][gene] * 2 ** row["magnitude"]
        assert abs(cells.mean() - expected) < 5 * max(cells.std(), expected**0.5) / np.sqrt(len(cells)), name


def test_variance_law(screen):
    """Background genes vary by counting noise alone: variance = mu + dispersion mu^2, gene by gene."""
    truth = screen.uns["truth"]
    background = (truth["loadings"] == 0).all(1) & (truth["control_mean"] > 0.5)
    background &= ~np.isin(screen.var_names, truth["perturbations"]["target_gene"])
    batch = screen.obs["batch"].cat.codes.to_numpy()
    mean = screen.obs["size_factor"].to_numpy()[:, None] * np.exp(truth["batch_effect"])[batch] * truth["control_mean"]
    mean, dispersion = mean[:, background], truth["dispersion"][background]
    counts = screen.X.toarray()[:, background]
    ratio = ((counts - mean) ** 2 / (mean + dispersion * mean**2)).mean(0)
    assert background.sum() >= 10 and np.abs(ratio - 1).max() < 0.15 and abs(ratio.mean() - 1) < 0.03
    poisson = ((counts - mean) ** 2 / mean).mean(0)
    assert (poisson > 1.1).all()  # the test would notice missing overdispersion


def log_change(world, dose=1.0):
    """Natural log fold change of each perturbation at a multiple of its dose, (P, G)."""
    return np.log(world.expected_rates(dose * world.drive) / world.expected_rates(0 * world.drive))


def test_linear_world_has_a_closed_form():
    """Without saturation, log fold changes are loadings (I - B)^-1 drive; twice the dose is twice the effect."""
    truth = simulate_screen(**SIZE | {"world": "linear"}).uns["truth"]
    loadings, network = truth["loadings"], truth["network"].astype(float)
    effect = loadings @ np.linalg.solve(np.eye(len(network)) - network, truth["drive"].T.astype(float))
    own = truth["perturbations"]["target_gene"].to_numpy()[:, None] == truth["genes"]
    np.testing.assert_allclose(truth["effect"][~own], effect.T[~own], atol=1e-5)
    assert np.abs(truth["effect"][~own]).max() > 0.3
    world = planted(world="linear")
    once, twice = (log_change(world, dose) for dose in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, atol=1e-6)


def test_network_is_sparse_directed_and_without_cycles():
    truth = simulate_screen(n_genes=640, n_targets=20, n_cells=600).uns["truth"]
    loadings, network = truth["loadings"], truth["network"]
    m = len(network)
    assert m == 20 and 0 < np.count_nonzero(network) <= 2 * (m - 1) and np.trace(network) == 0
    assert np.allclose(np.linalg.matrix_power(np.abs(network), m), 0)  # nilpotent: no cycle
    assert (np.count_nonzero(loadings, axis=1) <= 1).all()
    assert truth["perturbations"].query("~null")["target_gene"].nunique() == 16
    assert (truth["perturbations"]["gain"] == 0).equals(truth["perturbations"]["null"])


def test_saturation():
    """A program moves no further than its limits, so a doubled dose does less than double, and the state matters."""
    world = planted()
    once, twice, far = (log_change(world, dose) for dose in (1, 2, 1e6))
    strong = np.abs(once) > 0.3
    assert strong.sum() > 50 and np.abs(twice[strong]).sum() < 1.8 * np.abs(once[strong]).sum()
    assert (np.abs(far) <= 2 * KAPPA * np.abs(world.loading) + 1e-9).all()
    by_type = [replace(world, cell_types=world.cell_types[k : k + 1]) for k in range(len(world.cell_types))]
    a, b = (log_change(each) for each in by_type[:2])
    assert np.abs(a - b).max() > 0.1


def neighbour_and_mean(world: str, seed: int, k: int = 3) -> tuple[float, float]:
    """Mean Pearson over effective targets: of the k targets most alike in control co-expression, of all others."""
    design = ScreenDesign(activation_fraction=0.0, both_fraction=0.0, unmeasured_fraction=0.0, control_fraction=0.4)
    screen = simulate_screen(200, 60, 8000, world=world, seed=seed, design=design)
    table, effect = screen.uns["truth"]["perturbations"], screen.uns["truth"]["effect"].copy()
    own = screen.var_names.get_indexer(table["target_gene"])
    effect[np.arange(len(table)), own] = 0
    control = screen[screen.obs["target_gene"] == CONTROL]
    log1p = np.log1p(control.X.toarray() / control.obs["n_umi"].to_numpy()[:, None] * 160)
    profile = np.corrcoef(log1p.T) - np.eye(screen.n_vars)
    alike = np.corrcoef(profile[own])
    np.fill_diagonal(alike, -2)
    result = []
    for i in np.flatnonzero(~table["null"]):
        others, genes = np.arange(len(table)) != i, np.arange(screen.n_vars) != own[i]
        guesses = effect[np.argsort(-alike[i])[:k]].mean(0), effect[others].mean(0)
        result.append([np.corrcoef(guess[genes], effect[i][genes])[0, 1] if guess[genes].any() else 0.0  # k nulls
                       for guess in guesses])
    return tuple(np.mean(result, 0))


@pytest.mark.parametrize("world", WORLDS)
def test_an_unseen_target_can_be_predicted_from_control_cells_exactly_where_that_is_promised(world):
    neighbour, mean = np.mean([neighbour_and_mean(world, seed) for seed in (0, 1)], 0)
    if world == "unidentifiable":
        assert neighbour < mean + 0.1
    else:
        assert neighbour > 0.7 and mean < 0.4


def test_unidentifiable_world_deals_out_the_same_effects():
    """Only who has which effect differs: the drives per unit of dose are those of the regulatory world."""
    tables = [simulate_screen(**SIZE | {"world": world}).uns["truth"]["perturbations"]
              for world in ("regulatory", "unidentifiable")]
    gains = [sorted(t.groupby("target_gene")["gain"].first()) for t in tables]
    assert gains[0] == gains[1] and set(tables[0]["target_gene"]) == set(tables[1]["target_gene"])
    a, b = (t.groupby("target_gene")["gain"].first() for t in tables)
    assert (a != b).mean() > 0.5


@pytest.mark.parametrize(("n_genes", "n_targets", "n_cells"), [(16, 1, 24), (64, 32, 1000), (20_000, 12, 400)])
def test_sizes(n_genes, n_targets, n_cells):
    screen = simulate_screen(n_genes, n_targets, n_cells)
    assert screen.shape == (n_cells, n_genes) and screen.var_names.is_unique
    assert screen.obs["target_gene"].nunique() == n_targets + 1
    assert np.isfinite(screen.uns["truth"]["effect"]).all()


@pytest.mark.parametrize("option", [
    {"n_genes": 8}, {"n_genes": 40_000}, {"n_targets": 0}, {"n_targets": 49}, {"n_cells": 100}, {"seed": -1},
    {"n_batches": 0}, {"null_fraction": 1.5}, {"escape_fraction": 1.0}, {"both_fraction": 0.5}, {"depth": 0.0},
    {"control_fraction": 0.0}, {"n_programs": 30}, {"depth": NAN}, {"n_targets": NAN},
    {"n_genes": "64"}, {"both_fraction": NAN}, {"unmeasured_fraction": "0.1"}, {"n_cells": 1e4}])
def test_bad_sizes_name_the_option_and_its_range(option):
    with pytest.raises(CDTError, match=f"{next(iter(option))} must (be|lie)"):
        planted(**option)


def test_misspelt_world_gets_a_close_match():
    with pytest.raises(CDTError, match="did you mean 'regulatory'"):
        simulate_screen(world="regulatry")
