"""The house rules that a script can hold: who may import whom, how long a file may be, what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cdt_lite"
FILES = sorted(PACKAGE.rglob("*.py"))
PASSES = {"link", "call"}  # attributes of an edge in a DOT file are data; a guard hands on what its function was given


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_and_functions_stay_short(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            documentation = node.body[0] if ast.get_docstring(node) else None
            text = documentation.end_lineno - documentation.lineno + 1 if documentation else 0
            assert node.end_lineno - node.lineno + 1 - text <= 40, node.name
            unseen = node.args.kwarg is not None and node.name not in PASSES
            assert not unseen, f"{node.name} passes keyword arguments through unseen"


def test_only_the_edges_print():
    for path in FILES:
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not calls or path.stem in {"cli", "lesson", "check"}, path.name


def test_importing_the_package_imports_neither_torch_nor_scanpy():
    code = "import sys, cdt_lite; print(sorted({'torch', 'scanpy', 'anndata'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert out.stdout.strip() == "[]"


def test_the_surface_is_small_and_all_of_it_is_there():
    import cdt_lite

    assert len(cdt_lite.__all__) <= 20
    for name in cdt_lite.__all__:
        assert getattr(cdt_lite, name).__doc__ or name == "PRESETS"
    with pytest.raises(AttributeError, match="no attribute 'cdt'"):
        cdt_lite.cdt  # noqa: B018
