"""The guide to the figure folder: the original document's sections in its order, its claims kept or corrected.

The words are in `guide.md.j2`, which asks the functions given here for every number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from cdt_lite import __version__
from cdt_lite.figures import accounting, cost
from cdt_lite.figures.charts import PLAN
from cdt_lite.figures.trace import CONTROLS, process_of, trace
from cdt_lite.files import in_markdown
from cdt_lite.model import Config, V1Diffusion, v1

RELEASED = "2026-11-24"  # the release's date, as in CITATION.cff: not the day on which someone ran this
TEMPLATE = Path(__file__).with_name("guide.md.j2")


@dataclass
class Shown:
    """A figure as the guide shows it: its content as rows, its pictures with their alt text, its files."""

    rows: list[list[str]]
    pictures: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def guide(config: Config, figures: Mapping[str, Shown], measured: bool) -> str:
    """Returns the folder's README.

    Args:
        config: The preset that is drawn.
        figures: What is shown, by the figure's name.
        measured: Whether a trained model was at hand.
    """
    process, genes = process_of(config), config.model.n_genes
    reveals = v1.expected_reveals(genes).tolist()
    template = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    template.filters |= {"f": format, "markdown": in_markdown}
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        config=config,
        figures=figures,
        measured=measured,
        accounting=accounting,
        cost=cost,
        v1=v1,
        controls=CONTROLS,
        plan=PLAN,
        logits=trace(config)["head"].output[-1],
        reveals=reveals,
        is_v1=isinstance(process, V1Diffusion),
        forwards=process.n_steps(genes),
        version=__version__,
        released=RELEASED,
    )
