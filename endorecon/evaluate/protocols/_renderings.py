"""What the protocols for renderings of EndoNeRF's clips share."""

from __future__ import annotations

import numpy as np

from endorecon.evaluate.case import Case, ImagePair
from endorecon.evaluate.figures import Figure, Outcome, Sample
from endorecon.evaluate.images import lpips_or_reason, ssim
from video_io.errors import InputError


def masked_images(
    case: Case, first: int = 0, every: int = 1, rows: int | None = None, normalised: bool = False,
    each: bool = False,
) -> Outcome:  # fmt: skip
    """PSNR, SSIM and LPIPS where both images are multiplied by (1 - mask).

    Args:
        first, every: frames that count: those with (number - first) % every == 0 and number >= first.
        rows: rows of the image that count; None: all.
        normalised: whether the squared error is divided by the unmasked pixels (else by all of them, so that the
            masked ones count as perfect).
        each: PSNR of each image, then the mean (else the PSNR of the mean over all images).
    """
    errors, shares, similar, plain, pairs = [], [], [], [], []
    lpips = lpips_or_reason()
    perceived = []
    for pair in case.image_pairs():
        if pair.number < first or (pair.number - first) % every:
            continue
        use = ~pair.masked[:rows]
        if not use.any():
            raise InputError(f"frame {pair.number}: the mask leaves no pixel; is it inverted? (white is left out)")
        a, b = (image[:rows] * use[..., None] for image in (pair.image, pair.truth))
        square = (a - b) ** 2
        shares.append(float(use.mean()))
        errors.append(float(square.mean()))
        similar.append(ssim(a, b, "zero"))
        plain.append(_inside(pair, rows))
        pairs.append(pair.number)
        if not isinstance(lpips, str):
            perceived.append(lpips(a, b))
    if not pairs:
        raise InputError("none of the protocol's test frames has a rendered image")
    e, share = np.array(errors), np.array(shares)
    fair = e / share  # over the pixels that count
    if not e.all():
        raise InputError(f"frame {pairs[int(np.argmin(e))]}: the rendering equals the image: PSNR has no end")
    figures = [
        Figure("PSNR", _psnr(e, share, normalised, each), Sample.of(-10 * np.log10(fair)), "dB", "higher",
               pool="sequences", differs="over the unmasked pixels of each image, then the mean"),
        Figure("SSIM", Sample.of(similar), Sample.of(plain), "", "higher", pool="sequences",
               differs="windows without masked pixels alone, inside the image"),
    ]  # fmt: skip
    notes = []
    if isinstance(lpips, str):
        notes.append(f"no LPIPS: {lpips}")
    else:
        figures.append(Figure("LPIPS (Alex)", Sample.of(perceived), None, pool="sequences"))
    if not case.has_masks:
        notes.append("no masks were given (--masks), so every pixel counts")
    return Outcome(tuple(figures), "none", "none", len(pairs), float(share.mean()), tuple(notes))


def _psnr(error: np.ndarray, share: np.ndarray, normalised: bool, each: bool) -> Sample:
    if each:
        return Sample.of(-10 * np.log10(error / share if normalised else error))
    # dividing the pooled error by the pooled share is the mean of error / share, weighed by the share
    return Sample(error / share, "psnr", share) if normalised else Sample(error, "psnr")


def _inside(pair: ImagePair, rows: int | None) -> float:
    """SSIM over the windows that hold no masked pixel; over all windows where every one holds some."""
    from scipy.ndimage import minimum_filter

    from endorecon.evaluate.images import ssim_map

    similar = ssim_map(pair.image[:rows], pair.truth[:rows], "valid").mean(-1)
    free = minimum_filter(~pair.masked[:rows], 11, mode="constant", cval=False)[5:-5, 5:-5]
    return float(similar[free].mean() if free.any() else similar.mean())
