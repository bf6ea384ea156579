"""The demonstration, on synthetic fingers and on images: the whole loop, and what is written about it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_persons import draw_captures
from PIL import Image

from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.demo import DemoSettings, run_demo
from device_sim.device_settings import DeviceSettings
from device_sim.results import read_result
from device_sim.site import SiteSize
from tutelage.manifest import split_folder
from tutelage.nn.self_distil import SelfDistillation


def tutelage(*words: object, timeout: float = 200.0) -> subprocess.CompletedProcess[str]:
    """The command as a user calls it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tutelage", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=timeout)


class Silent:
    def on_day(self, day, posts) -> None:
        self.last = day

    def on_night(self, day, posts) -> None:
        pass


@pytest.mark.slow
def test_a_small_synthetic_fleet_goes_through_the_whole_loop(tmp_path: Path):
    settings = DemoSettings(
        seed=3,
        devices=1,
        site=SiteSize(persons=4, references=2, probes=2, strangers=4, days=3, attempts=4.0, wear=0.9),
        distil_steps=2,
        device=DeviceSettings(
            labels=LabelCondition(min_count=1, max_age_s=0.0),
            training=TrainingCondition(min_fresh=28),
            self_distillation=SelfDistillation(steps=4),
        ),
    )
    prepared: list[tuple[str, int, int]] = []
    silent = Silent()
    result = run_demo(settings, tmp_path / "devices", silent, lambda *step: prepared.append(step))
    assert silent.last == 2
    assert {what for what, *_ in prepared} == {"distilling", "putting up devices", "measuring"}
    with sqlite3.connect(tmp_path / "devices" / "device-0" / "store.sqlite") as store:
        kinds = [kind for (kind,) in store.execute("SELECT kind FROM events ORDER BY id")]
        reasons = [reason for (reason,) in store.execute("SELECT reason FROM events")]
    store.close()
    verdicts = [kind for kind in kinds if kind in ("gate-passed", "gate-failed")]
    assert verdicts
    order = ["enrolled", "sample-kept", "labels-asked", "training-started", verdicts[0]]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    assert not [reason for reason in reasons if "person-" in reason]
    assert [line.kind for line in result.events if line.kind in order] == [
        k for k in kinds if k in order and k not in ("enrolled", "sample-kept")
    ]
    assert len(result.trainings) == len(verdicts) + kinds.count("training-failed")
    assert result.labels.asked == result.labels.stored + result.labels.abstained > 0
    assert [point.day for point in result.timeline["device 0"]] == [0, 1, 2]
    assert result.kept
    assert not (tmp_path / "devices" / "device-0" / "jobs" / "v2+1").exists()


@pytest.mark.slow
def test_the_command_writes_a_result_and_a_report(tmp_path: Path):
    out = tmp_path / "out"
    (out / "devices" / "device-9").mkdir(parents=True)
    (out / "devices" / "device-9" / "notes.txt").write_text("not ours")
    (out / "devices" / "device-0").mkdir()
    for name in ("store.sqlite", "store.key", "device.key"):
        (out / "devices" / "device-0" / name).write_text("of an earlier demonstration")
    done = tutelage("demo", "--devices", 1, "--days", 2, "--seed", 2, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = read_result(out / "result.json")
    assert json.loads(done.stdout) == json.loads((out / "result.json").read_text())
    assert [row.name for row in result.table] == ["frozen student", "self-distilled", "teacher"]
    assert result.made.seeds == (2,)
    assert result.settings["site"]["days"] == 2
    assert "distilled" in result.settings["notes"][0]
    page = (out / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "result.json" in done.stderr
    assert (out / "devices" / "device-9" / "notes.txt").read_text() == "not ours"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for person in range(20):
        (folder / f"someone-{person:02d}").mkdir(parents=True)
        for number, capture in enumerate(draw_captures(person, 12)):
            Image.fromarray(capture).save(folder / f"someone-{person:02d}" / f"{number}.png")
    return folder


@pytest.mark.slow
def test_the_demonstration_runs_on_a_folder_of_images_with_one_that_is_none(images: Path, tmp_path: Path):
    (images / "someone-03" / "2.png").write_bytes(b"no image")
    base = DemoSettings(devices=2)
    settings = replace(
        base,
        images=replace(base.images, days=2),
        image_training=replace(base.image_training, teacher_steps=4, teacher_batch=8, student_steps=4, student_batch=8),
    )
    result = run_demo(settings, tmp_path / "devices", Silent(), lambda *_: None, manifest=split_folder(images))
    assert result.kind == "images"
    assert result.kept == ()
    assert "1 images or persons left out: they cannot be used" in result.settings["notes"]
    assert "someone-" not in json.dumps(result.as_json())
    assert [path.name for path in (tmp_path / "devices").iterdir()] == ["device-0"]  # four persons a device, at least
    for path in (tmp_path / "devices").rglob("*"):
        assert path.is_dir() or b"\x89PNG" not in path.read_bytes()
