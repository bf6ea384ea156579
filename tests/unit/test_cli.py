"""The command line: exit codes, one readable line a failure, commands from entry points."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tutelage import __version__
from tutelage.cli import COMMAND_GROUP
from tutelage.errors import CATALOGUE, Code

PLUGIN = '''
"""Commands that a test brings."""
import time

import typer

from tutelage.errors import Code, TutelageError


def greet(name: str, loud: bool = False) -> None:
    """Say hello."""
    typer.echo(f"hello {name}{'!' if loud else ''}")


def fail(code: str) -> None:
    """Fail as told."""
    raise TutelageError(Code(code), "what was wrong: what to do")


def interrupt() -> None:
    """Stop like Ctrl-C."""
    raise KeyboardInterrupt


def defect() -> None:
    """Meet a bug."""
    key = "secret-" * 2
    raise ZeroDivisionError("a bug")


def sleep() -> None:
    """Wait for Ctrl-C."""
    print("asleep", flush=True)
    time.sleep(60)


def whisper() -> None:
    """Write one line once told to."""
    input()
    print("one line")


def flood() -> None:
    """Write until nobody reads."""
    for number in range(1_000_000):
        print(number)


group = typer.Typer()
group.command("one")(greet)
group.command("two")(fail)
'''


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make entry points into a module that only this test can import."""
    tmp_path.joinpath("planted_commands.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_commands", raising=False)
    return lambda name, value=None: EntryPoint(name, f"planted_commands:{value or name}", COMMAND_GROUP)


@pytest.fixture
def start(entry, tmp_path: Path):
    """Call one planted command in a process of its own, where signals and pipes are real."""

    def call(name: str) -> subprocess.Popen[str]:
        code = (
            "import signal; from importlib.metadata import EntryPoint; from tutelage.cli import build_command\n"
            # A shell's background job inherits that interruptions are ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"build_command([EntryPoint({name!r}, {entry(name).value!r}, '')]).main(args=[{name!r}])\n"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, **pipes)

    return call


def test_the_installed_command_and_the_module_know_their_version():
    installed = Path(sys.executable).with_name("tutelage")
    for words in ([installed], [sys.executable, "-m", "tutelage"]):
        finished = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False)
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"tutelage {__version__}\n", "")


def test_help_lists_our_groups_and_entry_points(run, entry):
    status, out, _ = run("--help", entries=(entry("greet"),))
    assert status == 0
    assert all(word in out for word in ("package", "manifest", "greet", "Say hello"))


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-command"],
        ["--no-such-option"],
        ["manifest", "check"],
        ["manifest", "split", "folder"],
        ["manifest", "split", "folder", "--out", "x.csv", "--seed", "many"],
        ["package", "verify", "student.tutelage"],
        ["--log-level", "loud", "manifest", "check", "x.csv"],
    ],
    ids=" ".join,
)
def test_wrong_words_end_in_the_code_for_usage(run, words: list[str]):
    status, out, err = run(*words)
    assert (status, out) == (CATALOGUE[Code.USAGE].exit_code, "")
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize("code", Code)
def test_every_failure_is_one_line_and_its_exit_code(run, entry, code: Code):
    status, out, err = run("fail", code, entries=(entry("fail"),))
    assert (status, out) == (CATALOGUE[code].exit_code, "")
    assert err == f"error [{code}]: what was wrong: what to do\n"


def test_the_traceback_of_a_failure_is_there_for_those_who_ask(run, entry):
    status, _, err = run("--log-level", "debug", "fail", "key-wrong", entries=(entry("fail"),))
    events = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert status == CATALOGUE[Code.KEY_WRONG].exit_code
    assert [(event["event"], event["code"]) for event in events] == [("command failed", "key-wrong")]
    assert "raise TutelageError" in events[0]["exception"]


def test_an_interruption_ends_in_130(run, entry):
    assert run("interrupt", entries=(entry("interrupt"),)) == (130, "", "interrupted\n")


def test_a_defect_keeps_its_traceback_and_hides_variables(start):
    process = start("defect")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "ZeroDivisionError: a bug" in err
    assert "secret-secret-" not in err


def test_a_reader_that_leaves_ends_in_141_without_a_word(start):
    with start("flood") as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


def test_a_reader_that_left_before_the_first_word_is_no_different(start):
    with start("whisper") as process:
        process.stdout.close()
        process.stdin.write("now\n")
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


def test_a_real_interruption_ends_in_130(start):
    with start("sleep") as process:
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted\n"
        assert process.wait(timeout=60) == 130


def test_a_function_and_a_group_can_be_entries(run, entry):
    entries = (entry("greet"), entry("many", "group"))
    assert run("greet", "Ada", "--loud", entries=entries) == (0, "hello Ada!\n", "")
    assert run("many", "one", "Bob", entries=entries) == (0, "hello Bob\n", "")


@pytest.mark.parametrize("words", [[], ["--help"], ["--any", "word"]], ids=str)
@pytest.mark.parametrize(
    ("value", "reason"),
    [("no_such_module:run", "ModuleNotFoundError"), ("json:no_such_function", "AttributeError"), ("json:__doc__", "")],
)
def test_a_broken_entry_is_one_line_when_called(run, value: str, reason: str, words: list[str]):
    status, out, err = run("demo", *words, entries=(EntryPoint("demo", value, COMMAND_GROUP),))
    assert (status, out) == (CATALOGUE[Code.EXTRA_MISSING].exit_code, "")
    assert err.startswith(f"error [extra-missing]: command 'demo' of {value} cannot be loaded ({reason}")
    assert err.count("\n") == 1


def test_a_broken_entry_leaves_the_others_alone(run, entry):
    broken = EntryPoint("demo", "no_such_module:run", COMMAND_GROUP)
    status, out, _ = run("--help", entries=(broken, entry("greet")))
    assert status == 0
    assert "Not available" in out
    assert "Say hello" in out
    assert run("greet", "Ada", entries=(broken, entry("greet")))[0] == 0


def test_an_entry_that_lacks_an_extra_says_which(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tmp_path.joinpath("planted_extra.py").write_text(
        "from tutelage.errors import MissingExtraError\nraise MissingExtraError('face', 'this teacher')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entries = (EntryPoint("demo", "planted_extra:run", COMMAND_GROUP),)
    status, _, err = run("demo", entries=entries)
    assert status == CATALOGUE[Code.EXTRA_MISSING].exit_code
    assert "pip install 'tutelage[face]'" in err
    assert "tutelage[face]" in " ".join(run("--help", entries=entries)[1].split())


def test_an_entry_cannot_replace_a_command_of_ours(run, entry):
    _, out, _ = run("package", "--help", entries=(entry("package", "greet"),))
    assert "verify" in out


def test_entries_are_not_imported_before_they_are_called(run, entry):
    run("manifest", "--help", entries=(entry("greet"),))
    assert "planted_commands" not in sys.modules
