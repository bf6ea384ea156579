"""The public surface: what `__all__` promises exists, is sorted, and says what it guarantees."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator

import pytest
from source_tree import Module, modules


def surface(module: Module) -> list[str] | None:
    """The names in `__all__`, or None where there is none."""
    for node in module.tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            return ast.literal_eval(node.value)
    return None


def ruff_order(name: str) -> tuple[int, list[str | int]]:
    """Constants, then classes, then the rest, numbers by value: the order of ruff's rule RUF022."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def public_definitions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


WITH_SURFACE = [module for module in modules() if surface(module) is not None]


@pytest.mark.parametrize("module", WITH_SURFACE, ids=str)
def test_the_surface_is_sorted_and_without_repetition(module: Module):
    names = surface(module)
    assert names == sorted(set(names), key=ruff_order)


@pytest.mark.parametrize("module", WITH_SURFACE, ids=str)
def test_every_name_of_the_surface_exists(module: Module):
    if module.name.startswith("tutelage.face"):
        pytest.importorskip("dlib", reason="the extra `face` is not installed")
    loaded = importlib.import_module(module.name)
    assert [name for name in surface(module) if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("module", [m for m in modules() if m.name.split(".")[0] == "tutelage"], ids=str)
def test_everything_public_says_what_it_guarantees(module: Module):
    for node in public_definitions(module):
        docstring = ast.get_docstring(node)
        assert docstring, f"{module.name}.{node.name} has no docstring"
        first_line = docstring.splitlines()[0]
        assert words(first_line) != words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node.name)), f"{node.name} says its name"


def test_the_order_is_constants_classes_then_the_rest():
    names = ["encode", "Row10", "decode", "MAX_SIDE", "_x", "Row2", "Manifest"]
    assert sorted(names, key=ruff_order) == ["MAX_SIDE", "Manifest", "Row2", "Row10", "_x", "decode", "encode"]
