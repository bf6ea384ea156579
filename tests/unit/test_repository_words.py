"""The repository speaks of the product alone: no machine of its authors, no unfinished business, no fixed hosts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from source_tree import ROOT, repository_files

# Put together from halves, so that this file does not hold what it forbids.
FORBIDDEN = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\w.])/" + "work/",
        r"(?<![\w.])/" + "root/",
        r"(?<![\w.])/" + "home/[a-z]",
        "(?i:issue)" + " #",
        r"(?i:\bissue)" + r" [0-9]\b",
        "pypi" + r"\.org",
        "files" + r"\.pythonhosted",
        r"\bTO" + r"DO\b",
        r"\bFIX" + r"ME\b",
    )
)
BESIDE_THE_CHECKOUT = re.compile(r"\.\./" + "shared")
MAY_LOOK_BESIDE = ("Makefile", ".ci/", "README.md", "docs/", "benchmarks/")


def text_of(path: Path) -> str | None:
    """Content of a text file; None for anything else."""
    data = path.read_bytes()
    if b"\0" in data[:8192]:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def forbidden_in(text: str, name: str) -> list[str]:
    """Lines of `text`, the content of the repository's file `name`, that must not be there."""
    patterns = FORBIDDEN if name.startswith(MAY_LOOK_BESIDE) else (*FORBIDDEN, BESIDE_THE_CHECKOUT)
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if any(pattern.search(line) for pattern in patterns)
    ]


def test_no_file_holds_a_forbidden_word():
    found = []
    for path in repository_files():
        text = text_of(path)
        if text is not None:
            found += forbidden_in(text, path.relative_to(ROOT).as_posix())
    assert found == []


def test_the_files_that_are_looked_at_are_the_repositorys():
    names = {path.relative_to(ROOT).as_posix() for path in repository_files()}
    assert {"Makefile", "pyproject.toml", "src/tutelage/errors.py", "docs/errors.md", ".ci/run"} <= names
    assert not any(name.startswith((".venv/", ".git/")) for name in names)


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "work/main",
        "cd /" + "root/x",
        "as Issue" + " #12 says",
        "issue" + " 3 asks",
        "https://pypi" + ".org/simple",
        "# TO" + "DO later",
        "data = '../" + "shared/data'",
    ],
)
def test_a_planted_word_is_found(line: str):
    assert forbidden_in(f"fine\n{line}\n", "src/tutelage/x.py") == [f"src/tutelage/x.py:2: {line}"]


@pytest.mark.parametrize("line", ["src/" + "work/x", "issue" + " 9575", "method", "fs.root/x"])
def test_a_harmless_word_passes(line: str):
    assert forbidden_in(line, "src/tutelage/x.py") == []


def test_only_the_build_and_the_pages_look_beside_the_checkout():
    line = "--data ../" + "shared/data/faces"
    assert forbidden_in(line, "README.md") == forbidden_in(line, "docs/demo.md") == []
    assert forbidden_in(line, "tests/unit/test_x.py") != []
