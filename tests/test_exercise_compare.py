"""How the answers of exercises are compared and shown: what agrees, what does not, and how that reads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdt_lite.teaching.compare import WIDTH, changed, compare, short


def test_nan_that_stays_is_no_change():
    assert not changed(np.array([np.nan]), np.array([np.nan])) and not changed([float("nan")], [float("nan")])


def test_numbers_of_numpy_in_a_list_look_plain():
    assert short([np.int64(3), np.float32(0.5)] * 4) == "[3, 0.5, 3, 0.5, 3, 0.5, 3,..."
    assert short(list(np.arange(200))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8,..."


VALUES = st.one_of(st.integers(), st.floats(allow_nan=True), st.booleans(), st.text(), st.none(),
                   st.lists(st.floats(allow_nan=True)), st.dictionaries(st.text(), st.integers()))


@given(VALUES, VALUES)
def test_any_two_values_can_be_compared(a, b):
    for expected, yours in ((a, b), ([a, 1], [b, 1]), (1.0, np.array(b, dtype=object)),
                            (np.ones(2), np.array([b, None], dtype=object)), ([1.0], torch.tensor(1.0))):
        same, wanted, got = compare(expected, yours)
        assert isinstance(same, bool) and len(wanted) < 60 and isinstance(got, str)


@given(VALUES)
def test_everything_agrees_with_itself_and_is_shown_briefly(value):
    same, expected, yours = compare(value, value)
    assert same and expected == yours and len(short(value)) <= WIDTH


@pytest.mark.parametrize("dtype, within, beyond", [(torch.float32, 5e-5, 1e-3), (torch.float64, 5e-6, 1e-4)])
def test_tolerance_follows_the_precision(dtype, within, beyond):
    wanted = torch.ones(3, dtype=dtype)
    assert compare(wanted, wanted * (1 + within))[0] and compare(1.0, wanted[0] * (1 + within))[0]
    assert not compare(wanted, wanted * (1 + beyond))[0] and not compare(1.0, wanted[0] * (1 + beyond))[0]


@pytest.mark.parametrize("expected, yours", [
    (1, 1.0), (1.0, torch.tensor(1)), (True, np.bool_(True)), ([1, 2], (1, 2)), ([1, 2], np.array([1, 2])),
    (torch.tensor([1, 2]), torch.tensor([1, 2], dtype=torch.uint8)), (np.ones(2, np.float32), np.ones(2)),
    (torch.tensor([float("nan")]), torch.tensor([float("nan")])), ({"a": [1.0]}, {"a": [1.0]}), ({1, 2}, {2, 1}),
    ("a", np.str_("a")), ([1.0, "a"], (torch.tensor(1.0), "a")), ([[1, 2], 3], (np.array([1, 2]), 3)),
])
def test_what_agrees(expected, yours):
    assert compare(expected, yours)[0]


@pytest.mark.parametrize("expected, yours", [
    (1, True), (True, 1), (1, "1"), (1, None), (None, 0), (10**9, 10**9 + 1), ([1, 2], [1]), ([1, 2], [2, 1]),
    (torch.ones(2), np.ones(2, np.float32)), (torch.ones(2), torch.ones(2).long()), (torch.ones(2), torch.ones(2, 1)),
    (torch.ones(2), torch.ones(1)), (torch.tensor([1.0]), torch.tensor([float("nan")])), ({"a": 1}, {"b": 1}),
    (torch.ones(2), torch.ones(2).bfloat16() + 1), ([1, 2], torch.tensor(1)), ("a", 1), (1.0, np.array("x")),
    (torch.arange(50), torch.arange(50).flip(0)), (np.full(50, True), np.full(50, False)),
    (np.array(list("abcdefgh")), np.array(list("abcdefgx"))), (1.0, [1.0]), (torch.ones(2), ...),
])
def test_what_does_not_agree_and_looks_different(expected, yours):
    same, wanted, got = compare(expected, yours)
    assert not same and wanted != got
