"""How a device behaves, and its secrets: what the owner of a device decides before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.gate import GateRules
from device_sim.learning import LearningRules
from device_sim.sampling import SampleRules
from device_sim.training import Budget
from device_sim.watch import WatchRules
from tutelage.nn.self_distil import SelfDistillation


@dataclass(frozen=True)
class DeviceSettings:
    """How a device behaves; each part documents its own fields."""

    sampling: SampleRules = field(default_factory=SampleRules)
    labels: LabelCondition = field(default_factory=LabelCondition)
    training: TrainingCondition = field(default_factory=TrainingCondition)
    learning: LearningRules = field(default_factory=LearningRules)
    self_distillation: SelfDistillation = field(default_factory=SelfDistillation)
    budget: Budget = field(default_factory=Budget)
    gate: GateRules = field(default_factory=GateRules)
    watch: WatchRules = field(default_factory=WatchRules)


@dataclass(frozen=True)
class DeviceKeys:
    """Secrets of one device."""

    store: bytes = field(repr=False)
    """32 bytes; seals captures, jobs and checkpoints."""
    fleet: bytes = field(repr=False)
    """32 bytes; opens the impostor sets of released packages."""
    signer: Ed25519PrivateKey = field(repr=False)
    """Signs this device's own generations."""
