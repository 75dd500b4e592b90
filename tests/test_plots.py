"""Every figure function draws into the Axes it is given and says what the arrays say; the palette can be told apart."""

import warnings
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from cdt_lite.figures import plots

# Machado, Oliveira & Fernandes 2009, doi:10.1109/TVCG.2009.113, severity 1.0, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, deficiency: str) -> np.ndarray:
    """CIE L*a*b* of a colour as a person with the deficiency sees it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)
    x, y, z = (f ** (1 / 3) if f > 0.008856 else 7.787 * f + 16 / 116 for f in XYZ @ seen / XYZ.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def luminance(color: str) -> float:
    rgb = np.array(to_rgb(color))
    return float(XYZ[1] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4))


def contrast(a: str, b: str) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_are_told_apart(deficiency):
    distances = {(a, b): np.linalg.norm(lab(plots.PALETTE[a], deficiency) - lab(plots.PALETTE[b], deficiency))
                 for a, b in combinations(plots.PALETTE, 2)}
    assert min(distances.values()) > 10, min(distances, key=distances.get)  # 2.3 is a just noticeable difference


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_hidden_is_told_apart_from_every_expression(deficiency):
    for level in np.linspace(0, 1, 9):
        shade = plots.to_hex(plots.EXPRESSION(level))
        assert np.linalg.norm(lab(plots.MASK, deficiency) - lab(shade, deficiency)) > 9


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_on_its_paper(dark):
    ink, soft, paper = (plots.DARK[c] if dark else c for c in (plots.INK, plots.SOFT, plots.PAPER))
    assert contrast(ink, paper) > 10 and contrast(soft, paper) > 7  # 4.5 is asked for
    for color in plots.PALETTE.values():
        fill = plots.tint(color, 0.28, paper) if dark else plots.tint(color, 0.14)
        assert contrast(soft, fill) > 4.5
    plots.use_style(dark)
    assert plt.rcParams["figure.facecolor"] == paper and plt.rcParams["text.color"] == ink


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_numbers_are_legible_on_every_shade_of_a_heat_map(higher_is_better):
    figure, ax = plots.grid(1, 1)
    table = pd.DataFrame(np.linspace(0, 1, 60).reshape(6, 10))
    table.iloc[2, 3] = np.nan  # has no number
    plots.metric_heatmap(table, ax, higher_is_better)
    shades = ax.collections[0].get_facecolor()
    shown = [(text.get_color(), shades[10 * int(text.get_position()[1]) + int(text.get_position()[0])])
             for text in ax.texts]
    assert len(shown) == 59 and len({ink for ink, _ in shown}) == 2
    assert min(contrast(ink, plots.to_hex(shade)) for ink, shade in shown) > 4.1  # where both inks are alike
    plt.close(figure)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


FRAME = pd.DataFrame({"model": [0.9, 0.2], "control mean": [0.0, 0.1]}, index=["JAK2", "STAT1"])
CALLS = {
    "bars": lambda ax: plots.bars({"FFN": 12, "head": 3}, ax, "parameters"),
    "stacked": lambda ax: plots.stacked({"a": {"x": 1, "y": 2}, "b": {"x": 2, "z": 1}}, ax),
    "roofline": lambda ax: plots.roofline(
        pd.DataFrame({"intensity": [400.0], "share": [0.4]}, index=["FFN"]), {"H200": (989, 4800)}, ax),
    "mask_schedule": lambda ax: plots.mask_schedule({"v1": ([0, 1], [1.0, 0.0]), "cosine": ([0, 2], [1, 0])}, ax),
    "cell_heatmap": lambda ax: plots.cell_heatmap([np.array([63, 63]), np.array([63, 2])], ["JAK2", "STAT1"], ax),
    "predicted_vs_real_delta": lambda ax: plots.predicted_vs_real_delta(
        rng().normal(size=9), rng().normal(size=9), [f"G{i}" for i in range(9)], ax),
    "metric_heatmap": lambda ax: plots.metric_heatmap(FRAME, ax),
    "attention_map": lambda ax: plots.attention_map(np.full((2, 3), 1 / 3), ["a", "b"], ["x", "y", "z"], ax),
}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_each_function_draws_into_its_axes_without_a_missing_glyph(name, dark):
    plots.use_style(dark)
    figure, ax = plots.grid(1, 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph.*")
        assert CALLS[name](ax) is ax
        figure.canvas.draw()
    assert ax.has_data() and (ax.get_xlabel() or ax.get_xticklabels())
    plt.close(figure)


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_ticks_of_a_logarithmic_axis_are_plain_numbers():
    figure, ax = plots.grid(1, 1)
    ax.loglog([1, 1000], [1, 1000])
    plots.plain_ticks(ax)
    figure.canvas.draw()
    assert {"1", "10", "100", "1000"} <= {label.get_text() for label in ax.get_xticklabels()}
    plt.close(figure)


def test_bars_write_whole_numbers_out():
    _, ax = plots.grid(1, 1)
    assert texts(plots.bars({"FFN": 12_598_272, "rest": 14_776_201}, ax, "million", 1e6))[0] == "12,598,272 (46.0%)"


def test_hidden_genes_are_masked_in_the_heat_map():
    _, ax = plots.grid(1, 1)
    plots.cell_heatmap([np.array([63, 63, 63]), np.array([0, 63, 5])], ["A", "B", "C"], ax)
    shown = ax.images[0].get_array()
    assert shown.mask.tolist() == [[True, True, True], [False, True, False]]
    assert shown[1, 2] == np.log1p(5)


def test_pearson_is_numpys_and_the_largest_changes_are_named():
    real, predicted = np.array([0.0, 1.0, -2.0, 0.1]), np.array([0.1, 0.8, -1.0, 0.0])
    _, ax = plots.grid(1, 1)
    plots.predicted_vs_real_delta(real, predicted, ["A", "B", "C", "D"], ax, name=2)
    assert f"{np.corrcoef(real, predicted)[0, 1]:.2f}" in ax.get_title(loc="left") and set(texts(ax)) == {"C", "B"}


def test_alt_text_is_built_from_data():
    text = plots.alt_text("Parameters", {"FFN": 12, "head": 3.25, "norm": 1}, " M", top=2)
    assert text == "Parameters: FFN 12 M, head 3.25 M, and 1 more."


def test_names_of_neighbouring_points_do_not_cover_each_other():
    fig, ax = plt.subplots()
    real = np.array([-1.0, -0.98, -0.97, -0.2, 0.3])
    plots.predicted_vs_real_delta(real, real + 0.01, ["UBE2L6", "JAK2", "STAT1", "PSMB9", "CD86"], ax, name=5)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    places = ax.transData.transform(np.column_stack([real, real + 0.01]))
    names = ["UBE2L6", "JAK2", "STAT1", "PSMB9", "CD86"]
    for text, box in zip(ax.texts, boxes, strict=True):
        gaps = np.hypot(*np.maximum(np.maximum(box.min - places, places - box.max), 0).T)
        assert names[gaps.argmin()] == text.get_text(), "another dot is nearer"
    plt.close(fig)
