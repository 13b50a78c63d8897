"""The plugin in nerfstudio itself: its parser reads a run, its trainer trains and its checkpoint comes back.

Needs nerfstudio: `make test-nerfstudio` makes an environment with it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

if find_spec("nerfstudio") is None:
    pytest.skip("needs nerfstudio: make test-nerfstudio", allow_module_level=True)
if find_spec("torchvision") is not None and not torch.cuda.is_available():
    # The wheel of PyPI is built for CUDA: beside a CPU build of torch its operators are not there to be declared.
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from endorecon.evaluate.spoiled import spoiled_run
from endorecon.exports import find_export
from endorecon.exports.base import Material, whole_folder
from endorecon.run import Run, read_run
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_model import read_splats
from endorecon.scenes.tsdf import TsdfScene
from rendering.mesh import nearest_on, write_ply
from rendering.phantom.clip import simulate
from video_io.camera import Camera
from video_io.errors import InputError

PINHOLE = Camera.from_fov(96, 80, np.radians(80))
FISHEYE = Camera("fisheye", 96, 80, (52.0, 52.0, 47.5, 40.5, 0.05, -0.01, 0.0, 0.0))
FRAMES = 10


def made(folder: Path, camera: Camera, frames: int = FRAMES) -> Run:
    clip = simulate("colon", 5, frames, camera, 30.0, folder / "clip", extras=False)
    spoiled_run(clip, folder / "run")
    run = read_run(folder / "run")
    scene = TsdfScene.for_depth(40.0)  # the surface again, with colours
    for shot in Material(run).shots():
        scene.integrate_depth(shot.rgb, shot.depth, shot.confidence, shot.camera, shot.world_from_cam)
    write_ply(scene.mesh(), run.path / "scene" / "mesh.ply")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("pinhole"), PINHOLE)


@pytest.fixture(scope="module")
def curved(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("fisheye"), FISHEYE)


def config(data: Path, out: Path, steps: int):
    """What `ns-train endorecon-splats --data DATA --vis tensorboard` makes of its arguments, on the CPU."""
    from copy import deepcopy

    from nerfstudio.plugins.registry import discover_methods

    methods, _ = discover_methods()
    made = deepcopy(methods["endorecon-splats"])
    made.pipeline.datamanager.data, made.output_dir, made.max_num_iterations = data, out, steps
    made.machine.device_type, made.vis, made.timestamp = "cpu", "tensorboard", "now"
    made.pipeline.model.seeds = 3000
    made.steps_per_eval_image = made.steps_per_eval_all_images = 10**9
    made.set_timestamp()
    return made


def trainer(data: Path, out: Path, steps: int):
    made = config(data, out, steps).setup(local_rank=0, world_size=1)
    made.setup()
    return made


def test_entry_points() -> None:
    from nerfstudio.configs.dataparser_configs import all_dataparsers
    from nerfstudio.configs.method_configs import all_descriptions

    assert "endorecon" in all_dataparsers and "light" in all_descriptions["endorecon-splats"]


def test_the_parser_reads_a_run(run: Run) -> None:
    from endorecon.nerfstudio.dataparser import EndoreconDataParserConfig

    parser = EndoreconDataParserConfig(data=run.path).setup()
    outputs = parser.get_dataparser_outputs("train")
    assert len(outputs.image_filenames) == FRAMES - 2  # 0 and 8 are held out
    assert [f.name for f in parser.get_dataparser_outputs("val").image_filenames] == [
        "frame_000000.png", "frame_000008.png",
    ]  # fmt: skip
    # Lengths: the run's, in thousandths, over the usual depth; so its median is 1.
    depth = np.concatenate([d[d > 0] for d in (np.load(f) for f in outputs.metadata["depth_filenames"])])
    scale = float(outputs.dataparser_scale)
    assert np.median(depth) / 1000 * scale == pytest.approx(1, rel=0.05)
    centres = outputs.cameras.camera_to_worlds[:, :3, 3].numpy() / scale * 1000
    assert centres == pytest.approx(np.delete(run.trajectory.centres, [0, 8], 0), abs=1e-3)
    assert len(outputs.metadata["points3D_xyz"]) == len(Material(run).mesh().vertices)
    assert outputs.cameras.times.flatten().tolist()[:2] == pytest.approx([1 / 30, 2 / 30])
    assert outputs.cameras[0].get_intrinsics_matrices()[0, 2] == 48


def test_what_is_written_for_a_run_is_used_again_until_it_changes(run: Run) -> None:
    from endorecon.nerfstudio.dataparser import prepared

    out = prepared(run.path)
    (out / "mark").write_text("x")
    assert (prepared(run.path) / "mark").is_file()
    text = (run.path / "run.yaml").read_text()
    (run.path / "run.yaml").write_text(text.replace("ended: '2", "ended: '1"))
    assert not (prepared(run.path) / "mark").exists()
    with pytest.raises(InputError, match="is neither a run of endorecon nor an export of one"):
        prepared(run.path / "depth")


def test_a_fisheye_stays_one(curved: Run) -> None:
    from endorecon.nerfstudio.dataparser import EndoreconDataParserConfig

    outputs = EndoreconDataParserConfig(data=curved.path).setup().get_dataparser_outputs("train")
    assert outputs.metadata["radial"] == pytest.approx([0.05, -0.01, 0, 0])
    assert not outputs.cameras.distortion_params.any()


def test_an_export_is_read_by_nerfstudios_own_parser(run: Run, tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    with whole_folder(tmp_path / "x") as folder:
        find_export("nerfstudio").export(Material(run), folder)
    plain = NerfstudioDataParserConfig(
        data=tmp_path / "x", orientation_method="none", center_method="none", auto_scale_poses=False
    )
    outputs = plain.setup().get_dataparser_outputs("train")
    poses = outputs.cameras.camera_to_worlds.numpy()
    true = np.delete(run.trajectory.world_from_cam, [0, 8], 0) @ np.diag([1, -1, -1, 1])
    true[:, :3, 3] /= 1000
    assert poses == pytest.approx(true[:, :3], abs=1e-6)


def test_an_export_is_read_by_nerfstudios_colmap_parser(run: Run, tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    with whole_folder(tmp_path / "x") as folder:
        find_export("colmap").export(Material(run), folder)
    parser = ColmapDataParserConfig(
        data=tmp_path / "x", colmap_path=Path("sparse/0"), orientation_method="none", center_method="none",
        auto_scale_poses=False, downscale_factor=1, assume_colmap_world_coordinate_convention=False, eval_mode="all",
    )  # fmt: skip
    outputs = parser.setup().get_dataparser_outputs("train")
    assert len(outputs.image_filenames) == FRAMES
    steps = np.linalg.norm(np.diff(outputs.cameras.camera_to_worlds[:, :3, 3].numpy(), axis=0), axis=1)
    assert steps == pytest.approx(np.linalg.norm(np.diff(run.trajectory.centres, axis=0), axis=1), abs=1e-4)


def test_the_parts_agree_with_the_scenes_own() -> None:
    from skimage.metrics import structural_similarity

    from endorecon.nerfstudio.model import light_factor, ssim_map, view_from_world

    depth = np.random.default_rng(0).uniform(0.2, 3, (24, 30)).astype(np.float32)
    depth[3, 4] = 0
    law = np.array([0.8, -0.3, 0.1])
    assert light_factor(torch.tensor(law, dtype=torch.float32), torch.from_numpy(depth)).numpy() == pytest.approx(
        Light(1.0, law).factor(depth), rel=1e-5
    )
    a, b = torch.rand(40, 50, 3, generator=torch.Generator().manual_seed(0)), torch.rand(40, 50, 3)
    theirs = structural_similarity(
        a.numpy(), b.numpy(), channel_axis=2, data_range=1, gaussian_weights=True, use_sample_covariance=False,
        full=True,
    )[1]  # fmt: skip
    mine = ssim_map(a, b).permute(1, 2, 0)[5:-5, 5:-5].numpy()
    assert mine == pytest.approx(theirs[5:-5, 5:-5], abs=1e-4)
    pose = torch.tensor([[[1.0, 0, 0, 3], [0, -1, 0, 4], [0, 0, -1, 5]]])  # a camera of ours at (3, 4, 5), not turned
    assert view_from_world(pose)[0].tolist() == [[1, 0, 0, -3], [0, 1, 0, -4], [0, 0, 1, -5], [0, 0, 0, 1]]


@pytest.mark.parametrize("lens", ["pinhole", "fisheye"])
def test_training_gets_better_moves_everything_and_comes_back(
    lens: str, run: Run, curved: Run, tmp_path: Path
) -> None:
    data = run if lens == "pinhole" else curved
    training = trainer(data.path, tmp_path, 80)
    model = training.pipeline.model
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    first = training.pipeline.get_average_eval_image_metrics()["psnr"]
    training.train()
    after = dict(model.named_parameters())
    for name, value in before.items():
        if value.numel():
            rows = min(len(value), len(after[name]))
            assert not torch.equal(value[:rows], after[name][:rows].detach()), f"{name} did not move"
    figures = training.pipeline.get_average_eval_image_metrics()
    assert figures["psnr"] > first + 2 and figures["psnr"] > 20 and figures["ssim"] > 0.4
    # In the run's world: half of the Gaussians' centres lie near its surface.
    splats = read_splats(Path(training.base_dir) / "splats.ply")
    off = nearest_on(Material(data).mesh(), splats.means[::50].astype(float)).distance
    assert np.median(off) < 1.0
    state = torch.load(next(Path(training.checkpoint_dir).glob("*.ckpt")), map_location="cpu", weights_only=False)
    again = trainer(data.path, tmp_path / "again", 1).pipeline
    again.load_pipeline(state["pipeline"], state["step"])
    assert again.get_average_eval_image_metrics()["psnr"] == pytest.approx(figures["psnr"], abs=1e-3)


def test_growth_in_training(run: Run, tmp_path: Path) -> None:
    made = config(run.path, tmp_path, 40)
    options = made.pipeline.model
    options.grow_from, options.grow_to, options.grow_every, options.grow_slope = 0.0, 1.0, 10, 1e-7
    training = made.setup(local_rank=0, world_size=1)
    training.setup()
    before = len(training.pipeline.model.splats())
    training.train()
    assert len(training.pipeline.model.splats()) > before


def test_without_depth_and_with_one_frame(tmp_path: Path) -> None:
    one = made(tmp_path, PINHOLE, 1)
    for file in (one.path / "depth").glob("*.npz"):
        file.unlink()
    training = trainer(one.path, tmp_path / "out", 3)
    assert "depth_image" not in training.pipeline.datamanager.next_train(0)[1]
    training.train()
    assert np.isfinite(training.pipeline.get_average_eval_image_metrics()["psnr"])
