"""The batches of the steps to come, read while the model is at work."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from cdt_lite.data.batches import Batch, SetSampler

AHEAD = 2  # batches that are read beforehand


class Loader:
    """Reads batches in a thread of its own. A batch depends on its number alone, so none is other than without it.

    Tokens wait as bytes, in pinned memory where the model is on a GPU, and are copied without waiting for the copy.

    Args:
        data: What to draw from.
        n_steps: Batches that there are to read.
        sets: Those of every batch to read: of many processes, each reads its own.
        device: Where the model is.
    """

    def __init__(self, data: SetSampler, n_steps: int, sets: slice, device: torch.device) -> None:
        self.data, self.n_steps, self.sets, self.device = data, n_steps, sets, device
        self.thread = ThreadPoolExecutor(1, "batches")
        self.coming: dict[int, Future[Batch]] = {}

    def batch(self, index: int) -> Batch:
        """Returns batch number `index` on the device, and has the next ones read."""
        for number in (index, *range(index + 1, min(index + AHEAD + 1, self.n_steps))):
            if number not in self.coming:
                self.coming[number] = self.thread.submit(self._read, number)
        return self.coming.pop(index).result().to(self.device)

    def close(self) -> None:
        """Ends the thread."""
        self.thread.shutdown(cancel_futures=True)

    def _read(self, index: int) -> Batch:
        batch = self.data.gather(self.data.plan(index), self.sets)
        if self.device.type != "cuda":
            return batch
        return replace(batch, tokens=batch.tokens.pin_memory(), controls=_pinned(batch.controls))


def _pinned(tokens: Tensor | None) -> Tensor | None:
    return None if tokens is None else tokens.pin_memory()
