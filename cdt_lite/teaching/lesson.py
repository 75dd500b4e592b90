"""What every notebook uses: the set-up line, the profile's sizes, figures with words and numbers, the run report."""

import base64
import html
import os
import random
import sys
import time
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO
from typing import TypeVar

import anndata as ad
import numpy as np
import pandas as pd
import torch

from cdt_lite import __version__
from cdt_lite.data.screens import resolve_screen
from cdt_lite.errors import CDTError, suggest
from cdt_lite.terminal import peak_memory

T = TypeVar("T")
PROFILES = ("ci", "laptop", "gpu")
WIDEST = 900  # pixels: a wider picture is shown smaller


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
    """One notebook's run."""

    number: str  # "00" to "09"
    profile: str  # one of PROFILES
    device: str  # where models run
    screen: ad.AnnData  # the cells at hand
    began: float = field(default_factory=time.perf_counter)

    def pick(self, ci: T, laptop: T, gpu: T) -> T:
        """Returns the value that belongs to this run's profile."""
        return {"ci": ci, "laptop": laptop, "gpu": gpu}[self.profile]

    def show(self, figure: object, text: str, table: object) -> None:
        """Shows one figure with its alt text, and under it, folded, the numbers that it draws.

        Args:
            figure: A matplotlib Figure (closed here, so that it appears once), a Diagram, or the bytes of a PNG or GIF.
            text: Alt text in one or two sentences, built from the data (`plots.alt_text`).
            table: DataFrame, Series or dict of what is drawn, at most about a dozen rows.

        Raises:
            CDTError: No text, no numbers, or something that is not a picture.
        """
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        shown = _Shown(figure, text, table)
        if get_ipython() is None:  # a plain script: words only
            print(f"Figure: {shown.words}")
            return
        said = {shown.kind: shown.picture, "text/plain": f"Figure: {shown.words}"}
        display(said, raw=True, metadata={shown.kind: {"alt": shown.words, "width": shown.width}})
        summary = f"<summary>Figure: {html.escape(shown.words)} (the numbers)</summary>"
        folded = f"<details>{summary}{shown.rows}</details>"
        display({"text/html": folded, "text/plain": shown.words}, raw=True)

    def say(self, sentence: str) -> None:
        """Shows a sentence that was written from numbers; a gene's name in it stays as it is."""
        from IPython.display import display

        plain = " ".join(sentence.split())
        shown = html.escape(plain, quote=False)
        for mark in "*_$":
            shown = shown.replace(mark, f"\\{mark}")
        display({"text/markdown": shown, "text/plain": plain}, raw=True)

    def report(self) -> None:
        """Prints time, memory and versions: what to quote when a number differs on another machine."""
        seconds = time.perf_counter() - self.began
        print(f"Notebook {self.number}: {seconds:.0f} s, peak memory {peak_memory():.2f} GB, "
              f"profile {self.profile}, device {self.device}")
        print(f"cdt_lite {__version__}, torch {version('torch')}, scanpy {version('scanpy')}, "
              f"anndata {version('anndata')}, Python {sys.version.split()[0]}")


def begin(number: str, seed: int = 0) -> Lesson:
    """Sets seeds, chooses device, profile and screen, and prints what was found."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    pd.set_option("display.html.use_mathjax", False)  # a gene's name is no formula
    pd.set_option("display.max_colwidth", None)
    for kind in (DeprecationWarning, FutureWarning):  # what libraries tell programmers; a notebook shows it to readers
        warnings.simplefilter("ignore", kind)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    screen, found = resolve_screen()
    lesson = Lesson(number, profile_name(), device, screen)
    print(f"Notebook {number} | profile {lesson.profile} | {device} | {found}")
    return lesson


class _Shown:
    """A figure with its words and its numbers, ready for a page: nothing in them can be taken for HTML."""

    def __init__(self, figure: object, text: str, table: object) -> None:
        from PIL import Image

        self.words, numbers = " ".join(text.split()), _as_table(table)
        if not self.words or numbers.empty:
            raise CDTError("a figure needs alt text (one or two sentences) and the table of its numbers")
        picture = _as_bytes(figure)
        try:
            image = Image.open(BytesIO(picture))
        except OSError as error:
            raise CDTError("these bytes are not a PNG or GIF that can be read") from error
        self.kind, self.width = image.get_format_mimetype(), min(image.width, WIDEST)
        self.picture = base64.b64encode(picture).decode()
        self.rows = numbers.to_html(border=0, float_format="{:.4g}".format)


def as_html(figure: object, text: str, table: object) -> str:
    """Returns a figure with its words and its numbers as HTML, for a widget; arguments as in `Lesson.show`."""
    shown = _Shown(figure, text, table)
    words = html.escape(shown.words)
    source = f"data:{shown.kind};base64,{shown.picture}"
    return f'<img alt="{words}" width="{shown.width}" src="{source}"/><p>{words}</p>{shown.rows}'


def _as_table(table: object) -> pd.DataFrame:
    """Returns a DataFrame of a DataFrame, a Series, or a dict of columns or of single values."""
    if isinstance(table, dict) and not any(map(np.ndim, table.values())):
        table = pd.Series(table, name="value")
    if isinstance(table, dict | pd.Series | pd.DataFrame):
        return pd.DataFrame(table)
    raise CDTError(f"a figure's numbers are a DataFrame, a Series or a dict, not {type(table).__name__}")


def _as_bytes(figure: object) -> bytes:
    """Returns the bytes of a picture, and closes a Figure: else the notebook shows it again after the cell."""
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    from cdt_lite.figures.plots import as_written
    from cdt_lite.figures.sketch import Diagram, render, small_png

    if isinstance(figure, bytes):
        return figure
    if isinstance(figure, Diagram):
        return render(figure, "png")
    if isinstance(figure, Figure):
        out = BytesIO()
        as_written(figure)
        figure.savefig(out, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
        return small_png(out.getvalue())
    raise CDTError(f"a figure is a matplotlib Figure, a Diagram, or the bytes of a PNG or GIF, not a "
                   f"{type(figure).__name__} (for an SVG give the Diagram: untrusted notebooks hide SVG)")
