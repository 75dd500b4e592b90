"""What every notebook uses: the set-up line, the profile's sizes, figures with words, checks, bars, the run report."""

import base64
import html
import os
import random
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import torch

from cdt_lite import __version__
from cdt_lite.data.screens import resolve_screen
from cdt_lite.errors import CDTError, suggest
from cdt_lite.teaching.check import catch_up, check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cdt_lite.figures.sketch import Diagram
from cdt_lite.terminal import T, peak_memory, with_bar

__all__ = ["Lesson", "begin", "catch_up", "check", "peak_memory", "profile_name", "with_bar"]
PROFILES = ("ci", "laptop", "gpu")


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

    def show(self, figure: "Figure | Diagram | bytes", text: str, table: object) -> None:
        """Shows one figure with its alt text, and under it, folded, the numbers that it draws.

        Args:
            figure: A matplotlib Figure (closed here, so that it appears once), a Diagram, or the bytes of a PNG or GIF.
            text: Alt text in one or two sentences, built from the data (`plots.alt_text`).
            table: DataFrame, Series or dict of what is drawn, at most about a dozen rows.

        Raises:
            CDTError: No text, no numbers, or something that is not a picture.
        """
        from IPython.display import display

        words, numbers = " ".join(str(text).split()), _as_table(table)
        if not words or numbers.empty:
            raise CDTError("a figure needs alt text (one or two sentences) and the table of its numbers")
        kind, picture, width = _picture(figure)
        if not _in_notebook():  # a plain script: words only
            print(f"Figure: {words}")
            return
        about = {"alt": words} | ({"width": width} if width else {})
        display({kind: base64.b64encode(picture).decode(), "text/plain": f"Figure: {words}"}, raw=True,
                metadata={kind: about})
        rows = numbers.to_html(border=0, float_format="{:.4g}".format)
        folded = f"<details><summary>Figure: {html.escape(words)} (the numbers)</summary>{rows}</details>"
        display({"text/html": folded, "text/plain": words}, raw=True)

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


def _in_notebook() -> bool:
    from IPython.core.getipython import get_ipython

    return get_ipython() is not None


def _as_table(table: object) -> pd.DataFrame:
    """Returns a DataFrame of a DataFrame, a Series, or a dict of columns or of single values."""
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, pd.Series):
        return table.to_frame(table.name or "value")
    if not isinstance(table, dict):
        raise CDTError(f"a figure's numbers are a DataFrame, a Series or a dict, not {type(table).__name__}")
    single = all(np.ndim(value) == 0 for value in table.values())
    return pd.Series(table, name="value").to_frame() if single else pd.DataFrame(table)


def _picture(figure: object, widest: int = 900) -> tuple[str, bytes, int]:
    """Returns media type, bytes, and the width in pixels to show at (0: as it is)."""
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure
    from PIL import Image

    from cdt_lite.figures.sketch import Diagram, render, small_png

    if isinstance(figure, Figure):
        out = BytesIO()
        figure.savefig(out, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)  # else the notebook shows it again at the end of the cell
        picture = small_png(out.getvalue())
    elif isinstance(figure, Diagram):
        picture = render(figure, "png")
    elif isinstance(figure, bytes) and figure.startswith((b"\x89PNG", b"GIF8")):
        picture = figure
    else:
        raise CDTError(f"a figure is a matplotlib Figure, a Diagram, or the bytes of a PNG or GIF, not "
                       f"{type(figure).__name__}. For an SVG give the Diagram it was made from: notebooks that were "
                       "downloaded hide SVG until they are trusted")
    try:
        width = Image.open(BytesIO(picture)).width
    except OSError as error:
        raise CDTError("these bytes begin like a PNG or GIF, but the picture cannot be read") from error
    return "image/gif" if picture.startswith(b"GIF8") else "image/png", picture, widest if width > widest else 0
