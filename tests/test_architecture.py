"""The house rules that a script can hold: who may import whom, how long a file may be, what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cdt_lite"
FILES = sorted(PACKAGE.glob("*.py"))
LESSONS = sorted((PACKAGE / "exercises").glob("*.py"))  # machinery, and ex00.py to ex06.py
MACHINERY = {  # of the exercises; an exNN.py may import any room
    "__init__": set(), "compare": set(), "progress": set(), "guard": {"compare"},
    "engine": {"compare", "guard", "progress"},
}
EDGES = {
    "errors": "", "config": "errors", "vocabulary": "config errors", "tokenizer": "config errors", "layers": "",
    "conditioning": "config errors layers", "control_set": "config layers",
    "model": "conditioning config control_set errors layers tokenizer", "schedule": "errors",
    "diffusion": "config errors schedule",
    "checkpoint": "__init__ config errors model tokenizer vocabulary",
    "data": "conditioning config errors tokenizer vocabulary", "simulate": "errors", "screens": "data errors simulate",
    "gene_vectors": "checkpoint data errors", "options": "config",
    "effects": "baselines conditioning data tokenizer",
    "training": "__init__ checkpoint config data diffusion effects errors gene_vectors model vocabulary",
    "prediction": "__init__ checkpoint conditioning data diffusion errors metrics training",
    "differential": "errors", "metrics": "differential errors", "baselines": "differential errors metrics",
    "reading": "errors", "scoring": "differential errors metrics reading", "summary": "errors",
    "evaluation": "baselines differential errors metrics reading scoring summary",
    "capsule": "__init__ checkpoint config data errors screens simulate training",
    "quality": "checkpoint conditioning data diffusion errors metrics prediction summary tokenizer training",
    "tasks": "__init__ baselines checkpoint conditioning data effects errors evaluation prediction quality",
    "results": "adapters capsule checkpoint data errors evaluation metrics screens summary tasks",
    "adapters": "errors metrics reading",
}
DRAWING = {"accounting", "diagrams", "figures", "guide", "measured", "mechanisms", "plots", "products", "sketch",
           "trace"}
REPORTING = {"adapters", "quality", "results", "tasks"}  # the report: every method, every task, one page
FREE = {"__init__", "teach", "doctor", "cli"} | DRAWING  # they may import any room
PASSES = {"link", "call"}  # attributes of an edge in a DOT file are data; a guard hands on what its function was given


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports when it is loaded (not inside functions or for type checkers)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "cdt_lite":
            submodules = {p.stem for p in FILES}
            found |= {a.name if a.name in submodules else "__init__" for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cdt_lite."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_rooms_import_only_what_they_may(path):
    if path.stem in FREE:
        return
    assert path.stem in EDGES, f"a new room: say in EDGES what {path.stem} may import"
    assert imports(path) <= set(EDGES[path.stem].split())


def test_the_machinery_of_the_exercises_stands_alone():
    """It knows the package's errors and its own parts; no room but `teach` knows the exercises."""
    machinery = {path.stem: path for path in LESSONS if not path.stem.startswith("ex")}
    assert set(machinery) == set(MACHINERY)
    for name, path in machinery.items():
        modules = [n.module for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                   if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("cdt_lite")]
        own = {"cdt_lite", "cdt_lite.errors", "cdt_lite.exercises"} | {f"cdt_lite.exercises.{m}"
                                                                       for m in MACHINERY[name]}
        assert set(modules) <= own, name
    assert [p.stem for p in FILES if "cdt_lite.exercises" in p.read_text(encoding="utf-8")] == ["teach"]


@pytest.mark.parametrize("path", FILES + LESSONS, ids=lambda p: p.stem)
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


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    source = path.read_text(encoding="utf-8")
    documented = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(1 for i, line in enumerate(source.splitlines(), 1)
               if i not in documented and line.strip() and not line.strip().startswith("#"))


def test_the_package_stays_small():
    assert sum(code_lines(p) for p in FILES if p.stem not in DRAWING | REPORTING) < 3600
    assert sum(code_lines(p) for p in FILES if p.stem in REPORTING) < 650
    assert sum(code_lines(p) for p in FILES if p.stem in DRAWING) < 1700  # what draws and counts the original's figures
    assert sum(code_lines(p) for p in LESSONS if p.stem in MACHINERY) < 600
    assert sum(code_lines(p) for p in LESSONS if p.stem not in MACHINERY) < 1600


def test_only_the_edges_print():
    for path in FILES + LESSONS:
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not calls or path.stem in {"cli", "teach", "engine"}, path.name


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
