"""What a terminal shows of a run: a bar with loss, speed and time left, and the peak of memory."""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import attrgetter

import torch
from torch import nn

from cdt_lite.training.train import Progress


def with_bar(steps: Iterable[Progress], title: str = "") -> Iterator[Progress]:
    """Passes training steps through, showing a bar with loss, cells/s and time left, one for each stage.

    The bar is written to standard output, so that it stays in a notebook without being an error; it is redrawn at most
    twice a second.
    """
    from tqdm import tqdm

    for stage, group in groupby(steps, attrgetter("stage")):
        first = next(group)
        loss = first.nats
        with tqdm(total=first.n_steps, initial=first.step - 1, desc=f"{title} {stage}".strip(), file=sys.stdout,
                  mininterval=0.5, ncols=100) as bar:
            for progress in chain([first], group):
                kept = min(0.95, progress.step / (progress.step + 9))  # little at first: the start is soon forgotten
                loss = kept * loss + (1 - kept) * progress.nats  # on its device, which is waited for as seldom as drawn
                if bar.update() or progress.step in (first.step, first.n_steps):
                    bar.set_postfix_str(f"loss {loss:.3f}, {progress.cells_per_second:.0f} cells/s", refresh=False)
                yield progress


def peak_memory() -> float:
    """Returns the largest resident memory of this process so far, in GB (NaN where the system does not tell)."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def memory_wanted(model: nn.Module) -> float:
    """Returns the memory that training takes, in GB: the peak so far, and what the optimizer keeps of each weight."""
    weights = list(model.parameters())
    peak = peak_memory()
    if weights[0].is_cuda:
        peak = torch.cuda.max_memory_allocated() / 1e9
    return peak + 8 * sum(weight.numel() for weight in weights) / 1e9  # two moments in fp32
