"""How fast Gaussians are rendered and trained on the CPU, against PyTorch and against a plain loop; how good they get.

    python tools/bench_splats.py                     # the table of speed
    python tools/bench_splats.py --clips DIR         # traced clips with their true poses: PSNR, SSIM, depth
    python tools/bench_splats.py --clips DIR --poses run --runs OUT      # and beside them with our poses

Everything is timed in one process, by turns, and the shortest of some repeats counts; on a busy machine --cpu-time with
one thread gives the ratios.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rendering.splat._composite as composite
from endorecon.job import reconstruct_video
from endorecon.run import read_run
from endorecon.scenes._splat_adam import FusedAdam
from endorecon.scenes._splat_light import Light
from endorecon.scenes._splat_loss import Weights, frame_loss
from endorecon.scenes._splat_model import read_scene
from endorecon.scenes.base import SplatChoice
from rendering.splat import Job, rasterize, set_threads
from tools.splat_baselines import plain_backward, plain_forward, torch_layers, torch_loss
from video_io.datasets import open_truth

SIZES = ((20_000, 320, 256), (60_000, 320, 256), (200_000, 320, 256), (20_000, 640, 512), (60_000, 640, 512),
         (200_000, 640, 512))  # fmt: skip


OURS = "auto: tracked in the images"  # what run.yaml says of poses
MINUTES = (2, 5, 15)  # at which a training's figures are shown
ROW_SECONDS = 35  # the most between rows of a run's history


def made_scene(number: int, width: int, height: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """A wavy wall of Gaussians about as large as their distance: raw parameters, viewmat, K."""
    g = torch.Generator().manual_seed(0)
    size, focal = torch.tensor([width, height]), 0.9 * width
    pixel = (torch.rand(number, 2, generator=g) * 1.1 - 0.05) * size
    z = 25 + 12.5 * torch.sin(6 * pixel[:, 0] / width) * 0.5 + torch.rand(number, generator=g)
    means = torch.cat([(pixel - size / 2) / focal * z[:, None], z[:, None]], 1)
    gap = (width * height / number) ** 0.5
    scales = np.log(0.8 * gap) + 0.4 * torch.randn(number, 3, generator=g) + torch.log(z / focal)[:, None]
    opacities = 1.5 * torch.randn(number, generator=g)
    raw = [means, torch.randn(number, 4, generator=g), scales, opacities, torch.rand(number, 3, generator=g)]
    k = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return [t.requires_grad_() for t in raw], torch.eye(4), k


def shortest(work: Callable[[], float], repeats: int) -> float:
    """The least of what `work` returns, after a first run that may compile."""
    work()
    return min(work() for _ in range(repeats))


class Trial:
    """One scene and image size; each method times itself and returns seconds."""

    def __init__(self, number: int, width: int, height: int) -> None:
        self.raw, self.view, self.k = made_scene(number, width, height)
        self.width, self.height = width, height
        rng = np.random.default_rng(0)
        stride = -(-width // 8) * 8
        self.target = np.zeros((3, height, stride), np.float32)
        self.target[:, :, :width] = rng.random((3, height, width), np.float32)
        self.use, self.depth = np.ones((height, width), bool), np.full((height, width), 25, np.float32)

    def active(self) -> list[torch.Tensor]:
        means, quats, scales, opacities, colors = self.raw
        return [means, quats, torch.exp(scales), torch.sigmoid(opacities), colors]

    def clear(self) -> None:
        for t in self.raw:
            t.grad = None

    def ours(self) -> tuple[float, float]:
        self.clear()
        t0 = time.perf_counter()
        layers = rasterize(
            *self.active(), self.view[None], self.k[None], self.width, self.height, backend="cpu"  # type: ignore[misc]
        )  # fmt: skip
        t1 = time.perf_counter()
        torch.autograd.backward(
            [layers.color, layers.depth], [torch.ones_like(t) for t in (layers.color, layers.depth)]
        )
        return t1 - t0, time.perf_counter() - t1

    def pytorch(self) -> tuple[float, float]:
        self.clear()
        t0 = time.perf_counter()
        color, _, depth = torch_layers(self.job())
        t1 = time.perf_counter()
        torch.autograd.backward([color, depth], [torch.ones_like(color), torch.ones_like(depth)])
        return t1 - t0, time.perf_counter() - t1

    def plain(self) -> tuple[float, float]:
        kept = composite.forward_kernel, composite.backward_kernel
        composite.forward_kernel = lambda colours, *_: plain_forward(colours + 1)  # type: ignore[assignment]
        composite.backward_kernel = lambda colours, *_: plain_backward(colours + 1)  # type: ignore[assignment]
        try:
            return self.ours()
        finally:
            composite.forward_kernel, composite.backward_kernel = kept

    def job(self) -> Job:
        k = torch.stack([self.k[0, 0], self.k[1, 1], self.k[0, 2], self.k[1, 2], *torch.zeros(4)])
        return Job(
            torch.zeros(len(self.raw[0]), 2), *self.active(), self.view, k, self.width, self.height, None, False, False,
            False, 0.01, 1e10, 0.3,
        )  # fmt: skip

    def our_iteration(self, adam: FusedAdam) -> float:
        self.clear()
        t0 = time.perf_counter()
        layers = rasterize(
            *self.active(), self.view[None], self.k[None], self.width, self.height, backend="cpu"  # type: ignore[misc]
        )  # fmt: skip
        images = [t[0].detach().numpy() for t in layers[:3]]  # type: ignore[index]
        unit, none, lit = np.ones(3, np.float32), np.zeros(3, np.float32), np.ones_like(self.depth)
        loss = frame_loss(
            *images, self.target, self.use, self.depth, np.ones_like(self.depth), lit, unit, none, Weights()
        )
        gradients = [torch.from_numpy(g)[None] for g in (loss.g_color, loss.g_alpha, loss.g_depth)]
        torch.autograd.backward(list(layers[:3]), gradients)  # type: ignore[arg-type]
        adam.step()
        return time.perf_counter() - t0

    def pytorch_iteration(self, adam: torch.optim.Adam) -> float:
        self.clear()
        t0 = time.perf_counter()
        color, alpha, depth = torch_layers(self.job())
        loss = torch_loss(color.permute(2, 0, 1), torch.from_numpy(self.target[:, :, : self.width]))
        on = alpha > 0.5
        loss = loss + 0.1 * (depth[on] / 25).log().abs().mean() + 0.02 * (1 - alpha).mean()
        loss.backward()
        adam.step()
        return time.perf_counter() - t0


def row(number: int, width: int, height: int, threads: int, repeats: int) -> str:
    """One line of the table."""
    set_threads(threads)
    torch.set_num_threads(threads)
    trial = Trial(number, width, height)

    def pair(work: Callable[[], tuple[float, float]], times: int) -> tuple[float, float]:
        work()
        both = [work() for _ in range(times)]
        return min(b[0] for b in both), min(b[1] for b in both)

    ours, plain = pair(trial.ours, 4 * repeats), pair(trial.plain, repeats)
    pytorch = pair(trial.pytorch, max(repeats // 2, 1))
    ours = tuple(map(min, ours, pair(trial.ours, 4 * repeats)))  # type: ignore[assignment]
    mine, theirs = FusedAdam(trial.raw, lr=1e-4), torch.optim.Adam(trial.raw, lr=1e-4, fused=True)
    iteration = shortest(lambda: trial.our_iteration(mine), 4 * repeats)
    other = shortest(lambda: trial.pytorch_iteration(theirs), max(repeats // 2, 1))
    ms = lambda *seconds: " / ".join(f"{1e3 * s:.1f}" for s in seconds)  # noqa: E731
    return (
        f"| {number // 1000}k | {width} x {height} | {threads} | {ms(*ours)} | {ms(*plain)} | {ms(*pytorch)} | "
        f"{sum(plain) / sum(ours):.1f} | {sum(pytorch) / sum(ours):.0f} | {ms(iteration)} | {ms(other)} | "
        f"{other / iteration:.0f} |"
    )


def speed(sizes: int, threads: list[int], repeats: int) -> None:
    print("Milliseconds, forward / backward; ratios of forward and backward together.\n")
    print("| Gaussians | image | threads | ours | plain numba | PyTorch | plain / ours | PyTorch / ours | iteration | "
          "PyTorch iteration | ratio |")  # fmt: skip
    print("|" + "---|" * 11)
    for number, width, height in SIZES[:sizes]:
        for workers in threads:
            print(row(number, width, height, workers, repeats), flush=True)


def noise_psnr(path: Path) -> float:
    """What a perfect picture would score against a frame with this frame's noise (Immerkaer, CVIU 64(2), 1996).

    Fine texture counts as noise, so it is a little low.
    """
    image = cv2.imread(str(path)).astype(np.float32) / 255
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    deviation = np.sqrt(np.pi / 2) / 6 * np.abs(cv2.filter2D(image, -1, mask)).mean((0, 1))
    return float(-10 * np.log10((deviation**2).mean()))


def reconstructed(folder: Path, out: Path, ours: bool, minutes: float, choice: SplatChoice) -> Path:
    """The run of a traced clip with its true poses, or with our own, whose world has a unit of its own."""
    if out.is_dir() and is_run(out):
        return out
    poses = {} if ours else {"poses": str(folder / "poses.txt"), "poses_unit": "mm"}
    return reconstruct_video(
        folder / "rgb", out, camera=folder / "intrinsics.json", scene="splats", splat_minutes=minutes,
        splat_choice=choice, **poses,
    )  # type: ignore[arg-type]  # fmt: skip


def is_run(path: Path) -> bool:
    """Whether there is a finished run with Gaussians."""
    return (path / "run.yaml").is_file() and (path / "scene" / "splats.ply").is_file()


def nearest(history: list[list[float]], minutes: float) -> str:
    """PSNR and SSIM in the row of a run's history that is nearest to this time, and the time where it is not near."""
    seconds, _, _, psnr, ssim = min(history, key=lambda row: abs(row[0] - 60 * minutes))
    shown = "-" if psnr is None else f"{psnr:.2f} / {ssim:.3f}"
    return shown if abs(seconds - 60 * minutes) < ROW_SECONDS else f"{shown} ({seconds:.0f} s)"


def judged(path: Path, folder: Path, name: str, pictures: Path) -> list[list[float]]:
    """Print how good the frames are that were held out: pictures by the run's own figures, depth against the truth, by
    one factor for all of them where the run has no unit. Returns the run's history; nothing without Gaussians."""
    run = read_run(path)
    if "splats" not in run.info or not is_run(path):
        print(f"| {name} | no Gaussians: {'; '.join(run.info['warnings'])[:200]} " + "| " * 7 + "|", flush=True)
        return []
    splats, truth, shown, true = read_scene(path / "scene"), open_truth(folder), [], []
    figures = run.info["splats"]
    light = Light(figures["light"]["usual_depth"], np.array(figures["light"]["law"]))
    poses = dict(zip((row.index for row in run.rows if row.status == "tracked"), run.trajectory.world_from_cam))
    for index in figures["held_out"]:
        layers = splats.render(run.camera, poses[index])
        depth = cv2.resize(truth.depth(index), (run.camera.width, run.camera.height), interpolation=cv2.INTER_NEAREST)
        known = depth > 0
        shown.append([d.numpy()[known] for d in layers[2:4]])
        true.append(depth[known])
        lit = layers.color.numpy() * light.factor(layers.depth.numpy())[..., None]  # but for the frame's exposure
        rgb = (255 * np.clip(lit, 0, 1)).astype(np.uint8)
        cv2.imwrite(str(pictures / f"{name}_{index:04d}.png"), rgb[..., ::-1])
    expected, median, depth = (np.concatenate(v) for v in (*zip(*shown), true))
    factor = 1.0 if run.info["poses"] != OURS else np.median(depth[expected > 0] / expected[expected > 0])
    off = [np.abs(factor * d / depth - 1).mean() for d in (expected, median)]
    best = np.mean([noise_psnr(truth.image_paths[index]) for index in figures["held_out"]])
    for seconds, steps, gaussians, psnr, ssim in figures["history"]:
        print(f"| {name} | {seconds:.0f} | {steps} | {gaussians} | {psnr:.2f} | {best:.1f} | {ssim:.3f} | | |")
    end = f"{figures['steps']} | {figures['gaussians']} | {figures['psnr']:.2f} | {best:.1f}"
    print(f"| {name} | end | {end} | {figures['ssim']:.3f} | {off[0]:.4f} | {off[1]:.4f} |", flush=True)
    print(f"{name}: held out {figures['held_out']}, of {len(run.rows)} frames {len(run.trajectory)} placed",
          file=sys.stderr)  # fmt: skip
    return figures["history"]


def quality(
    data: Path, names: list[str], minutes: float, kinds: tuple[bool, ...], choice: SplatChoice, out: Path,
    pictures: Path,
) -> None:  # fmt: skip
    """Train on each traced clip with its true poses (False) or ours (True), as `endorecon reconstruct` does."""
    print("| clip, poses | seconds | steps | Gaussians | PSNR | at best | SSIM | depth AbsRel | of the median depth |")
    print("|" + "---|" * 9)
    histories = {}
    for name in names:
        for ours in kinds:
            label = f"{name}, {'ours' if ours else 'true'}"
            run = reconstructed(data / name, out / label.replace(", ", "_"), ours, minutes, choice)
            histories[label] = judged(run, data / name, label, pictures)
    times = [m for m in MINUTES if m < minutes] + [minutes]
    print(f"\nPSNR / SSIM in the course of one training of {minutes:g} minutes, whose rates fall towards its end.\n")
    print("| clip, poses | " + " | ".join(f"{m:g} min" for m in times) + " |\n" + "|---" * (len(times) + 1) + "|")
    for label, history in histories.items():
        if history:
            print(f"| {label} | " + " | ".join(nearest(history, m) for m in times) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes, from the smallest")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cpu-time", action="store_true", help="CPU time instead of the clock's, for a busy machine")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips", type=Path, help="a folder of clips with truth: train on them instead")
    parser.add_argument("--names", nargs="+", default=["traced_colon", "traced_sinus", "traced_lap"])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--poses", choices=["true", "run"], default="true", help="run: true ones, and beside them ours")
    parser.add_argument("--runs", type=Path, help="where the runs are kept; one that is there is not made again")
    parser.add_argument("--surfels", action="store_true")
    parser.add_argument("--growth", choices=["default", "mcmc"], default="default")
    parser.add_argument("--improve-poses", action="store_true", help="along with the Gaussians")
    parser.add_argument("--pictures", type=Path, help="a folder for the rendered frames that were held out")
    options = parser.parse_args()
    if options.clips:
        with tempfile.TemporaryDirectory() as scratch:
            kinds = (False, True) if options.poses == "run" else (False,)
            choice = SplatChoice(options.surfels, options.growth, options.improve_poses)
            for folder in (options.runs, options.pictures):
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
            out, pictures = options.runs or Path(scratch), options.pictures or Path(scratch)
            quality(options.clips, options.names, options.minutes, kinds, choice, out, pictures)
        return
    if options.cpu_time:
        time.perf_counter = time.process_time
    speed(options.sizes, options.threads, options.repeats)


if __name__ == "__main__":
    main()
