"""The table of accuracy and speed: python tools/bench.py [--data FOLDER] [--clips ...] [--memory] [--colmap]
[--ablation] [--runtimes]; `make bench` asks for --colmap and --ablation.

FOLDER holds clips with truth (`endorecon simulate` makes such clips); by default ../shared/data beside the repository.
Every clip is reconstructed by the command line program in a process of its own, with its intrinsics and without, and
evaluated against its truth. Times are wall-clock: `fps` counts the whole run after the program has been loaded,
`wall fps` everything from the start of the process to its end. --colmap and --ablation add lines below those of each
clip: COLMAP's model of the same frames with the same intrinsics, and the tracking without the network, without the last
refinement, without any (tools/ablation.py, which counts no seconds).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.depth import depth_errors
from endorecon.evaluate.protocol import RunRecord, at_source_pixels, evaluate
from endorecon.run import read_run
from video_io.clip import Clip
from video_io.datasets import Truth, open_truth
from video_io.sources import open_source

CLIPS = ("traced_colon", "traced_sinus", "traced_lap")
RUN_CLIPS = (*CLIPS, "c3vd_trans_t1_a")
NETWORK_CLIPS = (*RUN_CLIPS, "simcol_synthetic_colon")


@dataclass(frozen=True)
class Job:
    """A reconstruction by the command line program and its times in seconds."""

    out: Path
    wall_s: float
    run_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--clips", nargs="*", default=RUN_CLIPS)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--memory", action="store_true", help="300 against 3000 phantom frames (half an hour)")
    parser.add_argument("--runtimes", action="store_true", help="the network by PyTorch, ONNX Runtime and OpenVINO")
    parser.add_argument("--runtimes-only", action="store_true", help="that and nothing else")
    parser.add_argument("--colmap", action="store_true", help="pycolmap's incremental mapping of the same clips")
    parser.add_argument("--ablation", action="store_true", help="tracking without the network, without refinement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        if args.runtimes_only:
            runtime_table(args.data)
            vit_table()
            return 0
        if args.data.is_dir():
            network_table(args.data)
            both = (colmap_lines, args.colmap), (ablation_lines, args.ablation)
            beside = [lines for lines, wanted in both if wanted]
            run_table(args.data, args.clips, out, beside)
        else:
            print(f"no clips in {args.data}: give --data; accuracy is left out")
        latency_table()
        if args.runtimes:
            runtime_table(args.data)
            vit_table()
        if args.memory:
            memory_table(out)
    return 0


# -- the network alone --------------------------------------------------------------------------------------------


def network_table(data: Path) -> None:
    """AbsRel of the network alone: one image at a time, camera given, scaled by the median of each frame."""
    from foundation_adapters.estimator import load_estimator

    estimator = load_estimator()
    print(f"\n{'network alone, per-frame median scale':40} {'AbsRel':>8} {'delta 1':>8} {'frames':>7} {'valid':>6}")
    for name in NETWORK_CLIPS:
        if not (data / name).is_dir():
            continue
        truth = open_truth(data / name)
        errors = depth_errors(NetworkPairs(estimator, data / name, truth), "frame")
        print(
            f"{name:40} {errors.abs_rel:8.4f} {errors.delta1:8.3f} {errors.frames:7d} {errors.valid_share:6.2f}",
            flush=True,
        )


class NetworkPairs:
    """(prediction, valid, truth) of each image of a folder; valid is wherever the camera has a ray."""

    def __init__(self, estimator, folder: Path, truth: Truth) -> None:  # type: ignore[no-untyped-def]
        self.estimator, self.truth = estimator, truth
        self.clip = Clip.of(open_source(folder), truth.camera)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        z = self.clip.camera.ray_map()[..., 2]
        for number, frame in enumerate(self.clip.frames()):
            depth = self.estimator.estimate([frame]).depth[0]
            valid = np.isfinite(z) & (z > 1e-3) & (depth > 0)
            yield (*at_source_pixels(np.where(valid, depth, 1), valid, self.clip.view), self.truth.depth(number))


# -- whole runs ---------------------------------------------------------------------------------------------------


def reconstruct(source: Path, out: Path, camera: Path | None, *more: str) -> Job:
    """Run the program; raises RuntimeError with what it said if it fails."""
    command = [
        sys.executable,
        "-m",
        "endorecon.cli",
        "reconstruct",
        str(source),
        "--out",
        str(out),
        "--overwrite",
        *more,
    ]
    if camera:
        command += ["--camera", str(camera)]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, said = process.communicate()
    wall = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said[-500:]}")
    return Job(out, wall, read_run(out).info["timings_s"]["total"])


Lines = Callable[[Path, str, Path], Iterator[str]]  # of a clip's name in a folder, with a place for what is made
_HEAD = (
    f"\n{'whole runs':43} {'tracked':>8} {'segm.':>6} {'ATE %':>7} {'rot deg':>8} {'AbsRel':>7} {'surface %':>9} "
    f"{'fps':>6} {'wall fps':>8} {'focal':>6}"
)


def run_table(data: Path, clips: list[str], out: Path, beside: Sequence[Lines] = ()) -> None:
    """Trajectory, depth, surface and speed of whole runs, and what stands beside them."""
    print(_HEAD)
    for name in clips:
        if not (data / name).is_dir():
            continue
        for lines in (run_lines, *beside):
            for line in lines(data, name, out):
                print(line, flush=True)


def run_lines(data: Path, name: str, out: Path) -> Iterator[str]:
    """The program, intrinsics given and not; a data set without a video brings its intrinsics along."""
    truth, video = open_truth(data / name), data / name / "video.mp4"
    ways = [(video, data / name / "intrinsics.json"), (video, None)] if video.is_file() else [(data / name, None)]
    for source, camera in ways:
        label = f"{name}, {'given' if camera or source != video else 'not given'}"
        job = reconstruct(source, out / label.replace(", ", "_").replace(" ", "_"), camera)
        run = read_run(job.out)
        found = evaluate(RunRecord(run), truth)
        depth = next(d for d in found.depth if d.scaling == "clip")
        focal = run.source_camera.focal_px / truth.camera.focal_px
        surface = found.surface.accuracy_percent if found.surface else float("nan")
        turn = np.degrees(found.trajectory.rotation_median_rad)
        yield (
            f"{label:43} {100 * found.frames_main_segment / found.frames:7.0f}% {found.segments:6d} "
            f"{found.trajectory.ate_sim3_percent:7.3f} {turn:8.3f} {depth.abs_rel:7.4f} "
            f"{surface:9.2f} {found.frames / job.run_s:6.1f} {found.frames / job.wall_s:8.1f} {focal:6.3f}"
        )


def colmap_lines(data: Path, name: str, out: Path) -> Iterator[str]:
    """pycolmap's incremental mapping with SIFT and the given intrinsics: `segm.` counts its models, and the figures are
    those of the largest one; `fps` is the sparse model's alone."""
    import pycolmap

    from endorecon.evaluate.trajectory import trajectory_errors
    from video_io.trajectory import Trajectory

    pycolmap.logging.minloglevel = 2
    truth, work, label = open_truth(data / name), out / f"colmap_{name}", f"{name}, COLMAP, given"
    work.mkdir(parents=True, exist_ok=True)
    database = work / "database.db"
    database.unlink(missing_ok=True)
    begun = time.perf_counter()
    reader = pycolmap.ImageReaderOptions(
        camera_model={"pinhole": "PINHOLE", "fisheye": "OPENCV_FISHEYE"}[truth.camera.model],
        camera_params=",".join(str(v) for v in truth.camera.params),
    )
    images, number = truth.image_paths[0].parent, {path.name: n for n, path in enumerate(truth.image_paths)}
    pycolmap.extract_features(
        database, images, image_names=list(number), camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader,
        device=pycolmap.Device.cpu,
    )  # fmt: skip
    pycolmap.match_sequential(database, device=pycolmap.Device.cpu)
    models = pycolmap.incremental_mapping(database, images, work)
    seconds = time.perf_counter() - begun
    best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
    poses, times = [], []
    for image in sorted(best.images.values(), key=lambda i: i.name) if best is not None else ():
        poses.append(np.vstack([image.cam_from_world().inverse().matrix(), [0, 0, 0, 1]]))
        times.append(truth.trajectory.times_ns[number[image.name]])
    placed = 100 * len(poses) / truth.frame_count
    if len(poses) < 3:
        yield f"{label:43} {placed:7.0f}% {len(models):6d}  no path"
        return
    path = trajectory_errors(Trajectory(np.array(times), np.stack(poses)), truth.trajectory)
    yield (
        f"{label:43} {placed:7.0f}% {len(models):6d} {path.ate_sim3_percent:7.3f} "
        f"{np.degrees(path.rotation_median_rad):8.3f} {'':7} {'':9} {truth.frame_count / seconds:6.1f}"
    )


def ablation_lines(data: Path, name: str, out: Path) -> Iterator[str]:
    """Tracking with parts of it left out, intrinsics given."""
    from tools.ablation import VARIANTS, opened, track

    clip, frames, nets, truth = opened(data / name)
    for variant in VARIANTS[1:]:
        share, ate, turn = track(clip, frames, nets, truth, variant)
        yield f"{name + ', ' + variant:43} {100 * share:7.0f}% {'':6} {ate:7.3f} {turn:8.3f}"


# -- speed and memory ---------------------------------------------------------------------------------------------


def latency_table() -> None:
    """The default at 256 x 320 against Depth Anything's ViT-S at 224 x 280, in this process, on two threads."""
    import torch

    from foundation_adapters.backbones import tiny

    torch.set_num_threads(2)
    large, small = _vit_s(), tiny.build()
    image = torch.rand(1, 3, 256, 320).contiguous(memory_format=torch.channels_last)
    rays = torch.nn.functional.normalize(torch.rand(1, 3, 128, 160), dim=1)
    patches = torch.rand(1, 3, 224, 280)
    with torch.inference_mode():
        ours, theirs = (
            _fastest(lambda: small(image, rays)),
            _fastest(lambda: large(patches)),
        )
    print(
        f"\nnetwork, torch fp32, 2 threads, one frame: default 256 x 320 {ours * 1e3:.1f} ms, "
        f"ViT-S 224 x 280 {theirs * 1e3:.1f} ms, ratio {ours / theirs:.3f} (at most 0.200 is wanted)"
    )


def _vit_s():  # type: ignore[no-untyped-def]
    """Depth Anything's ViT-S as published, with random weights."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, apply_layernorm=True,
        out_features=["stage3", "stage6", "stage9", "stage12"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64, head_hidden_size=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DepthAnythingForDepthEstimation(config).eval().requires_grad_(False)
    # As drawn it says next to nothing everywhere; a trained one's disparity varies by a third of its mean, say.
    last = model.head.conv3
    with torch.no_grad():
        last.bias.fill_(1.0)
        spread = model(pixel_values=torch.rand(1, 3, 224, 280)).predicted_depth.std()
        last.weight.mul_(0.33 / spread)
    return model


def vit_table() -> None:
    """Each runtime of ViT-S: milliseconds a frame of 224 x 280, and by how much its disparity differs from single
    precision's, as a share of the map's spread. Its weights are random here, so that there is no AbsRel: a folder of
    published ones is measured by `endorecon benchmark --model FOLDER`.
    """
    import io
    import warnings

    import torch
    from torch import Tensor, nn

    class Plain(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> Tensor:
            return self.network(pixel_values=image).predicted_depth

    torch.set_num_threads(2)
    model, image = Plain(_vit_s()), torch.rand(1, 3, 224, 280, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image,), file, opset_version=17, dynamo=False, input_names=["image"])
    onnx, array = file.getvalue(), image.numpy()

    def half() -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return model(image).float().numpy()

    ways = {"pytorch, single precision": lambda: model(image).numpy(), "pytorch, bfloat16": half}
    try:
        import onnxruntime
        import openvino

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 2, 3
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        ways["onnx, single precision"] = lambda: session.run(None, {"image": array})[0]
        for hint, label in (("f32", "single precision"), ("bf16", "bfloat16")):
            settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 2, "PERFORMANCE_HINT": "LATENCY"}
            core = openvino.Core()
            request = core.compile_model(core.read_model(onnx, b""), "CPU", settings).create_infer_request()
            ways[f"openvino, {label}"] = lambda r=request: r.infer([array])[0].copy()
    except ImportError:
        print("ViT-S by ONNX Runtime and OpenVINO: pip install 'endorecon[onnx]'")
    print(f"\n{'ViT-S 224 x 280, random weights, 2 threads':44} {'ms a frame':>10}  {'off by, mean':>14}")
    with torch.inference_mode():
        exact = model(image).numpy()
        for label, run in ways.items():
            off = float(np.mean(np.abs(run() - exact)) / exact.std())
            print(f"{label:44} {1e3 * _fastest(run):10.1f}  {100 * off:12.3f} %", flush=True)


def runtime_table(data: Path) -> None:
    """Each runtime of the default network: milliseconds a frame at 256 x 320 in windows of two, as `reconstruct` runs
    it, and of one frame at 256 x 320 and at 224 x 288, the nearest to 224 x 280 whose sides are multiples of 32; AbsRel
    on CLIPS, and the mean of its relative rise over that of PyTorch in single precision.
    """
    import torch

    from foundation_adapters import runtimes
    from foundation_adapters.backbones import tiny

    torch.set_num_threads(2)
    network = tiny.build()
    # PyTorch in single precision first: the others are held against it.
    names = sorted(runtimes.names(), key=lambda n: n != "pytorch")
    kinds = [(n, h) for n in names for h in ((None,) if n == "onnx" else (False, True))]
    clips = [clip for clip in CLIPS if (data / clip).is_dir()]
    sizes, columns = f"{'two, 256x320':>12} {'256x320':>8} {'224x288':>8}", "  ".join(f"{clip:>14}" for clip in clips)
    print(f"\n{'default network, 2 threads, ms a frame':44} {sizes}  {columns}  loss")
    exact: list[float] = []
    for name, half in kinds:
        if not runtimes.installed(name):
            print(f"{name:44} not installed: pip install 'endorecon[onnx]'")
            continue
        build = runtimes.module(name).build
        run = build(network) if half is None else build(network, half_precision=half)
        times = [_frame_ms(run, count, *size) for count, *size in ((2, 256, 320), (1, 256, 320), (1, 224, 288))]
        errors = [_run_error(network, run, data / clip) for clip in clips]
        exact = exact or errors
        loss = 100 * float(np.mean(np.array(errors) / exact) - 1) if errors else float("nan")
        label = f"{name}, {'bfloat16' if half else 'single precision'}"
        print(
            f"{label:44} {times[0]:12.1f} {times[1]:8.1f} {times[2]:8.1f}  "
            + "  ".join(f"{e:14.5f}" for e in errors)
            + f"  {loss:+.2f} %",
            flush=True,
        )
    taken = next(n for n in runtimes.ORDER if runtimes.installed(n))
    print(f"`reconstruct` takes {taken} here: {runtimes.module(taken).ABOUT}")


def _frame_ms(run, count: int, height: int, width: int) -> float:  # type: ignore[no-untyped-def]
    """Milliseconds a frame of a runtime that gets `count` at a time."""
    import torch

    image = torch.rand(count, 3, height, width).contiguous(memory_format=torch.channels_last)
    rays = torch.nn.functional.normalize(torch.rand(count, 3, height // 2, width // 2), dim=1)
    with torch.inference_mode():
        return 1e3 * _fastest(lambda: run(image, rays)) / count


def _run_error(network, run, folder: Path) -> float:  # type: ignore[no-untyped-def]
    """AbsRel of a runtime of the network on a clip, one scale a frame."""
    from foundation_adapters.estimator import Estimator

    estimator = Estimator(network, "tiny", "", "", run=run)
    return depth_errors(NetworkPairs(estimator, folder, open_truth(folder)), "frame").abs_rel


def _fastest(call, repeats: int = 15) -> float:  # type: ignore[no-untyped-def]
    """Median seconds of a call, after three that are not counted."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def memory_table(out: Path) -> None:
    """Peak memory of runs over 300 and 3000 phantom frames."""
    from rendering.phantom.clip import simulate

    clip = out / "long_phantom"
    if not (clip / "video.mp4").is_file():
        simulate("colon", 7, 3000, None, 30.0, clip, extras=False)
    peaks = {}
    for frames in (300, 3000):
        script = (
            "import resource, sys; from endorecon.cli import main; code = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024); sys.exit(code)"
        )
        arguments = ["reconstruct", str(clip / "video.mp4"), "--camera", str(clip / "intrinsics.json")]
        arguments += ["--out", str(out / f"memory_{frames}"), "--overwrite", "--max-frames", str(frames)]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env={**os.environ}, check=True
        )
        peaks[frames] = float(done.stdout.split()[-1])
    print(
        f"\npeak memory: 300 frames {peaks[300]:.0f} MB, 3000 frames {peaks[3000]:.0f} MB, "
        f"{100 * (peaks[3000] / peaks[300] - 1):+.1f} % (less than 20 % is wanted)"
    )


if __name__ == "__main__":
    raise SystemExit(main())
