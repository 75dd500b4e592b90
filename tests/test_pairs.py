"""Two targets perturbed together: planted, told as the sum of both, and predicted where nobody made them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CONTROL, network, opened, tiny, toy_screen

from cdt_lite.data.batches import SetSampler
from cdt_lite.data.simulate import ScreenDesign, simulate_screen
from cdt_lite.data.store import TokenStore
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.training.effects import fitted
from cdt_lite.training.kriging import Kriging, Measured
from cdt_lite.training.predict import predict
from cdt_lite.training.request import check_request, known_shares
from cdt_lite.training.start import start
from cdt_lite.training.train import train

CONFIG = tiny("lite")
NAN = float("nan")
A, B, C, D, AB, CD = range(6)
MEMBERS = np.array([[A, -1], [B, -1], [C, -1], [D, -1], [A, B], [C, D]])
PARAMETERS = (0.6, 0.2, 0.8, 0.3)


def screen_of_pairs():
    """A toy screen, a third of whose G3 cells are of G3 and G5 together."""
    screen = toy_screen()
    target = screen.obs["target_gene"].astype(str).to_numpy()
    nth = pd.Series(target).groupby(target).cumcount().to_numpy()
    target[(target == "G3") & (nth % 3 == 0)] = "G3+G5"
    screen.obs["target_gene"] = target
    screen.obs.loc[screen.obs["target_gene"] == "G3+G5", "magnitude"] = np.nan
    return screen


@pytest.fixture(scope="module")
def trained():
    screen = screen_of_pairs()
    checkpoint = start(CONFIG, screen)
    store = TokenStore.from_adata(screen, checkpoint.tokenizer, checkpoint.vocabulary)
    data = SetSampler(store, CONFIG.finetune)
    list(train(checkpoint, data, steps=3))
    return screen, checkpoint, data


def test_without_saturation_a_planted_pair_is_the_sum_of_both():
    screen = simulate_screen(n_genes=96, n_targets=12, n_cells=1500, world="linear", design=ScreenDesign(n_pairs=8))
    truth = screen.uns["truth"]
    effects = dict(zip(truth["perturbations"].index, truth["effect"], strict=True))
    pairs = [name for name in effects if "+" in name[:-1]]
    assert len(pairs) == 8 and set(pairs) <= set(screen.obs["perturbation"])
    for name in pairs:
        one, other = name[:-1].split("+")
        own = screen.var_names.isin([one, other])
        both = effects[one + name[-1]] + effects[other + name[-1]]
        np.testing.assert_allclose(effects[name][~own], both[~own], atol=1e-5)
        for gene in (one, other):  # its own mRNA is set from outside, whatever the other does
            at = screen.var_names == gene
            np.testing.assert_allclose(effects[name][at], effects[gene + name[-1]][at], atol=1e-5)


def test_cells_of_pairs_have_the_planted_means_and_both_signs_occur():
    screen = simulate_screen(n_genes=64, n_targets=10, n_cells=16_000, design=ScreenDesign(n_pairs=10))
    truth = screen.uns["truth"]
    scale = screen.obs["size_factor"].to_numpy()[:, None]
    scale = scale * np.exp(truth["batch_effect"])[screen.obs["batch"].cat.codes.to_numpy()]
    common = truth["control_mean"] > 0.3  # a rare gene's spread is no estimate
    values, z = (screen.X.toarray() / scale)[:, common], []
    for name, effect in zip(truth["perturbations"].index, truth["effect_observed"], strict=True):
        cells = values[(screen.obs["perturbation"] == name).to_numpy()]
        if "+" in name[:-1]:
            expected = (truth["control_mean"] * np.exp(effect))[common]
            z.append((cells.mean(0) - expected) / (cells.std(0) / len(cells) ** 0.5))
    z = np.concatenate(z)
    assert abs(z.mean()) < 0.15 and abs(z.std() - 1) < 0.15
    pairs = screen.obs[screen.obs["target_gene"].str.contains("+", regex=False)]
    assert set(pairs["sign"]) == {-1, 1} and pairs["magnitude"].isna().all()
    with pytest.raises(CDTError, match="n_pairs must be at most"):
        simulate_screen(n_genes=64, n_targets=4, n_cells=5000, design=ScreenDesign(n_pairs=40))


def test_more_pairs_leave_the_world_as_it_was():
    size = {"n_genes": 64, "n_targets": 10, "n_cells": 2000}
    alone = simulate_screen(**size).uns["truth"]
    more = simulate_screen(**size, design=ScreenDesign(n_pairs=5)).uns["truth"]
    np.testing.assert_array_equal(more["effect"][: len(alone["effect"])], alone["effect"])


def likeness():
    """Of four genes, and of two pairs, which are like themselves alone."""
    vectors = np.random.default_rng(0).normal(size=(4, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = np.eye(6)
    alike[:4, :4] = vectors @ vectors.T
    return alike


def measured(gene, sign=None):
    rng, n = np.random.default_rng(1), len(gene)
    sign = np.full(n, -1) if sign is None else np.array(sign)
    replicate = np.arange(n) % 2
    return Measured(np.array(gene), sign, replicate, replicate, np.full(n, 40.0), np.full(n, 60.0),
                    rng.normal(size=(n, 5)))


def fit(rows, parameters=PARAMETERS):
    single = [MEMBERS[gene, 0] for gene in rows.gene]
    single += [MEMBERS[gene, 1] for gene in rows.gene if MEMBERS[gene, 1] >= 0]
    return Kriging(rows, likeness()[:, single], np.ones(5), parameters, MEMBERS)


def covariance(p, s, q, t):
    """Of two perturbations, gene by gene."""
    a, b, c, d = PARAMETERS
    total, alike = 0.0, likeness()
    for i in (gene for gene in MEMBERS[p] if gene >= 0):
        for j in (gene for gene in MEMBERS[q] if gene >= 0):
            total += s * t * (a * np.sinh(c * alike[i, j]) / np.sinh(c) + d * (i == j)) + b * (s == t)
    return total + s * t * d * (p == q and MEMBERS[p, 1] >= 0)


@pytest.mark.parametrize(("gene", "sign"), [(AB, -1), (CD, -1), (A, -1), (D, 1), (AB, 1)])
def test_what_is_known_of_pairs_is_the_mean_of_a_gaussian(gene, sign):
    rows = measured((A, A, AB, AB, B, CD, C), (-1, -1, -1, -1, 1, -1, 1))
    n = len(rows.gene)
    total = np.array([[covariance(rows.gene[i], rows.sign[i], rows.gene[j], rows.sign[j]) for j in range(n)]
                      for i in range(n)])
    total += rows.noise()
    cross = np.array([covariance(gene, sign, rows.gene[i], rows.sign[i]) for i in range(n)])
    (weights,), _ = fit(rows).known(np.array([gene]), np.array([sign]))
    np.testing.assert_allclose(weights, cross @ np.linalg.inv(total), atol=1e-10)


def test_a_pair_that_nobody_made_is_the_sum_of_what_is_known_of_both():
    kriging = fit(measured((A, A, B, C, D, CD)))
    weights, left = kriging.known(np.array([AB, A, B]), np.array([-1, -1, -1]))
    np.testing.assert_allclose(weights[0], weights[1] + weights[2], atol=1e-12)
    assert 0 < left[0] < 1


def test_the_likelihood_of_a_few_rows_drawn_knows_their_pairs():
    rows = measured((A, AB, B, CD, C, AB, D, CD))
    kept = np.array([True, True, False, True, False, False, True, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measured, "drawn", lambda self, n: kept)
        some = fit(rows, parameters=None).parameters
    assert some == fit(rows.of(kept), parameters=None).parameters != fit(rows, parameters=None).parameters


def test_a_pairs_condition_is_the_sum_of_two_whatever_their_order():
    model = opened(network(CONFIG))

    def told(target, pair):
        asked = Perturbation.of([target], [-1], [NAN], pair=[pair])
        return model.perturbation(asked, model.gene_table)

    alone = [told(gene, (NO_TARGET, NO_TARGET)) for gene in (3, 5)]
    np.testing.assert_allclose(told(8, (3, 5)).detach(), (alone[0] + alone[1]).detach(), atol=1e-5)
    np.testing.assert_allclose(told(8, (5, 3)).detach(), told(UNKNOWN_TARGET, (3, 5)).detach(), atol=1e-6)
    plain = model.perturbation(Perturbation.of([3], [-1], [NAN]), model.gene_table)
    assert torch.equal(alone[0], plain)  # no pair in the batch, or none in this set: the same thing


def test_a_vocabulary_knows_the_genes_of_a_pair():
    vocabulary = Vocabulary(["G1"]).extended(["G1+G2", "A+B+C", "+odd"])
    assert vocabulary.symbols == ["G1", "G2", "G1+G2", "A", "B", "C", "A+B+C", "+odd"]
    assert vocabulary.pair("G1+G2") == (0, 1)
    assert vocabulary.pair("G1") is vocabulary.pair("A+B+C") is vocabulary.pair("+odd") is None
    assert Vocabulary(["G1", "G1+G2"]).pair("G1+G2") is None  # of before: one of its genes is unknown


def test_in_training_a_pair_is_told_its_genes_unless_its_name_is_withheld(trained):
    _, checkpoint, data = trained
    pair, ids = checkpoint.vocabulary.id("G3+G5"), checkpoint.vocabulary.pair("G3+G5")
    kinds = set()
    for i in range(60):
        told = data.batch(i).perturbation
        rows = zip(told.own.tolist(), told.target.tolist(), told.guess.tolist(), map(tuple, told.pair.tolist()),
                   strict=True)
        for own, target, guess, genes in rows:
            named = target == pair or (target == UNKNOWN_TARGET and guess == pair)
            assert genes == (ids if own == pair and named else (NO_TARGET, NO_TARGET))
            kinds.add((own == pair, named))
    assert kinds == {(True, True), (True, False), (False, False)}


def test_what_is_known_of_an_unmade_pair_is_looked_up_as_a_sum(trained):
    _, checkpoint, _ = trained
    table, genes = checkpoint.model.effect.eval(), torch.arange(8)
    one, other = checkpoint.vocabulary.pair("G3+G5")

    def known(target, pair=(NO_TARGET, NO_TARGET)):
        return table.look_up(Perturbation.of([target], [-1], [NAN], [NO_TARGET], pair=[pair]), genes).effect

    np.testing.assert_allclose(known(UNKNOWN_TARGET, (one, other)), known(one) + known(other), atol=1e-6)
    assert torch.equal(known(one, (NO_TARGET, NO_TARGET)), known(one))
    made = checkpoint.vocabulary.id("G3+G5")  # measured, so it has a part of its own
    assert not torch.allclose(known(made, (one, other)), known(one) + known(other), atol=1e-4)
    mixed = Perturbation.of([UNKNOWN_TARGET, one], [-1, -1], [NAN, NAN], [NO_TARGET] * 2,
                            pair=[(one, other), (NO_TARGET, NO_TARGET)])
    np.testing.assert_allclose(table.look_up(mixed, genes).effect[1:], known(one), atol=1e-7)


def without_the_pair(trained):
    """The same model, of whose training the pair was no part."""
    screen, checkpoint, _ = trained
    fewer = [target for target in checkpoint.trained_targets if target != "G3+G5"]
    return screen, replace(checkpoint, trained_targets=fewer)


def test_a_pair_of_trained_targets_can_be_asked_for_and_its_note_says_how(trained):
    screen, checkpoint = without_the_pair(trained)
    made = predict(checkpoint, screen, "G5 + G3", n_cells=5)
    assert set(made.obs["target_gene"]) == {"G3+G5"}
    assert "G3+G5 was never made in training: predicted as G3 and G5, added up" in list(made.uns["cdt_lite"]["notes"])
    asked = check_request(checkpoint, "G3+G5", -1, None, CONTROL)
    table, genes = checkpoint.model.effect, checkpoint.vocabulary.pair("G3+G5")
    shares = [known_shares(table, gene, NO_TARGET, -1)[0] for gene in genes]
    assert asked.beyond_average == pytest.approx(np.mean(shares))


def test_a_pair_with_a_gene_that_was_never_perturbed_is_refused(trained):
    _, checkpoint = without_the_pair(trained)
    for target in ("G3+G7", "G3+G5+G7"):
        with pytest.raises(CDTError, match="only if it is a pair and both were perturbed"):
            check_request(checkpoint, target, -1, None, CONTROL)


def test_pairs_of_a_stored_screen_count_for_their_genes(trained):
    _, checkpoint, data = trained
    kriging, genes = fitted(data.stores[0], checkpoint.tokenizer)
    row = int(np.searchsorted(genes, checkpoint.vocabulary.id("G3+G5")))
    assert genes[kriging.members[row]].tolist() == list(checkpoint.vocabulary.pair("G3+G5"))
    assert (kriging.members[:, 1] >= 0).sum() == 1
