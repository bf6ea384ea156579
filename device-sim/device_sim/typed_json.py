"""JSON values as frozen dataclasses, and back: the annotations of the fields are the schema.

Known are dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `Literal`, `X | None`, `str`, `bool`, `int`, `float`, `Any`,
and `Annotated[X, Bounds(low, high)]` for numbers with a range. Fields that are missing or unknown, other types and
numbers that are not finite are refused with the place where they were met.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from tutelage.errors import UsageError


@dataclass(frozen=True)
class Bounds:
    """Range of a number, ends included."""

    low: float
    """Lowest value that passes."""
    high: float = math.inf
    """Highest value that passes."""


def plain(value: Any) -> Any:
    """JSON's own types for dataclasses, sequences, mappings and numbers of numpy in `value`."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def typed(kind: Any, value: Any, where: str) -> Any:
    """`value`, as `json.loads` gives it, as an instance of `kind`; `where` names it in refusals.

    Raises:
        UsageError: it is not of that kind.
    """
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    reader = _READERS.get(get_origin(kind) or kind)
    if reader is None:
        raise TypeError(f"no way to read a {kind}")
    return reader(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _refusal(where, "an object", value)
    names = {field.name for field in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    for problem, found in (("lacks", needed - value.keys()), ("has unknown", value.keys() - names)):
        if found:
            raise UsageError(f"{where} {problem} {', '.join(sorted(map(str, found)))}")
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{name: typed(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _refusal(where, "a list", value)
    item_kind = get_args(kind)[0]
    return tuple(typed(item_kind, item, f"{where}[{number}]") for number, item in enumerate(value))


def _mapping(kind: Any, value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _refusal(where, "an object", value)
    item_kind = get_args(kind)[1]
    return {key: typed(item_kind, item, f"{where}[{key!r}]") for key, item in value.items()}


def _annotated(kind: Any, value: Any, where: str) -> Any:
    base, bounds = get_args(kind)
    number = typed(base, value, where)
    if not bounds.low <= number <= bounds.high:
        raise _refusal(where, f"a number from {bounds.low:g} to {bounds.high:g}", value)
    return number


def _union(kind: Any, value: Any, where: str) -> Any:
    (present,) = (option for option in get_args(kind) if option is not type(None))
    return None if value is None else typed(present, value, where)


def _literal(kind: Any, value: Any, where: str) -> Any:
    words = get_args(kind)
    if value not in words:
        raise _refusal(where, f"one of {', '.join(words)}", value)
    return value


def _any(_: Any, value: Any, where: str) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{where} holds what JSON cannot carry: {error}") from error
    return value


def _text(_: Any, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _refusal(where, "a text", value)
    return value


def _flag(_: Any, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _refusal(where, "true or false", value)
    return value


def _whole(_: Any, value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal(where, "a whole number", value)
    return value


def _number(_: Any, value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _refusal(where, "a finite number", value)
    return float(value)


def _refusal(where: str, wanted: str, value: Any) -> UsageError:
    return UsageError(f"{where} must be {wanted}, not {str(value)[:60]!r}")


_READERS: Mapping[Any, Callable[[Any, Any, str], Any]] = MappingProxyType(
    {
        Annotated: _annotated,
        Union: _union,
        UnionType: _union,
        Literal: _literal,
        Mapping: _mapping,
        tuple: _tuple,
        Any: _any,
        str: _text,
        bool: _flag,
        int: _whole,
        float: _number,
    }
)
