"""Power: a closed form against another law's, against its own inverse, and against drawn cells."""

import numpy as np
import pytest
from scipy.stats import chi2, ncx2

from cdt_lite.errors import CDTError
from cdt_lite.evaluation import cells_needed, detection_power, power_curve, smallest_change


@pytest.mark.parametrize("change, n, m, alpha", [(0.2, 100, 500, 0.05), (-0.3, 40, 40, 0.01), (0.05, 900, 90, 0.1)])
def test_the_square_of_z_has_the_noncentral_chi_squared_law(change, n, m, alpha):
    theirs = ncx2.sf(chi2.isf(alpha, 1), 1, change**2 / (0.49 / n + 0.49 / m))
    assert detection_power(change, 0.7, n, 0.7, m, alpha) == pytest.approx(theirs, rel=1e-9)


def test_no_change_is_called_one_as_often_as_the_level_says():
    assert detection_power(0.0, 1.0, 50, 2.0, 70, 0.03) == pytest.approx(0.03)


@pytest.mark.parametrize("change, sd, m", [(0.1, 0.5, 2000), (0.4, 1.0, 300), (-0.25, 0.8, float("inf"))])
def test_so_many_cells_are_enough_and_one_fewer_is_not(change, sd, m):
    n = int(cells_needed(change, sd, m, wanted=0.9))
    assert detection_power(change, sd, n, sd, m) >= 0.9 > detection_power(change, sd, n - 1, sd, m) - 1e-3
    assert smallest_change(n, sd, m, wanted=0.9) <= abs(change) < smallest_change(n - 1, sd, m, wanted=0.9)


def test_few_controls_put_a_change_out_of_reach_and_endless_ones_quarter_the_cells():
    assert cells_needed(0.1, 1.0, 100) == np.inf
    assert cells_needed(0.5, 1.0, float("inf")) == 32
    assert cells_needed(0.25, 1.0, float("inf")) == pytest.approx(4 * 31.4, abs=1)


def test_drawn_cells_agree_where_means_are_normal():
    rng = np.random.default_rng(0)
    cells, controls = rng.normal(0.3, 1.0, 4000), rng.normal(0.0, 1.0, 4000)
    curve = power_curve(cells, controls, [30, 120, 480], 500, draws=1500)
    assert (curve["drawn"] - curve["closed form"]).abs().max() < 0.04
    assert curve["closed form"].is_monotonic_increasing and curve.index.tolist() == [30, 120, 480]
    again = power_curve(cells, controls, [30, 120, 480], 500, draws=1500)
    assert again.equals(curve)


@pytest.mark.parametrize("wrong", [{"sd": 0.0}, {"n_controls": 0}, {"wanted": 0.3}, {"wanted": 1.0}, {"alpha": 0.0}])
def test_what_is_no_experiment_is_refused(wrong):
    given = {"sd": 1.0, "n_controls": 100} | wrong
    with pytest.raises(CDTError, match=next(iter(wrong))):
        cells_needed(0.5, **given)


def test_one_cell_has_no_variance():
    with pytest.raises(CDTError, match="two cells"):
        power_curve(np.arange(5.0), np.arange(5.0), [1], 10)
