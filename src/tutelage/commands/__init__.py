"""The library's own sub-commands, one module for each group, and the loader of those that entry points name.

A command reads its words, calls one function of the library and prints what came back: a table for people, or one JSON
document with `--json`. It decides nothing itself.
"""

from __future__ import annotations

__all__: list[str] = []
