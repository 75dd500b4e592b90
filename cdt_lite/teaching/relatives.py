"""What is known of a target by its relatives: the changes that other targets make, and which genes share a set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

from cdt_lite.data.gene_sets import Sets, memberships, sets_for
from cdt_lite.data.splits import named_split
from cdt_lite.data.store import TokenStore
from cdt_lite.evaluation.evaluate import control_halves
from cdt_lite.teaching.held_out import HeldOut
from cdt_lite.teaching.sentences import CLOSE, listed, number
from cdt_lite.training.checkpoint import Checkpoint
from cdt_lite.training.effects import fitted
from cdt_lite.training.prior import add_prior

Rule = Callable[..., np.ndarray]
# what predictions are called
RULE, KRIGED, EXPRESSION, ANEW = "relatives' mean", "kriged mean", "kriged mean without sets", ", dealt anew"


def every_target(screen: AnnData) -> HeldOut:
    """Returns all perturbations of training and those withheld altogether, each to be predicted from the others.

    Its test cells are of all replicates, and training cells are among them.
    """
    side = named_split(screen)
    test = screen[side != "held_out"].copy()
    return HeldOut("all replicates", screen[side == "train"].copy(), test, *control_halves(test))


def measured(found: HeldOut) -> pd.DataFrame:
    """Returns the mean changes of the training targets against the controls that predictors are shown."""
    return replace(found, test=found.train, truth=found.shown).changes


def by_rule(found: HeldOut, rule: Rule) -> pd.DataFrame:
    """Returns what a rule predicts of every perturbation, perturbations x genes.

    Args:
        found: From `every_target`.
        rule: Takes a target, and as `changes` those of the training targets of its sign (targets x genes).
    """
    seen, asked = measured(found), found.changes.index
    rows = [rule(target, changes=seen.xs(sign, level="sign")) for target, sign in asked]
    return pd.DataFrame(rows, asked, found.changes.columns)


def sets_of(screen: AnnData) -> Sets:
    """Returns what people wrote down of a screen's genes (of simulated ones: what was planted); {} if it is nothing."""
    return sets_for(screen, "planted" if "truth" in screen.uns else None) or {}


def dealt_anew(sets: Sets, targets: Sequence[str], seed: int) -> Sets:
    """Returns the sets with the targets' names swapped among them at random: as many and as large, and all wrong."""
    swapped = dict(zip(targets, np.random.default_rng(seed).permutation(targets), strict=True))
    return {name: frozenset(str(swapped.get(gene, gene)) for gene in genes) for name, genes in sets.items()}


def by_kriging(found: HeldOut, capsule: Checkpoint, sets: Sets) -> pd.DataFrame:
    """Returns what kriging says of every perturbation without its target's own cells, perturbations x genes.

    Its four numbers are found on the training cells, anew for these sets; likeness is by co-expression, by sets, or by
    both, as the likelihood of what was measured chooses.

    Args:
        found: From `every_target`; what the truth subtracts is not used.
        capsule: Gives tokens and names.
        sets: Symbols by set; {}: co-expression alone.
    """
    named = replace(capsule, prior=None)
    asked = found.changes.index
    if sets:
        add_prior(named, memberships(sets, [target for target, _ in asked]))
    kept = found.train[~found.train.obs_names.isin(found.truth.obs_names)].copy()
    store = TokenStore.from_adata(kept, named.tokenizer, named.vocabulary)
    kriging, genes = fitted(store, named.tokenizer, named.prior)
    place, rows = {gene: row for row, gene in enumerate(genes.tolist())}, []
    for target, sign in asked:
        row = place.get(named.vocabulary.id(target), -1)  # -1: a gene of which nothing is known
        own = kriging.measured.gene == row
        weights, _ = kriging.known(np.array([max(row, 0)]), np.array([sign]), own, named=row >= 0)
        rows.append((weights @ kriging.measured.effect)[0])
    return pd.DataFrame(rows, asked, found.changes.columns)


def by_sets(found: HeldOut, capsule: Checkpoint, sets: Sets, rule: Rule, n: int) -> dict[str, pd.DataFrame]:
    """Returns what a rule and what kriging say given sets, given none, and n times given sets dealt anew.

    Args:
        found: From `every_target`.
        capsule: Gives tokens and names.
        sets: Symbols by set.
        rule: Takes a target, sets, and the changes of the training targets of its sign (targets x genes).
        n: Number of times that they are dealt anew.
    """
    targets = found.changes.index.unique(0).tolist()
    told = {(RULE, KRIGED): sets, ("mean of all", EXPRESSION): {}}
    for i in range(n):
        told[f"{RULE}{ANEW} {i}", f"{KRIGED}{ANEW} {i}"] = dealt_anew(sets, targets, i)
    guesses = {}
    for (one, other), known in told.items():
        guesses[one] = by_rule(found, partial(rule, sets=known))
        guesses[other] = by_kriging(found, capsule, known)
    return guesses


def sets_used(guesses: Mapping[str, pd.DataFrame]) -> str:
    """Says which sets the likelihood made use of: the true ones, and how many of those dealt anew.

    Args:
        guesses: From `by_sets`.
    """
    plain = guesses[EXPRESSION]
    kriged = [name for name in guesses if name.startswith(KRIGED) and name != EXPRESSION]
    used = {name: not np.allclose(guesses[name], plain) for name in kriged}
    way = "made use of the sets" if used.pop(KRIGED) else "kept to co-expression, to which the sets added nothing"
    open_to_all = sum(used.values()) > len(used) / 4
    moral = ": that it uses sets does not say that they are right" if open_to_all else ""
    return (f"The likelihood {way}; of {len(used)} collections dealt anew it made use of "
            f"{sum(used.values())}{moral}.")


def relatives_of(asked: Sequence[str], sets: Sets, found: HeldOut) -> str:
    """Names the training targets that share most sets with each of some targets, and the smallest set they share.

    Args:
        asked: Targets.
        sets: Symbols by set.
        found: Whose training targets may be named.
    """
    said = []
    for target in asked:
        shared = {}
        for name in measured(found).index.unique(0):
            shared[name] = sorted((len(genes), word) for word, genes in sets.items() if {target, name} <= set(genes))
        kin = sorted((name for name in shared if shared[name]), key=lambda name: -len(shared[name]))
        named = []
        for name in kin[:2]:
            size, word = shared[name][0]
            named.append(f"{name} ({word.split(': ')[-1].replace('_', ' ')}, {size} genes)")
        more = f" and {len(kin) - 2} more" if len(kin) > 2 else ""
        said.append(f"{target}: {', '.join(named) or 'none'}{more}")
    return f"Training targets that share sets, with the smallest set. {'; '.join(said)}."


def told_by_relatives(r: pd.DataFrame, method: str, rival: str) -> str:
    """Says of each target how well a method predicts it, and how often better than without sets and with wrong ones.

    Args:
        r: Pearson's r, targets x methods, as `by_sets` names them; of sets dealt anew the mean counts.
        method: The one that is spoken of.
        rival: What it says without sets.
    """
    wrong, said = r.filter(like=f"{method}{ANEW}").mean(axis=1), []
    for target, row in r.iterrows():
        said.append(f"{target} {number(row[method])} ({number(row[rival])}; {number(wrong[target])})")
    wins = [int((r[method] > other + CLOSE).sum()) for other in (r[rival], wrong)]
    return (f"r of the {method} (of the {rival}; with sets dealt anew): {listed(said)}. It is better than the "
            f"{rival} for {wins[0]} of {len(r)}, and than with sets dealt anew for {wins[1]}.")
