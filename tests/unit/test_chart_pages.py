"""The files of the chart that are generated: its table of values says all that the values say of themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from source_tree import ROOT

pytest.importorskip("yaml")

sys.path.insert(0, str(ROOT / "charts"))
import generate_dashboard
import generate_readme
from generate_readme import UndescribedError, render, tables

VALUES = """\
# Not about a value.

# -- Name of the whole thing;
# it goes on | here.
name: tutelage

# == Devices
# -- Devices of the fleet.
devices:
  # -- How many there are.
  replicas: 3
  # -- What each may take, as Kubernetes says it.
  resources:
    limits: {cpu: "1", memory: null}
    requests:
      cpu: 250m
  store:
    # -- Bytes of its volume.
    size: 1Gi
# -- Nothing by default.
tolerations: []
"""


def test_each_value_is_a_row_with_its_path_default_and_meaning():
    assert tables(VALUES) == (
        "\n### General\n\n| value | default | meaning |\n| --- | --- | --- |\n"
        '| `name` | `"tutelage"` | Name of the whole thing; it goes on \\| here. |\n'
        "\n### Devices\n\n| value | default | meaning |\n| --- | --- | --- |\n"
        "| `devices.replicas` | `3` | How many there are. |\n"
        '| `devices.resources` | `{"limits": {"cpu": "1", "memory": null}, "requests": {"cpu": "250m"}}` '
        "| What each may take, as Kubernetes says it. |\n"
        '| `devices.store.size` | `"1Gi"` | Bytes of its volume. |\n'
        "| `tolerations` | `[]` | Nothing by default. |\n"
    )


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ("# a comment\nname: x\n", "name"),
        ("# -- Said of the\na: 1\n\nb: 2\n", "b"),
        ("a:\n  # -- It is this.\n  b: 1\n  c: {d: 1}\n", "a.c"),
        ("# -- x\nname: 1\n", "name"),
        ("# -- Above a section.\n# == Section\nname: 1\n", "name"),
    ],
)
def test_a_value_that_says_nothing_of_itself_is_refused(values: str, path: str):
    with pytest.raises(UndescribedError, match=rf"values.yaml: {path} says nothing"):
        tables(values)


def test_the_page_is_the_head_and_the_tables():
    page = render("# Head\n\nProse.\n\n", VALUES)
    assert page.startswith("# Head\n\nProse.\n\n## Values\n\n")
    assert page.endswith(tables(VALUES))


@pytest.mark.parametrize("generator", [generate_dashboard, generate_readme])
def test_what_is_committed_is_what_its_generator_writes(generator):
    command = [sys.executable, generator.__file__, "--check"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def test_a_file_that_is_out_of_date_is_told(tmp_path, monkeypatch, capsys):
    for generator, name in ((generate_dashboard, "FILE"), (generate_readme, "PAGE")):
        if generator is generate_readme:
            monkeypatch.setattr(generator, "VALUES", tmp_path / "values.yaml")
            (tmp_path / "values.yaml").write_text(VALUES)
        monkeypatch.setattr(generator, name, tmp_path / name)
        assert generator.main(["--check"]) == 1
        assert "make fmt" in capsys.readouterr().err
        assert (generator.main([]), generator.main(["--check"])) == (0, 0)
        (tmp_path / name).write_text("other")
        assert generator.main(["--check"]) == 1
