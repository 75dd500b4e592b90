"""Gene sets: what people wrote down about which genes work together."""

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cdt_lite.data.labels import ENSEMBL
from cdt_lite.data.public import GENE_SETS, cached
from cdt_lite.errors import CDTError, CDTWarning

Sets = Mapping[str, frozenset[str]]


def load_gene_sets(name_or_path: str | Path) -> dict[str, frozenset[str]]:
    """Loads gene sets: a public collection by name, fetched once, or a file.

    Args:
        name_or_path: "immune" (181 sets of immune cells, 77 KB), or the path of a .gmt file (a set a line: name,
            description, symbols, with tabs between) or of a JSON file (symbols by set, or by cell type and set).

    Returns:
        Symbols by set. Sets without a gene are left out.

    Raises:
        CDTError: No such file, or one that is neither; a set named twice with other genes.
        Unreachable: The collection is not on this machine and the network does not give it.
    """
    path = cached(GENE_SETS[str(name_or_path)]) if str(name_or_path) in GENE_SETS else Path(name_or_path)
    if not path.is_file():
        raise CDTError(f"no gene sets at {str(path)!r}: expected a .gmt or .json file, or one of {list(GENE_SETS)}")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    is_json = text.lstrip().startswith(("{", "["))
    named = _of_json(text, path.name) if is_json else _of_gmt(text, path.name)
    sets: dict[str, frozenset[str]] = {}
    for name, genes in named:
        members = frozenset(gene.strip() for gene in genes) - {""}
        if sets.get(name, members) != members:
            raise CDTError(f"{path.name} names the set {name!r} twice, with other genes: rename one of them")
        if members:
            sets[name] = members
    if not sets:
        raise CDTError(f"{path.name} holds no set with a gene in it")
    return sets


def sets_for(screen: AnnData, asked: str | None = None) -> dict[str, frozenset[str]] | None:
    """Returns the gene sets to train a screen with: those asked for, or those that belong to a public screen.

    Args:
        screen: In the layout of `load_screen`.
        asked: A collection or a file; "none": no sets; "planted": the programs of a simulated screen; None: those of
            the screen, if there are some and they are on this machine, in the mirror or on the network.

    Raises:
        CDTError: What was asked for cannot be had.
    """
    if asked == "planted" and "truth" in screen.uns:
        return planted_sets(screen)
    if asked:
        return None if asked == "none" else load_gene_sets(asked)
    name = screen.uns["screen"].get("gene_sets")
    try:
        return load_gene_sets(name) if name else None
    except CDTError as error:
        warnings.warn(f"without the gene sets {name!r} ({error}): which genes are alike is told by their co-expression "
                      "alone", CDTWarning, stacklevel=2)
        return None


def planted_sets(screen: AnnData) -> dict[str, frozenset[str]]:
    """Returns the programs of a simulated screen, as a collection would list them that knows all there is to know.

    A set a program and direction: genes that rise with it, genes that fall. Targets outside the panel are among them.
    """
    truth = screen.uns["truth"]
    sets: dict[str, set[str]] = {}
    for i, program in enumerate(truth["programs"]):
        for way, word in ((1, "up"), (-1, "down")):
            sets[f"{program} {word}"] = set(truth["genes"][truth["loadings"][:, i] * way > 0])
    for row in truth["perturbations"].itertuples():
        if row.gain:
            sets[f"{row.program} {'up' if row.gain > 0 else 'down'}"].add(str(row.target_gene))
    return {name: frozenset(map(str, genes)) for name, genes in sets.items() if genes}


def _of_gmt(text: str, file: str) -> Iterable[tuple[str, Sequence[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        if not rest:
            raise CDTError(f"{file}, line {number}: expected a name, a description and symbols with tabs between them, "
                           f"found no tab in {line[:40]!r}. Write the file with tabs (GMT), or as JSON")
        yield name.strip(), rest[1:]


def _of_json(text: str, file: str) -> Iterable[tuple[str, Sequence[str]]]:
    try:
        content = json.loads(text, object_pairs_hook=partial(_each_once, file=file))
    except (ValueError, RecursionError) as error:
        raise CDTError(f"{file} is not JSON: {error}") from error
    yield from _leaves(content, "", file)


def _each_once(pairs: list[tuple[str, Any]], file: str) -> dict[str, Any]:
    """A JSON object, whose names may stand twice only if they mean the same."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise CDTError(f"{file} names the set {name!r} twice, with other genes: rename one of them")
    return found


def _leaves(content: Any, name: str, file: str) -> Iterable[tuple[str, Sequence[str]]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{name}: {key}" if name else str(key), file)
    elif name and isinstance(content, list) and all(isinstance(gene, str) for gene in content):
        yield name, content
    else:
        raise CDTError(f"{file}: expected symbols by set, such as {{\"JAK-STAT\": [\"JAK1\", \"STAT1\"]}}, "
                       f"found {type(content).__name__} at {name or 'the top'!r}")


def memberships(sets: Sets, targets: Sequence[str]) -> pd.DataFrame:
    """Returns which genes are in which sets, a row a gene; sparse, for of large collections nearly all is zero.

    A set weighs 1 / log(2 + its size): to share a small one says more.

    Args:
        sets: Symbols by set.
        targets: Genes that were perturbed, of which one at least must be in a set.

    Raises:
        CDTError: Not one of the targets is in a set; says why, where that can be seen.
    """
    genes = sorted(frozenset().union(*sets.values()))
    _require_overlap(genes, targets, len(sets))
    sizes = np.array([len(members) for members in sets.values()])
    row = pd.Index(genes).get_indexer([gene for members in sets.values() for gene in members])
    column = np.repeat(np.arange(len(sets)), sizes)
    table = sparse.csc_array((1 / np.log(2 + sizes[column]), (row, column)), shape=(len(genes), len(sets)))
    return pd.DataFrame.sparse.from_spmatrix(table, genes, list(sets))


def _require_overlap(genes: Sequence[str], targets: Sequence[str], n_sets: int) -> None:
    if set(genes).intersection(targets) or not targets:
        return
    why = "check the species and the kind of names"
    folded = {gene.upper() for gene in genes}
    if folded.intersection(target.upper() for target in targets):
        why = "they differ by case alone, as those of mouse (Jak2) and human (JAK2) do: write the sets in one case"
    elif re.fullmatch(ENSEMBL, genes[0].split(".")[0]):
        why = "the sets hold Ensembl ids: use a collection of symbols"
    raise CDTError(f"none of the {len(targets)} targets, such as {targets[0]!r}, is in the {n_sets} gene sets, which "
                   f"name {genes[0]!r} and others: {why}")
