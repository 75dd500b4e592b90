import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdt_lite.data.tokenizer import Tokenizer, bin_edges
from cdt_lite.errors import CDTError
from cdt_lite.model.config import TokenizerConfig

SPACES = ["normalised", "counts"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("n_bins", [41, 63, 255])
def test_encode_undoes_decode_for_every_bin(space, n_bins):
    t = Tokenizer(TokenizerConfig(space=space, n_bins=n_bins))
    k = np.arange(n_bins)
    assert np.array_equal(t.encode(t.decode(k)), k)


@pytest.mark.parametrize("space", SPACES)
@given(st.lists(st.floats(0, 2e4), min_size=2, max_size=50))
def test_encoding_is_monotone_and_decoding_stays_in_the_bin(space, values):
    t = Tokenizer(TokenizerConfig(space=space))
    x = np.sort(np.array(values)) if space == "normalised" else np.sort(np.floor(values))
    k = t.encode(x)
    assert (np.diff(k.astype(int)) >= 0).all() and k.max() < 63
    assert np.array_equal(t.encode(t.decode(k)), k)


def test_v1_edges_are_the_documents():
    edges = bin_edges(TokenizerConfig(space="normalised"))
    assert len(edges) == 63 and edges[0] == 0 and edges[1] == pytest.approx(0.1) and edges[-1] == pytest.approx(1e4)
    assert np.allclose(np.diff(np.log(edges[1:])), np.log(1e5) / 61)


def test_zero_is_bin_zero_and_a_boundary_belongs_to_the_upper_bin():
    t = Tokenizer(TokenizerConfig(space="normalised"))
    assert t.encode(np.array([0.0, 0.0999, 0.1, 1e9])).tolist() == [0, 0, 1, 62]
    assert t.decode(np.array([0]))[0] == 0


def test_small_counts_are_lossless_and_large_ones_are_near():
    t = Tokenizer(TokenizerConfig(space="counts"))
    counts = np.arange(10_000.0)[None]
    back = t.to_counts(t.tokenize(counts), counts.sum(1))
    assert np.array_equal(back[0, :40], counts[0, :40])
    assert (np.abs(back - counts)[0, 40:] / counts[0, 40:]).max() < 0.15
    assert (back == np.rint(back)).all()


def test_normalised_tokens_do_not_depend_on_depth():
    t = Tokenizer(TokenizerConfig(space="normalised"), target_depth=1000.0)
    counts = np.array([[1, 5, 30, 64]])
    assert np.array_equal(t.tokenize(counts), t.tokenize(7 * counts))


@pytest.mark.parametrize("bad", [np.nan, -1.0])
def test_bad_expression_is_refused(bad):
    with pytest.raises(CDTError, match="non-negative"):
        Tokenizer(TokenizerConfig()).encode(np.array([1.0, bad]))


def test_mask_has_no_value_and_a_depth_of_zero_is_refused():
    with pytest.raises(CDTError, match=r"\[MASK\]"):
        Tokenizer(TokenizerConfig()).decode(np.array([63]))
    with pytest.raises(CDTError, match="target_depth"):
        Tokenizer(TokenizerConfig(), target_depth=0.0)
