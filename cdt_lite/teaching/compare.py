"""Whether two values agree, and how to show both in a few characters."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

# relative and absolute tolerance: 16 bits, 32 bits, and finer; a float64 may have been computed from float32
TOLERANCE = {2: (1e-2, 1e-3), 4: (1e-4, 1e-5), 8: (1e-5, 1e-8)}
WIDTH = 30
KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float", "c": "complex", "U": "text", "O": "object"}


def _array(value: Any) -> np.ndarray:
    """Returns the numbers of a tensor, array, table, sparse matrix or scalar as a NumPy array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if hasattr(value, "toarray"):
        return value.toarray()
    return np.asarray(value)


def _bytes(value: Any) -> int:
    """Returns the bytes of one floating-point number, 8 where none is involved."""
    dtype = getattr(value, "dtype", None)
    floating = dtype.is_floating_point if isinstance(dtype, torch.dtype) else _array(value).dtype.kind == "f"
    size = dtype.itemsize if isinstance(dtype, torch.dtype) else _array(value).dtype.itemsize
    return min(size, 8) if floating else 8


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.generic) or (
        isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0)


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray | pd.DataFrame | pd.Series) or hasattr(value, "toarray")


def type_name(value: Any) -> str:
    """Names a value's type as a learner would: "tensor of float (2, 3)"."""
    if _is_array(value):
        kind = "sparse matrix" if hasattr(value, "toarray") else {
            "Tensor": "tensor", "ndarray": "array"}.get(type(value).__name__, type(value).__name__)
        array = _array(value)
        return f"{kind} of {KINDS.get(array.dtype.kind, array.dtype.kind)} {array.shape}"
    return "None" if value is None else type(value).__name__


def short(value: Any) -> str:
    """Shows a value in at most 30 characters: numbers with four digits, large arrays by type and shape."""
    if _is_scalar(value) and not isinstance(value, str):
        number = _array(value).item()
        text = f"{number:.6g}" if isinstance(number, float) else str(number)
    elif _is_array(value):
        array = _array(value)
        text = np.array2string(array, precision=4, separator=" ").replace("\n", "") if array.size <= 6 else ""
        text = text if 0 < len(text) <= WIDTH else type_name(value)
    elif isinstance(value, list | tuple) and len(value) <= 6:
        text = f"[{', '.join(short(v) for v in value)}]"
    elif isinstance(value, list | tuple) and all(map(_is_scalar, value)):  # NumPy's numbers, too, as plain ones
        text = f"[{', '.join(map(short, value[:WIDTH]))}]"  # it is cut below anyhow
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{k}: {short(v)}' for k, v in value.items())}}}"
    else:
        text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def compare(expected: Any, yours: Any) -> tuple[bool, str, str]:
    """Says whether two values agree, and shows both where they differ most tellingly.

    Scalars of any library compare by value. Arrays must agree in library, shape and kind of number; their precision
    only sets the tolerance. NaN equals NaN.
    """
    if _is_scalar(expected) and _is_scalar(yours):
        return _numbers(expected, yours)
    if _is_array(expected):
        return _arrays(expected, yours)
    if isinstance(expected, list | tuple) and (isinstance(yours, list | tuple) or _is_array(yours)):
        return _sequences(list(expected), list(yours) if isinstance(yours, list | tuple) else list(_array(yours)))
    if isinstance(expected, Mapping) and isinstance(yours, Mapping):
        if set(expected) != set(yours):
            return False, f"keys {short(sorted(map(str, expected)))}", f"keys {short(sorted(map(str, yours)))}"
        return _sequences(list(expected.values()), [yours[key] for key in expected])
    same = type(expected) is type(yours) and bool(expected == yours)
    told = short(yours) if isinstance(yours, type(expected)) else f"{type_name(yours)}: {short(yours)}"
    return same, short(expected), told if not same and yours is not None else short(yours)


def _close(expected: np.ndarray, yours: np.ndarray, bytes_: int) -> np.ndarray:
    """Marks the entries that agree within the tolerance of the coarser precision."""
    if "f" not in expected.dtype.kind + yours.dtype.kind and "c" not in expected.dtype.kind + yours.dtype.kind:
        return np.asarray(expected == yours)
    relative, absolute = TOLERANCE.get(bytes_, TOLERANCE[8])
    return np.asarray(np.isclose(yours, expected, rtol=relative, atol=absolute, equal_nan=True))


def _numbers(expected: Any, yours: Any) -> tuple[bool, str, str]:
    """Compares two scalars; a truth value is not a number."""
    a, b = _array(expected), _array(yours)
    if (a.dtype.kind == "b") != (b.dtype.kind == "b"):
        return False, short(expected), f"{KINDS.get(b.dtype.kind, 'other')}: {short(yours)}"
    same = bool(_close(a, b, min(_bytes(expected), _bytes(yours)))) if {a.dtype.kind, b.dtype.kind} <= set("biufc") \
        else bool(a == b)
    wanted, got = short(expected), short(yours)
    if not same and wanted == got:  # they differ beyond the digits shown
        wanted, got = repr(a.item()), repr(b.item())
    return same, wanted, got


def _arrays(expected: Any, yours: Any) -> tuple[bool, str, str]:
    """Compares arrays: library, shape and kind first, then the values."""
    wanted, got = type_name(expected), type_name(yours)
    if wanted != got:
        return False, wanted, got
    if isinstance(expected, pd.DataFrame | pd.Series) and list(expected.index) != list(yours.index):
        return False, f"index {short(list(expected.index))}", f"index {short(list(yours.index))}"
    if isinstance(expected, pd.DataFrame) and list(expected.columns) != list(yours.columns):
        return False, f"columns {short(list(expected.columns))}", f"columns {short(list(yours.columns))}"
    a, b = _array(expected), _array(yours)
    close = _close(a, b, min(_bytes(expected), _bytes(yours)))
    if close.all():
        return True, short(expected), short(yours)
    if short(expected) != wanted and short(expected) != short(yours):  # small enough to be seen whole
        return False, short(expected), short(yours)
    where = tuple(int(i) for i in np.argwhere(~close)[0])
    place = ", ".join(map(str, where))
    return False, f"at [{place}]: {a[where]:.6g}", f"at [{place}]: {b[where]:.6g}"


def _sequences(expected: list[Any], yours: list[Any]) -> tuple[bool, str, str]:
    """Compares two lists entry by entry; shows the first that differs."""
    if len(expected) != len(yours):
        return False, f"length {len(expected)}", f"length {len(yours)}"
    for i, (a, b) in enumerate(zip(expected, yours, strict=True)):
        same, wanted, got = compare(a, b)
        if not same:
            whole = short(expected), short(yours)
            return (False, *whole) if "..." not in "".join(whole) and whole[0] != whole[1] else (
                False, f"entry {i}: {wanted}", f"entry {i}: {got}")
    return True, short(expected), short(yours)


def changed(before: Any, after: Any) -> bool:
    """Says whether a value that was handed out came back altered, to the last bit."""
    if _is_array(before):
        a, b = _array(before), _array(after)
        return a.shape != b.shape or a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(before, list | tuple):
        return len(before) != len(after) or any(changed(a, b) for a, b in zip(before, after, strict=True))
    if isinstance(before, dict):
        return list(before) != list(after) or any(changed(before[key], after[key]) for key in before)
    if isinstance(before, float) and math.isnan(before):
        return False
    return isinstance(before, set | bytearray) and before != after
