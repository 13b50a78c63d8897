"""Are faults named, and is no frame accepted wrongly? python tools/faults.py CLIPS [--clips colon_41 passage_41 ...].

Renders phantom clips into the folder CLIPS (those that are there are kept; with --keep, so are finished runs), puts one
fault at a time into each, with the frames that it strikes known, reconstructs with the clip's intrinsics, and holds the
result against the truth:

- wrong: accepted frames (tracked, not graded red) whose position is off by more than 5 times the median of the accepted
  frames of the same clip without a fault, or 5 times that of the faulty clip, whichever is more; after a cut, to the
  next clip with the same camera, the longer part is held against its own truth, and frames of the other part that
  share its world are wrong;
- accepted: how many of the struck frames have a place that is not graded red;
- named: the sentence of the run's warnings that tells of the fault, and the frames that it names.

With --rotate 2 all faults are put into the first clip, and two of them, in turn, into each other clip. With --detect
the faults are only sought in the pictures, which is quick.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from endorecon.evaluate.trajectory import match
from endorecon.job import reconstruct_video
from endorecon.run import Run, read_run
from rendering.phantom.clip import Video, prepare, simulate
from rendering.phantom.faults import FAULTS, cut
from video_io.camera_files import read_camera, write_camera
from video_io.datasets import open_truth
from video_io.faults import Watch
from video_io.frame import Frame
from video_io.masks import with_masks
from video_io.trajectory import align

FRAMES, FIRST, END = 110, 30, 90  # two seconds of fault
CLIPS = (
    "colon_41", "passage_41", "colon_42", "passage_42", "abdomen_41", "tissue_41", "colon_43", "abdomen_42",
    "tissue_42", "plaster_41",
)  # fmt: skip
# Words of which a fault's sentence has one.
WORDS = {
    "blur": ("blurred",), "fluid": ("fluid",), "wall": ("against the wall",), "frozen": ("frozen",),
    "tool": ("tool",), "exposure": ("exposure",), "cut": ("cut",),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", nargs="*", default=CLIPS)
    parser.add_argument("--faults", nargs="*", default=list(WORDS))
    parser.add_argument("--detect", action="store_true", help="only find the faults in the pictures, without poses")
    parser.add_argument("--width", type=int, default=320, help="of the images; 192 takes a third of the time")
    parser.add_argument("--rotate", type=int, default=0, help="faults in each clip but the first; 0: all")
    parser.add_argument("--keep", action="store_true", help="read the runs that are finished, of an earlier call")
    args = parser.parse_args()
    if args.detect:
        return detect(args.folder, args.clips, args.faults)
    bench, found = Bench(args.folder, tuple(args.clips), args.width, args.keep), []
    for number, name in enumerate(args.clips):
        own = bench.usual(name).values()
        print(f"{name}: median {np.median(list(own)):.3f} mm, most {max(own):.3f} mm", flush=True)
        for fault in in_turn(args.faults, number - 1, args.rotate) if args.rotate and number else args.faults:
            found.append(bench.struck(number, fault))
            print(f"  {found[-1]}", flush=True)
    for fault in args.faults:
        some = [outcome for outcome in found if outcome.fault == fault]
        if some:
            wrong, named = sum(len(o.wrong) for o in some), sum(bool(o.sentence) for o in some)
            accepted, struck = sum(o.accepted for o in some), sum(o.struck for o in some)
            print(
                f"{fault:9} {len(some):2d} clips: {wrong:2d} wrong, worst {max(o.worst for o in some):.1f} x, "
                f"struck frames accepted {accepted} of {struck}, named {named}"
            )
    wrong, named = sum(len(o.wrong) for o in found), sum(bool(o.sentence) for o in found)
    print(f"{len(found)} clips with a fault: {wrong} frames accepted wrongly, {named} faults named")
    return 0


@dataclass(frozen=True)
class Outcome:
    """Of one clip with one fault: the frames accepted wrongly, the largest error over the allowed one, times 5, how
    many of the struck frames are accepted, how many frames could be held against the truth, and the sentence."""

    fault: str
    wrong: list[int]
    worst: float
    accepted: int
    struck: int
    held: int
    sentence: str

    def __str__(self) -> str:
        return (
            f"{self.fault:9} wrong {len(self.wrong):2d} {self.wrong[:6] or ''} (worst {self.worst:.1f} x), "
            f"accepted {self.accepted:2d} of {self.struck}, held against the truth {self.held:3d}: "
            f"{self.sentence or 'NOT NAMED'}"
        )


@dataclass(frozen=True)
class Bench:
    """The clips that are struck, in a folder, the width of the images that are reconstructed, and whether finished runs
    are kept."""

    folder: Path
    clips: tuple[str, ...]
    width: int
    keep: bool

    def usual(self, name: str) -> dict[int, float]:
        """Errors of the clip without a fault, mm, by index."""
        return clean_errors(rendered(self.folder, name), self.width, self.keep)

    def struck(self, number: int, fault: str) -> Outcome:
        """Reconstruct the clip of this number with the fault."""
        clip = rendered(self.folder, self.clips[number])
        if fault == "cut":
            other = self.partner(number)
            shown = cut(pictures(clip), FIRST, pictures(self.folder / other))
            run = reconstructed(clip, fault, shown, self.width, self.keep)
            end, (wrong, worst, held) = FIRST + 1, self.parted(run, number, other)
        else:
            shown = FAULTS[fault](pictures(clip), FIRST, END, np.random.default_rng(number))
            run, end = reconstructed(clip, fault, shown, self.width, self.keep), END
            wrong, worst, held = over(errors(run, clip, range(FRAMES)), self.usual(self.clips[number]))
        placed = [r.index for r in run.rows if r.status == "tracked" and r.grade != "red"]
        accepted = sum(FIRST <= index < end for index in placed)
        return Outcome(fault, wrong, worst, accepted, end - FIRST, held, naming(run, fault))

    def partner(self, number: int) -> str:
        """The next clip with the same camera; itself, if there is none."""
        camera = (rendered(self.folder, self.clips[number]) / "intrinsics.json").read_text()
        order = [*self.clips[number + 1 :], *self.clips[: number + 1]]
        return next(c for c in order if (rendered(self.folder, c) / "intrinsics.json").read_text() == camera)

    def parted(self, run: Run, number: int, other: str) -> tuple[list[int], float, int]:
        """What `over` gives for a run of two clips, whose main segment should hold frames of one of them."""
        name = self.clips[number]
        parts = [(name, range(FIRST)), (other, range(FIRST, FRAMES))]
        found = [(errors(run, self.folder / c, part), self.usual(c)) for c, part in parts]
        (off, usual), (intruders, _) = sorted(found, key=lambda f: -len(f[0]))
        wrong, worst, held = over(off, usual)
        return [*wrong, *intruders], np.inf if intruders else worst, held + len(intruders)


@cache
def clean_errors(clip: Path, width: int, keep: bool) -> dict[int, float]:
    """Errors of a clip without a fault, mm, by index."""
    return errors(reconstructed(clip, "clean", pictures(clip), width, keep), clip, range(FRAMES))


def over(off: dict[int, float], usual: dict[int, float]) -> tuple[list[int], float, int]:
    """The frames with errors over the allowed one, the largest error as a multiple of its fifth, and their number."""
    limit = 5 * max(float(np.median(list(v.values()))) for v in (usual, off) if v)
    return [n for n, error in off.items() if error > limit], 5 * max(off.values(), default=0.0) / limit, len(off)


def in_turn(faults: list[str], number: int, count: int) -> list[str]:
    """The next `count` faults for the clip of this number."""
    return [faults[(number * count + k) % len(faults)] for k in range(count)]


def detect(folder: Path, clips: list[str], kinds: list[str]) -> int:
    """How many of the struck frames (but for four at either end, where faults come and go) are told, and how many of
    the others wrongly. Clips that are not in the folder are rendered without light between surfaces, and not kept."""
    told, struck, false, clean = (dict.fromkeys([*kinds, "none"], 0) for _ in range(4))
    all_pictures = [pictures(folder / name) if (folder / name).is_dir() else quickly(name) for name in clips]
    for number, name in enumerate(clips):
        for kind in ["none", *kinds]:
            rng, shown = np.random.default_rng(100 + number), all_pictures[number]
            middle = range(FIRST + 4, END - 4) if kind != "none" else range(0)
            outside = [*range(FIRST), *range(END + 4, FRAMES)] if kind != "none" else range(FRAMES)
            if kind == "cut":
                shown, middle = cut(shown, FIRST, all_pictures[(number + 1) % len(clips)]), range(FIRST, FIRST + 1)
            elif kind != "none":
                shown = FAULTS[kind](shown, FIRST, END, rng)
            watch = Watch()
            found = [watch.see(with_masks(Frame.of(np.ascontiguousarray(p), n, n))) for n, p in enumerate(shown)]
            hits = [n for n in middle if (fault := found[n]) and fault.kind == kind]
            alarms = [n for n in outside if found[n]]
            told[kind], struck[kind] = told[kind] + len(hits), struck[kind] + len(middle)
            false[kind], clean[kind] = false[kind] + len(alarms), clean[kind] + len(outside)
            if len(hits) < len(middle) or alarms:
                missed = sorted({*middle} - {*hits})
                print(f"{name} {kind}: missed {len(missed)} {missed[:5]}, false {len(alarms)} {alarms[:5]}", flush=True)
    for kind in ["none", *kinds]:
        print(f"{kind:9} told {told[kind]:4d} of {struck[kind]:4d}, false alarms {false[kind]:3d} of {clean[kind]:4d}")
    return 0


def quickly(name: str) -> list[np.ndarray]:
    """The pictures of a clip without light between surfaces, which takes most of the time."""
    scene, seed = name.rsplit("_", 1)
    clip = prepare(scene, int(seed), FRAMES)
    return [frame.rgb for frame in replace(clip, look=replace(clip.look, interreflection=0.0)).frames()]


def rendered(folder: Path, name: str) -> Path:
    clip = folder / name
    if clip.is_dir() and len(list((clip / "rgb").glob("*.jpg"))) < FRAMES:
        shutil.rmtree(clip)  # an earlier call was stopped
    if not clip.is_dir():
        scene, seed = name.rsplit("_", 1)
        simulate(scene, int(seed), FRAMES, None, 30.0, clip, extras=False)
    return clip


def pictures(clip: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path))[..., ::-1] for path in sorted((clip / "rgb").glob("*.jpg"))[:FRAMES]]


def reconstructed(clip: Path, name: str, frames: list[np.ndarray], width: int, keep: bool = False) -> Run:
    """The run of the clip's pictures as they are given."""
    done = clip / f"run_{name}"
    if keep and (done / "run.yaml").is_file() and (run := read_run(done)).info["status"] == "finished":
        return run
    video, size = clip / f"{name}.mp4", (width, round(frames[0].shape[0] * width / frames[0].shape[1] / 2) * 2)
    with Video(video, *size, 30.0) as out:
        for frame in frames:
            out.write(np.ascontiguousarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)))
    write_camera(clip / "camera.json", read_camera(clip / "intrinsics.json").scaled(*size))
    return read_run(reconstruct_video(video, done, clip / "camera.json", overwrite=True))


def errors(run: Run, clip: Path, inside: range) -> dict[int, float]:
    """Distance to the true position, mm, of each accepted frame of the main segment, by index, after the best
    similarity of those that no fault has struck; only of frames `inside`: others show something else."""
    truth = open_truth(clip).trajectory
    rows = {r.time_ns: r for r in run.rows}
    ours, theirs = match(run.trajectory.times_ns, truth.times_ns)
    kept = [(o, t) for o, t in zip(ours, theirs, strict=True) if t in inside]
    ours, theirs = np.array(kept, int).reshape(-1, 2).T
    free = (theirs < FIRST) | (theirs >= END) if len(inside) == FRAMES else np.ones(len(theirs), bool)
    if free.sum() < 3:
        return {}
    centres, true = run.trajectory.centres[ours], truth.centres[theirs]
    off = np.linalg.norm(align(centres[free], true[free], with_scale=True).apply(centres) - true, axis=1)
    graded = [rows[t].grade for t in run.trajectory.times_ns[ours].tolist()]
    return {int(i): float(e) for i, e, grade in zip(theirs, off, graded, strict=True) if grade != "red"}


def naming(run: Run, fault: str) -> str:
    """The warning that tells of the fault and of frames that it has struck."""
    for sentence in run.info["warnings"]:
        found = re.match(r"frames? (\d+)(?:-(\d+))?:", sentence)
        if found and any(word in sentence for word in WORDS[fault]):
            first, last = int(found[1]), int(found[2] or found[1])
            if first < (FIRST + 1 if fault == "cut" else END) and last >= FIRST:
                return sentence
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
