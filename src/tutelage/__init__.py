"""Biometric devices that keep learning: a teacher in the cloud, self-distilling students at the edge."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
