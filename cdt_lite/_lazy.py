"""Names that are imported when they are first used."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazily(package: str, modules: Mapping[str, Sequence[str]]) -> tuple[list[str], Callable, Callable]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package, so that importing it costs next to nothing.

    Args:
        package: The package's `__name__`.
        modules: Modules inside the package, such as "model.config", and the public names that each holds; the modules
            too are found by their names.
    """
    homes: dict[str, str] = {}
    for module, names in modules.items():
        homes.update(dict.fromkeys(names, module))

    def find(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return list(homes), find, lambda: sorted(homes)
