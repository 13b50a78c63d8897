"""What the kinds of scene share: what a run asks of one, and what it is told of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from endorecon.scenes.tsdf import Observed
    from rendering.mesh import Mesh

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class SplatChoice:
    """How Gaussians are trained, where there is a choice.

    Attributes:
        surfels: flat ones (2DGS), whose surface is sharper.
        growth: "default" (3DGS) or "mcmc" (Kheradmand et al., NeurIPS 2024).
        poses: whether the frames' poses are improved along with them.
    """

    surfels: bool = False
    growth: str = "default"
    poses: bool = False


USUAL = SplatChoice()


@dataclass(frozen=True)
class Setting:
    """What a scene may need besides observations.

    Attributes:
        folder: where files of the scene go; None for none.
        seconds: time that may be spent on optimising it.
        splats: how Gaussians are trained.
        progress: told a stage's name, how far it is and how far it goes.
        keep, kept: store a value under a name against the process being killed, and get it back, None for none.
    """

    folder: Path | None = None
    seconds: float = 300.0
    splats: SplatChoice = USUAL
    progress: Progress = lambda *_: None
    keep: Callable[[str, Any], None] = lambda *_: None
    kept: Callable[[str], Any] = lambda _: None


class Scene(Protocol):
    """A scene that grows with each observation, in bounded memory.

    One whose mesh is the surface at one moment only also has an attribute `rigid`, which is False.

    Attributes:
        warnings: what happened that the user should know, a sentence each.
    """

    warnings: list[str]

    def integrate(self, observation: Observed) -> None:
        """Add an observation."""

    def mesh(self) -> Mesh:
        """The surface; called once, after the last observation."""
