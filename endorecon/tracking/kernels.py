"""The inner loops of pose estimation and joint refinement, compiled.

Every residual is a unit ray times the camera's Jacobian J_o where it was seen, so that it is in pixels there (to first
order), whatever the central camera. A landmark is the unit ray `b` in its host frame h and a log distance l along it.
In frame t,

    x_t = R_t^T (R_h b + e^-l (c_h - c_t)),        r = J_o x_t / |x_t|,

with world_from_cam (R, c), the observed ray o, and J_o = d pixel / d ray (2 x 3, J_o o = 0). Rotations move by
R exp([phi]), centres by c + dc. Landmarks are eliminated one by one (Schur complement; Triggs et al., Bundle
Adjustment - A Modern Synthesis, 2000).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def _residual(rot_h, c_h, rot_t, c_t, b, inverse, o, jacobian, x, res):  # type: ignore[no-untyped-def]
    """Fill x (direction in the target frame, not normalised) and res (2,), return |x|; negative if behind."""
    w0 = rot_h[0, 0] * b[0] + rot_h[0, 1] * b[1] + rot_h[0, 2] * b[2] + inverse * (c_h[0] - c_t[0])
    w1 = rot_h[1, 0] * b[0] + rot_h[1, 1] * b[1] + rot_h[1, 2] * b[2] + inverse * (c_h[1] - c_t[1])
    w2 = rot_h[2, 0] * b[0] + rot_h[2, 1] * b[1] + rot_h[2, 2] * b[2] + inverse * (c_h[2] - c_t[2])
    for k in range(3):
        x[k] = rot_t[0, k] * w0 + rot_t[1, k] * w1 + rot_t[2, k] * w2
    norm = np.sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]) + 1e-12
    for k in range(2):
        res[k] = (jacobian[k, 0] * x[0] + jacobian[k, 1] * x[1] + jacobian[k, 2] * x[2]) / norm
    if o[0] * x[0] + o[1] * x[1] + o[2] * x[2] < 0:
        return -norm
    return norm


@njit(cache=True, inline="always")
def _cauchy(squared, scale):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + squared / (scale * scale))


@njit(nogil=True, cache=True)
def cost(rotation, centre, host, ray, log_d, start, frame, seen, jacobian, robust_px,
         prior, prior_weight, alpha, beta, residual_px):  # type: ignore[no-untyped-def]
    """Robust cost of all observations and depth priors; fills residual_px (O,) with each observation's length."""
    x, res = np.empty(3), np.empty(2)
    total = 0.0
    for i in range(len(host)):
        h = host[i]
        inverse = np.exp(-log_d[i])
        for k in range(start[i], start[i + 1]):
            t = frame[k]
            if t == h:
                residual_px[k] = 0.0
                continue
            norm = _residual(rotation[h], centre[h], rotation[t], centre[t], ray[i], inverse, seen[k], jacobian[k],
                             x, res)
            squared = res[0] * res[0] + res[1] * res[1]
            if norm < 0:
                squared = max(squared, 100.0 * robust_px * robust_px)
            residual_px[k] = np.sqrt(squared)
            total += robust_px * robust_px * np.log1p(squared / (robust_px * robust_px))
        if prior_weight[i] > 0:
            e = log_d[i] - alpha[h] - np.log(max(np.exp(prior[i]) + beta[h], 1e-3 * np.exp(prior[i])))
            total += np.log1p(prior_weight[i] * e * e)
    return total


@njit(cache=True, inline="always")
def _add(band, i, j, value):  # type: ignore[no-untyped-def]
    if i >= j:
        band[i - j, j] += value
    else:
        band[j - i, i] += value


@njit(nogil=True, cache=True)
def _jacobians(rot_h, rot_t, between, b, b_slope, inverse, jacobian, slope, x, norm, res, j_h, j_t, j_l, j_f):  # type: ignore[no-untyped-def]
    """Derivatives of the two residuals: host pose j_h (2, 6), target pose j_t (2, 6), log distance, log focal length.

    `between` is c_h - c_t; x, norm and res come from `_residual`; `slope` is the Jacobian's change with the
    focal length.
    """
    d, g, q = np.empty(3), np.empty(3), np.empty(3)
    for a in range(2):
        # d res / d x, through the normalisation; then with respect to the world vector; then in the host frame
        for m in range(3):
            d[m] = (jacobian[a, m] - res[a] * x[m] / norm) / norm
        for m in range(3):
            g[m] = d[0] * rot_t[m, 0] + d[1] * rot_t[m, 1] + d[2] * rot_t[m, 2]
        for m in range(3):
            q[m] = g[0] * rot_h[0, m] + g[1] * rot_h[1, m] + g[2] * rot_h[2, m]
        # a turn of the target moves x by [x] phi, one of the host moves b by -[b] phi
        for m in range(3):
            n, p = (m + 1) % 3, (m + 2) % 3
            j_t[a, m] = d[n] * x[p] - d[p] * x[n]
            j_h[a, m] = q[p] * b[n] - q[n] * b[p]
        j_l[a], j_f[a] = 0.0, 0.0
        for m in range(3):
            j_t[a, 3 + m] = -inverse * g[m]
            j_h[a, 3 + m] = inverse * g[m]
            j_l[a] -= inverse * g[m] * between[m]
            j_f[a] += q[m] * b_slope[m] + slope[a, m] * x[m] / norm


@njit(nogil=True, cache=True)
def _gather(weight, res, j_h, j_t, j_l, j_f, hp, tp, base, at_t, band, gradient, border, corner, coupling, coupling_at):  # type: ignore[no-untyped-def]
    """Add one observation to the normal equations; returns its part of the landmark's Hessian and gradient."""
    h_ll, g_l = 0.0, 0.0
    for a in range(2):
        wr = weight * res[a]
        h_ll += weight * j_l[a] * j_l[a]
        g_l += wr * j_l[a]
        corner[0] += weight * j_f[a] * j_f[a]
        corner[1] += wr * j_f[a]
        coupling[base + 8] += weight * j_l[a] * j_f[a]
        for m in range(6):
            if hp >= 0:
                v = weight * j_h[a, m]
                gradient[hp + m] += v * res[a]
                border[hp + m] += v * j_f[a]
                coupling[base + m] += v * j_l[a]
                for q in range(m + 1):
                    band[m - q, hp + q] += v * j_h[a, q]
            if tp >= 0:
                v = weight * j_t[a, m]
                gradient[tp + m] += v * res[a]
                border[tp + m] += v * j_f[a]
                coupling[at_t + m] += v * j_l[a]
                coupling_at[at_t + m] = tp + m
                for q in range(m + 1):
                    band[m - q, tp + q] += v * j_t[a, q]
                if hp >= 0:
                    for q in range(6):
                        _add(band, tp + m, hp + q, v * j_h[a, q])
    return h_ll, g_l


@njit(nogil=True, cache=True)
def _gather_prior(log_d, prior, prior_weight, alpha, beta, dp, base, band, gradient, coupling):  # type: ignore[no-untyped-def]
    """Add one landmark's depth prior; returns its part of the landmark's Hessian and gradient."""
    scaled = np.exp(prior)
    shifted = max(scaled + beta, 1e-3 * scaled)
    e = log_d - alpha - np.log(shifted)
    weight = prior_weight / (1.0 + prior_weight * e * e)
    if dp >= 0:
        db = -1.0 / shifted
        band[0, dp] += weight
        band[0, dp + 1] += weight * db * db
        band[1, dp] += -weight * db
        gradient[dp] -= weight * e
        gradient[dp + 1] += weight * e * db
        coupling[base + 6] = -weight
        coupling[base + 7] = weight * db
    return weight, weight * e


@njit(nogil=True, cache=True)
def _eliminate(base, n, h_ll, g_l, band, gradient, border, corner, coupling, coupling_at):  # type: ignore[no-untyped-def]
    """Take one landmark out of the normal equations (Schur complement)."""
    for m in range(n):
        pm, cm = coupling_at[base + m], coupling[base + m]
        if pm == -1 or cm == 0.0:
            continue
        factor = cm / h_ll
        if pm == -2:
            corner[0] -= factor * cm
            corner[1] -= factor * g_l
            continue
        gradient[pm] -= factor * g_l
        border[pm] -= factor * coupling[base + 8]
        for q in range(n):
            pq = coupling_at[base + q]
            if pq >= 0 and pq <= pm:
                band[pm - pq, pq] -= factor * coupling[base + q]


@njit(nogil=True, cache=True)
def linearise(rotation, centre, host, ray, ray_slope, log_d, start, frame, seen, jacobian, jacobian_slope, robust_px,
              prior, prior_weight, alpha, beta, pose_at, depth_at, damping,
              band, gradient, border, corner, coupling, coupling_at, landmark_hessian, landmark_gradient):  # type: ignore[no-untyped-def]
    """Normal equations after elimination of the landmarks.

    `band` (W, P) is the lower band of the reduced Hessian, `gradient` (P,), `border` (P,) its column for the log focal
    length and `corner` (2,) the focal length's own Hessian and gradient. `coupling` and `coupling_at` keep, for each
    landmark, its coupling to the parameters for `back_substitute`: 9 a landmark (host pose, depth scale and shift,
    focal length, the last with index -2) and 6 an observation. Unused entries have index -1.
    """
    x, res, between = np.empty(3), np.empty(2), np.empty(3)
    j_t, j_h, j_l, j_f = np.empty((2, 6)), np.empty((2, 6)), np.empty(2), np.empty(2)
    for i in range(len(host)):
        h, inverse = host[i], np.exp(-log_d[i])
        base = 6 * start[i] + 9 * i
        n = 9 + 6 * (start[i + 1] - start[i])
        coupling[base : base + n] = 0.0
        coupling_at[base : base + n] = -1
        hp = pose_at[h]
        for m in range(6):
            coupling_at[base + m] = hp + m if hp >= 0 else -1
        if depth_at[h] >= 0:
            coupling_at[base + 6], coupling_at[base + 7] = depth_at[h], depth_at[h] + 1
        coupling_at[base + 8] = -2
        h_ll, g_l = 0.0, 0.0
        for k in range(start[i], start[i + 1]):
            t = frame[k]
            if t == h:
                continue
            norm = _residual(rotation[h], centre[h], rotation[t], centre[t], ray[i], inverse, seen[k], jacobian[k],
                             x, res)
            if norm < 0:
                continue
            for m in range(3):
                between[m] = centre[h, m] - centre[t, m]
            _jacobians(rotation[h], rotation[t], between, ray[i], ray_slope[i], inverse, jacobian[k], jacobian_slope[k],
                       x, norm, res, j_h, j_t, j_l, j_f)
            weight = _cauchy(res[0] * res[0] + res[1] * res[1], robust_px)
            dh, dg = _gather(weight, res, j_h, j_t, j_l, j_f, hp, pose_at[t], base, base + 9 + 6 * (k - start[i]),
                             band, gradient, border, corner, coupling, coupling_at)
            h_ll, g_l = h_ll + dh, g_l + dg
        if prior_weight[i] > 0:
            dh, dg = _gather_prior(log_d[i], prior[i], prior_weight[i], alpha[h], beta[h], depth_at[h], base,
                                   band, gradient, coupling)
            h_ll, g_l = h_ll + dh, g_l + dg
        h_ll = h_ll * (1.0 + damping) + 1e-9
        landmark_hessian[i], landmark_gradient[i] = h_ll, g_l
        _eliminate(base, n, h_ll, g_l, band, gradient, border, corner, coupling, coupling_at)


@njit(nogil=True, cache=True)
def back_substitute(step, focal_step, start, coupling, coupling_at, landmark_hessian, landmark_gradient, out):  # type: ignore[no-untyped-def]
    """Steps of the landmarks' log distances, given the steps of everything else."""
    for i in range(len(landmark_hessian)):
        base = 6 * start[i] + 9 * i
        total = landmark_gradient[i]
        for m in range(9 + 6 * (start[i + 1] - start[i])):
            p = coupling_at[base + m]
            if p >= 0:
                total += coupling[base + m] * step[p]
            elif p == -2:
                total += coupling[base + m] * focal_step
        out[i] = -total / landmark_hessian[i]


@njit(nogil=True, cache=True)
def solve_pose(rotation, centre, points, seen, jacobian, weight, robust_px, iterations, residual_px):  # type: ignore[no-untyped-def]
    """Pose of one camera from world points (N, 3), the rays (N, 3) along which they are seen, and the camera's Jacobian
    (N, 2, 3) there: robust Gauss-Newton.

    Changes rotation and centre in place, fills residual_px (N,), returns the robust cost and the 6 x 6 Hessian.
    """
    x, res = np.empty(3), np.empty(2)
    jac, hessian, grad = np.empty((2, 6)), np.zeros((6, 6)), np.zeros(6)
    total = 0.0
    for iteration in range(iterations + 1):
        hessian[:] = 0.0
        grad[:] = 0.0
        total = 0.0
        for i in range(len(points)):
            for k in range(3):
                x[k] = (rotation[0, k] * (points[i, 0] - centre[0]) + rotation[1, k] * (points[i, 1] - centre[1])
                        + rotation[2, k] * (points[i, 2] - centre[2]))
            norm = np.sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]) + 1e-12
            behind = seen[i, 0] * x[0] + seen[i, 1] * x[1] + seen[i, 2] * x[2] < 0
            for a in range(2):
                res[a] = (jacobian[i, a, 0] * x[0] + jacobian[i, a, 1] * x[1] + jacobian[i, a, 2] * x[2]) / norm
            squared = res[0] * res[0] + res[1] * res[1]
            if behind:
                squared = max(squared, 100.0 * robust_px * robust_px)
            residual_px[i] = np.sqrt(squared)
            total += weight[i] * robust_px * robust_px * np.log1p(squared / (robust_px * robust_px))
            if behind:
                continue
            w = weight[i] * _cauchy(squared, robust_px)
            for a in range(2):
                d0 = (jacobian[i, a, 0] - res[a] * x[0] / norm) / norm
                d1 = (jacobian[i, a, 1] - res[a] * x[1] / norm) / norm
                d2 = (jacobian[i, a, 2] - res[a] * x[2] / norm) / norm
                jac[a, 0] = d1 * x[2] - d2 * x[1]
                jac[a, 1] = d2 * x[0] - d0 * x[2]
                jac[a, 2] = d0 * x[1] - d1 * x[0]
                for m in range(3):
                    jac[a, 3 + m] = -(d0 * rotation[m, 0] + d1 * rotation[m, 1] + d2 * rotation[m, 2])
                for m in range(6):
                    grad[m] += w * jac[a, m] * res[a]
                    for q in range(6):
                        hessian[m, q] += w * jac[a, m] * jac[a, q]
        if iteration == iterations:
            break
        for m in range(6):
            hessian[m, m] *= 1.0 + 1e-6
            hessian[m, m] += 1e-9
        step = -np.linalg.solve(hessian, grad)
        turn(rotation, step[:3])
        for m in range(3):
            centre[m] += step[3 + m]
        if np.abs(step[:3]).max() < 1e-7 and np.abs(step[3:]).max() < 1e-7:
            iteration = iterations
    return total, hessian


@njit(nogil=True, cache=True)
def turn(rotation, phi):  # type: ignore[no-untyped-def]
    """rotation <- rotation exp([phi]), in place (Rodrigues' formula)."""
    angle = np.sqrt(phi[0] ** 2 + phi[1] ** 2 + phi[2] ** 2)
    if angle < 1e-14:
        return
    a = np.sin(angle) / angle
    b = (1 - np.cos(angle)) / (angle * angle)
    delta = np.empty((3, 3))
    k = np.array([[0.0, -phi[2], phi[1]], [phi[2], 0.0, -phi[0]], [-phi[1], phi[0], 0.0]])
    for i in range(3):
        for j in range(3):
            delta[i, j] = (1.0 if i == j else 0.0) + a * k[i, j]
            for m in range(3):
                delta[i, j] += b * k[i, m] * k[m, j]
    turned = rotation.copy()
    for i in range(3):
        for j in range(3):
            turned[i, j] = rotation[i, 0] * delta[0, j] + rotation[i, 1] * delta[1, j] + rotation[i, 2] * delta[2, j]
    for i in range(3):
        for j in range(3):
            rotation[i, j] = turned[i, j]
