"""What several unit tests need."""

from __future__ import annotations

from functools import partial
from importlib.metadata import EntryPoint

import pytest


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """Call the command line as a shell would: arguments in, exit code, output and errors out."""

    def call(*arguments: object, entries: tuple[EntryPoint, ...] | None = None) -> tuple[int, str, str]:
        # Here and not above: tests of other modules need not wait for the command line to be imported.
        from tutelage.cli import build_command, main  # noqa: PLC0415

        words = [str(argument) for argument in arguments]
        entry_point = main if entries is None else partial(build_command(entries).main, prog_name="tutelage")
        with pytest.raises(SystemExit) as ended:
            entry_point(words)
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call
