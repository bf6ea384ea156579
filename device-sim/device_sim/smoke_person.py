"""A made-up person before a device: enrolled, recognised, told from strangers, and erased again whatever happened."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from device_sim.called_service import DEVICE, CalledService
from device_sim.patience import Patience
from device_sim.public import Public
from device_sim.sensor import Condition
from device_sim.smoke import Step, health_step
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.captures import encode_png
from tutelage.errors import Code, PersonError, ServiceError, TutelageError, error_for

__all__ = ["SmokePerson"]

REFERENCES = 3
TRIES = 3
"""Fresh captures, one of which has to be accepted: a good sensor has bad presses too."""
STRANGERS = 2
"""Who have to be let in both before a device is called wrong: by its own rate it lets one of a thousand in."""


@dataclass
class SmokePerson:
    """The steps of a device; a context manager that erases the person where no step did."""

    device: CalledService
    patience: Patience
    services: tuple[str, ...] = ()
    """Those of `teacher` and `registry` that the device has to have; others it may do without."""
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    """Whose fingers are shown: the person's, and after it the strangers'."""

    def __post_init__(self) -> None:
        """Make somebody up."""
        self.name = f"smoke-{secrets.randbelow(10**12):012d}"
        self._public = Public(seed=self.seed, persons=1 + STRANGERS)
        self._to_erase = False

    def steps(self) -> Iterator[Step]:
        """What the device has to do."""
        yield health_step(self.device, self.patience)
        yield Step(DEVICE.part, "enrol", self._enrol)
        yield Step(DEVICE.part, "recognise", self._recognise)
        yield Step(DEVICE.part, "stranger", self._refuse_strangers)
        yield Step(DEVICE.part, "teacher", lambda: self._reaches("teacher"))
        yield Step(DEVICE.part, "registry", lambda: self._reaches("registry"))
        yield Step(DEVICE.part, "erase", self._erase, always=True)

    def _enrol(self) -> str:
        captures = [self._capture(0, press) for press in range(REFERENCES)]
        self._to_erase = True  # also where the answer is lost on its way
        self.device.ask("Enrol", pb.EnrolRequest(person=self.name, captures=captures))
        return f"{self.name} is enrolled"

    def _recognise(self) -> str:
        for press in range(TRIES):
            seen = self._seen(0, REFERENCES + press)
            if seen.decision == pb.DECISION_ACCEPT and seen.person == self.name:
                return f"accepted with score {seen.score:.1f} by {seen.generation}"
        raise ServiceError(
            Code.SERVICE_WRONG,
            f"the device did not accept {TRIES} fresh captures of a person who was just enrolled: look at its student, "
            "`tutelage device status`",
        )

    def _refuse_strangers(self) -> str:
        for stranger in range(1, 1 + STRANGERS):
            seen = self._seen(stranger, 0)
            if seen.decision != pb.DECISION_ACCEPT:
                return f"not accepted, by {seen.generation}"
        raise ServiceError(
            Code.SERVICE_WRONG,
            f"the device let {STRANGERS} strangers in, one after the other: look at its student, "
            "`tutelage device status`",
        )

    def _seen(self, place: int, press: int) -> pb.Recognition:
        """What is answered to one capture; each is an attempt of its own, so that no failure is kept to learn from."""
        request = pb.RecognizeRequest(capture=self._capture(place, press), attempt=secrets.token_hex(8))
        seen: pb.Recognition = self.device.ask("Recognize", request).recognition
        return seen

    def _capture(self, place: int, press: int) -> bytes:
        return encode_png(self._public.capture(place, press, Condition()))

    def _reaches(self, service: str) -> str:
        def reached() -> str:
            status = self.device.ask("GetStatus", pb.GetStatusRequest()).status
            if not status.HasField(service):
                return self._without(service)
            if getattr(status, service).reached:
                return f"it reaches its {service}"
            raise ServiceError(
                Code.SERVICE_UNAVAILABLE,
                f"the device does not reach its {service}: its log says why; it goes on trying",
            )

        return self.patience.with_(reached)

    def _without(self, service: str) -> str:
        if service in self.services:
            raise ServiceError(
                Code.SERVICE_WRONG,
                f"the device has no {service}: set TUTELAGE_DEVICE_{service.upper()}_ADDRESS where it is started",
            )
        return f"it has no {service}"

    def _erase(self) -> str:
        if not self._to_erase:
            return "nobody was enrolled"
        try:
            self.patience.with_(self._erased)
        except TutelageError as error:
            self._to_erase = False  # told to whoever can do more
            words = f"{error.message}; the person is still there: `tutelage device erase {self.name} --yes`"
            raise error_for(error.code, words) from error
        self._to_erase = False
        return f"{self.name} is erased"

    def _erased(self) -> None:
        """Nothing of the person is left."""
        try:
            self.device.ask("ErasePerson", pb.ErasePersonRequest(person=self.name))
            self.device.ask("Verify", pb.VerifyRequest(person=self.name, capture=self._capture(0, 0)))
        except PersonError:
            return  # never enrolled, or gone
        raise ServiceError(Code.SERVICE_WRONG, "the device still knows a person whom it has erased")

    def __enter__(self) -> SmokePerson:
        return self

    def __exit__(self, *_: object) -> None:
        if self._to_erase:  # interrupted
            self._erase()
