"""Whether generated cells are cells: sentences written from the numbers of notebook 07."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from cdt_lite.teaching.realism import HALF, RIVAL, has_say, normalised
from cdt_lite.teaching.sentences import listed, number

ALIKE = 0.1  # depths that differ by less are alike
CHANCE = 0.05
CLEARLY = 3.0  # a p value is larger
MIXED = 0.9  # of what perfect mixing gives
PICKED = 1.27  # how much wider an interval is of the highest of four, picked by looking
FEW = 0.1  # escapees, as a share of the real ones: none worth the name


def depths_told(real: float, made: float, control: float, target: str) -> str:
    """Says whose depth generated cells have.

    Args:
        real: Median depth of the real cells.
        made: Of the generated ones.
        control: Of the control cells.
        target: Of the perturbation.
    """
    as_real, as_control = abs(made / real - 1) < ALIKE, abs(made / control - 1) < ALIKE
    moral = "these differ by less than a tenth"
    if not as_real:
        way_off = "deeper" if made > real else "less deep"
        moral = f"they are {way_off} than real cells" + (", and as deep as control cells" if as_control else "")
    return (f"In the median a real {target} cell has {real:.0f} counts, a control cell {control:.0f}, a generated cell "
            f"{made:.0f}: {moral}.")


def centre_told(points: pd.DataFrame, target: str) -> str:
    """Says how far along from control to real cells the middle of the generated ones lies, on two components.

    Args:
        points: From `components`.
        target: Of the perturbation.
    """
    middle = points.groupby("kind")[["x", "y"]].mean()
    step = middle.loc["real"] - middle.loc["control"]
    gone = (middle.loc["generated"] - middle.loc["control"]) @ step / (step @ step)
    spread = points.groupby("kind")[["x", "y"]].std()
    wide = (spread.loc["generated"] / spread.loc["real"]).mean()
    return (f"The middle of the generated cells has gone {gone:.0%} of the way from control to real {target} cells, "
            f"and they spread {wide:.0%} as far as real ones.")


def still_apart(p: pd.DataFrame) -> str:
    """Says which quantities differ by a p value, and which do so beyond depth; the others are not shown to be alike.

    Args:
        p: p values, quantities x ("shuffled over all", "within depth classes").
    """
    first, second = ([f"{name} (p = {value:.3f})" for name, value in p[column].items() if value < CHANCE]
                     for column in p.columns)
    gone = [f"that {name} differed (now p = {fair:.3f})" for name, (plain, fair) in p.drop(index="depth").iterrows()
            if plain < CHANCE <= fair and fair > CLEARLY * plain]
    start = (f"Shuffled over all cells, {listed(first or ['nothing'])} differ{'s' if len(first) < 2 else ''}; "
             f"among cells of like depth, {listed(second or ['nothing'])}.")
    if not gone:
        return f"{start} Of nothing but depth itself can it be said that depth explains it."
    return f"{start} Depth is enough to explain {listed(gone)}, which does not show that it is all."


def between(table: pd.DataFrame, what: str, digits: int = 2) -> str:
    """Says where generated cells stand between real cells and cells made gene by gene.

    Args:
        table: From `against_half`: rows half against half, generated and gene by gene.
        what: What was measured, first in the sentence.
        digits: Of the numbers.
    """
    shown = {name: f"{number(row['mean'], digits)} [{number(row['low'], digits)}, {number(row['high'], digits)}]"
             for name, row in table.iterrows()}
    gone = normalised(table)
    if not has_say(table):
        verdict = "by these cells it cannot even tell those made gene by gene from real ones, so it has no say"
    elif gone["mean"] <= 0:
        verdict = "no nearer to real cells than those made gene by gene"
    else:
        behind = "surely short of them" if _is_behind(table) else "not surely short of them"
        verdict = f"{_share(gone, 'mean')} of the way from cells made gene by gene to real ones, {behind}"
    return (f"{what} is {shown['generated']} for generated cells, {shown[HALF]} for the other half of the real ones, "
            f"{shown[RIVAL]} for cells made gene by gene: {verdict}.")


def _is_behind(table: pd.DataFrame) -> bool:
    """Whether generated cells surely fall short of real ones: by more than both intervals together allow."""
    floor, made = table.loc[HALF], table.loc["generated"]
    half = np.hypot(floor["high"] - floor["low"], made["high"] - made["low"]) / 2
    return bool(abs(made["mean"] - floor["mean"]) > half and normalised(table)["mean"] < 1)


def classifier_told(auc: float, in_classes: float, p: pd.Series) -> str:
    """Says whether a classifier surely tells generated cells from real ones, and whether by more than depth.

    Args:
        auc: Over all cells.
        in_classes: Among cells of like depth.
        p: Of its score: "shuffled over all", "within depth classes".
    """
    over_all, fair = p
    if fair < CHANCE and in_classes > 0.5:
        moral = "it tells them, and by more than depth"
    elif over_all < CHANCE and auc > 0.5:
        moral = "it tells them, and depth is enough to explain that"
    else:
        moral = "by these cells it does not tell them, which does not show that they are alike"
    return (f"The classifier's AUC is {auc:.2f} (p = {over_all:.3f}), among cells of like depth {in_classes:.2f} "
            f"(p = {fair:.3f}): {moral}.")


def guides_told(shares: pd.DataFrame) -> str:
    """Says which guide lets most cells escape, and whether guides differ.

    Args:
        shares: From `shares_with_intervals`.
    """
    guides = shares.drop(index="all")
    most = guides.loc[guides["share"].idxmax()]
    rest = guides.drop(index=most.name)
    others = np.average(rest["share"], weights=rest["cells"])
    error = np.sqrt((rest["cells"] ** 2 * (rest["high"] - rest["low"]) ** 2).sum()) / rest["cells"].sum()
    surely = most["share"] - others > PICKED * np.hypot(most["high"] - most["low"], error) / 2
    moral = "a poor guide is one that lets cells escape" if surely else "too few cells to tell guides apart"
    return f"Of the cells with {most.name} {_share(most)} escaped, of those with other guides {others:.0%}: {moral}."


def escapees_told(real: pd.Series, made: pd.Series, target: str) -> str:
    """Answers whether the model makes escapees.

    Args:
        real: Share, low and high of the real cells.
        made: Of the generated ones.
        target: Of the perturbation.
    """
    gap = made["share"] - real["share"]
    half = np.hypot(real["high"] - real["low"], made["high"] - made["low"]) / 2
    if gap > half:
        answer = "yes, too many"
    elif gap >= -half:
        answer = "by these cells neither too few nor too many can be shown"
    elif made["low"] > 0:
        answer = "yes, but too few"
    else:
        answer = "no" if made["high"] <= FEW * real["share"] else "too few, and perhaps none"
    return f"Does the model make escapees? Of {target}, real {_share(real)}, generated {_share(made)}: {answer}."


def _share(row: pd.Series, name: str = "share") -> str:
    return f"{row[name]:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def valley_told(answer: Mapping[str, Float[np.ndarray, " cells"]]) -> str:
    """Says whether more generated than real cells lie half way between controls and cells that answered.

    Half way is the middle third of the way from the mean control to the upper quartile of the real cells.

    Args:
        answer: From `answers`: real, generated and control among the kinds.
    """
    start, end = answer["control"].mean(), np.quantile(answer["real"], 0.75)
    inside = [np.abs((answer[kind] - start) / (end - start) - 0.5) < 1 / 6 for kind in ("real", "generated")]
    real, made = (own.mean() for own in inside)
    half = 1.96 * np.sqrt(sum(own.var() / len(own) for own in inside))
    verdict = "these cells do not tell which of them answer by half more often"
    if abs(made - real) > half:
        verdict = f"{'more' if made > real else 'fewer'} generated than real cells answer by half"
    gap = f"{100 * (made - real):.0f} [{100 * (made - real - half):.0f}, {100 * (made - real + half):.0f}]"
    return (f"Half way (the middle third) from controls to cells that answered lie {real:.0%} of the real cells and "
            f"{made:.0%} of the generated ones, a difference of {gap} points: {verdict}.").replace("-", "−")


def mixing_told(made: float, idle: float, target: str, weak: str) -> str:
    """Says what neighbours think of generated cells, and of controls passed off as cells of a weak perturbation.

    Args:
        made: `mixing` of generated with real cells of a strong perturbation.
        idle: Of control cells with real cells of a weak one.
        target: The strong perturbation.
        weak: The weak one.
    """
    first = f"Generated {target} cells mix with real ones to {made:.0%}, controls with {weak} cells to {idle:.0%}"
    if idle < min(made, MIXED):
        return f"{first}: here neighbours do see that control cells are none of {weak}."
    than = "no worse than" if idle >= made else "nearly as well as"
    return f"{first}: by this measure doing nothing for {weak} is {than} ours for {target}."


def densities_told(table: pd.DataFrame) -> str:
    """Says which densities the model is ahead of, in bits per gene of held-out cells.

    Args:
        table: From `densities`.
    """
    if not len(table):
        return "No density is on record for this screen."
    sides: dict[str, list[str]] = {"fewer than": [], "not told from": [], "more than": []}
    for name, row in table.drop(index="model").iterrows():
        side = "fewer than" if row["high"] < 0 else "more than" if row["low"] > 0 else "not told from"
        sides[side].append(f"{name} ({row['bits per gene']:.3f})")
    said = [f"{side} {listed(names)}" for side, names in sides.items() if names]
    return f"A held-out cell costs the model {table['bits per gene']['model']:.3f} bits a gene: {'; '.join(said)}."


def are_they_cells(tables: Mapping[str, pd.DataFrame], auc: float, p: float) -> str:
    """Answers the notebook's question; a measure that does not tell its own two ends apart has no say.

    The first word follows what is sure: "No" if the classifier tells the cells and a measure has them behind, or if one
    has them surely less than half way; "Not quite" after one of the two; without either nothing is shown.

    Args:
        tables: Measure -> as from `against_half`.
        auc: The classifier's, among cells of like depth.
        p: Of the test that depth cannot fool, by the classifier's score.
    """
    heard = {name: table for name, table in tables.items() if has_say(table)}
    silent = [name for name in tables if name not in heard]
    far = {name: normalised(table) for name, table in heard.items()}
    short = [name for name, table in heard.items() if _is_behind(table)]
    is_told = p < CHANCE and auc > 0.5
    if any(far[name]["high"] < 0.5 for name in short) or (is_told and short):
        start = "No"
    elif is_told or short:
        start = "Not quite"
    else:
        start = "Nothing here tells them surely from real ones, which does not show that they are alike"
    said = listed([f"{_share(gone, 'mean')} by {name}" for name, gone in far.items()]
                  or ["nowhere that can be measured"])
    tells = "tells" if is_told else "does not tell"
    behind = f"Surely behind: {listed(short)}." if short else "In none of these are they surely behind."
    without = f" No say: {listed(silent)}." if silent else ""
    return (f"{start}. From cells made gene by gene (0%) to real ones (100%) they have come {said}. {behind} A "
            f"classifier {tells} them from real cells of like depth (AUC {auc:.2f}, p = {p:.3f}).{without}")
