"""What the site makes of pages and notebooks; tests/crawl.py walks through the built one."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import site


@pytest.mark.parametrize(("text", "made"), [
    ("[![Open in Colab](https://a.example/b.svg)](https://c.example)", "[Open in Colab](https://c.example)"),
    ("![a map](../figures/a.png)", "![a map](../figures/a.png)"),
    ("[home](../README.md#package)", "[home](../index.md#package)"),
    ("[kit](README.md)", "[kit](README.md)"),
    ("[copy](../workshop/student/00_a.ipynb)", "{download}`copy <../workshop/student/00_a.ipynb>`"),
    ("[copy](student/00_a.ipynb)", "{download}`copy <student/00_a.ipynb>`"),
    ("<details><summary>Hint</summary>*x*</details>", "<details><summary>Hint</summary>\n\n*x*\n\n</details>"),
    ("<summary>Hint</summary>\n\nx\n</details>", "<summary>Hint</summary>\n\nx\n</details>"),
])
def test_a_page_one_folder_down(text, made):
    assert site.shown(text, 1) == made


def test_a_link_to_the_folder_of_copies_is_one_to_every_copy():
    made = site.shown("in [student/](student), you", 1)
    assert made.startswith("in student/ ({download}`00 <student/00_") and made.endswith(">`), you")
    assert made.count("{download}") == len(site.sources())


def test_a_notebook_shows_stubs_its_files_and_the_words_of_its_pictures_and_nothing_for_instructors():
    drawn = new_code_cell("plot()", outputs=[
        new_output("display_data", {"image/png": "aGk=\n"}, metadata={"image/png": {"alt": "Bars: 1 and 2"}}),
        new_output("display_data", {"text/html": "<tr><th></th><th>a</th></tr>"}),
    ])
    solved = new_code_cell("def f(x):\n    # solution\n    return 2 * x\n    # end of solution",
                           metadata={"tags": ["exercise"]})
    hushed = new_markdown_cell("**Instructor.** Wait.", metadata={"tags": ["instructor"]})
    cells = [new_markdown_cell("# 01 · Bins\n\nText."), hushed, solved, drawn]
    made = site.page(new_notebook(cells=cells), "01_a.ipynb")
    title, stub, picture = made.cells
    assert title.source.splitlines()[0] == "# 01 · Bins" and title.source.endswith("Text.")
    assert "<../original/01_a.ipynb>" in title.source and "<../workshop/student/01_a.ipynb>" in title.source
    assert "2 * x" not in stub.source and "your code here" in stub.source
    assert picture.metadata["mystnb"] == {"image": {"alt": "Bars: 1 and 2"}}
    assert picture.outputs[1].data["text/html"] == "<tr><td></td><th>a</th></tr>"


def test_names_that_are_imported_when_used_become_plain_imports():
    source = '"""Cells."""\n__all__, a, b = lazily(__name__, {\n    "store": ["Store", "open"],\n    "plots": [],\n})\n'
    made = site.eager(source, "cdt_lite.data")
    assert made.splitlines()[1:] == ["from cdt_lite.data.store import Store, open", "__all__ = ['Store', 'open']"]
    assert site.eager("from a import b", "cdt_lite.data") == "from a import b"


def test_a_file_is_read_without_what_it_imports_from_elsewhere():
    source = "import json\nimport torch\nfrom cdt_lite.errors import (\n    CDTError,\n)\n\nx = 1"
    assert site.alone(source) == "import json\n\n\n\n\n\nx = 1"


def test_every_command_tells_its_options():
    told = site.commands()
    assert "## finetune" in told and "--gene-sets" in told and "## doctor" in told
