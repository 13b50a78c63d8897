"""Frames to geometry: depth with confidence, relative pose, intrinsics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation_adapters.runtimes import Runtime
from foundation_adapters.runtimes import build as build_runtime
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from foundation_adapters.multi_view import MultiViewEstimator
    from foundation_adapters.network import Network

# Larger batches fall out of the cache: two frames at 320 x 256 are the fastest.
_BATCH = 2
# The spread of log depth at which confidence is one half.
_HALF_CONFIDENCE_STD = 0.1
# Rays this far from the optical axis, and those behind the camera, have no depth.
_LEAST_Z = 1e-3


@dataclass(frozen=True)
class Geometry:
    """What the network says of N frames of one size.

    Depths and translations share one unknown unit, about a millimetre.

    Attributes:
        depth: (N, H, W) float32, z; 0 where the camera has no ray.
        confidence: (N, H, W) float32 in [0, 1]: 1 / (1 + (std / 0.1)^2); 0 outside a frame's use_mask or without a ray.
        log_std: (N, H, W) float32, standard deviation of log depth about its truth once the frame's scale is taken out.
        previous_from_cam: (N, 4, 4) float64, takes points of a frame's camera to that of the frame before it; NaN where
            there is none.
        camera: the camera of the last frame.
        state: what the next call needs of the last frame.
    """

    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    log_std: NDArray[np.float32]
    previous_from_cam: NDArray[np.float64]
    camera: Camera
    state: Any = None


class Estimator:
    """The network, ready to be asked; made by `load_estimator`.

    Attributes:
        name, licence, source: of the model that gives the depth and of its adapter, for the run folder.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        licence: str,
        source: str,
        depth_model: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        depth_network: Network | None = None,
        runtime: str | None = None,
        run: Runtime | None = None,
    ):
        """Depth is from `depth_model`, else from `depth_network` (one adapted to depth alone), else from `network`.
        `runtime` names what runs the shipped network, by default the fastest that is installed; or it is given as
        `run`."""
        self._network, self._depth_model = network, depth_model
        self._run = run or build_runtime(network, runtime)
        self._run_depth = build_runtime(depth_network, runtime) if depth_network is not None else None
        self.name, self.licence, self.source = name, licence, source

    def estimate(self, frames: Sequence[Frame], previous: Geometry | None = None) -> Geometry:
        """Depth, confidence and relative pose of consecutive frames.

        Args:
            frames: one size, sides multiples of 32, each with its camera.
            previous: the result for the frames just before these, so that the first of them gets a relative pose.

        Raises:
            InputError: no frames, mixed sizes, a size that is no multiple of 32, a frame without a camera.
        """
        import torch

        check_window(frames, cameras=True)
        state = previous.state if previous is not None else None
        parts = []
        with torch.inference_mode():
            for start in range(0, len(frames), _BATCH):
                part, state = self._estimate_batch(frames[start : start + _BATCH], state)
                parts.append(part)
        joined = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Geometry(*joined, camera=frames[-1].camera, state=state)

    def estimate_camera(self, frames: Sequence[Frame]) -> tuple[Camera, float]:
        """A pinhole camera with square pixels and its principal point in the middle, from the look of the frames.

        Returns:
            The camera for the frames' size, its focal length the median over the frames, and the relative standard
            deviation of the focal length over the frames.

        Raises:
            InputError: no frames, mixed sizes, a size that is no multiple of 32.
        """
        import torch

        check_window(frames)
        with torch.inference_mode():
            tell = getattr(self._run, "focal", self._network.focal)
            found = [tell(as_images(frames[i : i + _BATCH])) for i in range(0, len(frames), _BATCH)]
        return common_camera(torch.cat(found), frames[0].width, frames[0].height)

    def _estimate_batch(self, frames: Sequence[Frame], state: Tensor | None) -> tuple[tuple[NDArray, ...], Tensor]:
        image = as_images(frames)
        half = _rays(frames, 2)
        log_distance, log_std, description = self._seen(image, half)
        if self._depth_model is not None:
            log_distance, log_std = self._depth_model(image, _rays(frames, 1))
        z = ray_depth(frames)
        arrays = as_arrays(frames, log_distance.exp() * z, z > _LEAST_Z, log_std.exp())
        poses = self._poses(description, log_distance, half, state)
        return (*arrays, poses), description[-1:].clone()

    def _seen(self, image: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log distance, its log standard deviation, and the description that relative poses are told from."""
        pose = self._run(image, half)
        depth = pose if self._run_depth is None else self._run_depth(image, half)
        return depth.log_distance, depth.log_std, pose.description

    def _poses(self, now: Tensor, log_distance: Tensor, half: Tensor, state: Tensor | None) -> NDArray[np.float64]:
        import torch

        if state is not None and state.shape[1:] != now.shape[1:]:
            state = None  # of a window of another size
        before = torch.cat([now[:1] if state is None else state, now[:-1]])
        vectors = self._network.relative_pose(now, before, half, log_distance).double().numpy()
        seen = torch.isfinite(half).all(1)
        unit = [
            float(d[::2, ::2][s].median().exp()) if s.any() else 1.0 for d, s in zip(log_distance, seen, strict=True)
        ]
        poses = np.tile(np.eye(4), (len(now), 1, 1))
        for pose, vector, scale in zip(poses, vectors, unit, strict=True):
            pose[:3, :3] = _rotation(vector[:3])
            pose[:3, 3] = vector[3:] * scale
        if state is None:
            poses[0] = np.nan
        return poses


def load_estimator(
    model: str = "tiny",
    adapter: str | Path | None = None,
    accept_licence: bool = False,
    runtime: str | None = None,
) -> Estimator | MultiViewEstimator:
    """Build an estimator.

    Args:
        model: `tiny`, or a checkpoint of a file of `foundation_adapters.backbones`: a hub id or a folder.
        adapter: folder of an adapter for that model (adapter_config.json, adapter_model.safetensors, card.json), or of
            one a task, in folders `depth` and `pose` of it. It is merged into the weights. With two sets for `tiny` the
            image passes its backbone twice.
        accept_licence: the weights may forbid commercial use.
        runtime: a file of `foundation_adapters.runtimes`, for the shipped network; by default the fastest one that is
            installed.

    Raises:
        InputError: an unknown model, missing weights, an adapter that does not fit, a licence that was not accepted;
            says what was tried.
    """
    from foundation_adapters.backbones import check_licence, modules, tiny
    from foundation_adapters.checkpoints import source_of

    module = next((m for m in modules().values() if m.accepts(model)), None)
    if module is None:
        raise InputError(
            f"no model '{model}': give tiny, a hub id (owner/name) of Depth Anything, VGGT, DINOv2 or DINOv3, or a "
            "folder with such a checkpoint"
        )
    sets = _Sets.of(adapter)
    licence = module.licence(model) if hasattr(module, "licence") else module.LICENCE
    check_licence(model, licence, accept_licence)
    check_licence(f"the adapter {sets.name}", sets.licence, accept_licence)
    name, licence = sets.with_name(model), sets.with_licence(licence)
    if getattr(module, "NEEDS_ADAPTER", False):
        network, for_depth = _encoder_networks(module.build(model), model, sets)
        return Estimator(network, name, licence, source_of(model), depth_network=for_depth, runtime="pytorch")
    if getattr(module, "MULTI_VIEW", False):
        return _multi_view(module, model, sets)
    if module is tiny:
        for_depth = None if sets.depth == sets.pose else _tiny(sets.depth)
        return Estimator(_tiny(sets.pose), name, licence, tiny.SOURCE, depth_network=for_depth, runtime=runtime)
    depth_model = module.build(model)
    if sets.depth is not None:
        depth_model.model = _adapted(depth_model.model, sets.depth, model)
    # A set for both tasks is for the model that it was trained on; the pose is another network's.
    network = _tiny(sets.pose if sets.pose != sets.depth else None)
    return Estimator(network, name, licence, depth_model.source, depth_model, runtime=runtime)


@dataclass(frozen=True)
class _Sets:
    """The folders of an adapter's tensors by task, None where a task has none, and what is recorded of them."""

    name: str = ""
    licence: str = ""
    depth: Path | None = None
    pose: Path | None = None

    @staticmethod
    def of(adapter: str | Path | None) -> _Sets:
        if adapter is None:
            return _Sets()
        from foundation_adapters.adapter_files import adapter_sets, read_card

        folder = Path(adapter).expanduser()
        found = adapter_sets(folder)
        licences = list(dict.fromkeys(read_card(path).licence for path in found.values()))
        by_task = {task: path for tasks, path in found.items() for task in tasks}
        return _Sets(folder.resolve().name, " and ".join(licences), by_task.get("depth"), by_task.get("pose"))

    def with_name(self, model: str) -> str:
        return f"{model} with adapter {self.name}" if self.name else model

    def with_licence(self, licence: str) -> str:
        return f"{licence}; adapter: {self.licence}" if self.name else licence


def _tiny(folder: Path | None) -> Network:
    """The shipped network, with the set in `folder`."""
    from foundation_adapters.backbones import tiny

    if folder is None:
        return tiny.build()
    from foundation_adapters.network import fused

    return fused(_adapted(tiny.base(), folder, "tiny"))


def _encoder_networks(network: Any, model: str, sets: _Sets) -> tuple[Any, Any]:
    """What tells the pose and the camera, and what tells depth where that is another: an encoder with trained heads.

    Without a set for the pose that is the shipped network's.
    """
    import copy

    if sets.depth is None:
        raise InputError(
            f"'{model}' gives features and no depth: give --adapter, a folder with adapter and heads that were trained "
            "for it, or take --model tiny"
        )
    tasks = ("depth", "pose") if sets.pose == sets.depth else ("depth",)
    for folder, needs in ((sets.depth, tasks), (sets.pose, ("pose",))):
        if folder is not None:
            _check_heads(folder, {head for task in needs for head in network.heads[task]})
    if sets.pose == sets.depth:
        return _adapted(network, sets.depth, model), None
    bare = copy.deepcopy(network) if sets.pose is not None else None
    for_depth = _adapted(network, sets.depth, model)
    return (_tiny(None) if bare is None else _adapted(bare, sets.pose, model)), for_depth


def _multi_view(module: ModuleType, model: str, sets: _Sets) -> MultiViewEstimator:
    from foundation_adapters.checkpoints import source_of
    from foundation_adapters.multi_view import MultiViewEstimator

    if sets.name:
        raise InputError(
            f"'{model}' sees several views at once and takes no adapter: leave out --adapter, or give the model that "
            f"{sets.name} was trained for"
        )
    return MultiViewEstimator(module.build(model), model, module.licence(model), source_of(model))


def _check_heads(folder: Path, heads: set[str]) -> None:
    from foundation_adapters.adapter_files import saved_modules

    missing = sorted(heads - saved_modules(folder))
    if missing:
        raise InputError(
            f"the adapter in {folder} has no trained {', '.join(missing)}: an encoder needs an adapter whose "
            f"modules_to_save are {', '.join(sorted(heads))}"
        )


def _adapted(network: Any, folder: Path, base: str) -> Any:
    from foundation_adapters.adapter_files import load_adapter, merged

    return merged(load_adapter(network, folder, base), folder)


def check_window(frames: Sequence[Frame], cameras: bool = False) -> None:
    """Whether frames can be estimated together.

    Raises:
        InputError: no frames, mixed sizes, a size that is no multiple of 32; where `cameras` are needed, none.
    """
    if not frames:
        raise InputError("no frames: an estimate needs at least one")
    sizes = {(frame.width, frame.height) for frame in frames}
    if len(sizes) > 1:
        raise InputError(f"frames of {len(sizes)} sizes ({sorted(sizes)}): one window holds one size")
    width, height = sizes.pop()
    if width % 32 or height % 32 or min(width, height) < 64:
        raise InputError(
            f"frames of {width} x {height}: sides must be multiples of 32 and at least 64; "
            "video_io.view plans such a size"
        )
    if cameras and any(frame.camera is None for frame in frames):
        raise InputError(f"frame {frames[0].index} has no camera: give one, or ask estimate_camera first")


def common_camera(focal: Tensor, width: int, height: int) -> tuple[Camera, float]:
    """From each frame's fx / width and fy / height (N, 2) the clip's pinhole camera, by the median, and the relative
    standard deviation of the focal length over the frames."""
    logs = np.log(focal.numpy().astype(float) * [width, height]).mean(1)
    median = float(np.median(logs))
    spread = 1.4826 * float(np.median(np.abs(logs - median)))
    length = math.exp(median)
    return Camera.pinhole(width, height, length, length, width / 2, height / 2), spread


def as_arrays(
    frames: Sequence[Frame], depth: Tensor, has_ray: Tensor, std: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Depth, confidence and log_std as in `Geometry`, from depth, whether the camera has a ray, and the standard
    deviation of log depth, (N, H, W) each."""
    import torch

    use = torch.from_numpy(np.stack([frame.use_mask for frame in frames]))
    confidence = torch.where(use & has_ray, 1 / (1 + (std / _HALF_CONFIDENCE_STD) ** 2), 0.0)
    return torch.where(has_ray, depth, 0.0).numpy(), confidence.numpy(), std.contiguous().numpy()


def ray_depth(frames: Sequence[Frame]) -> Tensor:
    """z (N, H, W) of the frames' unit rays; 0 where the camera has none."""
    import torch

    return torch.nan_to_num(_rays(frames, 1)[:, 2])


def as_images(frames: Sequence[Frame]) -> Tensor:
    """(N, 3, H, W) in [0, 1]."""
    import torch

    # (N, H, W, 3) permuted is channels last already: no copy is made for the layout.
    return torch.from_numpy(np.stack([frame.rgb for frame in frames])).permute(0, 3, 1, 2).float().div_(255)


def _rays(frames: Sequence[Frame], stride: int) -> Tensor:
    """Unit rays (N, 3, H / stride, W / stride); one map, expanded, where all frames share the camera."""
    import torch

    cameras = [frame.camera.scaled(frame.width // stride, frame.height // stride) for frame in frames]
    distinct = cameras[:1] if all(c == cameras[0] for c in cameras) else cameras
    rays = torch.from_numpy(np.stack([camera.ray_map() for camera in distinct])).permute(0, 3, 1, 2)
    return rays.expand(len(frames), -1, -1, -1)


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
