"""Does a model listen: what is taken out of it, the direction of answers, and the sentences, whichever side wins."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import opened, tiny

from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.figures import plots, with_intervals
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.teaching import (
    bits_without,
    condition_table,
    dial,
    direction,
    does_it_listen,
    emptied,
    held_out,
    leans,
    table_alone,
    trusted,
    untrained,
    who_listens,
    worth,
)
from cdt_lite.teaching.listening import Direction
from cdt_lite.training.effects import effect_table
from cdt_lite.training.start import start

NAMES = ["untrained", "untrained, with the table", "deaf", "told", "capsule, table emptied", "table alone", "capsule"]


@pytest.fixture(scope="module")
def found():
    design = ScreenDesign(unmeasured_fraction=0.25)
    return held_out(simulate_screen(n_genes=64, n_targets=12, n_cells=2400, design=design))


@pytest.fixture(scope="module")
def capsule(found):
    """An untrained network with open gates, and a table of what training cells say."""
    new = start(tiny("lite", n_total_genes=200), found.train)
    opened(new.model)
    store = TokenStore.from_adata(found.train, new.tokenizer, new.vocabulary)
    new.model.effect.fill(effect_table(store, new.tokenizer))
    new.trained_targets = sorted(set(found.train.obs["target_gene"]) - {"non-targeting"})
    return new


def rows(values):
    return pd.DataFrame(values, pd.MultiIndex.from_product([list("ABCD"), [-1]]), [f"G{i}" for i in range(60)])


@pytest.fixture(scope="module")
def real():
    rng = np.random.default_rng(0)
    return rows(2 * rng.normal(size=60) + rng.normal(size=(4, 60)))


def test_the_direction_is_the_correlation_of_what_sets_targets_apart(real):
    rng = np.random.default_rng(1)
    predicted = real + rng.normal(size=real.shape)
    apart = [(table - table.mean()).to_numpy().ravel() for table in (predicted, real)]
    found = direction(predicted.assign(another=1.0), real)
    assert found.r == pytest.approx(np.corrcoef(*apart)[0, 1]) and found.low < found.r < found.high
    assert direction(-real, real).r == pytest.approx(-1)
    shared = rows(np.tile(real.mean(), (4, 1)))
    assert np.isnan(direction(shared, real).r) and str(direction(shared, real)) == "undefined"
    assert abs(direction(rows(rng.normal(size=real.shape)), real).r) < 0.3
    two = rows(np.stack([real.iloc[0], -real.iloc[0], *np.zeros((2, 60))]))  # some redraws hold neither
    assert 0 <= direction(two, real).low < direction(two, real).high
    gap = direction(predicted, real, real)
    assert gap.r == pytest.approx(found.r - 1) and gap.high < 0


def test_an_emptied_capsule_knows_no_effects_and_the_one_it_is_copied_from_keeps_them(capsule, found):
    without = emptied(capsule)
    assert without.model.effect.empty and not capsule.model.effect.empty
    new = untrained(capsule, found)
    assert new.model.effect.empty and new.vocabulary is capsule.vocabulary
    assert np.abs(found.predicted(new, 8)).to_numpy().max() < 1e-6
    assert np.abs(found.predicted(without, 8)).to_numpy().max() > 1e-6


def test_the_table_alone_says_what_training_replicates_did(capsule, found):
    table = table_alone(capsule, found)
    assert table.index.equals(found.changes.index)
    assert direction(table, found.changes).r > 0.3


def test_what_sets_are_told_stands_beside_what_was_done():
    given = [1, UNKNOWN_TARGET, NO_TARGET], [-1, 1, 0], [-0.5, np.nan, 0.0]
    table = condition_table(Perturbation.of(*given, own=[1, 0, NO_TARGET]), ["STAT1", "JAK2"])
    assert table["was perturbed"].tolist() == ["JAK2", "STAT1", "nothing"]
    assert table["told"].tolist() == ["JAK2", "something", "nothing"]


def verdicts(passed):
    r = {name: Direction(0.5, 0.3, 0.7) if name in passed else Direction(0.0, -0.1, 0.1) for name in NAMES}
    return pd.DataFrame({"right direction": [name in passed for name in NAMES], "r": list(r.values())}, NAMES)


TABLES = {"table alone", "untrained, with the table", "capsule"}


@pytest.mark.parametrize(("passed", "said", "unsaid"), [
    (TABLES | {"capsule, table emptied"}, ["the right direction by itself", "nobody can tell the bug"], ["bug is"]),
    (TABLES, ["here the table listens, not the network", "nobody can tell the bug"], ["by itself"]),
    (TABLES | {"told"}, ["the bug is found"], ["nobody can tell"]),
    (TABLES | {"deaf"}, ["do not trust this test"], ["bug"]),
    (TABLES - {"untrained, with the table"}, ["nobody can tell"], ["has learned nothing"]),
    ({"capsule"}, ["The positive control fails"], ["network"]),
    (set(), ["In the right direction: nobody."], [])])
def test_the_verdict_names_who_passes_and_draws_no_more_from_it_than_it_holds(passed, said, unsaid):
    sentence = who_listens(verdicts(passed))
    assert all(words in sentence for words in said)
    assert not any(words in sentence.split("Not so")[1].partition(".")[2] for words in unsaid if passed)


@pytest.mark.parametrize(("network", "table", "said"), [
    (0.1, 0.2, "Asked by name, the network is nearer than the table"),
    (0.2, 0.1, "Asked by name, the table is nearer than the network"),
    (0.1, 0.1, "Asked by name, network and table are as near")])
def test_the_nearer_of_network_and_table_is_named(network, table, said):
    row = {"network": network, "table": table, "no change": 0.3, "share": 0.25}
    sentence = trusted({"seen": row, "unseen": row})
    assert sentence.startswith(said) and "25% of the mixture is the table" in sentence


@pytest.mark.parametrize(("sizes", "errors", "r", "said"), [
    ([0.1, 0.2], [0.1, 0.2], [0.9, 0.8], ["grows", "not yet the real", "highest at w = 1: by both scores"]),
    ([0.2, 0.1], [0.2, 0.1], [0.9, 0.8], ["does not grow", "already more than the real", "least at w = 3",
                                          "highest at w = 1: two scores, two answers"])])
def test_what_a_dial_does_is_read_off(sizes, errors, r, said):
    table = pd.DataFrame({"size of change": sizes, "error": errors, "Pearson's r": r}, [1.0, 3.0])
    sentence = dial(table, 0.15)
    assert all(words in sentence for words in said)


NEAR, FAR, NONE = Direction(0.8, 0.6, 0.9), Direction(-0.2, -0.4, -0.1), Direction(0.0, -0.1, 0.1)
FAINT = Direction(0.3, 0.1, 0.4)


@pytest.mark.parametrize(("capsule", "left", "beyond", "said"), [
    (NEAR, NEAR, NONE, ["Yes. What", "level with"]),
    (NEAR, FAINT, NEAR, ["Yes, loudly for A and B, faintly for the others. What", "better than"]),
    (NEAR, NONE, NEAR, ["For A and B, yes; for the others this does not show it. What", "r 0.00 [−0.10, 0.10]"]),
    (NONE, NEAR, FAR, ["No. What", "worse than"])])
def test_the_answer_follows_the_numbers_with_and_without_the_strongest_two(capsule, left, beyond, said):
    heard = {"capsule": capsule, "capsule, table emptied": FAR, "deaf": NONE, "one change": FAINT}
    sentence = does_it_listen(heard, {"capsule": left, "capsule, table emptied": NEAR}, ["A", "B"], beyond)
    assert all(words in sentence for words in said)
    assert "answers A and B with it and all others with none, has 0.30" in sentence
    assert "its network has r −0.20 [−0.40, −0.10], without the two 0.80" in sentence


def bits(**gaps):
    rng = np.random.default_rng(0)
    whole = rng.normal(1, 0.1, 400)
    return pd.DataFrame({"everything": whole} | {name.replace("_", " "): whole + rng.normal(gap, 0.01, 400)
                                                 for name, gap in gaps.items()})


@pytest.mark.parametrize(("gaps", "said"), [
    ({"no_controls": 0.3, "no_perturbation": 0.03}, ["by no controls: 0.3", "costs 0.03", "10% of that"]),
    ({"no_controls": 0.1, "no_perturbation": 0.4}, ["by no perturbation: 0.4", "100% of that"]),
    ({"no_controls": 0.1, "no_perturbation": -0.02}, ["No cost of not being told the perturbation is seen"])])
def test_what_is_missed_most_is_named(gaps, said):
    table = worth(bits(**gaps))
    assert table.loc["no controls", "low"] < gaps["no_controls"] < table.loc["no controls", "high"]
    assert all(words in leans(table) for words in said)


def test_bits_are_those_of_the_whole_model_and_of_a_model_told_less(capsule, found):
    table = bits_without(capsule, found, 2)
    config = capsule.config.finetune
    assert len(table) == 2 * config.sets_per_batch * 4
    assert list(table) == ["everything", "no controls", "a typical depth", "no table", "no perturbation"]
    assert (table > 0).all().all() and all((table[name] != table["everything"]).any() for name in table.columns[1:])
    torch.testing.assert_close(*(torch.tensor(bits_without(capsule, found, 1).to_numpy()) for _ in range(2)))


def test_bars_carry_their_intervals_and_a_capsules_colour_is_that_of_what_is_generated():
    table = pd.DataFrame({"r": [0.5, 0.1], "low": [0.3, 0.0], "high": [0.6, 0.4]}, ["capsule", "deaf"])
    (ax,) = with_intervals(table, "r", 0.2).axes
    colors = [plots.to_hex(bar.get_facecolor()).upper() for bar in ax.patches]
    assert colors == [plots.KINDS["generated"], plots.KINDS["baseline"]]
    ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ends, [[0.3, 0.6], [0.0, 0.4]])
