"""Targets and genes as people write them: what is certain is put right and said, what is not is refused."""

import re
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Shaped

from cdt_lite.errors import CDTError, CDTWarning, suggest

GUIDE = r"(?:[ _.-]+(?:sg|g|guide|gRNA|sgRNA)?|sg|g)\d+$"  # what follows the gene in STAT1g2, STAT1_1, STAT1-sg3
ENSEMBL = r"ENS[A-Z]*G\d{6,}"  # ENSG00000115415, ENSMUSG00000026104.14
SYMBOLS = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol")  # columns of var


def tidy_targets(names: Shaped[np.ndarray, " N"], control: str, genes: pd.Index, what: str
                 ) -> Shaped[np.ndarray, " N"]:
    """Returns the target of every cell in one spelling; a CDTWarning says what was changed.

    The control label in another case or with blanks is the control label. "ctrl" in a condition of several parts stands
    for nothing, as in GEARS: "A+ctrl" and "ctrl+A" are "A". The parts of a pair are sorted: "B+A" is "A+B".

    Args:
        names: Of targets, as they are written.
        control: The label of control cells.
        genes: That are measured; none of their names is changed.
        what: What to call these cells in a message.
    """
    written, cell = np.unique(names, return_inverse=True)
    meant = [_meant(name, control, genes) for name in written.tolist()]
    changed = []
    for old, new in zip(written.tolist(), meant, strict=True):
        if old != new:
            changed.append(f"{old!r} as {new!r}")
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        warnings.warn(f"{what}: labels were read as what they mean: {', '.join(changed[:5])}{more}", CDTWarning,
                      stacklevel=3)
    return np.array(meant, str)[cell.ravel()]


def _meant(written: str, control: str, genes: pd.Index) -> str:
    name = written.strip()
    if written == control or name in genes:
        return control if written == control else name
    nothing = {"ctrl", control.strip().casefold(), ""}
    if name.casefold() == control.strip().casefold():
        return control
    if "+" not in name:
        return name
    parts = {part.strip() for part in name.split("+")}
    perturbed = sorted(part for part in parts if part.casefold() not in nothing)
    return "+".join(perturbed) or control


def check_targets(targets: Iterable[str], adata: AnnData, column: str, what: str) -> None:
    """Refuses guides in the place of genes, and genes that go by other names; says where no target is measured.

    Args:
        targets: Of the perturbed cells.
        adata: The cells; its var may know other names of the genes.
        column: Of obs that holds the targets.
        what: What to call these cells in a message.

    Raises:
        CDTError: Targets look like guides of measured genes, or a column of var has their names; says what to do.
    """
    genes = set(adata.var_names)
    unmeasured = [target for target in sorted(set(targets)) if not genes.issuperset(target.split("+"))]
    none_measured = len(unmeasured) == len(set(targets))
    _refuse_guides(unmeasured, genes, none_measured, column, what)
    if not unmeasured or not none_measured:
        return
    wanted = _parts(unmeasured)
    for key, names in adata.var.items():
        n = len(wanted.intersection(names.dropna().astype(str)))
        if n:
            raise CDTError(f"{what}: none of its targets is among var_names, such as {adata.var_names[0]!r}, but "
                           f"var[{key!r}] holds {n} of them: adata.var_names = adata.var[{key!r}].astype(str)")
    named = []
    for target in unmeasured[:3]:
        named.append(f"{target!r}{suggest(target, genes).rstrip('?').replace('; did you mean', ', close to')}")
    warnings.warn(f"{what}: none of its {len(unmeasured)} targets is among its {adata.n_vars} genes: "
                  f"{'; '.join(named)}. Check how obs[{column!r}] and var_names spell them; a target that is not "
                  "measured is learned as a name alone", CDTWarning, stacklevel=3)


def _refuse_guides(unmeasured: list[str], genes: set[str], none_measured: bool, column: str, what: str) -> None:
    """Two guides of one gene, or guides alone, give themselves away; a single odd name may be a gene's own."""
    guides: dict[str, list[str]] = {}
    for target in unmeasured:
        gene = re.sub(GUIDE, "", target)
        if gene != target and gene in genes:
            guides.setdefault(gene, []).append(target)
    if not guides or not (none_measured or max(map(len, guides.values())) > 1):
        return
    gene, names = max(guides.items(), key=lambda item: len(item[1]))
    raise CDTError(f"{what}: targets look like guides, such as {names[:2]} of gene {gene!r}: give every cell its gene, "
                   f"adata.obs['gene'] = adata.obs[{column!r}].astype(str).str.replace(r'{GUIDE}', '', regex=True), "
                   "and name that column with Columns(target='gene')")


def with_symbols(adata: AnnData, column: str, what: str) -> AnnData:
    """Returns cells whose genes have symbols for names, where they had Ensembl ids and the targets have symbols.

    The symbols come from a column of var. A gene without one, or that shares it with another, keeps its id.

    Args:
        adata: Cells.
        column: Of obs that holds the targets.
        what: What to call these cells in a message.
    """
    if column not in adata.obs or not adata.var_names.str.match(ENSEMBL).mean() > 0.5:
        return adata
    targets = _parts(adata.obs[column].dropna().astype(str).unique())
    targets |= {re.sub(GUIDE, "", target) for target in targets}  # guides are refused later, by the gene's symbol
    if not targets.isdisjoint(adata.var_names):
        return adata
    for key in SYMBOLS:
        if key not in adata.var or targets.isdisjoint(adata.var[key].dropna().astype(str)):
            continue
        symbols = adata.var[key].astype(object).where(adata.var[key].notna(), "").astype(str)
        unclear = symbols.duplicated(keep=False) | (symbols == "")
        named = adata if adata.isbacked else adata.copy()
        named.var_names = np.where(unclear, adata.var_names, symbols)
        kept = f"; {int(unclear.sum())} without a symbol of their own keep their ids" if unclear.any() else ""
        warnings.warn(f"{what}: genes are called by var[{key!r}], as the targets are, not by their Ensembl ids{kept}",
                      CDTWarning, stacklevel=3)
        return named
    return adata


def _parts(names: Iterable[str]) -> set[str]:
    """The genes that single and combined targets name."""
    parts: set[str] = set()
    for name in names:
        parts.update(part.strip() for part in name.split("+"))
    return parts
