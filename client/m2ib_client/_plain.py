"""Turns results into values that JSON can carry; knows no result by name."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

PlainValue: TypeAlias = "bool | int | float | str | list[PlainValue] | dict[str, PlainValue] | None"


def plain(value: Any) -> PlainValue:
    """Return the value as JSON-safe lists, dicts and scalars.

    Arrays become nested lists, values that are not finite become None, named tuples and dataclasses become
    dicts. Pictures (bytes) are left out of the dicts: JSON has no form for them.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    fields = _fields(value)
    if fields is not None:
        return {name: plain(entry) for name, entry in fields.items() if not isinstance(entry, bytes)}
    return [plain(entry) for entry in value]


def _fields(value: Any) -> Mapping[str, Any] | None:
    """Return what has names of its own by name; None for a plain sequence."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    return None


def _plain_array(array: "np.ndarray[Any, Any]") -> PlainValue:
    nested: list[PlainValue] = array.tolist()
    return nested if np.isfinite(array).all() else plain(nested)
