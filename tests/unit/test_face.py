"""The face teacher on drawn faces: nobody's image is needed to run all of it."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tutelage.biometrics.features import cosines
from tutelage.captures import Pixels
from tutelage.errors import Code, InputError, MissingExtraError, PackageError, StorageError, UsageError
from tutelage.face import NO_FACE, FaceSettings, FaceTeacher, FaceWeights, WeightFile, installed_weights
from tutelage.face.placement import MIN_FOUND, median_placements
from tutelage.face.teacher import _space
from tutelage.labelling import AbstentionPolicy, GalleryLabeller, Teacher


class Blocker(importlib.abc.MetaPathFinder):
    """An import system in which dlib is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "dlib":
            raise ModuleNotFoundError("No module named 'dlib'", name="dlib")
        return None


def drawn_face(seed: int, width: int = 92, height: int = 112) -> Pixels:
    """A cartoon, different for each seed, in which the detector finds a face."""
    rng = np.random.default_rng(seed)
    scale = 4 * min(width / 92, height / 112)
    image = Image.new("L", (width * 4, height * 4), int(rng.uniform(60, 110)))
    draw = ImageDraw.Draw(image)
    cx, cy = width * 2 + rng.uniform(-3, 3) * scale, height * 2 + rng.uniform(-3, 3) * scale
    fw, fh = rng.uniform(27, 32) * scale, rng.uniform(38, 44) * scale
    skin, dark = int(rng.uniform(150, 200)), int(rng.uniform(20, 60))
    ex, ey = fw * rng.uniform(0.40, 0.46), fh * rng.uniform(0.18, 0.25)

    def oval(x: float, y: float, a: float, b: float, fill: int) -> None:
        draw.ellipse((x - a, y - b, x + a, y + b), fill=fill)

    oval(cx, cy - fh * 0.15, fw * 1.12, fh * 1.05, dark)
    oval(cx, cy, fw, fh, skin)
    for side in (-1, 1):
        oval(cx + side * ex, cy - ey, fw * 0.27, fh * 0.13, skin - 35)
        oval(cx + side * ex, cy - ey, fw * 0.19, fh * 0.065, 235)
        oval(cx + side * ex, cy - ey, fw * 0.09, fh * 0.062, 20)
        left, right = cx + side * (ex - fw * 0.24), cx + side * (ex + fw * 0.24)
        draw.line((left, cy - ey - fh * 0.17, right, cy - ey - fh * 0.15), fill=dark, width=int(fh * 0.05))
        oval(cx + side * fw * 0.12, cy + fh * 0.27, fw * 0.08, fh * 0.035, 50)
    oval(cx, cy + fh * 0.53, fw * rng.uniform(0.25, 0.4), fh * 0.06, 90)
    small = image.filter(ImageFilter.GaussianBlur(1.1 * scale)).resize((width, height), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(small) + rng.normal(0, 2, (height, width)), 0, 255).astype(np.uint8)


def noise(seed: int, height: int = 112, width: int = 92) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture(scope="module")
def teacher() -> FaceTeacher:
    pytest.importorskip("dlib", reason="the extra `face` is not installed")
    try:
        return FaceTeacher()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def site(teacher: FaceTeacher) -> FaceTeacher:
    return FaceTeacher(FaceSettings(site_alignment=True))


# --- the extra and its weights


def test_importing_the_package_does_not_load_dlib() -> None:
    code = "import sys, tutelage.face; sys.exit('dlib' in sys.modules or 'face_recognition_models' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_dlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "dlib", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Blocker(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"tutelage\[face\]") as caught:
        FaceTeacher(weights=small_weights(tmp_path))
    assert caught.value.code is Code.EXTRA_MISSING
    assert caught.value.exit_code == 70


def test_without_the_weights_the_extra_is_missing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.face.weights.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError):
        installed_weights()


def test_installed_weights_are_the_pinned_ones(teacher: FaceTeacher) -> None:
    installed_weights().check()


def small_weights(folder: Path) -> FaceWeights:
    """Two small files with their true digests; no network can be read from them."""
    files = []
    for name in ("landmarks.dat", "descriptor.dat"):
        path = folder / name
        path.write_bytes(name.encode() * 100)
        files.append(WeightFile(path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return FaceWeights(*files)


@pytest.mark.parametrize("name", ["landmarks.dat", "descriptor.dat"])
def test_one_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    weights = small_weights(tmp_path)
    weights.check()
    data = bytearray((tmp_path / name).read_bytes())
    data[7] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PackageError, match=name) as caught:
        weights.check()
    assert caught.value.code is Code.PACKAGE_CORRUPT


def test_missing_and_unreadable_weights_are_told_apart(tmp_path: Path) -> None:
    digest = "0" * 64
    with pytest.raises(PackageError) as missing:
        WeightFile(tmp_path / "absent.dat", digest).check()
    assert missing.value.code is Code.PACKAGE_INCOMPLETE
    with pytest.raises(StorageError) as unreadable:
        WeightFile(tmp_path, digest).check()
    assert unreadable.value.code is Code.STORAGE_FAILED


def test_tampered_weights_make_no_teacher(teacher: FaceTeacher, tmp_path: Path) -> None:
    weights = small_weights(tmp_path)
    (tmp_path / "descriptor.dat").write_bytes(b"other")
    with pytest.raises(PackageError) as tampered:
        FaceTeacher(weights=weights)
    assert tampered.value.code is Code.PACKAGE_CORRUPT


def test_weights_that_dlib_cannot_read_are_corrupt(teacher: FaceTeacher, tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        FaceTeacher(weights=small_weights(tmp_path))
    assert caught.value.code is Code.PACKAGE_CORRUPT


# --- settings and space


@pytest.mark.parametrize(
    "wrong",
    [
        {"enlarge": 0.0},
        {"enlarge": 8.1},
        {"enlarge": math.nan},
        {"padding": -0.1},
        {"padding": math.nan},
        {"detector_threshold": math.inf},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        FaceSettings(**wrong)  # type: ignore[arg-type]


def test_space_changes_with_whatever_changes_features(teacher: FaceTeacher) -> None:
    settings = [FaceSettings(), FaceSettings(enlarge=2.0), FaceSettings(padding=0.3), FaceSettings(equalise=True)]
    spaces = [_space(installed_weights(), each) for each in settings]
    assert spaces[0] == teacher.space
    assert len(set(spaces)) == 4
    assert all(space.endswith("/face") for space in spaces)
    assert FaceTeacher(settings[1]).space == spaces[1]


def test_space_stays_where_only_the_place_of_a_face_changes(teacher: FaceTeacher, site: FaceTeacher) -> None:
    assert site.space == teacher.space
    assert _space(installed_weights(), FaceSettings(detector_threshold=-0.5)) == teacher.space
    assert teacher.for_site([]).space == teacher.space


# --- extraction


def test_drawn_faces_give_unit_features_in_the_own_space(teacher: FaceTeacher) -> None:
    extraction = teacher.extract([drawn_face(1), drawn_face(2)])
    assert extraction.usable.tolist() == [True, True]
    assert extraction.reasons == ("", "")
    assert extraction.notes == ("", "")
    assert extraction.features.space == teacher.space
    assert extraction.features.vectors.shape == (2, 128)
    assert np.linalg.norm(extraction.features.vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_noise_holds_no_face(teacher: FaceTeacher) -> None:
    extraction = teacher.extract([noise(0), drawn_face(1), noise(1, 8, 256)])
    assert extraction.usable.tolist() == [False, True, False]
    assert extraction.reasons == (NO_FACE, "", NO_FACE)
    assert NO_FACE == "no face found"
    assert not extraction.features.vectors[[0, 2]].any()


def test_what_is_no_capture_is_reported_not_raised(teacher: FaceTeacher) -> None:
    wrong = [np.zeros((50, 50), np.uint8), np.ones(4, np.uint8), np.full((20, 20), np.nan), np.ones((4, 4), np.uint8)]
    extraction = teacher.extract([*wrong, drawn_face(1)])
    assert extraction.usable.tolist() == [False] * 4 + [True]
    assert "all pixels are equal" in extraction.reasons[0]
    assert all(extraction.reasons[:4])


def test_no_captures_give_an_empty_answer(teacher: FaceTeacher, site: FaceTeacher) -> None:
    for each in (teacher, site):
        extraction = each.extract([])
        assert extraction.features.vectors.shape == (0, 128)
        assert extraction.usable.shape == (0,)


def test_the_answer_for_a_capture_depends_on_it_alone(teacher: FaceTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [drawn_face(1), noise(0), drawn_face(2), drawn_face(3)]
    whole = teacher.extract(captures).features.vectors
    monkeypatch.setattr("tutelage.face.teacher.BATCH", 2)
    assert np.array_equal(teacher.extract(captures).features.vectors, whole)
    assert np.array_equal(teacher.extract(captures[::-1]).features.vectors, whole[::-1])


def test_grey_colour_and_floats_of_the_same_picture_agree(teacher: FaceTeacher) -> None:
    face = drawn_face(1)
    captures = [face, np.repeat(face[..., None], 3, axis=2), face / 255]
    vectors = teacher.extract(captures).features.vectors
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_alignment_undoes_tilt_and_size(teacher: FaceTeacher) -> None:
    face = Image.fromarray(drawn_face(1))
    tilted = np.asarray(face.rotate(12, Image.Resampling.BILINEAR, fillcolor=90))
    large = np.asarray(face.resize((184, 224), Image.Resampling.BILINEAR))
    captures = [np.asarray(face), tilted, large, drawn_face(5)]
    upright, turned, grown, other = (teacher.extract([capture]).features for capture in captures)
    assert cosines(upright, turned).item() > 0.95
    assert cosines(upright, grown).item() > 0.98
    assert cosines(upright, other).item() < cosines(upright, turned).item()


def test_the_largest_of_two_faces_is_taken(teacher: FaceTeacher) -> None:
    scene = np.full((130, 250), 90, np.uint8)
    scene[9:121, 150:242] = drawn_face(1)
    alone = teacher.engine.find(teacher._image(scene))
    scene[30:103, 20:80] = drawn_face(2, 60, 73)
    both = teacher.engine.find(teacher._image(scene))
    scene[9:121, 150:242] = 90
    small = teacher.engine.find(teacher._image(scene))
    assert alone is not None
    assert both is not None
    assert small is not None
    assert (both[:, 0] > 0.6).all()
    assert (small[:, 0] < 0.4).all()


def test_the_threshold_moves_the_detector(teacher: FaceTeacher) -> None:
    strict = FaceTeacher(FaceSettings(detector_threshold=10.0))
    assert strict.extract([drawn_face(1)]).reasons == (NO_FACE,)


def test_equalising_changes_the_feature(teacher: FaceTeacher) -> None:
    equalised = FaceTeacher(FaceSettings(equalise=True)).extract([drawn_face(1)])
    assert equalised.usable.all()
    assert not np.array_equal(equalised.features.vectors, teacher.extract([drawn_face(1)]).features.vectors)


# --- site alignment


def test_captures_without_a_face_borrow_the_median_placement(teacher: FaceTeacher, site: FaceTeacher) -> None:
    faces = [drawn_face(seed) for seed in range(MIN_FOUND)]
    hidden = noise(0)
    extraction = site.extract([*faces, hidden])
    assert extraction.usable.all()
    assert extraction.reasons == ("",) * (MIN_FOUND + 1)
    assert extraction.notes[:-1] == ("",) * MIN_FOUND
    assert extraction.notes[-1] == f"no face found: cut where the faces of {MIN_FOUND} captures cut alike lie"
    found = [teacher.engine.find(teacher._image(face)) for face in faces]
    median = np.array([[sorted(f[i][j] for f in found)[MIN_FOUND // 2] for j in range(2)] for i in range(5)])
    chip = teacher.engine.chip(teacher._image(hidden), median, 0.25)
    assert np.array_equal(extraction.features.vectors[-1], teacher.engine.describe([chip])[0])
    assert np.array_equal(extraction.features.vectors[:-1], teacher.extract(faces).features.vectors)


def test_nothing_is_borrowed_by_default_from_few_or_for_another_size(teacher: FaceTeacher, site: FaceTeacher) -> None:
    faces = [drawn_face(seed) for seed in range(MIN_FOUND)]
    assert teacher.extract([*faces, noise(0)]).reasons[-1] == NO_FACE
    assert site.extract([*faces[1:], noise(0)]).reasons[-1] == NO_FACE
    extraction = site.extract([*faces, noise(0, 92, 112), np.zeros((112, 92), np.uint8)])
    assert not extraction.usable[-2:].any()
    assert extraction.reasons[-2] == NO_FACE != extraction.reasons[-1]


def test_a_site_learnt_once_serves_single_captures(teacher: FaceTeacher) -> None:
    taught = teacher.for_site([*(drawn_face(seed) for seed in range(MIN_FOUND)), noise(3)])
    extraction = taught.extract([noise(0)])
    assert extraction.usable.all()
    assert str(MIN_FOUND) in extraction.notes[0]
    assert taught.space == teacher.space
    assert not teacher.extract([noise(0)]).usable.any()


def eyes_at(x: float, y: float) -> np.ndarray:
    """Landmarks of an upright face in a 100x100 capture, 30 pixels between the eyes' middles."""
    return np.array([(x + 0.2, y), (x + 0.1, y), (x - 0.2, y), (x - 0.1, y), (x, y + 0.2)])


def test_spread_is_measured_in_distances_between_the_eyes() -> None:
    centres = [0.5, 0.5, 0.53, 0.44, 0.59]
    placement = median_placements([((100, 100), eyes_at(x, 0.4)) for x in centres])[100, 100]
    assert placement.found == 5
    assert np.allclose(placement.landmarks, eyes_at(0.5, 0.4))
    apart = sorted(abs(x - 0.5) * 100 for x in centres)  # 0 0 3 6 9 pixels
    assert placement.spread == pytest.approx(apart[2] / 30)


def test_faces_that_do_not_agree_give_no_placement() -> None:
    def spread(step: float) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        return (((100, 100), eyes_at(0.5 + step * k, 0.4)) for k in (-2, -1, 0, 1, 2))

    assert median_placements(spread(0.149))  # median distance is one step; the limit is half of 0.3
    assert not median_placements(spread(0.151))


# --- as a teacher among others


def test_it_labels_through_the_gallery_and_abstains_without_a_face(teacher: FaceTeacher) -> None:
    any_teacher: Teacher = teacher
    assert any_teacher.name == "face"
    labeller = GalleryLabeller(any_teacher, AbstentionPolicy(min_cosine=-1.0, min_margin=0.0))
    labeller.enrol("ada", [drawn_face(1)])
    labeller.enrol("bob", [drawn_face(5)])
    with pytest.raises(InputError, match=NO_FACE):
        labeller.enrol("eve", [noise(0)])
    darker = (drawn_face(1) * 0.8).astype(np.uint8)
    named, abstained = labeller.label([[noise(1), darker], [noise(2)]])
    assert named.person == "ada"
    assert abstained.person is None
    assert abstained.reason == NO_FACE
