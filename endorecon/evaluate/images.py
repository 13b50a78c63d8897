"""Errors of rendered images: PSNR, SSIM, MS-SSIM, and LPIPS where its network can be had."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from video_io.errors import InputError

Float = NDArray[np.float64]
Border = Literal["valid", "zero", "reflect"]
_MODES = {"valid": "constant", "zero": "constant", "reflect": "mirror"}
_K1, _K2, _SIGMA, _WINDOW = 0.01, 0.03, 1.5, 11
# weights of the five scales: Wang, Simoncelli and Bovik, Asilomar 2003
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def unit(image: NDArray[np.uint8] | Float, name: str = "image") -> Float:
    """The image (H, W, 3) in [0, 1], float64: uint8 divided by 255, floats as they are.

    Raises:
        InputError: values that are not finite.
    """
    if image.dtype == np.uint8:
        return image.astype(np.float64) / 255
    if not np.isfinite(image).all():
        raise InputError(f"{name} holds values that are no numbers; render it again")
    return image.astype(np.float64)


def mse(image: Float, truth: Float, use_mask: NDArray[np.bool_] | None = None) -> float:
    """Mean squared error over the pixels of `use_mask` (H, W), or over all."""
    square = (image - truth) ** 2
    return float(square.mean() if use_mask is None else square[use_mask].mean())


def psnr(image: Float, truth: Float, use_mask: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], dB; inf where they are equal."""
    error = mse(image, truth, use_mask)
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def ssim(image: Float, truth: Float, border: Border = "valid") -> float:
    """Structural similarity of images in [0, 1] (Wang et al., TIP 2004), mean over pixels and channels.

    Gaussian window of 11 pixels, sigma 1.5, biased covariances.

    Args:
        border: `valid`: pixels whose window lies inside, as Wang's and scikit-image's; `zero`: all pixels, with zeros
            around the image, as the code of EndoNeRF's family; `reflect`: all pixels of the mirrored image, as
            torchmetrics'.
    """
    return float(ssim_map(image, truth, border).mean())


def ssim_map(image: Float, truth: Float, border: Border = "valid") -> Float:
    """The same of each pixel and channel, (H, W, 3), or (H - 10, W - 10, 3) where `border` is `valid`."""
    return _ssim_and_contrast(image, truth, border)[0]


def ms_ssim(image: Float, truth: Float) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003) over five scales, mean over channels.

    Raises:
        InputError: an image of which a side has fewer than 161 pixels, too few for five halvings of the window.
    """
    least = (_WINDOW - 1) * 2 ** (len(_SCALES) - 1) + 1
    if min(truth.shape[:2]) < least:
        raise InputError(
            f"MS-SSIM needs images of {least} pixels at least on each side, found {truth.shape[1]} x {truth.shape[0]}"
        )
    total = np.ones(truth.shape[2])
    for n, weight in enumerate(_SCALES):
        similarity, contrast = (m.mean((0, 1)) for m in _ssim_and_contrast(image, truth, "valid"))
        last = n == len(_SCALES) - 1
        total *= np.maximum(similarity if last else contrast, 0) ** weight
        if not last:
            image, truth = _halved(image), _halved(truth)
    return float(total.mean())


def _ssim_and_contrast(a: Float, b: Float, border: Border) -> tuple[Float, Float]:
    """Maps (H', W', 3) of the similarity and of its contrast and structure part."""
    mean_a, mean_b = _blurred(a, border), _blurred(b, border)
    var_a, var_b = _blurred(a * a, border) - mean_a**2, _blurred(b * b, border) - mean_b**2
    covariance = _blurred(a * b, border) - mean_a * mean_b
    contrast = (2 * covariance + _K2**2) / (var_a + var_b + _K2**2)
    return contrast * (2 * mean_a * mean_b + _K1**2) / (mean_a**2 + mean_b**2 + _K1**2), contrast


def _blurred(image: Float, border: Border) -> Float:
    from scipy.ndimage import correlate1d

    half = _WINDOW // 2
    kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = correlate1d(image, kernel, axis, mode=_MODES[border])
    return image[half:-half, half:-half] if border == "valid" else image


def _halved(image: Float) -> Float:
    """Means of 2 x 2 pixels. An odd last row or column is averaged with zeros beside it, as in pytorch-msssim."""
    h, w = image.shape[:2]
    top, left = h % 2, w % 2
    padded = np.pad(image, ((top, top), (left, left), (0, 0)))
    padded = padded[: padded.shape[0] // 2 * 2, : padded.shape[1] // 2 * 2]
    return padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, -1).mean((1, 3))


class Lpips:
    """LPIPS (Zhang et al., CVPR 2018) by the package of that name, where it and its weights are on this machine.

    Raises:
        InputError: the package, or the network under it, is not there; nothing is downloaded.
    """

    def __init__(self, network: Literal["alex", "vgg"] = "alex") -> None:
        from pathlib import Path

        import torch

        file = {"alex": "alexnet-owt-*.pth", "vgg": "vgg16-*.pth"}[network]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        try:
            import lpips
        except (ImportError, RuntimeError) as error:
            raise InputError(
                f"LPIPS needs the packages 'lpips' and 'torchvision', which can't be imported here ({error}); "
                "pip install lpips, in an environment whose torchvision fits its torch"
            ) from error
        if not any(folder.glob(file)):
            raise InputError(
                f"LPIPS needs torchvision's weights {file} in {folder}, which are not there; fetch them once, "
                "as nothing is downloaded by itself"
            )
        self._torch, self._model = torch, lpips.LPIPS(net=network, verbose=False).eval()

    def __call__(self, image: Float, truth: Float) -> float:
        """The distance of two images (H, W, 3) in [0, 1]."""

        def tensor(x: Float) -> Any:
            return self._torch.from_numpy(x.transpose(2, 0, 1)[None]).float() * 2 - 1

        with self._torch.no_grad():
            return float(self._model(tensor(image), tensor(truth)))


def lpips_or_reason() -> Lpips | str:
    """The measure, or the sentence why it can't be had."""
    try:
        return Lpips()
    except InputError as error:
        return str(error)
