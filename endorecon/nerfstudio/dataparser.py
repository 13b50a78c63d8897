"""The data parser: a run folder, or what `endorecon export --to nerfstudio` made of one.

nerfstudio wants pictures as files, which a run does not keep; a run's are written once to exports/ns-train in it. The
world is scaled so that the usual depth is 1, which is what the learning rates are meant for.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import Nerfstudio, NerfstudioDataParserConfig
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from endorecon.exports import nerfstudio as export
from endorecon.exports.base import HELD_OUT_EVERY, Choice, Material, common, whole_folder
from endorecon.run import Run, holds_run, read_run
from rendering.mesh import read_ply
from video_io.errors import InputError
from video_io.files import parse_json, read_text

PROBES = 16  # depth maps that the usual depth is taken from


@dataclass
class EndoreconDataParserConfig(NerfstudioDataParserConfig):
    """A run folder of endorecon, or its export to nerfstudio."""

    _target: type = field(default_factory=lambda: EndoreconDataParser)
    source: Path | None = None
    """The video or folder that the run was made from, if it has moved."""
    downscale_factor: int | None = 1
    orientation_method: Literal["pca", "up", "vertical", "none"] = "none"
    center_method: Literal["poses", "focus", "none"] = "none"
    auto_scale_poses: bool = False


class EndoreconDataParser(Nerfstudio):
    """Adds to nerfstudio's own parser: points without Open3D, times, and a fisheye that stays one."""

    config: EndoreconDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        folder = self.config.data = prepared(Path(self.config.data), self.config.source)
        told = parse_json(read_text(folder / "transforms.json"))
        frames = {(folder / f["file_path"]).resolve(): f for f in told["frames"]}
        self.config.scale_factor = 1 / usual_depth(folder, told)
        if len(frames) < HELD_OUT_EVERY:
            self.config.eval_mode = "all"
        outputs = super()._generate_dataparser_outputs(split)
        own = [frames[Path(name).resolve()] for name in outputs.image_filenames]
        outputs.cameras.times = torch.tensor([[float(f.get("time", i))] for i, f in enumerate(own)])
        metadata = dict(outputs.metadata)
        distortion = outputs.cameras.distortion_params
        if bool((outputs.cameras.camera_type == CameraType.FISHEYE.value).all()) and distortion is not None:
            # Left to nerfstudio, the pictures would be cut down to a pinhole's; the model knows the lens.
            metadata["radial"] = distortion[0, :4].tolist()
            outputs.cameras.distortion_params = torch.zeros_like(distortion)
        elif distortion is not None and bool((distortion != 0).any()):
            metadata["depth_filenames"] = None  # nerfstudio straightens the pictures, but not their depth
        if (points := folder / str(told.get("ply_file_path", ""))).is_file():
            metadata |= _points(points, outputs)
        outputs.metadata = metadata
        return outputs


def prepared(data: Path, source: Path | None = None) -> Path:
    """The folder with transforms.json: the given one, or the one that a run's frames are written to.

    Raises:
        InputError: it is neither, or the run can't be exported.
    """
    data = data.expanduser()
    if (data / "transforms.json").is_file() and not holds_run(data):
        return data
    if not holds_run(data):
        raise InputError(f"'{data}' is neither a run of endorecon nor an export of one (it has no transforms.json)")
    run, out = read_run(data), data / "exports" / "ns-train"
    if not _is_of(run, out):
        material = Material(run, Choice(source))
        camera = common(material.camera)
        shutil.rmtree(out, ignore_errors=True)
        with whole_folder(out) as folder:
            export.write(material, camera.straightened() if camera.model == "brown" else camera, folder)
    return out


def usual_depth(folder: Path, told: dict[str, Any]) -> float:
    """In the lengths of transforms.json: of the run's light, or the median of some depth maps, or the path's extent."""
    about = told.get("endorecon") or {}
    if about.get("light"):
        return float(about["light"]["usual_depth"]) * export.LENGTH
    names = [f["depth_file_path"] for f in told["frames"] if f.get("depth_file_path")]
    maps = [np.load(folder / n) for n in names[:: max(1, len(names) // PROBES)] if n.endswith(".npy")]
    known = [m[m > 0] for m in maps if (m > 0).any()]
    if known:
        return float(np.median(np.concatenate(known))) * float(told.get("depth_unit_scale_factor", export.LENGTH))
    centres = np.array([f["transform_matrix"] for f in told["frames"]], float)[:, :3, 3]
    return float(np.ptp(centres, axis=0).max()) or 1.0


def _is_of(run: Run, out: Path) -> bool:
    """Whether the folder was written of this run as it is now."""
    try:
        about = parse_json(read_text(out / "transforms.json"))["endorecon"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return about == json.loads(json.dumps(export.about(run)))


def _points(path: Path, outputs: DataparserOutputs) -> dict[str, torch.Tensor]:
    """Points and their colours in the parser's world, as nerfstudio's models expect them."""
    mesh = read_ply(path)
    transform = outputs.dataparser_transform
    turned = torch.from_numpy(mesh.vertices) @ transform[:, :3].T + transform[:, 3]
    colors = np.full(mesh.vertices.shape, 128, np.uint8) if mesh.colors is None else mesh.colors
    return {"points3D_xyz": turned * outputs.dataparser_scale, "points3D_rgb": torch.from_numpy(colors.copy())}


PARSER = DataParserSpecification(
    config=EndoreconDataParserConfig(), description="a run folder of endorecon, or its export to nerfstudio"
)
