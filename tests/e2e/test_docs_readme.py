"""The commands of the README run as they stand; words behind them only make them shorter.

`make` runs them with the interpreter of the tests, and does not install anew what the tests are run with.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_persons import draw_captures
from PIL import Image
from shown_commands import ROOT, commands_of

from device_sim.results import read_result
from tutelage.manifest import Split, split_folder

ORL = ROOT.parent / "shared" / "data" / "orl-faces"
PERSONS, IMAGES = 12, 12
BIN = Path(sys.executable).parent
INSTALLED = [f"--assume-old=.venv/.installed-{extra}" for extra in ("demo", "dev", "face")]
SHORT = "--devices 1 --days 2 --student-steps 1"

TEST = "make test"
DEMO = "make demo"
IMAGES_DEMO = 'make demo ARGS="--data FOLDER"'
FACES_DEMO = 'make demo FACE=1 ARGS="--data FOLDER --teacher face"'
GRPC_DEMO = "make demo ARGS=--grpc"
UP = ".venv/bin/tutelage up"
"""Served for real, and called, by test_up."""
EVALUATE = ".venv/bin/tutelage evaluate FOLDER --seeds 5"


def test_these_are_all_the_commands_that_the_readme_shows() -> None:
    assert sorted(commands_of(ROOT / "README.md")) == sorted(
        [DEMO, TEST, IMAGES_DEMO, FACES_DEMO, EVALUATE, GRPC_DEMO, UP]
    )


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    for person in range(PERSONS):
        (tmp_path / f"p{person:02d}").mkdir()
        for number, capture in enumerate(draw_captures(person, IMAGES)):
            Image.fromarray(capture).save(tmp_path / f"p{person:02d}" / f"{number}.png")
    return tmp_path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    if not ORL.is_dir():
        pytest.skip(f"the images are not at {ORL}")
    for person in sorted(path for path in ORL.iterdir() if path.is_dir())[:PERSONS]:
        (tmp_path / person.name).mkdir()
        for image in person.iterdir():
            (tmp_path / person.name / image.name).symlink_to(image)
    # The cloud's persons calibrate, which takes all their images; of the others a few will do.
    manifest = split_folder(tmp_path)
    for person in set(manifest.persons(*Split)) - set(manifest.persons(Split.CLOUD)):
        for image in sorted((tmp_path / person).iterdir())[4:]:
            image.unlink()
    return tmp_path


def run(words: list[str]) -> str:
    """What a command of the README says, run at the root of the repository."""
    # Whatever `make` and pytest told those who run this test is none of the command's business.
    theirs = ("MAKE", "MFLAGS", "PYTEST", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    environment |= {"OMP_NUM_THREADS": "1"}
    if words[0] == "make":
        words = ["make", f"BIN={BIN}", *INSTALLED, *words[1:]]
    done = subprocess.run(
        [words[0].replace(".venv/bin", str(BIN)), *words[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-1000:]} {done.stderr[-2000:]}"
    return done.stdout


def demo(line: str, folder: Path, out: Path, *further: str) -> str:
    """What the demonstration of `line` says, shortened, with its outcome in `out`."""
    *words, arguments = shlex.split(line) if "ARGS" in line else [*shlex.split(line), "ARGS="]
    arguments = arguments.replace("FOLDER", str(folder))
    return run([*words, " ".join([arguments, SHORT, "--out", str(out), *further])])


@pytest.mark.slow
def test_the_demonstration_on_synthetic_fingers(tmp_path: Path) -> None:
    assert f"report: {tmp_path / 'out' / 'report.html'}" in demo(DEMO, tmp_path, tmp_path / "out")
    result = read_result(tmp_path / "out" / "result.json")
    assert (result.kind, result.settings["devices"], result.settings["site"]["days"]) == ("synthetic", 1, 2)
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_the_demonstration_through_the_services(tmp_path: Path) -> None:
    demo(GRPC_DEMO, tmp_path, tmp_path / "out")
    assert read_result(tmp_path / "out" / "result.json").kind == "synthetic"
    assert "serving at" in (tmp_path / "out/services/services.log").read_text()


@pytest.mark.slow
def test_the_demonstration_on_a_folder_of_images(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    demo(IMAGES_DEMO, drawn, out, "--teacher-steps", "1")
    result = read_result(out / "result.json")
    assert (result.kind, result.settings["teacher"]) == ("images", "images")


@pytest.mark.slow
@pytest.mark.needs("dlib")
def test_the_demonstration_with_the_face_teacher(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    demo(FACES_DEMO, faces, out)
    result = read_result(out / "result.json")
    (teacher,) = [row for row in result.table if row.name == "teacher"]
    assert result.settings["teacher"] == "face"
    assert teacher.before.rank1 > 0.9


@pytest.mark.slow
def test_the_comparison(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out")
    shorter = ["--seeds", "1", "--methods", "frozen,template", "--teacher-steps", "1", "--student-steps", "1"]
    words = [str(drawn) if word == "FOLDER" else word for word in shlex.split(EVALUATE)]
    said = run([*words, *shorter, "--out", str(out)])
    assert "template" in said
    assert {path.name for path in out.iterdir()} == {"comparison.json", "comparison.md", "comparison.svg"}


def test_the_tests() -> None:
    assert " passed" in run([*shlex.split(TEST), "PYTEST_ARGS=-p no:cacheprovider tests/unit/test_markup.py"])
