"""What is asked of the C library's allocator."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutelage.allocator import keep_freed_memory

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


def faults(*words: str) -> int:
    """Pages that a process which takes and frees megabytes had to be given."""
    return int(subprocess.run([sys.executable, "-c", FRESH, *words], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the allocator is not glibc's")
def test_freed_memory_is_used_again_instead_of_being_asked_for_anew():
    assert faults("keep") < faults() / 5
