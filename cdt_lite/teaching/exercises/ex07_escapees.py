"""The last exercise of notebook 07: cells that escaped, guide by guide."""

import numpy as np
from jaxtyping import Float, Shaped

from cdt_lite.teaching.check import Answer, Pair, exercise


@exercise(
    "7.3", "Escapees, guide by guide", difficulty=4, minutes=20,
    objective="estimate which share of each guide's cells escaped",
    misconception="a cell on the controls' side of a threshold escaped, and one beyond it answered",
    hints=("A normal law's density, up to a factor that cancels: np.exp(-0.5 * ((score - m) / s) ** 2) / s.",
           "E: p0 = share * density(m0, s0), p1 = (1 - share) * density(m1, s1), each cell with its guide's share; "
           "escaped = p0 / (p0 + p1).",
           "M: share of a guide = escaped[guide == name].mean(); with w = 1 - escaped, m1 = (w @ score) / w.sum(), and "
           "s1 the square root of w @ (score - m1)**2 / w.sum()."),
)
def escape_shares(score: Float[np.ndarray, " cells"], guide: Shaped[np.ndarray, " cells"],
                  control: Float[np.ndarray, " controls"], rounds: int) -> dict[str, float]:
    """Returns the share of each guide's cells that escaped, by expectation-maximisation.

    Escapees score as control cells do, a normal law that stays; all others follow one normal law, the same for all
    guides. It begins at the upper quartile of all scores with the controls' standard deviation, every share at 0.5;
    its standard deviation is never less than half of the controls'.
    """
    def density(m: float, s: float) -> np.ndarray:
        return np.exp(-0.5 * ((score - m) / s) ** 2) / s

    m0, s0 = control.mean(), control.std()
    m1, s1 = np.quantile(score, 0.75), s0
    shares = dict.fromkeys(np.unique(guide).tolist(), 0.5)
    for _ in range(rounds):
        share = np.array([shares[name] for name in guide.tolist()])
        p0, p1 = share * density(m0, s0), (1 - share) * density(m1, s1)
        escaped = p0 / (p0 + p1)
        shares = {name: float(escaped[guide == name].mean()) for name in shares}
        w = 1 - escaped
        m1 = (w @ score) / w.sum()
        s1 = max(np.sqrt(w @ (score - m1) ** 2 / w.sum()), s0 / 2)
    return shares


def _cells(seed: int, escaped: dict[str, int], n: int = 80, spread: float = 0.5) -> tuple[np.ndarray, ...]:
    """Scores of n cells a guide, of which so many escaped (around 0; the others around 2), and of 200 controls."""
    rng = np.random.default_rng(seed)
    guide = np.repeat(list(escaped), n)
    answered = np.concatenate([np.arange(n) >= k for k in escaped.values()])
    noise = rng.normal(size=len(guide))
    score = np.where(answered, 2 + spread * noise, 0.8 * noise)
    order = rng.permutation(len(guide))
    return score[order], guide[order], 0.8 * rng.normal(size=200)

def _wrong(how: str, rounds: int, score: np.ndarray, guide: np.ndarray, control: np.ndarray) -> dict[str, float]:
    """What typical mistakes give."""
    names = np.unique(guide).tolist()
    if how == "one share":
        alone = escape_shares.reference(score, np.full(len(guide), "all"), control, rounds)["all"]
        return dict.fromkeys(names, alone)
    if how == "law of each":
        return {name: escape_shares.reference(score[guide == name], guide[guide == name], control, rounds)[name]
                for name in names}
    if how == "answered":
        return {name: 1 - share for name, share in escape_shares.reference(score, guide, control, rounds).items()}
    return dict(zip(names, _em(how, rounds + (how == "one more"), score, guide, control), strict=True))


def _em(how: str, rounds: int, score: np.ndarray, guide: np.ndarray, control: np.ndarray) -> list[float]:
    """The rounds with one mistake in them."""
    m0, s0 = control.mean(), control.std(ddof=int(how == "ddof"))
    m1, s1, share = np.quantile(score, 0.5 if how == "median" else 0.75), s0, np.full(len(score), 0.5)
    for _ in range(rounds):
        prior = np.full(len(score), 0.5) if how == "no share" else share
        by = (1.0, 1.0) if how == "no width" else (s0, s1)
        p0 = prior * np.exp(-0.5 * ((score - m0) / s0) ** 2) / by[0]
        p1 = (1 - prior) * np.exp(-0.5 * ((score - m1) / s1) ** 2) / by[1]
        escaped = p0 / (p0 + p1)
        if how == "threshold":
            escaped = (escaped > 0.5).astype(float)
        if how == "flipped":
            escaped = 1 - escaped
        share = np.array([escaped[guide == name].mean() for name in guide.tolist()])
        if how == "laws stay":
            continue
        w, old = (escaped if how == "wrong weight" else 1 - escaped), m1
        m1 = (w @ score) / w.sum()
        variance = w @ (score - (old if how == "old mean" else m1)) ** 2 / w.sum()
        s1 = max(variance if how == "variance" else np.sqrt(variance), s0 / 2)
        if how == "controls move":
            m0 = (escaped @ score) / escaped.sum()
            s0 = np.sqrt(escaped @ (score - m0) ** 2 / escaped.sum())
    return [float(share[guide == name][0]) for name in np.unique(guide)]

HINTS = {
    "You gave both guides one share: each guide has its own, the mean over its cells.": "one share",
    "Each guide has a law of its own here: what answers is one law for all guides, fitted on all cells.": "law of each",
    "These are the shares that answered; those that escaped are asked for.": "answered",
    "You forgot the shares when you weighed the two laws: p0 = share * density, p1 = (1 - share) * density.":
        "no share",
    "You sorted cells by a threshold: each cell counts by its probability, between 0 and 1.": "threshold",
    "You fitted the escapees' law anew: it is that of the control cells, and stays.": "controls move",
    "E is turned round: escaped is p0 / (p0 + p1), with p0 the law of the controls.": "flipped",
    "m1 and s1 are those of cells that answered: weigh with w = 1 - escaped.": "wrong weight",
    "s1 is a standard deviation: take the square root of the variance.": "variance",
    "Take s1 around the new m1 of the same round, not around the old one.": "old mean",
    "A density is divided by its standard deviation, or a wide law weighs too much: np.exp(...) / s.": "no width",
    "m1 and s1 never moved: each M step estimates them anew.": "laws stay",
    "The controls' standard deviation is control.std(), without ddof.": "ddof",
    "m1 begins at the upper quartile of all scores, not at the median.": "median",
    "This is a round too many: E and M, `rounds` times, and the shares of the last M.": "one more",
}

@escape_shares.requires("a share for each guide, by its name")
def _(fn: Answer) -> Pair:
    """Return a dict with each guide's whole name: Ag1 and Ag10 are two guides."""
    return ["Ag1", "Ag10"], sorted(fn(*_cells(0, {"Ag1": 8, "Ag10": 40}), 2))

@escape_shares.requires("two guides, three rounds")
def _(fn: Answer) -> Pair:
    """Begin as the card says; a round is one E step, then one M step; return the shares of the last."""
    given = _cells(1, {"Ag1": 8, "Ag2": 40})
    right, found = escape_shares.reference(*given, 3), fn(*given, 3)
    return list(right.values()), [found[name] for name in right], {
        hint: list(_wrong(how, 3, *given).values()) for hint, how in HINTS.items()} | {
        "This is one round: repeat both steps `rounds` times.": list(escape_shares.reference(*given, 1).values())}

@escape_shares.requires("planted: 10 % of one guide, 50 % of the other")
def _(fn: Answer) -> Pair:
    """After forty rounds the planted shares are not found again: both steps must use what the other has just given."""
    found = fn(*_cells(2, {"Ag1": 8, "Ag2": 40}), 40)
    return [True, True], [bool(abs(found["Ag1"] - 0.1) < 0.06), bool(abs(found["Ag2"] - 0.5) < 0.08)]

@escape_shares.requires("cells that answer all alike")
def _(fn: Answer) -> Pair:
    """The answering law shrank to a point here: its standard deviation is at least half of the controls'."""
    given = _cells(3, {"Ag1": 20, "Ag2": 30}, spread=0.01)
    right, found = escape_shares.reference(*given, 5), fn(*given, 5)
    return list(right.values()), [found[name] for name in right]
