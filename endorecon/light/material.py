"""Albedo and roughness of every vertex, once light, response and exposures are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from endorecon.light.evidence import BLACK, LEAST_COSINE, WHITE, Sight
from endorecon.light.solver import DOUBTED, MODEL_ERROR, NOISE
from endorecon.lighting import F0, Lamp, Lighting, barycentric, unshadowed
from rendering.mesh import Caster, Mesh
from rendering.physics import CameraResponse, Surface, radiance

if TYPE_CHECKING:
    from endorecon.light.doubts import Told
    from endorecon.light.estimate import Fits

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Indirect = Callable[[Float, Float], "NDArray[np.float32] | float"]
Progress = Callable[[str, int, int | None], None]

STRIDE = 2  # every so many pixels, in rows and columns, where that is
LEAST_MEASURED = 4.0  # pixels a vertex; else all pixels are used
FILLING = 60  # rounds in which vertices that nothing was measured at take the mean of their neighbours
SMOOTHNESS = 0.02  # weight of a neighbour's albedo beside all that was measured at a usual vertex
DARKEST, PALEST, PALE_SHARE = 0.002, 0.99, 0.98  # bounds of albedo, and the share of the surface that keeps them
NO_FILM_ROUGHNESS = 0.35


def painted(
    mesh: Mesh, normals: Float, sights: Sequence[Sight], fits: Fits, told: Told, unit: str, progress: Progress
) -> Lighting:  # fmt: skip
    """The finished lighting: the fit's light with the albedo of every vertex, measured in all pixels of the frames."""
    from endorecon.light.between import over_mesh

    best = fits.best
    lamp, log_gain = best.lamp(), best.log_gain
    roughness = float(np.exp(best.values["log_roughness"])) if fits.parts.film else NO_FILM_ROUGHNESS
    film = float(np.exp(best.values["log_film"])) if fits.parts.film else 0.0
    coarse = over_mesh(mesh, fits.evidence, np.exp(best.log_albedo)).astype(float)
    curve = CameraResponse.of(np.exp(best.values["log_gamma"]), best.values["shoulder"], best.values["vignette"])
    number = {int(index): f for f, index in enumerate(fits.evidence.frames)}
    caster, albedo = Caster(mesh), coarse.astype(float)
    corner, shares, values, weights = [], [], [], []
    pixels = sum(sight.frame.width * sight.frame.height for sight in sights) / STRIDE**2
    stride = STRIDE if pixels >= LEAST_MEASURED * len(mesh.vertices) else 1
    for done, sight in enumerate(sights):
        f = number[sight.frame.index]
        corners, part, value, w = _measured(
            caster, normals, sight, stride, lamp, curve, np.exp(log_gain[f]), roughness, film, albedo,
            _between(fits, sight.world_from_cam),
        )  # fmt: skip
        for kept, rows in zip((corner, shares, values, weights), (corners, part, value, w), strict=True):
            kept.append(rows.astype(np.int32 if rows is corners else np.float32))
        progress("albedo", done + 1, len(sights))
    rows = (np.concatenate(kept) for kept in (corner, shares, values, weights))
    albedo, weight = _fitted(mesh, *rows, coarse)
    return _lighting(mesh, fits, told, unit, albedo, weight, roughness, film)


def _between(fits: Fits, pose: Float) -> Indirect:
    """The light between surfaces in a view: points and normals (N, 3) to irradiance (N, 3)."""
    from endorecon.light.between import in_view, together

    lamp, scale, rng = fits.best.lamp(), float(np.exp(fits.best.values["log_scale"])), np.random.default_rng(0)

    def found(points: Float, normals: Float) -> NDArray[np.float32] | float:
        if fits.tracer is None or not len(points):
            return 0.0
        return together(in_view(fits.tracer, points, normals, lamp, pose, rng), scale, fits.tracer.walls)

    return found


def _measured(
    caster: Caster, normals: Float, sight: Sight, stride: int, lamp: Lamp, curve: CameraResponse, gain: Float,
    roughness: float, film: float, albedo: Float, indirect: Indirect,
) -> tuple[NDArray[np.int32], Float, Float, Float]:  # fmt: skip
    """Of a frame's pixels: corners (N, 3), shares (N, 3), measured albedo (N, 3) and its weight (N, 3)."""
    frame, pose = sight.frame, sight.world_from_cam
    camera = frame.camera
    assert camera is not None
    grid = np.zeros((frame.height, frame.width), bool)
    grid[::stride, ::stride] = True
    rays = camera.ray_map().reshape(-1, 3).astype(np.float64)
    at = np.flatnonzero((grid & frame.use_mask).ravel() & np.isfinite(rays[:, 0]))
    distance, face = caster.along(pose[:3, 3], rays[at] @ pose[:3, :3].T)
    at, distance, face = at[face >= 0], distance[face >= 0], face[face >= 0]
    points = pose[:3, 3] + distance[:, None] * (rays[at] @ pose[:3, :3].T)
    corners = caster.mesh.faces[face]
    part = barycentric(caster.mesh.vertices[corners].astype(np.float64), points)
    facing = np.einsum("ni,nij->nj", part, normals[corners])
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    bent, reached = indirect(points, facing), unshadowed(caster, points, pose, lamp)
    ones = np.ones((len(at), 3))
    rows = (torch.tensor(np.asarray(v, np.float32)) for v in (pose, points, facing, ones))
    surface = Surface.of_world(*rows, torch.full((len(at),), roughness), torch.full((len(at),), film), F0)
    diffuse, mirrored = (v.numpy().astype(float) for v in radiance(lamp.torch(), surface, torch.as_tensor(bent)))
    value = frame.rgb.reshape(-1, 3)[at].astype(np.float32) / 255
    uv = np.stack([(at % frame.width + 0.5) / frame.width, (at // frame.width + 0.5) / frame.height], 1) * 2 - 1
    place, g = torch.tensor(uv.astype(np.float32)), torch.tensor(gain.astype(np.float32))
    low, high = (curve.linear(torch.tensor(v), g, place).numpy().astype(float) for v in (value, value + 0.01))
    sigma = np.sqrt(NOISE**2 + (3 * MODEL_ERROR * value) ** 2) * (high - low) / 0.01
    measured = (low - mirrored) / np.maximum(diffuse, 1e-9)
    spread = np.sqrt(sigma**2 + (0.5 * mirrored) ** 2) / np.maximum(diffuse, 1e-9)
    expected = np.einsum("ni,nij->nj", part, albedo[corners])
    doubt = (measured - expected) / np.maximum(np.hypot(spread, 0.15 * expected), 1e-9)
    cosine = -(facing * (rays[at] @ pose[:3, :3].T)).sum(1)
    # Where one colour is black, or two are clipped, the others alone would give a tint that no tissue has.
    bright = value >= WHITE
    whole = (value > BLACK).all(1) & (bright.sum(1) <= 1) & ~frame.specular_mask.ravel()[at]
    good = ~bright & (whole & reached.all(1) & (cosine > LEAST_COSINE))[:, None]
    # The weight is relative: a dark vertex is measured as often as a pale one.
    certain = np.maximum(expected, DARKEST) / np.maximum(spread, 1e-9)
    weight = good * certain**2 / (1 + (doubt / DOUBTED) ** 2) * 1e-3
    return corners, part, measured, weight


def _fitted(
    mesh: Mesh, corners: NDArray[np.int32], shares: Float32, values: Float32, weights: Float32, coarse: Float
) -> tuple[Float, Float]:  # fmt: skip
    """Albedo (V, 3) whose interpolation over the faces is what was measured, by least squares; its neighbours' where
    little was. And how much was measured at each vertex, (V, 3).

    Args:
        corners, shares: (N, 3) of the measured pixels. values, weights: (N, 3), a column a colour.
        coarse: (V, 3), where nothing was measured far and wide.
    """
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import cg

    n, count = len(mesh.vertices), len(corners)
    place = csr_matrix((shares.ravel(), corners.ravel(), np.arange(0, 3 * count + 1, 3)), (count, n))
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    near = csr_matrix((np.ones(2 * len(edges)), np.concatenate([edges, edges[:, ::-1]]).T), (n, n))
    near.data[:] = 1
    degree = np.asarray(near.sum(1)).ravel()
    apart = diags(degree) - near
    seen = np.asarray(place.T @ weights, float)
    # One stiffness for all colours: it goes by what a usual vertex is seen with.
    unit = SMOOTHNESS * max(float(np.median(seen[seen > 0])) if (seen > 0).any() else 1.0, 1e-12)
    out = np.empty((n, 3))
    for c in range(3):
        w = weights[:, c]
        system = place.T @ diags(w) @ place + unit * apart + 1e-3 * unit * diags(np.ones(n))
        pull = place.T @ (w * values[:, c]) + 1e-3 * unit * coarse[:, c]
        known = seen[:, c] > 0
        mean = np.where(known, (place.T @ (w * values[:, c])) / np.maximum(seen[:, c], 1e-12), coarse[:, c])
        around = diags(1 / np.maximum(degree[~known], 1)) @ near[~known]
        for _ in range(FILLING):  # conjugate gradients would take long to carry anything far
            mean[~known] = around @ mean
        jacobi = diags(1 / system.diagonal())
        out[:, c], _ = cg(system, pull, mean, rtol=1e-4, maxiter=200, M=jacobi)
    return out, seen


def _lighting(
    mesh: Mesh, fits: Fits, told: Told, unit: str, albedo: Float, weight: Float, roughness: float, film: float
) -> Lighting:  # fmt: skip
    """Albedo brought to its absolute scale, exposure to albedo's."""
    best, observable, fixed, warnings = fits.best, dict(told.observable), dict(told.fixed), told.warnings
    often = weight.mean(1)
    often = often >= np.median(often[often > 0]) if often.any() else np.ones(len(often), bool)
    most = PALEST / max(float(np.quantile(albedo[often].max(1), PALE_SHARE)), 1e-9)
    scale = min(fits.scale, most)
    if most < 0.9 * fits.scale:
        observable.pop("albedo's scale", None)
        fixed["albedo's scale"] = f"{100 * PALE_SHARE:.0f} % of what is well measured has an albedo below 1"
        share = 100 * most / fits.scale
        warnings = (*warnings, f"albedo came out above 1, so its scale was brought down to {share:.0f} %")
    gain = np.exp(best.log_gain) / scale
    exposure = np.exp(np.log(gain).mean(1))
    balance = gain / exposure[:, None]
    # The mean is white by convention; what it differs from that is albedo.
    mean = balance.mean(0)
    balance, albedo = balance / mean, albedo * mean
    n, gamma = len(mesh.vertices), float(np.exp(best.values["log_gamma"]))
    figures = {
        "gamma": gamma, "gamma_std": gamma * best.std("log_gamma"),
        "falloff_joint": fits.joint.values["falloff"], "falloff_joint_std": fits.joint.std("falloff"),
        "gamma_joint": float(np.exp(fits.joint.values["log_gamma"])),
        "falloff_at_gamma_2.2": fits.falloff.values["falloff"], "falloff_at_gamma_2.2_std": fits.falloff.std("falloff"),
        "rms": fits.rms, "rms_evenly_lit": fits.flat_rms,
        "albedo_scale_std": fits.scale_std if np.isfinite(fits.scale_std) else -1.0,
        "roughness": roughness, "film": film * scale,
        "roughness_std": float(roughness * best.std("log_roughness")),
    }  # fmt: skip
    return Lighting(
        best.lamp(), gamma, best.values["shoulder"], best.values["vignette"],
        fits.evidence.frames, exposure, balance, np.clip(albedo * scale, DARKEST, PALEST).astype(np.float32),
        np.full(n, roughness, np.float32), np.full(n, film * scale, np.float32), weight.mean(1).astype(np.float32),
        3 if fits.tracer else 0, F0, unit, observable, fixed, figures, warnings,
    )  # fmt: skip
