"""Does a model listen: what it answers with parts of it taken out, and whether answers go the right way."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from cdt_lite.evaluation.summary import bootstrap_means
from cdt_lite.model.perturbation import NO_TARGET, UNKNOWN_TARGET, Perturbation
from cdt_lite.teaching.held_out import HeldOut
from cdt_lite.teaching.sentences import listed, number
from cdt_lite.training.changes import table_changes, wanted_cells, with_clean_table
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.start import start

LEAST = 1e-3  # difference of two answers, log1p units, that is more than rounding
BAR = 0.2  # correlation that passes for the right direction


class Direction(NamedTuple):
    """Correlation of what sets targets apart, predicted and real, with a 95 % interval over redrawn targets."""

    r: float
    low: float
    high: float

    def __str__(self) -> str:
        return "undefined" if np.isnan(self.r) else f"{number(self.r)} [{number(self.low)}, {number(self.high)}]"


def condition_table(perturbation: Perturbation, symbols: Sequence[str]) -> pd.DataFrame:
    """Returns what training sets were told, a row a set, beside what was perturbed.

    Args:
        perturbation: Of a training batch.
        symbols: Of the vocabulary.
    """
    names = {NO_TARGET: "nothing", UNKNOWN_TARGET: "something"} | dict(enumerate(symbols))
    assert perturbation.own is not None
    was, said = ([names[gene] for gene in genes.tolist()] for genes in (perturbation.own, perturbation.target))
    return pd.DataFrame({"was perturbed": was, "told": said, "sign": perturbation.sign.numpy(),
                         "magnitude": perturbation.magnitude.numpy().round(2)})


def emptied(capsule: Checkpoint) -> Checkpoint:
    """Returns a copy that knows no mean effects: what it still says of a target, its network learned."""
    model = copy.deepcopy(capsule.model)
    table = model.effect
    for name in ("target", "sign", "without", "left", "weights"):
        setattr(table, name, getattr(table, name)[:0])
    return replace(capsule, model=model)


def untrained(capsule: Checkpoint, found: HeldOut) -> Checkpoint:
    """Returns a model of the same kind and names with new weights, which knows nothing."""
    new = start(capsule.config, found.train)
    new.vocabulary, new.trained_targets, new.prior = capsule.vocabulary, capsule.trained_targets, capsule.prior
    return new


def table_alone(capsule: Checkpoint, found: HeldOut) -> pd.DataFrame:
    """Returns the changes that a capsule's table of mean effects says, without its network, perturbations x genes."""
    clean = with_clean_table(capsule, found.train, found.truth)
    asked = found.test[(found.test.obs["sign"] != 0).to_numpy()]
    return table_changes(clean, wanted_cells(asked)).loc[found.changes.index]


def direction(predicted: pd.DataFrame, real: pd.DataFrame, beside: pd.DataFrame | None = None) -> Direction:
    """Correlates what sets perturbations apart from their mean, predicted and real, over all genes.

    Args:
        predicted: Mean changes, perturbations x genes, those of `real` among them.
        real: The same of real cells.
        beside: Another prediction, whose correlation is subtracted, on the same redrawn perturbations.
    """
    given = [table[real.columns] for table in (real, predicted, beside) if table is not None]
    shown = [table - table.mean() for table in given]
    if np.abs(shown[1].to_numpy()).max() <= LEAST:
        return Direction(*[np.nan] * 3)
    real_ones, *others = shown
    gaps = []
    for other in others:
        products = other * real_ones, other**2, real_ones**2
        sums = [each.sum(axis=1).to_numpy()[:, None] for each in products]
        both, own, truth = (np.append(bootstrap_means(each), each.mean()) for each in sums)
        scale = np.sqrt(own * truth)  # 0 where only those were drawn to which the answer is the mean: r is 0
        gaps.append(np.divide(both, scale, out=np.zeros_like(both), where=scale > 0))
    r = gaps[0] - gaps[1] if beside is not None else gaps[0]
    return Direction(float(r[-1]), *np.quantile(r[:-1], [0.025, 0.975]).tolist())


def who_listens(verdicts: pd.DataFrame) -> str:
    """Says who passes the listening test, and what that says of the network and of the bug.

    Args:
        verdicts: "right direction" (whether it holds) and "r" (`Direction`); rows "capsule, table emptied", "table
            alone" (the positive control), "untrained, with the table", "told", "deaf", and others.
    """
    passed = verdicts["right direction"].astype(bool)
    said = []
    for word, chosen in (("In the right direction", passed), ("Not so", ~passed)):
        names = [f"{name} (r {verdicts.loc[name, 'r']})" for name in verdicts.index[chosen]]
        said.append(f"{word}: {listed(names or ['nobody'])}.")
    if not passed["table alone"]:
        return " ".join([*said, "The positive control fails: the test shows nothing here."])
    own = passed["capsule, table emptied"]
    said.append(f"Without its table the capsule has r {number(verdicts.loc['capsule, table emptied', 'r'].r)}: "
                + ("its network goes in the right direction by itself." if own else
                   "here the table listens, not the network."))
    if passed["untrained, with the table"]:
        said.append("A table passes with a network that has learned nothing.")
    if passed["deaf"]:
        said.append("The deaf model passes: do not trust this test.")
    elif passed["told"]:
        said.append("The deaf model fails and the one that was told passes: the bug is found.")
    else:
        said.append("The deaf model fails, but so does the one that was told: after so few steps nobody can tell the "
                    "bug from a short run.")
    return " ".join(said)


def trusted(card: Mapping[str, Mapping[str, float]]) -> str:
    """Says which of network and table came nearer to the cells that fine-tuning set aside.

    Args:
        card: What a capsule's card says of its validation: errors, by how a target was asked for.
    """
    said = []
    for asked, words in (("seen", "Asked by name"), ("unseen", "asked as a target that was never perturbed")):
        row = card[asked]
        errors = {name: row[name] for name in ("network", "table")}
        best, other = sorted(errors, key=lambda name: errors[name])
        way = f"the {best} is nearer than the {other}"
        if errors[best] == errors[other]:
            way = "network and table are as near"
        said.append(f"{words}, {way} (squared error {errors[best]:.4f} against {errors[other]:.4f}; no change: "
                    f"{row['no change']:.4f}), and {row['share']:.0%} of the mixture is the table")
    return "; ".join(said) + "."


def dial(table: pd.DataFrame, real_size: float) -> str:
    """Says what guidance does to the size of a change and to its error.

    Args:
        table: By weight, 1 among them, "size of change", "Pearson's r" and "error".
        real_size: Of the real change.
    """
    sizes = table["size of change"]
    grows = "grows" if sizes.is_monotonic_increasing else "does not grow steadily"
    first, last = sizes.index[[0, -1]]
    best, straight = table["error"].idxmin(), table["Pearson's r"].idxmax()
    moral = "by both scores" if best == straight else "two scores, two answers"
    past = "already more than" if sizes[1] > real_size else "not yet"
    return (f"From w = {first:g} to {last:g} the size of the change {grows}, from {sizes[first]:.3f} to "
            f"{sizes[last]:.3f}; at w = 1 it is {sizes[1]:.3f}, {past} the real {real_size:.3f}. The error is least "
            f"at w = {best:g}, r highest at w = {straight:g}: {moral}.")


def does_it_listen(heard: Mapping[str, Direction], rest: Mapping[str, Direction], pair: Sequence[str],
                   beyond: Direction) -> str:
    """Answers the notebook's question from correlations, over all perturbations and without the strongest two.

    Args:
        heard: Of "capsule", "capsule, table emptied", "deaf", and "one change" (`loudest.one_change`).
        rest: Of the capsule, whole and emptied, without the strongest two.
        pair: What these are called.
        beyond: Of the capsule, minus that of its table alone.
    """
    whole, left, two = heard["capsule"], rest["capsule"], listed(pair)
    start = f"For {two}, yes; for the others this does not show it" if _passes(whole) else "No"
    if _passes(whole) and _passes(left):
        start = "Yes" if left.r > whole.r / 2 else f"Yes, loudly for {two}, faintly for the others"
    network = heard["capsule, table emptied"], rest["capsule, table emptied"]
    gain = "level with" if beyond.low <= 0 <= beyond.high else "better than" if beyond.r > 0 else "worse than"
    return (f"{start}. What sets its answers apart correlates with what sets the real changes apart: r {whole}; a deaf "
            f"model has {heard['deaf']}. Who knows one change, answers {two} with it and all others with none, has "
            f"{heard['one change']}; without these two the capsule has r {left}. With its table emptied its network "
            f"has r {network[0]}, without the two {network[1]}. The whole is {gain} the table alone: difference "
            f"{beyond}.")


def _passes(r: Direction) -> bool:
    """Whether a correlation passes for the right direction, and is not chance in the choice of perturbations."""
    return r.low > 0 and r.r > BAR
