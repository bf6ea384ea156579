"""The catalogue of errors is total, unambiguous and documented."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
from pathlib import Path

import pytest
from source_tree import ROOT

from tutelage import errors
from tutelage.errors import (
    CATALOGUE,
    Code,
    InputError,
    MissingExtraError,
    PersonError,
    SpaceMismatchError,
    Status,
    TutelageError,
    UsageError,
)

PAGE = ROOT / "docs/errors.md"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate_errors", ROOT / "docs/generate_errors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_code_has_an_entry_and_nothing_else_has():
    assert set(CATALOGUE) == set(Code)


def test_exit_codes_are_unique_and_belong_to_nobody_else():
    numbers = [entry.exit_code for entry in CATALOGUE.values()]
    assert len(set(numbers)) == len(numbers)
    assert all(2 <= number <= 125 for number in numbers)  # 0 success, 1 a defect, 126 and up the shell's


def test_usage_errors_share_the_exit_code_of_the_command_line_parser():
    assert CATALOGUE[Code.USAGE].exit_code == 2


@pytest.mark.parametrize("code", Code)
def test_an_error_carries_the_exit_code_of_its_code(code: Code):
    error = TutelageError(code, "what and what to do")
    assert (str(error), error.message, error.exit_code) == ("what and what to do",) * 2 + (CATALOGUE[code].exit_code,)


@pytest.mark.parametrize("code", Code)
def test_the_page_lists_each_code_with_its_exit_code(code: Code):
    rows = [line for line in PAGE.read_text().splitlines() if f"`{code}`" in line]
    assert rows == [line for line in rows if line.startswith(f"| {CATALOGUE[code].exit_code} | `{code}` | ")]
    assert len(rows) == 1


def test_the_page_is_what_the_generator_writes(generator):
    assert PAGE.read_text() == generator.render(), "run `make fmt`"


def test_the_generator_notices_and_mends_a_page_out_of_date(generator, tmp_path: Path, monkeypatch, capsys):
    page = tmp_path / "errors.md"
    monkeypatch.setattr(generator, "PAGE", page)
    assert generator.main(["--check"]) == 1
    page.write_text("old\n")
    assert generator.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert page.read_text() == "old\n"
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0


def test_every_error_class_is_drawn_in_the_tree_of_the_module():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, TutelageError)]
    assert {c.__name__ for c in classes if c.__name__ not in errors.__doc__} == set()


@pytest.mark.parametrize(
    "error",
    [
        InputError(Code.DATA_INSUFFICIENT, "too few"),
        UsageError("no such word"),
        PersonError("anna"),
        SpaceMismatchError("a", "b"),
        MissingExtraError("face", "a face teacher"),
    ],
)
def test_an_error_comes_whole_out_of_another_process(error: TutelageError):
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), found.code, found.message, str(found)) == (type(error), error.code, error.message, str(error))


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_status_and_something_to_tell_a_caller_elsewhere(code: Code):
    entry = CATALOGUE[code]
    assert entry.status is not Status.OK
    assert len(entry.public_text("what the caller sent was wrong: send less").split()) >= 4


@pytest.mark.parametrize("code", [Code.STORAGE_FAILED, Code.PACKAGE_CORRUPT, Code.SETTING_INVALID, Code.SERVICE_FAILED])
def test_what_only_this_machine_should_know_is_not_told(code: Code):
    assert "/var/lib" not in CATALOGUE[code].public_text("/var/lib/x could not be read")


@pytest.mark.parametrize("code", Code)
def test_an_error_from_elsewhere_has_the_class_of_its_code(code: Code):
    error = errors.error_for(code, "what and what to do")
    assert (error.code, error.message) == (code, "what and what to do")
    assert type(error) is not TutelageError


def test_whoever_catches_a_class_need_not_know_where_the_error_was_raised():
    assert type(errors.error_for(Code.PERSON_UNKNOWN, "x")) is type(PersonError("anna"))
    assert type(errors.error_for(Code.REQUEST_INVALID, "x")) is errors.RequestError
    assert type(errors.error_for(Code.DATA_INSUFFICIENT, "x")) is InputError


def test_what_cannot_be_reached_may_be_asked_again_and_what_was_refused_may_not():
    assert CATALOGUE[Code.SERVICE_UNAVAILABLE].retryable
    assert not CATALOGUE[Code.SERVICE_FAILED].retryable
    assert not CATALOGUE[Code.CALLER_REFUSED].retryable
