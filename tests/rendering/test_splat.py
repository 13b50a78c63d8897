"""The rasteriser: every backend against the reference, and the reference against finite differences and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made_splats import HEIGHT, NAMES, NASTY, WIDTH, camera, nasty_scene, random_scene
from torch import Tensor

from rendering.splat import Layers, backends, find_backend, rasterize
from rendering.splat._workers import set_threads, threads
from video_io.errors import InputError

FAST = ["cpu", pytest.param("gsplat", marks=pytest.mark.gpu)]
FISHEYE = torch.tensor([[0.05, -0.02, 0.01, 0.002]], dtype=torch.float64)


def render(scene: list[Tensor], backend: str, **options: object) -> tuple[Layers, dict[str, Tensor]]:
    """Images, and the gradient of a random linear function of them by each input.

    Expected depth counts where a twentieth is seen: below, it is a quotient whose denominator, 1 - transmittance, has
    few digits in float32.
    """
    kind = torch.float64 if backend == "reference" else torch.float32
    device = "cuda" if backend == "gsplat" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    inputs = [t.float().to(device, kind).clone().requires_grad_(i < 6) for i, t in enumerate(scene)]
    moved = torch.zeros(1, len(inputs[0]), 2, dtype=kind, device=device, requires_grad=True)
    layers = rasterize(*inputs, WIDTH, HEIGHT, means2d=moved, backend=backend, **options)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(9)
    loss = torch.zeros((), dtype=kind, device=device)
    for i, image in enumerate(layers):
        if image is not None and i != 5:
            weight = torch.randn(image.shape, generator=g, dtype=torch.float64).to(image)
            counts = torch.ones_like(image)
            if i == 2 or (i == 3 and layers.distortion is not None):
                # A surfel's plane may be met at a hundred times its distance, where depth has few digits too.
                counts = (layers.alpha.detach() > 0.05) & (image.detach() < 50)
            loss = loss + (image * weight * counts).sum()
    loss.backward()
    gradients = {name: t.grad for name, t in zip((*NAMES, "means2d"), (*inputs[:6], moved), strict=True)}
    return layers, {name: g.double().cpu() for name, g in gradients.items() if g is not None}


def hold_against_reference(scene: list[Tensor], backend: str, tolerance: float = 1e-4, **options: object) -> None:
    expected, slopes = render(scene, "reference", **options)
    found, gradients = render(scene, backend, **options)
    for name, a, b in zip(Layers._fields, expected, found, strict=True):
        assert (a is None) == (b is None), name
        if name == "radii":  # one that reaches no pixel's centre may count as seen or not
            both = (a > 0) & (b.cpu() > 0)
            assert ((a - b.cpu()).abs()[both] <= 1).all()
        elif a is not None and a.numel():
            error = (a.detach().double() - b.detach().double().cpu()).abs()
            assert (error > (1e-3 if name in ("depth", "median") else 1e-5)).float().mean() < 1e-3, name
            # Rounding may put an alpha on the other side of 1 / 255.
            assert name in ("depth", "median") or error.max() < 1 / 255, name
    for name, slope in slopes.items():
        error = (slope - gradients[name]).norm() / slope.norm().clamp(min=1e-6)
        assert error < tolerance, f"gradient by {name}: {error:.2e}"


@pytest.mark.parametrize("backend", FAST)
class TestBackends:
    def test_random(self, backend: str) -> None:
        hold_against_reference(random_scene(), backend)

    def test_all_layers(self, backend: str) -> None:
        hold_against_reference(random_scene(seed=1), backend, median=True, normals=True)

    @pytest.mark.parametrize("degree", [0, 1, 2, 3])
    def test_harmonics(self, backend: str, degree: int) -> None:
        hold_against_reference(random_scene(degree=3, seed=2), backend, sh_degree=degree)

    @pytest.mark.parametrize("radial", [None, FISHEYE])
    def test_fisheye(self, backend: str, radial: Tensor | None) -> None:
        hold_against_reference(random_scene(seed=4), backend, camera_model="fisheye", radial_coeffs=radial)

    @pytest.mark.parametrize("kind", NASTY)
    def test_nasty(self, backend: str, kind: str) -> None:
        hold_against_reference(nasty_scene(kind), backend)

    @pytest.mark.parametrize("kind", ["random", *NASTY])
    def test_surfels(self, backend: str, kind: str) -> None:
        hold_against_reference(random_scene() if kind == "random" else nasty_scene(kind), backend, surfels=True)

    @pytest.mark.parametrize("degree", [0, 2])
    def test_surfels_with_harmonics(self, backend: str, degree: int) -> None:
        hold_against_reference(random_scene(degree=3, seed=2), backend, sh_degree=degree, surfels=True)

    def test_one_on_the_fisheyes_axis(self, backend: str) -> None:
        scene = random_scene(seed=4)
        scene[5][0] = torch.eye(4)
        scene[0][0] = torch.tensor([0.0, 0.0, 3.0])
        scene[0][1] = torch.tensor([1e-5, -2e-5, 2.5])
        hold_against_reference(scene, backend, camera_model="fisheye", radial_coeffs=FISHEYE)

    def test_two_cameras_and_a_background(self, backend: str) -> None:
        scene = random_scene()
        view = scene[5].clone()
        view[0, 0, 3] += 0.3
        scene[5:] = [torch.cat([scene[5], view]), scene[6].repeat(2, 1, 1)]
        shown = rasterize(*scene, WIDTH, HEIGHT, backgrounds=torch.eye(3)[:2].double(), backend="reference")
        kind, device = torch.float32, "cuda" if backend == "gsplat" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        found = rasterize(
            *[t.to(device, kind) for t in scene], WIDTH, HEIGHT, backgrounds=torch.eye(3, device=device)[:2],
            backend=backend,
        )  # fmt: skip
        assert found.color.shape == (2, HEIGHT, WIDTH, 3)
        assert (found.color.cpu() - shown.color).abs().max() < 1e-5


@pytest.mark.parametrize("surfels", [False, True])
def test_reference_by_finite_differences(surfels: bool) -> None:
    """Every input, pose included; distances small enough that no Gaussian crosses a threshold."""
    scene = [t[:4] if len(t) > 1 else t for t in random_scene(seed=7)]
    scene[2] *= 3

    def images(*inputs: Tensor) -> tuple[Tensor, ...]:
        options = {"median": True, "normals": True, "backend": "reference", "surfels": surfels}
        layers = rasterize(*inputs, scene[6], 9, 8, **options)  # type: ignore[misc, arg-type]
        return (*layers[:5], layers.distortion) if surfels else tuple(layers[:5])  # type: ignore[return-value]

    scene[6][0, :2] /= 5
    assert torch.autograd.gradcheck(images, [t.clone().requires_grad_() for t in scene[:6]], eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_two_gaussians_by_hand(backend: str) -> None:
    """Two discs on the axis, seen at the pixel that they are centred on: alpha .6 before .5.

    Weights .6 and (1 - .6) .5 = .2: red .6, green .2, depth (.6 * 2 + .2 * 4) / .8 = 2.5; before the second .4 is left,
    so the median is the first's depth. Both discs face the camera: normal (0, 0, -.8). A standard deviation of .1 at
    depth 2 and focal length 10 is .5 pixel; with .3 added the variance is .55, so one pixel off the first counts
    .6 exp(-.5 / .55) = .24174.
    """
    if backend == "gsplat" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    kind = {"dtype": torch.float64 if backend == "reference" else torch.float32}
    if backend == "gsplat":
        kind["device"] = "cuda"  # type: ignore[assignment]
    layers = rasterize(
        torch.tensor([[0, 0, 2.0], [0, 0, 4.0]], **kind),  # type: ignore[arg-type]
        torch.tensor([[1.0, 0, 0, 0], [3.0, 0, 0, 0]], **kind),  # type: ignore[arg-type]
        torch.tensor([[0.1, 0.1, 1e-3], [1e-4, 1e-4, 1e-5]], **kind),  # type: ignore[arg-type]
        torch.tensor([0.6, 0.5], **kind),  # type: ignore[arg-type]
        torch.tensor([[1.0, 0], [0, 1.0]], **kind),  # type: ignore[arg-type]
        torch.eye(4, **kind)[None],  # type: ignore[arg-type]
        torch.tensor([[[10.0, 0, 4.5], [0, 10.0, 2.5], [0, 0, 1]]], **kind),  # type: ignore[arg-type]
        9, 5, median=True, normals=True, backend=backend,
    )  # fmt: skip
    middle = [image[0, 2, 4] for image in layers[:5]]  # type: ignore[index]
    assert middle[0].tolist() == pytest.approx([0.6, 0.2], abs=1e-6)
    assert [m.item() for m in middle[1:4]] == pytest.approx([0.8, 2.5, 2.0], abs=1e-6)
    assert middle[4].tolist() == pytest.approx([0, 0, -0.8], abs=1e-6)
    assert layers.color[0, 2, 5, 0].item() == pytest.approx(0.24174, abs=1e-5)
    assert layers.depth[0, 0, 0].item() == 0


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_two_surfels_by_hand(backend: str) -> None:
    """A slanted surfel before one that faces the camera, on the axis; alpha .6 before .5, focal length 10.

    The first is at depth 2, turned by 45 degrees about y: its plane is x = z - 2, its normal (1, 0, -1) / sqrt 2. The
    ray one pixel to the right, x = .1 z, meets it at z = 2 / .9 = 2.2222, x = .2222: that is .2222 sqrt 2 = .31427
    along the plane, so with a standard deviation of 1, alpha .6 exp(-.31427^2 / 2) = .57109. In the middle the weights
    are .6 and .2: disparity (.6 / 2 + .2 / 4) / .8 = .4375, so depth 2.28571; median 2; distortion .6 * .2 (1/2 -
    1/4)^2 = .0075. The second, of width .001, is as wide as the filter: one pixel off .5 exp(-1) = .18394 of the light,
    of which (1 - .57109) gets there.
    """
    if backend == "gsplat" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    kind = {"dtype": torch.float64 if backend == "reference" else torch.float32}
    if backend == "gsplat":
        kind["device"] = "cuda"  # type: ignore[assignment]
    half = math.radians(45) / 2
    layers = rasterize(
        torch.tensor([[0, 0, 2.0], [0, 0, 4.0]], **kind),  # type: ignore[arg-type]
        torch.tensor([[math.cos(half), 0, -math.sin(half), 0], [1.0, 0, 0, 0]], **kind),  # type: ignore[arg-type]
        torch.tensor([[1.0, 1.0, 7.0], [1e-3, 1e-3, 1.0]], **kind),  # type: ignore[arg-type]
        torch.tensor([0.6, 0.5], **kind),  # type: ignore[arg-type]
        torch.tensor([[1.0, 0], [0, 1.0]], **kind),  # type: ignore[arg-type]
        torch.eye(4, **kind)[None],  # type: ignore[arg-type]
        torch.tensor([[[10.0, 0, 4.5], [0, 10.0, 2.5], [0, 0, 1]]], **kind),  # type: ignore[arg-type]
        9, 5, surfels=True, backend=backend,
    )  # fmt: skip
    assert layers.median is not None and layers.distortion is not None and layers.normals is not None
    assert layers.color[0, 2, 4].tolist() == pytest.approx([0.6, 0.2], abs=1e-6)
    middle = [layer[0, 2, 4].item() for layer in (layers.alpha, layers.depth, layers.median, layers.distortion)]
    assert middle == pytest.approx([0.8, 2.285714, 2.0, 0.0075], abs=1e-5)
    root = math.sqrt(0.5)
    assert layers.normals[0, 2, 4].tolist() == pytest.approx([0.6 * root, 0, -0.6 * root - 0.2], abs=1e-5)
    assert layers.color[0, 2, 5].tolist() == pytest.approx([0.57109, 0.18394 * 0.42891], abs=1e-5)
    assert layers.median[0, 2, 5].item() == pytest.approx(2 / 0.9, abs=1e-4)


def test_a_tile_is_left_once_it_is_full() -> None:
    """A wall before a thousand others: the rest has no gradient, and the same image comes out without it."""
    scene = random_scene(1000)
    scene[2][:20], scene[3][:20], scene[0][:20] = 30.0, 0.9, torch.tensor([0, 0, 1.5], dtype=torch.float64)
    scene[0][20:, 2] += 2
    layers, gradients = render(scene, "cpu")
    short, _ = render([t[:20] for t in scene[:5]] + scene[5:], "cpu")
    assert torch.equal(layers.color, short.color)
    assert gradients["means"][20:].abs().max() == 0


def test_threads_do_not_change_the_image() -> None:
    before = threads()
    try:
        set_threads(1)
        one, slopes = render(random_scene(300), "cpu")
        set_threads(3)
        three, gradients = render(random_scene(300), "cpu")
    finally:
        set_threads(0)
    assert threads() == before
    assert torch.equal(one.color, three.color)
    assert all(torch.allclose(slopes[name], gradients[name], rtol=1e-6, atol=1e-9) for name in NAMES)


def test_frozen_inputs_and_single_layers() -> None:
    scene = [t.float() for t in random_scene()]
    scene[0].requires_grad_()
    rasterize(*scene, WIDTH, HEIGHT, backend="cpu").depth.sum().backward()  # type: ignore[misc]
    assert scene[0].grad is not None and scene[0].grad.abs().sum() > 0
    assert all(t.grad is None for t in scene[1:])


@pytest.mark.parametrize("backend", FAST)
def test_not_finite_gaussians_are_left_out(backend: str) -> None:
    device = "cuda" if backend == "gsplat" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene = [t.to(device, torch.float32) for t in random_scene()]
    for lens in ("pinhole", "fisheye"):
        options = {"camera_model": lens, "backend": backend}
        clean = rasterize(*[t[1:] for t in scene[:5]], *scene[5:], WIDTH, HEIGHT, **options).color  # type: ignore
        for i in range(4):
            broken = [t.clone() for t in scene]
            broken[i][0] = math.nan
            assert torch.equal(rasterize(*broken, WIDTH, HEIGHT, **options).color, clean)  # type: ignore


@pytest.mark.parametrize("backend", FAST)
def test_no_gaussians_show_nothing(backend: str) -> None:
    device = "cuda" if backend == "gsplat" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scene = [t.to(device, torch.float32) for t in random_scene()]
    layers = rasterize(*[t[:0] for t in scene[:5]], *scene[5:], WIDTH, HEIGHT, median=True, backend=backend)  # type: ignore
    assert layers.color.shape == (1, HEIGHT, WIDTH, 3) and layers.alpha.max() == 0


def test_names_and_complaints() -> None:
    scene = [t.float() for t in random_scene()]
    assert backends() == ["cpu", "gsplat", "reference"]
    assert all(find_backend(name).ABOUT for name in ("cpu", "reference"))
    with pytest.raises(InputError, match="'opengl' is not known; choose one of auto, cpu, gsplat, reference"):
        find_backend("opengl")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="needs a CUDA device, and torch finds none; use the rasteriser 'cpu'"):
            find_backend("gsplat")
    with pytest.raises(ValueError, match=r"quats is \(60, 3\), expected \(60, 4\)"):
        rasterize(scene[0], scene[0], *scene[2:], WIDTH, HEIGHT)  # type: ignore[misc]
    with pytest.raises(ValueError, match="at least 9, 3"):
        rasterize(*scene, WIDTH, HEIGHT, sh_degree=2)  # type: ignore[misc]
    with pytest.raises(ValueError, match="surfels are seen by a pinhole camera, found fisheye"):
        rasterize(*scene, WIDTH, HEIGHT, camera_model="fisheye", surfels=True)  # type: ignore[misc]
    with pytest.raises(ValueError, match="camera model 'ortho' is not known"):
        rasterize(*scene, WIDTH, HEIGHT, camera_model="ortho")  # type: ignore[misc, arg-type]
    with pytest.raises(ValueError, match="a number of threads is at least 1"):
        set_threads(-1)
    view, k = camera()
    assert view.shape == (1, 4, 4) and k.shape == (1, 3, 3)
