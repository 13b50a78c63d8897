"""Light that a phantom's surfaces throw at each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rendering.bounce import BRIGHTEST, PATHS, over_image, traced_irradiance

if TYPE_CHECKING:
    from embreex.rtcore_scene import EmbreeScene

    from rendering.phantom.scene import Anatomy

Float32 = NDArray[np.float32]


def indirect_irradiance(
    scene: EmbreeScene, anatomy: Anatomy, shape: tuple[int, int], points: Float32, normals: Float32,
    parts: NDArray[np.int32], eye: NDArray[np.float64], lights: Float32, albedo: Float32, rng: np.random.Generator,
    paths: int = PATHS,
) -> Float32:  # fmt: skip
    """Irradiance rgb (H * W, 3) at the pixels' points, of all orders of diffuse reflection.

    Args:
        shape: (H, W) of the image whose rows `points`, `normals` (H * W, 3) and `parts` (H * W,; -1 for none) are.
        eye: (3,), mm, world.
        lights: from pack_lights.
        albedo: (P, 3) of each part for the paths, the mean of its texture.
        rng, paths: of the paths, and how many from each place.
    """
    lift, a = np.float32(1e-4 * anatomy.scale_mm), anatomy

    def trace(at: Float32, facing: Float32) -> Float32:
        return traced_irradiance(
            scene, a.vertices, a.faces, a.face_part, lift, at, facing, lights, np.clip(albedo, 0, BRIGHTEST), rng, paths
        )

    return over_image(shape, points, normals, parts, eye, trace)
