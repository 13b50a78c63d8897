"""Our own figures: one scale for the sequence, camera centres, distances both ways, valid pixels alone."""

from __future__ import annotations

import numpy as np

from endorecon.evaluate.case import Case
from endorecon.evaluate.depth import FIGURES
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.images import lpips_or_reason, ms_ssim, mse, ssim
from endorecon.evaluate.protocols._depth import HIGHER
from endorecon.evaluate.surface import THRESHOLDS_MM, f_score, hausdorff
from endorecon.evaluate.trajectory import angles, position_errors, steps

ABOUT = "our own figures: one scale for the sequence, camera centres, distances both ways"
SOURCE = "docs/evaluation.md"
NEEDS = ("depth", "path", "surface", "images")
_IN_UNIT = ("SqRel", "RMSE", "L1")


def measure(case: Case) -> Outcome:
    """All figures that the truth allows, in the column of the corrected ones."""
    figures: list[Figure] = []
    notes: list[str] = []
    frames, share = 0, float("nan")
    if not case.has("depth"):
        found = case.depth_rows["clip"]
        frames, share = len(found.values), found.compared / found.with_truth
        for i, name in enumerate(FIGURES):
            unit = case.unit if name in _IN_UNIT else ""
            figures.append(_figure(name, Sample.of(found.values[:, i]), unit, name in HIGHER, "frames"))
    if not case.has("path"):
        figures += _path(case)
        frames = frames or len(case.paths()[0])
    if not case.has("surface"):
        figures += _surface(case)
    if not case.has("images"):
        figures += _images(case, notes)
    return Outcome(tuple(figures), "", "one scale for the sequence; paths and surfaces by a similarity", frames, share,
                   tuple(notes))  # fmt: skip


def _figure(name: str, sample: Sample, unit: str = "", higher: bool = False, pool: str = "sequences") -> Figure:
    return Figure(name, None, sample, unit, "higher" if higher else "lower",
                  "frames" if pool == "frames" else "sequences")  # fmt: skip


def _path(case: Case) -> list[Figure]:
    ours, theirs = case.paths()
    errors, fit = position_errors(ours, theirs)
    step, true_step = steps(ours), steps(theirs)
    moved = np.linalg.norm(fit.scale * step[:, :3, 3] - true_step[:, :3, 3], axis=1)
    turned = angles(step[:, :3, :3].transpose(0, 2, 1) @ true_step[:, :3, :3])
    return [
        _figure("ATE (Sim3)", Sample(errors, "rms", over="poses"), case.unit),
        _figure("ATE of the path", Sample(100 * errors / theirs.length, "rms", over="poses"), "%"),
        _figure("RPE translation", Sample(moved, "rms", over="steps"), case.unit),
        _figure("RPE rotation", Sample(np.degrees(turned), "rms", over="steps"), "deg"),
    ]


def _surface(case: Case) -> list[Figure]:
    """Of single numbers, as points of a surface are no sample of independent values."""
    d, share = case.distances, case.seen.share

    def one(value: float) -> Sample:
        return Sample.of([value], over="surfaces")

    figures = [
        _figure("accuracy (mean)", one(float(d.accuracy.mean())), case.unit),
        _figure("completeness (mean)", one(float(d.completeness.mean())), case.unit),
        _figure("Chamfer", one(float(d.accuracy.mean() + d.completeness.mean()) / 2), case.unit),
        _figure("Hausdorff 95", one(hausdorff(d.accuracy, d.completeness)), case.unit),
    ]
    for t in THRESHOLDS_MM:
        value = f_score(float(np.mean(d.accuracy < t)), float(np.mean(d.completeness < t)))
        figures.append(_figure(f"F-score at {t:g}", one(value), higher=True))
    angle = float(np.degrees(np.median(np.arccos(np.clip(d.accuracy_cosine, 0, 1)))))
    figures.append(_figure("normals (median)", one(angle), "deg"))
    near = float(np.mean(d.completeness < THRESHOLDS_MM[1]))
    figures.append(_figure(f"coverage at {THRESHOLDS_MM[1]:g}", one(near * share), higher=True))
    figures.append(_figure("coverage, at most", one(share), higher=True))
    return figures


def _images(case: Case, notes: list[str]) -> list[Figure]:
    errors, similar, multi, perceived = [], [], [], []
    lpips = lpips_or_reason()
    for pair in case.image_pairs():
        errors.append(mse(pair.image, pair.truth, ~pair.masked))
        similar.append(ssim(pair.image, pair.truth))
        if min(pair.truth.shape[:2]) > 160:
            multi.append(ms_ssim(pair.image, pair.truth))
        if not isinstance(lpips, str):
            perceived.append(lpips(pair.image, pair.truth))
    figures = [_figure("PSNR", Sample(np.array(errors), "psnr"), "dB", True)]
    figures.append(_figure("SSIM", Sample.of(similar), "", True))
    if len(multi) == len(similar):
        figures.append(_figure("MS-SSIM", Sample.of(multi), "", True))
    if isinstance(lpips, str):
        notes.append(f"no LPIPS: {lpips}")
    else:
        figures.append(_figure("LPIPS (Alex)", Sample.of(perceived)))
    return figures
