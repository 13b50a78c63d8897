"""What a view is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from endorecon.run import Run
from endorecon.tracking.observation import Observation, Refused
from rendering.mesh import Mesh
from video_io.camera import Camera
from video_io.trajectory import Trajectory

if TYPE_CHECKING:
    from endorecon.scenes._motion import MovingSplats
    from endorecon.scenes._splat_model import Splats


class View(Protocol):
    """Watches a reconstruction. Calls come in this order; `refined` and `mesh` may come often or not at all."""

    def started(self, name: str, camera: Camera) -> None:
        """The input's name, and the camera of the working image."""

    def observed(self, seen: Observation) -> None:
        """A frame has its depth and its place."""

    def refused(self, refused: Refused) -> None:
        """A frame has no place."""

    def refined(self, trajectory: Trajectory) -> None:
        """Better poses of frames that were observed; matched by their times."""

    def mesh(self, mesh: Mesh) -> None:
        """The surface as it is known now."""

    def final(self, seen: Observation) -> None:
        """The depth in which a frame that was observed has ended; a view need not have this method."""

    def splats(self, splats: Splats | MovingSplats) -> None:
        """The Gaussians, where the scene has some; a view need not have this method."""

    def finished(self, run: Run) -> None:
        """The run folder is written."""


@dataclass(frozen=True)
class Views:
    """Several views as one; none at all is a view that shows nothing."""

    views: Sequence[View] = ()

    def started(self, name: str, camera: Camera) -> None:
        for view in self.views:
            view.started(name, camera)

    def observed(self, seen: Observation) -> None:
        for view in self.views:
            view.observed(seen)

    def refused(self, refused: Refused) -> None:
        for view in self.views:
            view.refused(refused)

    def refined(self, trajectory: Trajectory) -> None:
        for view in self.views:
            view.refined(trajectory)

    def mesh(self, mesh: Mesh) -> None:
        for view in self.views:
            view.mesh(mesh)

    def final(self, seen: Observation) -> None:
        for view in self.views:
            if hasattr(view, "final"):
                view.final(seen)

    def splats(self, splats: Splats | MovingSplats) -> None:
        for view in self.views:
            if hasattr(view, "splats"):
                view.splats(splats)

    def finished(self, run: Run) -> None:
        for view in self.views:
            view.finished(run)
