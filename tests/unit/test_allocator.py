"""What is asked of the C library's allocator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.allocator import fresh_memory, keep_freed_memory

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

FRESH = """
import resource, sys
from tutelage.allocator import keep_freed_memory
if sys.argv[1:]:
    keep_freed_memory()
kept = bytes(2 << 20)
for _ in range(200):
    pieces = [b"x" * (1 << 20) for _ in range(4)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""

LARGE = """
import resource, sys
from tutelage.allocator import fresh_memory
piece = b"x" * (1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
memory = fresh_memory(64 << 20) if sys.argv[1:] else memoryview(bytearray(64 << 20))
for start in range(0, len(memory), len(piece)):
    memory[start : start + len(piece)] = piece
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(program: str, *words: str) -> int:
    """Pages that a process which runs `program` had to be given."""
    return int(
        subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.skipif(not keep_freed_memory(), reason="the allocator is not glibc's")
def test_freed_memory_is_used_again_instead_of_being_asked_for_anew():
    assert faults(FRESH, "keep") < faults(FRESH) / 5


@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here")
def test_memory_for_what_is_large_comes_in_large_pages():
    assert faults(LARGE, "fresh") < faults(LARGE) - (32 << 20) / 4096


def test_fresh_memory_is_zeros_to_be_written_over():
    memory = fresh_memory(3)
    assert bytes(memory) == bytes(3)
    memory[1:] = b"ab"
    assert bytes(memory.toreadonly()[1:]) == b"ab"
