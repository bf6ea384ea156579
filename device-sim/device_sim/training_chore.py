"""The chore of training: one that was left is taken up again, a new one is started when it is time, and each is ended.

The worker trains meanwhile in a process of its own; this only looks whether it is done. Then the gate judges beside the
running student, and a student that passes takes over between two captures.
"""

from __future__ import annotations

import structlog

from device_sim.device import Device
from device_sim.gate import Verdict
from device_sim.training import Training
from tutelage.errors import CATALOGUE

__all__ = ["TrainingChore"]

LOOK_S = 0.5
"""How often a worker is looked at."""

_log = structlog.get_logger()


class TrainingChore:
    """Sees every training of a device through."""

    name = "training"

    def __init__(self, device: Device, *, pace_s: float, look_s: float = LOOK_S) -> None:
        """Look every `pace_s` seconds whether one should start, and every `look_s` whether it is done."""
        self._device, self._pace_s, self._look_s = device, pace_s, look_s

    def do(self) -> float:
        """See `Chore.do`.

        Raises:
            TutelageError: a training cannot be started now, or ended without a student and may go better another time.
        """
        training = self._device.training or self._resumed() or self._started()
        if training is None:
            return self._pace_s
        if training.running():
            return self._look_s
        outcome = self._device.finish_training(training)
        generation = training.descent.generation
        if isinstance(outcome, Verdict):
            verdict = "passed" if outcome.passed else "refused"
            _log.info("training ended", generation=generation, gate=verdict, reasons=list(outcome.reasons))
            return 0.0
        if CATALOGUE[outcome.code].retryable:
            raise outcome
        _log.warning("training ended without a student", generation=generation, code=outcome.code.value)
        return self._pace_s

    def _resumed(self) -> Training | None:
        training = self._device.resume_training()
        if training is not None:
            _log.info("training resumed", generation=training.descent.generation)
        return training

    def _started(self) -> Training | None:
        begun = self._device.start_training()
        if not isinstance(begun, Training):
            return None
        _log.info("training started", generation=begun.descent.generation)
        return begun
