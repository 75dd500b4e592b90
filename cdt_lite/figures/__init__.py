"""Every figure, drawn from the live model. Names are loaded when they are first asked for: drawing libraries are heavy."""

from importlib import import_module
from typing import Any

HOMES = {
    "DIAGRAMS": "diagrams",
    "Diagram": "sketch",
    "account": "cost",
    "attention_weights": "measured",
    "example": "measured",
    "make_figures": "folder",
}
MODULES = ("accounting", "cost", "plots")
__all__ = [*HOMES, *MODULES]


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
