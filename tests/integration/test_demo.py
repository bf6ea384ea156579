"""The demonstration, on synthetic fingers and on images: the whole loop, and what is written about it."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_persons import draw_captures
from PIL import Image
from rich.console import Console

from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.demo import DemoSettings, run_demo
from device_sim.demo_command import play_demo
from device_sim.device_settings import DeviceSettings
from device_sim.results import read_result
from device_sim.site import SiteSize
from tutelage.manifest import split_folder
from tutelage.nn.self_distil import SelfDistillation


class Silent:
    def on_day(self, day, posts) -> None:
        pass

    def on_night(self, day, posts) -> None:
        pass


SMALL = DemoSettings(
    seed=3,
    devices=1,
    site=SiteSize(persons=4, references=2, probes=2, strangers=4, days=3, attempts=4.0, wear=0.9),
    distil_steps=2,
    distil_persons=6,
    device=DeviceSettings(
        labels=LabelCondition(min_count=1, max_age_s=0.0),
        training=TrainingCondition(min_fresh=28),
        self_distillation=SelfDistillation(steps=4),
    ),
)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small demonstration in a folder where others have been, and what it said."""
    out = tmp_path_factory.mktemp("demo")
    (out / "devices" / "device-9").mkdir(parents=True)
    (out / "devices" / "device-9" / "notes.txt").write_text("not ours")
    (out / "devices" / "device-0").mkdir()
    for name in ("store.sqlite", "store.key", "device.key"):
        (out / "devices" / "device-0" / name).write_text("of an earlier demonstration")
    console = Console(file=io.StringIO(), width=200)
    play_demo(console, out, SMALL)
    return out, console.file.getvalue()


@pytest.mark.slow
def test_a_small_synthetic_fleet_goes_through_the_whole_loop(played: tuple[Path, str]):
    out, _ = played
    result = read_result(out / "result.json")
    with contextlib.closing(sqlite3.connect(out / "devices" / "device-0" / "store.sqlite")) as store:
        kinds, reasons = zip(*store.execute("SELECT kind, reason FROM events ORDER BY id"), strict=True)
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
    assert not list((out / "devices" / "device-0" / "jobs").iterdir())


@pytest.mark.slow
def test_what_was_played_is_written_and_shown_and_nothing_else_is_touched(played: tuple[Path, str]):
    out, said = played
    result = read_result(out / "result.json")
    assert [row.name for row in result.table] == ["frozen student", "self-distilled", "teacher"]
    assert result.made.seeds == (3,)
    assert result.settings["site"]["days"] == 3
    assert result.settings["notes"] == ["student distilled 2 steps further from the shipped v1"]
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    for row in result.table:
        assert row.name in said
    assert f"report: {out / 'report.html'}" in said.replace("\n", "")
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
    prepared: set[str] = set()
    result = run_demo(
        settings, tmp_path / "devices", Silent(), lambda what, *_: prepared.add(what), manifest=split_folder(images)
    )
    assert prepared == {"training the teacher", "distilling", "putting up devices", "measuring"}
    assert result.kind == "images"
    assert result.kept == ()
    assert "1 images or persons left out: they cannot be used" in result.settings["notes"]
    assert "someone-" not in json.dumps(result.as_json())
    assert [path.name for path in (tmp_path / "devices").iterdir()] == ["device-0"]  # four persons a device, at least
    for path in (tmp_path / "devices").rglob("*"):
        assert path.is_dir() or b"\x89PNG" not in path.read_bytes()
