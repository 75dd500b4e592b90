"""What every notebook begins and ends with: the set-up line, the profile's sizes, progress bars, the run report."""

import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeVar

import anndata as ad
import numpy as np
import torch

from cdt_lite import __version__
from cdt_lite.errors import CDTError, suggest
from cdt_lite.screens import resolve_screen
from cdt_lite.training import Progress

PROFILES = ("ci", "laptop", "gpu")
T = TypeVar("T")


def profile_name() -> str:
    """Returns the profile that CDT_PROFILE names: "ci" (seconds), "laptop" (default, minutes) or "gpu".

    Raises:
        CDTError: Another word.
    """
    name = os.environ.get("CDT_PROFILE", "laptop")
    if name not in PROFILES:
        raise CDTError(f"CDT_PROFILE is {', '.join(PROFILES)}, not {name!r}{suggest(name, PROFILES)}")
    return name


@dataclass
class Lesson:
    """One notebook's run.

    Args:
        number: "00" to "06".
        profile: "ci", "laptop" or "gpu".
        device: Where models run.
        screen: The cells at hand.
        note: One line about them.
    """

    number: str
    profile: str
    device: str
    screen: ad.AnnData
    note: str
    began: float = field(default_factory=time.perf_counter)

    @property
    def is_real(self) -> bool:
        """Whether these are measured cells (and not the simulated fall-back)."""
        return "truth" not in self.screen.uns

    def pick(self, ci: T, laptop: T, gpu: T) -> T:
        """Returns the value that belongs to this run's profile."""
        return {"ci": ci, "laptop": laptop, "gpu": gpu}[self.profile]

    def report(self) -> None:
        """Prints time, memory and versions: what to quote when a number differs on another machine."""
        print(f"Notebook {self.number}: {time.perf_counter() - self.began:.0f} s, peak memory {peak_memory():.2f} GB, "
              f"profile {self.profile}, device {self.device}")
        print(f"cdt_lite {__version__}, torch {version('torch')}, scanpy {version('scanpy')}, "
              f"anndata {version('anndata')}, Python {sys.version.split()[0]}")


def begin(number: str, seed: int = 0) -> Lesson:
    """Sets seeds, chooses device, profile and screen, and prints what was found."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lesson = Lesson(number, profile_name(), device, *resolve_screen())
    print(f"Notebook {number} | profile {lesson.profile} | {device} | {lesson.note}")
    return lesson


def with_bar(steps: Iterable[Progress], title: str = "") -> Iterator[Progress]:
    """Passes training steps through, showing a bar with loss, cells/s and time left.

    The bar is written to standard output, so that it stays in a notebook without being an error; it is redrawn at most
    twice a second.
    """
    from tqdm import tqdm

    bar, smooth = None, float("nan")
    for progress in steps:
        if bar is None:
            bar = tqdm(total=progress.n_steps, initial=progress.step - 1, desc=title or progress.stage, file=sys.stdout,
                       mininterval=0.5, ncols=100)
        smooth = progress.loss if np.isnan(smooth) else 0.95 * smooth + 0.05 * progress.loss
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
