"""The demonstration: a fleet loses accuracy as its sensors wear, learns, and recovers; all that happened is kept.

`run_demo` plays the fleet and returns a `Result`; all that a person sees (live view, table, report) is made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from device_sim.clouds import Cloud, NearCloud
from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.device_settings import DeviceSettings
from device_sim.fleet import DAY_S, EPOCH_S, NIGHT_S, Observer, Post, Release, install, simulate
from device_sim.ledger import Ledger
from device_sim.measuring import WHO, Measured, curve, distributions, pooled
from device_sim.models import CONTINUED_PERSONS, ImageTraining, Models, Progress, continued, from_images, shipped
from device_sim.occasion import Window
from device_sim.provenance import made
from device_sim.results import FROZEN, SELF_DISTILLED, TEACHER, Result, TableRow
from device_sim.site import ImageDrift, Site, SiteSize, image_site, readable, synthetic_site
from tutelage.labelling import Teacher
from tutelage.manifest import Manifest, Split
from tutelage.nn.self_distil import SelfDistillation


@dataclass(frozen=True)
class DemoSettings:
    """What is simulated."""

    seed: int = 1
    devices: int = 3
    site: SiteSize = field(
        default_factory=lambda: SiteSize(
            persons=12, references=3, probes=4, strangers=40, days=14, attempts=1.0, wear=0.6
        )
    )
    images: ImageDrift = field(default_factory=ImageDrift)
    image_training: ImageTraining = field(default_factory=lambda: ImageTraining(teacher_steps=600))
    distil_steps: int = 30
    """For synthetic fingers: how much further the shipped student is distilled."""
    distil_persons: int = CONTINUED_PERSONS
    """Fingers it is distilled on."""
    device: DeviceSettings = field(
        default_factory=lambda: DeviceSettings(
            labels=LabelCondition(min_count=2, max_age_s=40_000.0),
            training=TrainingCondition(
                min_fresh=40, window=Window(EPOCH_S + 5 * DAY_S + NIGHT_S, length_s=3600.0, period_s=6 * DAY_S)
            ),
            self_distillation=SelfDistillation(steps=100),
        )
    )
    image_condition: TrainingCondition = field(
        default_factory=lambda: TrainingCondition(min_fresh=32, min_gap_s=3 * DAY_S)
    )
    """When devices train on images: these come more slowly and less evenly, so no device waits for a window."""
    show_captures: bool = False
    """Whether the report shows kept captures of real images; those of synthetic persons it always shows."""


def run_demo(
    settings: DemoSettings,
    out: Path,
    observer: Observer,
    progress: Progress,
    *,
    manifest: Manifest | None = None,
    teacher: Teacher | None = None,
    serving: Callable[[Models], AbstractContextManager[Cloud]] | None = None,
) -> Result:
    """Play a fleet on synthetic fingers, or on the images of `manifest`, and account for it.

    Args:
        settings: what is simulated.
        out: folder for the devices' stores; made if absent.
        observer: is told of each day and night.
        progress: is told of the preparations.
        manifest: images instead of synthetic fingers.
        teacher: for images, teaches instead of one trained on them.
        serving: makes the cloud that devices talk to; without it, the cloud is within this process.

    Raises:
        InputError: the images are too few, or the teacher cannot use them.
        StorageError: `out` cannot be written, or holds devices already.
    """
    created, skipped = datetime.now(UTC).isoformat(timespec="seconds"), 0
    if manifest is None:
        models = continued(
            shipped(), settings.seed, settings.distil_steps, created, progress, persons=settings.distil_persons
        )
        sites = [synthetic_site(settings.seed, n, settings.site, models.impostors) for n in range(settings.devices)]
    else:
        manifest, unreadable = readable(manifest)
        skipped = len(unreadable) + len(manifest.skipped)
        settings = replace(settings, device=replace(settings.device, training=settings.image_condition))
        models = from_images(manifest, teacher, settings.seed, settings.image_training, created, progress)
        count = max(1, min(settings.devices, len(manifest.persons(Split.ENROL)) // 4))
        sites = [image_site(manifest, settings.seed, n, count, settings.images, models.impostors) for n in range(count)]
    with ExitStack() as running:
        cloud: Cloud = NearCloud(models)
        if serving:
            progress("starting the services", 0, 1)
            cloud = running.enter_context(serving(models))
        posts = _put_up(sites, cloud.release(models), cloud, out, settings.device, running, progress)
        ledger = Ledger(posts, show_captures=settings.show_captures or manifest is None)
        simulate(posts, _Told((ledger, _CheckingIn(cloud), observer)))
        progress("measuring", 0, 1)
        about = {"notes": _notes(models, posts, skipped), "teacher": models.teacher.name, **_plain(asdict(settings))}
        return _result(ledger, models, about, kind="synthetic" if manifest is None else "images", created=created)


def _notes(models: Models, posts: Sequence[Post], skipped: int) -> list[str]:
    """How the models were made, and what had to be left out; names nobody."""
    refused = sum(post.refused for post in posts)
    left_out = {
        f"{skipped} images or persons left out: they cannot be used": skipped,
        f"{refused} persons left out: the teacher can use none of their references": refused,
    }
    return [*models.notes, *(note for note, count in left_out.items() if count)]


def _put_up(  # noqa: PLR0917 - in the order in which they are used
    sites: Sequence[Site],
    release: Release,
    cloud: Cloud,
    out: Path,
    settings: DeviceSettings,
    running: ExitStack,
    progress: Progress,
) -> list[Post]:
    """A device at each site, which `running` puts down again."""
    posts: list[Post] = []
    for site in sites:
        progress("putting up devices", len(posts), len(sites))
        folder, labeller = out / f"device-{site.number}", cloud.labeller(site.number)
        post = install(site, folder, release, labeller=labeller, settings=settings)
        running.callback(post.close)
        posts.append(post)
    return posts


@dataclass(frozen=True)
class _CheckingIn:
    """Reports every device after each night."""

    cloud: Cloud

    def on_day(self, day: int, posts: Sequence[Post]) -> None:  # noqa: ARG002 - an `Observer`
        for post in posts:
            self.cloud.check_in(post)

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        pass


@dataclass(frozen=True)
class _Told:
    """Tells several observers, in their order."""

    observers: Sequence[Observer]

    def on_day(self, day: int, posts: Sequence[Post]) -> None:
        for observer in self.observers:
            observer.on_day(day, posts)

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        for observer in self.observers:
            observer.on_night(day, posts)


def _result(
    ledger: Ledger, models: Models, about: dict[str, Any], *, kind: Literal["synthetic", "images"], created: str
) -> Result:
    """Everything found out, measured and counted."""
    pairs = zip(ledger.posts, ledger.frozen, strict=True)
    measured = [Measured.of(post, models.teacher, frozen) for post, frozen in pairs]
    names = dict(zip((FROZEN, SELF_DISTILLED, TEACHER), WHO, strict=True))
    titles = {
        "synthetic": "Synthetic fingerprints on wearing sensors",
        "images": "Your images before a wearing sensor",
    }
    return Result(
        kind=kind,
        title=titles[kind],
        made=made([about["seed"]], created),
        settings=about,
        table=tuple(
            TableRow(name, pooled(measured, who, "new"), pooled(measured, who, "worn")) for name, who in names.items()
        ),
        labels=ledger.labels(),
        samples=ledger.samples(),
        trainings=ledger.trainings(),
        timeline=ledger.timeline,
        scores=distributions(measured),
        det={name: curve(measured, who, "worn") for name, who in names.items()},
        kept=ledger.kept(),
        events=ledger.events(),
    )


def _plain(value: Any) -> Any:
    """Settings as JSON takes them."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
