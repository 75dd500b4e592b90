"""What a terminal shows of a run: a bar with loss, speed and time left, and the peak of memory."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from cdt_lite.training.train import Progress

T = TypeVar("T")


def with_bar(steps: Iterable[Progress], title: str = "") -> Iterator[Progress]:
    """Passes training steps through, showing a bar with loss, cells/s and time left, one for each stage.

    The bar is written to standard output, so that it stays in a notebook without being an error; it is redrawn at most
    twice a second.
    """
    from tqdm import tqdm

    bar, smooth, stage = None, float("nan"), ""
    for progress in steps:
        if bar is None or progress.stage != stage:
            if bar is not None:
                bar.close()
            stage, smooth, name = progress.stage, float("nan"), f"{title} {progress.stage}".strip()
            bar = tqdm(total=progress.n_steps, initial=progress.step - 1, desc=name, file=sys.stdout, mininterval=0.5,
                       ncols=100)
        memory = min(0.95, progress.step / (progress.step + 9))  # short at first, so that the start is soon forgotten
        smooth = progress.loss if np.isnan(smooth) else memory * smooth + (1 - memory) * progress.loss
        bar.set_postfix_str(f"loss {smooth:.3f}, {progress.cells_per_second:.0f} cells/s", refresh=False)
        bar.update(1)
        yield progress
    if bar is not None:
        bar.close()


def peak_memory() -> float:
    """Returns the largest resident memory of this process so far, in GB (NaN where the system does not tell)."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
