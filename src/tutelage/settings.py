"""Settings: the environment, read once into frozen dataclasses that nothing else has to know the variables of.

A program calls `settings_or_exit(ItsSettings, os.environ)` first thing and hands the result, or parts of it, to
constructors; those never read the environment. A field's variable is its name in capitals after `TUTELAGE_`; a field
that is itself settings gives its name to the variables of its own fields: `server.tls.key_file` is
`TUTELAGE_SERVER_TLS_KEY_FILE`. An empty variable counts as absent. Secrets are never values of variables, which other
processes and crash reports can show: the variable of a `Secret` ends in `_FILE` and names a file that holds it.

What a field means, its unit and its default stand in the docstring below it; `settings_table` makes a README's table of
them. No variable ends in `_PORT` or `_HOST`: Kubernetes puts such variables of its own into every container.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from datetime import timedelta
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from tutelage.errors import SettingsError, TutelageError
from tutelage.files import read_bytes

__all__ = ["PREFIX", "Address", "Range", "Secret", "read_settings", "settings_or_exit", "settings_table"]

PREFIX = "TUTELAGE_"
"""What the names of all variables begin with."""

MAX_SECRET_BYTES = 64 * 1024
"""A secret is a key or a password; a larger file was named by mistake."""

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_MAX_PORT = 65_535

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number or of a duration in seconds, both included: `Annotated[int, Range(1, 8)]`."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.least:g}" if math.isinf(self.most) else f"{self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Address:
    """A host and a TCP port, written `host:port`; an IPv6 host in brackets. Port 0 lets a server take any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that `text` writes.

        Raises:
            ValueError: It is none.
        """
        host, colon, port = text.rpartition(":")
        bare = host.startswith("[") == host.endswith("]") and (":" not in host or host.startswith("["))
        if not colon or not host.strip("[]") or not bare or not port.isdecimal() or int(port) > _MAX_PORT:
            raise ValueError("write host:port, an IPv6 host in brackets")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Secret:
    """Bytes that are never shown; whoever needs them asks for `value`."""

    value: bytes = field(repr=False)

    def __str__(self) -> str:
        return "<secret>"

    def __repr__(self) -> str:
        return "<secret>"


def settings_or_exit(kind: type[T], environ: Mapping[str, str], prefix: str = PREFIX) -> T:
    """`read_settings`, for the first line of a program: what is wrong goes to standard error.

    Raises:
        SystemExit: With the exit code of `setting-invalid` in docs/errors.md.
    """
    try:
        return read_settings(kind, environ, prefix)
    except TutelageError as error:
        _exit(error)


def _exit(error: TutelageError) -> NoReturn:
    sys.stderr.write(f"error [{error.code}]: {error.message}\n")
    raise SystemExit(error.exit_code) from error


def read_settings(kind: type[T], environ: Mapping[str, str], prefix: str = PREFIX) -> T:
    """An instance of the dataclass `kind` from the variables of `environ` that begin with `prefix`.

    Raises:
        SettingsError: Variables are missing or bad; all of them are named, with their values, in one message.
    """
    problems: list[str] = []
    found = _read(kind, environ, prefix, problems)
    if problems:
        raise SettingsError("; ".join(problems))
    return found


def _read(kind: type[T], environ: Mapping[str, str], prefix: str, problems: list[str]) -> T:
    """An instance of `kind`; None, which the caller must not use, where `problems` were added."""
    before = len(problems)
    values: dict[str, Any] = {}
    for row in _rows(kind, prefix):
        if row.nested is not None:
            values[row.name] = _read(row.nested, environ, row.variable + "_", problems)
        elif (text := environ.get(row.variable, "").strip()) != "":
            _keep(values, row, text, problems)
        elif row.required:
            problems.append(f"{row.variable} is missing: {row.meaning}")
    if len(problems) > before:
        return None  # type: ignore[return-value]
    try:
        return kind(**values)
    except ValueError as error:  # a rule between several fields
        problems.append(f"{prefix}*: {error}")
        return None  # type: ignore[return-value]


def _keep(values: dict[str, Any], row: _Row, text: str, problems: list[str]) -> None:
    try:
        values[row.name] = row.parse(text)
    except (ValueError, OverflowError) as error:
        problems.append(f"{row.variable} is {text!r}: {error}")
    except TutelageError as error:
        problems.append(f"{row.variable} is {text!r}: {error.message}")


@dataclass(frozen=True)
class _Row:
    """One field of settings: where it is read from and how."""

    name: str
    variable: str
    meaning: str
    hint: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def nested(self) -> Any:
        """The dataclass of settings that this field holds, or None."""
        own = isinstance(self.hint, type) and dataclasses.is_dataclass(self.hint)
        return self.hint if own and self.hint not in (Address, Secret) else None

    def parse(self, text: str) -> Any:
        return _parse(self.hint, text)


def _rows(kind: type, prefix: str) -> Iterator[_Row]:
    hints = get_type_hints(kind, include_extras=True)
    meanings = _docstrings(kind)
    for item in dataclasses.fields(kind):
        hint = _without_none(hints[item.name])
        variable = prefix + item.name.upper() + ("_FILE" if hint is Secret else "")
        default = item.default if item.default_factory is MISSING else item.default_factory()
        yield _Row(item.name, variable, meanings.get(item.name, ""), hint, default)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return hint


def _parse(hint: Any, text: str) -> Any:
    """What `text` means for a field of the type `hint`; ValueError says what it should look like."""
    if get_origin(hint) is Annotated:
        inner, bounds = get_args(hint)
        return _within(bounds, _parse(inner, text))
    if get_origin(hint) is tuple:
        return tuple(_parse(get_args(hint)[0], part.strip()) for part in text.split(",") if part.strip())
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, text)
    return _PARSERS[hint](text)


def _within(bounds: Range, value: Any) -> Any:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not bounds.least <= number <= bounds.most:
        raise ValueError(f"it must be {bounds}")
    return value


def _member(kind: type[Enum], text: str) -> Enum:
    words = {str(member.value): member for member in kind}
    if text not in words:
        raise ValueError(f"use one of {', '.join(words)}")
    return words[text]


def _flag(text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise ValueError("use true or false")
    return text.lower() in _YES


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("use a finite number")
    return value


def _secret(text: str) -> Secret:
    content = read_bytes(Path(text), at_most=MAX_SECRET_BYTES + 1)
    if not content.strip() or len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"the file must hold 1 to {MAX_SECRET_BYTES} bytes")
    return Secret(content.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: _number,
    bool: _flag,
    Path: Path,
    Address: Address.parse,
    Secret: _secret,
    timedelta: lambda text: timedelta(seconds=_number(text)),
}


def settings_table(kind: type, prefix: str = PREFIX) -> str:
    """A Markdown table of every variable that `kind` reads: variable, default, meaning."""
    rows = [f"| `{row.variable}` | {_shown(row)} | {_meaning(row)} |" for row in _leaves(kind, prefix)]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def _leaves(kind: type, prefix: str) -> Iterator[_Row]:
    for row in _rows(kind, prefix):
        if row.nested is None:
            yield row
        else:
            yield from _leaves(row.nested, row.variable + "_")


def _shown(row: _Row) -> str:
    if row.required:
        return "required"
    if row.default is None or row.default == ():
        return ""
    value = row.default
    if isinstance(value, timedelta):
        value = f"{value.total_seconds():g}"
    elif isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"`{value}`"


def _meaning(row: _Row) -> str:
    bounds = get_args(row.hint)[1] if get_origin(row.hint) is Annotated else None
    text = " ".join(row.meaning.split()).replace("|", "\\|")
    return f"{text} Range: {bounds}." if bounds else text


def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field of `kind` and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, below in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = _text(below)
                if text is not None:
                    found[statement.target.id] = text
    return found


def _text(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return None
