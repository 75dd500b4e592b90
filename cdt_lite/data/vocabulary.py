"""Gene symbol <-> row of the gene table, over a fixed capacity, so that files with other panels share one model."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from cdt_lite.data.layout import check_genes
from cdt_lite.errors import CDTError, require_whole, suggest
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
        self.symbols = [str(s) for s in symbols]
        self.capacity = require_whole("capacity", capacity, 1)
        check_genes(pd.Index(self.symbols), "the vocabulary")
        if len(self) > capacity:
            raise CDTError(f"{len(self)} genes do not fit a table of {capacity} rows; select genes first")
        self._row = dict(zip(self.symbols, range(len(self)), strict=True))

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._row

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return False
        return (self.symbols, self.capacity) == (other.symbols, other.capacity)

    def id(self, symbol: str) -> int:
        """Returns one gene's id. Raises CDTError with close matches: an unknown gene never gets a random row."""
        if symbol not in self._row:
            close = suggest(symbol, self._row)
            raise CDTError(f"gene {symbol!r} is not in the vocabulary of {len(self)} genes{close}")
        return self._row[symbol]

    def ids(self, symbols: Sequence[str]) -> np.ndarray:
        """Returns the ids (int64) of several genes."""
        return np.array([self.id(s) for s in symbols], dtype=np.int64)

    def extended(self, symbols: Iterable[str]) -> "Vocabulary":
        """Returns a vocabulary with new symbols appended, a pair's genes too; every old id stays as it was."""
        new = [name for symbol in map(str, symbols) for name in (*genes_of(symbol), symbol)]
        return Vocabulary(dict.fromkeys([*self.symbols, *new]), self.capacity)

    def pair(self, symbol: str) -> tuple[int, int] | None:
        """Returns the ids of a pair's genes; None for a single gene, and where one of both is unknown."""
        genes = genes_of(symbol)
        if len(genes) != 2 or not all(gene in self for gene in genes):
            return None
        return self.id(genes[0]), self.id(genes[1])


def genes_of(symbol: str) -> list[str]:
    """Returns the genes of a combination, "A+B"; none for a single gene."""
    genes = symbol.split("+")
    return genes if len(genes) > 1 and all(genes) else []
