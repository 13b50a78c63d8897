"""A surface improved by the endoscope's own light.

Every place is seen by many frames, each with the lamp elsewhere. If the surface is right, all of them give a place the
same albedo once the lamp's share is taken out; where they do not, its height (the picture is met elsewhere, the lamp is
nearer) or its slope (the light falls flatter) is wrong: many-view photometric consistency and near-light photometric
stereo in one least squares problem, solved for the heights of all vertices by Gauss and Newton's method.
Frames that are held out decide how far that is carried, and whether it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endorecon.shading.lamp import Lamp
from endorecon.shading.problem import LEAST_SIGHTINGS, Errors, Problem, exposures, find_lamp, held_errors, lit_share
from endorecon.shading.step import Settings, step
from endorecon.shading.texture import without_light
from endorecon.shading.views import View
from rendering.mesh import Mesh
from video_io.camera import Camera

Float = NDArray[np.float64]

LEAST_VIEWS = 8
LEAST_LIT = 0.1  # share of the vertices of which enough frames tell the brightness
# The lamp beside the lens: how quickly the brightness falls with the distance at least (two over gamma on a bare wall),
# and how much of its changes that must explain.
LEAST_FALLOFF, LEAST_EXPLAINED = 0.2, 0.1
LEAST_GAIN = 0.002  # of the residual of the frames held out, by each step
MOST_VIEWS = 48  # of a surface that is refined, evenly spaced


@dataclass(frozen=True)
class Refinement:
    """What came of it.

    Attributes:
        mesh: the surface; the one that was given where `kept` is False.
        kept: whether it was improved.
        reason: why not; empty if it was.
        lamp: as it was found; None where it was not sought.
        residuals: of the frames held out, of the log brightness: before, once fused again, and after each step.
        steps: number of the one of these that was kept.
        again: whether it is the surface that was fused again.
        views, held: frames that the surface was fitted to, and that decided.
        moved_percent: median way of the vertices, % of the distance they are seen from.
    """

    mesh: Mesh
    kept: bool
    reason: str = ""
    lamp: Lamp | None = None
    residuals: tuple[float, ...] = ()
    steps: int = 0
    again: bool = False
    views: int = 0
    held: int = 0
    moved_percent: float = 0.0

    @property
    def gain(self) -> float:
        """By what share the residual of the frames held out has fallen."""
        return 1 - self.residuals[self.steps] / max(self.residuals[0], 1e-30) if self.residuals else 0.0

    def sentence(self) -> str:
        """For the person who reads the report."""
        if not self.kept:
            return f"the surface was not refined by the light: {self.reason}"
        done = "fused again and refined" if self.again else "refined"
        return (
            f"the surface was {done} by the light: vertices moved by {self.moved_percent:.2g} % of the distance "
            f"(median), and {self.held} frames that were held out fit it better by {100 * self.gain:.1f} %"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for run.yaml."""
        found: dict[str, Any] = {"kept": self.kept, "views": self.views, "held_out": self.held}
        if self.reason:
            found["reason"] = self.reason
        if self.lamp is not None:
            found["lamp"] = {
                "cosine": round(self.lamp.cosine, 4),
                "falloff": round(self.lamp.falloff, 4),
                "profile": [round(v, 4) for v in self.lamp.profile],
                "explained": round(self.lamp.explained, 4),
            }
        if self.residuals:
            found |= {"held_out_residuals": [round(v, 5) for v in self.residuals], "steps": self.steps}
            found["fused_again"] = self.again
            found["moved_percent"] = round(self.moved_percent, 3)
        return found


def refine_surface(
    mesh: Mesh, camera: Camera, views: Sequence[View], settings: Settings | None = None, again: Mesh | None = None
) -> Refinement:
    """Improve a fused surface by the light of the frames from which it came.

    Args:
        mesh: the surface, its normals towards the cameras.
        camera: of all views.
        views: in the order of time; `MOST_VIEWS` of them are looked at.
        settings: other than the usual ones.
        again: the surface once the frames have been fused again (`endorecon.surface.fused_again`); it is gone on from
            unless the frames that are held out fit it worse.
    """
    settings = Settings() if settings is None else settings
    views = [views[k] for k in np.unique(np.linspace(0, len(views) - 1, min(MOST_VIEWS, len(views))).astype(int))]
    if len(views) < LEAST_VIEWS:
        count = f"{len(views)} frame{'' if len(views) == 1 else 's'} can't"
        return Refinement(mesh, False, f"{count} tell the light from the colour, {LEAST_VIEWS} are needed")
    problem = Problem.of(mesh, camera, views)
    counts = {"views": len(problem.views), "held": len(problem.held)}
    if (share := lit_share(problem)) < LEAST_LIT:
        reason = f"only {100 * share:.0f} % of it are seen by {LEAST_SIGHTINGS} frames that are not too dark or clipped"
        return Refinement(mesh, False, reason, **counts)
    first = Stage.of(problem, mesh.vertices.astype(np.float64), settings)
    if settings.lamp and (reason := doubts(first.lamp)):
        return Refinement(mesh, False, reason, first.lamp, **counts)
    stages = [first]
    if again is not None and len(again.faces):
        begun = Stage.of(Problem.of(again, camera, views), again.vertices.astype(np.float64), settings)
        stages.append(begun)
        if begun.errors.compared(first.errors) <= 1:
            problem = begun.problem
    stages = stepped(problem, stages, settings)
    ratios = [stage.errors.compared(first.errors) for stage in stages]
    best = int(np.argmin(ratios))
    problem, x, lamp = stages[best].problem, stages[best].x, stages[best].lamp
    residuals = tuple(first.errors.mean * ratio for ratio in ratios)
    told = {"lamp": lamp, "residuals": residuals, "again": problem is not first.problem, **counts}
    if ratios[best] > 1 - LEAST_GAIN:
        return Refinement(mesh, False, "frames that were held out do not fit it better", **told)
    moved = np.linalg.norm(x - problem.mesh.vertices, axis=1) / problem.distance
    found = replace(problem.mesh, vertices=x.astype(np.float32))
    colors = without_light(found, camera, problem.views, problem.sight, exposures(problem, x, lamp), lamp)
    found = replace(found, colors=colors)
    return Refinement(found, True, steps=best, moved_percent=100 * float(np.median(moved)), **told)


@dataclass(frozen=True)
class Stage:
    """A surface on the way: its vertices (V, 3), the lamp that fits best, and the frames held out."""

    problem: Problem
    x: Float
    lamp: Lamp
    errors: Errors

    @staticmethod
    def of(problem: Problem, x: Float, settings: Settings) -> Stage:
        lamp = find_lamp(problem, x) if settings.lamp else Lamp()
        return Stage(problem, x, lamp, held_errors(problem, x, lamp))


def stepped(problem: Problem, stages: list[Stage], settings: Settings) -> list[Stage]:
    """Go on from the last of the stages that is of this problem, as long as each step brings enough."""
    now = next(stage for stage in reversed(stages) if stage.problem is problem)
    best, found = now.errors.mean, list(stages)
    for extent in settings.extents:
        now = Stage.of(problem, step(problem, now.x, now.lamp, extent, settings), settings)
        if now.errors.mean > (1 - LEAST_GAIN) * best:
            break
        found.append(now)
        best = now.errors.mean
    return found


def doubts(lamp: Lamp) -> str:
    """Why the light can't be that of a lamp beside the lens; empty if it can."""
    if lamp.falloff < LEAST_FALLOFF or lamp.cosine < 0 or lamp.explained < LEAST_EXPLAINED:
        return (
            "the brightness does not follow the endoscope's own lamp (it falls with the distance to the power of "
            f"{lamp.falloff:.2f} and a lamp at the lens explains {100 * max(lamp.explained, 0):.0f} % of its changes)"
        )
    return ""
