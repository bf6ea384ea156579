from __future__ import annotations

import pytest

from device_sim.wording import coarse_percent, day, percent, plural, printable, seconds, size


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "–"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.517, "51.7 %"),
        (0.0056, "0.56 %"),
        (0.0004, "0.040 %"),
        (0.9997, "99.970 %"),
        (0.991, "99.10 %"),
        (0.01, "1.0 %"),
    ],
)
def test_rates_near_an_end_have_more_digits(rate: float | None, text: str):
    assert percent(rate) == text


def test_coarse_percent_has_none():
    assert (coarse_percent(0.386), coarse_percent(0.0), coarse_percent(1.0)) == ("39 %", "0 %", "100 %")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (336_000_000, "320 MiB"), (1_500_000_000, "1.4 GiB")],
)
def test_sizes_have_the_largest_unit(count: int, text: str):
    assert size(count) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0, "0.0 s"), (8.44, "8.4 s"), (59.94, "59.9 s"), (59.97, "1 min 00 s"), (125.2, "2 min 05 s")],
)
def test_durations_are_seconds_then_minutes(duration: float, text: str):
    assert seconds(duration) == text


def test_days_and_counts():
    assert (day(12), day(4.5)) == ("12", "4.5")
    assert (plural(1, "label"), plural(1200, "label"), plural(2, "pass", "passes")) == (
        "1 label",
        "1,200 labels",
        "2 passes",
    )


def test_nothing_printable_moves_a_cursor():
    assert printable("a\x1b[2Jb\x00c\u202ed\udcff") == "a�[2Jb�c�d�"
    assert printable("one\ntwo\tthree\u00a0Ω 指紋") == "one two three\u00a0Ω 指紋"
