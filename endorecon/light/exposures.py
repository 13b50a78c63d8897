"""Exposure and white balance of each frame, measured last: in the pictures that the finished scene gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.light.evidence import BLACK, LEAST_COSINE, WHITE, Sight
from endorecon.lighting import Lighting, LitScene
from rendering.mesh import Mesh

Float = NDArray[np.float64]

SHARE = 0.5  # of the frames' size, at which they are compared
LEAST_PIXELS = 200  # else a frame keeps its exposure
MOST_CHANGE = 0.3  # of the log of a gain


def measured_again(lighting: Lighting, mesh: Mesh, normals: Float, sights: Sequence[Sight]) -> Lighting:
    """The lighting with each frame's gains such that its mean is that of the scene's picture, in each colour.

    The fit has them from a few thousand points, by robust weights and with light between surfaces that is carried from
    few places. What is left of its errors is alike over a whole frame, and is seen at once: a tint.
    """
    scene, gains = LitScene(lighting, mesh, normals=normals), lighting.exposure[:, None] * lighting.white_balance
    row = {int(index): k for k, index in enumerate(lighting.frames)}
    for sight in sights:
        gains[row[sight.frame.index]] *= np.exp(_apart(scene, sight, gains[row[sight.frame.index]]))
    exposure = np.exp(np.log(gains).mean(1))
    return replace(lighting, exposure=exposure, white_balance=gains / exposure[:, None])


def _apart(scene: LitScene, sight: Sight, gains: Float) -> Float:
    """(3,): log of by how much a frame's gains are too small."""
    camera, frame = sight.frame.camera, sight.frame
    assert camera is not None
    small = camera.scaled(max(round(SHARE * camera.width), 1), max(round(SHARE * camera.height), 1))
    seen = scene.view(small, sight.world_from_cam, gains=gains)
    size = (small.width, small.height)
    value = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA).astype(float) / 255
    usable = cv2.resize((frame.use_mask & ~frame.specular_mask).astype(np.float32), size) > 0.99
    steep = -(seen.normals * np.nan_to_num(small.ray_map())).sum(-1) > LEAST_COSINE
    good = usable & steep & (seen.depth > 0) & (seen.reached > 0)
    shown, found = seen.rgb / 255, np.zeros(3)
    for c in range(3):
        # By both, so that noise at the bounds is left out to both sides.
        both = np.minimum(value[..., c], shown[..., c]) > BLACK, np.maximum(value[..., c], shown[..., c]) < WHITE
        at = good & both[0] & both[1]
        if at.sum() >= LEAST_PIXELS:
            found[c] = scene.lighting.gamma * np.log(value[..., c][at].mean() / shown[..., c][at].mean())
    return np.clip(found, -MOST_CHANGE, MOST_CHANGE)
