"""The chore of labels: the teacher is told what it does not know yet, and asked about failed attempts in time."""

from __future__ import annotations

import structlog

from device_sim.device import Device
from device_sim.holdings import Holdings
from device_sim.patient_labeller import PatientLabeller

__all__ = ["LabelChore"]

_log = structlog.get_logger()


class LabelChore:
    """Fetches labels while the label condition holds."""

    name = "labels"

    def __init__(self, device: Device, teacher: PatientLabeller, *, pace_s: float) -> None:
        """Look every `pace_s` seconds."""
        self._device, self._teacher, self._pace_s = device, teacher, pace_s

    def do(self) -> float:
        """See `Chore.do`.

        Raises:
            TutelageError: the teacher does not answer; the attempts wait, and nothing else changes.
        """
        self._device.finish_removals()
        store = self._device.store
        if not self._device.labels_missing() and self._teacher.meet():
            _log.info("the teacher is another one: it is told of everybody")
        # Nobody is erased between a look at the references and the teacher's hearing of them.
        with self._device.persons:
            told = self._teacher.tell(store.persons, Holdings(store).references_of)
        if told:
            _log.info("the teacher was told of persons enrolled without it", persons=told)
        if not self._device.fetch_labels():
            _log.info("labels fetched")
        return self._pace_s
