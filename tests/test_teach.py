"""What every notebook uses: the set-up line, figures with words, the report."""

import base64
import warnings
from io import BytesIO
from unittest.mock import MagicMock

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from cdt_lite import teaching
from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.figures.sketch import Diagram
from cdt_lite.teaching import lesson as teach


def test_the_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("CDT_PROFILE", raising=False)
    assert teach.profile_name() == "laptop"
    monkeypatch.setenv("CDT_PROFILE", "ci")
    assert teach.profile_name() == "ci"
    monkeypatch.setenv("CDT_PROFILE", "labtop")
    with pytest.raises(CDTError, match="'laptop'"):
        teach.profile_name()


def test_a_lesson_says_what_it_found_and_picks_by_profile(monkeypatch, capsys):
    monkeypatch.setenv("CDT_SCREEN", "simulated")
    monkeypatch.setenv("CDT_PROFILE", "ci")
    lesson = teach.begin("04")
    assert lesson.pick(ci=1, laptop=2, gpu=3) == 1 and lesson.screen.n_obs
    lesson.report()
    out = capsys.readouterr().out
    assert "Notebook 04 | profile ci" in out and "simulated" in out and "peak memory" in out and "scanpy" in out


def test_what_libraries_tell_programmers_does_not_land_in_a_notebook(monkeypatch):
    monkeypatch.setenv("CDT_SCREEN", "simulated")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")  # as IPython begins
        teach.begin("04")
        for kind in (DeprecationWarning, FutureWarning, UserWarning, CDTWarning):
            warnings.warn_explicit(kind.__name__, kind, "cell", 1, module="__main__")
    assert [str(warning.message) for warning in shown] == ["UserWarning", "CDTWarning"]


# ---- figures with words


PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")


@pytest.fixture
def lesson():
    return teach.Lesson("03", "ci", "cpu", ad.AnnData(np.zeros((1, 1))))


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would be sent: [(data, metadata), ...]."""
    sent = []
    monkeypatch.setattr("IPython.core.getipython.get_ipython", MagicMock())
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata=None: sent.append((data, metadata)))
    return sent


def test_a_figure_is_shown_once_with_alt_text_and_then_its_numbers(lesson, shown):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    lesson.show(figure, 'Counts, "a" < b:\n 1 and 2.', {"x": [0, 1], "y": [1.23456, 2.0]})
    assert not plt.fignum_exists(figure.number)  # else the notebook would show it again
    (picture, about), (folded, _) = shown
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert about["image/png"]["alt"] == 'Counts, "a" < b: 1 and 2.'
    page = folded["text/html"]
    assert page.startswith("<details><summary>Figure: Counts, &quot;a&quot; &lt; b: 1 and 2. (the numbers)</summary>")
    assert page.count("<tr") == 3 and "1.235" in page and page.endswith("</details>")
    assert folded["text/plain"] == 'Counts, "a" < b: 1 and 2.'


@pytest.mark.parametrize("table, rows", [({"a": 1, "b": 2.5}, 2), (pd.Series({"a": 1}), 1),
                                         (pd.DataFrame({"a": [1, 2, 3]}), 3), ({"a": [1, 2], "b": [3, 4]}, 2)])
def test_numbers_come_as_a_table_a_series_or_a_dict(lesson, shown, table, rows):
    lesson.show(PNG, "One grey dot, value 0.", table)
    assert shown[1][0]["text/html"].count("<tr") == rows + 1


def test_pictures_of_every_kind_are_taken_and_wide_ones_are_shown_narrower(lesson, shown):
    diagram = Diagram("d", "Two boxes")
    diagram.box("a", "A"), diagram.box("b", "B" * 200), diagram.link("a", "b")
    gif = BytesIO()
    Image.new("L", (2, 2)).save(gif, "gif")
    for picture in (diagram, PNG, gif.getvalue()):
        lesson.show(picture, "Some picture or other.", {"a": 1})
    kinds = [next(iter(about)) for _, about in shown[::2]]
    assert kinds == ["image/png", "image/png", "image/gif"]
    assert shown[0][1]["image/png"]["width"] == 900 and shown[2][1]["image/png"]["width"] == 1


@pytest.mark.parametrize("figure, text, table, told", [
    (PNG, " ", {"a": 1}, "alt text"), (PNG, "A dot.", {}, "numbers"), (PNG, "A dot.", pd.DataFrame(), "numbers"),
    (PNG, "A dot.", [1, 2], "not list"), ("<svg></svg>", "A dot.", {"a": 1}, "give the Diagram"),
    (b"JFIF", "A dot.", {"a": 1}, "PNG or GIF"), (b"\x89PNG broken", "A dot.", {"a": 1}, "can be read"),
    (None, "A dot.", {"a": 1}, "not a NoneType"),
])
def test_what_is_no_figure_or_comes_without_words_is_refused(lesson, shown, figure, text, table, told):
    with pytest.raises(CDTError, match=told):
        lesson.show(figure, text, table)
    assert not shown


def test_without_a_notebook_the_words_are_printed(lesson, capsys):
    lesson.show(PNG, "One grey dot, value 0.", {"a": 1})
    assert capsys.readouterr().out == "Figure: One grey dot, value 0.\n"


def test_a_notebook_imports_from_the_folder():
    assert {"Lesson", "as_html", "begin", "catch_up", "check", "with_bar"} <= set(teaching.__all__)
    assert all(callable(getattr(teaching, name)) for name in teaching.__all__)  # `check` is also the name of a file
