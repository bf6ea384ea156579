"""Writes `docs/errors.md` from the catalogue of errors; with `--check` only tells whether that page is current."""

from __future__ import annotations

import sys
from pathlib import Path

from tutelage.errors import CATALOGUE

PAGE = Path(__file__).with_name("errors.md")

HEADER = """\
# Errors, exit codes and gRPC statuses

Every failure that a caller may meet carries one of these codes. The command `tutelage` writes it as one line,
`error [code]: what was wrong and what to do`, to standard error and ends with the exit code beside it. *Again* says
whether the same call may succeed later although nothing about it has changed.

A service answers with the *gRPC status*. The details of that status hold a `google.rpc.ErrorInfo`: `reason` is the
code in upper case with underscores (`IMAGE_UNREADABLE`), `domain` is `tutelage`, and its metadata tells `retryable` as
`true` or `false`. What a service did not foresee is `SERVICE_FAILED`: its metadata holds an `incident`, under which
the service's log has the reason.

This page is written by `docs/generate_errors.py` from `tutelage.errors.CATALOGUE`.

| exit code | code | meaning | gRPC status | again |
| --: | --- | --- | --- | --- |
"""

FOOTER = """
Besides: 0 is success, 1 a defect of the program (a traceback is shown: please report it), 130 an interruption from the
keyboard, 141 output whose reader went away.
"""


def render() -> str:
    """Whole text of the page, rows by exit code."""
    rows = sorted((entry.exit_code, code, entry) for code, entry in CATALOGUE.items())
    lines = [
        f"| {number} | `{code}` | {entry.summary} | `{entry.status}` | {'yes' if entry.retryable else 'no'} |\n"
        for number, code, entry in rows
    ]
    return HEADER + "".join(lines) + FOOTER


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where `--check` found the page out of date."""
    if "--check" not in arguments:
        PAGE.write_text(render(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == render():
        return 0
    print(f"{PAGE.name} is out of date: run `make fmt`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
