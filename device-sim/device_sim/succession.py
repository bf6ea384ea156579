"""Which student recognises: the present one, and how another takes its place.

A local generation takes it when the gate let it pass, a released version when the cloud wants it, the former student
when people are worse off. Each change is prepared beside the running student, every reference re-extracted, while that
goes on answering; then the disk is changed, so that a device that dies in between starts with the new one; and last the
reception. Every change is an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from device_sim.activity import Activity
from device_sim.attempts import AttemptCounter
from device_sim.device_settings import DeviceKeys, DeviceSettings
from device_sim.events import EventKind
from device_sim.gate import Verdict, judge_gate
from device_sim.generations import Booted, Generations
from device_sim.holdings import Holdings
from device_sim.job import Descent
from device_sim.keeping import Keeper
from device_sim.learning import Labelled
from device_sim.reception import Reception
from device_sim.recognition import Neighbours, RunningModel
from device_sim.records import State
from device_sim.sampling import Liveness
from device_sim.store import Store
from device_sim.training import Trained
from device_sim.training_sets import TrainingSets
from device_sim.trial import (
    came_nearer,
    gather_evidence,
    packaged,
    stranger_scores,
    with_lower_scores,
)
from device_sim.watch import WatchDecision, WatchVerdict
from tutelage.biometrics.matching import DecisionRule
from tutelage.errors import Code, InputError, PackageError, StorageError, TrainingError
from tutelage.impostors import open_impostors
from tutelage.nn.packaging import Strangers
from tutelage.package import StudentPackage, read_package

_REMEMBERED = 1000
"""Latest decisions and samples looked at when a device starts."""


@dataclass(frozen=True)
class Tried:
    """A student before the gate."""

    share: float
    """How much of a training's way leads to it, above 0 to 1."""
    lowered: float
    """What its scores are lower by, since strangers had come nearer."""
    data: bytes = field(repr=False)
    """Its package."""
    model: RunningModel
    verdict: Verdict

    @property
    def said(self) -> str:
        """What is told of a student that passed."""
        way = "" if self.share == 1.0 else f"{100 * self.share:g}% of the way, more of it was refused; "
        if self.lowered:
            way += f"scores lowered by {self.lowered:.1f}, by which strangers had come nearer; "
        return f"{way}all checks hold; held back: {self.verdict.checks[0].reason}"


class Succession:
    """Changes of the running student; not safe for several threads, while its `reception` is."""

    reception: Reception
    """What answers captures."""
    package: StudentPackage
    """Whose student answers."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        keys: DeviceKeys,
        settings: DeviceSettings,
        *,
        liveness: Liveness,
        clock: Callable[[], float],
    ) -> None:
        """Boot from the newest package that can be trusted; every enrolled person is enrolled at once.

        Raises:
            PackageError: there is no package to boot from.
            StorageError: the store failed, or a reference in it is damaged.
        """
        self._store, self.generations, self._keys, self._settings = store, generations, keys, settings
        self._holdings, self._sets, self._clock = Holdings(store), TrainingSets(store), clock
        self._strangers: tuple[str, Strangers] | None = None
        booted = generations.boot()
        self.package, model = booted.package, self._model_of(booted.package)
        keeper = Keeper(
            store,
            settings.sampling,
            whole_attempts=settings.learning.whole_attempts,
            liveness=liveness,
            clock=clock,
            neighbours=self._neighbours_in(model),
        )
        self._tell_start(booted, model.version)
        self.reception = Reception(model, keeper, self._replayed(model.version), settings.watch, Activity())

    def _tell_start(self, booted: Booted, version: str) -> None:
        """Events for what the disk and the cloud changed while the device was off."""
        if booted.skipped:
            self._store.add_event(
                EventKind.GENERATION_REVERTED, with_skipped("at the start", booted), {}, generation=version
            )
        told = self._store.last_event(EventKind.RELEASE_INSTALLED)
        if booted.generation.is_released and (told is None or told.generation != version):
            self._store.add_event(EventKind.RELEASE_INSTALLED, "the cloud released it", {}, version)

    def _replayed(self, version: str) -> AttemptCounter:
        """The watch window as it was when the device stopped."""
        return AttemptCounter.replayed(
            self._settings.sampling.retries,
            self._store.decisions(after=self._store.next_decision_id() - _REMEMBERED),
            version if self._is_watched(version) else "",
        )

    def _is_watched(self, version: str) -> bool:
        """Whether `version` is a local generation whose watch was not over when the device stopped."""
        ends = (EventKind.WATCH_PASSED, EventKind.REVERT_FAILED, EventKind.GENERATION_REVERTED)
        settled = (self._store.last_event(kind) for kind in ends)
        return "+" in version and not any(event and event.generation == version for event in settled)

    @property
    def model(self) -> RunningModel:
        """What answers captures."""
        return self.reception.model

    @property
    def strangers(self) -> Strangers:
        """The people of the package's sealed impostor set."""
        digest = self.package.digest
        if self._strangers is None or self._strangers[0] != digest:
            self._strangers = digest, Strangers(*open_impostors(self.package.impostors, self._keys.fleet))
        return self._strangers[1]

    def judge(self, descent: Descent, trained: Trained) -> Verdict:
        """The gate's verdict on a trained student, carried out.

        Raises:
            TrainingError: `training-killed`, another student took over while this one was trained.
            TutelageError: as `packaged`, `Generations.promote` and the store; the running student stays.
        """
        numbers = {k: float(trained.summary[k]) for k in ("seconds", "peak_bytes", "steps_run", "samples")}
        self._tell(EventKind.TRAINING_FINISHED, "all steps done", numbers, descent.generation)
        if descent.parent != self.package.digest:
            raise TrainingError(
                Code.TRAINING_KILLED, "another student took over while this one was trained: train again"
            )
        tried = self._tried(descent, trained)
        numbers = {**tried.verdict.numbers, "share": tried.share, "lowered": tried.lowered}
        if not tried.verdict.passed:
            self._tell(EventKind.GATE_FAILED, "; ".join(tried.verdict.reasons), numbers, descent.generation)
            return tried.verdict
        self._tell(EventKind.GATE_PASSED, tried.said, numbers, descent.generation)
        neighbours = self._neighbours_in(tried.model)
        self.package = self.generations.promote(tried.data)
        self.reception.replace(tried.model, neighbours, AttemptCounter.swapped)
        learnt = {"training_set": float(descent.training_set)}
        self._tell(EventKind.GENERATION_SWAPPED, "the gate let it pass", learnt, descent.generation)
        return tried.verdict

    def _tried(self, descent: Descent, trained: Trained) -> Tried:
        """The largest part of the way that the gate lets pass; where it lets none pass, the largest of all.

        Raises:
            TutelageError: as `packaged`, all of the way leads to no student. Where a part of it leads to none, after
                a training that went astray, the search ends.
        """
        held_back = self._holdings.labelled(self._sets.known(State.HELD_BACK))
        released = self._strangers_of_release()
        refused: list[Tried] = []
        for share in self._settings.learning.shares:
            try:
                tried = self._try(descent, trained, held_back, released, share)
            except InputError:
                if not refused:
                    raise
                break
            if tried.verdict.passed:
                return tried
            refused.append(tried)
        return refused[0]

    def _strangers_of_release(self) -> tuple[float, ...]:
        """What the released version would score strangers, in this gallery."""
        package = self.generations.released_package()
        model = self.model if package.digest == self.package.digest else self._model_of(package)
        return stranger_scores(model, self.strangers.unseen.captures)

    def _try(
        self,
        descent: Descent,
        trained: Trained,
        held_back: Sequence[Labelled],
        released: Sequence[float],
        share: float,
    ) -> Tried:
        """A part of the way before the gate."""
        rules, strangers = self._settings.gate, self.strangers.unseen.captures
        data = packaged(self.package, descent, trained, self._keys, self._clock(), share=share)
        package = read_package(data, trusted=[self._keys.signer.public_key()])
        model = self._model_of(package)
        nearer = came_nearer(released, stranger_scores(model, strangers), rules.anchor_share)
        if nearer:
            data = with_lower_scores(package, nearer, self._keys)
            model = self._model_of(read_package(data, trusted=[self._keys.signer.public_key()]))
        evidence = gather_evidence(self.model, model, held_back, strangers)
        return Tried(share, nearer, data, model, judge_gate(*evidence, rules, released=released))

    def install(self, data: bytes, digest: str | None = None) -> None:
        """Let a released version recognise; every person is enrolled in its space, and the former student stays behind.

        Raises:
            PackageError: `package-*`, it is damaged, not signed by a cloud key, no released version, or not the one
                of this `digest`.
            UsageError: it is older than the present version, or was reverted here.
            StorageError: the present student goes on.
        """
        before = self.generations.released
        package = self.generations.check(data)
        if digest not in (None, package.digest):
            raise PackageError(Code.PACKAGE_CORRUPT, "this is another package than the one that was named: publish it")
        model = self._model_of(package)
        neighbours = self._neighbours_in(model)
        self.generations.install(data)
        if self.generations.released == before:  # its file was repaired, nothing else
            return
        self.package = package
        self.reception.replace(model, neighbours, AttemptCounter.settle)
        self._tell(EventKind.RELEASE_INSTALLED, "the cloud released it", {})

    def revert(self, reason: str, numbers: Mapping[str, float]) -> Booted:
        """Go back to the last good generation, or to the released version; `numbers` are what the `reason` rests on.

        Raises:
            PackageError: there is nothing to go back to; the present student stays.
            StorageError: `storage-failed`; the present student stays.
        """
        booted = self.generations.revert(reason)
        self.fall_back(booted, reason, numbers)
        return booted

    def forget(self, person: str) -> None:
        """Let the running student know `person` no more, nor what was kept in memory of anybody's last failures."""
        gallery = self.model.gallery
        kept = np.array([owner != person for owner in gallery.persons], np.bool_)
        persons = tuple(owner for owner in gallery.persons if owner != person)
        others = replace(gallery, persons=persons, features=gallery.features[kept])
        model = replace(self.model, gallery=others)
        self.reception.forget(model, self._neighbours_in(model))

    def fall_back(self, booted: Booted, reason: str, numbers: Mapping[str, float]) -> None:
        """Let the student recognise to which the disk went back already."""
        model = self._model_of(booted.package)
        neighbours = self._neighbours_in(model)
        self.package = booted.package
        self.reception.replace(model, neighbours, AttemptCounter.reverted)
        self._tell(EventKind.GENERATION_REVERTED, with_skipped(reason, booted), numbers)

    def conclude(self, watched: str, verdict: WatchVerdict) -> None:
        """End the watch window of generation `watched` as its `verdict` says: all is well, or people are worse off.

        Raises:
            StorageError: what happened could not be told.
        """
        if watched != self.model.version:  # replaced since, and what replaced it did no harm
            return
        if verdict.decision is WatchDecision.PASSED:
            self.reception.settle()
            self._tell(EventKind.WATCH_PASSED, verdict.reason, verdict.numbers)
            return
        try:
            self.revert(verdict.reason, verdict.numbers)
        except (PackageError, StorageError) as error:
            # Told once and not tried again at every capture; whoever reads it can install a release.
            self.reception.settle()
            self._tell(EventKind.REVERT_FAILED, f"{verdict.reason}; {error.message}", verdict.numbers)

    def _model_of(self, package: StudentPackage) -> RunningModel:
        """The student of `package` with every person enrolled in its space."""
        rule = DecisionRule(accept_score=self._settings.sampling.accept_score)
        return RunningModel.of(package, self._holdings.enrolled(package.info.student["side"]), rule)

    def _neighbours_in(self, model: RunningModel) -> Neighbours:
        """The samples kept, in the space of `model`."""
        kept = self._sets.known(State.FRESH, State.USED, State.HELD_BACK)
        return self._holdings.neighbours(kept[-_REMEMBERED:], model)

    def _tell(self, kind: EventKind, reason: str, numbers: Mapping[str, float], generation: str = "") -> None:
        self._store.add_event(kind, reason, numbers, generation or self.model.version)


def with_skipped(reason: str, booted: Booted) -> str:
    """`reason`, and what had to be stepped over on disk."""
    return "; ".join([reason, *(f"{skip.name}: {skip.reason}" for skip in booted.skipped)])
