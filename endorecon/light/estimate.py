"""From a run to its light: gather evidence, fit light and response, trace light between surfaces, paint the mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from endorecon.light.evidence import POINTS, Evidence, Sight, in_the_light
from endorecon.lighting import Lighting
from endorecon.run import Run
from rendering.mesh import Caster, Mesh, read_mesh
from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.light.model import Estimate, Parts
    from endorecon.light.shadows import Place
    from endorecon.light.solver import Data
    from rendering.bounce import Bounces

Float = NDArray[np.float64]
Progress = Callable[[str, int, int | None], None]

FRAMES = 30
"""Most frames that are looked at."""
SMOOTHING = 4
"""Rounds of averaging that a fused mesh's normals go through: marching cubes leave steps."""
LIGHT = ("log_gamma", "shoulder", "vignette", "exponent", "tilt_x", "tilt_y", "x", "y", "z")
ROUNDS = 2
"""How often light between surfaces is traced anew, from the albedo that was found with it."""
AGREEING = 1  # times that walls take the albedo that was found by their light, in each round
ROUGHNESSES = (0.15, 0.22, 0.32, 0.45)
FILM_GAIN = 10.0
"""How much the robust cost has to fall for a highlight to be believed, over how many observations err alike."""
PAIR_HALF, PAIR_GAIN, PAIR_SHARE = 0.06, 20.0, 0.1
"""Where a second source is looked for, in median distances; how much the cost has to fall for it to be believed, over
how many observations err alike; and by which share: one source in the middle says nearly as much."""


WITHOUT_BOUNCES = (
    "light between surfaces was left out: with it brightness would not fall as a lamp's does; what walls throw on each "
    "other is in their albedo"
)


@dataclass(frozen=True)
class Fits:
    """The fit by physics, and what else was tried to learn what can be told apart.

    Attributes:
        evidence: what was fitted.
        best: with the fall-off of physics.
        joint: fall-off and gamma both free.
        falloff: the fall-off free, gamma that of displays.
        scale: absolute albedo over that of `best`.
        scale_std: of its log; infinite where it is by convention.
        tracer: of light between surfaces; None where it is not in the model.
        rms: of `best`: relative difference of displayed values.
        flat_rms: the same of a scene that is evenly lit by something else.
        parts: what the model of `best` has.
        place: of the lamp by its shadows, at which it is held; None where there are too few.
    """

    evidence: Evidence
    best: Estimate
    joint: Estimate
    falloff: Estimate
    scale: float
    scale_std: float
    tracer: Bounces | None
    rms: float
    flat_rms: float
    parts: Parts
    place: Place | None = None


def estimate_lighting(
    run: Run, input: Path | None = None, bounces: bool = True, progress: Progress = lambda *_: None
) -> Lighting:
    """The light, the response and the material of a run; nothing is saved.

    Args:
        run: a run with mesh and trajectory.
        input: where the pictures are now; None: where they were.
        bounces: whether light that surfaces throw at each other is part of the model.
        progress: told a stage's name, how far it is and how far it goes.

    Raises:
        InputError: the run has no surface or pictures, or its pictures don't show a light that moves with the camera.
    """
    from endorecon.run_frames import run_clip, run_frames

    if run.mesh_path is None or not len(run.trajectory) or run.camera is None:
        raise InputError(f"the run in '{run.path}' has no mesh or no trajectory; reconstruct it to the end first")
    mesh = read_mesh(run.mesh_path)
    clip = run_clip(run, input)
    poses = frame_poses(run)
    chosen = [sorted(poses)[i] for i in _spread(len(poses), FRAMES)]
    sights = []
    for frame in run_frames(clip, chosen):
        sights.append(Sight(frame, poses[frame.index]))
        progress("reading", len(sights), len(chosen))
    return estimate(mesh, sights, shading_normals(mesh), run.unit, bounces, progress)


def estimate(
    mesh: Mesh, sights: Sequence[Sight], normals: Float | None = None, unit: str = "mm", bounces: bool = True,
    progress: Progress = lambda *_: None, points: int = POINTS,
) -> Lighting:  # fmt: skip
    """The same from a mesh and frames with poses.

    Args:
        normals: (V, 3) of the mesh's vertices, by default its own.
        points: of the surface that light and response are fitted to.
    """
    from endorecon.light.doubts import check_fits, check_sights
    from endorecon.light.evidence import gather
    from endorecon.light.exposures import measured_again
    from endorecon.light.material import painted

    check_sights(mesh, sights)
    normals = mesh.vertex_normals if normals is None else normals
    evidence = gather(mesh, normals, sights, points)
    seams = gather(mesh, normals, sights, points, seams=True)
    fits = fit_light(mesh, evidence, bounces, progress, seams)
    try:
        told = check_fits(fits)
    except InputError:
        if not bounces:
            raise
        fits = fit_light(mesh, evidence, False, progress, seams)
        told = check_fits(fits)
        told = replace(told, warnings=(*told.warnings, WITHOUT_BOUNCES))
    return measured_again(painted(mesh, normals, sights, fits, told, unit, progress), mesh, normals, sights)


def fit_light(
    mesh: Mesh, evidence: Evidence, bounces: bool = True, progress: Progress = lambda *_: None,
    seams: Evidence | None = None,
) -> Fits:  # fmt: skip
    """Fit light, response, exposures and the points' albedo to the evidence.

    Args:
        bounces: whether light between surfaces is part of the model.
        seams: observations beside jumps of depth: there shadows tell the lamp's place.
    """
    from endorecon.light import between, model, shadows, solver

    unit = float(np.median(evidence.distance))
    data = solver.Data.of(evidence, unit)
    at = begin(data, unit)
    flat, parts, free = flat_rms(data, at), model.Parts(), LIGHT
    walls, traced = between.Walls(mesh, evidence, at.log_albedo) if bounces else None, None
    # Dark colours have met few walls: they begin. Pale ones join once walls have an albedo; they count for less.
    dark = [int(c) for c in np.argsort(at.log_albedo.mean(0))]
    first = 2 if bounces else 3
    caster = Caster(mesh)
    bright, place = np.ones(len(evidence.point), bool), None
    web = None if walls is None or seams is None or not len(seams.point) else between.Web(walls.tracer, seams)

    def data(highlights: bool, count: int = 3) -> Data:
        all_of_it = solver.Data.of(evidence, unit, traced, highlights, dark[:count])
        return replace(all_of_it, use=all_of_it.use * bright[:, None])

    def placed(at: Estimate) -> Estimate:
        """With the lamp held where its shadows say, if there are any; and what lies in them left out."""
        nonlocal bright, place
        if seams is not None and len(seams.point):
            thrown = None if web is None else web.traced(at.lamp())
            seen = shadows.shadow_data(solver.Data.of(seams, unit, thrown), dark[:first])
            place = shadows.place_by_shadows(caster, seams, seen, at, parts, evidence.points) or place
        if place is not None:
            held = dict(zip("xyz", place.mean.tolist(), strict=True))
            at = replace(at.with_values(**held), free=tuple(n for n in at.free if n not in held))
        bright = in_the_light(caster, evidence, at.lamp())
        return at

    def agreed(at: Estimate, walls: between.Walls) -> Estimate:
        """The walls take the albedo that their light has brought out, and throw it anew."""
        nonlocal traced
        for _ in range(AGREEING):
            at = settled(data(parts.film), at, parts)
            walls.agree(data(parts.film).seen, at)
            walls.scale *= float(np.exp(at.values["log_scale"]))
            traced, at = walls.traced(at.lamp()), at.with_values(log_scale=0.0)
        return settled(data(parts.film), at, parts)

    for number in range(ROUNDS if bounces else 1):
        progress("light", number, ROUNDS)
        if walls is not None and number == 0:
            traced, free = walls.traced(at.lamp()), (*LIGHT, "log_scale")
        if number == 0:
            # The lamp's place first: a response that is fitted without it takes its part, and does not give it back.
            at = solver.fit(data(False, first), at, LIGHT[2:], steps=8)
            at = solver.fit(data(False, first), at, free)
            at, parts = with_film(data(True, first), at, free)
        else:
            at = solver.fit(data(parts.film).doubted(at).matched(at, parts), at, at.free, parts)
        at = placed(at)
        if walls is not None:
            at = agreed(at, walls)
    wet = parts.film
    seen = data(wet).doubted(at)
    at = solver.fit(seen.matched(at, parts), at, at.free, parts)
    at, parts = with_pair(seen.matched(at, parts), at, parts)
    seen = seen.matched(at, parts)
    at = solver.fit(seen, at, at.free, parts)
    progress("light", ROUNDS, ROUNDS)
    joint = solver.fit(seen, at, (*at.free, "falloff"), parts)
    known = at.with_values(log_gamma=model.UNKNOWNS["log_gamma"].mean)
    other = tuple(n for n in (*at.free, "falloff") if n != "log_gamma")
    falloff = solver.fit(seen, known, other, parts)
    if walls is None:
        scale, scale_std = between.usual_scale(np.exp(at.log_albedo)), np.inf
        at = settled(data(wet), at, parts)
    else:
        # What light between surfaces is wrong by shows in how much the dark colours alone differ.
        few = data(wet, first).matched(at, parts)
        at, joint = (v.against(solver.fit(few, v, v.free, parts)) for v in (at, joint))
        scale_std = float(np.hypot(at.std("log_scale"), solver.BETWEEN_ERROR))
        # The walls, and the light between them, have to agree in the end.
        at, scale = agreed(at, walls), walls.scale
    rms = solver.residual_rms(data(wet), at, parts)
    tracer = None if walls is None else walls.tracer
    return Fits(evidence, at, joint, falloff, scale, scale_std, tracer, rms, flat, parts, place)


def settled(data: Data, at: Estimate, parts: Parts) -> Estimate:
    """The estimate with albedos and gains of all colours fitted, light and response left as they are."""
    from endorecon.light import solver

    # A colour that was left out may be far off, where robust weights would count all of it as outliers.
    wide = solver.fit(replace(data, sigma=20 * data.sigma), at, (), parts, steps=8)
    found = solver.fit(data, wide, (), parts, steps=12)
    return replace(at, log_albedo=found.log_albedo, log_gain=found.log_gain)


def begin(data: Data, unit: float) -> Estimate:
    """Beliefs, with gains and albedos that fit them: log radiance less log irradiance, averaged in turn."""
    import torch

    from endorecon.light import model

    values = model.start()
    theta = torch.tensor([values[n] for n in model.NAMES], dtype=torch.float32)
    with torch.no_grad():
        bright, _ = model.lit(theta, data.seen, torch.ones(data.value.shape), model.Parts())
        linear = model.response(theta).linear(torch.tensor(data.value, dtype=torch.float32), 1.0, data.seen.uv)
        log = torch.log(linear.clamp_min(1e-5)) - torch.log(bright.clamp_min(1e-6))
    return model.Estimate(values, *averaged(data, log.numpy().astype(float)), unit)


def averaged(data: Data, log: Float) -> tuple[Float, Float]:
    """Log albedos (M, 3) and log gains (F, 3) whose sums fit log (K, 3), white gains of mean 0."""
    point, frame, use = data.seen.point.numpy(), data.seen.frame.numpy(), data.use
    points, frames = data.seen.counts
    gain, rho = np.zeros((frames, 3)), np.zeros((points, 3))

    def mean(of: Float, cell: NDArray[np.int64], count: int) -> Float:
        sums = [(np.bincount(cell, use[:, c] * of[:, c], count), np.bincount(cell, use[:, c], count)) for c in range(3)]
        # Where nothing was seen: as usual.
        usual = [total.sum() / max(weight.sum(), 1e-3) for total, weight in sums]
        told = zip(sums, usual, strict=True)
        return np.stack([np.where(w > 0, total / np.maximum(w, 1e-3), u) for (total, w), u in told], 1)

    for _ in range(12):
        rho = mean(log - gain[frame], point, points)
        gain = np.repeat(mean(log - rho[point], frame, frames).mean(1, keepdims=True), 3, 1)
        gain -= gain.mean()
    return rho, gain


def flat_rms(data: Data, at: Estimate) -> float:
    """`residual_rms` of a scene that something else lights: a point is as bright from everywhere, but for exposure."""
    import torch

    from endorecon.light import solver
    from endorecon.light.model import Parts

    ahead = torch.zeros_like(data.seen.points) + torch.tensor([0.0, 0.0, 1.0])
    still = replace(data, seen=replace(data.seen, points=ahead, normals=-ahead))
    known = at.with_values(exponent=0.0, shoulder=0.0, vignette=0.0)
    log = np.exp(at.values["log_gamma"]) * np.log(data.value.clip(1e-3, 1)) + np.log(np.pi)
    rho, gain = averaged(data, log)
    found = solver.fit(still, replace(known, log_albedo=rho, log_gain=gain), (), steps=8)
    return solver.residual_rms(still, found, Parts())


def with_film(data: Data, at: Estimate, free: tuple[str, ...]) -> tuple[Estimate, Parts]:
    """The estimate with the highlight in the model, begun at the best of several roughnesses, and the parts of the
    model: the film if it shows. A film far from its mirror direction shows as little more than a tilt of the light, so
    the two models are compared when both have been fitted."""
    from endorecon.light import model, solver

    dry, wet = model.Parts(), model.Parts(film=True)
    plain = solver.fit(data, at, free, dry)
    data = data.matched(plain, dry)
    plain = solver.fit(data, plain, free, dry)
    begun = [plain.with_values(log_roughness=np.log(r)) for r in ROUGHNESSES]
    tried = [solver.fit(data, b, ("log_film",), wet, steps=8) for b in begun]
    best = tried[int(np.argmin([solver.cost(data, t, wet) for t in tried]))]
    found = solver.fit(data, best, (*free, *model.FILM), wet)
    if solver.cost(data, found, wet) > solver.cost(data, plain, dry) - FILM_GAIN * data.alike:
        return plain, dry
    return found, wet


def with_pair(data: Data, at: Estimate, parts: Parts) -> tuple[Estimate, Parts]:
    """The estimate with two sources to both sides of a middle, if that explains the clip clearly better than one."""
    from endorecon.light import model, solver

    both = replace(parts, pair=True)
    begun = [at.with_values(half_x=x, half_y=y) for x, y in ((PAIR_HALF, 0.0), (0.0, PAIR_HALF))]
    tried = [solver.fit(data, b, model.PAIR, both, steps=8) for b in begun]
    best = tried[int(np.argmin([solver.cost(data, t, both) for t in tried]))]
    found = solver.fit(data, best, (*at.free, *model.PAIR), both)
    one = solver.cost(data, at, parts)
    if solver.cost(data, found, both) > min(one - PAIR_GAIN * data.alike, one * (1 - PAIR_SHARE)):
        return at, parts
    return found, both


def shading_normals(mesh: Mesh) -> Float:
    """(V, 3): the normals by which light on a run's mesh is estimated and has to be shown; its own have the fusion's
    noise."""
    return smooth_normals(mesh, SMOOTHING)


def smooth_normals(mesh: Mesh, rounds: int) -> Float:
    """(V, 3): the vertices' normals, averaged with their neighbours' so many times."""
    from scipy.sparse import coo_matrix, diags

    normals, n = mesh.vertex_normals, len(mesh.vertices)
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    near = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), (n, n)).tocsr()
    near.data[:] = 1
    step = diags(1 / (np.asarray(near.sum(1)).ravel() + 1)) @ (near + diags(np.ones(n)))
    for _ in range(rounds):
        normals = step @ normals
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return normals


def frame_poses(run: Run) -> dict[int, Float]:
    """Poses of the frames in the trajectory, by index."""
    times = run.trajectory.times_ns
    found = {}
    for row in run.rows:
        at = int(np.argmin(np.abs(times - row.time_ns)))
        if row.status == "tracked" and abs(int(times[at]) - row.time_ns) < 1_000_000:
            found[row.index] = run.trajectory.world_from_cam[at]
    return found


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.zeros(0, int)
