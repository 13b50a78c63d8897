"""Gaussians that look like the clip, trained on the processor (or on CUDA) once all frames are placed.

They are seeded on the surface that the depth maps fuse to, which also says what their depth should be; the mesh is the
fusion of the depth that they are rendered with. Files: `splats.ply`, the standard 3DGS form, and `splats.splat`, both
without highlights; `gloss.npz`, the highlights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from endorecon.scenes._splat_gloss import FILE as GLOSS
from endorecon.scenes._splat_gloss import write_gloss
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import Splats, seed, surface_depth, write_splats
from endorecon.scenes._splat_views import KeptViews
from endorecon.scenes.base import Setting
from endorecon.scenes.tsdf import Observed, TsdfScene
from rendering.mesh import Caster, Mesh
from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.scenes._splat_training import Options, Training

SEEDS = 25_000
SHOWN = 0.5  # alpha from which a pixel's depth goes into the mesh


def make(median_depth: float, setting: Setting) -> SplatScene:
    """An empty scene for a clip with this median depth."""
    return SplatScene(median_depth, setting)


class SplatScene:
    """Gaussians; `mesh` trains them.

    Attributes:
        splats: what has been trained; None before, or if nothing could be.
        figures: of frames that were never trained on, and of the light, plain values for run.yaml.
        warnings: what happened that the user should know, a sentence each.
    """

    def __init__(self, median_depth: float, setting: Setting, options: Options | None = None) -> None:
        self._setting, self._usual = setting, median_depth
        self._surface = TsdfScene.for_depth(median_depth)
        self._options = options or options_of(setting)
        self._kept = KeptViews(self._options.surfels)
        self.splats: Splats | None = None
        self.figures: dict[str, Any] = {}
        self.warnings: list[str] = []

    def integrate(self, observation: Observed) -> None:
        """Add an observation; its frame must carry a camera."""
        self._surface.integrate(observation)
        self._kept.add(observation)

    def mesh(self) -> Mesh:
        """Train, write the files, and fuse the rendered depth; the surface as measured where that fails."""
        surface = self._surface.mesh()
        self.warnings += self._surface.warnings
        del self._surface
        self.warnings += self._kept.warnings
        try:
            training = self._train(surface)
        except InputError as error:
            self.warnings.append(f"there are no Gaussians: {error}")
            return surface
        self.splats, self.figures = training.splats(), figures_of(training)
        self.warnings += training.warnings
        if self._setting.folder is not None:
            self._setting.folder.mkdir(parents=True, exist_ok=True)
            for name in ("splats.ply", "splats.splat"):
                write_splats(self.splats, self._setting.folder / name)
            if self.splats.gloss is not None:
                write_gloss(self.splats.gloss, self._setting.folder / GLOSS)
        return self._fused(training)

    def _train(self, surface: Mesh) -> Training:
        from endorecon.scenes._splat_training import Training, held_out

        options, light, setting = self._options, Light(self._usual), self._setting
        caster = Caster(surface) if len(surface.faces) else None
        views = []
        for view in self._kept.views:
            depth, _ = surface_depth(view, caster)
            views.append(replace(view, depth=depth, confidence=(depth > 0).astype(np.float16)))
        # The surface was measured in all frames; what is held out are the pictures.
        held = held_out(len(views), options)
        trained = [v for i, v in enumerate(views) if i not in held]
        seeds = seed(trained, surface, SEEDS, options.degree, light, options.gloss)
        seeds = seeds.flattened() if options.surfels else seeds
        training = Training(seeds, views, light, options, setting.kept("splats"))
        training.run(setting.progress, lambda state: setting.keep("splats", state))
        return training

    def _fused(self, training: Training) -> Mesh:
        """The surface of the rendered depth: of surfels the median, which is one surfel's and blends nothing."""
        scene, splats = TsdfScene.for_depth(self._usual), training.splats()
        for view in training.placed() if self._options.poses else self._kept.views:
            layers = splats.render(view.camera, view.world_from_cam)
            depth, alpha = (layers.median if splats.surfels else layers.depth).numpy(), layers.alpha.numpy()
            shown = (alpha > SHOWN) & view.use_mask
            scene.integrate_depth(view.rgb, depth, (alpha * shown).astype(np.float32), view.camera, view.world_from_cam)
        return scene.mesh()


def options_of(setting: Setting) -> Options:
    """How a run wants its Gaussians trained."""
    from endorecon.scenes._splat_training import Options

    choice = setting.splats
    return Options(setting.seconds, surfels=choice.surfels, strategy=choice.growth, poses=choice.poses)


def figures_of(training: Training) -> dict[str, Any]:
    """How well the frames that were held out are rendered, and the light: plain values for run.yaml."""
    last, law = training.history[-1].to_dict(), [float(v) for v in training.light.law]
    tests = [view.index for view in training.tests]
    return {
        **{name: (None if isinstance(v, float) and np.isnan(v) else v) for name, v in last.items()},
        "held_out": tests, "light": {"usual_depth": training.light.usual, "law": law},
        "surfels": training.options.surfels, "growth": training.options.strategy, **_poses(training),
        "history": [[f.seconds, f.steps, f.gaussians, f.psnr, f.ssim] for f in training.history],
    }  # fmt: skip


def _poses(training: Training) -> dict[str, Any]:
    """By how much poses were improved, in the mean; nothing where they were left."""
    if not training.options.poses:
        return {}
    turn, shift = training.poses.moved()
    return {"poses": {"turned_degrees": round(float(np.degrees(turn)), 4), "moved": round(shift, 5)}}
