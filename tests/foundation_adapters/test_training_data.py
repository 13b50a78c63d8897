"""Shards, cuts and augmentation: the truth must follow every change of the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation_adapters.augment import CORRUPTED_SEVERITIES, Draw, _corrupt, augment, corruptions_of_pictures
from foundation_adapters.shards import Cut, fast_rays, full_cut, make_batch, open_folder, random_cut
from foundation_adapters.train import Config, learning_rate, rotation_vector, train
from video_io.camera import Camera
from video_io.corruptions import corrupt
from video_io.errors import InputError


@pytest.mark.parametrize(
    "camera",
    [
        Camera.pinhole(64, 48, 50.0, 52.0, 30.0, 25.0),
        Camera("fisheye", 64, 48, (36.0, 37.0, 33.0, 22.0, -0.19, -0.004, 0.03, -0.013)),
        Camera("brown", 64, 48, (50.0, 50.0, 32.0, 24.0, -0.2, 0.05, 0.001, 0.0, 0.0)),
    ],
)
def test_fast_rays_are_the_rays(camera: Camera) -> None:
    np.testing.assert_allclose(fast_rays(camera), camera.ray_map(), atol=2e-6)


def test_cut_moves_camera_and_distance_together() -> None:
    # Distance that is a function of the ray alone stays that function after any cut, mirrored or not.
    camera = Camera.pinhole(160, 128, 90.0, 92.0, 85.0, 60.0)
    rays = camera.ray_map()
    distance = (40 + 10 * rays[..., 0] - 5 * rays[..., 1]).astype(np.float16)
    for mirrored, flipped in ((False, False), (True, False), (False, True)):
        cut = Cut(13, 7, 120, 96, mirrored, flipped)
        got = cut.distance(distance, 96, 64)
        ray_map = cut.rays(fast_rays(cut.camera(camera, 96, 64)))
        sign_x, sign_y = (-1 if mirrored else 1), (-1 if flipped else 1)
        want = 40 + 10 * sign_x * ray_map[..., 0] - 5 * sign_y * ray_map[..., 1]
        assert np.abs(got - want).max() < 0.1


def test_cut_outside_the_image_is_black_and_without_truth() -> None:
    cut = Cut(-32, -16, 96, 96, False, False)
    rgb, distance = np.full((64, 64, 3), 200, np.uint8), np.full((64, 64), 30, np.float16)
    assert cut.image(rgb, 96, 96)[:, :32].max() == 0
    assert (cut.distance(distance, 96, 96) > 0).sum() == 64 * 64


def test_mirrored_pose_moves_mirrored_points() -> None:
    pose = np.eye(4)
    pose[:3, 3] = [1.0, 2.0, 3.0]
    pose[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    point = np.array([0.3, -0.4, 5.0, 1.0])
    mirror = np.array([-1.0, 1, 1, 1])
    np.testing.assert_allclose(Cut(0, 0, 8, 8, True, False).pose(pose) @ (mirror * point), mirror * (pose @ point))


def test_random_cuts_stay_in_bounds_and_cover_sizes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        cut = random_cut(rng, (320, 256), (256, 192), zoom=True)
        assert 100 < cut.width < 480
        assert cut.x >= min(0, 320 - cut.width) and cut.x <= max(0, 320 - cut.width)


def test_batch_holds_pairs_first_with_their_motion(scenes: Path) -> None:
    opened = open_folder(scenes)
    batch = make_batch(
        [(opened[0], [0, 1], full_cut(opened[0].camera)), (opened[1], [2], full_cut(opened[1].camera))], (160, 128)
    )
    assert batch.rgb.shape == (3, 3, 128, 160)
    assert batch.rays.shape == (3, 3, 64, 80)
    assert batch.pairs == 1
    # Frame 1 stands 1 mm behind frame 0: a point of frame 1 lies 1 mm nearer in frame 0.
    np.testing.assert_allclose(batch.pose[0, :3, 3], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(batch.focal[0], [90 / 160, 92 / 128])


def test_scene_that_is_being_written_is_left_out(scenes: Path, tmp_path: Path) -> None:
    for path in scenes.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "scene_00001.distance.npy").unlink()
    assert [scene.name for scene in open_folder(tmp_path)] == ["scene_00000"]


def test_scene_whose_parts_do_not_fit_is_refused(scenes: Path, tmp_path: Path) -> None:
    for path in scenes.glob("scene_00000*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    told = json.loads((tmp_path / "scene_00000.json").read_text())
    told["world_from_cam"] = told["world_from_cam"][:2]
    (tmp_path / "scene_00000.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="do not fit"):
        open_folder(tmp_path)


def test_augmentation_keeps_the_range_and_is_shared_by_a_pair() -> None:
    image = torch.rand(8, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    image[1], image[3] = image[0], image[2]
    changed, weight = augment(image, 2, torch.Generator().manual_seed(1))
    again, _ = augment(image, 2, torch.Generator().manual_seed(1))
    assert torch.equal(changed, again)
    assert changed.min() >= 0 and changed.max() <= 1 and torch.isfinite(changed).all()
    assert torch.equal(weight[0], weight[1]) and torch.equal(weight[2], weight[3])
    # Noise alone differs between the frames of a pair.
    assert (changed[0] - changed[1]).abs().mean() < 0.05
    assert (changed - image).abs().mean() > 0.05


def test_the_registry_of_corruptions_takes_part() -> None:
    """Of 400 single images some 15 % are changed by it, each as `corrupt` does at a low or middle severity; the frames
    of a pair get the same event."""
    y, x = np.mgrid[:32, :48] / 48
    picture = torch.from_numpy(np.stack([0.75 - 0.3 * x, 0.35 + 0.2 * y, 0.3 + 0.1 * x]).astype(np.float32))
    images = (picture.repeat(404, 1, 1, 1) * 255).round() / 255
    changed = images.clone()
    _corrupt(changed, Draw(torch.Generator().manual_seed(0), 404, 2))
    levels = (changed * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    before = (images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    hit = [i for i in range(404) if not np.array_equal(levels[i], before)]
    assert 0.15 * 404 / 1.5 < len(hit) < 0.15 * 404 * 1.5
    assert torch.equal(changed[[i for i in range(404) if i not in hit]], images[: 404 - len(hit)])
    assert CORRUPTED_SEVERITIES == (1, 2, 3) and len(corruptions_of_pictures()) == 16
    assert not {"frozen", "dropped"} & {*corruptions_of_pictures()}


def test_a_pair_sees_the_same_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundation_adapters.augment.CORRUPTED", 1.0)
    calls = []

    def noted(rgb, name, severity, seed, time_s):
        calls.append((name, severity, seed, time_s))
        return corrupt(rgb, name, severity, seed, time_s)

    monkeypatch.setattr("video_io.corruptions.corrupt", noted)
    _corrupt(torch.rand(6, 3, 32, 48), Draw(torch.Generator().manual_seed(3), 6, 2))
    assert [c[3] for c in calls] == [0, 0.1, 0, 0.1, 0, 0]
    assert calls[0][:3] == calls[1][:3] and calls[2][:3] == calls[3][:3]
    assert len({c[2] for c in calls}) == 4


def test_learning_rate_follows_the_time() -> None:
    config = Config(learning_rate=1e-3, warmup=0.1)
    assert learning_rate(0.1, config) == pytest.approx(1e-3)
    assert learning_rate(0.55, config) == pytest.approx(1e-3 * (0.01 + 0.99 / 2))
    assert learning_rate(1.0, config) == pytest.approx(1e-5)
    assert learning_rate(0.05, config) < 1e-3


def test_rotation_vector_of_a_turn() -> None:
    c, s = np.cos(0.2), np.sin(0.2)
    turn = torch.tensor([[[1, 0, 0], [0, c, -s], [0, s, c]]], dtype=torch.float32)
    np.testing.assert_allclose(rotation_vector(turn), [[0.2, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(rotation_vector(torch.eye(3)[None]), [[0, 0, 0]], atol=1e-7)


def test_training_runs_saves_and_resumes(scenes: Path, tmp_path: Path) -> None:
    from foundation_adapters.network import Network, load_weights

    config = Config(
        minutes=0.03,
        batch=3,
        pairs=1,
        early_sizes=((96, 64),),
        early_batch=3,
        early_pairs=1,
        sizes=((96, 64),),
        final_size=(96, 64),
        final_batch=3,
        final_pairs=1,
        log_every=1,
        threads=1,
    )
    said: list[str] = []
    path = train(scenes, scenes, tmp_path, config, build=Network, say=said.append)
    assert load_weights(Network(), path)["licence"] == "Apache-2.0"
    assert (tmp_path / "log.csv").read_text().startswith("step,images,seconds,lr,distance")
    assert any(line.startswith("validation absrel") for line in said)
    steps = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"][0]
    longer = Config(**{**vars(config), "minutes": 0.06})
    train(scenes, scenes, tmp_path, longer, build=Network, resume=True, say=said.append)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"][0] > steps


def test_training_without_scenes_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training scenes"):
        train(tmp_path, tmp_path, tmp_path / "out", Config(minutes=0.01))


def test_heads_are_trained_on_a_frozen_rest(scenes: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from foundation_adapters.network import Network, save_weights
    from foundation_adapters.train_heads import HeadsConfig, train_heads

    save_weights(Network(), tmp_path / "start.safetensors", {"licence": "Apache-2.0"})
    config = HeadsConfig(minutes=0.02, pairs=1, sizes=((96, 64),), threads=1, log_every=1)
    path = train_heads(tmp_path / "start.safetensors", scenes, scenes, tmp_path / "out", config, say=lambda _: None)
    before, after = load_file(str(tmp_path / "start.safetensors")), load_file(str(path))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"pose", "intrinsics"}
