"""A sequence to be evaluated: what was predicted, beside what is true, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.evaluate.depth import DepthRows, Scaling, rows_of_scalings
from endorecon.evaluate.images import unit
from endorecon.evaluate.protocol import DepthPairs, Reconstruction, at_source_pixels, check_map, frame_pairs
from endorecon.evaluate.surface import Seen, SurfaceDistances, seen_surface, surface_distances
from endorecon.evaluate.trajectory import align_poses, matched
from rendering.mesh import Mesh, read_mesh
from video_io.datasets import Truth
from video_io.errors import InputError
from video_io.trajectory import Similarity, Trajectory
from video_io.view import View

Depth = NDArray[np.float32]
Mask = NDArray[np.bool_]
# What is known to be wrong with the truth of some data sets.
_VERSIONS = {
    "scared": "SCARED as released: poses between key frames are the robot's (SCARED-C, 2605.16628, corrects them)",
    "hamlyn": "Hamlyn rectified: depth by stereo matching (LIBELAS), not measured",
}


@dataclass(frozen=True)
class DepthFrame:
    """A frame that has both depths.

    Attributes:
        number: of the frame in the truth.
        truth: (H, W) true z-depth, 0 where there is none.
        depth, valid: (h, w) the prediction at its own size.
        view: which part of the truth's image the prediction shows.
    """

    number: int
    truth: Depth
    depth: Depth
    valid: Mask
    view: View

    def prediction(self) -> tuple[Depth, Mask]:
        """The prediction at the pixels of the truth, by bilinear interpolation of depth."""
        return at_source_pixels(self.depth, self.valid, self.view, f"frame {self.number}: ")

    def prediction_by_disparity(self) -> tuple[Depth, Mask]:
        """The same by bilinear interpolation of 1 / depth, as the code of Monodepth2's family does."""
        view = self.view
        check_map(self.depth, self.valid, view, f"frame {self.number}: ")
        if view.crop == (0, 0, view.source_width, view.source_height) and self.valid.all():
            disparity = cv2.resize(1 / self.depth.astype(np.float32), (view.source_width, view.source_height))
            return 1 / disparity, np.ones(disparity.shape, bool)
        inverse = np.where(self.valid, 1 / np.where(self.valid, self.depth, 1), 0).astype(np.float32)
        disparity, good = at_source_pixels(inverse, self.valid, view)
        return np.where(good, 1 / np.where(good, disparity, 1), 0).astype(np.float32), good


@dataclass(frozen=True)
class ImagePair:
    """A rendered image beside the true one, (H, W, 3) in [0, 1], and the mask (H, W) of what is to be left out."""

    number: int
    image: NDArray[np.float64]
    truth: NDArray[np.float64]
    masked: Mask


@dataclass(frozen=True)
class Case:
    """One sequence.

    Attributes:
        run: what was predicted.
        truth: what is true.
        images: rendered images by frame of the truth; empty where there are none.
        masks: images by frame of the truth, white where a pixel does not count; empty where all count.
        ignore: (F,) faces of the true mesh that do not count; None: all count.
        context: how many frames the model was given, in words.
        version: of the truth, in words.
    """

    run: Reconstruction
    truth: Truth
    images: dict[int, Path]
    masks: dict[int, Path]
    ignore: Mask | None = None
    context: str = "not stated"
    version: str = ""

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def unit(self) -> str:
        """Of lengths, as a suffix: `mm`, or nothing."""
        return "mm" if self.truth.unit == "mm" else ""

    @property
    def truth_version(self) -> str:
        """What kind of truth this is."""
        return self.version or _VERSIONS.get(self.truth.layout, self.truth.layout)

    def has(self, need: str) -> str:
        """Empty where both sides have `depth`, `path`, `surface` or `images`; else the sentence what is missing."""
        run, truth = self.run, self.truth
        if need == "depth":
            return _missing(getattr(run, "has_depth", True), truth.read_depth is not None, "depth maps", "depth")
        if need == "path":
            return _missing(len(run.trajectory) > 0, truth.trajectory is not None, "poses", "poses")
        if need == "images":
            return _missing(bool(self.images), self.has_images, "rendered images (--images)", "images")
        if truth.mesh_path is None or truth.camera is None or truth.trajectory is None:
            return "the truth has no mesh with poses and camera"
        if self.mesh is None or not len(self.mesh.faces):
            return "the run has no surface"
        placed = len(run.trajectory) > 0 or getattr(run, "aligned", False)
        return "" if placed else "there are no poses to align the surface by"

    # -- depth ----------------------------------------------------------------------------------------------------

    def depth_frames(self) -> Iterator[DepthFrame]:
        """The frames that both sides have.

        Raises:
            InputError: nothing in common, maps of another size than expected, or NaN; the sentence names the frame.
        """
        view = self.run.view
        for index, number in frame_pairs(self.run, self.truth):
            truth = self.truth.depth(number)
            assert truth is not None
            if np.isnan(truth).any():
                raise InputError(
                    f"frame {number}: the true depth of {self.truth.name} holds NaN; expected 0 where there is none"
                )
            if truth.shape != (view.source_height, view.source_width):
                raise InputError(
                    f"the run is of images of {view.source_width} x {view.source_height}, the truth {self.truth.name} "
                    f"has depth of {truth.shape[1]} x {truth.shape[0]}; expected the truth of the same clip at the "
                    "same size"
                )
            depth, confidence = self.run.depth(index)
            yield DepthFrame(number, truth, depth, confidence > 0, view)

    @cached_property
    def depth_rows(self) -> dict[Scaling, DepthRows]:
        """The figures of each frame, by what is given away."""
        return rows_of_scalings(DepthPairs(self.run, self.truth))

    @cached_property
    def depth_numbers(self) -> NDArray[np.int64]:
        """The truth's numbers of the frames of `depth_rows`."""
        return np.array([number for _, number in frame_pairs(self.run, self.truth)])[self.depth_rows["clip"].frames]

    # -- path -----------------------------------------------------------------------------------------------------

    def paths(self) -> tuple[Trajectory, Trajectory]:
        """Predicted and true poses of the same moments.

        Raises:
            InputError: a pose that is not finite, or fewer than three that belong together.
        """
        assert self.truth.trajectory is not None
        for name, path in (("run", self.run.trajectory), ("truth", self.truth.trajectory)):
            bad = np.flatnonzero(~np.isfinite(path.world_from_cam).all((1, 2)))
            if len(bad):
                raise InputError(
                    f"pose {bad[0]} (of {len(path)}) of the {name} holds NaN; a frame without a pose must be left out"
                )
        ours, theirs = matched(self.run.trajectory, self.truth.trajectory)
        if len(ours) < 3:
            raise InputError(
                f"{len(ours)} poses of the run match a true pose in time within half a frame; expected 3 or more: "
                "is this the truth of the same clip, at the same frame rate?"
            )
        return ours, theirs

    # -- surface --------------------------------------------------------------------------------------------------

    @cached_property
    def mesh(self) -> Mesh | None:
        """The predicted surface, in the run's world."""
        return self.run.mesh()

    @cached_property
    def true_mesh(self) -> Mesh:
        assert self.truth.mesh_path
        return read_mesh(self.truth.mesh_path)

    @cached_property
    def fit(self) -> Similarity:
        """From the run's world to the truth's: by positions and orientations of the cameras."""
        if getattr(self.run, "aligned", False) and not len(self.run.trajectory):
            return Similarity(1.0, np.eye(3), np.zeros(3))
        return align_poses(*self.paths())

    @cached_property
    def seen(self) -> Seen:
        """The part of the true surface that the cameras had in view."""
        assert self.truth.camera and self.truth.trajectory
        theirs = self.paths()[1] if len(self.run.trajectory) else self.truth.trajectory
        return seen_surface(self.true_mesh, self.truth.camera, theirs, ignore=self.ignore)

    @cached_property
    def aligned_mesh(self) -> Mesh:
        assert self.mesh is not None
        return self.mesh.transformed(self.fit.matrix, self.fit.scale)

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Between the aligned surface and the true one, both ways."""
        return surface_distances(
            self.aligned_mesh, self.true_mesh, self.seen.points, seen_faces=self.seen.faces, ignore=self.ignore
        )

    # -- images ---------------------------------------------------------------------------------------------------

    def image_pairs(self) -> Iterator[ImagePair]:
        """The rendered images, in order, each beside the true one of the frame.

        Raises:
            InputError: an image that can't be read, or of another size than the true one.
        """
        for number, path in sorted(self.images.items()):
            image, truth = read_rgb(path), self.true_image(number)
            if image.shape != truth.shape:
                raise InputError(
                    f"the rendered image '{path}' is {image.shape[1]} x {image.shape[0]}, the true one "
                    f"{truth.shape[1]} x {truth.shape[0]}; expected renderings at the size of the truth"
                )
            yield ImagePair(number, unit(image, str(path)), unit(truth), self._masked(number, image.shape[:2]))

    @property
    def has_masks(self) -> bool:
        """Whether some pixels of the images do not count: by masks that were given, or the data set's own."""
        return bool(self.masks) or self.truth.read_mask is not None

    def _masked(self, number: int, shape: tuple[int, ...]) -> Mask:
        """The pixels (H, W) of a frame that do not count."""
        if self.masks:
            if number not in self.masks:
                raise InputError(f"frame {number} has a rendered image but no mask; expected one for each frame")
            return read_mask(self.masks[number], shape)
        if not self.has_masks:
            return np.zeros(shape, bool)
        tissue = self.truth.mask(number)
        if tissue.shape != shape:
            raise InputError(
                f"frame {number}: the mask of {self.truth.name} is {tissue.shape[1]} x {tissue.shape[0]}, the image "
                f"{shape[1]} x {shape[0]}; expected the same size"
            )
        return ~tissue

    @property
    def has_images(self) -> bool:
        """Whether the truth has pictures, as files or in a video."""
        return bool(self.truth.image_paths) or self.truth.footage is not None

    def true_image(self, number: int) -> NDArray[np.uint8]:
        """The true picture of a frame, (H, W, 3) uint8 RGB."""
        if self.truth.image_paths:
            return read_rgb(self.truth.image_paths[number])
        return self.truth.image(number)  # type: ignore[attr-defined]


def _missing(ours: bool, theirs: bool, what: str, what_true: str) -> str:
    if not theirs:
        return f"the truth has no {what_true}"
    return "" if ours else f"there are no predicted {what}"


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image (H, W, 3), uint8 RGB.

    Raises:
        InputError: it can't be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"image '{path}' can't be read; expected an intact picture; write it again")
    return np.ascontiguousarray(image[..., ::-1])


def read_mask(path: Path, shape: tuple[int, ...]) -> Mask:
    """A mask (H, W), True where the image is white (above the middle).

    Raises:
        InputError: it can't be read, or has another size.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape != shape:
        size = "can't be read" if image is None else f"is {image.shape[1]} x {image.shape[0]}"
        raise InputError(f"mask '{path}' {size}; expected a picture of {shape[1]} x {shape[0]}")
    return image > 127
