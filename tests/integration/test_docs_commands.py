"""Every command that a page shows exists and takes the words it is shown with."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from shown_commands import PAGES, ROOT, commands_of, is_synopsis

from tutelage.cli import COMMAND_GROUP, build_command

SHELL = re.compile(r" \| | && | \d?> ?|; ")
"""Where a command of ours ends and the shell goes on."""
SHOWN = [(page.name, line) for page in PAGES for line in commands_of(page)]


def only(*starts: str) -> list[tuple[str, str]]:
    return [(page, line) for page, line in SHOWN if line.removeprefix(".venv/bin/").startswith(starts)]


def test_pages_show_commands_of_every_kind() -> None:
    assert {"make demo", "make test"} <= {line for page, line in SHOWN if page == "README.md"}
    assert only("tutelage ")
    assert only("python ")


@pytest.mark.parametrize(("page", "line"), only("make "))
def test_make_knows_the_target_of_a_shown_command(page: str, line: str) -> None:
    found = subprocess.run(
        ["make", "-n", *shlex.split(SHELL.split(line, maxsplit=1)[0])[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, f"{page}: {line}: {found.stderr}"


@pytest.mark.parametrize(("page", "line"), only("tutelage "))
def test_a_command_takes_the_words_it_is_shown_with(page: str, line: str) -> None:
    words = shlex.split(SHELL.split(line, maxsplit=1)[0])[1:]
    command = build_command(entry_points(group=COMMAND_GROUP))
    while hasattr(command, "get_command"):
        found = command.get_command(None, words[0])
        assert found is not None, f"{page}: {line}"
        command, words = found, words[1:]
    if is_synopsis(line):
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= known, f"{page}: {line}"
    else:
        command.make_context("tutelage", words)  # reads and checks every word, and runs nothing


@pytest.mark.parametrize(("page", "line"), only("python "))
def test_a_script_takes_the_options_it_is_shown_with(page: str, line: str, monkeypatch, capsys) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "-m":
        main, words = importlib.import_module(words[1]).main, words[2:]
    else:
        monkeypatch.syspath_prepend((ROOT / words[0]).parent)
        main, words = runpy.run_path(str(ROOT / words[0]), run_name="shown")["main"], words[1:]
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    helped = capsys.readouterr().out
    missing = [word for word in words if word.startswith("--") and word.split("=")[0] not in helped]
    assert not missing, f"{page}: {line}"
