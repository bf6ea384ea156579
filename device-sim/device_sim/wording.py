"""How numbers and foreign text are said: the same way in the terminal, in the report and in live lines.

A dash stands for what was not measured. Rates near 0 or 1 get more digits, since that is where recognition is judged:
0.04 % and 0.4 % of strangers are two different doors.
"""

from __future__ import annotations

NOT_MEASURED = "–"
KIBI = 1024
MINUTE_S = 60.0


def percent(rate: float | None) -> str:
    """The fraction `rate` in percent, as in `48.3 %`, `0.040 %` or `0 %`; a dash for None."""
    if rate is None:
        return NOT_MEASURED
    value = rate * 100
    from_end = round(min(value, 100 - value), 6)
    digits = 0 if from_end <= 0 else 3 if from_end < 0.1 else 2 if from_end < 1 else 1
    return f"{value:.{digits}f} %"


def coarse_percent(rate: float) -> str:
    """The fraction `rate` in whole percent, as in `48 %`, for what changes while it is read."""
    return f"{rate * 100:.0f} %"


def size(count: float) -> str:
    """A number of bytes in the largest binary unit that keeps it above 1, as in `311 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < KIBI:
            return _three_digits(count, unit)
        count /= KIBI
    return _three_digits(count, "GiB")


def seconds(duration_s: float) -> str:
    """A duration as in `3.2 s` or `2 min 05 s`."""
    if round(duration_s, 1) < MINUTE_S:
        return f"{duration_s:.1f} s"
    minutes, rest = divmod(round(duration_s), 60)
    return f"{minutes} min {rest:02d} s"


def day(number: float) -> str:
    """A simulated day as in `12` or `12.5`."""
    return f"{number:.1f}".removesuffix(".0")


def plural(count: int, noun: str, many: str | None = None) -> str:
    """A count with its noun, as in `1 training`, `3 trainings` or, given `many`, `3 passes`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def printable(text: str) -> str:
    """`text` on one line, in which nothing can move a cursor, turn the writing direction or break an encoding.

    Line ends and tabs become spaces, all else of that sort becomes `�`.
    """
    return "".join(map(_printable, text))


def _printable(letter: str) -> str:
    if letter.isprintable() or letter == "\u00a0":
        return letter
    return " " if letter.isspace() else "�"


def _three_digits(count: float, unit: str) -> str:
    return f"{count:.{0 if count >= 10 or unit == 'B' else 1}f} {unit}"
