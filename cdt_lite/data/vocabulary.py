"""Gene symbol <-> row of the gene table, over a fixed capacity, so that files with other panels share one model."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cdt_lite.errors import CDTError, suggest
from cdt_lite.model.config import GENE_CAPACITY


class Vocabulary:
    """An ordered set of gene symbols; a symbol's place is its id.

    Args:
        symbols: Unique gene symbols; their order fixes the ids, so a saved vocabulary must travel with its model.
        capacity: Rows of the gene table, an upper bound on the number of symbols.

    Raises:
        CDTError: A symbol stands twice, or there are more symbols than rows.
    """

    def __init__(self, symbols: Iterable[str], capacity: int = GENE_CAPACITY) -> None:
        self.symbols: list[str] = [str(s) for s in symbols]
        self.capacity = capacity
        self._index = {s: i for i, s in enumerate(self.symbols)}
        if len(self._index) != len(self.symbols):
            twice = sorted({s for s in self.symbols if self.symbols.count(s) > 1})[:5]
            raise CDTError(f"gene symbols must be unique; these stand more than once: {twice}. "
                           "Make them unique first, e.g. adata.var_names_make_unique().")
        if len(self.symbols) > capacity:
            raise CDTError(f"{len(self.symbols)} genes do not fit a table of {capacity} rows; select genes first.")

    @classmethod
    def from_features(cls, path: str | Path, capacity: int = GENE_CAPACITY) -> "Vocabulary":
        """Reads a Cell Ranger `features.tsv` or `features.tsv.gz` (id, symbol, type); a repeated symbol keeps its id.

        Args:
            path: The file; column 2 holds symbols, and a symbol seen before is replaced by its Ensembl id (column 1).
            capacity: Rows of the gene table.
        """
        opener = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file if line.strip()]
        if any(len(row) < 2 for row in rows):
            raise CDTError(f"{path} is not a features.tsv: expected id <tab> symbol [<tab> type] on every line.")
        seen: dict[str, None] = {}
        for gene_id, symbol, *_ in rows:
            seen[gene_id if symbol in seen else symbol] = None
        return cls(seen, capacity)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.symbols, self.capacity) == (other.symbols, other.capacity)

    def id(self, symbol: str) -> int:
        """Returns one gene's id. Raises CDTError with close matches: an unknown gene never gets a random row."""
        if symbol not in self._index:
            raise CDTError(f"gene {symbol!r} is not in the vocabulary of {len(self)} genes"
                           f"{suggest(symbol, self._index)}")
        return self._index[symbol]

    def ids(self, symbols: Sequence[str]) -> np.ndarray:
        """Returns the ids (int64) of several genes."""
        return np.array([self.id(s) for s in symbols], dtype=np.int64)

    def extended(self, symbols: Iterable[str]) -> "Vocabulary":
        """Returns a vocabulary with new symbols appended; every old id stays as it was."""
        return Vocabulary([*self.symbols, *dict.fromkeys(s for s in map(str, symbols) if s not in self._index)],
                          self.capacity)
