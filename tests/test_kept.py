"""Token stores in folders: the same as in memory, from files and parts of them, and never half kept as whole."""

import json
from dataclasses import fields, replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from helpers import tiny, toy_screen

from cdt_lite.data import SetSampler, Tokenizer, TokenStore, Vocabulary, blocks, fit_tokenizer
from cdt_lite.data import store as stores
from cdt_lite.data.blocks import count_blocks, part_of
from cdt_lite.data.kept import FACTS, LABELS, TOKENS, UNFINISHED
from cdt_lite.errors import CDTError

CONFIG = tiny()
SCREEN = toy_screen()
TOKENIZER = fit_tokenizer(CONFIG.tokenizer, SCREEN)
VOCABULARY = Vocabulary(SCREEN.var_names)


def stored(cells, path=None, **more):
    return TokenStore.from_adata(cells, TOKENIZER, VOCABULARY, path=path, **more)


def same(one, other):
    for field in fields(TokenStore):
        if field.name not in ("known_digest", "about"):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
    assert one.digest() == other.digest()


@pytest.fixture
def backed(tmp_path):
    SCREEN.write_h5ad(tmp_path / "screen.h5ad")
    cells = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    yield cells
    cells.file.close()


def test_a_folder_keeps_what_memory_holds(tmp_path):
    kept = stored(SCREEN, tmp_path / "new" / "folder", about={"split": [1]})
    same(kept, stored(SCREEN))
    again = TokenStore.open(tmp_path / "new" / "folder")
    same(again, kept)
    assert isinstance(again.tokens, np.memmap) and again.known_digest and again.about == {"split": [1]}
    assert {file.name for file in (tmp_path / "new" / "folder").iterdir()} == {FACTS, TOKENS, LABELS}


RNG = np.random.default_rng(0)
PARTS = {
    "mask": (np.arange(240) % 3 == 0, slice(None)),
    "any order": (RNG.permutation(240)[:100], slice(None)),
    "twice": (np.array([7, 7, 3, 239, 0]), slice(None)),
    "genes": (slice(10, 90), np.array([5, 2, 11])),
    "backwards": (slice(None, None, -1), slice(None, None, -1)),
}


@pytest.mark.parametrize("block", [3, 4096])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_file_gives_the_tokens_of_its_copy(backed, tmp_path, monkeypatch, part, block):
    monkeypatch.setattr(blocks, "BLOCK", block)
    rows, genes = PARTS[part]
    want = SCREEN[rows, genes].copy()
    want.obs_names_make_unique()
    on_disk = backed[rows, genes]
    same(stored(on_disk), stored(want))
    same(stored(on_disk, tmp_path / "store"), stored(want))
    half = np.arange(on_disk.n_obs) % 2 == 1
    same(stored(part_of(on_disk, half)), stored(want[half]))


@pytest.mark.parametrize("layout", [sp.csr_matrix, np.asarray])
def test_no_row_of_a_file_is_read_twice(tmp_path, monkeypatch, layout):
    """So that time is linear in cells, and memory that of a block."""
    screen = SCREEN.copy()
    screen.X = layout(screen.X.toarray())
    screen.write_h5ad(tmp_path / "s.h5ad")
    monkeypatch.setattr(blocks, "BLOCK", 16)
    seen = []
    monkeypatch.setattr(blocks, "check_counts", lambda cells, what, block: seen.append(block.shape[0]))
    whole = ad.read_h5ad(tmp_path / "s.h5ad", backed="r")
    for cells in (whole, whole[RNG.permutation(240)[:200]], whole[np.arange(240) > 200]):
        seen.clear()
        assert sum(block.shape[0] for _, block in count_blocks(cells)) == cells.n_obs
        assert max(seen) <= 16 and sum(seen) <= 240
    whole.file.close()
    assert sum(seen) == 39  # gaps are passed over


def test_several_files_are_one_store_and_one_name_is_one_replicate(tmp_path, backed):
    files = [SCREEN[SCREEN.obs["batch"] == "b"], backed[(SCREEN.obs["batch"] == "a").to_numpy()], SCREEN[:30]]
    whole = ad.concat([part.to_memory() if part.isbacked else part for part in files])
    whole.obs_names_make_unique()
    whole.obs["batch"] = whole.obs["batch"].astype(str).astype("category")
    said = []
    same(stored(files, tmp_path / "store", say=said.append), stored(whole))
    assert said[-1] == "270 of 270 cells"
    with pytest.raises(CDTError, match="the same genes in the same order"):
        stored([SCREEN, SCREEN[:, ::-1]], tmp_path / "other")
    with pytest.raises(CDTError, match="no cells to tokenise"):
        stored([])


def test_what_was_stopped_is_no_store_and_goes_on_after_the_last_whole_file(tmp_path, monkeypatch):
    files, folder = [SCREEN[:100], SCREEN[100:180], SCREEN[180:]], tmp_path / "store"

    def stop(line):
        if line.startswith("180"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(files, folder, say=stop)
    assert (folder / UNFINISHED).is_file()
    with pytest.raises(CDTError, match="not written to their end"):
        TokenStore.open(folder)
    read, real = [], stores.count_blocks

    def counted(cells, what="the screen"):
        for rows, block in real(cells, what):
            read.append((what, block.shape[0]))
            yield rows, block

    monkeypatch.setattr(stores, "count_blocks", counted)
    kept = stored(files, folder)
    assert [n for what, n in read if what == "the selection"] == [80, 60]
    same(kept, stored(files))
    assert not (folder / UNFINISHED).exists()


def test_other_cells_never_go_on_with_a_store(tmp_path):
    files, folder = [SCREEN[:100], SCREEN[100:]], tmp_path / "store"

    def stop(line):
        if line.startswith("240"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(files, folder, say=stop)
    other = SCREEN.copy()
    other.X = other.X * 2  # the same labels
    same(stored([other[:100], other[100:]], folder), stored(other))
    with pytest.raises(CDTError, match="tokens of other cells"):
        stored(SCREEN, folder)
    same(stored([other[:100], other[100:]], folder), stored(other))


def test_a_full_disk_is_named_and_leaves_no_store(tmp_path):
    """A limit on the size of files stands for the disk: the system refuses the same write."""
    resource = pytest.importorskip("resource")
    folder, before = tmp_path / "store", resource.getrlimit(resource.RLIMIT_FSIZE)
    files = [SCREEN[:100], SCREEN[100:]]
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(CDTError, match=r"tokens of 240 cells x 12 genes .* cannot be written: .*make room"):
            stored(files, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(CDTError, match="not written to their end"):
        TokenStore.open(folder)
    same(stored(files, folder), stored(SCREEN))


def cut(path, share=0.7):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def of_other_kind(path):
    np.save(path, np.zeros((240, 12), np.int64))


def relabelled(path):
    with np.load(path) as found:
        arrays = dict(found)
    arrays["sign"] = -arrays["sign"]
    np.savez(path, **arrays)


def changed(path):
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["target_depth"] = 1.0
    path.write_text(json.dumps(facts), encoding="utf-8")


@pytest.mark.parametrize(("name", "damage"), [
    (TOKENS, cut), (TOKENS, longer), (LABELS, cut), (FACTS, cut), (TOKENS, of_other_kind), (LABELS, relabelled),
    (FACTS, changed), (TOKENS, lambda path: path.unlink()), (LABELS, lambda path: path.unlink()),
    (FACTS, lambda path: path.write_text("[]", encoding="utf-8"))])
def test_a_store_whose_file_was_cut_or_changed_is_refused(tmp_path, name, damage):
    stored(SCREEN, tmp_path / "store")
    damage(tmp_path / "store" / name)
    with pytest.raises(CDTError, match=r"is damaged, or a file of it was cut"):
        TokenStore.open(tmp_path / "store")


def test_where_there_is_no_store_it_is_said(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(CDTError, match="there is no token store in"):
            TokenStore.open(folder)
    (tmp_path / "file").write_text("here", encoding="utf-8")
    with pytest.raises(CDTError, match="cannot be a folder for tokens"):
        stored(SCREEN, tmp_path / "file")


def test_a_store_of_another_tokenizer_or_vocabulary_is_refused(tmp_path):
    stored(SCREEN, tmp_path / "store")
    store = TokenStore.open(tmp_path / "store")
    store.require(TOKENIZER, VOCABULARY.symbols)
    store.require(TOKENIZER, VOCABULARY.extended(["NEW"]).symbols)  # ids stay as they were
    fewer = replace(CONFIG.tokenizer, n_bins=50)
    for tokenizer in (Tokenizer(fewer, TOKENIZER.target_depth), Tokenizer(TOKENIZER.config, 7.0)):
        with pytest.raises(CDTError, match=r"a store are 63 bins of counts .* those of the model \d+ bins"):
            store.require(tokenizer, VOCABULARY.symbols)
    for symbols, gene in ((["X", *VOCABULARY.symbols[1:]], "gene 0 is 'G0'"), (VOCABULARY.symbols[:-1], "gene 11 is")):
        with pytest.raises(CDTError, match=f"another vocabulary: {gene}"):
            store.require(TOKENIZER, symbols)


def test_two_stores_with_different_bins_are_refused_together():
    fewer = Tokenizer(replace(CONFIG.tokenizer, n_bins=50), TOKENIZER.target_depth)
    other = TokenStore.from_adata(SCREEN, fewer, VOCABULARY)
    with pytest.raises(CDTError, match="63 bins of counts .*50 bins of counts|50 bins of counts .*63 bins of counts"):
        SetSampler([stored(SCREEN), other], CONFIG.pretrain, "pretrain")
    longer_one = TokenStore.from_adata(SCREEN, TOKENIZER, VOCABULARY.extended(["NEW"]))
    SetSampler([stored(SCREEN), longer_one], CONFIG.pretrain, "pretrain")
