from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_result import PNG, RESULT, result_with
from scipy.special import ndtri

from device_sim import results
from device_sim.results import DetCurve, KeptCapture, Rates, Result, ScoreMarks, TableRow, read_result, write_result
from device_sim.typed_json import typed
from tutelage.errors import Code, StorageError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def test_a_result_comes_back_equal(path: Path):
    write_result(RESULT, path)
    assert read_result(path) == RESULT


def test_the_file_is_json_with_a_field_a_line(path: Path):
    write_result(RESULT, path)
    lines = path.read_text().splitlines()
    assert json.loads(path.read_text()) == RESULT.as_json()
    assert [json.loads(f"{{{line.rstrip(',')}}}").popitem()[0] for line in lines[1:-1]] == list(RESULT.as_json())


def test_the_file_has_the_names_that_others_rely_on():
    fields = RESULT.as_json()
    assert fields["table"][0] == {
        "name": "frozen student",
        "before": {"fnmr": 0.069, "rank1": 0.951, "strangers": 0.0028},
        "after": {"fnmr": 0.517, "rank1": 0.612, "strangers": 0.0056},
    }
    assert fields["labels"] == {"asked": 83, "stored": 71, "abstained": 12, "precision": 0.9859}
    assert fields["samples"] == {"first": 1324, "second": 73, "dropped": {"below-interval": 211, "near-duplicate": 13}}
    assert fields["trainings"][2] == {
        "device": 1,
        "day": 11,
        "generation": "v1+3",
        "samples": 58,
        "steps": 0,
        "seconds": 60.0,
        "peak_bytes": 4096,
        "verdict": "killed",
        "reasons": [],
    }
    assert fields["timeline"]["device 0"][1] == {
        "day": 1,
        "wear": 0.2,
        "frozen_fnmr": 0.2,
        "live_fnmr": None,
        "generation": "v1",
    }
    assert fields["det"]["self-distilled"] == {"fmr": [0.2, 0.001], "fnmr": [0.01, 0.03]}
    assert set(fields["kept"][0]) == {"png", "device", "day", "kind", "label", "score", "reason"}
    assert fields["events"][0] == {"day": 5, "device": 0, "kind": "gate-passed", "reason": "misses 2 of 12, before 6"}
    assert set(fields["made"]) == {"commit", "machine", "python", "torch", "seeds", "date"}


def test_numbers_of_numpy_are_numbers(path: Path):
    row = TableRow("frozen student", Rates(np.float32(0.5), np.float64(1.0)), Rates(0.25, None))
    write_result(result_with(table=(row,), scores={"genuine": np.array([1.0, 2.5])}), path)
    again = read_result(path)
    assert again.table[0].before == Rates(0.5, 1.0, None)
    assert again.scores == {"genuine": (1.0, 2.5)}


def test_text_that_no_encoding_takes_comes_back_too(path: Path):
    write_result(result_with(title="name \udcff of a file"), path)
    assert read_result(path).title == "name \udcff of a file"


def put(*place: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the JSON of a result at `place`."""

    def change(fields: Any) -> None:
        for step in place[:-1]:
            fields = fields[step]
        fields[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("table", 0, "before", "fnmr", value=1.01), "result.table[0].before.fnmr must be a number from 0 to 1"),
        (put("table", 0, "after", "rank1", value=-0.1), "result.table[0].after.rank1 must be a number from 0 to 1"),
        (put("table", 1, "after", "fnmr", value=float("nan")), "result.table[1].after.fnmr must be a finite number"),
        (put("scores", "genuine, frozen, worn", value=[1.0, float("inf")]), "worn'][1] must be a finite number"),
        (put("labels", "asked", value=-1), "result.labels.asked must be a number from 0"),
        (put("labels", "asked", value=True), "result.labels.asked must be a whole number"),
        (put("labels", "stored", value=1.5), "result.labels.stored must be a whole number"),
        (put("labels", "precision", value=True), "result.labels.precision must be a finite number"),
        (put("kind", value="video"), "result.kind must be one of synthetic, images, not 'video'"),
        (put("trainings", 0, "verdict", value="good"), "result.trainings[0].verdict must be one of passed, failed"),
        (put("trainings", 0, "verdict", value=[]), "result.trainings[0].verdict must be one of"),
        (put("trainings", value={}), "result.trainings must be a list"),
        (put("timeline", value=[]), "result.timeline must be an object"),
        (put("made", value="today"), "result.made must be an object"),
        (put("title", value=3), "result.title must be a text"),
        (put("samples", "dropped", "x", value="many"), "result.samples.dropped['x'] must be a whole number"),
        (put("det", "frozen student", "fmr", value=[0.5]), "a DET curve needs pairs: 1 FMR but 4 FNMR"),
        (put("kept", 0, "png", value="<script>"), "a kept capture of device 0 is not in base64"),
        (put("kept", 0, "png", value="äöü"), "a kept capture of device 0 is not in base64"),
        (put("kept", 0, "png", value=base64.b64encode(b"GIF89a").decode()), "device 0 is no PNG file"),
        (put("settings", "limit", value=float("inf")), "result.settings['limit'] holds what JSON cannot carry"),
        (put("surprise", value=1), "result has unknown surprise"),
        (lambda fields: fields.pop("labels"), "result lacks labels"),
        (lambda fields: fields["made"].pop("seeds"), "result.made lacks seeds"),
    ],
)
def test_what_is_no_result_is_refused_and_the_place_named(change: Callable[[Any], Any], message: str):
    fields = RESULT.as_json()
    change(fields)
    with pytest.raises(UsageError) as refused:
        Result.from_json(fields)
    assert message in refused.value.message
    assert refused.value.code is Code.USAGE


def test_a_refusal_does_not_repeat_a_whole_file():
    with pytest.raises(UsageError) as refused:
        Result.from_json("x" * 10_000)
    assert len(refused.value.message) < 120


def test_fields_that_have_a_default_may_be_left_out():
    names = ("trainings", "timeline", "scores", "det", "kept", "events")
    fields = {name: value for name, value in RESULT.as_json().items() if name not in names}
    bare = Result.from_json(fields)
    assert (bare.trainings, bare.timeline, bare.scores, bare.det, bare.kept, bare.events) == ((), {}, {}, {}, (), ())


def test_a_result_that_breaks_its_rules_does_not_replace_a_good_one(path: Path):
    write_result(RESULT, path)
    row = TableRow("frozen student", Rates(float("nan"), 1.0), Rates(0.5, 1.0))
    with pytest.raises(UsageError, match="finite"):
        write_result(result_with(table=(row,)), path)
    assert read_result(path) == RESULT
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_a_file_without_json_is_named(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"result\.json holds no JSON"):
        read_result(path)


def test_an_absent_or_giant_file_is_a_storage_error(path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StorageError) as absent:
        read_result(path)
    write_result(RESULT, path)
    monkeypatch.setattr(results, "MAX_FILE_BYTES", 100)
    with pytest.raises(StorageError, match="more than 100 bytes") as giant:
        read_result(path)
    assert absent.value.code is giant.value.code is Code.STORAGE_FAILED


def test_rows_are_found_by_name():
    assert RESULT.row("teacher") is RESULT.table[2]
    assert RESULT.row("nobody") is None


@pytest.mark.parametrize(
    ("settings", "marks"),
    [
        ({}, ScoreMarks(30.0, 33.0, 60.0)),
        ({"accept_score": 25, "rules": {"accept_score": 40.0, "sample_low": 28}}, ScoreMarks(25.0, 28.0, 60.0)),
        ({"device": {"sampling": {"accept_score": 31.0, "sample_high": 55.5}}}, ScoreMarks(31.0, 33.0, 55.5)),
        ({"accept_score": "high"}, ScoreMarks(30.0, 33.0, 60.0)),
    ],
)
def test_marks_are_those_of_the_rules_in_force(settings: dict[str, Any], marks: ScoreMarks):
    assert result_with(settings=settings).marks == marks


def test_a_kept_capture_is_a_png():
    assert base64.b64decode(KeptCapture(PNG, 0, 0, "first", "", None, "").png).startswith(b"\x89PNG")


def test_a_thinned_curve_keeps_its_ends_and_its_detail_where_devices_operate(rng: np.random.Generator):
    genuine, impostor = rng.normal(3, 1, 500), np.sort(rng.normal(0, 1, 20_000))
    thresholds = np.concatenate([[-np.inf], impostor, [np.inf]])
    fmr = np.array([(impostor >= t).mean() for t in thresholds[::7]] + [0.0])
    fnmr = np.array([(genuine < t).mean() for t in thresholds[::7]] + [1.0])
    curve = DetCurve.thinned(fmr, fnmr, points=100)
    assert len(curve.fmr) <= 101
    assert (curve.fmr[0], curve.fnmr[0], curve.fmr[-1], curve.fnmr[-1]) == (fmr[0], fnmr[0], fmr[-1], fnmr[-1])
    assert set(zip(curve.fmr, curve.fnmr, strict=True)) <= set(zip(fmr.tolist(), fnmr.tolist(), strict=True))
    # Between FMR 0.05 % and 5 % lie 5 % of all points by rank, but far more of the deviates.
    assert sum(0.0005 <= rate <= 0.05 for rate in curve.fmr) >= 12
    deviates = [ndtri(min(max(rate, 1e-6), 1 - 1e-6)) for rate in curve.fmr]
    whole = deviates[0] - deviates[-1]
    inside = [a - b for a, b in pairwise(deviates[1:-1])]
    assert max(inside) < whole / 5


@pytest.mark.parametrize("points", [[], [0.5], [0.5, 0.5]])
def test_a_curve_of_next_to_nothing_can_be_thinned(points: list[float]):
    curve = DetCurve.thinned(points, points)
    assert set(curve.fmr) == set(points)


def test_an_annotation_nobody_can_read_is_a_defect():
    with pytest.raises(TypeError, match="no way to read"):
        typed(bytes, b"", "field")
