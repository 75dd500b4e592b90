"""What is to be scored, checked before anything is computed."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anndata import AnnData

from cdt_lite.errors import CDTError, suggest
from cdt_lite.evaluation.baselines import BASELINES
from cdt_lite.files import read_h5ad

TEST_SIDES = ("held_out", "unseen")  # of a split, to test on


def require_side(side: str) -> None:
    """Checks the name of a test side. Raises CDTError with close matches."""
    if side not in TEST_SIDES:
        raise CDTError(f"there is no side {side!r}{suggest(side, TEST_SIDES)}; there are {' and '.join(TEST_SIDES)}")


def require_suites(suites: Sequence[str]) -> None:
    """Checks that the field's tools are installed. Raises CDTError with the command that does it."""
    for suite in suites:
        try:
            version(suite)
        except PackageNotFoundError as error:
            raise CDTError(f"{suite} is not installed: pip install 'cdt-lite[eval]'") from error


def distinct_names(paths: Sequence[str | Path]) -> list[str]:
    """Names files by their stems, with as many folders before them as tell them apart.

    Raises:
        CDTError: A file is named twice.
    """
    parts = [Path(path).resolve().with_suffix("").parts for path in paths]
    names = []
    for path, own in zip(paths, parts, strict=True):
        others = [other for other in parts if other[-1] == own[-1]]
        length = 1
        while sum(other[-length:] == own[-length:] for other in others) > 1:
            length += 1
            if length > len(own):
                raise CDTError(f"{path} is named twice, or differs from another file in its ending only")
        names.append("/".join(own[-length:]))
    return names


def read_predicted(paths: Sequence[str | Path]) -> dict[str, AnnData]:
    """Reads predicted cells, one file a method, by distinct names. Raises CDTError for the name of a baseline."""
    predicted = {}
    for name, path in zip(distinct_names(paths), paths, strict=True):
        if name in {*BASELINES, "ceiling"}:
            raise CDTError(f"{path} has the name of a baseline, {name!r}: rename it")
        predicted[name] = read_h5ad(path)
    return predicted
