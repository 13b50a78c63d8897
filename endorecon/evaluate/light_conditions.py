"""The conditions of the brightness audit, and the phantom scenes that are shown under them.

Everything but the light stays: camera, shape, and the noise of the sensor. What differs in a model's depth between two
conditions is therefore what it has read from the light.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rendering.shade import Response
from video_io.camera import Camera
from video_io.errors import InputError

if TYPE_CHECKING:
    from rendering.phantom.clip import Clip

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Paint = Literal["usual", "other", "even"]

STANDARD = "standard"
LUMINANCE = np.array([0.3, 0.6, 0.1], np.float32)


@dataclass(frozen=True)
class Condition:
    """A light, a tissue or an exposure in place of the usual one.

    Attributes:
        name: in tables.
        about: what it is, in words.
        falloff: how much the exponent of the lamp's fall-off is raised: -2 makes the inverse square an even light, -3
            lights the far more than the near.
        aside: the lamp's shift to the right and down, as shares of the median distance.
        turn: of the beam to the right, rad.
        paint: the tissue's colours: usual; another pattern and colour; or one even colour.
        stops: of exposure, on top of the automatic one.
        gamma: of the tone curve, where it is another.
    """

    name: str
    about: str
    falloff: float = 0.0
    aside: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    paint: Paint = "usual"
    stops: float = 0.0
    gamma: float | None = None

    @property
    def group(self) -> str:
        """What of the picture it changes: light, tissue, camera, or nothing."""
        if self.falloff or self.turn or any(self.aside):
            return "light"
        if self.paint != "usual":
            return "tissue"
        return "camera" if self.stops or self.gamma else STANDARD


CONDITIONS = (
    Condition(STANDARD, "as the scene is: lamp beside the lens, light falls with the square of the distance"),
    Condition("far bright", "the far brighter than the near: fall-off with exponent -1", falloff=-3.0),
    Condition("fall-off 0", "as bright at every distance", falloff=-2.0),
    Condition("fall-off 1", "light falls with the distance", falloff=-1.0),
    Condition("fall-off 3", "light falls with the third power of the distance", falloff=1.0),
    Condition("lamp right", "the lamp a third of the median distance to the right, with shadows", aside=(0.33, 0.0)),
    Condition("lamp below", "the lamp a third of the median distance down, with shadows", aside=(0.0, 0.33)),
    Condition("beam turned", "the beam turned by 35 degrees to the right", turn=0.61),
    Condition("other paint", "another tissue with another pattern", paint="other"),
    Condition("even paint", "one colour, no pattern", paint="even"),
    Condition("1 stop up", "exposed twice as long", stops=1.0),
    Condition("1 stop down", "exposed half as long", stops=-1.0),
    Condition("gamma 1.6", "a tone curve of more contrast", gamma=1.6),
    Condition("gamma 3", "a tone curve of less contrast", gamma=3.0),
)  # fmt: skip


class Shown(NamedTuple):
    """A place under a condition.

    Attributes:
        rgb: (H, W, 3) uint8.
        light: (H, W) float32, the luminance before exposure and tone curve: what the picture is of.
    """

    rgb: NDArray[np.uint8]
    light: Float32


class Place(Protocol):
    """A camera before a shape, which can be lit in any way.

    Attributes:
        scene: the name of the scene that it is in.
        camera: of the picture.
        depth: (H, W) float32, true z; 0 where there is none, or where the picture shows none.
    """

    scene: str
    camera: Camera
    depth: Float32

    def show(self, condition: Condition) -> Shown:
        """The picture under a condition; the same again on every call."""
        ...


def develop(linear: Float32, distance: Float32, condition: Condition, response: Response, seed: int) -> Shown:
    """The picture of linear radiance: another fall-off as a gain by distance, then exposure, tone curve and noise.

    Args:
        linear: (H, W, 3), of a light that falls off as it usually does.
        distance: (H, W) from the lamp, 0 where there is nothing.
        response: automatic exposure brings the picture to its level.
        seed: of the noise, which is the same under every condition.
    """
    if condition.falloff:
        # Lamp and lens are close together as seen from the surface: one distance does for all lamps.
        seen = distance > 0
        typical = np.float32(np.median(distance[seen])) if seen.any() else np.float32(1)
        gain = np.where(seen, np.where(seen, distance / typical, 1) ** np.float32(-condition.falloff), 1)
        linear = linear * gain.astype(np.float32)[..., None]
    if condition.gamma is not None:
        response = replace(response, gamma=condition.gamma)
    exposure = response.exposure(linear) * 2.0**condition.stops
    rgb = response.develop(linear, exposure, np.random.default_rng((seed, 3)))
    return Shown(rgb, (linear @ LUMINANCE).astype(np.float32))


# -- phantoms -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhantomPlace:
    """A place of a phantom clip; see `Place`."""

    scene: str
    clip: Clip = field(repr=False)
    pose: Float = field(repr=False)

    @property
    def camera(self) -> Camera:
        return self.clip.camera

    @cached_property
    def distance(self) -> Float32:
        """(H, W) along the rays, mm."""
        return self.clip.renderer.distances(self.camera, self.pose)[0]

    @cached_property
    def depth(self) -> Float32:
        return (self.distance * np.nan_to_num(self.camera.ray_map()[..., 2])).astype(np.float32)

    @cached_property
    def _standard(self) -> Float32:
        return self.clip.renderer.render(self.camera, self.pose, self.clip.look).linear_rgb

    def show(self, condition: Condition) -> Shown:
        """See `Place`."""
        look = self._dressed(condition)
        usual = look is self.clip.look
        linear = self._standard if usual else self.clip.renderer.render(self.camera, self.pose, look).linear_rgb
        return develop(linear, self.distance, condition, self.clip.response, self.clip.seed)

    def _dressed(self, condition: Condition):  # type: ignore[no-untyped-def]
        from rendering.phantom.material import mean_albedo

        look = self.clip.look
        if any(condition.aside) or condition.turn:
            shift = np.array([*condition.aside, 0.0]) * float(np.median(self.distance))
            axis = (float(np.sin(condition.turn)), 0.0, float(np.cos(condition.turn)))
            lights = tuple(
                replace(lamp, position_mm=tuple((np.array(lamp.position_mm) + shift).tolist()), axis=axis)
                for lamp in look.lights
            )
            return replace(look, lights=lights, shadows=any(condition.aside))
        if condition.paint == "even":
            none = {"mottle_share": 0.0, "vessel_share": 0.0, "pool_level": 3.0, "speckle_share": 0.0}
            bare = tuple(
                replace(m, base=tuple(map(float, c)), **none)
                for m, c in zip(look.materials, mean_albedo(look.materials), strict=True)
            )
            return replace(look, materials=bare)
        if condition.paint == "other":
            rng = np.random.default_rng((self.clip.seed, 4))
            # The relief stays: it is shape.
            relief = ("bump_frequency", "bump_slope", "fine_frequency", "fine_slope", "roughness", "f0", "film")
            drawn = self.clip.renderer.anatomy.dressed(rng, usual=True)
            other = tuple(
                replace(new, **{name: getattr(old, name) for name in relief})
                for new, old in zip(drawn, look.materials, strict=True)
            )
            # One seed draws the pattern and the relief: the pattern is shifted by its frequency's change alone.
            return replace(look, materials=other)
        return look


SCENES = (
    ("colon", 921), ("colon", 922), ("passage", 923), ("passage", 924), ("abdomen", 925), ("abdomen", 926),
    ("tissue", 927), ("plaster", 928),
)  # fmt: skip
_PATH_FRAMES = 60


def phantom_places(
    scenes: tuple[tuple[str, int], ...] = SCENES, places: int = 4, camera: Camera | None = None
) -> Iterator[Place]:
    """Places along the camera's way through phantom scenes, given as kind and seed.

    Raises:
        InputError: a scene that is not known.
    """
    from rendering.phantom.clip import prepare

    if places < 1:
        raise InputError(f"{places} places a scene; expected 1 or more")
    for scene, seed in scenes:
        clip = prepare(scene, seed, _PATH_FRAMES, camera)
        at = ((np.arange(places) + 0.5) / places * len(clip.poses)).astype(int)
        for pose in clip.poses[at]:
            yield PhantomPlace(f"{scene} {seed}", clip, pose)
