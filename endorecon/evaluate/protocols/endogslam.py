"""Path, depth and renderings on C3VD as EndoGSLAM prints them."""

from __future__ import annotations

import numpy as np

from endorecon.evaluate.case import Case
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.images import lpips_or_reason, ms_ssim, mse, ssim
from endorecon.evaluate.trajectory import position_errors
from video_io.errors import InputError
from video_io.trajectory import align

ABOUT = "path, depth and renderings as EndoGSLAM: mean of world-to-camera translations, invalid pixels in the RMSE"
SOURCE = "Wang et al., MICCAI 2024, utils/metrics_helper.py"
NEEDS = ("path", "depth", "images")
RANGE_MM = 100.0
_FIRST, _EVERY = 7, 8


def measure(case: Case) -> Outcome:
    """What there is of ATE, depth RMSE, PSNR, (MS-)SSIM and LPIPS; depth and renderings on frames 7, 15, 23, ...

    ATE as published: the translation columns of the world-to-camera matrices, laid over each other by Horn's rigid
    fit, and the mean of the distances. A translation column is -R c: it turns with the camera, so it is no position.
    Corrected: camera centres, root mean square. Depth RMSE as published: against truth of 8 bits (steps of 0.39 mm),
    over all pixels, those without truth (0) too. Corrected: true pixels alone, at full precision.
    """
    figures: list[Figure] = []
    notes: list[str] = []
    frames = 0
    if not case.has("path"):
        figures.append(_ate(case))
        frames = len(case.paths()[0])
    share = float("nan")
    if not case.has("depth"):
        figure, share, tested = _depth(case)
        figures.append(figure)
        frames = frames or tested
        notes.append(f"depth of {tested} test frames")
    if not case.has("images"):
        figures += _images(case, notes)
    if case.truth.unit != "mm":
        notes.append("the protocol's figures are in mm, the truth is up to scale")
    elif getattr(case.run, "unit", "mm") != "mm":
        notes.append("the run is up to scale, and the protocol mends no scale: these figures mean nothing for it")
    return Outcome(
        tuple(figures),
        "rigid, no scale (the protocol's methods are given true depth)",
        "rigid, no scale",
        frames,
        share,
        tuple(notes),
    )


def _ate(case: Case) -> Figure:
    ours, theirs = case.paths()
    a, b = np.linalg.inv(ours.world_from_cam)[:, :3, 3], np.linalg.inv(theirs.world_from_cam)[:, :3, 3]
    try:
        fit = align(a, b, with_scale=False)
    except ValueError as error:
        raise InputError(f"the path can't be aligned with the truth: {error}; expected a moving camera") from error
    published = np.linalg.norm(fit.apply(a) - b, axis=1)
    corrected, _ = position_errors(ours, theirs, with_scale=False)
    return Figure(
        "ATE", Sample(published, over="poses"), Sample(corrected, "rms", over="poses"), case.unit, pool="sequences",
        differs="root mean square of camera centres",
    )  # fmt: skip


def _depth(case: Case) -> tuple[Figure, float, int]:
    published, corrected, used, known = [], [], 0, 0
    for frame in case.depth_frames():
        if (frame.number - _FIRST) % _EVERY:
            continue
        depth, valid = frame.prediction()
        stored = np.floor(np.clip(frame.truth.astype(np.float64) * (255 / RANGE_MM), 0, 255)) / (255 / RANGE_MM)
        ours = np.clip(np.where(valid, depth, 0).astype(np.float64), 0, RANGE_MM)
        published.append(float(np.sqrt(np.mean((ours - stored) ** 2))))
        true = frame.truth > 0
        known, used = known + int(true.sum()), used + int((true & valid).sum())
        if (true & valid).any():
            error = (depth - frame.truth)[true & valid].astype(np.float64)
            corrected.append(float(np.sqrt(np.mean(error**2))))
    if not corrected:
        raise InputError(f"none of the protocol's test frames ({_FIRST}, {_FIRST + _EVERY}, ...) has depth to compare")
    figure = Figure(
        "depth RMSE", Sample.of(published), Sample.of(corrected), case.unit, pool="sequences",
        differs="pixels with truth and prediction alone, truth at full precision",
    )  # fmt: skip
    return figure, used / known, len(published)


def _images(case: Case, notes: list[str]) -> list[Figure]:
    pairs = [p for p in case.image_pairs() if (p.number - _FIRST) % _EVERY == 0]
    if not pairs:
        raise InputError(f"none of the protocol's test frames ({_FIRST}, {_FIRST + _EVERY}, ...) has a rendered image")
    figures = []
    errors = np.array([mse(p.image, p.truth) for p in pairs])
    if not errors.all():
        equal = pairs[int(np.argmin(errors))].number
        raise InputError(f"frame {equal}: the rendering equals the image, so that its PSNR is infinite")
    figures.append(Figure("PSNR", Sample.of(-10 * np.log10(errors)), Sample(errors, "psnr"), "dB", "higher",
                          pool="sequences", differs="of the mean error, not the mean of each image's"))  # fmt: skip
    plain = Sample.of([ssim(p.image, p.truth) for p in pairs])
    multi = Sample.of([ms_ssim(p.image, p.truth) for p in pairs])
    figures.append(Figure("SSIM", multi, plain, "", "higher", pool="sequences",
                          differs="SSIM; what is printed as SSIM is MS-SSIM"))  # fmt: skip
    if isinstance(lpips := lpips_or_reason(), str):
        notes.append(f"no LPIPS: {lpips}")
    else:
        values = Sample.of([lpips(p.image, p.truth) for p in pairs])
        figures.append(Figure("LPIPS (Alex)", values, None, pool="sequences"))
    return figures
