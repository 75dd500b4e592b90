"""Whether two values agree, and how to show both in a few characters."""

from typing import Any

import numpy as np
import torch

FINE, COARSE = (1e-5, 1e-8), (1e-4, 1e-5)  # relative and absolute tolerance; the coarse one where 32 bits take part
WIDTH = 30
ARRAY = torch.Tensor | np.ndarray
KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float"}


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def _is_scalar(value: Any) -> bool:
    return value.ndim == 0 if isinstance(value, ARRAY) else isinstance(value, int | float | np.number | np.bool_)


def type_name(value: Any) -> str:
    """Names a value's type as a learner would: "tensor of float (2, 3)"."""
    if isinstance(value, ARRAY):
        name = "tensor" if isinstance(value, torch.Tensor) else "array"
        dtype = _array(value).dtype
        return f"{name} of {KINDS.get(dtype.kind, dtype.name)} {tuple(value.shape)}"
    return type(value).__name__


def short(value: Any) -> str:
    """Shows a value in at most 30 characters: numbers with six digits, large arrays by type and shape."""
    if _is_scalar(value):
        number = _array(value).item()
        text = f"{number:.6g}" if isinstance(number, float) else str(number)
    elif isinstance(value, ARRAY):
        text = np.array2string(_array(value), precision=4, separator=" ", threshold=6)
        text = text if "..." not in text and len(text) <= WIDTH else type_name(value)
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
        a, b = _array(expected), _array(yours)
        if (a.dtype == bool) != (b.dtype == bool):  # a truth value is not a number
            return False, short(expected), f"{type_name(yours)}: {short(yours)}"
        return bool(_close(a, b)), short(expected), short(yours)
    if isinstance(expected, ARRAY):
        return _arrays(expected, yours)
    if isinstance(expected, list | tuple) and isinstance(yours, list | tuple | ARRAY) and not _is_scalar(yours):
        return _sequences(list(expected), list(yours))
    if isinstance(yours, type(expected)):
        return bool(expected == yours), short(expected), short(yours)
    return False, short(expected), f"{type_name(yours)}: {short(yours)}"


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Marks the entries that agree: within a tolerance where one side holds floating-point numbers, else exactly."""
    if {a.dtype.kind, b.dtype.kind} not in ({"f"}, {"f", "i"}, {"f", "u"}):
        return np.asarray(a == b)
    tolerance = COARSE if np.float32 in (a.dtype, b.dtype) else FINE
    return np.asarray(np.isclose(a, b, *tolerance, equal_nan=True))


def _arrays(expected: Any, yours: Any) -> tuple[bool, str, str]:
    if type_name(expected) != type_name(yours):
        return False, type_name(expected), type_name(yours)
    wanted, got = short(expected), short(yours)
    a, b = _array(expected), _array(yours)
    wrong = np.argwhere(~_close(a, b))
    if not len(wrong):
        return True, wanted, got
    if wanted not in (type_name(expected), got):  # small enough to be seen whole
        return False, wanted, got
    place = tuple(wrong[0].tolist())
    where = ", ".join(map(str, place))
    return False, f"at [{where}]: {short(a[place])}", f"at [{where}]: {short(b[place])}"


def _sequences(expected: list[Any], yours: list[Any]) -> tuple[bool, str, str]:
    if len(expected) != len(yours):
        return False, f"length {len(expected)}", f"length {len(yours)}"
    whole, mine = short(expected), short(yours)
    for i, (a, b) in enumerate(zip(expected, yours, strict=True)):
        same, wanted, got = compare(a, b)
        if not same and whole != mine and "..." not in whole + mine:  # short enough to be seen whole
            return False, whole, mine
        if not same:
            return False, f"entry {i}: {wanted}", f"entry {i}: {got}"
    return True, whole, mine


def changed(before: Any, after: Any) -> bool:
    """Says whether a value that was handed out came back altered, to the last bit."""
    if isinstance(before, ARRAY):
        a, b = _array(before), _array(after)
        return a.shape != b.shape or a.dtype != b.dtype or a.tobytes() != b.tobytes()
    if isinstance(before, dict):
        return list(before) != list(after) or changed(list(before.values()), list(after.values()))
    if isinstance(before, list | tuple):
        return len(before) != len(after) or any(map(changed, before, after))
    return False
