"""Poses with a scale of their own, moved so that relative ones hold: what closes a loop.

A path that is followed from key frame to key frame drifts in its scale too, so that each key frame is a similarity
(Strasdat et al., Scale drift-aware large scale monocular SLAM, RSS 2010). Gauss-Newton on the sparse normal equations;
measurements that contradict the others lose their say (Cauchy's weight).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Seven residuals of one standard deviation each have a length of 2.6; a relation missed by more loses its say.
ROBUST = 3.0
GRADUATION = (1000.0, 30.0, 10.0)


@dataclass(frozen=True)
class Relations:
    """E measured relative similarities: key frame `second` as the first one sees it.

    Attributes:
        first, second: (E,) numbers of key frames.
        rotation, translation: (E, 3, 3) and (E, 3), first_from_second in the unit of the first.
        log_scale: (E,) log of the second's unit over the first's.
        std: (E, 3) standard deviations of the turn (rad), the translation (in the unit of the first), the log scale.
        doubtful: (E,) bool, those that may be wrong altogether.
    """

    first: Int
    second: Int
    rotation: Float
    translation: Float
    log_scale: Float
    std: Float
    doubtful: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, which: NDArray[np.bool_]) -> Relations:
        return Relations(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Similarities:
    """K key frames: x_world = centre + exp(log_scale) rotation x_camera; (K, 3, 3), (K, 3), (K,)."""

    rotation: Float
    centre: Float
    log_scale: Float

    def stepped(self, step: Float) -> Similarities:
        """Moved by (K, 7): a turn on the right, a shift of the centre, a change of the log scale."""
        from scipy.spatial.transform import Rotation

        turned = self.rotation @ Rotation.from_rotvec(step[:, :3]).as_matrix()
        return Similarities(turned, self.centre + step[:, 3:6], self.log_scale + step[:, 6])


def residuals(at: Similarities, relations: Relations) -> Float:
    """(E, 7) by how many standard deviations each relation is missed: turn, translation, log scale."""
    from scipy.spatial.transform import Rotation

    i, j, r = relations.first, relations.second, relations
    between = at.rotation[i].transpose(0, 2, 1) @ at.rotation[j]
    turn = Rotation.from_matrix(r.rotation.transpose(0, 2, 1) @ between).as_rotvec()
    shift = _seen(at, r) - r.translation
    scale = at.log_scale[j] - at.log_scale[i] - r.log_scale
    return np.concatenate([turn, shift, scale[:, None]], 1) / _deviations(r)


def optimise(start: Similarities, relations: Relations) -> Similarities:
    """Move all key frames but the first so that the relations hold as well as they can.

    Doubtful relations are believed at first, and lose their say step by step as far as they contradict the others
    (graduated non-convexity, Blake and Zisserman, 1987): after a long drift the true ones are missed by far.
    Key frames to which no relation leads from the first one only drift together.
    """
    for robust in (*GRADUATION, ROBUST):
        start = _descend(start, relations, robust)
    return start


def _descend(at: Similarities, relations: Relations, robust: float, iterations: int = 30) -> Similarities:
    """Levenberg-Marquardt."""
    from scipy.sparse.linalg import spsolve

    best, damping = cost(at, relations, robust), 1e-6
    for _ in range(iterations):
        jacobian, missed = _linearise(at, relations, robust)
        normal = jacobian.T @ jacobian
        normal.setdiag(normal.diagonal() * (1 + damping) + 1e-12)
        step = np.zeros((len(at.centre), 7))
        step[1:] = -spsolve(normal.tocsc(), jacobian.T @ missed).reshape(-1, 7)
        moved = at.stepped(step)
        trial = cost(moved, relations, robust)
        if trial < best:
            gain, at, best, damping = (best - trial) / best, moved, trial, max(damping / 10, 1e-9)
            if gain < 1e-6:
                break
        else:
            damping *= 10
            if damping > 1e3:
                break
    return at


def cost(at: Similarities, relations: Relations, robust: float = ROBUST) -> float:
    """What `optimise` makes small: squares of the residuals' lengths, Cauchy's logarithm of the doubtful ones."""
    squared = (residuals(at, relations) ** 2).sum(1)
    return float(np.where(relations.doubtful, robust**2 * np.log1p(squared / robust**2), squared).sum())


def _seen(at: Similarities, r: Relations) -> Float:
    """(E, 3) the second's centre in the first's frame and unit."""
    away = at.centre[r.second] - at.centre[r.first]
    turned = np.einsum("eji,ej->ei", at.rotation[r.first], away)
    return turned * np.exp(-at.log_scale[r.first])[:, None]


def _deviations(r: Relations) -> Float:
    return np.repeat(r.std, (3, 3, 1), axis=1)


def _linearise(at: Similarities, r: Relations, robust: float):  # type: ignore[no-untyped-def]
    """The weighted Jacobian (7 E, 7 (K - 1)), sparse, and the weighted residuals (7 E,); the first key frame stays."""
    from scipy.sparse import csr_matrix

    missed = residuals(at, r)
    squared = (missed**2).sum(1)
    weight = np.sqrt(np.where(r.doubtful, 1 / (1 + squared / robust**2), 1.0))
    size, i, j = len(r), r.first, r.second
    on_first, on_second = np.zeros((size, 7, 7)), np.zeros((size, 7, 7))
    inverse = np.exp(-at.log_scale[i])[:, None, None]
    # The turn's own derivative is the identity but for terms of the order of the residual.
    on_second[:, :3, :3] = np.eye(3)
    on_first[:, :3, :3] = -(at.rotation[j].transpose(0, 2, 1) @ at.rotation[i])
    seen = _seen(at, r)
    on_first[:, 3:6, :3] = _cross(seen)
    on_second[:, 3:6, 3:6] = inverse * at.rotation[i].transpose(0, 2, 1)
    on_first[:, 3:6, 3:6] = -on_second[:, 3:6, 3:6]
    on_first[:, 3:6, 6] = -seen
    on_first[:, 6, 6], on_second[:, 6, 6] = -1, 1
    scaled = (weight[:, None] / _deviations(r))[:, :, None]
    blocks = np.stack([on_first * scaled, on_second * scaled], 1)
    row = np.broadcast_to(7 * np.arange(size)[:, None, None, None] + np.arange(7)[:, None], blocks.shape)
    column = np.broadcast_to(7 * np.stack([i, j], 1)[:, :, None, None] + np.arange(7) - 7, blocks.shape)
    free = column >= 0
    matrix = csr_matrix((blocks[free], (row[free], column[free])), (7 * size, 7 * (len(at.centre) - 1)))
    return matrix, (missed * weight[:, None]).ravel()


def _cross(v: Float) -> Float:
    """(E, 3, 3) matrices of the cross product with (E, 3) on the left."""
    x, y, z = v.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
