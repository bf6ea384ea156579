"""The environment becomes typed, checked settings, or one message that names every variable that is off."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest

from tutelage.errors import CATALOGUE, Code, SettingsError
from tutelage.settings import Address, Range, Secret, read_settings, settings_or_exit, settings_table
from tutelage.tls import ClientTls, ServerTls


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Store:
    address: Address
    """Where the store is."""
    password: Secret | None = None
    """What opens it."""


@dataclass(frozen=True)
class Everything:
    """All kinds of fields."""

    store: Store
    """What is read and written."""
    workers: Annotated[int, Range(1, 8)] = 2
    """Threads that work."""
    rate: float = 0.5
    """Share of | things."""
    quiet: bool = False
    """Whether nothing is said."""
    folder: Path | None = None
    """Where files lie."""
    pause: Annotated[timedelta, Range(0.1)] = timedelta(seconds=1.5)
    """Seconds between two
    looks."""
    colour: Colour = Colour.RED
    """Which it is."""
    names: tuple[str, ...] = ()
    """Who takes part."""
    tls: ServerTls = field(default_factory=ServerTls)
    """How it is proven."""

    def __post_init__(self) -> None:
        if self.quiet and self.workers > 4:
            raise ValueError("quiet takes at most 4 workers")


NEEDED = {"TUTELAGE_STORE_ADDRESS": "redis:6379"}


def test_what_is_absent_or_empty_has_its_default():
    expected = Everything(Store(Address("redis", 6379)))
    assert read_settings(Everything, NEEDED) == expected
    assert read_settings(Everything, {**NEEDED, "TUTELAGE_WORKERS": " ", "OTHER": "x"}) == expected


def test_every_kind_of_field_is_read(tmp_path: Path):
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")
    found = read_settings(
        Everything,
        {
            "TUTELAGE_STORE_ADDRESS": "[::1]:0",
            "TUTELAGE_STORE_PASSWORD_FILE": str(secret),
            "TUTELAGE_WORKERS": "8",
            "TUTELAGE_RATE": "1e-3",
            "TUTELAGE_QUIET": "No",
            "TUTELAGE_FOLDER": "/data",
            "TUTELAGE_PAUSE": "0.25",
            "TUTELAGE_COLOUR": "blue",
            "TUTELAGE_NAMES": "a, b,",
            "TUTELAGE_TLS_CERTIFICATE_FILE": "/c",
            "TUTELAGE_TLS_KEY_FILE": "/k",
        },
    )
    assert found == Everything(
        Store(Address("[::1]", 0), Secret(b"open sesame")),
        8,
        0.001,
        False,
        Path("/data"),
        timedelta(milliseconds=250),
        Colour.BLUE,
        ("a", "b"),
        ServerTls(Path("/c"), Path("/k")),
    )
    assert "sesame" not in f"{found} {found!r} {found.store.password}"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("STORE_ADDRESS", "redis", "host:port"),
        ("STORE_ADDRESS", "::1:80", "host:port"),
        ("STORE_ADDRESS", "a:70000", "host:port"),
        ("STORE_ADDRESS", ":80", "host:port"),
        ("WORKERS", "9", "1 to 8"),
        ("WORKERS", "two", "invalid literal"),
        ("RATE", "nan", "finite"),
        ("QUIET", "maybe", "true or false"),
        ("PAUSE", "0", "at least 0.1"),
        ("PAUSE", "1e300", "."),
        ("COLOUR", "green", "red, blue"),
        ("STORE_PASSWORD_FILE", "/no/such/file", "could not be read"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(name: str, value: str, why: str):
    with pytest.raises(SettingsError, match=why) as caught:
        read_settings(Everything, {**NEEDED, f"TUTELAGE_{name}": value})
    assert f"TUTELAGE_{name} is {value!r}" in caught.value.message


def test_all_that_is_off_is_told_at_once():
    with pytest.raises(SettingsError) as caught:
        read_settings(Everything, {"TUTELAGE_WORKERS": "0", "TUTELAGE_COLOUR": "x", "TUTELAGE_TLS_KEY_FILE": "/k"})
    for name in ("TUTELAGE_STORE_ADDRESS is missing", "TUTELAGE_WORKERS", "TUTELAGE_COLOUR", "TUTELAGE_TLS_*"):
        assert name in caught.value.message


def test_a_rule_between_fields_is_told():
    with pytest.raises(SettingsError, match="at most 4 workers"):
        read_settings(Everything, {**NEEDED, "TUTELAGE_QUIET": "1", "TUTELAGE_WORKERS": "5"})


@pytest.mark.parametrize("content", [b"", b"\n", bytes(100_000)])
def test_a_secret_that_is_none_is_refused_without_showing_it(content: bytes, tmp_path: Path):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(SettingsError, match="1 to 65536 bytes"):
        read_settings(Everything, {**NEEDED, "TUTELAGE_STORE_PASSWORD_FILE": str(tmp_path / "s")})


def test_a_program_with_bad_settings_ends_in_the_documented_code(capsys):
    with pytest.raises(SystemExit) as ended:
        settings_or_exit(Everything, {})
    assert ended.value.code == CATALOGUE[Code.SETTING_INVALID].exit_code
    assert "error [setting-invalid]: TUTELAGE_STORE_ADDRESS is missing" in capsys.readouterr().err


def test_the_table_has_a_row_for_every_variable():
    rows = settings_table(Everything).splitlines()[2:]
    assert rows[:4] == [
        "| `TUTELAGE_STORE_ADDRESS` | required | Where the store is. |",
        "| `TUTELAGE_STORE_PASSWORD_FILE` |  | What opens it. |",
        "| `TUTELAGE_WORKERS` | `2` | Threads that work. Range: 1 to 8. |",
        "| `TUTELAGE_RATE` | `0.5` | Share of \\| things. |",
    ]
    assert "| `TUTELAGE_PAUSE` | `1.5` | Seconds between two looks. Range: at least 0.1. |" in rows
    assert len(rows) == 12


def own_settings() -> list[type]:
    found: list[type] = [ClientTls, ServerTls]
    if pytest.importorskip("grpc"):
        from tutelage.channel import ChannelSettings  # noqa: PLC0415
        from tutelage.metrics import MetricsSettings  # noqa: PLC0415
        from tutelage.server import ServerSettings  # noqa: PLC0415

        found += [ChannelSettings, MetricsSettings, ServerSettings]
    return found


def test_every_field_of_our_settings_says_what_it_means():
    for kind in own_settings():
        rows = settings_table(kind).splitlines()[2:]
        assert all(len(row.split("|")[3].split()) >= 4 for row in rows), kind
        for item in dataclasses.fields(kind):
            assert f"TUTELAGE_{item.name.upper()}" in "\n".join(rows)
