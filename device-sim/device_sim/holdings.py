"""What a device's store holds, in the forms that recognition, training and the gate want it in.

A capture that cannot be opened any more must not keep a device from starting or learning: it is dropped, with an event,
and the rest is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from device_sim.learning import Labelled
from device_sim.recognition import Enrolled, Neighbours, RunningModel
from device_sim.records import LabelSource, Sample, State
from device_sim.store import Store
from device_sim.training_sets import person_of
from tutelage.captures import Pixels
from tutelage.errors import Code, StorageError


@dataclass(frozen=True)
class Holdings:
    """The captures of one store with what is known of them."""

    store: Store

    def enrolled(self, side: int) -> Enrolled:
        """All references, as inputs of `side` pixels a side.

        Raises:
            StorageError: `store-corrupt`, one is damaged; `storage-failed`.
        """
        references = [(r.person, self.store.reference_capture(r.id)) for r in self.store.references()]
        return Enrolled.of(references, side)

    def references_of(self, person: str) -> list[Pixels]:
        """The references of one person, oldest first.

        Raises:
            StorageError: `store-corrupt`, one is damaged; `storage-failed`.
        """
        return [self.store.reference_capture(r.id) for r in self.store.references() if r.person == person]

    def opened(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Pixels]]:
        """`samples` with their captures; one whose capture is damaged is dropped and left out.

        Raises:
            StorageError: `storage-failed`.
        """
        for sample in samples:
            try:
                capture = self.store.sample_capture(sample.id)
            except StorageError as error:
                if error.code is not Code.STORE_CORRUPT:
                    raise
                self.store.mark([sample.id], State.DROPPED, note="its capture is damaged")
            else:
                yield sample, capture

    def labelled(self, samples: Iterable[Sample]) -> list[Labelled]:
        """Those of `samples` that have a person, with their captures.

        Raises:
            StorageError: `storage-failed`.
        """
        return [_labelled(sample, capture) for sample, capture in self.opened(samples) if person_of(sample)]

    def neighbours(self, samples: Iterable[Sample], model: RunningModel) -> Neighbours:
        """Features of `samples`, whose persons are known, in the space of `model`.

        Raises:
            StorageError: `storage-failed`.
        """
        captures: dict[str, list[Pixels]] = {}
        for sample, capture in self.opened(samples):
            captures.setdefault(person_of(sample), []).append(capture)
        neighbours = Neighbours(model.recogniser.space)
        for person, of_person in captures.items():
            neighbours.add(person, model.features(of_person))
        return neighbours


def _labelled(sample: Sample, capture: Pixels) -> Labelled:
    label = sample.label
    if label is None or label.source is not LabelSource.TEACHER:
        return Labelled(capture, person_of(sample))
    soft = {str(person): float(weight) for person, weight in label.answer.get("soft", {}).items()}
    return Labelled(capture, person_of(sample), soft, label.confidence, taught=True)
