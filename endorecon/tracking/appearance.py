"""What a key frame looks like, so that the same place is known again much later.

SIFT (Lowe, IJCV 2004) on the image whose local brightness and contrast are taken out, as the lamp moves with the lens;
descriptors in the Hellinger metric (Arandjelovic and Zisserman, CVPR 2012). Candidates come from a bag of visual words
(Sivic and Zisserman, ICCV 2003) whose words are made from the clip's own descriptors: tissue has no vocabulary that
would serve every clip, and so nothing has to be shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from endorecon.tracking.features import FeatureImage, sample

Float32 = NDArray[np.float32]
Int = NDArray[np.int64]

WIDTH = 160  # of the image that features are sought in (SIFT doubles it): places are known by what is coarse
WORDS, SAMPLE = 256, 20_000  # of the vocabulary, and descriptors that it is made from
LEAST_CONTRAST = 0.015  # of a SIFT feature; half of what is usual: tissue is smooth
LEAST_RATIO = 0.85  # nearest over second nearest distance
_QUANTUM = 512.0


@dataclass(frozen=True)
class Appearance:
    """The N features of an image.

    Attributes:
        pixels: (N, 2) float32.
        descriptor: (N, 128) uint8, square roots of SIFT's entries, of which a unit is 1 / 512 of the vector's length.
        log_net: (N,) float32, the network's log distance there.
    """

    pixels: Float32
    descriptor: NDArray[np.uint8]
    log_net: Float32

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def vectors(self) -> Float32:
        """(N, 128) float32 unit vectors: their products are the similarities of the features."""
        v = self.descriptor.astype(np.float32)
        return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-6)


def describe(image: FeatureImage, log_net: NDArray[np.floating], count: int) -> Appearance:
    """The `count` strongest features of an image, never on highlights or outside the field of view."""
    sift = cv2.SIFT_create(nfeatures=count, contrastThreshold=LEAST_CONTRAST)
    height, width = image.normalised.shape
    size = (min(width, WIDTH), max(round(height * min(1, WIDTH / width)), 1))
    picture = cv2.resize(image.normalised, size, interpolation=cv2.INTER_AREA)
    points, found = sift.detectAndCompute(picture, cv2.resize(image.usable, size, interpolation=cv2.INTER_NEAREST))
    if found is None or not len(points):
        return Appearance(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), np.zeros(0, np.float32))
    # OpenCV counts from the pixel's centre.
    pixels = (np.array([p.pt for p in points], np.float32) + 0.5) * np.float32([width / size[0], height / size[1]])
    root = np.sqrt(found / np.maximum(found.sum(1, keepdims=True), 1e-6))
    return Appearance(pixels, np.clip(np.round(_QUANTUM * root), 0, 255).astype(np.uint8), sample(log_net, pixels))


def match(first: Appearance, second: Appearance) -> tuple[Int, Int]:
    """Pairs of features that are nearest to each other, and clearly nearer than the next (Lowe's ratio test)."""
    if len(first) < 2 or len(second) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    alike = first.vectors @ second.vectors.T
    forth, back = alike.argmax(1), alike.argmax(0)
    rows = np.arange(len(first))
    best = alike[rows, forth]
    alike[rows, forth] = -1
    # |a - b|^2 = 2 - 2 a.b for unit vectors
    clear = (1 - best) < LEAST_RATIO**2 * (1 - alike.max(1))
    good = np.flatnonzero(clear & (back[forth] == rows))
    return good, forth[good]


def signatures(seen: Sequence[Appearance]) -> Float32:
    """(K, W) unit vectors of K images' word frequencies, rare words counting more (tf-idf): their products say how
    alike two images are."""
    words = _vocabulary(seen)
    counts = np.zeros((len(seen), len(words)), np.float32)
    for row, appearance in zip(counts, seen, strict=True):
        if len(appearance):
            np.add.at(row, (appearance.vectors @ words.T).argmax(1), 1)
    rarity = np.log(len(seen) / np.maximum((counts > 0).sum(0), 1))
    # Square roots, so that one word that fills an image (a regular pattern) does not decide alone.
    weighted = np.sqrt(counts) * rarity.astype(np.float32)
    return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-6)


def _vocabulary(seen: Sequence[Appearance]) -> Float32:
    """Unit vectors (W, 128) around which the clip's descriptors lie: spherical k-means on a sample of them."""
    total = sum(len(a) for a in seen)
    rng = np.random.default_rng(0)
    share = min(1.0, SAMPLE / max(total, 1))
    picked = [a.vectors[rng.random(len(a)) < share] for a in seen]
    vectors = np.concatenate([*picked, np.zeros((0, 128), np.float32)])
    if len(vectors) <= WORDS:
        return vectors if len(vectors) else np.ones((1, 128), np.float32)
    words = vectors[rng.choice(len(vectors), WORDS, replace=False)]
    for _ in range(6):
        nearest = (vectors @ words.T).argmax(1)
        sums = np.zeros_like(words)
        np.add.at(sums, nearest, vectors)
        norm = np.linalg.norm(sums, axis=1, keepdims=True)
        words = np.where(norm > 1e-6, sums / np.maximum(norm, 1e-6), words)
    return words
