"""Places of a run for the brightness audit: its own surface and tissue under its own lamp, and under others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.light_conditions import LUMINANCE, Condition, Paint, Place, Shown
from endorecon.resimulate import RunScene
from endorecon.run import Run
from video_io.camera import Camera
from video_io.errors import InputError

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
# The pattern of another tissue: cells as large as this share of the usual distance; how strong; and its colour.
_CELL, _STRENGTH, _OTHER_COLOUR = 0.4, 0.7, (0.8, 1.0, 1.25)


class RunPlace:
    """One of a run's poses; see `Place`. The truth is the run's surface, whatever the real one was.

    Args:
        scenes: the run's scene by its paint; what is missing is added, for all places that share this.
        number: of the pose.
    """

    def __init__(self, scenes: dict[Paint, RunScene], number: int) -> None:
        self._scenes, self._at = scenes, number
        self.scene = f"run {scenes['usual'].run.name}"
        self._pose = scenes["usual"].run.trajectory.world_from_cam[number]

    @property
    def camera(self) -> Camera:
        return self._scenes["usual"].camera

    @cached_property
    def _standard(self) -> tuple[Float32, Float32, NDArray[np.bool_], Float]:
        return self._scenes["usual"].view(self._pose, self._at)

    @cached_property
    def depth(self) -> Float32:
        _, depth, known, _ = self._standard
        return np.where(known, depth, 0).astype(np.float32)

    def show(self, condition: Condition) -> Shown:
        """See `Place`. The exposure follows the median of the light, as a processor's does."""
        usual, depth, known, gains = self._standard
        scene = self._dressed(condition.paint)
        lamp, typical = scene.lighting.lamp, float(np.median(depth[known]))
        if condition.falloff:
            lamp = replace(lamp, falloff=lamp.falloff + condition.falloff, reference=typical)
        if any(condition.aside):
            lamp = replace(lamp, position=lamp.position + typical * np.array([*condition.aside, 0.0]))
        if condition.turn:
            c, s = np.cos(condition.turn), np.sin(condition.turn)
            lamp = replace(lamp, axis=lamp.axis @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]))
        linear = scene.view(self._pose, self._at, lamp=lamp)[0]
        light = linear @ LUMINANCE
        was, now = (float(np.median(x[known])) for x in (usual @ LUMINANCE, light))
        gamma = condition.gamma or scene.lighting.gamma
        level = (max(was, 1e-12) * gains) ** (1 / scene.lighting.gamma)
        gains = level**gamma / max(now, 1e-12) * 2.0**condition.stops
        shown = replace(scene.lighting, gamma=gamma).displayed(linear, gains)
        return Shown(scene.finished(shown, known, np.random.default_rng((self._at, 3))), light.astype(np.float32))

    def _dressed(self, paint: Paint) -> RunScene:
        if paint not in self._scenes:
            scene = self._scenes["usual"]
            albedo = scene.lighting.albedo
            mean = albedo.mean(0, keepdims=True)
            if paint == "even":
                other = np.repeat(mean, len(albedo), 0)
            else:
                from rendering.phantom.noise import fbm

                typical = float(np.median(self.depth[self.depth > 0]))
                pattern = fbm(scene.mesh.vertices, 1 / (_CELL * typical), 3, 17)[:, None]
                other = mean * np.array(_OTHER_COLOUR) * np.exp(_STRENGTH * pattern)
            self._scenes[paint] = scene.painted(np.clip(other, 0, 1).astype(np.float32))
        return self._scenes[paint]


def run_places(run: Run, places: int = 8) -> Iterator[Place]:
    """Places along a run's path.

    Raises:
        InputError: a run without surface, path or lighting; see `RunScene`.
    """
    if places < 1:
        raise InputError(f"{places} places a scene; expected 1 or more")
    scenes: dict[Paint, RunScene] = {"usual": RunScene(run)}
    for number in np.unique(((np.arange(places) + 0.5) / places * len(run.trajectory)).astype(int)):
        place = RunPlace(scenes, int(number))
        if (place.depth > 0).mean() > 0.3:
            yield place
