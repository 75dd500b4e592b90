"""The field's tools and our own functions say the same of the same cells (where the extra [eval] is installed)."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from test_evaluation import relabelled, world

from cdt_lite.errors import CDTError
from cdt_lite.evaluation import METRICS, Changes, differential_expression, discrimination_score, suite_scores
from cdt_lite.evaluation.cells import read_screen
from cdt_lite.evaluation.comparison import Truth
from cdt_lite.evaluation.suites import POOLED

TARGETS = ("K0", "K1", "K2", "K3", "K4")  # none is measured: ours leave the own gene out, cell-eval does not


def both():
    """A screen and a prediction that confuses two perturbations, so that no score is perfect."""
    real = world(targets=TARGETS, n_cells=60, n_control=120, n_genes=60, strength=0.5)
    predicted = world(targets=TARGETS, n_cells=60, n_control=10, n_genes=60, strength=0.4, prefix="again")
    swapped = predicted.obs["target_gene"].astype(str).replace({"K0": "K1", "K1": "K0"})
    return real, ad.AnnData(predicted.X, obs=predicted.obs.assign(target_gene=swapped), var=predicted.var)


@pytest.mark.slow
def test_our_scores_are_those_of_cell_eval():
    pytest.importorskip("cell_eval", reason="extra [eval]")
    real, predicted = both()
    theirs = suite_scores("cell-eval", real, {"mine": predicted}).set_index("target")
    cells = read_screen(real, "it", POOLED)
    truth = Truth(cells, (cells.control, cells.control), cells.control_depth(), 0)  # they share the controls
    compared = {key: truth.compare(key, truth.from_cells(key, read_screen(predicted, "that", POOLED)))
                for key in cells.groups}
    ours = pd.DataFrame({name: [metric.score(c) for c in compared.values()] for name, metric in METRICS.items()},
                        index=[target for target, _ in compared]).loc[theirs.index]
    assert set(theirs["method"]) == {"mine"} and len(theirs) == 5
    for mine, name in (("mae", "mae"), ("pearson_delta", "pearson_delta"), ("overlap_at_n", "overlap_at_N"),
                       *[(f"discrimination_score_{d}",) * 2 for d in ("l1", "cosine")]):
        np.testing.assert_allclose(ours[mine], theirs[name].astype(float), atol=1e-5, err_msg=mine)
    assert ours["discrimination_score_l1"].nunique() > 1 and ours["overlap_at_n"].between(0.01, 0.99).any()
    ratio = theirs["de_nsig_counts_pred"] / theirs["de_nsig_counts_real"]
    np.testing.assert_allclose(ours["significant_gene_ratio"], ratio.astype(float))
    assert [compared[t, -1].real.n_changed for t in theirs.index] == list(theirs["de_nsig_counts_real"])


@pytest.mark.slow
def test_our_functions_are_those_of_cell_eval2():
    pytest.importorskip("cell_eval2", reason="extra [eval]")
    real, predicted = both()
    theirs = suite_scores("cell-eval2", real, predicted).set_index("target")
    control = real[(real.obs["target_gene"] == "non-targeting").to_numpy()].X.toarray()
    cells = [{t: x[(x.obs["target_gene"] == t).to_numpy()].X.toarray() for t in TARGETS} for x in (real, predicted)]

    def cpm(x):
        return np.log1p(x / x.sum(1, keepdims=True) * 1e6)

    def bulk(x):  # what cell-eval2 ranks: log1p of the pooled counts, brought to 50,000
        return np.log1p(x.sum(0) / x.sum() * 50_000)

    deltas = [np.array([bulk(side[t]) - bulk(control) for t in TARGETS]) for side in cells]
    for i, t in enumerate(TARGETS):
        ours = discrimination_score(deltas[1][i], deltas[0], i, metric="cosine")
        assert 1 - (1 - ours) * 5 / 4 == pytest.approx(theirs.loc[t, "pds_cosine"])  # it divides by n - 1
        found = [set(differential_expression(cpm(side[t]), cpm(control)).significant()) for side in cells]
        jaccard = len(found[0] & found[1]) / len(found[0] | found[1])
        assert jaccard == pytest.approx(theirs.loc[t, "de_wilcoxon_sig_jaccard"], abs=0.05)
    assert theirs["pds_cosine"].nunique() > 1


def test_what_does_not_fit_is_refused():
    real, predicted = both()
    with pytest.raises(CDTError, match="did you mean 'cell-eval'"):
        suite_scores("cell-evl", real, predicted)
    with pytest.raises(CDTError, match=r"1 missing \['G59'\]"):
        suite_scores("cell-eval", real, predicted[:, :-1])
    with pytest.raises(CDTError, match="no cells of target 'K9'"):
        suite_scores("cell-eval", real, relabelled(predicted, "K9"))
    with pytest.raises(CDTError, match="predicted cells with raw counts"):
        suite_scores("cell-eval2", real, {"m": Changes(pd.DataFrame(0.1, ["K0"], real.var_names))})


def test_a_suite_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cell_eval", None)
    with pytest.raises(CDTError, match=r"cell-eval is not installed.*cdt-lite\[eval\]"):
        suite_scores("cell-eval", *both())
