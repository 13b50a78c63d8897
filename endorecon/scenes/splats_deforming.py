"""Gaussians that follow tissue as it moves, before a camera that stands still or moves, without the tools.

Tools are left out by the masks that come with the input, or by those that are found (`video_io.instruments`). What
one hides is shown as it was seen at other times, moved on with its surroundings. The mesh is the surface at one
moment, that of the frame which shows most. Files: `splats.ply` and `splats.splat`, the Gaussians at that moment;
`motion.npz`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import SplatView, write_splats
from endorecon.scenes._splat_views import KeptViews
from endorecon.scenes.base import Setting
from endorecon.scenes.splats import SHOWN, figures_of, options_of
from endorecon.scenes.tsdf import Observed, TsdfScene
from rendering.mesh import Mesh
from video_io.errors import InputError
from video_io.instruments import masks_are_given, tool_masks

if TYPE_CHECKING:
    from endorecon.scenes._motion import MovingSplats
    from endorecon.scenes._motion_training import MovingTraining
    from endorecon.scenes._splat_training import Options

SEEDS = 25_000  # an image
MOST_POSES = 60  # from which the mesh is fused
GIVEN, FOUND, NONE = "given", "found by their colour", "none found"


def make(median_depth: float, setting: Setting) -> DeformingScene:
    """An empty scene for a clip with this median depth."""
    return DeformingScene(median_depth, setting)


class DeformingScene:
    """Gaussians that move; `mesh` trains them.

    Attributes:
        rigid: False, since the mesh is that of one moment.
        splats: what has been trained; None before, or if nothing could be.
        figures: of frames that were never trained on, of tools, light and motion, plain values for run.yaml.
        warnings: what happened that the user should know, a sentence each.
    """

    rigid = False

    def __init__(
        self, median_depth: float, setting: Setting, options: Options | None = None, seeds: int = SEEDS
    ) -> None:  # fmt: skip
        self._setting, self._usual, self._number = setting, median_depth, seeds
        self._options = options or options_of(setting)
        self._kept = KeptViews(self._options.surfels)
        self.splats: MovingSplats | None = None
        self.figures: dict[str, Any] = {}
        self.warnings: list[str] = []

    def integrate(self, observation: Observed) -> None:
        """Add an observation; its frame must carry a camera."""
        self._kept.add(observation)

    def mesh(self) -> Mesh:
        """Train, write the files, and fuse the rendered depth at one moment; that of one frame where this fails."""
        self.warnings += self._kept.warnings
        try:
            training, moment = self._train()
        except InputError as error:
            self.warnings.append(f"there are no Gaussians: {error}")
            return self._measured()
        self.splats = training.moving()
        still = self.splats.at(moment.time_ns)
        self.figures |= {
            **figures_of(training), "moment": {"index": moment.index, "time_s": moment.time_ns / 1e9},
            "bells": training.basis.count,
        }  # fmt: skip
        self.warnings += training.warnings
        if (folder := self._setting.folder) is not None:
            from endorecon.scenes._motion import FILE, write_motion

            folder.mkdir(parents=True, exist_ok=True)
            for name in ("splats.ply", "splats.splat"):
                write_splats(still, folder / name)
            write_motion(self.splats, folder / FILE)
        scene, poses = TsdfScene.for_depth(self._usual), _apart([view.world_from_cam for view in self._kept.views])
        for pose in poses:
            layers = still.render(moment.camera, pose)
            alpha = layers.alpha.numpy()
            sure, rgb = (alpha > SHOWN) * alpha, np.uint8(255 * np.clip(layers.color.numpy(), 0, 1))
            scene.integrate_depth(rgb, layers.depth.numpy(), sure.astype(np.float32), moment.camera, pose)
        return scene.mesh()

    def _train(self) -> tuple[MovingTraining, SplatView]:
        """The training, done; and the view whose moment the mesh and the files of Gaussians show."""
        from endorecon.scenes._motion_seeds import seeds
        from endorecon.scenes._motion_training import MovingTraining
        from endorecon.scenes._splat_training import held_out

        options, light = self._options, Light(self._usual)
        views, setting = self._without_tools(), self._setting
        # Surfels need no turning: seeds are flat already, and the weights of the motion belong to their quaternions.
        if len(_apart([view.world_from_cam for view in views])) == 1:
            options = replace(options, degree=0)  # a still camera sees each from one side
        held = held_out(len(views), options)
        start, trained, first = seeds(
            [v for i, v in enumerate(views) if i not in held], self._number, options.degree, light
        )
        rest = iter(trained)
        views = [view if i in held else next(rest) for i, view in enumerate(views)]
        training = MovingTraining(start, views, light, options, setting.kept("splats"))
        training.run(setting.progress, lambda state: setting.keep("splats", state))
        return training, trained[first]

    def _without_tools(self) -> list[SplatView]:
        """The views, whose masks leave tools out."""
        pictures, uses = [view.rgb for view in self._kept.views], [view.use_mask for view in self._kept.views]
        if masks_are_given(pictures, uses):
            self.figures["tools"] = {"masks": GIVEN}
            return self._kept.views
        tools = tool_masks(pictures, uses)
        share = float(np.mean([tool.mean() for tool in tools])) if tools else 0.0
        self.figures["tools"] = {"masks": FOUND if share else NONE, "share": round(share, 4)}
        return [replace(v, use_mask=v.use_mask & ~tool) for v, tool in zip(self._kept.views, tools, strict=True)]

    def _measured(self) -> Mesh:
        scene = TsdfScene.for_depth(self._usual)
        for view in self._kept.views[len(self._kept.views) // 2 :][:1]:
            sure = view.confidence.astype(np.float32) * view.use_mask
            scene.integrate_depth(view.rgb, view.depth, sure, view.camera, view.world_from_cam)
        return scene.mesh()


def _apart(poses: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Those poses that differ, at most about MOST_POSES."""
    kept: list[NDArray[np.float64]] = []
    for pose in poses[:: -(-len(poses) // MOST_POSES)]:
        if not kept or not np.allclose(pose, kept[-1]):
            kept.append(pose)
    return kept
