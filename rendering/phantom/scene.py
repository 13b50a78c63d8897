"""An anatomy: its surfaces as one mesh, what they may be made of, and the camera's way through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rendering.phantom.material import Material, tissue
from rendering.phantom.paths import Path
from rendering.phantom.surfaces import Part, vertex_normals


@dataclass(frozen=True)
class Anatomy:
    """A phantom's shape.

    Attributes:
        name: of the anatomy that built it.
        vertices, normals: (V, 3) float32, mm; the normals point into the air.
        faces: (F, 3) int32, counter-clockwise from the air.
        face_part: (F,) int32, which part a face belongs to.
        kinds: for each part the `material.PALETTE` entries that suit it.
        path: where the camera goes.
        scale_mm: the typical viewing distance; details are sized by it.
        nearest_mm: the camera keeps at least this far from every surface.
    """

    name: str
    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    faces: NDArray[np.int32]
    face_part: NDArray[np.int32]
    kinds: tuple[tuple[str, ...], ...]
    path: Path
    scale_mm: float
    nearest_mm: float

    @staticmethod
    def of(name: str, parts: Sequence[Part], path: Path, scale_mm: float, nearest_mm: float) -> Anatomy:
        """Join parts into one anatomy."""
        starts = np.cumsum([0] + [len(p.vertices) for p in parts])
        return Anatomy(
            name=name,
            vertices=np.concatenate([p.vertices for p in parts]).astype(np.float32),
            normals=np.concatenate([vertex_normals(p.vertices, p.faces) for p in parts]).astype(np.float32),
            faces=np.concatenate([p.faces + s for p, s in zip(parts, starts[:-1], strict=True)]).astype(np.int32),
            face_part=np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts]).astype(np.int32),
            kinds=tuple(p.kinds for p in parts),
            path=path,
            scale_mm=scale_mm,
            nearest_mm=nearest_mm,
        )

    def displaced(self, moved: NDArray[np.floating]) -> Anatomy:
        """The same with its vertices (V, 3) moved."""
        normals = vertex_normals(np.asarray(moved, float), self.faces)
        return replace(self, vertices=np.asarray(moved, np.float32), normals=normals.astype(np.float32))

    def dressed(self, rng: np.random.Generator, usual: bool = False) -> tuple[Material, ...]:
        """A random material for each part, of its first kind if `usual`, otherwise of any of its kinds.

        Parts of the same kinds share one, as organs of a kind do.
        """
        drawn: dict[tuple[str, ...], Material] = {}
        for kinds in self.kinds:
            if kinds not in drawn:
                drawn[kinds] = tissue(rng, kinds[0] if usual else str(rng.choice(kinds)), self.scale_mm)
        return tuple(drawn[kinds] for kinds in self.kinds)
