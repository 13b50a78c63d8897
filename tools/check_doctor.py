"""Does the doctor find what is wrong, and nothing else? python tools/check_doctor.py CLIPS [--seeds 401 402].

Renders phantom clips into the folder CLIPS (those that are there are kept) and prints:

- damaged: each damage of `rendering.phantom.damage` put into clips in turn; whether the doctor finds it, what else it
  says, and whether `--fix` gives back what the good clip has;
- good: whatever it says of the good clips, as folders, as videos and without depth;
- with --deidentify: text burnt into 20 clips, read by an OCR program (extra `eval`) before and after;
- with --real FOLDER...: what the quick part says of these inputs, and how long it takes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rendering.phantom.burn import burn, some_text
from rendering.phantom.clip import simulate
from rendering.phantom.damage import DAMAGES, Damaged, Material, load, write, write_video
from video_io.agreement import READINGS
from video_io.case import case_of, open_case
from video_io.cleaning import write_clean
from video_io.deidentify import deidentify as clean_copy
from video_io.doctor import Finding, examine
from video_io.sources import open_source

SCENES, FRAMES = ("colon", "passage", "abdomen", "tissue"), 60
# What goes with a kind of finding and is no false alarm: a folder that its own reader refuses, and what follows.
COMPANIONS = {
    "depth_8bit": {"unreadable_truth"}, "poses_transposed": {"unreadable_truth"},
    "missing_frames": {"unreadable_truth"}, "overlay": {"overlay_text"}, "overlay_text": {"overlay"},
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="*", type=int, default=(401, 402))
    parser.add_argument("--only", nargs="*", help="damages, by name")
    parser.add_argument("--each", type=int, default=2, help="clips a damage")
    parser.add_argument("--skip-good", action="store_true")
    parser.add_argument("--deidentify", action="store_true", help="only this table")
    parser.add_argument("--real", nargs="*", type=Path, help="only the quick part on these inputs")
    args = parser.parse_args()
    if args.real:
        return real(args.real)
    clips = [rendered(args.folder, scene, seed) for seed in args.seeds for scene in SCENES]
    if args.deidentify:
        return deidentify(args.folder, clips)
    wrong = 0 if args.skip_good else good(args.folder, clips)
    return int(damaged(args.folder, clips, args.only or list(DAMAGES), args.each) + wrong > 0)


def rendered(folder: Path, scene: str, seed: int) -> Path:
    out = folder / f"{scene}_{seed}"
    if not (out / "mesh.ply").is_file():
        view = "circle" if seed % 2 == 0 and scene != "tissue" else "none"
        simulate(scene, seed, FRAMES, None, 30.0, out, view, extras=False)
    return out


def good(folder: Path, clips: list[Path]) -> int:
    """Everything that is said of good inputs is a false alarm."""
    false = inputs = 0
    for path in clips:
        clip = load(path)
        for name, made in _forms(folder / "good", path, clip):
            said = examine(open_case(made))
            inputs, false = inputs + 1, false + len(said)
            for finding in said:
                print(f"FALSE {path.name} as {name}: {finding.kind}: {finding.sentence} {finding.evidence}", flush=True)
    print(f"{inputs} good inputs, {false} false findings")
    return false


def _forms(folder: Path, path: Path, clip: Material) -> Iterator[tuple[str, Path]]:
    shutil.rmtree(folder, ignore_errors=True)
    yield "simulated folder", path
    yield "video", path / "video.mp4"
    yield "poses, no depth", write(clip, folder / "no_depth", depth=False)
    yield "depth, no poses, masks", write(clip, folder / "no_poses", poses=False, masks=True)


def damaged(folder: Path, clips: list[Path], names: list[str], each: int) -> int:
    found = fixed = total = fixable = extras = 0
    loaded: dict[Path, Material] = {}
    for number, name in enumerate(names):
        for k in range(each):
            path = clips[(number * 3 + k * 5) % len(clips)]
            clip = loaded.setdefault(path, load(path))
            out = folder / "damaged" / f"{name.replace(' ', '_').replace(',', '')}_{k}"
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(out.with_suffix(".fixed"), ignore_errors=True)
            rng = np.random.default_rng((number, k))
            other = clips[(clips.index(path) + 1) % len(clips)]
            more = {"other": loaded.setdefault(other, load(other))} if name == "cut" else {}
            made = DAMAGES[name](clip, out, rng, **more)
            case = open_case(made.path)
            began = time.perf_counter()
            said = examine(case)
            seconds = time.perf_counter() - began
            hit = [f for f in said if f.kind == made.kind]
            beside = [f for f in said if f.kind != made.kind and f.kind not in COMPANIONS.get(made.kind, ())]
            back = _back(case, said, out.with_suffix(".fixed"), made, clip) if hit and made.kept is not None else None
            total, found, extras = total + 1, found + bool(hit), extras + len(beside)
            fixable, fixed = fixable + (made.kept is not None), fixed + (back == "")
            line = f"{name:32} {path.name:12} {'found' if hit else 'MISSED':6} {seconds:4.1f} s"
            line += f"  sure {hit[0].sure:.2f}" if hit else ""
            line += f"  fix: {'as the good one' if back == '' else back}" if back is not None else ""
            print(line + "".join(f"\n    ALSO {f.kind}: {f.sentence} {f.evidence}" for f in beside), flush=True)
            if not hit and said:
                print("    said:", [(f.kind, f.evidence) for f in said])
    print(f"{found} of {total} damages found, {fixed} of {fixable} repaired, {extras} findings beside the damage")
    return total - found


def _back(case: object, said: list[Finding], out: Path, made: Damaged, clip: Material) -> str:
    """Nothing if the repaired copy has the good clip's frames, depth and poses; else what differs."""
    write_clean(case, said, out)
    clip = made.extra.get("clip", clip)  # type: ignore[assignment]
    again = open_case(out)
    files, kept = again.images, made.kept or []
    if len(files) != len(kept):
        return f"{len(files)} frames instead of {len(kept)}"
    loss = []
    for i, n in list(enumerate(kept))[::7]:
        # What lies over the picture stays in it and is left out by the masks.
        use = again.mask(i) if made.kind.startswith("overlay") else None
        loss.append(psnr(cv2.imread(str(files[i]))[..., ::-1], clip.images[n], use))
    if min(loss) < made.psnr_db:
        return f"pictures differ (PSNR {min(loss):.1f} dB)"
    if again.has_depth:
        off = [np.abs(again.depth(i) - clip.depths[n] / clip.scale) for i, n in list(enumerate(kept))[::7]]
        worst = max(float(np.median(o)) for o in off)
        if worst > made.depth_mm:
            return f"depth differs by {worst:.3g} mm"
    if again.poses is not None:
        off_pose = np.abs(READINGS["as it is"](again.poses.matrices) - clip.poses[kept]).max()
        if off_pose > 2e-3:
            return f"poses differ by {off_pose:.3g}"
    if again.masks and clip.masks:
        differ = max(float(np.mean(again.mask(i) != (clip.masks[n] > 127))) for i, n in list(enumerate(kept))[::7])
        if made.kind == "mask_polarity" and differ > 0:
            return f"masks differ in {differ:.1%} of the pixels"
    return ""


def psnr(a: np.ndarray, b: np.ndarray, use: np.ndarray | None = None) -> float:
    if a.shape != b.shape:
        return 0.0
    square = float(np.mean((a.astype(float) - b.astype(float))[use if use is not None else ...] ** 2))
    return 99.0 if square == 0 else min(99.0, 10 * np.log10(255**2 / square))


def deidentify(folder: Path, clips: list[Path], count: int = 20) -> int:
    """Text burnt into clips: what an OCR program reads before and after, and what is lost beside the text."""
    from rapidocr_onnxruntime import RapidOCR

    reader, out = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1), folder / "text"
    shutil.rmtree(out, ignore_errors=True)
    seen = left = 0
    lost: list[float] = []
    for number in range(count):
        path = clips[number % len(clips)]
        images = [cv2.resize(i, (640, 512), interpolation=cv2.INTER_CUBIC) for i in load(path).images]
        text = some_text(number, images[0].shape[0])
        written, boxes = burn(images, text)
        recorded = write_video(out / f"{number}.mp4", written, metadata={"title": "DOE JANE", "comment": "room 3"})
        clean = clean_copy(recorded, out / f"{number}")
        before = [frame.rgb for frame in open_source(recorded).frames()]
        after = [frame.rgb for frame in open_source(clean.path).frames()]
        at = range(4, len(before), 15)
        words = [read(reader, before[n], boxes) for n in at]
        still = [read(reader, after[n], boxes) for n in at]
        lost.append(lost_beside(before, after, boxes))
        seen, left = seen + any(words), left + any(still)
        most = max(words, key=len)
        print(f"{number:2d} {path.name:12} {text.place:12} {text.height_px:2d} px {text.font:6} "
              f"{text.colour!s:15} read before: {most!r}"
              f"{'' if any(words) else ' (nothing)'}; after: {max(still, key=len) if any(still) else 'nothing'}; "
              f"blanked {max((len(b) for _, _, b in clean.boxes), default=0)} boxes; "
              f"beside the text {100 * lost[-1]:.3f} % changed; "
              f"{[r for r in clean.removed if 'text' not in r]}", flush=True)  # fmt: skip
    print(f"{seen} of {count} readable before, {left} after; most of the picture lost beside the text: "
          f"{100 * max(lost):.3f} %, median {100 * float(np.median(lost)):.3f} %")  # fmt: skip
    return left


def read(reader: object, rgb: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> str:
    """What the OCR program reads at the places of the text, characters that it is fairly sure of."""
    found, _ = reader(np.ascontiguousarray(rgb[..., ::-1]))  # type: ignore[operator]
    words = []
    for corners, word, score in found or []:
        x, y = np.mean(corners, axis=0)
        near = any(bx - 10 <= x <= bx + bw + 10 and by - 10 <= y <= by + bh + 10 for bx, by, bw, bh in boxes)
        if near and float(score) > 0.5 and sum(c.isalnum() for c in word) >= 2:
            words.append(word)
    return " | ".join(words)


def lost_beside(before: list[np.ndarray], after: list[np.ndarray], boxes: list[tuple[int, int, int, int]]) -> float:
    """Share of the picture's pixels that have changed, further from the text than half its height and 6 px."""
    free = np.ones(before[0].shape[:2], bool)
    for x, y, w, h in boxes:
        pad = 6 + h // 2
        free[max(0, y - pad) : y + h + pad, max(0, x - pad) : x + w + pad] = False
    changed = [np.abs(a.astype(int) - b).max(-1) > 24 for a, b in zip(before[::5], after[::5], strict=True)]
    return max(float((c & free).mean()) for c in changed)


def real(paths: list[Path]) -> int:
    """What the quick part says of other inputs."""
    for path in paths:
        try:
            source = open_source(path)
            case = case_of(path, source)
            began = time.perf_counter()
            case.probes  # noqa: B018 - reconstruct has these anyway
            read = time.perf_counter() - began
            said = examine(case, quick=True)
        except ValueError as error:
            print(f"{path.name}: {error}")
            continue
        print(f"{path.name}: {source.frame_count} frames, {read:.2f} s for the sample, "
              f"{time.perf_counter() - began - read:.2f} s for the checks", flush=True)  # fmt: skip
        for finding in said:
            print(f"    {finding.kind} ({finding.sure:.2f}): {finding.sentence} {finding.evidence}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
