"""Cells at the door of the evaluation: what is refused, and that the message says what to do."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from test_evaluation import of, quiet, world

from cdt_lite.data.expression import log1p_counts
from cdt_lite.data.layout import Columns
from cdt_lite.errors import CDTError
from cdt_lite.evaluation import check_unseen, evaluate


def test_predicted_log1p_has_to_say_so_and_to_have_the_same_depth():
    real, again = world(), world(prefix="again")
    log1p = again.copy()
    log1p.X = log1p_counts(again.X, 60.0)
    with pytest.raises(CDTError, match=r"raw counts.*'space': 'log1p'"):
        evaluate(real, log1p)
    log1p.uns["cdt_lite"] = {"space": "log1p", "target_depth": 60.0}
    options = {"target_depth": 60.0, "metrics": ["mae", "cell_sd_ratio"]}
    a, b = (of(quiet(real, x, **options), "prediction") for x in (again, log1p))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5)
    with pytest.raises(CDTError, match="scaled to 60 counts per cell, but the real cells are scaled to 50"):
        evaluate(real, log1p, target_depth=50.0)
    log1p.X = log1p.X * 100
    with pytest.raises(CDTError, match=r"says that it holds log1p expression \(0 to 20\)"):
        evaluate(real, log1p, target_depth=60.0)


def spoil(cells, **obs):
    return ad.AnnData(cells.X, obs=cells.obs.assign(**obs), var=cells.var)


def spoil_counts(cells, value):
    cells = cells.copy()
    cells.X = cells.X.toarray()
    cells.X[3, 2] = value
    return cells


BAD = {
    "genes": (lambda r: (r, r[:, :-1]), {}, r"1 missing \['G29'\]"),
    "gene name": (lambda r: (r, ad.AnnData(r.X, r.obs, r.var.rename(index={"G3": "G3x"}))), {}, "did you mean 'G3'"),
    "twice": (lambda r: (ad.AnnData(r.X, r.obs, r.var.rename(index={"G3": "G4"})), None), {}, "more than once: .*G4"),
    "column": (lambda r: (r, None), {"columns": Columns(target="target_genes")}, "did you mean 'target_gene'"),
    "batch": (lambda r: (r, None), {"columns": Columns(batch="batches")}, r"no column 'batches'.*did you mean 'batch'"),
    "no batch": (lambda r: (r, ad.AnnData(r.X, r.obs.drop(columns="batch"), r.var)), {}, r"batch 'all'.*batch=None"),
    "control": (lambda r: (r, None), {"columns": Columns(control="non-targetting", sign=None)},
                "no control cells.*did you mean 'non-targeting'"),
    "few controls": (lambda r: (r[157:], None), {}, "3 control cells.*at least 4"),
    "target": (lambda r: (r, spoil(r, target_gene="G11", sign=-1)), {}, "no cells of target 'G11'.*did you mean"),
    "no target": (lambda r: (r, spoil(r, target_gene="non-targeting", sign=0)), {}, "no perturbed cells"),
    "empty table": (lambda r: (r, {"m": pd.DataFrame(columns=r.var_names)}), {}, "no perturbed cells"),
    "negative mean": (lambda r: (r, {"m": pd.DataFrame(-1.0, ["G0"], r.var_names)}), {}, r"got -1; wrap.*Changes"),
    "two rows": (lambda r: (r, {"m": pd.DataFrame(1.0, ["G0", "G0"], r.var_names)}), {}, "one row per perturbation"),
    "empty": (lambda r: (r[(r.obs["target_gene"] == "non-targeting").to_numpy()], None), {},
              "expected perturbed"),
    "unlabelled": (lambda r: (spoil(r, target_gene=[None, *r.obs["target_gene"][1:]]), None), {}, "1 cells have no"),
    "sign": (lambda r: (spoil(r, sign=2), None), {}, "must be -1 or \\+1 for perturbed cells"),
    "log1p": (lambda r: (r, spoil_counts(r, 0.69)), {}, "raw counts.*0.69, not a whole number.*'space': 'log1p'"),
    "negative": (lambda r: (spoil_counts(r, -1), None), {}, "raw counts.*-1, a negative number"),
    "nan": (lambda r: (spoil_counts(r, np.nan), None), {}, "raw counts.*NaN"),
    "names": (lambda r: (ad.concat([r, r]), None), {}, "obs_names_make_unique"),
    "metric": (lambda r: (r, None), {"metrics": ["maee"]}, "did you mean 'mae'"),
    "baseline": (lambda r: (r, None), {"baselines": ["liner"]}, "did you mean 'linear'"),
    "no train": (lambda r: (r, None), {"baselines": ["linear"]}, "pass train="),
    "taken": (lambda r: (r, {"control": r}), {}, "name of a baseline"),
    "batch label": (lambda r: (r, spoil(r, batch="c")), {}, "too few control cells in batch 'c'"),
}


@pytest.mark.filterwarnings("ignore:Observation names are not unique", "ignore:Variable names are not unique")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_error(case):
    make, options, message = BAD[case]
    real, predicted = make(world(targets=("G0", "G1")))
    with pytest.raises(CDTError, match=message):
        evaluate(real, predicted, **options)


def test_leaks_between_training_and_test_are_refused_by_name():
    screen = world()
    with pytest.raises(CDTError, match="60 cells of target 'G0' are in both"):
        evaluate(screen, train=screen)
    with pytest.raises(CDTError, match=r"\['G0', 'G1', 'G2', 'X'\] are in the training screen"):
        check_unseen(["G0", "G1", "G2", "X"], world(prefix="train"))
    train = screen[(screen.obs["target_gene"] != "X").to_numpy()]
    held_out = world(prefix="again")
    held_out = held_out[(held_out.obs["target_gene"] == "X").to_numpy()]
    check_unseen(["X"], train)
    table = evaluate(screen, held_out, train=train)  # training perturbations may still be rivals
    assert set(table["target"]) == {"X"} and table.loc[0, "discrimination_score_l1"] in (0.25, 0.5, 0.75, 1.0)
    other = world(seed=5)  # the same cell names, but other cells
    assert len(evaluate(screen, train=other, metrics=["mae"], baselines=["control"])) == 4
