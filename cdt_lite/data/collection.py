"""Tokens of a zarr collection, read by annbatch (an optional package, Python 3.12 and later) when they are asked for.

Nothing is written: batches are planned as ever, and each row that they show is read from the collection and tokenised.
Rows in any order cost more there than from a store in a folder; what it saves is the folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Int, UInt8

from cdt_lite.data.blocks import BLOCK
from cdt_lite.data.counts import why_not_counts
from cdt_lite.data.expression import dense, depths
from cdt_lite.data.layout import Columns
from cdt_lite.data.store import TokenStore, labels_of
from cdt_lite.data.tokenizer import Tokenizer
from cdt_lite.data.vocabulary import Vocabulary
from cdt_lite.errors import CDTError
from cdt_lite.files import named, readable


class CollectionTokens:
    """Looks like an array of tokens, (cells, G) uint8, and reads its rows from a collection.

    Args:
        path: The collection, as annbatch's `DatasetCollection` writes it.
        tokenizer: Its bins and target depth.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: str | Path, tokenizer: Tokenizer) -> None:
        try:
            import zarr
            from annbatch import DatasetCollection, Loader
            from annbatch.abc import Sampler
        except ImportError as error:
            raise CDTError("zarr collections are read by annbatch, which is not installed (Python 3.12 and later: pip "
                           "install annbatch): install it, or tokenise .h5ad files into a store") from error

        class Asked(Sampler):
            """Asks for the rows that are wanted next, as one batch."""

            batch_size, shuffle = None, False
            rows = np.zeros(1, int)

            def n_batches(self, n_obs: int) -> int:
                return 1

            def validate(self, n_obs: int) -> None:
                """Rows are checked where they are taken."""

            def _sample(self, n_obs: int) -> Iterator[Any]:
                yield {"requests": self.rows, "splits": [np.arange(len(self.rows))]}

        if not named(path).is_dir():
            raise CDTError(f"there is no zarr collection {str(path)!r}")
        with readable(str(path)):
            collection = DatasetCollection(zarr.open_group(path, mode="r"))
            self.obs: pd.DataFrame = collection.obs()
            self._asked = Asked()
            self._loader = Loader(batch_sampler=self._asked).use_collection(collection)
            self.genes = [str(gene) for gene in self._loader.var.index]
        self.tokenizer, self.what = tokenizer, str(path)
        self.shape = (len(self.obs), len(self.genes))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Int[np.ndarray, "..."]) -> UInt8[np.ndarray, "... G"]:
        index = np.arange(len(self))[rows]
        each, place = np.unique(index, return_inverse=True)  # a cell that is shown twice is read once
        tokens = self.tokenizer.tokenize(dense(self.counts(each)))
        return tokens[place.reshape(index.shape)]

    def counts(self, rows: Int[np.ndarray, " n"]) -> Any:
        """Reads raw counts. Raises CDTError where they are none."""
        self._asked.rows = rows
        with readable(self.what):
            (found,) = self._loader
        if problem := why_not_counts(found["X"]):
            raise CDTError(f"{self.what}: X must hold raw counts, but it holds {problem}")
        return found["X"]

    def max(self, axis: int) -> UInt8[np.ndarray, " G"]:
        """Returns the highest token of every gene, as an array's method does."""
        highest = [self[begin : begin + BLOCK].max(axis) for begin in range(0, len(self), BLOCK)]
        return np.max(highest, axis=0)


def collection_store(path: str | Path, tokenizer: Tokenizer, vocabulary: Vocabulary, columns: Columns = Columns()
                     ) -> TokenStore:
    """Returns a store whose tokens stay a zarr collection of annbatch; it is read through once, for depths.

    Args:
        path: The collection.
        tokenizer: Its bins and target depth.
        vocabulary: Must know every gene and target.
        columns: Where the labels are.

    Raises:
        CDTError: annbatch is not installed, there is no collection, or what `TokenStore.from_adata` refuses.
    """
    tokens = CollectionTokens(path, tokenizer)
    cells = AnnData(obs=tokens.obs, var=pd.DataFrame(index=tokens.genes))
    labels = labels_of([cells], vocabulary, columns)
    depth = np.empty(len(tokens))
    for begin in range(0, len(tokens), BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, len(tokens)))
        depth[rows] = depths(tokens.counts(rows))
    log_depth = np.log(np.maximum(depth, 1.0) / tokenizer.target_depth).astype(np.float32)
    made: dict[str, Any] = {"tokenizer": tokenizer, "symbols": tuple(vocabulary.symbols)}
    return TokenStore(tokens=tokens, log_depth=log_depth, **made, **labels)
