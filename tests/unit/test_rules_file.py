"""The file of rules: what is named counts, what is not keeps its default, what is wrong is refused with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from source_tree import ROOT

from device_sim.device_settings import DeviceSettings
from device_sim.rules_file import read_rules, rules_in
from device_sim.typed_json import plain
from tutelage.errors import SettingsError, UsageError


def test_without_a_file_and_with_an_empty_one_the_defaults_hold(tmp_path: Path):
    (tmp_path / "rules.yaml").write_text("# nothing yet\n")
    assert read_rules(None) == read_rules(tmp_path / "rules.yaml") == DeviceSettings()


def test_what_is_named_counts_and_everything_can_be_named():
    rules = rules_in("labels: {min_count: 8}\nlearning: {soft_labels: true}\ngate:\n")
    assert (rules.labels.min_count, rules.learning.soft_labels) == (8, True)
    assert (rules.sampling, rules.gate) == (DeviceSettings().sampling, DeviceSettings().gate)
    assert rules_in(str(plain(DeviceSettings())).replace("None", "null").replace("True", "true")) == DeviceSettings()


def test_the_example_of_the_readme_can_be_used():
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "device-sim/README.md").read_text(), re.DOTALL)
    assert rules_in(example).training.window is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label: {min_count: 8}", "unknown section label"),
        ("labels: {min_cuont: 8}", "labels has unknown min_cuont"),
        ("labels: {min_count: many}", "labels.min_count must be a whole number"),
        ("learning: {soft_labels: 1}", "learning.soft_labels must be true or false"),
        ("sampling: {retries: 0}", "retries must be 1 or more"),
        ("- labels", "rules are sections"),
        ("labels: 3", "labels must be an object"),
        ("labels: {", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(tmp_path: Path, text: str, words: str):
    with pytest.raises(UsageError, match=re.escape(words)):
        rules_in(text)
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        read_rules(tmp_path / "rules.yaml")
    assert "rules.yaml" in caught.value.message


def test_a_file_that_is_absent_or_no_text_is_refused(tmp_path: Path):
    (tmp_path / "rules.yaml").write_bytes(b"\xff\xfe")
    for name in ("rules.yaml", "nowhere.yaml"):
        with pytest.raises(SettingsError, match=name):
            read_rules(tmp_path / name)
