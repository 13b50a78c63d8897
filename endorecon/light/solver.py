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
from torch import Tensor

from endorecon.light.evidence import BLACK, WHITE, Evidence
from endorecon.light.model import NAMES, UNKNOWNS, Between, Estimate, Parts, Seen, lit, response

Float = NDArray[np.float64]

NOISE, MODEL_ERROR = 0.008, 0.02  # standard deviation of a displayed value: of the sensor, and as a share of the value
ALIKE = 20.0
"""How many observations err alike: a point's relief wherever it is seen, traced light wherever it is carried to.
Beliefs count against the data by this."""
BALANCE_STD = 0.03  # of the log white balance about the clip's, frame to frame
ALBEDO_STD = 2.0  # of the log albedo about its mean
DOUBTED = 3.0  # standard deviations from which on a value counts less and less
PLAIN = Parts()
STEPS, SETTLED = 25, 1e-4
LONGEST = 0.7  # of a step, in any unknown


@dataclass(frozen=True)
class Data:
    """What is fitted.

    Attributes:
        seen: the evidence's geometry.
        value: (K, 3) displayed.
        use: (K, 3) float, 1 for a value that counts.
    """

    seen: Seen
    value: Tensor
    use: Tensor

    @staticmethod
    def of(
        evidence: Evidence, unit: float, between: Between | None = None, highlights: bool = False,
        channels: Sequence[int] = (0, 1, 2),
    ) -> Data:  # fmt: skip
        """All that is neither black nor clipped; without `highlights`, what an image's highlight covers is left out.

        Only the given channels count.
        """
        value = torch.tensor(evidence.value)
        use = ((value > BLACK) & (value < WHITE)).float()
        if highlights:
            use = (value > BLACK).float()
        else:
            use[torch.tensor(evidence.highlight)] = 0
        use = use * torch.eye(3)[list(channels)].sum(0)
        return Data(Seen.of(evidence, unit, between), value, use)


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
        gain = (now - after) / max(now, 1e-12)
        at, now, damping = trial, after, max(damping * 0.2, 1e-7)
        system = _system(data, at, free, parts)
        if gain < SETTLED:
            break
    return replace(at, free=free, covariance=_covariance(system, free))


def predict(data: Data, at: Estimate, parts: Parts) -> Float:
    """(K, 3) displayed values, not clipped."""
    with torch.no_grad():
        theta, rho, gain = _tensors(at)
        shown = _shown(theta, data.seen, rho[data.seen.point], gain[data.seen.frame], parts)
    return shown.numpy().astype(float)


def cost(data: Data, at: Estimate, parts: Parts) -> float:
    """The robust cost of the data, without priors."""
    shown, value = torch.tensor(predict(data, at, parts)), data.value.double()
    return float((data.use * _robust(value, shown)[0]).sum())


def residual_rms(data: Data, at: Estimate, parts: Parts) -> float:
    """Median absolute difference (times 1.4826) between displayed and predicted, over the displayed value."""
    use = data.use.numpy() > 0
    value = data.value.numpy()
    return float(1.4826 * np.median(np.abs(predict(data, at, parts)[use] - value[use]) / np.maximum(value[use], 0.05)))


def _tensors(at: Estimate) -> tuple[Tensor, Tensor, Tensor]:
    theta = torch.tensor([at.values[n] for n in NAMES], dtype=torch.float32)
    return theta, torch.tensor(at.log_albedo, dtype=torch.float32), torch.tensor(at.log_gain, dtype=torch.float32)


def _shown(theta: Tensor, seen: Seen, rho: Tensor, gain: Tensor, parts: Parts) -> Tensor:
    diffuse, mirrored = lit(theta, seen, torch.exp(rho), parts)
    return response(theta).displayed(diffuse + mirrored, torch.exp(gain), seen.uv, clip=False)


@dataclass(frozen=True)
class System:
    """Normal equations over [free unknowns, log gains (frames x 3)], albedos eliminated."""

    matrix: Float
    gradient: Float
    each: Float  # (M, P + 3 F): each point's own gradient, its albedo having followed
    back: Float  # (M * 3, P + 3 F): sum of w a J of each albedo
    own: Float  # (M * 3,): sum of w a a
    pull: Float  # (M * 3,): sum of w a r


def _objective(data: Data, at: Estimate, free: tuple[str, ...], parts: Parts) -> float:
    """Robust cost and what beliefs cost."""
    frames = len(at.log_gain)
    unused = np.zeros((len(free) + 3 * frames,) * 2), np.zeros(len(free) + 3 * frames)
    spread = float(((at.log_albedo - at.log_albedo.mean()) ** 2).sum())
    return cost(data, at, parts) + 0.5 * spread * ALBEDO_STD**-2 + _priors(at, free, frames, *unused)


def _system(data: Data, at: Estimate, free: tuple[str, ...], parts: Parts) -> System:
    theta, rho, gain = _tensors(at)
    seen, frames, points = data.seen, len(at.log_gain), len(at.log_albedo)
    rho_k, gain_k = rho[seen.point].requires_grad_(), gain[seen.frame].requires_grad_()
    shown = _shown(theta, seen, rho_k, gain_k, parts)
    by_albedo, by_gain = torch.autograd.grad(shown.sum(), (rho_k, gain_k))
    columns = []
    for name in free:
        tangent = torch.zeros_like(theta)
        tangent[NAMES.index(name)] = 1
        _, slope = torch.func.jvp(
            lambda t: _shown(t, seen, rho_k.detach(), gain_k.detach(), parts), (theta,), (tangent,)
        )  # fmt: skip
        columns.append(slope)
    with torch.no_grad():
        _, r, sigma = _robust(data.value, shown)
        weight = data.use / (1 + r * r / DOUBTED**2)
        a, g = (x / sigma for x in (by_albedo, by_gain))
        j = torch.stack(columns, -1) / sigma[..., None] if columns else torch.zeros(*shown.shape, 0)
    return _reduced(
        at, free, frames, points, *(x.detach().numpy().astype(np.float64) for x in (r, weight, a, g, j)),
        seen.point.numpy(), seen.frame.numpy(),
    )  # fmt: skip


def _robust(value: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cauchy's cost, the standardised residual and its standard deviation, (K, 3) each."""
    sigma = torch.sqrt(NOISE**2 + (MODEL_ERROR * value) ** 2)
    # A clipped value says that there was at least this much light.
    r = torch.where((value >= WHITE) & (shown > value), torch.zeros_like(shown), value - shown) / sigma
    return 0.5 * DOUBTED**2 * torch.log1p(r * r / DOUBTED**2), r, sigma


def _reduced(
    at: Estimate, free: tuple[str, ...], frames: int, points: int, r: Float, w: Float, a: Float, g: Float, j: Float,
    point: NDArray[np.int64], frame: NDArray[np.int64],
) -> System:  # fmt: skip
    """Sum the rows (K, 3) up and eliminate the albedos."""
    p, n = len(free), len(free) + 3 * frames
    cell = (point[:, None] * 3 + np.arange(3)).ravel()
    gained = (frame[:, None] * 3 + np.arange(3)).ravel()
    r, w, a, g, j = r.ravel(), w.ravel(), a.ravel(), g.ravel(), j.reshape(-1, p) if p else np.zeros((r.size, 0))
    matrix, gradient = np.zeros((n, n)), np.zeros(n)
    matrix[:p, :p] = (j * w[:, None]).T @ j
    gradient[:p] = j.T @ (w * r)
    matrix[np.arange(p, n), np.arange(p, n)] = np.bincount(gained, w * g * g, 3 * frames)
    gradient[p:] = np.bincount(gained, w * g * r, 3 * frames)
    back = np.zeros((3 * points, n))
    for k in range(p):
        matrix[k, p:] = matrix[p:, k] = np.bincount(gained, w * g * j[:, k], 3 * frames)
        back[:, k] = np.bincount(cell, w * a * j[:, k], 3 * points)
    np.add.at(back, (cell, p + gained), w * a * g)
    middle = at.log_albedo.mean()
    own = np.bincount(cell, w * a * a, 3 * points) + ALBEDO_STD**-2
    gap = middle - at.log_albedo.ravel()
    pull = np.bincount(cell, w * a * r, 3 * points) + gap * ALBEDO_STD**-2
    each = np.zeros((points, n))
    for k in range(p):
        each[:, k] = np.bincount(cell // 3, w * r * j[:, k], points)
    np.add.at(each, (cell // 3, p + gained), w * r * g)
    each -= (back * (pull / own)[:, None]).reshape(points, 3, n).sum(1)
    matrix -= back.T @ (back / own[:, None])
    gradient -= back.T @ (pull / own)
    _priors(at, free, frames, matrix, gradient)
    return System(matrix, gradient, each, back, own, pull)


def _priors(at: Estimate, free: tuple[str, ...], frames: int, matrix: Float, gradient: Float) -> float:
    """Add what is believed beforehand of unknowns and gains; returns its cost."""
    cost, p = 0.0, len(free)
    for k, name in enumerate(free):
        u = UNKNOWNS[name]
        gap, weight = u.mean - at.values[name], ALIKE * u.std**-2
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
