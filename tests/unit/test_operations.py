"""What docs/operations.md tells to type is a shell's, names what the chart makes, and uses functions that it gave."""

from __future__ import annotations

import re
import subprocess

import pytest
from source_tree import ROOT

PAGE = ROOT.joinpath("docs/operations.md").read_text()
BLOCKS = re.findall(r"^```(?:console|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

KINDS = {
    "deployment": {"model-registry", "teacher-inference", "label-worker", "student-distiller", "distiller-worker"},
    "statefulset": {"redis", "minio", "device"},
    "service": {"model-registry", "teacher-inference", "student-distiller"},
    "secret": {"keys", "redis", "minio", "ca", "operator-tls", "model-registry-tls"},
}
"""What the chart makes, by what follows `tutelage-`."""

NAMED = re.compile(rf"\b({'|'.join(KINDS)})(?:/| )tutelage-([a-z-]+)")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:60])
def test_a_block_is_a_shells(block: str):
    finished = subprocess.run(["bash", "-n"], check=False, input=block, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_commands_speak_of_what_the_chart_makes():
    wrong = [(kind, name) for kind, name in NAMED.findall("\n".join(BLOCKS)) if name.strip("-") not in KINDS[kind]]
    assert wrong == []
    assert len(NAMED.findall("\n".join(BLOCKS))) > 30


def test_a_function_is_given_before_it_is_used():
    for name in ("through", "device", "holding", "stopped"):
        use = re.compile(rf"^(?:  )?{name} ", re.MULTILINE)
        given = [number for number, block in enumerate(BLOCKS) if re.search(rf"^{name}\(\) {{", block, re.MULTILINE)]
        used = [number for number, block in enumerate(BLOCKS) if use.search(block)]
        assert len(given) == 1
        assert used
        assert min(used) >= given[0]


def test_sections_that_are_linked_are_there():
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^##+ (.+)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
