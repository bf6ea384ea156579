"""Sites: everything follows from the seed, nobody is somebody else, and bad images cost only themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_persons import draw_captures
from PIL import Image

from device_sim.site import (
    STRANGER,
    ImageDrift,
    Site,
    SiteSize,
    Taken,
    image_site,
    impostor_set,
    readable,
    synthetic_site,
)
from tutelage.errors import Code, ManifestError
from tutelage.manifest import Manifest, Split, read_manifest, split_folder
from tutelage.nn.packaging import NEGATIVE, Strangers

SIZE = SiteSize(persons=3, references=2, probes=2, strangers=2, days=4, attempts=2.0, stranger_share=0.4)
NOBODY = Strangers([], [])


@pytest.fixture(scope="module")
def site() -> Site:
    return synthetic_site(7, 0, SIZE, NOBODY)


def same(a: Taken, b: Taken) -> bool:
    return a.persons == b.persons and all((x == y).all() for x, y in zip(a.captures, b.captures, strict=True))


def stream(site: Site) -> list[tuple[int, str, bytes]]:
    return [
        (a.day, a.person, a.tries(k).tobytes()) for day in range(site.days) for a in site.attempts(day) for k in (0, 1)
    ]


def test_a_synthetic_site_holds_what_its_size_says(site: Site):
    assert site.persons == ("person-000", "person-001", "person-002")
    assert site.references.persons == tuple(np.repeat(site.persons, 2))
    assert site.probes_new.persons == site.probes_worn.persons == tuple(np.repeat(site.persons, 2))
    assert site.strangers_new.persons == site.strangers_worn.persons == (STRANGER, STRANGER)
    assert {c.shape for c in site.references.captures} == {(64, 64)}
    assert (site.condition(0).wear, site.condition(site.days).wear) == (0.0, SIZE.wear)


def test_everything_follows_from_seed_and_number(site: Site):
    again, other, next_door = (synthetic_site(s, n, SIZE, NOBODY) for s, n in ((7, 0), (8, 0), (7, 1)))
    assert same(site.references, again.references)
    assert same(site.probes_worn, again.probes_worn)
    assert stream(site) == stream(again)
    assert not same(site.references, other.references)
    assert not set(site.persons) & set(next_door.persons)
    assert not {c.tobytes() for c in site.references.captures} & {c.tobytes() for c in next_door.references.captures}


def test_no_capture_comes_twice(site: Site):
    taken = (site.references, site.probes_new, site.probes_worn, site.probes_on(1), site.probes_on(2))
    everything = [c.tobytes() for part in taken for c in part.captures] + [c for *_, c in stream(site)]
    assert len(everything) == len(set(everything))


def test_strangers_come_now_and_then_and_are_nobody(site: Site):
    people = [person for _, person, _ in stream(site)]
    assert 0 < people.count(STRANGER) < len(people)
    assert set(people) <= {*site.persons, STRANGER}


def test_a_site_without_strangers_has_none():
    site = synthetic_site(
        7, 0, SiteSize(persons=2, references=1, probes=1, strangers=0, days=2, stranger_share=1.0), NOBODY
    )
    assert len(site.strangers_new) == 0
    assert STRANGER not in {person for _, person, _ in stream(site)}


def test_who_is_left_out_never_comes(site: Site):
    fewer = site.without({"person-001"})
    assert fewer.persons == ("person-000", "person-002")
    assert "person-001" not in {*fewer.probes_new.persons, *fewer.probes_worn.persons, *fewer.probes_on(1).persons}
    assert stream(fewer) == [one for one in stream(site) if one[1] != "person-001"]
    assert same(fewer.strangers_worn, site.strangers_worn)


def test_the_impostor_set_has_one_capture_a_person_some_of_them_to_train_against():
    impostors = impostor_set(7, unseen=3, negatives=2)
    assert len(impostors.unseen.captures) == 3
    assert len(impostors.negatives.captures) == 2
    assert len(set(impostors.persons)) == 5
    assert all(p.startswith(NEGATIVE) for p in impostors.negatives.persons)
    assert not np.bitwise_and(np.stack(impostors.captures), 3).any()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve persons with six images each."""
    for person in range(12):
        (tmp_path / f"p{person:02d}").mkdir()
        for number, capture in enumerate(draw_captures(person, 6)):
            Image.fromarray(capture).save(tmp_path / f"p{person:02d}" / f"{number}.png")
    return tmp_path


def sites(manifest: Manifest, count: int) -> list[Site]:
    return [image_site(manifest, 3, number, count, ImageDrift(days=3), NOBODY) for number in range(count)]


def test_the_persons_of_a_manifest_are_shared_out_among_the_sites(folder: Path):
    manifest = split_folder(folder)
    first, second = sites(manifest, 2)
    assert not set(first.persons) & set(second.persons)
    assert {*first.persons, *second.persons} == set(manifest.persons(Split.ENROL))
    assert len(first.strangers_new) == len(manifest.select(Split.STRANGER)) > 0
    assert {a.person for a in first.attempts(0)} == set(first.persons)
    assert stream(first) == stream(sites(manifest, 2)[0])
    assert first.references.captures[0].shape == (32, 32)


def test_a_stream_shows_the_persons_own_images_before_a_wearing_sensor(folder: Path):
    (site,) = sites(split_folder(folder), 1)
    for attempt in site.attempts(0):
        tries = [attempt.tries(k).astype(float) for k in range(2)]
        assert not (tries[0] == tries[1]).all()
    assert site.condition(2).wear > site.condition(1).wear > site.condition(0).wear == 0.0


def test_an_unreadable_image_costs_only_itself(folder: Path):
    manifest = split_folder(folder)
    lost = next(row for row in manifest.select(Split.STREAM))
    lost.path.write_bytes(b"\x89PNG but not really")
    kept, skipped = readable(manifest)
    assert [s.row for s in skipped] == [lost]
    assert str(lost.path) in skipped[0].reason
    assert len(kept.rows) == len(manifest.rows) - 1
    (site,) = sites(kept, 1)
    assert set(site.persons) == set(manifest.persons(Split.ENROL))


def test_a_person_whose_references_cannot_be_read_does_not_come(folder: Path):
    manifest = split_folder(folder)
    person = manifest.persons(Split.ENROL)[0]
    for row in manifest.select(Split.ENROL):
        if row.person == person:
            row.path.write_bytes(b"")
    (site,) = sites(readable(manifest)[0], 1)
    assert person not in site.persons
    everybody = {*site.probes_new.persons, *(p for _, p, _ in stream(site))}
    assert person not in everybody
    assert everybody == set(site.persons)


def test_a_manifest_of_unreadable_images_is_refused(folder: Path):
    manifest = split_folder(folder)
    for row in manifest.rows:
        row.path.write_bytes(b"")
    with pytest.raises(ManifestError) as caught:
        readable(manifest)
    assert caught.value.code is Code.DATA_INSUFFICIENT


@pytest.mark.parametrize("missing", [Split.ENROL, Split.STREAM, Split.PROBE])
def test_a_site_with_nobody_to_enrol_stream_or_probe_is_refused(folder: Path, missing: Split):
    rows = [row for row in split_folder(folder).rows if row.split is not missing]
    with pytest.raises(ManifestError) as caught:
        sites(Manifest(tuple(rows)), 1)
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_more_sites_than_persons_are_refused(folder: Path):
    with pytest.raises(ManifestError):
        sites(split_folder(folder), 12)


def test_a_site_without_strangers_split_is_one_without_strangers(folder: Path):
    rows = [row for row in split_folder(folder).rows if row.split is not Split.STRANGER]
    assert len(sites(Manifest(tuple(rows)), 1)[0].strangers_worn) == 0


def test_colour_and_small_images_are_drifted_too(tmp_path: Path):
    lines = ["path,person,split,condition"]
    for person in range(2):
        for number, use in enumerate(("enrol", "stream", "probe")):
            grey = draw_captures(person, 3, side=24)[number]
            name = f"{person}-{number}.png"
            Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=2)).save(tmp_path / name)
            lines.append(f"{name},p{person},{use},")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    (site,) = sites(read_manifest(tmp_path / "m.csv"), 1)
    assert {c.shape for c in site.probes_worn.captures} <= {(24, 24), (24, 24, 3)}
    assert len(stream(site)) == 12
