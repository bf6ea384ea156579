"""Every dependency is declared with a reason, and no reason outlives its dependency."""

from __future__ import annotations

import re

import pytest
from source_tree import ROOT, distributions

PAGE = ROOT / "docs/dependencies.md"


def normal(name: str) -> str:
    """One spelling for one distribution, as package indexes compare them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Names of all third-party distributions that our project files ask for."""
    found = set()
    for distribution in distributions():
        project = distribution.project
        lists = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
        found |= {normal(re.match(r"[\w.-]+", item).group()) for items in lists for item in items}
    return found - {normal(distribution.project["name"]) for distribution in distributions()}


def explained() -> dict[str, str]:
    """Reason by distribution, from the tables of the page."""
    rows = re.findall(r"^\| `([\w.-]+)` \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {normal(name): reason.strip() for name, reason in rows}


@pytest.mark.parametrize("name", sorted(declared()))
def test_a_dependency_has_a_reason(name: str):
    assert len(explained().get(name, "").split()) >= 5, f"docs/dependencies.md: say in one line why {name}"


def test_no_row_speaks_of_what_is_not_a_dependency():
    build_backends = {"hatchling"}
    assert set(explained()) - declared() - build_backends == set()


def test_torch_is_pinned_for_installation():
    pins = ROOT.joinpath("constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin.startswith("torch==")]
