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
AGREEMENT, ENERGY, BITS, ESCAPEES = "agreement", "energy distance", "bits a gene", "escapees, off by"
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
    "Escapees, off by": how far their share is from that of real cells.

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
    agreement = [number(table.loc[(name, "value"), AGREEMENT]) for name in (WHOLE, REAL)]
    low, high = (table.xs(part, level=1).drop([REAL, WHOLE]) for part in ("low", "high"))
    better, worse = [], []
    for idea in low.index:
        up = [score for score, more in MORE_IS_BETTER.items() if (low if more else -high).loc[idea, score] > 0]
        down = [score for score, more in MORE_IS_BETTER.items() if (-high if more else low).loc[idea, score] > 0]
        if up:
            better.append(f"{idea} ({listed(up)})")
        if down:
            worse.append(f"{idea} ({listed(down)})")
    said = [f"Cells of the whole agree with real ones to {agreement[0]}, those with each other to {agreement[1]}."]
    found = f": {'; '.join(better)}" if better else ""
    said.append(f"Of {len(low)} ideas {len(better) or 'none'} surely made a score better{found}.")
    gains = table.xs("value", level=1)[AGREEMENT].drop([REAL, WHOLE])
    missing = table.loc[(REAL, "value"), AGREEMENT] - table.loc[(WHOLE, "value"), AGREEMENT]
    said.append(f"Of the {number(missing)} that it lacks, {gains.idxmax()} brings most, {number(gains.max())}.")
    if worse:
        said.append(f"Surely worse: {'; '.join(worse)}.")
    return " ".join(said)


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
        most = f"up to {number(gap[row])} nats; the best network {number(best[row])}"
        where.append(f"{row[1]} in {row[0]} cells ({most})")
    return (f"Of {len(gap)} prices the networks' mean is level with that of two states, or below it, in "
            f"{(gap <= LEVEL).sum()}. They pay more for {listed(where) if where else 'none'}.")
