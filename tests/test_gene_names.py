"""A gene's name is data: wherever it is shown, it shows as it is written, and is taken for nothing else."""

import html
import inspect
import io
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import opened, tiny, toy_screen
from matplotlib.axes import Axes
from matplotlib.text import Text

from cdt_lite import figures, teaching
from cdt_lite.figures import measured, plots, sketch
from cdt_lite.figures.guide import Shown, guide
from cdt_lite.report import page as pages
from cdt_lite.teaching import lesson as lessons
from cdt_lite.training.start import start

NAMES = [
    "<img src=x onerror=alert(1)>", r"$\frac$", "a_b^c", "A|B", "{x}", "%s", r"\$5", '"q"', "$$", "_z", "#fff", "a\\nb",
    "$x$ and $y$",
]
N = len(NAMES)


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.text.append(data)


def named(values):
    return dict(zip(NAMES, values, strict=True))


def table():
    return pd.DataFrame(np.arange(2.0 * N).reshape(N, 2), NAMES, NAMES[:2])


def numbers():
    return np.random.default_rng(0).normal(size=N)


def points():
    return pd.DataFrame({"intensity": np.geomspace(10, 1000, N), "share": 1 / N}, NAMES)


STATES = np.arange(3 * N).reshape(3, N)
DRAWN = {
    "bars": lambda ax: plots.bars(named(range(1, N + 1)), ax, NAMES[1]),
    "stacked": lambda ax: plots.stacked({name: named(range(1, N + 1)) for name in NAMES}, ax, NAMES[1]),
    "roofline": lambda ax: plots.roofline(points(), {NAMES[1]: (989, 4800)}, ax),
    "mask_schedule": lambda ax: plots.mask_schedule({name: ([0, 1], [1.0, 0.0]) for name in NAMES[:5]}, ax),
    "cell_heatmap": lambda ax: plots.cell_heatmap(STATES, NAMES, ax, labels=NAMES[:3]),
    "attention_map": lambda ax: plots.attention_map(np.eye(N), NAMES, NAMES, ax, label=NAMES[1]),
    "metric_heatmap": lambda ax: plots.metric_heatmap(table(), ax),
    "expression_curves": lambda ax: plots.expression_curves({"real": numbers()}, NAMES[1], ax),
    "predicted_vs_real_delta": lambda ax: plots.predicted_vs_real_delta(numbers(), numbers()[::-1], NAMES, ax, name=N),
}
IN_A_LEGEND = {"stacked", "roofline", "mask_schedule"}


def drawn_texts(figure):
    """What is written in a figure, as it is drawn: a text that is a formula comes in a pair of dollars."""
    figure.savefig(io.BytesIO(), format="svg")
    found = []
    for text in figure.findobj(Text):
        shown, is_formula = text._preprocess_math(text.get_text())
        found.append(f"formula {shown}" if is_formula else shown)
    return found


def test_every_public_plot_is_tried():
    public = {name for name, value in vars(plots).items() if name[0] != "_" and inspect.isfunction(value)}
    assert {name for name in public if inspect.signature(getattr(plots, name)).return_annotation is Axes} == set(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_every_plot_shows_names_as_they_are_written(name):
    figure, ax = plt.subplots(figsize=(12, 12))
    assert DRAWN[name](ax) is ax
    ax.set_title(NAMES[1])
    written = drawn_texts(figure)
    assert NAMES[1] in written
    # which show five, those with room, and a gene alone
    if name not in ("mask_schedule", "predicted_vs_real_delta", "expression_curves"):
        expected = set(NAMES) - ({"_z"} if name in IN_A_LEGEND else set())  # a legend leaves out what begins with _
        assert {label for label in expected if any(text.startswith(label) for text in written)} == expected
    assert not [text for text in written if text.startswith("formula")]
    plt.close(figure)


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would be sent."""
    sent = []
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata=None: sent.append((data, metadata)))
    return sent


def figure_of_its_own():
    """Drawn as notebooks do, past the package's functions; its y is logarithmic."""
    figure, ax = plt.subplots()
    ax.bar(NAMES, range(1, N + 1), label=NAMES[1])
    ax.set(title=NAMES[1], xlabel=NAMES[0], yscale="log")
    ax.annotate(NAMES[1], (0, 1))
    ax.legend()
    figure.supxlabel(NAMES[1])
    return figure


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_shows_names_as_they_are_written(name, shown):
    lesson = teaching.Lesson("06", "ci", "cpu", toy_screen())
    figure = figure_of_its_own()
    lesson.show(figure, plots.alt_text(f"What {name} does", {name: 1.0}), pd.Series({name: 1.0}, name=name))
    (_, about), (folded, _) = shown
    assert about["image/png"]["alt"] == f"What {name} does: {name} 1."
    page = Tags(folded["text/html"])
    assert "img" not in page.tags and page.text.count(name) == 2  # a row and a column
    assert f"Figure: What {name} does: {name} 1. (the numbers)" in page.text
    written = drawn_texts(figure)
    assert set(NAMES) <= set(written) and any("mathdefault" in text for text in written)


@pytest.mark.parametrize("name", NAMES)
def test_a_widgets_page_holds_one_picture_and_the_name_as_it_is_written(name):
    page = teaching.as_html(figure_of_its_own(), f"What {name} does.", {name: 1.0})
    found = Tags(page)
    assert found.tags.count("img") == 1 and f"What {name} does." in found.text and name in found.text
    assert html.escape(name) in re.search('alt="(.*?)"', page)[1]


def test_figures_of_judged_predictions_show_names_as_they_are_written():
    changes = pd.DataFrame(np.tile(numbers(), (N, 1)), pd.MultiIndex.from_product([NAMES, [-1]]), NAMES)
    scores = pd.DataFrame({"method": "capsule", "target": NAMES, "sign": -1, "asked": "seen", "pearson_delta": 0.5,
                           "mae": numbers()})
    for figure in (figures.side_by_side({"a": changes}, {"a": changes}, N), figures.scored(scores, ["capsule"])):
        written = drawn_texts(figure)
        assert all(any(text.startswith(name) for text in written) for name in NAMES)
        assert not any(text.startswith("formula") for text in written)
    panels = drawn_texts(figures.over_real(changes, changes, [(name, -1) for name in NAMES[:2]]))
    assert f"{NAMES[1]} -1: Pearson r = 1.00" in panels


def test_pages_have_no_formulas_in_their_tables(monkeypatch):
    monkeypatch.setenv("CDT_SCREEN", "simulated")
    monkeypatch.setenv("CDT_PROFILE", "ci")
    lessons.begin("00")
    assert "tex2jax_ignore" in table()._repr_html_() and "<img" not in table()._repr_html_()


@pytest.mark.parametrize("name", NAMES)
def test_a_diagram_shows_names_as_they_are_written(name):
    diagram = figures.Diagram(f"of {name}", f"What {name} does")
    diagram.box("a", name, name, rows=[["gene", "2"], ["", name.replace("|", "/").replace("#", "")]])
    diagram.box(name.replace(":", ""), "b")
    diagram.link("a", name, label=name)
    text = Tags(sketch.render(diagram, "svg").decode()).text
    assert sum(name in part.replace("\xa0", " ") for part in text) >= 4  # title, description, box, line, label
    assert sketch.render(diagram, "png").startswith(b"\x89PNG")
    assert name in " ".join(map(str, diagram.table)) or repr(name)[1:-1] in str(diagram.table)


# ---- a model and a screen of such names


@pytest.fixture(scope="module")
def odd():
    screen = toy_screen(n_genes=N)
    renamed = dict(zip(screen.var_names, NAMES, strict=True))
    screen.var_names = NAMES
    screen.obs["target_gene"] = screen.obs["target_gene"].astype(str).replace(renamed).astype("category")
    screen.uns["screen"] = {"name": NAMES[1], "attribution": NAMES[1]}
    capsule = start(tiny("lite", n_genes=N), screen)
    capsule.trained_targets = [renamed["G3"], renamed["G5"]]
    opened(capsule.model)
    return capsule, screen


def test_measured_panels_show_names_as_they_are_written(odd):
    capsule, screen = odd
    for panel in (measured.attention_panel(*odd), measured.diffusion_panel(capsule.config, capsule, screen)):
        written = drawn_texts(panel.figure)
        assert set(panel.data["genes"]) <= set(written) and not any(text.startswith("formula") for text in written)
        plt.close(panel.figure)
    assert measured.denoising_gif(capsule, screen).startswith(b"GIF")


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_to_figures_shows_names_as_they_are_written(name):
    shown = Shown([["box", "says"]], {"a_measured.png": f"One cell of {name}"})
    page = guide(tiny("lite"), {"attention_mechanism": shown}, measured=True)
    said = re.search(r"!\[(One cell of .*)\]\(a_measured.png\)", page)[1]
    assert re.sub(r"\\([^a-z0-9\s])", r"\1", said) == f"One cell of {name}" and not re.search(r"(?<!\\)[<$|\]]", said)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_results_shows_names_as_they_are_written(name):
    rows = pd.DataFrame({"target": [name], "sign": [-1], "method": ["capsule, change"], "n_real": [10]})
    rows = rows.assign(null=False, n_changed=3.0, measured=True, pearson_delta=0.5, mae=0.1)
    lines = pages._per_target(rows, "capsule").splitlines()
    assert len(lines) == 3
    cells = re.split(r"(?<!\\)\|", lines[2])
    assert len(cells) == len(re.split(r"(?<!\\)\|", lines[1]))
    assert re.sub(r"\\([^a-z0-9\s])", r"\1", cells[1]).strip() == f"{name} -1"
    assert not re.search(r"(?<!\\)[<$]", lines[2])
