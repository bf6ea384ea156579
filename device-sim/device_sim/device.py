"""The device node: recognises, keeps what is worth learning from, asks for labels, trains, judges, swaps and reverts.

This module is the main path of a device, top to bottom; each step is one method and stands in the store as an event
with its reason. The parts it plays on are elsewhere: rules (`sampling`, `conditions`), the running model
(`recognition`), what is kept (`keeping`, `holdings`), labels (`learning`), training sets and their fate
(`training_sets`), the worker (`training`), the gate (`trial`, `gate`), the watch (`attempts`, `watch`), packages on
disk (`generations`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from device_sim.attempts import AttemptCounter
from device_sim.conditions import label_state, training_state
from device_sim.device_settings import DeviceKeys, DeviceSettings
from device_sim.events import EventKind
from device_sim.gate import Verdict, judge_gate
from device_sim.generations import Booted, Generations
from device_sim.holdings import Holdings
from device_sim.job import Descent, TrainingJob
from device_sim.keeping import Keeper
from device_sim.learning import Labelled, plausible, training_set
from device_sim.recognition import Neighbours, Recognition, RunningModel
from device_sim.records import Sample, State
from device_sim.sampling import Kind, Liveness, PassThroughLiveness
from device_sim.store import Store
from device_sim.training import Trained, Training
from device_sim.training_sets import TrainingSets, blames_samples, divide
from device_sim.trial import gather_evidence, packaged, verdict_numbers
from device_sim.watch import WatchDecision
from tutelage.biometrics.matching import Decision, DecisionRule
from tutelage.captures import Pixels, check_capture
from tutelage.errors import CATALOGUE, Code, PackageError, StorageError, TrainingError, TutelageError
from tutelage.labelling import LabelAnswer, Labeller
from tutelage.nn.packaging import Strangers
from tutelage.nn.students import save_weights
from tutelage.package import StudentPackage, open_impostors, read_package

MAX_RESUMPTIONS = 3
"""Times that one training is taken up again: what failed so often would fail for ever."""
_REMEMBERED = 1000
"""Latest decisions and samples looked at when a device starts."""

_log = structlog.get_logger()


class Device:
    """One device; not safe for several threads, save that `model` may be read by any."""

    model: RunningModel
    """What answers captures; replaced as a whole."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        labeller: Labeller,
        keys: DeviceKeys,
        *,
        jobs: Path,
        settings: DeviceSettings | None = None,
        liveness: Liveness | None = None,
        clock: Callable[[], float],
    ) -> None:
        """Boot from the newest package that can be trusted; every enrolled person is enrolled at once.

        The labeller is asked for nothing: one that forgets at a restart has to be told of the persons again.

        Raises:
            PackageError: there is no package to boot from.
            StorageError: the store failed, or a reference in it is damaged.
        """
        self.store, self.generations, self.labeller = store, generations, labeller
        self.settings = settings or DeviceSettings()
        self._keys, self._jobs, self._clock = keys, jobs, clock
        self._holdings, self._sets = Holdings(store), TrainingSets(store)
        self._training: Training | None = None
        booted = generations.boot()
        self._package, self.model = booted.package, self._model_of(booted.package)
        self._keeper = Keeper(
            store,
            self.settings.sampling,
            whole_attempts=self.settings.learning.whole_attempts,
            liveness=liveness or PassThroughLiveness(),
            clock=clock,
            neighbours=self._neighbours_in(self.model),
        )
        if booted.skipped:
            self._tell(EventKind.GENERATION_REVERTED, _with_skipped("at the start", booted), {})
        told = store.last_event(EventKind.RELEASE_INSTALLED)
        if booted.generation.is_released and (told is None or told.generation != self.model.version):
            self._tell(EventKind.RELEASE_INSTALLED, "the cloud released it", {})
        self._attempts = AttemptCounter.replayed(
            self.settings.sampling.retries,
            store.decisions(after=store.next_decision_id() - _REMEMBERED),
            self._watched_generation(),
        )

    # Recognition

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        """Make `person` known here and to the teacher; who is known gets further references.

        Raises:
            CaptureError: one of the captures is none; nobody was enrolled.
            InputError: the teacher cannot use any of the captures; nobody was enrolled.
            StorageError: the store is full or failed; nobody was enrolled.
        """
        captures = [check_capture(capture) for capture in captures]
        known = self._holdings.references_of(person)
        self.labeller.enrol(person, [*known, *captures])
        try:
            self.store.enrol(person, captures)
        except StorageError:
            if known:
                self.labeller.enrol(person, known)
            else:
                self.labeller.remove(person)
            raise
        self.model = self.model.with_enrolled(person, captures)

    def recognise(self, capture: Pixels, attempt: str = "") -> Recognition:
        """Answer a capture, then decide whether to keep it; `attempt` tells one person's tries from the next one's.

        The answer is given whatever the disk does: a failure to keep anything is logged, and nothing is kept.

        Raises:
            CaptureError: it is no capture; nothing is recorded.
        """
        capture = check_capture(capture)
        answer, generation = self.model.recognise(capture), self.model.version
        with self._answering():
            self._keeper.keep(answer, generation, capture, attempt)
        with self._answering():
            self._watch(attempt, answer)
        return answer

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """What fails within must not cost a person at the door the answer."""
        try:
            yield
        except (StorageError, PackageError) as error:
            self._keeper.forget_run()
            _log.error("a capture was answered but not followed up", code=error.code.value, reason=error.message)

    # Labels

    def fetch_labels(self) -> tuple[str, ...]:
        """Ask the teacher about all waiting attempts if the label condition holds; what is missing if not."""
        missing = self.settings.labels.missing(label_state(self.store, self._clock()))
        if missing:
            return missing
        waiting = [s for s in self.store.samples(State.FRESH) if s.kind is Kind.SECOND and s.label is None]
        attempts: dict[int, list[tuple[Sample, Pixels]]] = {}
        for sample, capture in self._holdings.opened(waiting):
            attempts.setdefault(sample.attempt_end, []).append((sample, capture))
        self._tell(EventKind.LABELS_ASKED, "the label condition holds", {"attempts": len(attempts)})
        answers = self.labeller.label([[capture for _, capture in attempt] for attempt in attempts.values()])
        for attempt, answer in zip(attempts.values(), answers, strict=True):
            self._take_answer(attempt, answer)
        return ()

    def _take_answer(self, attempt: Sequence[tuple[Sample, Pixels]], answer: LabelAnswer) -> None:
        """Store the teacher's word on one attempt, and quarantine what the running student cannot believe."""
        ids = [sample.id for sample, _ in attempt]
        self.store.label(ids, answer)
        if answer.person is None:
            return
        labelled = [Labelled(capture, answer.person) for _, capture in attempt]
        believed = plausible(self.model, labelled, self.settings.learning.plausible_rank)
        doubted = [i for i, ok in zip(ids, believed, strict=True) if not ok]
        self.store.mark(doubted, State.QUARANTINED, note="the running student finds this label implausible")
        self._keeper.neighbours.add(answer.person, self.model.features([capture for _, capture in attempt]))

    # Training

    def start_training(self) -> Training | tuple[str, ...]:
        """Start the worker if the training condition holds; what is missing if not.

        An unfinished training that nobody resumed gives way to the new one.

        Raises:
            StorageError: the job cannot be written; no sample has changed.
            TrainingError: `training-killed`, no process can be started now; `resume_training` may try again.
        """
        state = training_state(self.store, self._clock(), running=self._training is not None)
        division, held = divide(self._sets.known(State.FRESH)), len(self._sets.known(State.HELD_BACK))
        missing = self.settings.training.missing(state) or division.missing(held, self.settings.gate.min_held_back)
        if missing or (missing := self._strangers_missing()):
            return missing
        for folder in self._job_folders():
            self._discard(folder, "a new training takes its place")
        job = self._job(self._sets.to_learn(division.learnt))
        training = Training.prepare(self._jobs / job.descent.generation, job, self._keys.store, self.settings.budget)
        self._sets.begin(job.descent.training_set, division)
        numbers = {
            "samples": len(job.training_set.inputs),
            "held_back": len(division.held_back),
            "references": len(job.training_set.references),
        }
        self._tell(EventKind.TRAINING_STARTED, "the training condition holds", numbers, job.descent.generation)
        training.start()
        self._training = training
        return training

    def _strangers_missing(self) -> tuple[str, ...]:
        """What the gate would lack to judge whether strangers come in."""
        found, needed = len(self._strangers().unseen.captures), self.settings.gate.min_strangers
        return () if found >= needed else (f"{found} of {needed} captures of strangers for the gate",)

    def _strangers(self) -> Strangers:
        """The people of the package's sealed impostor set."""
        return Strangers(*open_impostors(self._package.impostors, self._keys.fleet))

    def _job(self, samples: Sequence[Sample]) -> TrainingJob:
        """The running student, to be trained on `samples` as the next generation."""
        student, settings = self.model.recogniser.student, self.settings
        enrolled = self._holdings.enrolled(student.spec.side).against(self._strangers().negatives)
        generation = str(self.generations.next_generation)
        return TrainingJob(
            descent=Descent(generation, self._package.digest, self._sets.next_number()),
            spec=student.spec,
            weights=save_weights(student),
            training_set=training_set(self._holdings.labelled(samples), enrolled, settings.learning),
            settings=settings.self_distillation,
            threads=settings.budget.threads,
            memory_bytes=settings.budget.memory_bytes,
        )

    def resume_training(self) -> Training | None:
        """Take up the training that was left unfinished, from its checkpoint; one that leads nowhere is discarded.

        Raises:
            TrainingError: `training-killed`, no process can be started now.
        """
        for folder in self._job_folders() if self._training is None else ():
            try:
                training = Training.found(folder, self._keys.store, self.settings.budget)
            except StorageError as error:
                self._discard(folder, error.message)
                continue
            futile = self._futile(training.descent)
            if not futile and self._resumptions() >= MAX_RESUMPTIONS:
                self._sets.refused(training.descent.training_set)
                futile = f"it was resumed {MAX_RESUMPTIONS} times"
            if futile:
                self._discard(folder, futile)
                continue
            self._tell(EventKind.TRAINING_RESUMED, "it was left unfinished", {}, training.descent.generation)
            training.start()
            self._training = training
            return training
        return None

    def _futile(self, descent: Descent) -> str:
        """Why a training that was left unfinished leads nowhere; empty if it may lead somewhere."""
        if descent.parent != self._package.digest or descent.generation != str(self.generations.next_generation):
            return "another student recognises by now"
        if not self._sets.being_learnt(descent.training_set):
            return "its samples are gone"
        return ""

    def _resumptions(self) -> int:
        """How often the latest training was taken up again."""
        started = self.store.last_event(EventKind.TRAINING_STARTED)
        since = self.store.events(after=started.id if started else 0)
        return sum(event.kind is EventKind.TRAINING_RESUMED for event in since)

    def _job_folders(self) -> list[Path]:
        """Folders of jobs that were left, each named by its generation."""
        return sorted(path for path in self._jobs.glob("*") if path.is_dir())

    def _discard(self, folder: Path, reason: str) -> None:
        self._tell(EventKind.TRAINING_FAILED, reason, {}, folder.name)
        shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """End a training under way, as before the device is put down; its job stays for `resume_training`."""
        if self._training is not None:
            self._training.kill()
            self._training = None

    # Gate and swap

    def finish_training(self, training: Training) -> Verdict | TutelageError:
        """Wait for the worker, let the gate judge, and swap if it passes; the running student stays if anything fails.

        What may go better another time is left for `resume_training`.
        """
        number = training.descent.training_set
        try:
            verdict = self._judge_and_swap(training.descent, training.wait())
        except TutelageError as error:
            step = float(training.last.get("step", 0))
            self._tell(EventKind.TRAINING_FAILED, error.message, {"step": step}, training.descent.generation)
            if not CATALOGUE[error.code].retryable:
                self._sets.refused(number)
                training.discard()
            return error
        finally:
            self._training = None
            training.kill()
        if blames_samples(verdict):
            self._sets.refused(number)
        else:
            self._sets.learnt(number)
        training.discard()
        return verdict

    def _judge_and_swap(self, descent: Descent, trained: Trained) -> Verdict:
        """The gate's verdict on a trained student, carried out."""
        numbers = {k: float(trained.summary[k]) for k in ("seconds", "peak_bytes", "steps_run", "samples")}
        self._tell(EventKind.TRAINING_FINISHED, "all steps done", numbers, descent.generation)
        if descent.parent != self._package.digest:
            raise TrainingError(
                Code.TRAINING_KILLED, "another student took over while this one was trained: train again"
            )
        data = packaged(self._package, descent, trained, self._keys, self._clock())
        candidate = read_package(data, trusted=[self._keys.signer.public_key()])
        model = self._model_of(candidate)
        held_back = self._holdings.labelled(self._sets.known(State.HELD_BACK))
        strangers = self._strangers().unseen
        verdict = judge_gate(*gather_evidence(self.model, model, held_back, strangers.captures), self.settings.gate)
        if not verdict.passed:
            self._tell(EventKind.GATE_FAILED, "; ".join(verdict.reasons), verdict_numbers(verdict), descent.generation)
            return verdict
        said = f"all checks hold; held back: {verdict.checks[0].reason}"
        self._tell(EventKind.GATE_PASSED, said, verdict_numbers(verdict), descent.generation)
        neighbours = self._neighbours_in(model)
        # On disk first: a device that dies in between starts with the new student.
        self._package = self.generations.promote(data)
        self._keeper.neighbours, self.model = neighbours, model
        self._attempts.swapped()
        self._tell(EventKind.GENERATION_SWAPPED, "the gate let it pass", {}, descent.generation)
        return verdict

    def _model_of(self, package: StudentPackage) -> RunningModel:
        """The student of `package` with every person enrolled in its space."""
        rule = DecisionRule(accept_score=self.settings.sampling.accept_score)
        return RunningModel.of(package, self._holdings.enrolled(package.info.student["side"]), rule)

    def _neighbours_in(self, model: RunningModel) -> Neighbours:
        """The samples kept, in the space of `model`."""
        kept = self._sets.known(State.FRESH, State.USED, State.HELD_BACK)
        return self._holdings.neighbours(kept[-_REMEMBERED:], model)

    # After a swap

    def _watch(self, attempt: str, answer: Recognition) -> None:
        """Count an answer in the watch window, and go back where people are worse off."""
        ended = self._attempts.add(attempt, accepted=answer.decision is Decision.ACCEPT)
        verdict = self._attempts.verdict(self.settings.watch) if ended else None
        if verdict is None or verdict.decision is WatchDecision.KEEP_WATCHING:
            return
        if verdict.decision is WatchDecision.PASSED:
            self._attempts.settle()
            self._tell(EventKind.WATCH_PASSED, verdict.reason, verdict.numbers)
            return
        try:
            self.revert(verdict.reason, verdict.numbers)
        except (PackageError, StorageError) as error:
            # Told once and not tried again at every capture; whoever reads it can install a release.
            self._attempts.settle()
            self._tell(EventKind.REVERT_FAILED, f"{verdict.reason}; {error.message}", verdict.numbers)

    def revert(self, reason: str, numbers: Mapping[str, float] | None = None) -> None:
        """Go back to the last good generation, or to the released version; `numbers` are what the `reason` rests on.

        Raises:
            PackageError: there is nothing to go back to; the present student stays.
            StorageError: `storage-failed`; the present student stays.
        """
        booted = self.generations.revert(reason)
        self._package, self.model = booted.package, self._model_of(booted.package)
        self._keeper.neighbours = self._neighbours_in(self.model)
        self._attempts.reverted()
        self._tell(EventKind.GENERATION_REVERTED, _with_skipped(reason, booted), numbers or {})

    def _watched_generation(self) -> str:
        """The local generation whose watch was not over when the device stopped; empty if there is none."""
        version, ends = self.model.version, (EventKind.WATCH_PASSED, EventKind.REVERT_FAILED)
        settled = (self.store.last_event(kind) for kind in (*ends, EventKind.GENERATION_REVERTED))
        watched = "+" in version and not any(event and event.generation == version for event in settled)
        return version if watched else ""

    def _tell(self, kind: EventKind, reason: str, numbers: Mapping[str, float], generation: str = "") -> None:
        self.store.add_event(kind, reason, numbers, generation or self.model.version)


def _with_skipped(reason: str, booted: Booted) -> str:
    """`reason`, and what had to be stepped over on disk."""
    return "; ".join([reason, *(f"{skip.name}: {skip.reason}" for skip in booted.skipped)])
