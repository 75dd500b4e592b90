import numpy as np
import pytest

from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError
from cdt_lite.model.config import GENE_CAPACITY


def test_ids_are_places_and_survive_extension():
    v = Vocabulary(["STAT1", "JAK2"])
    w = v.extended(["IRF1", "STAT1", "IRF1"])
    assert np.array_equal(w.ids(["STAT1", "JAK2", "IRF1"]), [0, 1, 2]) and len(w) == 3
    assert w.capacity == GENE_CAPACITY and "IRF1" not in v


def test_an_unknown_gene_is_an_error_with_its_nearest_never_a_row():
    with pytest.raises(CDTError, match="STAT11.*'STAT1'"):
        Vocabulary(["STAT1", "JAK2"]).id("STAT11")


def test_duplicates_and_overflow_are_refused():
    with pytest.raises(CDTError, match="more than once.*STAT1"):
        Vocabulary(["STAT1", "JAK2", "STAT1"])
    with pytest.raises(CDTError, match="do not fit"):
        Vocabulary(["A", "B", "C"], capacity=2)
