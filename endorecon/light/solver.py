"""Gauss-Newton over light, response, exposures and all albedos at once.

The residuals are differences of displayed values, because these carry the noise: in linear or log radiance, a fit could
shrink every residual by shrinking gamma. Each albedo meets only its own point's observations, so albedos are eliminated
(Schur complement) and a dense system of a hundred or two unknowns stays. Weights are those of Cauchy's function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from endorecon.light.evidence import BLACK, WHITE, Evidence
from endorecon.light.model import NAMES, UNKNOWNS, Between, Estimate, Parts, Seen, lit, response, summed

Float = NDArray[np.float64]

NOISE, MODEL_ERROR = 0.006, 0.012  # standard deviation of a displayed value: of the sensor, and as a share of the value
PLACED_PX = 0.3  # of a place in the image: where the picture changes within it, values are less certain
ALIKE = 20.0
"""How many observations err alike before the clip has told: a point's relief wherever it is seen, traced light
wherever it is carried to. Beliefs count against the data by this."""
MOST_ALIKE = 40.0
BETWEEN_ERROR = 0.15
"""Share of the light between surfaces that may be wrong. By few paths, and carried to other places, it is wrong by some
0.05, but alike over whole walls."""
QUIETEST, LOUDEST = 0.3, 3.0  # bounds of the noise that is found, over what is expected
BALANCE_STD = 0.03  # of the log white balance about the clip's, frame to frame
ALBEDO_STD = 30.0  # of the log albedo about its mean: so wide that no smaller gamma pays by making albedos more alike
DOUBTED = 3.0  # standard deviations from which on a value counts less and less
PLAIN = Parts()
STEPS, SETTLED = 40, 0.02  # of the cost, over how many observations err alike; half is a standard deviation
LONGEST = 0.7  # of a step, in any unknown


@dataclass(frozen=True)
class Data:
    """What is fitted.

    Attributes:
        seen: the evidence's geometry.
        value: (K, 3) float64, displayed.
        use: (K, 3) float64, 1 for a value that counts.
        sigma: (K, 3) float64, standard deviation of a value.
        alike: how many observations err alike.
    """

    seen: Seen
    value: Float
    use: Float
    sigma: Float
    alike: float = ALIKE

    @staticmethod
    def of(
        evidence: Evidence, unit: float, between: Between | None = None, highlights: bool = False,
        channels: Sequence[int] = (0, 1, 2),
    ) -> Data:  # fmt: skip
        """All that is neither black nor clipped; without `highlights`, what an image's highlight covers is left out.

        With them, clipped values count as at least so bright, except at the rim of what is clipped: there the picture
        mixes values with some that are not known. Only the given channels count.
        """
        value = evidence.value.astype(float)
        use = (value > BLACK) & ~evidence.rim
        use &= True if highlights else (value < WHITE) & ~evidence.highlight[:, None]
        use &= np.isin(np.arange(3), list(channels))
        sigma = np.sqrt(NOISE**2 + (MODEL_ERROR * value) ** 2 + (PLACED_PX * evidence.slope) ** 2)
        return Data(Seen.of(evidence, unit, between), value, use.astype(float), sigma)

    def doubted(self, at: Estimate) -> Data:
        """With less trust in values to which light between surfaces adds much."""
        seen, theta = self.seen, torch.tensor([at.values[n] for n in NAMES], dtype=torch.float32)
        if seen.indirect is None:
            return self
        bent = summed(seen.indirect, torch.exp(theta[NAMES.index("log_scale")]), seen.walls)
        straight = lit(theta, replace(seen, indirect=None), torch.ones_like(bent), PLAIN)[0] * np.pi
        share = (bent / (bent + straight).clamp_min(1e-9)).numpy().astype(float)
        error = BETWEEN_ERROR * share * self.value / np.exp(at.values["log_gamma"])
        return replace(self, sigma=np.hypot(self.sigma, error))

    def matched(self, at: Estimate, parts: Parts) -> Data:
        """With the noise that this estimate leaves, and with how much of it is common to a point's observations.

        The latter is the design effect: the variance of the free unknowns with errors that are alike at a point
        (clustered), over that with independent ones.
        """
        used = self.use > 0
        r = _residuals(self, predict(self, at, parts))[used]
        spare = max(1 - (len(np.unique(self.seen.point)) * used.any(0).sum()) / max(used.sum(), 1), 0.1)
        scale = float(np.clip(1.4826 * np.median(np.abs(r)) / np.sqrt(spare), QUIETEST, LOUDEST))
        quiet = replace(self, sigma=self.sigma * scale)
        system, p = _system(quiet, at, at.free, parts), len(at.free)
        inverse = np.linalg.pinv(system.bare, hermitian=True)[:p]
        influence = inverse @ system.each.T
        if not p:
            return quiet
        # What the clip says nothing of has no variance to compare.
        naive, clustered = inverse[:, :p], influence @ influence.T
        told = max(np.linalg.matrix_rank(naive, hermitian=True), 1)
        effect = np.trace(np.linalg.pinv(naive, hermitian=True) @ clustered) / told
        return replace(quiet, alike=float(np.clip(effect, 1, MOST_ALIKE)))


def fit(data: Data, begin: Estimate, free: tuple[str, ...], parts: Parts = PLAIN, steps: int = STEPS) -> Estimate:
    """The estimate that explains the data best, with the covariance of its free unknowns.

    Args:
        begin: where to start; unknowns that are not free stay as they are.
        free: names of the unknowns to find.
        parts: what is part of the model.
    """
    at, damping = begin, 1e-3
    now = _objective(data, at, free, parts)
    system = _system(data, at, free, parts)
    for _ in range(steps):
        trial = _stepped(at, system, free, damping)
        after = _objective(data, trial, free, parts)
        if after > now:
            damping *= 8
            if damping > 1e4:
                break
            continue
        gain = (now - after) / data.alike
        at, now, damping = trial, after, max(damping * 0.2, 1e-7)
        system = _system(data, at, free, parts)
        if gain < SETTLED:
            break
    return replace(at, free=free, covariance=_covariance(system, free))


def predict(data: Data, at: Estimate, parts: Parts) -> Float:
    """(K, 3) displayed values, not clipped."""
    return _linearised(data, at, (), parts, slopes=False)[0]


def cost(data: Data, at: Estimate, parts: Parts) -> float:
    """The robust cost of the data, without priors."""
    r = _residuals(data, predict(data, at, parts))
    return float((data.use * 0.5 * DOUBTED**2 * np.log1p(r * r / DOUBTED**2)).sum())


def residual_rms(data: Data, at: Estimate, parts: Parts) -> float:
    """Median absolute difference (times 1.4826) between displayed and predicted, over the displayed value."""
    use = data.use > 0
    apart = np.abs(predict(data, at, parts)[use] - data.value[use]) / np.maximum(data.value[use], 0.05)
    return float(1.4826 * np.median(apart))


def reference(data: Data, at: Estimate, parts: Parts) -> Float:
    """`predict` by `rendering.physics`, slow: what the kernel is held against."""
    theta = torch.tensor([at.values[n] for n in NAMES], dtype=torch.float64)
    rho, gain = torch.tensor(at.log_albedo), torch.tensor(at.log_gain)
    seen = data.seen.double()
    diffuse, mirrored = lit(theta, seen, torch.exp(rho)[seen.point], parts)
    shown = response(theta).displayed(diffuse + mirrored, torch.exp(gain)[seen.frame], seen.uv, clip=False)
    return shown.numpy()


def _linearised(
    data: Data, at: Estimate, free: tuple[str, ...], parts: Parts, slopes: bool = True
) -> tuple[Float, Float, Float, Float]:
    """Displayed values (K, 3), not clipped, and their derivatives by log albedo, log gain (K, 3), free (K, 3, P)."""
    from endorecon.light import kernel

    seen, k = data.seen, len(data.value)
    t = np.array([at.values[n] for n in NAMES])
    indirect = by_scale = np.zeros((0, 3))
    if seen.indirect is not None:
        # The scale's derivative by a central difference: a short sum of powers.
        h, log = 1e-3, t[kernel.LOG_SCALE]
        low, indirect, high = (
            summed(seen.indirect, torch.tensor(np.exp(log + d)), seen.walls).numpy().astype(float) for d in (-h, 0, h)
        )
        by_scale = (high - low) / (2 * h)
    shape = (k, 3) if slopes else (0, 3)
    shown, by_albedo, by_gain = np.empty((k, 3)), np.zeros(shape), np.zeros(shape)
    by_free = np.zeros((*shape, len(free)))
    kernel.predict(
        t, 2 if parts.pair else 1, parts.film, np.array([NAMES.index(n) for n in free], np.int64),
        seen.points.numpy(), seen.normals.numpy(), seen.uv.numpy(), indirect, by_scale, seen.point.numpy(),
        seen.frame.numpy(), at.log_albedo, at.log_gain, shown, by_albedo, by_gain, by_free,
    )  # fmt: skip
    return shown, by_albedo, by_gain, by_free


def _residuals(data: Data, shown: Float) -> Float:
    """Displayed less predicted in standard deviations; a clipped value says that there was at least this much light."""
    r = (data.value - shown) / data.sigma
    r[(data.value >= WHITE) & (shown > data.value)] = 0
    return r


@dataclass(frozen=True)
class System:
    """Normal equations over [free unknowns, log gains (frames x 3)], albedos eliminated."""

    matrix: Float
    gradient: Float
    bare: Float  # the matrix without what is believed beforehand
    each: Float  # (M, P + 3 F): each point's own gradient, its albedo having followed
    back: Float  # (M * 3, P + 3 F): sum of w a J of each albedo
    own: Float  # (M * 3,): sum of w a a
    pull: Float  # (M * 3,): sum of w a r


def _objective(data: Data, at: Estimate, free: tuple[str, ...], parts: Parts) -> float:
    """Robust cost and what beliefs cost."""
    frames = len(at.log_gain)
    unused = np.zeros((len(free) + 3 * frames,) * 2), np.zeros(len(free) + 3 * frames)
    spread = float(((at.log_albedo - at.log_albedo.mean()) ** 2).sum())
    return cost(data, at, parts) + 0.5 * spread * ALBEDO_STD**-2 + _priors(data, at, free, *unused)


def _system(data: Data, at: Estimate, free: tuple[str, ...], parts: Parts) -> System:
    """The robust normal equations about an estimate, albedos eliminated."""
    from endorecon.light import kernel

    shown, by_albedo, by_gain, by_free = _linearised(data, at, free, parts)
    r = _residuals(data, shown)
    weight = data.use / (1 + r * r / DOUBTED**2)
    a, g, j = by_albedo / data.sigma, by_gain / data.sigma, by_free / data.sigma[..., None]
    frames, points = len(at.log_gain), len(at.log_albedo)
    n = len(free) + 3 * frames
    matrix, gradient, back, each = np.zeros((n, n)), np.zeros(n), np.zeros((3 * points, n)), np.zeros((points, n))
    # An albedo that nothing is said of stays where it is: colours may be left out and come back.
    said = np.stack([np.bincount(data.seen.point.numpy(), data.use[:, c], points) for c in range(3)], 1) > 0
    pull = (said * (at.log_albedo.mean() - at.log_albedo)).ravel() * ALBEDO_STD**-2
    own = np.full(3 * points, ALBEDO_STD**-2)
    kernel.summed_up(
        r, weight, a, g, j, data.seen.point.numpy(), data.seen.frame.numpy(), matrix, gradient, back, own, pull, each
    )
    matrix = np.triu(matrix) + np.triu(matrix, 1).T
    each -= (back * (pull / own)[:, None]).reshape(points, 3, n).sum(1)
    matrix -= back.T @ (back / own[:, None])
    gradient -= back.T @ (pull / own)
    bare = matrix.copy()
    _priors(data, at, free, matrix, gradient)
    return System(matrix, gradient, bare, each, back, own, pull)


def _priors(data: Data, at: Estimate, free: tuple[str, ...], matrix: Float, gradient: Float) -> float:
    """Add what is believed beforehand of unknowns and gains; returns its cost."""
    cost, p, frames = 0.0, len(free), len(at.log_gain)
    for k, name in enumerate(free):
        u = UNKNOWNS[name]
        gap, weight = u.mean - at.values[name], data.alike * u.std**-2
        matrix[k, k] += weight
        gradient[k] += gap * weight
        cost += 0.5 * weight * gap**2
    # White balance: a frame's three gains differ by the clip's mean colour, which is white by convention.
    spread = (np.eye(3) - 1 / 3) * BALANCE_STD**-2
    for f in range(frames):
        block = slice(p + 3 * f, p + 3 * f + 3)
        matrix[block, block] += spread
        gradient[block] -= spread @ at.log_gain[f]
        cost += 0.5 * float(at.log_gain[f] @ spread @ at.log_gain[f])
    # The scale of all gains is the albedos'.
    mean = np.full(3 * frames, 1 / (3 * frames))
    matrix[p:, p:] += 1e4 * np.outer(mean, mean)
    gradient[p:] -= 1e4 * mean * at.log_gain.mean()
    return cost + 0.5e4 * float(at.log_gain.mean()) ** 2


def _stepped(at: Estimate, system: System, free: tuple[str, ...], damping: float) -> Estimate:
    """The damped step; an unknown that would leave its bounds stops there, and the others follow."""
    p = len(free)
    damped = system.matrix + damping * np.diag(np.diag(system.matrix)) + 1e-9 * np.eye(len(system.matrix))
    room = [(UNKNOWNS[n].least - at.values[n], UNKNOWNS[n].most - at.values[n]) for n in free]
    least, most = (np.clip(np.array([r[k] for r in room]), -LONGEST, LONGEST) for k in (0, 1))
    step, stopped = np.zeros(len(damped)), np.zeros(len(damped), bool)
    for _ in range(4):
        go = ~stopped
        pull = system.gradient[go] - damped[np.ix_(go, stopped)] @ step[stopped]
        step[go] = np.linalg.solve(damped[np.ix_(go, go)], pull)
        out = np.zeros(len(damped), bool)
        out[:p] = go[:p] & ((step[:p] < least) | (step[:p] > most))
        if not out.any():
            break
        step[:p] = np.clip(step[:p], least, most)
        stopped |= out
    values = {**at.values, **{n: at.values[n] + float(step[k]) for k, n in enumerate(free)}}
    change = (system.pull - system.back @ step) / system.own
    return replace(
        at, values=values, log_gain=at.log_gain + step[p:].reshape(-1, 3),
        log_albedo=at.log_albedo + np.clip(change, -1, 1).reshape(-1, 3),
    )  # fmt: skip


def _covariance(system: System, free: tuple[str, ...]) -> Float:
    """Of the free unknowns, cluster-robust over the points: relief and texture err alike wherever a point is seen."""
    inverse = np.linalg.pinv(system.matrix, hermitian=True)[: len(free)]
    influence = inverse @ system.each.T
    return influence @ influence.T
