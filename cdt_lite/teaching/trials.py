"""Records of benchmarks: what was tried to make cells that vary together, and what a cell's visible genes tell."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cdt_lite.errors import CDTError
from cdt_lite.teaching.bits import intervals
from cdt_lite.teaching.sentences import listed, number

RECORDS = Path(__file__).resolve().parents[2] / "benchmarks"
WHOLE, REAL = "the whole", "real cells"
AGREEMENT, ENERGY, BITS, ESCAPEES = "agreement", "energy distance", "bits a gene", "escapees, off by (share)"
LEVEL = 0.02  # nats: what is less apart is called level
MORE_IS_BETTER = {AGREEMENT: True, ENERGY: False, BITS: False, ESCAPEES: False}


def record(name: str) -> Any:
    """Reads what a benchmark has written. Raises CDTError where it is not: it stands in a checkout alone."""
    path = RECORDS / name
    if not path.is_file():
        raise CDTError(f"{name} is kept in the project's folder benchmarks: run this in a checkout")
    return json.loads(path.read_text(encoding="utf-8"))


def tried_ideas(of: str) -> pd.DataFrame:
    """Returns what each idea adds to the whole model, with several seeds.

    Rows are (idea, value | low | high), the interval being Student's over seeds, 95 %; columns are scores. Real cells
    (half against half) and the whole come first; then, of each idea, the difference from the whole of the same seed.
    "Escapees, off by": how far their share among IFNGR1 cells is from that of real cells.

    Args:
        of: "trained models", whose sampling was changed, or "short runs", trained with the idea.

    Raises:
        CDTError: See `record`; or nothing of this kind was tried.
    """
    runs = pd.DataFrame(record("trials.json"))
    kinds = runs["of"].unique().tolist()
    if of not in kinds:
        raise CDTError(f"nothing was tried on {of!r}; there is {listed(kinds)}")
    runs = runs[runs["of"] == of].set_index(["trial", "seed"])
    measured = runs.reindex(columns=["agreement", "energy", "bits per gene", "escapees", "escapees, real"])
    measured["escapees"] = (measured["escapees"] - measured.pop("escapees, real")).abs()
    scores = measured.set_axis(list(MORE_IS_BETTER), axis=1)
    whole, real = scores.loc["whole"], runs.loc["whole"].filter(like=", real")
    parts = {REAL: real.rename(columns={"agreement, real": AGREEMENT, "energy, real": ENERGY}), WHOLE: whole}
    for idea in scores.index.unique("trial").drop("whole"):
        parts[idea] = scores.loc[idea] - whole
    found = {name: intervals(values.reindex(columns=list(MORE_IS_BETTER))) for name, values in parts.items()}
    return pd.concat({name: table.rename(columns={"mean": "value"}).T for name, table in found.items()})


def ideas_told(table: pd.DataFrame) -> str:
    """Says which ideas surely make a score better, and which surely make one worse.

    Args:
        table: From `tried_ideas`.
    """
    rest = table.drop([REAL, WHOLE])
    low, high = (rest.xs(part, level=1) for part in ("low", "high"))
    better, worse = [], []
    for score, more in MORE_IS_BETTER.items():
        up, down = (low > 0, high < 0) if more else (high < 0, low > 0)
        better += [f"{idea} ({score})" for idea in up.index[up[score]]]
        worse += [f"{idea} ({score})" for idea in down.index[down[score]]]
    whole, real = (table.loc[(name, "value"), AGREEMENT] for name in (WHOLE, REAL))
    gains = rest.xs("value", level=1)[AGREEMENT]
    part = "less than half" if gains.max() < (real - whole) / 2 else "half or more"
    return (f"Cells of the whole agree with real ones to {number(whole)}, real ones with others to {number(real)}. "
            f"In {rest.notna().to_numpy().sum() // 3} comparisons, of which luck decides one in twenty, surely ahead: "
            f"{listed(better or ['none'])}; surely behind: {listed(worse or ['none'])}. Most agreement is brought by "
            f"{gains.idxmax()}, {number(gains.max())}: {part} of what is missing.")


def two_states() -> pd.DataFrame:
    """Returns what one hidden gene costs, in nats, given others of a cell: by two states, and by trained networks.

    Rows are (target, gene, visible genes); columns "two states", "network 0" and so on.
    """
    table = pd.DataFrame(record("two_states.json")).set_index(["target", "gene", "visible"]).sort_index()
    return table.filter(regex="two states|network")


def two_states_told(table: pd.DataFrame) -> str:
    """Says where the networks pay more than two states do.

    Args:
        table: From `two_states`.
    """
    gaps = table.filter(like="network").sub(table["two states"], axis=0)
    gap, best, where = gaps.mean(axis=1), gaps.min(axis=1), []
    for row in gap[gap > LEVEL].groupby(["target", "gene"], sort=False).idxmax():
        least = f"the best network {number(best[row])}" if best[row] > LEVEL else "the best network none there"
        where.append(f"{row[1]} in {row[0]} cells (up to {number(gap[row])} nats; {least})")
    own = table["network 0"].unstack("visible")
    lost = int((own.iloc[:, -1] > own.iloc[:, 0] + LEVEL).sum())
    return (f"Of {len(gap)} prices the networks' mean is level with that of two states, or below it, in "
            f"{(gap <= LEVEL).sum()}. They pay more for {listed(where or ['none'])}. Given all of these the capsule "
            f"pays more than given none for {lost} of {len(own)} pairs of gene and knockout.")
