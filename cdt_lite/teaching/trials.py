"""What was tried to make cells that vary together as real ones do: runs that were kept, and what they say."""

import json
from pathlib import Path

import pandas as pd

from cdt_lite.errors import CDTError
from cdt_lite.teaching.bits import intervals
from cdt_lite.teaching.sentences import listed, number

KEPT = Path(__file__).resolve().parents[2] / "benchmarks" / "trials.json"
WHOLE, REAL = "the whole", "real cells"
AGREEMENT, ENERGY, BITS, ESCAPEES = "agreement", "energy distance", "bits a gene", "escapees, off by"
MORE_IS_BETTER = {AGREEMENT: True, ENERGY: False, BITS: False, ESCAPEES: False}


def tried_ideas(of: str) -> pd.DataFrame:
    """Returns what each idea adds to the whole model, with several seeds.

    Rows are (idea, value | low | high), the interval being Student's over seeds, 95 %; columns are scores. Real cells
    (half against half) and the whole come first; then, of each idea, the difference from the whole of the same seed.
    "Escapees, off by": how far their share is from that of real cells.

    Args:
        of: "trained models", whose sampling was changed, or "short runs", trained with the idea.

    Raises:
        CDTError: No such file (it stands in a checkout, not in an installed package), or nothing of this kind in it.
    """
    if not KEPT.is_file():
        raise CDTError(f"{KEPT.name} is kept in the project's folder benchmarks: run this in a checkout")
    runs = pd.DataFrame(json.loads(KEPT.read_text(encoding="utf-8")))
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
    rows = {}
    for name, values in parts.items():
        found = intervals(values.reindex(columns=list(MORE_IS_BETTER)))
        for part, column in (("value", "mean"), ("low", "low"), ("high", "high")):
            rows[name, part] = found[column]
    return pd.DataFrame(rows).T


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
    share = "less" if gains.max() < missing / 2 else "more"
    most = f"{gains.idxmax()} brings {number(gains.max())}"
    said.append(f"Of the {number(missing)} that the whole lacks, {most}, the most of all and {share} than half.")
    if worse:
        said.append(f"Surely worse: {'; '.join(worse)}.")
    return " ".join(said)
