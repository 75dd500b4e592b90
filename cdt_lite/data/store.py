"""Cells tokenised once into bytes, in memory or on disk."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from jaxtyping import Bool, Float, Int, UInt8

from cdt_lite.data.blocks import BLOCK, count_blocks
from cdt_lite.data.expression import dense, depths
from cdt_lite.data.kept import TokenArray, TokenFile, digest_of, held, is_kept, key_of, read_kept
from cdt_lite.data.layout import CONTROL, Columns, check_cells, read_labels
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.files import named
from cdt_lite.model.config import TokenizerConfig
from cdt_lite.model.perturbation import NO_TARGET

FOLDS = 4  # parts of a perturbation's cells, where they all come from one replicate


@dataclass
class TokenStore:
    """Tokenised cells with their labels: everything that training needs, an eighth of the size of float64 counts."""

    tokens: UInt8[np.ndarray, "cells G"] | Any  # in memory, mapped, or read when asked for (`collection.py`)
    gene_ids: Int[np.ndarray, " G"]  # row of each gene in the gene table
    target: Int[np.ndarray, " cells"]  # gene id of each cell's target, or NO_TARGET
    sign: Int[np.ndarray, " cells"]  # -1, 0, +1
    magnitude: Float[np.ndarray, " cells"]  # log2 fold change, NaN where unknown
    group: Int[np.ndarray, " cells"]  # number of the replicate or cell type: controls are drawn from the same
    log_depth: Float[np.ndarray, " cells"]  # log(counts / target depth)
    pairs: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # gene ids of every target that is a pair
    contexts: Sequence[str] = ()  # name of every replicate or cell type, by its number
    tokenizer: Tokenizer | None = None  # that made the tokens
    symbols: Sequence[str] = ()  # of the gene table that ids refer to
    about: Mapping[str, Any] = field(default_factory=dict)  # what else is kept with the cells, as JSON keeps it
    known_digest: str = ""  # of a store on disk

    @classmethod
    def from_adata(cls, adata: AnnData | Sequence[AnnData], tokenizer: Tokenizer, vocabulary: Vocabulary,
                   columns: Columns = Columns(), path: str | Path | None = None, about: Mapping[str, Any] | None = None,
                   say: Callable[[str], None] | None = None) -> "TokenStore":
        """Tokenises raw counts block by block.

        Args:
            adata: Cells, or those of several files with the same genes; files on disk and parts of them work.
            tokenizer: Its bins and target depth.
            vocabulary: Must know every gene and target.
            columns: Where the labels are. Without a column of targets, all cells are taken for controls.
            path: Folder to keep the store in; None keeps it in memory. Where it holds the same cells, whole, they are
                opened; where writing was stopped, it goes on after the last whole file.
            about: Kept with a store on disk.
            say: Is told how far it is.

        Raises:
            CDTError: No cells, no counts, a gene outside the vocabulary, a cell without a label; a folder that holds
                other cells or cannot be written.
        """
        parts = [adata] if isinstance(adata, AnnData) else list(adata)
        labels = labels_of(parts, vocabulary, columns)
        made: dict[str, Any] = {"tokenizer": tokenizer, "symbols": tuple(vocabulary.symbols)}
        made["about"] = dict(about or {})
        made |= labels
        if path is not None:
            return cls._kept_in(named(path), parts, made, say)
        array = TokenArray((len(labels["target"]), parts[0].n_vars))
        _tokenise(parts, tokenizer, array, say)
        return cls(tokens=array.tokens, log_depth=array.log_depth, **made)

    @classmethod
    def open(cls, folder: str | Path) -> "TokenStore":
        """Opens a store that is kept in a folder, its tokens as a memory map.

        Raises:
            CDTError: There is none, it was not written to its end, or a file of it was cut.
        """
        facts, arrays = read_kept(named(folder))
        tokenizer = Tokenizer(TokenizerConfig(**facts["config"]), facts["target_depth"])
        pairs = {pair: (one, other) for pair, one, other in facts["pairs"]}
        return cls(**arrays, pairs=pairs, contexts=tuple(facts["contexts"]), tokenizer=tokenizer,
                   symbols=tuple(facts["symbols"]), about=facts["about"], known_digest=facts["digest"])

    @classmethod
    def _kept_in(cls, folder: Path, parts: Sequence[AnnData], made: dict[str, Any], say: Callable[[str], None] | None
                 ) -> "TokenStore":
        """Writes the store of these cells, or what is missing of it, and opens it."""
        tokenizer = made["tokenizer"]
        pairs = [(pair, *genes) for pair, genes in made["pairs"].items()]
        facts = {"config": asdict(tokenizer.config), "target_depth": tokenizer.target_depth, "pairs": pairs,
                 "contexts": made["contexts"], "symbols": made["symbols"], "about": made["about"],
                 "files": [cells.n_obs for cells in parts]}
        arrays = {name: value for name, value in made.items() if isinstance(value, np.ndarray)}
        first = np.concatenate([depths(next(count_blocks(cells))[1]) for cells in parts])  # they tell other counts
        key = key_of(facts, {**arrays, "first": first})
        with held(folder):
            if not is_kept(folder, key):
                with TokenFile(folder, (len(made["target"]), parts[0].n_vars), key) as file:
                    _tokenise(parts, tokenizer, file, say)
                    arrays["log_depth"] = file.log_depth
                    facts["digest"] = digest_of(file.blocks(), arrays)
                    file.finish(arrays, facts)
        return cls.open(folder)

    def require(self, tokenizer: Tokenizer | None, symbols: Sequence[str], of: str = "the model") -> None:
        """Raises CDTError where these tokens or gene ids mean something else to a model, or in another store.

        Args:
            tokenizer: Of the model.
            symbols: Of its vocabulary, which may have become longer since.
            of: What to call it.
        """
        if self.tokenizer is None or tokenizer is None:  # made by hand
            return
        remedy = "tokenise the cells for it, or begin a model with their store"
        if self.tokenizer != tokenizer:
            raise CDTError(f"the tokens of a store are {self.tokenizer}, those of {of} {tokenizer}: {remedy}")
        n_known = 1 + max(self.gene_ids.max(), self.target.max())
        for number, (own, other) in enumerate(zip_longest(self.symbols[:n_known], symbols[:n_known])):
            if own != other:
                raise CDTError(f"a store was made with another vocabulary: gene {number} is {own!r} there, and in "
                               f"that of {of} {other!r}: {remedy}")

    @property
    def panel(self) -> list[str]:
        """Symbols of the genes, in order."""
        return [self.symbols[gene] for gene in self.gene_ids]

    @property
    def targets(self) -> set[str]:
        """Symbols of the targets of all perturbed cells."""
        return {self.symbols[gene] for gene in np.unique(self.target[self.target >= 0])}

    @property
    def perturbed_contexts(self) -> set[str]:
        """Names of the replicates or cell types that have perturbed cells; none where they have no names."""
        if not self.contexts:
            return set()
        return {self.contexts[number] for number in np.unique(self.group[self.sign != 0])}

    def __len__(self) -> int:
        return len(self.target)

    def folds(self) -> Int[np.ndarray, " cells"]:
        """Returns the part of its perturbation's cells that each cell belongs to.

        In training a set is told the mean effect in the other parts, never in its own. Parts are the replicates. The
        cells of a perturbation that was made in one replicate alone are parted at random (cross-fitting), else training
        would never be told a measured effect, and prediction would be.
        """
        fold = self.group.copy()
        first = int(self.group.max()) + 1  # no replicate has these numbers
        keys, which = numbered(self.target, self.sign)
        for (target, sign), cells in zip(keys.tolist(), cells_of(which, len(keys)), strict=True):
            if sign != 0 and (self.group[cells] == self.group[cells[0]]).all():
                rng = np.random.default_rng([len(cells), target])
                fold[cells] = first + rng.permutation(len(cells)) % FOLDS
        return fold

    def groups(self) -> tuple[Int[np.ndarray, "groups 4"], Int[np.ndarray, " cells"]]:
        """Returns target, sign, replicate and fold of every group of cells that share them, and each cell's group."""
        return numbered(self.target, self.sign, self.group, self.folds())

    def digest(self) -> str:
        """Returns a hash of the tokens and labels: what a model was trained on."""
        if not self.known_digest:
            labels = {"gene_ids": self.gene_ids, "target": self.target, "sign": self.sign}
            blocks = (self.tokens[begin : begin + BLOCK].tobytes() for begin in range(0, len(self), BLOCK))
            self.known_digest = digest_of(blocks, labels)
        return self.known_digest


def numbered(*columns: Int[np.ndarray, " cells"]) -> tuple[Int[np.ndarray, "n k"], Int[np.ndarray, " cells"]]:
    """Returns the combinations of labels that there are, in order, and each cell's number among them."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        lowest = column.min(initial=0)
        code = code * (column.max(initial=0) - lowest + 1) + (column - lowest)
    _, first, number = np.unique(code, return_index=True, return_inverse=True)
    return np.stack([column[first] for column in columns], 1), number


def cells_of(number: Int[np.ndarray, " cells"], n: int) -> list[Int[np.ndarray, " of_one"]]:
    """Returns the cells of each of n numbers."""
    order = np.argsort(number, kind="stable")
    return np.split(order, np.cumsum(np.bincount(number, minlength=n))[:-1])


def set_aside(keys: Int[np.ndarray, "groups 4"], share: float) -> Bool[np.ndarray, " groups"]:
    """Chooses the groups that fine-tuning never shows the network, so that it can be judged by them in the end.

    They are parts of perturbations (a replicate, or a fold) of which another part is left, one of each at most, the
    same whatever the seed.

    Args:
        keys: Of all groups, as `TokenStore.groups` returns them.
        share: Of the groups of perturbed cells; where it is not 0, one at least is set aside.
    """
    aside = np.zeros(len(keys), bool)
    perturbed = keys[:, 1] != 0
    if not share or not perturbed.any():
        return aside
    _, which, n_parts = np.unique(keys[perturbed][:, :2], axis=0, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(len(keys))
    wanted = max(1, round(share * perturbed.sum()))
    for perturbation in rng.permutation(np.flatnonzero(n_parts > 1))[:wanted]:
        parts = np.flatnonzero(perturbed)[which.ravel() == perturbation]
        aside[rng.choice(parts)] = True
    return aside


def labels_of(parts: Sequence[AnnData], vocabulary: Vocabulary, columns: Columns) -> dict[str, Any]:
    """Reads the labels of all cells, those of several files one after the other."""
    if not parts:
        raise CDTError("there are no cells to tokenise: give one file at least")
    what, genes = "the selection", parts[0].var_names
    found = []
    for cells in parts:
        check_cells(cells, what)
        if not cells.var_names.equals(genes):
            raise CDTError("the files of one store must have the same genes in the same order: choose a panel for all "
                           "of them (cdt_lite.data.panel.on_panel), or keep a store of each")
        found.append(read_labels(cells, columns, unlabelled=True, what=what))
    names, number = np.unique(np.concatenate([labels.target for labels in found]), return_inverse=True)
    ids = [NO_TARGET if name == CONTROL else vocabulary.id(name) for name in names]
    batch, group = np.concatenate([labels.batch for labels in found]), found[0].batch_number
    if len(found) > 1:  # replicates of one name are one replicate
        _, group = np.unique(batch, return_inverse=True)
    contexts = np.zeros(group.max() + 1, batch.dtype)
    contexts[group] = batch
    return {
        "gene_ids": vocabulary.ids(list(genes)),
        "target": np.array(ids, np.int64)[number],
        "sign": np.concatenate([labels.sign for labels in found]),
        "magnitude": np.concatenate([labels.magnitude for labels in found]).astype(np.float32),
        "group": group,
        "contexts": tuple(contexts.tolist()),
        "pairs": {vocabulary.id(name): pair for name in names if (pair := vocabulary.pair(name))},
    }


def _tokenise(parts: Sequence[AnnData], tokenizer: Tokenizer, out: TokenArray | TokenFile,
              say: Callable[[str], None] | None) -> None:
    """Tokenises cells that are not there yet, block by block."""
    n_cells, begin = sum(cells.n_obs for cells in parts), 0
    for cells in parts:
        end = begin + cells.n_obs
        if end > out.n_done:
            n_above, n_read = np.zeros(cells.n_vars, int), begin
            for rows, block in count_blocks(cells, "the selection"):
                values = tokenizer.in_space(dense(block))
                n_above += (values > tokenizer.edges[-1]).sum(0)
                log_depth = np.log(np.maximum(depths(block), 1.0) / tokenizer.target_depth)
                out.write(np.arange(begin, end)[rows], tokenizer.encode(values), log_depth)
                n_read += len(values)
                if say is not None:
                    say(f"{n_read:,} of {n_cells:,} cells")
            out.end_part(end)
            _warn_of_high_values(n_above, cells, tokenizer.edges[-1])
        begin = end


def _warn_of_high_values(n_above: Int[np.ndarray, " G"], adata: AnnData, last: float) -> None:
    """Says which genes have values above the last bin: what becomes of them is that bin's edge."""
    if not n_above.any():
        return
    genes = []
    for gene in np.argsort(-n_above, kind="stable")[: min(5, np.count_nonzero(n_above))]:
        genes.append(f"{adata.var_names[gene]} ({n_above[gene] / adata.n_obs:.1%} of cells)")
    share = n_above.sum() / (adata.n_obs * adata.n_vars)
    warnings.warn(f"{share:.2g} of all values lie above the last bin and are taken for {last:,.0f}, in "
                  f"{np.count_nonzero(n_above)} genes: {', '.join(genes)}. Leave these genes out, or begin a "
                  "model with these cells: its bins then reach to their largest count", CDTWarning, stacklevel=4)
