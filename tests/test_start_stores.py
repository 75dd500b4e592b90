"""Models that are begun from tokens instead of counts, and mean effects from either."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny, toy_screen

from cdt_lite.data import SetSampler, Tokenizer, TokenStore, Vocabulary, fit_tokenizer
from cdt_lite.errors import CDTError
from cdt_lite.training.effects import effect_table, measured_effects
from cdt_lite.training.start import start, start_from
from cdt_lite.training.train import train

CONFIG, SCREEN = tiny(), toy_screen()
TOKENIZER = fit_tokenizer(CONFIG.tokenizer, SCREEN)
NAMES = Vocabulary(SCREEN.var_names, CONFIG.model.n_total_genes)


def kept(tmp_path, cells=SCREEN, tokenizer=TOKENIZER, names=NAMES, name="store"):
    TokenStore.from_adata(cells, tokenizer, names, path=tmp_path / name)
    return TokenStore.open(tmp_path / name)


def test_a_model_begun_from_tokens_is_that_of_their_counts(tmp_path):
    """Counts below 40 have a bin each, so that tokens lose nothing of the toy's co-expression."""
    store = kept(tmp_path)
    assert store.panel == list(SCREEN.var_names) and store.targets == {"G3", "G5"}
    low = SCREEN.copy()
    low.X = low.X.minimum(39.0)
    want, got = start(CONFIG, low), start(CONFIG, kept(tmp_path, low, fit_tokenizer(CONFIG.tokenizer, low), name="low"))
    assert (got.tokenizer, got.vocabulary, got.panel) == (want.tokenizer, want.vocabulary, want.panel)
    table, other = got.model.gene_table.weight, want.model.gene_table.weight
    torch.testing.assert_close(table.abs(), other.abs(), rtol=1e-3, atol=1e-3)  # eigenvectors have no sign
    got = start(CONFIG, store)
    losses = [p.loss for p in train(got, SetSampler(store, CONFIG.finetune), steps=3)]
    assert np.isfinite(losses).all() and got.trained_targets == ["G3", "G5"]


def test_gene_sets_of_a_store_name_its_targets(tmp_path):
    checkpoint = start(CONFIG, kept(tmp_path), gene_sets={"one": frozenset({"G3", "G1"})})
    assert checkpoint.prior is not None


def test_another_preset_than_that_of_the_tokens_is_refused(tmp_path):
    with pytest.raises(CDTError, match="63 bins of counts .*this preset reads 63 bins of normalised"):
        start(tiny("v1"), kept(tmp_path))
    for cells in ((SCREEN, kept(tmp_path)), (kept(tmp_path), SCREEN)):
        with pytest.raises(CDTError, match="not from both"):
            start(CONFIG, *cells)
    by_hand = replace(kept(tmp_path), tokenizer=None)
    with pytest.raises(CDTError, match="does not say what tokenised it"):
        start(CONFIG, by_hand)
    other = kept(tmp_path, tokenizer=Tokenizer(TOKENIZER.config, 9.0), name="other")
    with pytest.raises(CDTError, match="at a depth of 9"):
        start(CONFIG, kept(tmp_path), other)


def test_fine_tuning_goes_on_from_a_store_made_for_the_model_and_from_no_other(tmp_path):
    model = start(CONFIG, SCREEN)
    found = start_from(model, kept(tmp_path))
    assert found.panel == model.panel and found.vocabulary == model.vocabulary
    fewer = SCREEN[:, [5, 3, 7]].copy()
    want = start_from(model, fewer)
    store = kept(tmp_path, fewer, want.tokenizer, want.vocabulary.extended(["NEW"]), name="fewer")
    got = start_from(model, store)
    assert (got.tokenizer, got.panel) == (want.tokenizer, want.panel) and "NEW" in got.vocabulary
    with pytest.raises(CDTError, match="those of the model"):
        start_from(model, kept(tmp_path, tokenizer=Tokenizer(TOKENIZER.config, 9.0), name="depth"))
    shuffled = Vocabulary(list(SCREEN.var_names)[::-1])
    with pytest.raises(CDTError, match="another vocabulary: gene 0 is 'G11' there"):
        start_from(model, kept(tmp_path, names=shuffled, name="shuffled"))
    with pytest.raises(CDTError, match="by their places"):
        start_from(start(tiny("v1"), SCREEN), kept(tmp_path, fewer, name="few"))


def test_mean_effects_are_those_of_memory_and_of_a_plain_mean(tmp_path, monkeypatch):
    store, here = kept(tmp_path), TokenStore.from_adata(SCREEN, TOKENIZER, NAMES)
    one, other = effect_table(store, TOKENIZER), effect_table(here, TOKENIZER)
    for name in ("target", "sign", "weights", "effect", "shares", "highest"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    genes = np.array([3, 5])
    for block in (4096, 37):
        monkeypatch.setattr("cdt_lite.training.gene_vectors.BLOCK", block)
        measured, _ = measured_effects(store, TOKENIZER, genes)
        values = np.log1p(TOKENIZER.centres[here.tokens] * np.exp(-here.log_depth[:, None]))
        for i, effect in enumerate(measured.effect):
            own = (here.target == genes[measured.gene[i]]) & (here.group == measured.replicate[i])
            controls = (here.target < 0) & (here.group == measured.replicate[i])
            np.testing.assert_allclose(effect, values[own].mean(0) - values[controls].mean(0), atol=1e-6)
    shares = np.array([(here.tokens[here.sign == 0] == token).mean(0) for token in range(63)]).T
    assert np.abs(one.shares - shares).max() < 2 / (here.sign == 0).sum()
