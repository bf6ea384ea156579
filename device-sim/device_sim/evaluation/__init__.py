"""Fair comparison of ways to learn on a device: same captures, same rules, same network, other teaching."""

from __future__ import annotations
