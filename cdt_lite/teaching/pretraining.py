"""Does pretraining help? Runs that were kept, and sentences written from them and from costs of hidden genes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cdt_lite.errors import CDTError
from cdt_lite.teaching.bits import intervals
from cdt_lite.teaching.sentences import listed, number
from cdt_lite.teaching.trials import record

UNKNOWN = "which is better, one cannot tell"


def kept_runs(screen: str) -> pd.DataFrame:
    """Returns Pearson's r, on withheld targets, of short runs with pretraining and without, and of the perturbed mean.

    A row a seed; runs of the first edition, without a table of mean effects.

    Args:
        screen: "papalexi2021" or "simulated".

    Raises:
        CDTError: See `record`; or no run of this screen was kept.
    """
    runs = pd.DataFrame(record("pretraining.json")["runs"])
    runs = runs[runs["screen"] == screen]
    if runs.empty:
        raise CDTError(f"no run of the screen {screen!r} was kept")
    own = runs.pivot(index="seed", columns="pretraining", values="pearson_delta, model")[["with", "without"]]
    return own.assign(rival=runs.groupby("seed")["pearson_delta, perturbed mean"].mean())


def signed(row: pd.Series, digits: int = 3) -> str:
    """Writes a mean with its interval."""
    return f"{number(row['mean'], digits)} [{number(row['low'], digits)}, {number(row['high'], digits)}]"


def same_losses(yours: Sequence[float], others: Sequence[float], what: str) -> str:
    """Says whether losses of two runs are equal to the last bit."""
    gap = float(np.abs(np.subtract(yours, others)).max())
    found = "equal to the last bit" if gap == 0 else f"apart by {gap:.2g} at most"
    return f"{what}: {listed([f'{loss:.4f}' for loss in yours])} nats, {found}."


def ahead_of(savings: pd.DataFrame, name: str, rival: str) -> str:
    """Says at which shares of hidden genes a model is ahead of its rival, level or behind; bits, 95 % intervals.

    Args:
        savings: From `saved`.
        name: The model.
        rival: The other.
    """
    found = intervals(savings)
    sides = np.select([found["low"] > 0, found["high"] < 0], ["ahead", "behind"], "level")
    said = []
    for side in ("ahead", "level", "behind"):
        at = [f"{share:.0%}" for share in found.index[sides == side]]
        where = "at every share" if len(at) == len(found) else f"with {listed(at)} hidden" if at else ""
        said += [f"{side} {where}"] if at else []
    first, last = found.iloc[0], found.iloc[-1]
    return (f"Beside {rival}, {name} is {listed(said)}; bits saved a gene: {signed(first)} with {found.index[0]:.0%} "
            f"hidden, {signed(last)} with {found.index[-1]:.0%}.")


def neighbours_tell(savings: pd.DataFrame, cost: float, name: str) -> str:
    """Says how much of a gene's cost a model saves by looking at a cell's other genes.

    Args:
        savings: From `saved`; the first share leaves most genes visible, the last none.
        cost: Bits of a gene with none visible.
        name: The model.
    """
    gain = intervals((savings.iloc[:, 0] - savings.iloc[:, -1]).to_frame()).iloc[0]
    seen = f"With {1 - savings.columns[0]:.0%} of a cell's genes in view {name} guesses the others"
    if gain["low"] <= 0:
        return f"{seen} no better than with none: the difference, {signed(gain)} bits, may be noise."
    return (f"{seen} better than with none, by {signed(gain)} bits of {cost:.2f}: what it reads in the genes beside a "
            f"gene is {gain['mean'] / cost:.1%} of its cost.")


def passed(looks: pd.Series, level: float, rival: str) -> str:
    """Says when pretraining passed a rival on held-out cells, and where it ended.

    Args:
        looks: Nats per gene, by the cells that pretraining has read.
        level: Of the rival.
        rival: Its name.
    """
    below = looks < level
    gap = 1 - looks.iloc[-1] / level
    end = f"after {looks.index[-1]:,} cells it costs {abs(gap):.1%} {'less' if gap > 0 else 'more'}"
    if not below.iloc[-1]:
        return f"The capsule's pretraining did not pass {rival}: {end}."
    first = below[::-1].cummin()[::-1].idxmax()
    return f"The capsule's pretraining was below {rival} from the look after {first:,} cells on; {end}."


def with_and_without(runs: pd.DataFrame) -> str:
    """Says whether runs with pretraining beat those without, seed by seed, and how both fare beside the rival.

    Args:
        runs: From `kept_runs`.
    """
    means = runs.mean()
    above = intervals((runs["rival"] - runs["with"]).to_frame()).iloc[0]
    said = (f"Over {len(runs)} seeds, Pearson's r on withheld targets is {number(means['with'])} with pretraining and "
            f"{number(means['without'])} without: {_verdict(runs)}, difference {signed(_gap(runs), 2)}. The "
            f"perturbed mean, for which nothing is trained, has {number(means['rival'])}; minus the r with pretraining "
            f"{signed(above, 2)}.")
    below = [name for name in ("with", "without") if means[name] < 0]
    if not below:
        return said
    who = "Both r of the model are" if len(below) == 2 else f"The r {below[0]} pretraining is"
    return (f"{said} {who} below zero: on average the predicted changes point the wrong way. A run that has learnt "
            "nothing of a target would be expected near zero; why these lie lower was not looked into.")


def does_it_help(looks: pd.Series, level: float, runs: pd.DataFrame) -> str:
    """Answers: for knockouts by runs with and without; for cells only how a pretrained network fares, which is less.

    Args:
        looks: Nats per gene of held-out cells, by the cells that pretraining has read.
        level: Of the histograms.
        runs: From `kept_runs`.
    """
    gap, means = 1 - looks.iloc[-1] / level, runs.mean()
    start = {"better": "Yes", "worse": "No, it harms", UNKNOWN: "These runs cannot tell"}
    side = "lower" if gap > 0 else "higher"
    return (f"Does pretraining help? {start[_verdict(runs)]}, where it is asked what an unseen knockout does: "
            f"Pearson's r with it, minus without, is {signed(_gap(runs), 2)}, and the perturbed mean, for which "
            f"nothing is trained, has {number(means['rival'])} against {number(means['with'])} with it. Whether it "
            f"helps to guess cells was not tried, for no network without it was asked. Shown is less: once "
            f"pretrained, a network guesses a hidden gene at a cost {abs(gap):.1%} {side} than histograms that know "
            f"the depth, but do not see the other cells that it sees (one run, without an interval).")


def _gap(runs: pd.DataFrame) -> pd.Series:
    return intervals((runs["with"] - runs["without"]).to_frame()).iloc[0]


def _verdict(runs: pd.DataFrame) -> str:
    gap = _gap(runs)
    return "better" if gap["low"] > 0 else "worse" if gap["high"] < 0 else UNKNOWN
