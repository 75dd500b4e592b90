"""How much of a score the two strongest perturbations carry: a rival that knows one of them, a mean without them."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from cdt_lite.evaluation.baselines import BASELINES, Responses
from cdt_lite.evaluation.metrics import pearson_delta
from cdt_lite.teaching.held_out import HeldOut
from cdt_lite.teaching.sentences import CLOSE, LITTLE, listed, number

Name = tuple[str, int]


def others_moved(changes: pd.DataFrame) -> pd.DataFrame:
    """Returns how far genes move, whichever way, perturbations x genes; NaN for a target's own gene."""
    own = np.array([[gene == name[0] for gene in changes.columns] for name in changes.index])
    return changes.abs().mask(own)


def strongest_two(changes: pd.DataFrame) -> list[Name]:
    """Names the two perturbations that change other genes most, the stronger first.

    Args:
        changes: Perturbations x genes.
    """
    return (others_moved(changes) ** 2).sum(axis=1).nlargest(2).index.tolist()


def one_change(found: HeldOut) -> pd.DataFrame:
    """Returns an answer that knows a single change: that of the strongest in training, for the strongest two.

    For the other sign it is turned round; to all other perturbations the answer is no change. Perturbations x genes.
    """
    answer, pair = 0 * found.changes, strongest_two(found.changes)
    for name in pair:
        answer.loc[name] = found.trained.loc[pair[0]].to_numpy() * name[1] * pair[0][1]
    return answer


def mean_of_others(found: HeldOut, without: Collection[Name] = ()) -> pd.DataFrame:
    """Returns what other perturbations of training do on average, for each that is asked; perturbations x genes.

    Args:
        found: Whose perturbations are asked.
        without: Perturbations of training to leave out.
    """
    known = found.trained.drop(index=list(without))
    targets, signs = (known.index.get_level_values(level).to_numpy() for level in range(2))
    mean = BASELINES["perturbed mean"](Responses(np.array(known.columns), targets, signs, known.to_numpy()))
    return pd.DataFrame([mean(*name) for name in found.changes.index], found.changes.index, known.columns)


def carried(found: HeldOut) -> str:
    """Says what is left of the perturbed mean's r if the strongest two of training are left out of the mean.

    Args:
        found: Whose perturbations are asked.
    """
    loud, real, r = strongest_two(found.trained), found.changes, []
    for table in (mean_of_others(found), mean_of_others(found, loud)):
        each = [pearson_delta(real.loc[name].to_numpy(), table.loc[name].to_numpy(),
                              np.flatnonzero(real.columns == name[0]).tolist()) for name in real.index]
        r.append(float(np.mean(each)))
    whole, left = r
    if whole < 2 * LITTLE:
        return f"The perturbed mean has r = {number(whole)}: it tells next to nothing here."
    moral = "it lives on these two, not on what all share" if left < whole / 2 else (
        "these two carry a part of it" if left < whole - CLOSE else "it lives on what the others share")
    return (f"Without {listed([name[0] for name in loud])} in it, the perturbed mean has r = {number(left)} in place "
            f"of {number(whole)}: {moral}.")
