"""A copy of a recording without what tells whose it is: burnt-in text blanked, file metadata dropped, DICOM attributes
by the standard's profile. The original is only read, and what was removed is listed, without its values.

Faces, voices in the picture, and what a surgeon could recognise are not looked for. Sound is dropped.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from video_io import dicom_profile, stripping
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source
from video_io.sources.base import decode_image
from video_io.sources.images import find_images
from video_io.text import Box, find_overlays

# Text is looked for in blocks of frames, each together with the one before, and in each of so many frames: what is
# shown for two and a half blocks (a second) is in all frames of some such pair.
BLOCK, EVERY, SPREAD = 12, 3, 32
_WIDE = 1280  # pixels; wider pictures are reduced for the search
_COMPANIONS = ("depth", "mask", "masks")
_PLAIN_FILES = ("poses.txt", "pose.txt", "intrinsics.json", "mesh.ply", "times.txt")
Text = list[tuple[int, int, tuple[Box, ...]]]  # first and last frame of a stretch, and what to blank in it
_VIDEO_SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109))


@dataclass(frozen=True)
class Cleaned:
    """What came of it.

    Attributes:
        path: what was written.
        removed: a sentence or name for each thing that was taken out, without values.
        boxes: x, y, width, height of the text that was blanked, source pixels, by stretch of frames.
    """

    path: Path
    removed: tuple[str, ...]
    boxes: tuple[tuple[int, int, tuple[Box, ...]], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        boxes = [{"first": a, "last": b, "boxes": [list(box) for box in found]} for a, b, found in self.boxes]
        return {"path": str(self.path), "removed": list(self.removed), "text": boxes}


def deidentify(path: Path, out: Path) -> Cleaned:
    """Write a clean copy of a video, a folder of images, or a DICOM file into the folder `out`.

    clip.mp4, clip.dcm, or rgb/ with the images (and depth/, masks/, poses.txt, intrinsics.json where they are there);
    removed.json lists what was removed. Names of files are not kept.

    Raises:
        InputError: an input that can't be read, or an output that is there already.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"'{out}' is there already; expected a folder that is empty or new; give another --deidentify")
    if not path.exists():
        raise InputError(f"'{path}' does not exist; give the path of a video, a folder of images or a DICOM file")
    if path.is_dir() and path.resolve() in out.resolve().parents:
        raise InputError(f"'{out}' lies inside the input; expected another place; give another folder to --deidentify")
    out.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        clean = _dicom(path, out) if is_dicom(path) else _video(path, out / "clip.mp4")
    else:
        clean = _images(path, out)
    (out / "removed.json").write_text(json.dumps(clean.to_dict(), indent=1) + "\n")
    return clean


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by the mark at byte 128."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


# -- burnt-in text ------------------------------------------------------------------------------------------------


def text_by_segment(frames: Iterable[Frame]) -> Text:
    """First and last frame of each stretch, with the boxes to blank in it.

    A stretch takes the boxes of its neighbours and of the whole clip too: text that comes and goes is rather blanked a
    little longer than left for a frame.
    """
    spread: list[Frame] = []
    blocks: list[tuple[int, tuple[Box, ...]]] = []  # length, and what is found in it and the block before
    before: list[Frame] = []
    kept: list[Frame] = []
    length, scale, stride = 0, 1.0, EVERY
    for number, frame in enumerate(frames):
        small, scale = _reduced(frame)
        if number % EVERY == 0:
            kept.append(small)
        if number % stride == 0:
            spread.append(small)
            if len(spread) == SPREAD:
                spread, stride = spread[::2], 2 * stride
        length += 1
        if length == BLOCK:
            blocks.append((length, _boxes(before + kept, scale)))
            before, kept, length = kept, [], 0
    if length:
        blocks.append((length, _boxes(before + kept, scale)))
    everywhere = _boxes(spread, scale) if len(spread) > 5 else ()
    out, first = [], 0
    for n, (length, _) in enumerate(blocks):
        near = {box for k in range(max(0, n - 1), min(len(blocks), n + 3)) for box in blocks[k][1]} | set(everywhere)
        out.append((first, first + length - 1, tuple(sorted(near))))
        first += length
    return out


def _reduced(frame: Frame) -> tuple[Frame, float]:
    scale = min(1.0, _WIDE / frame.width)
    if scale == 1:
        return frame, 1.0
    size = round(frame.width * scale), round(frame.height * scale)
    return Frame.of(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), frame.index, frame.time_ns), scale


def _boxes(frames: list[Frame], scale: float) -> tuple[Box, ...]:
    shapes = {frame.rgb.shape for frame in frames}
    if len(shapes) != 1:
        return ()
    grown = []
    for x, y, w, h in find_overlays(frames).text:
        x0, y0 = int(np.floor(x / scale)), int(np.floor(y / scale))
        grown.append((x0, y0, int(np.ceil((x + w) / scale)) - x0, int(np.ceil((y + h) / scale)) - y0))
    return tuple(grown)


def blanked(rgb: NDArray[np.uint8], boxes: Iterable[Box]) -> NDArray[np.uint8]:
    """The picture with black boxes."""
    out = rgb.copy()
    for x, y, w, h in boxes:
        out[y : y + h, x : x + w] = 0
    return out


def _shown(frames: Iterable[Frame], text: Text) -> Iterator[tuple[Frame, NDArray[np.uint8]]]:
    for number, frame in enumerate(frames):
        boxes = next((boxes for first, last, boxes in text if first <= number <= last), ())
        yield frame, blanked(frame.rgb, boxes) if boxes else frame.rgb


def _told(text: Text) -> list[str]:
    distinct = sorted({box for _, _, boxes in text for box in boxes})
    return [f"burnt-in text: {w} x {h} pixels at ({x}, {y}), blanked" for x, y, w, h in distinct]


# -- kinds of input -----------------------------------------------------------------------------------------------


def _video(path: Path, out: Path) -> Cleaned:
    gone = stripping.told_by_container(path)
    source = open_source(path)
    text = text_by_segment(source.frames())
    has_text = any(boxes for _, _, boxes in text)
    if has_text or not stripping.copied_video(path, out):
        stripping.encoded_video(_shown(source.frames(), text), out)
    return Cleaned(out, (*gone, *_told(text)), tuple(text) if has_text else ())


def _images(path: Path, out: Path) -> Cleaned:
    files = find_images(path)
    source = open_source(path)
    text = text_by_segment(source.frames())
    (out / "rgb").mkdir()
    gone: dict[str, int] = {}
    readable = {frame.index: number for number, frame in enumerate(source.frames())}
    for index, file in enumerate(files):
        if index not in readable:
            continue
        number = readable[index]
        boxes = next((boxes for first, last, boxes in text if first <= number <= last), ())
        for what in _image(file, out / f"rgb/{number:06d}", boxes):
            gone[what] = gone.get(what, 0) + 1
    for name in _COMPANIONS:
        _companions(path / name, out / name, gone)
    for name in _PLAIN_FILES:
        if (path / name).is_file():
            shutil.copyfile(path / name, out / name)
    known = {*_COMPANIONS, *_PLAIN_FILES, files[0].parent.name}
    left = [p.name for p in path.iterdir() if p.name not in known and p not in files]
    removed = [f"{what}, in {count} files" for what, count in gone.items()]
    removed += ["names of the image files: numbers instead"]
    removed += [f"{len(left)} other files and folders: not copied"] if left else []
    has_text = any(boxes for _, _, boxes in text)
    return Cleaned(out, (*removed, *_told(text)), tuple(text) if has_text else ())


def _image(file: Path, target: Path, boxes: tuple[Box, ...]) -> list[str]:
    """Write an image without metadata, its pixels as they are unless something is blanked; what was taken out."""
    data, suffix = file.read_bytes(), file.suffix.lower()
    try:
        if suffix in (".jpg", ".jpeg"):
            clean, gone = stripping.stripped_jpeg(data)
            plain = not boxes and stripping.orientation(file) == 1
        elif suffix == ".png":
            clean, gone = stripping.stripped_png(data)
            plain = not boxes
        else:
            clean, gone, plain = b"", ["tags of the file"], False
    except ValueError:
        clean, gone, plain = b"", [], False
    if plain:
        target.with_suffix(suffix).write_bytes(clean)
    else:
        _save(target.with_suffix(".png"), blanked(decode_image(file), boxes)[..., ::-1])
    return gone


def _companions(folder: Path, out: Path, gone: dict[str, int]) -> None:
    if not folder.is_dir():
        return
    out.mkdir()
    for number, file in enumerate(sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".tif", ".tiff"))):
        if file.suffix.lower() == ".png":
            clean, what = stripping.stripped_png(file.read_bytes())
            (out / f"{number:06d}.png").write_bytes(clean)
            for name in what:
                gone[name] = gone.get(name, 0) + 1
        else:
            _save(out / f"{number:06d}{file.suffix.lower()}", cv2.imread(str(file), cv2.IMREAD_UNCHANGED))


def _save(path: Path, image: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), np.ascontiguousarray(image)):
        raise InputError(f"'{path}' can't be written; expected room on the disk; free some or give another folder")


def _dicom(path: Path, out: Path) -> Cleaned:
    try:
        import pydicom
    except ModuleNotFoundError as error:
        raise InputError(
            f"'{path}' is DICOM, and 'pydicom' is not installed; expected the extra 'dicom'; type: "
            "pip install 'endorecon[dicom]'"
        ) from error
    dicom_profile.table()
    dataset = pydicom.dcmread(path)
    if "PixelData" not in dataset:
        raise InputError(f"'{path}' is DICOM without pictures; expected a recording; give the file that holds it")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax.startswith(_VIDEO_SYNTAXES):
        text, gone = _dicom_video(dataset, out)
    else:
        text, gone = _dicom_frames(dataset), []
    gone += dicom_profile.apply(dataset, text_blanked=True)
    target = out / "clip.dcm"
    dataset.save_as(target, enforce_file_format=True)
    return Cleaned(target, (*gone, *_told(text)), tuple(text) if any(b for _, _, b in text) else ())


def _dicom_video(dataset: Any, out: Path) -> tuple[Text, list[str]]:
    """The stream inside becomes a clean one, H.264 in MP4; its transfer syntax follows."""
    from pydicom.encaps import encapsulate, generate_fragments

    with tempfile.TemporaryDirectory(dir=out) as folder:
        stream, clean = Path(folder) / "stream", Path(folder) / "clean.mp4"
        stream.write_bytes(b"".join(generate_fragments(dataset.PixelData)))
        done = _video(stream, clean)
        data = clean.read_bytes()
    dataset.PixelData = encapsulate([data + b"\0" * (len(data) % 2)], has_bot=False)
    dataset["PixelData"].VR = "OB"
    if not dataset.file_meta.TransferSyntaxUID.startswith("1.2.840.10008.1.2.4.107"):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4 AVC, high profile, level 4.1
    return list(done.boxes), [f"in the stream: {what}" for what in done.removed if not what.startswith("burnt-in")]


def _dicom_frames(dataset: Any) -> Text:
    """Blank the text in frames that are stored one by one; where there is none the stored bytes stay as they are."""
    from pydicom.pixels import pixel_array

    try:
        pixels = pixel_array(dataset)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise InputError(
            f"the pictures of the DICOM file can't be decoded ({' '.join(str(error).split())[:120]}); expected MPEG-4, "
            "JPEG or uncompressed ones; export it so"
        ) from error
    colour = int(dataset.get("SamplesPerPixel", 1)) == 3
    frames = pixels.reshape(-1, *pixels.shape[-3:]) if colour else pixels.reshape(-1, *pixels.shape[-2:])
    text = text_by_segment(Frame.of(_as_rgb(f, colour), n, n) for n, f in enumerate(frames))
    if any(boxes for _, _, boxes in text):
        clean = frames.copy()
        for first, last, boxes in text:
            for x, y, w, h in boxes:
                clean[first : last + 1, y : y + h, x : x + w] = 0
        shown = "RGB" if colour else str(dataset.PhotometricInterpretation)
        dataset.set_pixel_data(clean.reshape(pixels.shape), shown, int(dataset.BitsStored), generate_instance_uid=False)
    return text


def _as_rgb(frame: NDArray[Any], colour: bool) -> NDArray[np.uint8]:
    if colour:
        return np.ascontiguousarray(frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8))
    grey = frame.astype(np.float32)
    grey = (255 * (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)
