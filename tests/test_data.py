"""From cells to batches: token stores, splits, sets with their controls."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from itertools import permutations, product
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from helpers import tiny, toy_screen
from scipy.stats import chisquare

from cdt_lite.data import (
    CONTROL,
    Batch,
    Columns,
    ScreenDesign,
    SetSampler,
    Tokenizer,
    TokenStore,
    Vocabulary,
    blood_cells,
    fit_tokenizer,
    load_screen,
    named_split,
    simulate_screen,
    split_screen,
    splits,
)
from cdt_lite.data.batches import _Pools, _take_others
from cdt_lite.errors import CDTError
from cdt_lite.model.config import TokenizerConfig, TrainConfig
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.training.capsule import CAPSULES

CONFIG = tiny()
ROOT = Path(__file__).parents[1]


def store_of(screen):
    return TokenStore.from_adata(screen, fit_tokenizer(CONFIG.tokenizer, screen), Vocabulary(screen.var_names))


def test_tokens_are_the_counts_and_depth_travels_beside():
    screen = toy_screen()
    store, counts = store_of(screen), screen.X.toarray()
    assert np.array_equal(store.tokens[counts < 40], counts[counts < 40])
    median = np.median(counts[screen.obs["target_gene"] == "non-targeting"].sum(1))
    np.testing.assert_allclose(np.exp(store.log_depth) * median, counts.sum(1), rtol=1e-5)


def test_a_file_on_disk_gives_the_same_store(tmp_path):
    screen = toy_screen()
    screen.write_h5ad(tmp_path / "s.h5ad")
    backed = ad.read_h5ad(tmp_path / "s.h5ad", backed="r")
    tokenizer = fit_tokenizer(CONFIG.tokenizer, screen)
    on_disk = TokenStore.from_adata(backed, tokenizer, Vocabulary(screen.var_names), path=tmp_path / "t")
    assert isinstance(on_disk.tokens, np.memmap) and on_disk.digest() == store_of(screen).digest()
    backed.file.close()


def test_labels_in_other_columns_give_the_same_store():
    screen = toy_screen()
    other = screen.copy()
    other.obs["target_gene"] = other.obs["target_gene"].astype(str).replace(CONTROL, "ctrl")
    names = {"target_gene": "gene", "batch": "lane", "sign": "direction", "magnitude": "lfc"}
    other.obs = other.obs.rename(columns=names)
    columns = Columns("gene", "lane", "ctrl", "direction", "lfc")
    tokenizer = fit_tokenizer(CONFIG.tokenizer, other, columns)
    store = TokenStore.from_adata(other, tokenizer, Vocabulary(screen.var_names), columns)
    for field in fields(store):
        np.testing.assert_array_equal(getattr(store, field.name), getattr(store_of(screen), field.name))
    side = split_screen(other, ["G5"], [("G3", "a")], columns)
    assert side.tolist() == split_screen(screen, ["G5"], [("G3", "a")]).tolist()


def test_cells_without_a_column_of_targets_are_controls_all():
    screen = toy_screen()
    bare = screen.copy()
    bare.obs = bare.obs[["batch"]]
    store = TokenStore.from_adata(bare, fit_tokenizer(CONFIG.tokenizer, screen), Vocabulary(screen.var_names))
    assert set(store.target) == {NO_TARGET} and not store.sign.any() and not store.magnitude.any()
    with pytest.raises(CDTError, match="no column 'gene'"):
        TokenStore.from_adata(bare, Tokenizer(CONFIG.tokenizer), Vocabulary(screen.var_names), Columns("gene"))


def test_a_file_on_disk_that_holds_no_counts_is_refused(tmp_path):
    screen = toy_screen()
    tokenizer = fit_tokenizer(CONFIG.tokenizer, screen)
    screen.layers["counts"] = screen.X.copy()
    screen.X = screen.X.log1p()
    screen.write_h5ad(tmp_path / "s.h5ad")
    backed = ad.read_h5ad(tmp_path / "s.h5ad", backed="r")
    with pytest.raises(CDTError, match="not a whole number"):
        TokenStore.from_adata(backed, tokenizer, Vocabulary(screen.var_names))
    backed.file.close()


RECORDED = {  # of batches 0, 1, 2 and 1000, since they are planned together
    "toy": ["26124a566ae7", "d62488a19b69", "dcbfb0190c47", "95b70c82ce35"],
    "simulated": ["12c7bbaff879", "13ee2459f128", "7d69fa34a4c1", "904e0bd7468a"],
    "pretrain": ["4478764a89c0", "93a66179d4fe", "44cffba40c83", "4e2a7f6fc992"]}


def fingerprint(batch):
    p, digest = batch.perturbation, hashlib.sha256()
    told = (p.target, p.sign, p.magnitude, p.guess, p.replicate, p.own)
    for part in (batch.tokens, batch.controls, *told, batch.log_depth, batch.gene_ids):
        if part is not None:
            digest.update(str((part.dtype, tuple(part.shape))).encode() + part.numpy().tobytes())
    return digest.hexdigest()[:12]


def test_batches_are_those_that_were_recorded():
    """A batch is a function of (seed, index, stage) alone, whatever becomes of the code."""
    config = TrainConfig(sets_per_batch=3, cells_per_set=2, controls_per_set=4, target_dropout=0.3, seed=7,
                         perturbation_dropout=0.2, magnitude_dropout=0.5, control_share=0.2, controls_dropout=0.3,
                         validation_share=0.0)
    toy, blood, simulated = toy_screen(), blood_cells(), simulate_screen(64, 8, 900, seed=3)
    blood.obs["batch"] = blood.obs["cell_type"]  # whose categories are not in the order of the alphabet
    genes = Vocabulary(toy.var_names).extended(blood.var_names).extended(simulated.var_names)
    vocabulary = genes.extended(simulated.obs["target_gene"].unique())
    tokenizer = fit_tokenizer(TokenizerConfig(), toy)
    toy, blood, simulated = (TokenStore.from_adata(x, tokenizer, vocabulary) for x in (toy, blood, simulated))
    samplers = {"toy": SetSampler(toy, config), "simulated": SetSampler(simulated, config),
                "pretrain": SetSampler([toy, blood], config, "pretrain")}
    found = {name: [fingerprint(s.batch(i)) for i in (0, 1, 2, 1000)] for name, s in samplers.items()}
    assert found == RECORDED


@pytest.mark.parametrize("name", ["papalexi2021", "simulated"])
def test_a_capsules_training_cells_are_recognised(name, request):
    if name != "simulated":
        request.getfixturevalue("real_screen_dir")
    header = json.loads((CAPSULES / f"lite-{name}" / "checkpoint.json").read_text(encoding="utf-8"))
    screen = load_screen(name)
    tokenizer = Tokenizer(TokenizerConfig(), header["target_depth"])
    cells = screen[named_split(screen) == "train"]
    store = TokenStore.from_adata(cells, tokenizer, Vocabulary(header["vocabulary"]))
    assert header["card"]["data"] == [store.digest()]
    assert header["card"]["contexts"] == sorted(store.perturbed_contexts) == sorted(set(cells.obs["batch"]))


def test_a_batch_is_made_from_arrays_of_any_whole_numbers():
    told, log_depth, ids = Perturbation.of([3], [-1], [0.0]), np.zeros((1, 2)), np.arange(4)
    for kind in (np.uint8, np.int64):
        batch = Batch.of(np.ones((1, 2, 4), kind), np.ones((1, 3, 4), kind), told, log_depth, ids)
        assert batch.tokens.dtype == batch.controls.dtype == torch.from_numpy(np.ones(1, kind)).dtype
        there = batch.to("cpu")
        assert there.tokens.dtype == there.controls.dtype == torch.long and there.log_depth.dtype == torch.float32
    assert Batch.of(np.ones((1, 2, 4), np.uint8), None, told, log_depth, ids).to("cpu").controls is None


def test_a_batch_is_a_function_of_its_number():
    sampler = SetSampler(store_of(toy_screen()), CONFIG.finetune)
    a, b, c = sampler.batch(5), sampler.batch(5), sampler.batch(6)
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.controls, b.controls)
    assert not torch.equal(a.tokens, c.tokens)
    other = SetSampler(store_of(toy_screen()), CONFIG.finetune)
    for number in (900, 6, 300, 5, 77, 1200, 6):  # whatever was asked for before
        one = other.batch(number)
        assert torch.equal(one.tokens, sampler.batch(number).tokens)
        assert number != 6 or torch.equal(one.tokens, c.tokens)


def test_processes_that_gather_parts_of_a_plan_have_the_whole_batch():
    sampler = SetSampler(store_of(toy_screen()), replace(CONFIG.finetune, sets_per_batch=5, magnitude_dropout=0.0))
    for number in range(8):  # with controls, and without
        whole, plan = sampler.batch(number), sampler.plan(number)
        parts = [sampler.gather(plan, sets) for sets in (slice(0, 2), slice(2, 5))]
        assert {part.tokens.dtype for part in parts} == {torch.uint8}
        assert torch.equal(torch.cat([part.tokens for part in parts]).long(), whole.tokens)
        assert torch.equal(torch.cat([part.log_depth for part in parts]), whole.log_depth)
        assert (whole.controls is None) == (parts[0].controls is None) == (parts[1].controls is None)
        if whole.controls is not None:
            assert torch.equal(torch.cat([part.controls for part in parts]).long(), whole.controls)
        for name in ("target", "sign", "magnitude", "guess", "replicate", "own"):
            told = torch.cat([getattr(part.perturbation, name) for part in parts])
            assert torch.equal(told, getattr(whole.perturbation, name))


@pytest.mark.parametrize(("pool", "own", "n"), [
    ([3, 5, 8, 9], [], 2), ([3, 5, 8, 9], [], 4), ([3, 5], [], 3), ([3, 5, 8, 9], [5, 7, 5], 2),
    ([3, 5, 8, 9], [5, 9], 3), ([3, 5], [5, 3], 2), ([3, 5, 8], [4, 4], 4)])
def test_every_draw_that_may_be_is_equally_likely(pool, own, n):
    """All outcomes are counted out: without replacement while cells last, none of the set's own while there is one."""
    n_sets, padding = 20_000, [1, 2]  # the pool lies between others
    cells = np.array([*padding, *pool, 20, 21])
    pools = _Pools.of(cells, np.repeat([0, 1, 2], [len(padding), len(pool), 2]), 3)
    of_sets = np.tile(np.array(own, np.int64), (n_sets, 1))
    drawn = pools.draw(np.random.default_rng(0), np.ones(n_sets, int), n, of_sets)
    others = [cell for cell in pool if cell not in own] or pool
    every = list(permutations(others, n)) or list(product(others, repeat=n))
    counts = Counter(map(tuple, drawn.tolist()))
    assert set(counts) == set(every)
    assert chisquare([counts[outcome] for outcome in every]).pvalue > 0.01


def test_cells_drawn_together_are_of_each_sets_own_pool():
    rng = np.random.default_rng(0)
    number = rng.integers(0, 7, 300)
    number[number == 4] = 5  # a pool without a cell stands for all
    pools = _Pools.of(np.arange(300), number, 7).of_each(np.arange(7))
    which = rng.integers(0, 7, 500)
    own = rng.integers(0, 300, (500, 3))
    own[which == 4] = -1  # its sets have none of the others
    drawn = pools.draw(rng, which, 20, own)
    for pool, cells, of_set in zip(which, drawn, own, strict=True):
        assert pool == 4 or set(number[cells]) == {pool}
        assert len(set(cells) | set(of_set)) == 20 + len(set(of_set))


@pytest.mark.parametrize("n", [1, 3, 9, 40])
def test_others_are_drawn_as_from_a_list_without_the_sets_cells(n):
    """The draw that never makes the list is the draw from the list (numpy's setdiff1d), cell by cell."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pool = np.flatnonzero(rng.random(30) < rng.random())
        if not len(pool):
            continue
        of_set = rng.choice(30, rng.integers(12))
        others = np.setdiff1d(pool, of_set)
        others = others if len(others) else pool
        want = np.random.default_rng(seed).choice(others, n, replace=len(others) < n)
        np.testing.assert_array_equal(_take_others(np.random.default_rng(seed), pool, of_set, n), want)


def test_controls_are_controls_of_the_same_replicate_and_never_the_cell_itself():
    screen = toy_screen()
    number = np.arange(screen.n_obs, dtype=np.float32)  # written into the counts, so that a cell is known by its tokens
    screen.X = number[:, None].repeat(screen.n_vars, 1) % 40
    screen.X[:, 0] = np.arange(screen.n_obs) // 40
    store = store_of(screen)
    key = {tuple(row): i for i, row in enumerate(store.tokens)}
    config = replace(CONFIG.finetune, control_share=0.5, controls_dropout=0.0, perturbation_dropout=0.0,
                     target_dropout=0.0)
    sampler = SetSampler(store, config)
    for number in range(30):
        batch = sampler.batch(number)
        for b in range(config.sets_per_batch):
            cells = [key[tuple(row)] for row in batch.tokens[b].numpy()]
            controls = [key[tuple(row)] for row in batch.controls[b].numpy()]
            assert set(store.target[controls]) == {NO_TARGET} and not set(cells) & set(controls)
            assert set(store.group[controls]) == set(store.group[cells]) and len(set(store.group[cells])) == 1
            assert set(store.target[cells]) == {int(batch.perturbation.target[b])}


def test_dropout_shares_are_kept():
    config = replace(CONFIG.finetune, sets_per_batch=8, target_dropout=0.3, perturbation_dropout=0.2, control_share=0.0,
                     magnitude_dropout=0.5, controls_dropout=0.25)
    sampler = SetSampler(store_of(toy_screen()), config)
    batches = [sampler.batch(i) for i in range(300)]
    target = torch.cat([b.perturbation.target for b in batches])
    unknown_size = torch.cat([b.perturbation.magnitude.isnan() for b in batches])[target != NO_TARGET]
    assert (target == NO_TARGET).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (target == UNKNOWN_TARGET).float().mean().item() == pytest.approx(0.8 * 0.3, abs=0.03)
    assert unknown_size.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert np.mean([b.controls is None for b in batches]) == pytest.approx(0.25, abs=0.08)


def test_pretraining_knows_no_labels():
    config = replace(CONFIG.pretrain, controls_dropout=0.0)
    sampler = SetSampler(store_of(toy_screen()), config, "pretrain")
    for i in range(20):
        p = sampler.batch(i).perturbation
        assert (p.target == NO_TARGET).all() and (p.sign == 0).all() and (p.magnitude == 0).all()


def test_two_files_with_other_panels_share_one_vocabulary():
    one, two = toy_screen(), toy_screen(n_genes=8, seed=1)[:, ["G7", "G3", "G1"]].copy()
    two.var_names = ["H7", "G3", "H1"]
    vocabulary = Vocabulary(one.var_names).extended(two.var_names).extended(["G5"])
    tokenizer = fit_tokenizer(CONFIG.tokenizer, one)
    stores = [TokenStore.from_adata(x, tokenizer, vocabulary) for x in (one, two)]
    sizes = {SetSampler(stores, CONFIG.pretrain, "pretrain").batch(i).tokens.shape[-1] for i in range(20)}
    assert sizes == {12, 3} and stores[1].gene_ids.tolist() == [12, 3, 13]


def test_splits_by_perturbation_and_by_replicate():
    screen = toy_screen()
    side = split_screen(screen, unseen=["G5"], held_out=[("G3", "a")])
    target, batch = screen.obs["target_gene"].to_numpy(), screen.obs["batch"].to_numpy()
    assert set(side[target == "G5"]) == {"unseen"} and set(side[target == "non-targeting"]) == {"train"}
    assert set(side[(target == "G3") & (batch == "a")]) == {"held_out"}
    assert set(side[(target == "G3") & (batch == "b")]) == {"train"}


@pytest.mark.parametrize(("arguments", "message"), [
    ({"unseen": ["G55"]}, "G55.*'G5'"), ({"unseen": [CONTROL]}, "cannot hold out"),
    ({"held_out": [("G3", "z")]}, "no batch 'z'")])
def test_a_split_by_an_unknown_name_is_refused(arguments, message):
    with pytest.raises(CDTError, match=message):
        split_screen(toy_screen(), **arguments)


def test_bad_screens_are_refused_at_the_door():
    screen, tokenizer = toy_screen(), fit_tokenizer(CONFIG.tokenizer, toy_screen())
    with pytest.raises(CDTError, match="no control cells"):
        fit_tokenizer(CONFIG.tokenizer, screen[screen.obs["target_gene"] != "non-targeting"])
    with pytest.raises(CDTError, match="target_gene"):
        fit_tokenizer(CONFIG.tokenizer, screen, Columns(target="target_genes"))
    with pytest.raises(CDTError, match="the selection is empty: 0 cells x 12 genes"):
        TokenStore.from_adata(screen[:0], tokenizer, Vocabulary(screen.var_names))
    with pytest.raises(CDTError, match="G11"):
        TokenStore.from_adata(screen, tokenizer, Vocabulary(screen.var_names[:11]))
    with pytest.raises(CDTError, match="empty"):
        SetSampler([], CONFIG.finetune)
    perturbed = screen[screen.obs["target_gene"] != "non-targeting"]
    with pytest.raises(CDTError, match="no control cells to fine-tune"):
        SetSampler(TokenStore.from_adata(perturbed, tokenizer, Vocabulary(screen.var_names)), CONFIG.finetune)


def test_cells_can_be_judged_without_torch():
    code = "import sys, cdt_lite.data.layout, cdt_lite.data.expression; from cdt_lite.data import load_screen, CONTROL"
    code += "; print('torch' in sys.modules, load_screen.__name__, CONTROL)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "False load_screen non-targeting"


def test_the_label_of_controls_is_typed_once():
    places = []
    for path in sorted((ROOT / "cdt_lite" / "data").glob("*.py")):
        if f'"{CONTROL}"' in path.read_text(encoding="utf-8"):
            places.append(path.name)
    assert places == ["layout.py"]


FIXED = json.loads((Path(splits.__file__).parent / "splits.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [n for n in FIXED if n.startswith("simulated")])
def test_the_splits_of_the_simulated_screens_are_data_and_were_made_by_the_rule(name):
    """The order of a hash of names alone knows nothing of the cells: counted out here once more, by hand."""
    entry = FIXED[name]
    screen = simulate_screen(**entry["options"])
    assert name == f"simulated {screen.uns['screen']['sha256'][:12]}"
    targets = sorted(set(screen.obs["target_gene"].astype(str)) - {"non-targeting"},
                     key=lambda t: hashlib.sha256(t.encode()).hexdigest())
    n_unseen, n_held = len(targets) // 6, len(targets) // 4
    assert sorted(entry["unseen"]) == sorted(targets[:n_unseen])
    assert sorted(entry["held_out"]) == sorted([t, "rep_3"] for t in targets[n_unseen:][:n_held])
    side = named_split(screen)
    names, batch = (screen.obs[key].astype(str).to_numpy() for key in ("target_gene", "batch"))
    assert set(names[side == "unseen"]) == set(entry["unseen"])
    assert {(t, b) for t, b in zip(names[side == "held_out"], batch[side == "held_out"], strict=True)} == {
        tuple(pair) for pair in entry["held_out"]}


def test_a_target_without_another_replicate_is_not_called_seen():
    one = simulate_screen(n_genes=32, n_targets=12, n_cells=600, seed=3, design=ScreenDesign(n_batches=1))
    side, target = named_split(one), one.obs["target_gene"].astype(str).to_numpy()
    tested = set(target[side == "held_out"])  # random cells, about a quarter, of as many targets as of replicates
    assert len(tested) == 3 and CONTROL not in tested and not tested & set(target[side == "unseen"])
    share = np.mean(side[np.isin(target, list(tested))] == "held_out")
    assert 0.15 < share < 0.35
    part = one[::2].copy()
    np.testing.assert_array_equal(named_split(part), side[::2])  # a cell's side does not hang on what else is there
    two = simulate_screen(n_genes=32, n_targets=12, n_cells=900, seed=3, design=ScreenDesign(n_batches=2))
    side = named_split(two)
    tested = set(two.obs["target_gene"][side == "held_out"])
    lost = sorted(tested)[0]
    cut = two[((two.obs["target_gene"] != lost) | (two.obs["batch"] == "rep_2")).to_numpy()].copy()
    now = named_split(cut)
    assert lost not in set(cut.obs["target_gene"][now == "held_out"])
    assert set(cut.obs["target_gene"][now == "held_out"]) <= set(cut.obs["target_gene"][now == "train"])


def test_a_cell_without_a_replicate_is_refused():
    screen = toy_screen()
    screen.obs.loc[screen.obs_names[:3], "batch"] = np.nan
    with pytest.raises(CDTError, match=r"3 cells have no value in obs\['batch'\]"):
        store_of(screen)
