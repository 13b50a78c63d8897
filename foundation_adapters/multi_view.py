"""Windows of frames to geometry by networks that see all of them at once: depth, pose and intrinsics that agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from foundation_adapters.estimator import Geometry, as_arrays, as_images, check_window, common_camera, ray_depth
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

if TYPE_CHECKING:
    from torch import Tensor

# A camera is estimated from so many frames, spread evenly: the cost grows with the square.
MOST_VIEWS = 8
# The unit of a window is such that its median depth is this many, about what endoscopes see in millimetres.
_TYPICAL = 40.0
# The networks learn with |error| c - 0.2 log c (VGGT, eq. 2), at whose optimum the mean error is 0.2 / c, in units of
# the scene's mean distance; a standard deviation is larger than the mean error by the root of two (Laplace).
_DOUBT = 0.2 * 2**0.5
_LEAST_STD, _MOST_STD = 0.02, 0.5


@dataclass(frozen=True)
class Views:
    """What a network says of V views; tensors.

    Attributes:
        depth: (V, H, W), z, in a unit that the views share.
        confidence: (V, H, W), 1 and more; the expected error is 0.2 / confidence.
        cam_from_world: (V, 4, 4) float64, in that unit.
        focal: (V, 2), fx / width and fy / height.
    """

    depth: Tensor
    confidence: Tensor
    cam_from_world: Tensor
    focal: Tensor


class ViewNetwork(Protocol):
    """Images (V, 3, H, W) in [0, 1] to `Views`; H and W are multiples of `patch`, the longer one near `long_side`."""

    patch: int
    long_side: int

    def __call__(self, image: Tensor) -> Views: ...


class MultiViewEstimator:
    """An `Estimator` whose frames are seen together: those of a window and the last one before it, which links them.

    The networks know pinhole cameras. Other lenses' images are given to them as they are: rectify them, or expect
    depth to be bent towards the border.

    Attributes:
        name, licence, source: of the network, for the run folder.
    """

    def __init__(self, network: ViewNetwork, name: str, licence: str, source: str):
        import torch

        # These networks are large: on a GPU where there is one.
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device) if isinstance(network, torch.nn.Module) else network
        self.name, self.licence, self.source = name, licence, source

    def estimate(self, frames: Sequence[Frame], previous: Geometry | None = None) -> Geometry:
        """Depth, confidence and relative pose of consecutive frames; as `Estimator.estimate`.

        Each window has a unit of its own, by its median depth.

        Raises:
            InputError: no frames, mixed sizes, a size that is no multiple of 32, a frame without a camera.
        """
        import torch
        from torch.nn import functional as F

        check_window(frames, cameras=True)
        last = previous.state if previous is not None else None
        if not isinstance(last, Frame) or last.rgb.shape != frames[0].rgb.shape:
            last = None  # of a window of another size
        seen = [*([] if last is None else [last]), *frames]
        with torch.inference_mode():
            views = self._ask(seen)
            own = slice(len(seen) - len(frames), None)
            size = (frames[0].height, frames[0].width)
            depth, confidence = (
                F.interpolate(x[own, None].float(), size, mode="bilinear")[:, 0]
                for x in (views.depth, views.confidence)
            )
            # A network that says nothing sensible must not put what is no number into the run.
            depth = torch.nan_to_num(depth, 1.0, 1.0, 1.0).clamp_min(1e-6)
            scale = _TYPICAL / float(depth.median())
            std = torch.nan_to_num(_DOUBT * _TYPICAL / (confidence * depth * scale), _MOST_STD, _MOST_STD)
            std = std.clamp(_LEAST_STD, _MOST_STD)
            arrays = as_arrays(frames, depth * scale, ray_depth(frames) > 1e-3, std)
        poses = np.full((len(frames), 4, 4), np.nan)
        told = views.cam_from_world.numpy()
        linked = told[:-1] @ np.linalg.inv(told[1:])
        linked[:, :3, 3] *= scale
        poses[len(frames) - len(linked) :] = linked
        return Geometry(*arrays, poses, camera=frames[-1].camera, state=frames[-1])

    def estimate_camera(self, frames: Sequence[Frame]) -> tuple[Camera, float]:
        """A pinhole camera with square pixels and its principal point in the middle; as `Estimator.estimate_camera`.

        Raises:
            InputError: no frames, mixed sizes, a size that is no multiple of 32.
        """
        import torch

        check_window(frames)
        chosen = np.unique(np.linspace(0, len(frames) - 1, MOST_VIEWS).round().astype(int))
        with torch.inference_mode():
            focal = self._ask([frames[n] for n in chosen]).focal
        return common_camera(focal, frames[0].width, frames[0].height)

    def _ask(self, frames: Sequence[Frame]) -> Views:
        """The network's word on frames, at its own size; on the CPU."""
        import torch
        from torch.nn import functional as F

        image, net = as_images(frames), self._network
        factor = net.long_side / max(image.shape[-2:])
        size = tuple(max(round(side * factor / net.patch), 1) * net.patch for side in image.shape[-2:])
        image = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)
        found = net(image.contiguous().to(self._device))
        found = Views(found.depth.cpu(), found.confidence.cpu(), found.cam_from_world.cpu(), found.focal.cpu())
        if not torch.isfinite(found.cam_from_world).all():
            raise InputError(
                f"{self.name} gave poses that are no numbers: its weights are broken or of another kind; download them "
                "again, or take --model tiny"
            )
        return found
