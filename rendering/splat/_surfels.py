"""Surfels on the CPU: `_surfel_project`, `_bins`, `_surfel_composite`, and the gradient of each. As in `cpu`."""

from __future__ import annotations

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

Floats = NDArray[np.float32]


def render(job: Job) -> Layers:
    """What one camera sees (`rendering.splat.Backend`)."""
    from rendering.splat import Layers

    color, alpha, depth, normals, median, distortion, radii = _function().apply(job, *job.tensors())
    return Layers(color, alpha, depth, median, normals, radii, distortion)


@dataclass
class _State:
    """What the gradient needs of the forward pass: arrays as the kernels know them."""

    inputs: tuple[Floats, ...]
    view: NDArray[np.float64]
    k: NDArray[np.float64]
    degree: int  # -1 for plain colours
    rows: Floats
    counts: NDArray[np.int32]
    firsts: NDArray[np.int64]
    radii: NDArray[np.int32]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    listed: NDArray[np.int32]
    slots: NDArray[np.int32]
    images: tuple[Floats, ...]  # colour, alpha, depth, normals, median, distortion
    middle: Floats


def _forward(job: Job, arrays: tuple[Floats, ...], view: NDArray, k: NDArray) -> _State:
    """Project, sort and composite."""
    from rendering.splat._bins import by_depth, deal
    from rendering.splat._surfel_composite import HEAD, TILE, forward_kernel
    from rendering.splat._surfel_project import project

    (means, quats, scales, opacities, colors), workers, w, h = arrays, threads(), job.width, job.height
    degree, colours = (-1, colors.shape[1]) if job.sh_degree is None else (job.sh_degree, 3)
    plain, harmonics = (colors, nothing(3)) if degree < 0 else (nothing(2), colors)
    n = len(means)
    rows, depths = np.empty(n * (HEAD + colours + 3), np.float32), np.empty(n, np.float32)
    radii, counts = np.empty((n, 2), np.int32), np.empty(n, np.int32)
    parts = share(
        lambda i, of: project(
            n * i // of, n * (i + 1) // of, means, quats, scales, opacities, plain, harmonics, degree, view, k, w, h,
            job.near, job.far, colours, rows, depths, radii, counts, np.empty(8 * (n // of) + 1024, np.int32),
        ),
        workers,
    )  # fmt: skip
    tiles = np.concatenate([tiles[:number] for number, tiles in parts])
    firsts, number = np.cumsum(counts, dtype=np.int64) - counts, -(-w // TILE) * -(-h // TILE)
    starts, ends = np.empty(number + 1, np.int64), np.empty(number, np.int64)
    listed, slots = np.empty(len(tiles), np.int32), np.empty(len(tiles), np.int32)
    deal(by_depth(depths, counts), counts, firsts, tiles, starts, listed, slots)
    order = np.argsort(starts[:-1] - starts[1:], kind="stable")
    images = tuple(np.empty(size, np.float32) for size in ((h, w, colours), (h, w), (h, w), (h, w, 3), (h, w), (h, w)))
    composite, middle = forward_kernel(colours), np.empty((h, w), np.float32)
    share(lambda i, of: composite(i, of, order, starts, listed, rows, w, h, *images, middle, ends), workers)
    return _State(
        arrays, view, k, degree, rows, counts, firsts, radii, order, starts, ends, listed, slots, images, middle
    )


def _backward(job: Job, s: _State, g_images: tuple[Floats, ...]) -> tuple[NDArray, ...]:
    """Gradients by means, quats, scales, opacities, colours, viewmat, and by the centres in pixels."""
    from rendering.splat._surfel_composite import GRADIENT_HEAD, backward_kernel
    from rendering.splat._surfel_project import project_gradient
    from rendering.splat.cpu import scratch

    workers, w, h, colours = threads(), job.width, job.height, s.images[0].shape[2]
    kernel = backward_kernel(colours)
    means, quats, scales, _, colors = s.inputs
    n, harmonic = len(means), s.degree >= 0
    gradients = [np.zeros_like(a) for a in s.inputs]
    g_plain, g_harmonics = (nothing(2), gradients[4]) if harmonic else (gradients[4], nothing(3))
    harmonics = colors if harmonic else nothing(3)
    centres, views = np.zeros((n, 2), np.float32), np.zeros((workers, 4, 4))
    with scratch(len(s.listed) * (GRADIENT_HEAD + colours + 3)) as sums:
        share(
            lambda i, of: kernel(
                i, of, s.order, s.starts, s.ends, s.listed, s.slots, s.rows, w, h, (*s.images, s.middle), g_images, sums
            ),
            workers,
        )  # fmt: skip
        share(
            lambda i, of: project_gradient(
                n * i // of, n * (i + 1) // of, means, quats, scales, harmonics, s.degree, s.view, s.k, colours, s.rows,
                s.counts, s.firsts, sums, *gradients[:4], g_plain, g_harmonics, centres, views[i],
            ),
            workers,
        )  # fmt: skip
    return (*gradients, views.sum(0), centres)


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
            radii = torch.from_numpy(state.radii)
            ctx.mark_non_differentiable(radii)
            # The state keeps the arrays for the gradient: whoever changes an image in place changes that too.
            return (*(torch.from_numpy(m).to(means2d.dtype) for m in state.images), radii)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            given = tuple(
                np.zeros_like(image) if g is None else array(g)
                for image, g in zip(ctx.state.images, gradients[:6], strict=True)
            )
            *back, centres = [
                torch.from_numpy(g).to(kind)
                for g, kind in zip(_backward(ctx.job, ctx.state, given), ctx.kinds, strict=True)
            ]
            return None, centres, *back, None

    return Rasterise
