"""What the corruptions look like: python tools/corruption_sheet.py sheet.jpg [--picture FILE] [--over-time].

Rows of pictures with their names, severities 1, 3 and 5, or with --over-time severity 3 after 0, 1/3, 2/3 and 1 s. Of
the picture given, or of a frame of the phantom `endorecon simulate --scene colon`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from video_io.corruptions import begin, corrupt, describe, names
from video_io.sources.base import decode_image

TIMES_S = (0.0, 1 / 3, 2 / 3, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path, help="to write: .jpg or .png")
    parser.add_argument("--picture", type=Path, help="to damage; by default a phantom's")
    parser.add_argument("--names", nargs="*", default=[n for n in names() if not describe(n).acts_on_order])
    parser.add_argument("--over-time", action="store_true", help="one severity at four times")
    parser.add_argument("--across", type=int, default=2, help="corruptions a row")
    parser.add_argument("--width", type=int, default=160, help="of a picture on the sheet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    picture = decode_image(args.picture) if args.picture else phantom()
    height = round(args.width * picture.shape[0] / picture.shape[1])
    strips = []
    for name in args.names:
        shown = over_time(picture, name, args.seed) if args.over_time else severities(picture, name, args.seed)
        small = [cv2.resize(p, (args.width, height), interpolation=cv2.INTER_AREA) for p in shown]
        strips.append(np.hstack([labelled(np.hstack(small), name.replace("_", " ")), gap(height)]))
    while len(strips) % args.across:
        strips.append(np.full_like(strips[0], 255))
    rows = [np.hstack(strips[i : i + args.across]) for i in range(0, len(strips), args.across)]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 82] if args.sheet.suffix == ".jpg" else []
    cv2.imwrite(str(args.sheet), np.vstack(rows)[..., ::-1], quality)
    return 0


def phantom() -> np.ndarray:
    """A frame of a rendered colon."""
    from rendering.phantom.clip import prepare

    return next(iter(prepare("colon", 405, 1).frames())).rgb


def severities(picture: np.ndarray, name: str, seed: int) -> list[np.ndarray]:
    return [corrupt(picture, name, severity, seed) for severity in (1, 3, 5)]


def over_time(picture: np.ndarray, name: str, seed: int) -> list[np.ndarray]:
    """The picture stands still, so that what moves is the corruption."""
    effect = begin(picture, name, 3, seed)
    return [shown for time_s in TIMES_S if (shown := effect(picture, time_s)) is not None]


def labelled(strip: np.ndarray, words: str) -> np.ndarray:
    """With its name in white on a dark strip above."""
    head = np.full((18, strip.shape[1], 3), 40, np.uint8)
    cv2.putText(head, words, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([head, strip])


def gap(height: int) -> np.ndarray:
    return np.full((height + 18, 6, 3), 255, np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
