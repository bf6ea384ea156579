"""Writes the chart's README: `README.head.md` and a table of all values; with `--check` only tells if it is current.

`values.yaml` describes itself. A line `# == Section` begins a table. Above a key, a line `# -- meaning`, and the
comment lines that follow it, say what the key is for. A key with such a comment is one row, whatever is below it,
unless a key below it has a comment too; then its own comment stands above them, if it has one. A key without any
comment must be a mapping whose keys have: what nobody described is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
HEAD, VALUES, PAGE = HERE / "README.head.md", HERE / "tutelage" / "values.yaml", HERE / "tutelage" / "README.md"

SECTION, MEANING = "# == ", "# -- "
FIRST_SECTION = "General"
LEAST_WORDS = 2


class UndescribedError(Exception):
    """A key of the values has no comment that says what it is for."""


@dataclass(frozen=True)
class Key:
    """A key of the values with what the lines above it say."""

    path: str
    """With dots between the names."""
    section: str
    meaning: str
    """Empty where nothing is said."""
    default: Any
    keys: tuple[Key, ...]
    """Those below it, where it is a mapping."""

    @property
    def is_described_inside(self) -> bool:
        """Whether anything below it has a meaning of its own."""
        return any(key.meaning or key.is_described_inside for key in self.keys)


def read_keys(text: str) -> list[Key]:
    """The keys of the values in `text`, in their order."""
    tree, lines = yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines()
    return list(_keys(tree, yaml.safe_load(text) or {}, lines, "")) if tree is not None else []


def _keys(tree: Any, values: Mapping[str, Any], lines: list[str], above: str) -> Iterator[Key]:
    for name, node in tree.value:
        line = name.start_mark.line
        default = values[name.value]
        path = f"{above}{name.value}"
        inside = isinstance(node, yaml.MappingNode) and not node.flow_style
        keys = tuple(_keys(node, default, lines, f"{path}.")) if inside else ()
        yield Key(path, _section(lines[:line]), _meaning(lines[:line]), default, keys)


def _section(before: list[str]) -> str:
    """What the last line that begins a section calls it."""
    names = [line.removeprefix(SECTION).strip() for line in before if line.startswith(SECTION)]
    return names[-1] if names else FIRST_SECTION


def _meaning(before: list[str]) -> str:
    """What the comment that ends these lines says after its mark; empty where there is none."""
    said: list[str] = []
    for line in reversed(before):
        text = line.strip()
        if text.startswith(MEANING):
            return " ".join([text.removeprefix(MEANING).strip(), *reversed(said)])
        if not text.startswith("#") or text.startswith(SECTION.strip()):
            return ""
        said.append(text.removeprefix("#").strip())
    return ""


def rows(keys: Iterator[Key] | list[Key]) -> Iterator[Key]:
    """The keys that are shown: each with a meaning, and one for all that lies below it.

    Raises:
        UndescribedError: A key has no meaning, nor do those below it.
    """
    for key in keys:
        if key.is_described_inside:
            yield from rows(list(key.keys))
        elif len(key.meaning.split()) >= LEAST_WORDS:
            yield key
        else:
            raise UndescribedError(f"{VALUES.name}: {key.path} says nothing of itself: put `{MEANING}...` above it")


def cell(key: Key) -> str:
    """A row of the table."""
    default = json.dumps(key.default, ensure_ascii=False)
    shown = "`" + default.replace("|", "\\|") + "`"
    return f"| `{key.path}` | {shown} | {key.meaning.replace('|', chr(92) + '|')} |\n"


def tables(text: str) -> str:
    """A table for each section of the values in `text`.

    Raises:
        UndescribedError: As `rows`.
    """
    written, section = "", ""
    for key in rows(read_keys(text)):
        if key.section != section:
            section = key.section
            written += f"\n### {section}\n\n| value | default | meaning |\n| --- | --- | --- |\n"
        written += cell(key)
    return written


def render(head: str, values: str) -> str:
    """Text of the page.

    Raises:
        UndescribedError: As `rows`.
    """
    source = "This table is written by `charts/generate_readme.py` from [`values.yaml`](values.yaml)."
    return f"{head.rstrip()}\n\n## Values\n\n{source}\n{tables(values)}"


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where a value is not described, or `--check` found the page out of date."""
    try:
        page = render(HEAD.read_text(encoding="utf-8"), VALUES.read_text(encoding="utf-8"))
    except UndescribedError as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" not in arguments:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print("the README of the chart is out of date: run `make fmt`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
