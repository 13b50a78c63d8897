"""The rasteriser on the CPU, compiled by numba: projection, sorting by tile, compositing, and the gradient of each.

`_project` and `_project_gradient`, `_bins` and `_composite` are its stages. The sort takes 2 % of an iteration, so the
order of an earlier one is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rendering.splat._arrays import array, nothing
from rendering.splat._workers import share, threads

if TYPE_CHECKING:
    from torch import Tensor

    from rendering.splat import Job, Layers

ABOUT = "numba, all cores"
Floats = NDArray[np.float32]


def check() -> None:
    """It runs everywhere."""


def render(job: Job) -> Layers:
    """What one camera sees (`rendering.splat.Backend`)."""
    from rendering.splat import Layers, _surfels

    if job.surfels:
        return _surfels.render(job)
    return Layers(*_function().apply(job, *job.tensors()))


@dataclass(frozen=True)
class _Plan:
    """What kinds of features there are, and where: depth follows the colours, then come the normals."""

    degree: int
    colours: int
    normals: bool

    @property
    def features(self) -> int:
        return self.colours + (4 if self.normals else 1)

    @property
    def layout(self) -> tuple[int, int, int, int]:
        """Features, colours, the place of depth, and of the normals or -1."""
        return self.features, self.colours, self.colours, self.colours + 1 if self.normals else -1


@dataclass
class _State:
    """What the gradient needs of the forward pass: arrays as the kernels know them."""

    plan: _Plan
    inputs: tuple[Floats, ...]
    view: NDArray[np.float64]
    k: NDArray[np.float64]
    rows: Floats
    counts: NDArray[np.int32]
    firsts: NDArray[np.int64]
    depths: Floats
    radii: NDArray[np.int32]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    listed: NDArray[np.int32]
    slots: NDArray[np.int32]
    images: tuple[Floats, Floats, Floats, Floats]  # colour, alpha, depth, normals
    middle: NDArray[np.int32]


def _project(job: Job, plan: _Plan, arrays: tuple[Floats, ...], view: NDArray, k: NDArray) -> tuple[NDArray, ...]:
    """Rows, tile counts, depths and radii of the Gaussians, and the tiles they reach one after the other."""
    from rendering.splat._composite import HEAD
    from rendering.splat._project import project

    means, quats, scales, opacities, colors = arrays
    n, workers = len(means), threads()
    plain, harmonics = (colors, nothing(3)) if plan.degree < 0 else (nothing(2), colors)
    rows, depths = np.empty(n * (HEAD + plan.features), np.float32), np.empty(n, np.float32)
    radii, counts = np.empty((n, 2), np.int32), np.empty(n, np.int32)
    parts = share(
        lambda i, of: project(
            n * i // of, n * (i + 1) // of, means, quats, scales, opacities, plain, harmonics, plan.degree, view, k,
            job.is_fisheye, job.width, job.height, job.near, job.far, job.blur, *plan.layout, rows, depths, radii,
            counts, np.empty(8 * (n // of) + 1024, np.int32),
        ),
        workers,
    )  # fmt: skip
    return rows, counts, depths, radii, np.concatenate([tiles[:number] for number, tiles in parts])


def _forward(job: Job, arrays: tuple[Floats, ...], view: NDArray, k: NDArray) -> _State:
    """Project, sort and composite."""
    from rendering.splat._bins import by_depth, deal
    from rendering.splat._composite import TILE, forward_kernel

    degree, colours = (-1, arrays[4].shape[1]) if job.sh_degree is None else (job.sh_degree, 3)
    plan, w, h = _Plan(degree, colours, job.normals), job.width, job.height
    rows, counts, depths, radii, tiles = _project(job, plan, arrays, view, k)
    firsts = np.cumsum(counts, dtype=np.int64) - counts
    number = -(-w // TILE) * -(-h // TILE)
    starts, ends = np.empty(number + 1, np.int64), np.empty(number, np.int64)
    listed, slots = np.empty(len(tiles), np.int32), np.empty(len(tiles), np.int32)
    deal(by_depth(depths, counts), counts, firsts, tiles, starts, listed, slots)
    # The fullest tiles first, so that no thread is left with one at the end.
    order = np.argsort(starts[:-1] - starts[1:], kind="stable")
    color, alpha, depth = (np.empty(size, np.float32) for size in ((h, w, colours), (h, w), (h, w)))
    normal = np.empty((h, w, 3) if job.normals else (0, 0, 3), np.float32)
    middle = np.empty((h, w) if job.median else (0, 0), np.int32)
    composite, images = forward_kernel(colours, job.normals, job.median), (color, alpha, depth, normal)
    share(
        lambda i, of: composite(i, of, order, starts, listed, rows, w, h, *images, middle, ends),
        threads(),
    )
    return _State(
        plan, arrays, view, k, rows, counts, firsts, depths, radii, order, starts, ends, listed, slots, images, middle
    )


def _backward(job: Job, s: _State, g_images: tuple[Floats, ...], g_depths: Floats) -> tuple[NDArray, ...]:
    """Gradients by means, quats, scales, opacities, colours, viewmat, and by the centres in pixels."""
    from rendering.splat._composite import GRADIENT_HEAD, backward_kernel
    from rendering.splat._project_gradient import project_gradient

    workers, plan, w, h = threads(), s.plan, job.width, job.height
    kernel = backward_kernel(plan.colours, plan.normals)
    means, quats, scales, _, colors = s.inputs
    n, harmonic = len(means), plan.degree >= 0
    gradients = [np.zeros_like(a) for a in s.inputs]
    g_plain, g_harmonics = (nothing(2), gradients[4]) if harmonic else (gradients[4], nothing(3))
    harmonics = colors if harmonic else nothing(3)
    centres, views = np.zeros((n, 2), np.float32), np.zeros((workers, 4, 4))
    with scratch(len(s.listed) * (GRADIENT_HEAD + plan.features)) as sums:
        share(
            lambda i, of: kernel(
                i, of, s.order, s.starts, s.ends, s.listed, s.slots, s.rows, w, h, *s.images, *g_images, sums
            ),
            workers,
        )  # fmt: skip
        share(
            lambda i, of: project_gradient(
                n * i // of, n * (i + 1) // of, means, quats, scales, harmonics, plan.degree, s.view, s.k,
                job.is_fisheye, w, h, job.blur, *plan.layout, s.rows, s.counts, s.firsts, sums, g_depths,
                *gradients[:4], g_plain, g_harmonics, centres, views[i],
            ),
            workers,
        )  # fmt: skip
    return (*gradients, views.sum(0), centres)


_kept: list[Floats] = []


@contextmanager
def scratch(size: int) -> Iterator[Floats]:
    """Room for a gradient's sums; kept from one pass to the next, since fresh pages cost as much as the sums."""
    room = _kept.pop() if _kept else np.empty(0, np.float32)
    if room.size < size:
        room = np.empty(size + size // 4, np.float32)
    try:
        yield room
    finally:
        _kept.append(room)


@lru_cache
def _function() -> Any:
    """The torch.autograd.Function, made on first use since torch is heavy."""
    import torch

    class Rasterise(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, job: Job, means2d: Tensor, *tensors: Tensor) -> Any:
            *arrays, view, k = tensors
            state = _forward(job, tuple(array(a) for a in arrays), array(view, np.float64), array(k, np.float64))
            ctx.job, ctx.state, ctx.kinds = job, state, [t.dtype for t in (*arrays, view, means2d)]
            ctx.set_materialize_grads(False)
            median = None
            if job.median:
                median = np.append(state.depths, np.float32(0))[state.middle]  # -1, for none, is the last
            color, alpha, depth, normal = state.images
            maps = [color, alpha, depth, median, normal if job.normals else None]
            radii = torch.from_numpy(state.radii)
            ctx.mark_non_differentiable(radii)
            # The state keeps the arrays for the gradient: whoever changes an image in place changes that too.
            return (*(None if m is None else torch.from_numpy(m).to(means2d.dtype) for m in maps), radii)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            job, state = ctx.job, ctx.state
            color, alpha, depth, median, normal = (None if g is None else array(g) for g in gradients[:5])
            given = [
                np.zeros_like(image) if g is None else g
                for image, g in zip(state.images, (color, alpha, depth, normal), strict=True)
            ]
            g_depths = np.zeros(0 if median is None else len(state.counts), np.float32)
            if median is not None:
                seen = state.middle >= 0
                np.add.at(g_depths, state.middle[seen], median[seen])
            *gradients, view, centres = _backward(job, state, tuple(given), g_depths)
            back = [torch.from_numpy(g).to(kind) for g, kind in zip((*gradients, view, centres), ctx.kinds)]
            return None, back[-1], *back[:-1], None

    return Rasterise
