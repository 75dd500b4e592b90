"""Whether two values agree, and how to show both in a few characters."""

from typing import Any

import numpy as np
import torch

RELATIVE, ABSOLUTE = 1e-4, 1e-5  # tolerances for floating-point numbers, which may have been computed in 32 bits
WIDTH = 30
KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float"}


def _array(value: Any) -> np.ndarray:
    """Returns the numbers of a tensor, array or scalar as a NumPy array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.number | np.bool_) or (_is_array(value) and value.ndim == 0)


def _kind(value: Any) -> str:
    dtype = _array(value).dtype
    return KINDS.get(dtype.kind, dtype.name)


def type_name(value: Any) -> str:
    """Names a value's type as a learner would: "tensor of float (2, 3)"."""
    if _is_array(value):
        name = "tensor" if isinstance(value, torch.Tensor) else "array"
        return f"{name} of {_kind(value)} {tuple(value.shape)}"
    return "None" if value is None else type(value).__name__


def short(value: Any) -> str:
    """Shows a value in at most 30 characters: numbers with six digits, large arrays by type and shape."""
    if _is_scalar(value):
        number = _array(value).item()
        text = f"{number:.6g}" if isinstance(number, float) else str(number)
    elif _is_array(value):
        text = np.array2string(_array(value), precision=4, separator=" ") if value.size <= 6 else ""
        text = text if 0 < len(text) <= WIDTH else type_name(value)
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(short, value[:WIDTH]))}]"  # it is cut below anyhow
    else:
        text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def compare(expected: Any, yours: Any) -> tuple[bool, str, str]:
    """Says whether two values agree, and shows both where they differ most tellingly.

    Scalars of any library compare by value. Arrays must agree in library, shape and kind of number, and their numbers
    within the tolerance. NaN equals NaN.
    """
    if _is_scalar(expected) and _is_scalar(yours):
        return _scalars(expected, yours)
    if _is_array(expected):
        return _arrays(expected, yours)
    if isinstance(expected, list | tuple) and (isinstance(yours, list | tuple) or _is_array(yours)):
        return _sequences(list(expected), list(yours))
    if isinstance(yours, type(expected)):
        return bool(expected == yours), short(expected), short(yours)
    return False, short(expected), "None" if yours is None else f"{type_name(yours)}: {short(yours)}"


def _close(expected: np.ndarray, yours: np.ndarray) -> np.ndarray:
    """Marks the entries that agree: within the tolerance where one is a floating-point number, else exactly."""
    if "f" in (expected.dtype.kind, yours.dtype.kind):
        return np.isclose(yours, expected, RELATIVE, ABSOLUTE, equal_nan=True)
    return np.asarray(expected == yours)


def _scalars(expected: Any, yours: Any) -> tuple[bool, str, str]:
    """Compares two scalars; a truth value is not a number."""
    wanted, got = short(expected), short(yours)
    kinds = _kind(expected), _kind(yours)
    if (kinds[0] == "bool") != (kinds[1] == "bool"):
        return False, wanted, f"{kinds[1]}: {got}"
    a, b = _array(expected), _array(yours)
    same = bool(_close(a, b))
    if not same and wanted == got:  # they differ beyond the digits shown
        return False, repr(a.item()), repr(b.item())
    return same, wanted, got


def _arrays(expected: Any, yours: Any) -> tuple[bool, str, str]:
    """Compares arrays: library, shape and kind first, then the values."""
    if type_name(expected) != type_name(yours):
        return False, type_name(expected), type_name(yours)
    a, b = _array(expected), _array(yours)
    wrong = np.argwhere(~_close(a, b))
    wanted, got = short(expected), short(yours)
    if not len(wrong):
        return True, wanted, got
    if wanted not in (type_name(expected), got):  # small enough to be seen whole
        return False, wanted, got
    place = tuple(wrong[0].tolist())
    where = ", ".join(map(str, place))
    return False, f"at [{where}]: {a[place]:.6g}", f"at [{where}]: {b[place]:.6g}"


def _sequences(expected: list[Any], yours: list[Any]) -> tuple[bool, str, str]:
    """Compares two lists entry by entry; shows them whole if they fit, else the first entry that differs."""
    if len(expected) != len(yours):
        return False, f"length {len(expected)}", f"length {len(yours)}"
    whole, mine = short(expected), short(yours)
    for i, (a, b) in enumerate(zip(expected, yours, strict=True)):
        same, wanted, got = compare(a, b)
        if same:
            continue
        if whole == mine or "..." in whole + mine:
            return False, f"entry {i}: {wanted}", f"entry {i}: {got}"
        return False, whole, mine
    return True, whole, mine


def changed(before: Any, after: Any) -> bool:
    """Says whether a value that was handed out came back altered, to the last bit."""
    if _is_array(before):
        a, b = _array(before), _array(after)
        return a.shape != b.shape or a.dtype != b.dtype or a.tobytes() != b.tobytes()
    if isinstance(before, dict):
        return list(before) != list(after) or changed(list(before.values()), list(after.values()))
    if isinstance(before, list | tuple):
        return len(before) != len(after) or any(map(changed, before, after))
    return False
