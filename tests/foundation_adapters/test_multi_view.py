"""Networks that see several views at once, by small random checkpoints in the published layouts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import made_views
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation_adapters import alternating
from foundation_adapters.backbones import depth_anything_3, vggt
from foundation_adapters.checkpoints import Published
from foundation_adapters.estimator import load_estimator
from foundation_adapters.learner import load_base
from foundation_adapters.multi_view import MultiViewEstimator, Views
from video_io.camera import Camera
from video_io.errors import InputError
from video_io.frame import Frame

CAMERA = Camera.from_fov(96, 64, 1.2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("views")
    return {"vggt": made_views.small_vggt(where / "vggt"), "da3": made_views.small_da3(where / "da3")}


def _frames(count: int, first: int = 0, camera: Camera | None = CAMERA) -> list[Frame]:
    images = np.random.default_rng(0).integers(0, 255, (first + count, 64, 96, 3), dtype=np.uint8)[first:]
    return [Frame.of(rgb, first + i, 0, camera) for i, rgb in enumerate(images)]


# -- the layout -------------------------------------------------------------------------------------------------------


def test_the_lists_are_those_of_the_published_files() -> None:
    # VGGT-1B: 1210 tensors of the aggregator, 69 of the head for cameras, 62 of that for depth. DA3-SMALL: 437 tensors
    # of 34,299,463 numbers, 137,248,940 bytes with the header.
    names = list(made_views.vggt_shapes())
    assert [sum(n.startswith(part) for n in names) for part in ("aggregator.", "camera_head.", "depth_head.")] == [
        1210, 69, 62,
    ]  # fmt: skip
    shapes = made_views.da3_shapes()
    assert len(shapes) == 437
    assert sum(math.prod(shape) for shape in shapes.values()) == 34_299_463


def test_networks_of_published_size_have_exactly_these_tensors() -> None:
    from foundation_adapters.depth_anything_3 import DepthAnything3
    from foundation_adapters.depth_anything_3 import Sizes as Da3Sizes
    from foundation_adapters.vggt import Sizes, Vggt

    shapes = made_views.vggt_shapes()
    assert Sizes.of(Published("", made_views.vggt_config(), shapes, {}, "")) == Sizes()
    with torch.device("meta"):
        network = Vggt(Sizes())
    unused = ("point_head.", "track_head.", "aggregator.patch_embed.mask_token")
    wanted = {n: s for n, s in shapes.items() if not n.startswith(unused)}
    assert {n: tuple(t.shape) for n, t in network.state_dict().items()} == wanted
    shapes = {n.removeprefix("model."): s for n, s in made_views.da3_shapes().items()}
    with torch.device("meta"):
        network = DepthAnything3(Da3Sizes.of(Published("", made_views.da3_config(), shapes, {}, "")))
    own = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    assert len(own) == 437 - 158  # 94 of the rays' head, 64 of the encoder of given cameras
    assert own == {n: shapes[n] for n in own}


def test_giant_has_gated_perceptrons() -> None:
    # DINOv2's giant: 1536 channels, and 4096 in the perceptron instead of 4 * 1536, for the gate's sake.
    block = alternating.Block(1536, 24, gated=True)
    assert block.mlp.w12.weight.shape == (8192, 1536) and block.mlp.w3.weight.shape == (1536, 4096)


# -- the parts, held against what is obvious ---------------------------------------------------------------------------


def test_turns_by_hand() -> None:
    # One patch at (1, 1) behind one special token, 4 channels a head: half of them a row and half a column, one
    # frequency each, 100^0 = 1 radian a place.
    turn = alternating.turns(1, 1, 1, 4)
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
    c, s = math.cos(1), math.sin(1)
    assert torch.allclose(alternating.turned(x, turn), torch.tensor([[1.0, 0, 0, 1], [c, s, -s, c]]), atol=1e-6)


def test_turned_products_know_only_how_far_apart_two_places_are() -> None:
    cos, sin = alternating.turns(4, 5, 1, 16)
    q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    at = lambda x, n: alternating.turned(x, (cos[n], sin[n]))  # noqa: E731
    # Tokens 1 and 8 are (1, 1) and (2, 3); 7 and 14 the same a row and a column on: (2, 2) and (3, 4).
    assert float(at(q, 1) @ at(k, 8)) == pytest.approx(float(at(q, 7) @ at(k, 14)), abs=1e-5)
    assert float(at(q, 1) @ at(k, 8)) != pytest.approx(float(at(q, 1) @ at(k, 9)), abs=1e-3)


def test_attention_is_the_textbook_s() -> None:
    torch.manual_seed(0)
    layer = alternating.Attention(8, 2, norm=True)
    x = torch.randn(3, 5, 8)
    q, k, v = layer.qkv(x).chunk(3, -1)
    heads = []
    for h in (0, 1):
        a, b, c = (t[..., 4 * h : 4 * h + 4] for t in (q, k, v))
        weight = (layer.q_norm(a) @ layer.k_norm(b).transpose(1, 2) / 2).softmax(-1)
        heads.append(weight @ c)
    assert torch.allclose(layer(x, None), layer.proj(torch.cat(heads, -1)), atol=1e-6)


def test_across_lets_each_view_see_all_others() -> None:
    torch.manual_seed(0)
    block, x = alternating.Block(16, 2), torch.randn(3, 7, 16)
    turn = alternating.turns(2, 3, 1, 8)
    together = alternating.across(block, x, turn)
    changed = x.clone()
    changed[2, 3, 5] += 1
    assert not torch.allclose(alternating.across(block, changed, turn)[0], together[0], atol=1e-6)
    assert torch.equal(block(changed, turn)[0], block(x, turn)[0])


def test_quaternions_have_their_scalar_last() -> None:
    # A quarter turn about z takes x to y.
    turn = alternating.rotations(torch.tensor([0, 0, math.sin(math.pi / 4), math.cos(math.pi / 4)]) * 3.0)
    assert torch.allclose(turn @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)


def test_the_embedding_of_places_at_its_own_size_is_itself_and_else_smooth() -> None:
    embedding = torch.randn(1, 17, 6)
    assert alternating.placed(embedding, 4, 4, 0.1) is embedding
    flat = torch.full((1, 17, 6), 2.0)
    for offset in (0.0, 0.1):
        found = alternating.placed(flat, 3, 6, offset)
        assert found.shape == (1, 19, 6) and torch.allclose(found, torch.tensor(2.0), atol=1e-5)


def test_the_place_in_the_image_by_hand() -> None:
    # Of 3 x 2 pixels and the aspect 1.5: the outer columns lie at 1.5 / sqrt(1.5^2 + 1) * 2 / 3, the rows at half of
    # 1 / sqrt(1.5^2 + 1); four channels are sine and cosine of each, at one frequency.
    found = alternating._with_place(torch.zeros(1, 4, 2, 3), 1.5)[0, :, 0, 0] / 0.1
    x, y = -1.5 / 3.25**0.5 * 2 / 3, -1 / 3.25**0.5 / 2
    assert found.tolist() == pytest.approx([math.sin(x), math.cos(x), math.sin(y), math.cos(y)], abs=1e-6)


# -- the estimator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vggt", "da3"])
def test_a_folder_gives_depth_pose_and_camera_of_a_window(kind: str, folders: dict[str, Path]) -> None:
    estimator = load_estimator(str(folders[kind]))
    assert isinstance(estimator, MultiViewEstimator)
    first = estimator.estimate(_frames(3))
    assert first.depth.shape == (3, 64, 96) and first.depth.dtype == np.float32
    assert (first.depth > 0).all() and np.isfinite(first.depth).all()
    assert float(np.median(first.depth)) == pytest.approx(40, rel=1e-3)
    assert ((first.confidence > 0) & (first.confidence <= 1)).all()
    assert np.isnan(first.previous_from_cam[0]).all()
    for pose in first.previous_from_cam[1:]:
        assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-5)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    second = estimator.estimate(_frames(2, first=3), first)
    assert second.depth.shape == (2, 64, 96) and np.isfinite(second.previous_from_cam).all()
    # A process that goes on has only the window before, which is enough to get the same.
    again = estimator.estimate(_frames(2, first=3), estimator.estimate(_frames(3)))
    assert np.array_equal(again.depth, second.depth)
    camera, spread = estimator.estimate_camera(_frames(4, camera=None))
    assert camera.model == "pinhole" and camera.focal_px > 0 and spread >= 0


def test_licences_are_told_and_asked_about(folders: dict[str, Path], tmp_path: Path) -> None:
    assert load_estimator(str(folders["da3"])).licence == "apache-2.0"
    assert vggt.licence("facebook/VGGT-1B") == "CC-BY-NC-4.0"
    assert depth_anything_3.licence("depth-anything/DA3-BASE") == "Apache-2.0"
    with pytest.raises(InputError, match="forbids commercial use: add --accept-licence"):
        load_estimator("depth-anything/DA3-LARGE")
    made_views.write(
        tmp_path / "nc", made_views.da3_shapes(**made_views.SMALL_DA3), made_views.da3_config((4, 5, 6, 7)),
        "---\nlicense: cc-by-nc-4.0\n---\n",
    )  # fmt: skip
    with pytest.raises(InputError, match="cc-by-nc"):
        load_estimator(str(tmp_path / "nc"))
    assert load_estimator(str(tmp_path / "nc"), accept_licence=True).licence == "cc-by-nc-4.0"


class _Told:
    """Says of V views of a wall at depth 2 that the camera steps by (1, 0, 0) and turns by a tenth about y."""

    patch, long_side = 14, 112

    def __call__(self, image: torch.Tensor) -> Views:
        v, _, h, w = image.shape
        assert (h, w) == (70, 112)  # 64 x 96 with the long side at 112, in patches of 14
        step = np.eye(4)
        step[:3, :3] = [[math.cos(0.1), 0, math.sin(0.1)], [0, 1, 0], [-math.sin(0.1), 0, math.cos(0.1)]]
        step[0, 3] = 1
        world_from_cam = [np.linalg.matrix_power(step, n) for n in range(v)]
        told = torch.from_numpy(np.linalg.inv(np.stack(world_from_cam)))
        return Views(torch.full((v, h, w), 2.0), torch.full((v, h, w), 4.0), told, torch.full((v, 2), 0.75))


def test_poses_and_depth_share_the_window_s_unit() -> None:
    estimator = MultiViewEstimator(_Told(), "told", "", "")
    first = estimator.estimate(_frames(2))
    # A step of half the median depth, which becomes 40.
    assert first.previous_from_cam[1, :3, 3] == pytest.approx([20, 0, 0])
    assert first.previous_from_cam[1, 0, 2] == pytest.approx(math.sin(0.1))
    linked = estimator.estimate(_frames(1, first=2), first)
    assert linked.previous_from_cam[0, :3, 3] == pytest.approx([20, 0, 0])
    # An expected error of 0.2 / 4 of the median, times the root of two.
    assert first.log_std[0, 10, 10] == pytest.approx(0.0707, abs=1e-4)
    assert first.confidence[0, 10, 10] == pytest.approx(1 / (1 + 0.5), abs=1e-3)
    camera, spread = estimator.estimate_camera(_frames(3, camera=None))
    # sqrt(.75 * 96 * .75 * 64)
    assert camera.focal_px == pytest.approx(0.75 * math.sqrt(96 * 64)) and spread == pytest.approx(0, abs=1e-6)


def test_windows_of_other_sizes_are_not_linked() -> None:
    estimator = MultiViewEstimator(_Told(), "told", "", "")
    small = estimator.estimate(_frames(1))
    state = Frame.of(np.zeros((128, 160, 3), np.uint8))
    from dataclasses import replace

    assert np.isnan(estimator.estimate(_frames(1), replace(small, state=state)).previous_from_cam[0]).all()


# -- bad input --------------------------------------------------------------------------------------------------------


def _changed(folder: Path, to: Path, change) -> Path:  # type: ignore[no-untyped-def]
    to.mkdir()
    state = load_file(str(folder / "model.safetensors"))
    change(state)
    save_file(state, str(to / "model.safetensors"))
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    return to


@pytest.mark.parametrize(
    ("kind", "name"), [("vggt", "camera_head.trunk.1.ls2.gamma"), ("da3", "model.cam_dec.fc_t.bias")]
)
def test_incomplete_and_foreign_files_are_refused(
    kind: str, name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    short = name.removeprefix("model.")
    with pytest.raises(InputError, match=rf"lacks parts of the network \(first: {short}\)"):
        load_estimator(str(_changed(folders[kind], tmp_path / "less", lambda s: s.pop(name))))
    with pytest.raises(InputError, match=f"of another network: {short} is"):
        load_estimator(str(_changed(folders[kind], tmp_path / "shape", lambda s: s.update({name: torch.ones(5)}))))
    with pytest.raises(InputError, match=r"parts of another network \(first: .*surprise"):
        load_estimator(
            str(_changed(folders[kind], tmp_path / "more", lambda s: s.update({f"{name}.surprise": torch.ones(5)})))
        )
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((folders[kind] / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes((folders[kind] / "model.safetensors").read_bytes()[:-40])
    with pytest.raises(InputError, match="can't be read"):
        load_estimator(str(broken))
    (broken / "model.safetensors").rename(broken / "model.pt")
    with pytest.raises(InputError, match=r"expected config\.json and model\.safetensors"):
        load_estimator(str(broken))


def test_single_view_networks_of_the_family_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = _changed(folders["da3"], tmp_path / "mono", lambda s: None)
    config = json.loads((folder / "config.json").read_text())
    del config["config"]["cam_dec"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no any-view network of Depth Anything 3"):
        load_estimator(str(folder))


def test_they_take_no_adapter_and_are_not_adapted(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="used as it is"):
        load_base(str(folders["da3"]))


def test_without_network_it_says_what_it_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="hf download depth-anything/DA3-SMALL"):
        load_estimator("depth-anything/DA3-SMALL")


@pytest.mark.parametrize(
    ("model", "slot"),
    [("facebook/VGGT-1B", vggt), ("depth-anything/DA3-BASE", depth_anything_3), ("someone/vggt-1b-fork", vggt)],
)
def test_hub_ids_go_to_the_file_of_their_family(model: str, slot: object) -> None:
    from foundation_adapters.backbones import modules

    assert [m for m in modules().values() if m.accepts(model)] == [slot]
