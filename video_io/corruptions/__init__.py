"""A slot: one file a thing that goes wrong in an endoscope's picture, at five severities.

The benchmark damages clips with it, and the training its images. Each file has

    GROUP = "scene"                 # where it happens: scene, lens, light, camera, recording or time
    ABOUT = "one line"

    def begin(rgb, severity, rng) -> Effect

`begin` draws everything random but the sensor's noise from `rng`, in the same order at every severity, so that a higher
severity is the same event, only worse. An effect is called with a clip's pictures in order and their times in seconds;
it gives the damaged picture, or None for a frame that is lost. Pictures are (H, W, 3) uint8 RGB of any size: all
lengths are relative to the width. Group `time` acts on the order of the pictures and leaves a single one as it is.

The idea of a registry with severities and its score relative to clean images: Hendrycks and Dietterich, ICLR 2019, and
MedMNIST-C (Di Salvo et al., 2024).
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError

Image = NDArray[np.uint8]
Effect = Callable[[Image, float], Image | None]

SEVERITIES = (1, 2, 3, 4, 5)
# In the order in which light meets them.
GROUPS = ("scene", "lens", "light", "camera", "recording", "time")
# What these do ends where the optics' picture ends; a recorder draws on the black around it as well.
_INSIDE_ONLY = ("scene", "lens", "light")


@dataclass(frozen=True)
class Corruption:
    """A file of this slot.

    Attributes:
        name: of the file, in reports and on the command line.
        group: where it happens, one of GROUPS.
        about: one line.
    """

    name: str
    group: str
    about: str

    @property
    def acts_on_order(self) -> bool:
        """Whether it needs a clip: which pictures are shown, not how they look."""
        return self.group == "time"


@cache
def names() -> tuple[str, ...]:
    """Names of the corruptions, by group, then by name."""
    found = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return tuple(sorted(found, key=lambda name: (GROUPS.index(_module(name).GROUP), name)))


def describe(name: str) -> Corruption:
    """What a corruption is.

    Raises:
        InputError: no such corruption.
    """
    check(name)
    return Corruption(name, _module(name).GROUP, _module(name).ABOUT)


def check(name: str, severity: int = 1) -> None:
    """Raise InputError unless there is such a corruption and such a severity."""
    if name not in names():
        raise InputError(f"corruption '{name}' is not known; give some of {', '.join(names())}")
    if severity not in SEVERITIES:
        raise InputError(f"severity {severity} is not known; give some of 1, 2, 3, 4, 5")


def corrupt(rgb: Image, name: str, severity: int, seed: int = 0, time_s: float = 0.0) -> Image:
    """A single picture, as it looks `time_s` after the event has begun; the same for the same arguments.

    Raises:
        InputError: no such corruption or severity.
    """
    found = begin(rgb, name, severity, seed)(rgb, time_s)
    assert found is not None, f"{name} has lost its first picture"
    return found


def corrupt_clip(
    pictures: Iterable[Image], name: str, severity: int, seed: int = 0, fps: float = 30.0
) -> Iterator[tuple[int, Image]]:
    """The pictures of a clip, one after the other, with the number of the frame in whose place each stands; lost frames
    are missing. The same for the same arguments.

    Raises:
        InputError: no such corruption or severity.
    """
    effect: Effect | None = None
    for number, rgb in enumerate(pictures):
        effect = effect or begin(rgb, name, severity, seed)
        shown = effect(rgb, number / fps)
        if shown is not None:
            yield number, shown


def begin(rgb: Image, name: str, severity: int, seed: int = 0) -> Effect:
    """The effect on a clip that begins with this picture.

    Raises:
        InputError: no such corruption or severity.
    """
    check(name, severity)
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    module = _module(name)
    effect = module.begin(rgb, severity, rng)
    return _inside(rgb, effect) if module.GROUP in _INSIDE_ONLY else effect


def _inside(first: Image, effect: Effect) -> Effect:
    """The effect, but for the black around the optics' picture."""
    from video_io.masks import field_of_view

    outside = ~field_of_view(first)
    if not 0.02 < outside.mean() < 0.9:  # all picture, or too dark to tell
        return effect

    def masked(rgb: Image, time_s: float) -> Image | None:
        shown = effect(rgb, time_s)
        if shown is not None:
            shown[outside] = rgb[outside]
        return shown

    return masked


@cache
def _module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"{__name__}.{name}")
