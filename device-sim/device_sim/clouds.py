"""The cloud as a fleet sees it: where its student comes from, who labels for each device, and whom devices report to.

`NearCloud` is within this process. `device_sim.service_cloud` reaches the same through the real services.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from device_sim.fleet import Post, Release
from device_sim.models import Models
from tutelage.labelling import GalleryLabeller, Labeller


class Cloud(Protocol):
    """What a fleet needs of the cloud."""

    def release(self, models: Models) -> Release:
        """The student that devices install."""

    def labeller(self, site: int) -> Labeller:
        """Who labels for the device at this site."""

    def check_in(self, post: Post) -> None:
        """Report how a device stands."""


@dataclass
class NearCloud:
    """The cloud within this process: the student as it was made, and the teacher itself."""

    models: Models

    def release(self, models: Models) -> Release:
        """See `Cloud.release`."""
        return models.release

    def labeller(self, site: int) -> Labeller:  # noqa: ARG002 - each has a gallery of its own
        """See `Cloud.labeller`."""
        return GalleryLabeller(self.models.teacher, self.models.policy)

    def check_in(self, post: Post) -> None:
        """See `Cloud.check_in`: here nobody asks."""
