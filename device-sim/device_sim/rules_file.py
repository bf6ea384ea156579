"""The file that says how a device behaves: YAML, each section one part of `DeviceSettings`, each key one of its fields.

    labels: {min_count: 8, max_age_s: 900}
    training: {min_fresh: 64, window: {start_s: 7200, length_s: 10800}}
    sampling: {retries: 3}

What is not named keeps its default. What is unknown, of another type or out of its range is refused with its place, so
that no rule is misspelt in silence.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from device_sim.device_settings import DeviceSettings
from device_sim.typed_json import typed
from tutelage.errors import SettingsError, TutelageError, UsageError
from tutelage.files import read_bytes

__all__ = ["MAX_RULES_BYTES", "read_rules", "rules_in"]

MAX_RULES_BYTES = 1 << 20
"""A larger file was named by mistake."""


def read_rules(path: Path | None) -> DeviceSettings:
    """The settings that a file names; the defaults without one.

    Raises:
        SettingsError: It cannot be read, or a rule in it is wrong; the message names file, place and reason.
    """
    if path is None:
        return DeviceSettings()
    try:
        data = read_bytes(path, at_most=MAX_RULES_BYTES + 1)
        if len(data) > MAX_RULES_BYTES:
            raise UsageError(f"it has more than {MAX_RULES_BYTES} bytes")
        return rules_in(data.decode())
    except (TutelageError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, TutelageError) else "it is no text"
        raise SettingsError(f"the rules in {path} cannot be used: {reason}") from error


def rules_in(text: str) -> DeviceSettings:
    """The settings that a YAML `text` names.

    Raises:
        UsageError: It is no YAML, or a rule in it is wrong.
    """
    try:
        sections: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"this is no YAML: {' '.join(str(error).split())}") from error
    known = {field.name: field.default_factory for field in fields(DeviceSettings)}
    sections = {} if sections is None else sections
    if not isinstance(sections, dict):
        raise UsageError(f"rules are sections, each with keys; the sections are {', '.join(known)}")
    if unknown := sorted(set(map(str, sections)) - known.keys()):
        raise UsageError(f"unknown section {unknown[0]}: the sections are {', '.join(known)}")
    made = {name: typed(known[name], {} if keys is None else keys, name) for name, keys in sections.items()}
    return DeviceSettings(**made)
