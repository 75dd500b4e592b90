"""What the strongest two perturbations carry of a score, whichever way it falls out."""

import numpy as np
import pandas as pd
import pytest

from cdt_lite.teaching import carried, mean_of_others, one_change, others_moved, strongest_two
from cdt_lite.teaching.held_out import HeldOut

GENES = [f"G{i}" for i in range(40)]


class Asked(HeldOut):
    """Perturbations that are asked, and those of training, both perturbations x genes; no cells."""

    def __init__(self, changes, trained):
        self.__dict__.update(changes=changes, trained=trained)


def rows(**values):
    """A_up=..., B_down=...: the change of the activation of A, of the knockdown of B."""
    names = [(name[0], 1 if name.endswith("up") else -1) for name in values]
    index = pd.MultiIndex.from_tuples(names, names=["target", "sign"])
    return pd.DataFrame(np.array(list(values.values())), index, GENES)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_strongest_are_those_that_move_other_genes(rng):
    changes = rows(A_down=np.full(40, 0.1), B_down=np.full(40, 0.3), C_down=np.full(40, 0.2))
    changes = changes.rename(columns={"G0": "A"})
    changes.loc[("A", -1), "A"] = -99.0
    assert strongest_two(changes) == [("B", -1), ("C", -1)]
    assert np.isnan(others_moved(changes).loc[("A", -1), "A"]) and others_moved(-changes).loc[("B", -1), "G1"] == 0.3


def test_one_change_is_that_of_the_strongest_turned_round_for_the_other_sign(rng):
    change = rng.normal(size=40)
    found = Asked(rows(A_down=change, A_up=-0.9 * change, B_down=0.1 * change), rows(A_down=2 * change, B_down=change))
    answer = one_change(found)
    np.testing.assert_allclose(answer.to_numpy(), [2 * change, -2 * change, 0 * change])


def test_a_mean_that_lives_on_the_strongest_two_is_told_from_one_that_lives_on_what_all_share(rng):
    shared, loud, *own = rng.normal(size=(8, 40))
    asked = rows(E_down=3 * loud + own[0], F_down=3 * loud + own[1])
    alone = rows(A_down=9 * loud, B_down=9 * loud, C_down=own[2], D_down=own[3])
    assert strongest_two(alone) == [("A", -1), ("B", -1)]
    np.testing.assert_allclose(mean_of_others(Asked(asked, alone)).iloc[0], alone.mean())
    np.testing.assert_allclose(mean_of_others(Asked(asked, alone), [("A", -1)]).iloc[1], alone.iloc[1:].mean())
    said = carried(Asked(asked, alone))
    assert "Without A and B in it" in said and "lives on these two" in said
    every = rows(A_down=9 * shared, B_down=8 * shared, C_down=shared, D_down=shared)
    common = Asked(rows(E_down=shared + 0.1 * own[0], F_down=shared + 0.1 * own[1]), every)
    assert carried(common).endswith("it lives on what the others share.")
    nobody = Asked(rows(E_down=own[0], F_down=-own[0]), every)
    assert carried(nobody).endswith("it tells next to nothing here.")
    some = rows(A_down=9 * loud, B_down=9 * loud, C_down=2 * loud + own[2], D_down=2 * own[3])
    assert carried(Asked(asked, some)).endswith("these two carry a part of it.")
