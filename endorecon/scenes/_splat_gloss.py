"""Highlights of Gaussians: what wet tissue mirrors of a lamp that sits beside the lens.

With the lamp at the camera the half vector is the direction to the camera, so a microfacet's lobe is a function of one
angle, that between it and the normal. Each Gaussian has one such lobe, a exp(k (cos - 1)), a spherical Gaussian (Wang
et al., "All-frequency rendering of dynamic, spatially-varying reflectance", ACM TOG 28(5), 2009). It is white, as the
lamp is: what tissue mirrors is not coloured by it. Harmonics of degree 2 are far too smooth for that. The axis starts
as the surface's normal. The usual files of Gaussians know no lobes, which are kept beside them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
FILE = "gloss.npz"
COLUMNS = 5  # a, log k, axis
SHARPNESS = 3.5  # log k at the start: a lobe falls to the half within 12 degrees of its axis
SHARPEST, DULLEST = 6.0, 1.0  # log k
# Of all columns. A strength that jumps from step to step makes the front too bright as often as not, and opacity, which
# is faster than all else, gives way: at three times this rate holes opened in what is near.
RATE = 1.5e-3


def seeded(normals: NDArray[np.floating]) -> Floats:
    """Lobes (N, 5) of no strength about the surface's normals (N, 3), which point to where it is seen from."""
    n = len(normals)
    return np.concatenate([np.zeros((n, 1)), np.full((n, 1), SHARPNESS), normals], 1).astype(np.float32)


def mirrored(gloss: torch.Tensor, means: torch.Tensor, cam_from_world: torch.Tensor) -> torch.Tensor:
    """What each Gaussian (N,) mirrors towards a camera at a pose (4, 4), added to its colour in [0, 1].

    No gradient by the centres: a highlight tells of normals, and would push its Gaussian about.
    """
    import torch

    view = cam_from_world.to(means.dtype)
    centre = -(view[:3, :3].T @ view[:3, 3])
    towards = torch.nn.functional.normalize(centre - means.detach(), dim=1)
    axis = torch.nn.functional.normalize(gloss[:, 2:], dim=1)
    return gloss[:, 0] * torch.exp(torch.exp(gloss[:, 1]) * ((towards * axis).sum(1) - 1))


def hold(gloss: torch.Tensor) -> None:
    """Bring lobes back to what is possible after a step, in place."""
    gloss[:, 0].clamp_(min=0)
    gloss[:, 1].clamp_(DULLEST, SHARPEST)


def write_gloss(gloss: Floats, path: Path) -> None:
    """Write the lobes of Gaussians, in the order of their file."""
    np.savez_compressed(path, gloss=gloss)


def read_gloss(path: Path, number: int) -> Floats | None:
    """The lobes (N, 5) of `number` Gaussians; None where there is no such file.

    Raises:
        InputError: a file that can't be read or that belongs to other Gaussians.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            gloss = np.asarray(data["gloss"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"the highlights in '{path}' can't be read; expected numpy's npz with an array gloss; "
            "remove the file to go without"
        ) from error
    if gloss.shape != (number, COLUMNS) or not np.isfinite(gloss).all():
        raise InputError(
            f"'{path}' has highlights of shape {gloss.shape}, and there are {number} Gaussians; "
            "remove the file to go without"
        )
    return gloss
