"""What a simulated year is like: how many devices, persons and attempts, and how much goes wrong.

Whatever its number of days, a simulated year holds all of a year: seasons, sensor lives and incidents are spread over
it by share, so that a short one for a test meets everything that a long one meets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.device_settings import DeviceSettings
from device_sim.fleet import DAY_S
from device_sim.gate import GateRules
from tutelage.errors import UsageError
from tutelage.nn.self_distil import SelfDistillation

YEAR_DAYS = 365
TRAINING_GAP_DAYS = 14
"""Days of a whole year between two trainings of a device."""


def year_device() -> DeviceSettings:
    """Devices as they live through a year.

    Their gate does not judge latency, for several simulated devices share a processor with whatever else it does, and
    what a year brings must not depend on that.
    """
    return DeviceSettings(
        labels=LabelCondition(min_count=2, max_age_s=40_000.0),
        training=TrainingCondition(min_fresh=40, min_gap_s=TRAINING_GAP_DAYS * DAY_S),
        self_distillation=SelfDistillation(steps=80),
        gate=GateRules(max_latency_ratio=100.0),
    )


@dataclass(frozen=True)
class YearSettings:
    """What is simulated.

    Raises:
        UsageError: there would be nobody, nothing or no time to simulate.
    """

    seed: int = 1
    devices: int = 4
    days: int = YEAR_DAYS
    persons: int = 10
    """Enrolled at each device on the first day."""
    joins: int = 6
    """Persons who are enrolled at each device in the course of the year."""
    leaves: int = 3
    """Persons of each device who leave for good and are erased."""
    references: int = 3
    """Enrolment captures a person, taken on the sensor as it is that day."""
    attempts: float = 0.8
    """Mean attempts a person and day."""
    impostor_share: float = 0.02
    """Of all attempts: strangers who try their luck."""
    hostile_share: float = 0.10
    """Of the attempts while a device is under attack: attackers whose finger looks ever more like a victim's."""
    attackers: int = 3
    """Who attack a device, each after one victim."""
    hostile_stretch: float = 0.08
    """Share of the year that a device is under attack."""
    wear: float = 0.65
    """Of a sensor at the end of its life."""
    sensors: int = 3
    """Sensors that each device has in turn: a worn one is replaced by a new one with scratches of its own to come."""
    outages: tuple[float, ...] = (0.01, 0.02, 0.06)
    """Length of each outage of the network, share of the year: days to weeks without labels or releases."""
    power_cuts: int = 12
    """Times that a device loses power without warning; every third time while it trains, if it does then."""
    releases: int = 2
    """Versions that the cloud releases after the first."""
    release_steps: int = 40
    """Steps that each of them is distilled further than the one before."""
    release_persons: int = 48
    """Fingers that they are distilled on."""
    strangers: int = 60
    """Further people at each device, who are only measured with."""
    probes: int = 2
    """Captures of each enrolled person at each measurement."""
    measurements: int = 52
    """Times in the year that all are measured on captures that no device meets."""
    device: DeviceSettings = field(default_factory=year_device)

    def __post_init__(self) -> None:
        """Refuse a year in which nothing can happen."""
        if min(self.devices, self.days, self.references, self.sensors, self.measurements, self.probes) < 1:
            raise UsageError("a year needs a device, a day, a reference, a sensor, a measurement and a probe at least")
        if self.persons - self.leaves < 2:
            raise UsageError(f"of {self.persons} persons {self.leaves} leave: two or more must stay")
        if self.attackers > self.persons - self.leaves:
            raise UsageError(f"{self.attackers} attackers need as many victims who stay: give fewer")

    def day_of(self, share: float) -> int:
        """The day at which `share` (0..1) of the year is over; the last day at the latest."""
        return min(self.days - 1, int(share * self.days))

    @property
    def measured_days(self) -> tuple[int, ...]:
        """Days after which all are measured: spread evenly, the last one among them."""
        count = min(self.measurements, self.days)
        return tuple(sorted({(i + 1) * self.days // count - 1 for i in range(count)}))
