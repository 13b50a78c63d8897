"""Gaussians as bytes: the standard 3DGS PLY, SuperSplat's compressed PLY, antimatter15's .splat.

What gsplat's exporter writes (Apache-2.0; tests hold the two together), in numpy, so that neither PyTorch nor a gsplat
of 1.5 and later is needed, and with two cases mended: a chunk in which a value does not vary, which divides by zero
there, and Gaussians without harmonics, which get an element without properties there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from endorecon.scenes._splat_model import Splats

Floats = NDArray[np.float32]
C0 = np.float32(0.28209479177387814)
CHUNK = 256  # Gaussians that share bounds in the compressed form
FAINTEST = np.float32(1 / 255)
SURFELS = b"comment surfels: the third axis is the normal, its scale does not count"
LOG_SCALE = 20  # bounds of log scales in the compressed form


def encoded(splats: Splats, form: str) -> bytes:
    """The bytes of a file of this form: "ply", "compressed" or "splat". What is no number is left out."""
    data = {"ply": _ply, "compressed": _compressed, "splat": _splat}[form](_finite(splats))
    return data.replace(b"\nelement", b"\n" + SURFELS + b"\nelement", 1) if splats.surfels and form == "ply" else data


def _finite(s: Splats) -> dict[str, Floats]:
    """The arrays by name, each (N, K); harmonics a channel after the other."""
    n = len(s)
    rest = s.shN.transpose(0, 2, 1).reshape(n, 3 * s.shN.shape[1])
    arrays = {
        "means": s.means, "sh0": s.sh0.reshape(n, 3), "shN": rest, "opacities": s.opacities.reshape(n, 1),
        "scales": s.scales, "quats": s.quats,
    }  # fmt: skip
    good = np.logical_and.reduce([np.isfinite(a).all(1) for a in arrays.values()])
    return {name: np.asarray(a[good], np.float32) for name, a in arrays.items()}


def _header(elements: list[tuple[str, int, str, list[str]]]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0"]
    for name, count, kind, properties in elements:
        lines += [f"element {name} {count}", *(f"property {kind} {p}" for p in properties)]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii")


def _ply(a: dict[str, Floats]) -> bytes:
    names = [*"xyz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(a["shN"].shape[1])), "opacity",
             *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]  # fmt: skip
    table = np.concatenate(list(a.values()), 1)
    return _header([("vertex", len(table), "float", names)]) + table.astype("<f4").tobytes()


def _splat(a: dict[str, Floats]) -> bytes:
    order = _by_place(a["means"])
    table = np.empty(len(order), [("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])
    table["mean"], table["scale"] = a["means"], np.exp(a["scales"])
    color = np.concatenate([a["sh0"] * C0 + np.float32(0.5), _sigmoid(a["opacities"])], 1)
    table["color"] = np.clip(255 * color, 0, 255)
    table["quat"] = np.clip(128 * _unit(a["quats"]) + 128, 0, 255)
    return table[order].tobytes()


def _compressed(a: dict[str, Floats]) -> bytes:
    shown = _sigmoid(a["opacities"])[:, 0] > FAINTEST
    a = {name: values[shown] for name, values in a.items()}
    order = _by_place(a["means"])
    a = {name: values[order] for name, values in a.items()}
    n, sh = len(order), a["shN"].shape[1]
    place, place_bounds = _in_chunks(a["means"])
    scale, scale_bounds = _in_chunks(a["scales"], LOG_SCALE)
    color, color_bounds = _in_chunks(a["sh0"] * C0 + np.float32(0.5))
    words = np.stack(
        [
            _packed(place, (11, 10, 11)), _rotations(a["quats"]), _packed(scale, (11, 10, 11)),
            _packed(np.concatenate([color, _sigmoid(a["opacities"])], 1), (8, 8, 8, 8)),
        ],
        1,
    )  # fmt: skip
    sides = [f"{side}_{name}" for side in ("min", "max") for name in "xyz"]
    bounds = sides + [f"{s[:4]}scale_{s[4:]}" for s in sides] + [f"{s}_{c}" for s in ("min", "max") for c in "rgb"]
    elements = [
        ("chunk", -(-n // CHUNK), "float", bounds),
        ("vertex", n, "uint", [f"packed_{name}" for name in ("position", "rotation", "scale", "color")]),
    ]
    if sh:
        elements.append(("sh", n, "uchar", [f"f_rest_{i}" for i in range(sh)]))
    chunks = np.concatenate([place_bounds, scale_bounds, color_bounds], 1)
    rest = np.clip(np.trunc((a["shN"] / 8 + np.float32(0.5)) * 256), 0, 255).astype(np.uint8)
    return _header(elements) + chunks.astype("<f4").tobytes() + words.astype("<u4").tobytes() + rest.tobytes()


def _in_chunks(values: Floats, limit: float = np.inf) -> tuple[Floats, Floats]:
    """Values (N, 3) from 0 to 1 between their chunk's bounds, and the bounds (chunks, 6), lower ones first."""
    if not len(values):
        return values, np.zeros((0, 6), np.float32)
    starts = np.arange(0, len(values), CHUNK)
    low, high = (np.clip(f.reduceat(values, starts), -limit, limit) for f in (np.minimum, np.maximum))
    chunk = np.arange(len(values)) // CHUNK
    span = high - low
    unit = (values - low[chunk]) / np.where(span > 0, span, 1)[chunk]
    return unit, np.concatenate([low, high], 1).astype(np.float32)


def _packed(unit: Floats, bits: tuple[int, ...]) -> NDArray[np.uint32]:
    """Columns from 0 to 1 as this many bits each, the first the highest."""
    word = np.zeros(len(unit), np.uint32)
    for column, size in zip(unit.T, bits, strict=True):
        most = (1 << size) - 1
        word = (word << np.uint32(size)) | np.clip(np.floor(column * np.float32(most) + 0.5), 0, most).astype(np.uint32)
    return word


def _rotations(quats: Floats) -> NDArray[np.uint32]:
    """Two bits tell the largest component, which is made positive and left out; ten bits each the others."""
    q = _unit(quats)
    largest = np.abs(q).argmax(1)
    q = np.where(np.take_along_axis(q, largest[:, None], 1) < 0, -q, q)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    unit = np.take_along_axis(q, others, 1) * np.float32(np.sqrt(0.5)) + np.float32(0.5)
    return (largest.astype(np.uint32) << np.uint32(30)) | _packed(unit, (10, 10, 10))


def _by_place(means: Floats) -> NDArray[np.int64]:
    """An order in which neighbours are near each other: by Morton code of ten bits an axis (Morton, 1966)."""
    if not len(means):
        return np.zeros(0, np.int64)
    low, high = means.min(0), means.max(0)
    span = np.where(high > low, high - low, np.float32(1))
    code = np.zeros(len(means), np.uint32)
    for axis, column in enumerate(((means - low) / span * 1024).astype(np.uint32).T):
        # The last place wraps to the first, as in gsplat: it costs nothing but compression.
        x = column & np.uint32(0x3FF)
        for shift, mask in ((16, 0xFF0000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
            x = (x ^ (x << np.uint32(shift))) & np.uint32(mask)
        code |= x << np.uint32(axis)
    return np.argsort(code, kind="stable")


def _sigmoid(x: Floats) -> Floats:
    return (1 / (1 + np.exp(-x, dtype=np.float32))).astype(np.float32)


def _unit(quats: Floats) -> Floats:
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    return (quats / np.where(length > 0, length, 1)).astype(np.float32)
