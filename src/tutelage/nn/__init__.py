"""Networks and their training: the only part of the library that imports torch."""

from __future__ import annotations
