"""The tree keeps its shape: names agree, modules say what they are, functions and files stay small."""

from __future__ import annotations

import ast
import importlib.util
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import ROOT, Distribution, Module, distributions, modules

FORBIDDEN_WORDS = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"})
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MEDIAN_FUNCTION_LINES = 12
P90_FUNCTION_LINES = 35


def function_lengths(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and length in lines of every function, from `def` to its last line, docstring and all."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def bad_words(module: Module) -> set[str]:
    return FORBIDDEN_WORDS & set(module.name.replace(".", "_").split("_"))


@pytest.mark.parametrize("distribution", distributions(), ids=lambda d: d.project["name"])
def test_a_folder_its_distribution_and_its_import_bear_one_name(distribution: Distribution):
    if distribution.folder != ROOT:
        assert distribution.folder.name == distribution.project["name"]
    found = importlib.util.find_spec(distribution.import_name)
    assert found is not None, f"{distribution.import_name} is not installed"
    assert Path(found.origin).resolve() == distribution.source / distribution.import_name / "__init__.py"


def test_every_folder_of_services_is_a_distribution():
    folders = {path.parent for path in ROOT.glob("services/*/*")}
    assert folders <= {distribution.folder for distribution in distributions()}


@pytest.mark.parametrize("module", modules(), ids=str)
def test_a_module_is_a_noun_of_the_domain_opens_with_its_concept_and_is_short(module: Module):
    assert not bad_words(module), f"{module.name}: name the concept it owns"
    docstring = ast.get_docstring(module.tree)
    assert docstring, f"{module.name} has no docstring"
    assert len(docstring.split()) >= 5, f"{module.name} does not say which concept it owns"
    assert len(module.text.splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("module", modules(), ids=str)
def test_no_function_is_long(module: Module):
    too_long = [(name, lines) for name, lines in function_lengths(module.tree) if lines > MAX_FUNCTION_LINES]
    assert not too_long


def test_most_functions_are_small():
    lengths = [lines for module in modules() for _, lines in function_lengths(module.tree)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES
    assert statistics.quantiles(lengths, n=10)[-1] <= P90_FUNCTION_LINES


def test_a_length_counts_every_line_once_for_each_function_it_is_in():
    source = "@cache\ndef outer(a,\n          b):\n    'doc'\n    def inner():\n        return a\n    return inner\n"
    assert dict(function_lengths(ast.parse(source))) == {"outer": 6, "inner": 2}


@pytest.mark.parametrize("name", ["tutelage.utils", "device_sim.face_helpers", "tutelage.common.io", "x.gate_manager"])
def test_an_empty_word_is_found_in_a_name(name: str):
    assert bad_words(Module(ROOT / "x.py", name))
