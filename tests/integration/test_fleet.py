"""Several devices in simulated time: they learn side by side, and what fails at one is no matter to the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog
from toy_device import SETTINGS, PixelTeacher, finger, name_of, toy_release

from device_sim.fleet import DAY_S, EPOCH_S, Post, install, simulate
from device_sim.ledger import Ledger
from device_sim.measuring import SENSORS, WHO, Measured, curve, distributions, pooled, student_eye, teacher_eye
from device_sim.records import State
from device_sim.sensor import Condition
from device_sim.site import STRANGER, Attempt, Site, Taken
from tutelage.biometrics.features import Features
from tutelage.captures import Pixels
from tutelage.errors import Code, InputError, StorageError
from tutelage.labelling import AbstentionPolicy, Extraction, GalleryLabeller
from tutelage.nn.packaging import Strangers

POLICY = AbstentionPolicy(0.5, 0.05)
IMPOSTORS = Strangers([finger(2000 + i, 0) for i in range(60)], [f"impostor-{i:03d}" for i in range(60)])


def toy_site(number: int, days: int = 2, persons: int = 5, wear: float = 0.4) -> Site:
    first = number * persons

    def taken(who: Sequence[int], presses: Sequence[int], at: float, name: str = "") -> Taken:
        return Taken.of(
            (name if name == STRANGER and p >= 5000 else name_of(p), finger(p, k, at)) for p in who for k in presses
        )

    def attempts(day: int) -> Iterator[Attempt]:
        for turn in range(5 * persons):
            who = 6000 + turn if turn == 7 else first + turn % persons
            press = 1000 + 100 * day + 3 * turn
            yield Attempt(
                day,
                STRANGER if turn == 7 else name_of(who),
                lambda k, who=who, press=press: finger(who, press + k, wear),
            )

    enrolled, strangers = range(first, first + persons), range(5000, 5030)
    return Site(
        number=number,
        days=days,
        references=taken(enrolled, (0, 1), 0.0),
        probes_new=taken(enrolled, range(200, 204), 0.0),
        probes_worn=taken(enrolled, range(300, 304), wear),
        strangers_new=taken(strangers, (0,), 0.0, STRANGER),
        strangers_worn=taken(strangers, (1,), wear, STRANGER),
        impostors=IMPOSTORS,
        attempts=attempts,
        condition=lambda day: Condition(wear=wear if day else 0.0),
        probes_on=lambda day: taken(enrolled, range(400 + 10 * day, 402 + 10 * day), wear),
    )


def put_up(folder: Path, site: Site, teacher=None, **changes: object) -> Post:
    return install(
        site,
        folder / f"device-{site.number}",
        toy_release(),
        labeller=GalleryLabeller(teacher or PixelTeacher(), POLICY),
        settings=replace(SETTINGS, **changes),
    )


class Watching:
    def __init__(self) -> None:
        self.days: list[int] = []
        self.most_at_once = 0

    def on_day(self, day: int, posts: Sequence[Post]) -> None:
        self.days.append(day)

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        self.most_at_once = max(self.most_at_once, sum(p.training is not None and p.training.running() for p in posts))


@pytest.fixture
def folder(tmp_path: Path):
    posts: list[Post] = []
    yield tmp_path, posts
    for post in posts:
        post.close()


def test_devices_learn_side_by_side_and_one_that_fails_is_no_matter_to_the_others(folder):
    path, posts = folder
    posts.append(put_up(path, toy_site(0, days=1)))
    diverging = replace(SETTINGS.self_distillation, learning_rate=1e30)
    posts.append(put_up(path, toy_site(1, days=1), self_distillation=diverging))
    posts.append(put_up(path, toy_site(2, days=1)))
    (path / "device-2" / "jobs").write_text("no folder")
    watching, ledger = Watching(), Ledger(posts, show_captures=True)
    with structlog.testing.capture_logs() as logs:
        simulate(posts, Both(watching, ledger))
    assert watching.days == [0]
    assert watching.most_at_once in {2, 3}  # the one that diverges may end before it is seen
    assert posts[0].verdict == "passed the gate"
    assert [post.device.model.version for post in posts] == ["v1+1", "v1", "v1"]
    assert "loss" in posts[1].verdict
    assert str(path / "device-2" / "jobs") in posts[2].verdict
    failed = [(entry["device"], entry["code"]) for entry in logs if entry["log_level"] != "info"]
    assert failed == [(2, "storage-failed")]
    assert all(post.training is None for post in posts)

    trainings = ledger.trainings()
    assert [(t.device, t.verdict, t.generation) for t in trainings] == [
        (0, "passed", "v1+1"),
        (1, "killed", "v1+1"),
    ]
    assert (trainings[0].steps, trainings[0].seconds > 0, trainings[0].peak_bytes > 2**27) == (60, True, True)
    labels = ledger.labels()
    assert labels.asked == labels.stored + labels.abstained > 0
    assert labels.precision > 0.8
    assert ledger.samples().second == sum(s.kind == "second" for p in posts for s in p.device.store.samples(*State))
    (point,) = ledger.timeline["device 0"]
    assert (point.day, point.generation) == (0, "v1+1")
    assert point.live_fnmr < point.frozen_fnmr
    assert {kept.kind for kept in ledger.kept()} >= {"second"}
    kinds = [line.kind for line in ledger.events() if line.device == 0]
    assert [k for k in kinds if k != "sample-quarantined"] == [
        "labels-asked",
        "training-started",
        "gate-passed",
        "generation-swapped",
    ]
    assert {line.day for line in ledger.events()} == {0}

    measured = [Measured.of(post, PixelTeacher(), frozen) for post, frozen in zip(posts, ledger.frozen, strict=True)]
    live, before = pooled(measured[:1], "live", "worn"), pooled(measured[:1], "frozen", "worn")
    assert live.fnmr < before.fnmr
    assert pooled(measured[1:], "live", "worn") == pooled(measured[1:], "frozen", "worn")
    assert set(distributions(measured)) == {
        "genuine, frozen, new sensor",
        "genuine, frozen, worn",
        "genuine, self-distilled, worn",
        "strangers, self-distilled, worn",
    }
    assert len(distributions(measured)["strangers, self-distilled, worn"]) == 3 * 30
    det = curve(measured, "teacher", "worn")
    assert (max(det.fmr), min(det.fmr)) == (1.0, 0.0)


class Both:
    def __init__(self, *observers) -> None:
        self.observers = observers

    def on_day(self, day: int, posts: Sequence[Post]) -> None:
        for one in self.observers:
            one.on_day(day, posts)

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        for one in self.observers:
            one.on_night(day, posts)


def test_attempts_are_counted_by_who_really_came(folder):
    path, posts = folder
    posts.append(put_up(path, toy_site(0, days=2, wear=0.0), training=replace(SETTINGS.training, min_fresh=10_000)))
    simulate(posts, Watching())
    tally, store = posts[0].tally, posts[0].device.store
    assert (tally.genuine, tally.strange) == (48, 2)
    assert 0 <= tally.missed < 20
    assert set(tally.truth) == {d.observation.id for d in store.decisions()}
    assert tally.admitted <= tally.strange
    times = [d.observation.time_s for d in store.decisions()]
    assert times == sorted(times)
    assert EPOCH_S < times[0] < EPOCH_S + DAY_S < times[-1] < EPOCH_S + 2 * DAY_S


def test_a_folder_that_holds_a_device_is_not_taken_over(folder):
    path, posts = folder
    posts.append(put_up(path, toy_site(0)))
    with pytest.raises(StorageError) as caught:
        put_up(path, toy_site(0))
    assert caught.value.code is Code.STORAGE_FAILED


class Choosy(PixelTeacher):
    """Cannot use dark captures."""

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        seen = super().extract(captures)
        usable = np.array([capture.mean() > 128 for capture in captures], bool)
        reasons = tuple("" if ok else "too dark" for ok in usable)
        vectors = np.where(usable[:, None], seen.features.vectors, 1.0 / 4).astype(np.float32)  # a unit row of nonsense
        return Extraction(Features(vectors, seen.features.space), usable, reasons, seen.notes)


def dark(site: Site, persons: set[str]) -> Site:
    pairs = zip(site.references.persons, site.references.captures, strict=True)
    return replace(site, references=Taken.of((p, c // 4 if p in persons else c // 4 + 160) for p, c in pairs))


def test_persons_of_whom_the_teacher_can_use_no_reference_are_left_out(folder):
    path, posts = folder
    posts.append(put_up(path, dark(toy_site(0), {"p01", "p03"}), teacher=Choosy()))
    assert posts[0].refused == 2
    assert posts[0].site.persons == posts[0].device.store.persons() == ("p00", "p02", "p04")
    assert {a.person for a in posts[0].site.attempts(0)} == {"p00", "p02", "p04", STRANGER}


def test_a_site_of_which_the_teacher_knows_nobody_is_refused_and_nothing_is_left_open(folder):
    path, _ = folder
    with pytest.raises(InputError) as caught:
        put_up(path, dark(toy_site(0), {"p00", "p01", "p02", "p03"}), teacher=Choosy())
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_rates_are_those_of_the_plainest_loop(folder):
    path, posts = folder
    posts.append(put_up(path, toy_site(0)))
    post, model = posts[0], posts[0].device.model
    seen = student_eye(model).look(post.site.probes_worn, post.site.strangers_worn, 30.0)
    answers = [
        (p, model.recognise(c))
        for p, c in zip(post.site.probes_worn.persons, post.site.probes_worn.captures, strict=True)
    ]
    own = [
        model.verify(p, c) for p, c in zip(post.site.probes_worn.persons, post.site.probes_worn.captures, strict=True)
    ]
    assert seen.rates.rank1 == pytest.approx(np.mean([a.match.person == p for p, a in answers]))
    assert seen.rates.fnmr == pytest.approx(np.mean([score < 30.0 for score in own]))
    np.testing.assert_allclose(seen.genuine, own, atol=0.05)
    assert len(seen.impostor) == len(own) * 4
    strangers = [model.recognise(c).score for c in post.site.strangers_worn.captures]
    assert seen.rates.strangers == pytest.approx(np.mean([score >= 30.0 for score in strangers]))
    nobody = student_eye(model).look(post.site.probes_worn, Taken((), ()), 30.0)
    assert nobody.rates.strangers is None


def test_what_a_teacher_cannot_use_is_a_miss_and_never_compared():
    site = dark(toy_site(0), set())
    bright = replace(site, impostors=Strangers([c // 4 + 160 for c in IMPOSTORS.captures], IMPOSTORS.persons))
    captures = [c // 4 + (160 if i % 2 else 0) for i, c in enumerate(site.probes_new.captures)]
    eye = teacher_eye(Choosy(), bright)
    half = eye.look(Taken(site.probes_new.persons, tuple(captures)), Taken((), ()), 30.0)
    whole = eye.look(
        Taken(site.probes_new.persons, tuple(c // 4 + 160 for c in site.probes_new.captures)), Taken((), ()), 30.0
    )
    assert whole.rates.rank1 > 0.9
    assert half.rates.rank1 == pytest.approx(
        np.mean([i % 2 and own >= 0 for i, own in enumerate(range(20))]), abs=0.051
    )
    assert half.rates.fnmr >= 0.5
    assert set(WHO) == {"frozen", "live", "teacher"}
    assert set(SENSORS) == {"new", "worn"}
