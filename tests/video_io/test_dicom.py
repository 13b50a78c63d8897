"""DICOM as input: how frames are packed, their times, and that nothing of the patient comes through."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pydicom
import pytest
from clips import picture
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41, JPEGBaseline8Bit, RLELossless

from video_io.errors import InputError
from video_io.sources import open_source

PATIENT = "Mustermann^Erika"


def _header(frames: np.ndarray | tuple[int, int, int]) -> pydicom.Dataset:
    count, height, width = frames.shape[:3] if isinstance(frames, np.ndarray) else frames
    header = pydicom.Dataset()
    header.PatientName, header.PatientID, header.PatientBirthDate = PATIENT, "4711", "19640812"
    header.InstitutionName, header.SOPClassUID = "St. Elsewhere", "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    header.SOPInstanceUID, header.SeriesInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    header.Rows, header.Columns, header.NumberOfFrames, header.SamplesPerPixel = height, width, count, 3
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.PlanarConfiguration, header.PhotometricInterpretation = 0, "RGB"
    header.FrameTime = "40.0"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return header


def _images(count: int = 5) -> np.ndarray:
    return np.stack([picture(i) for i in range(count)])


def _save(header: pydicom.Dataset, path: Path) -> Path:
    header.save_as(path, enforce_file_format=True)
    return path


def _mp4(images: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def test_uncompressed_frames(tmp_path: Path) -> None:
    images = _images()
    header = _header(images)
    header.PixelData = images.tobytes()
    source = open_source(_save(header, tmp_path / "scan"))  # told by its content, not by its name
    frames = list(source.frames())
    assert np.array_equal([f.rgb for f in frames], images)
    assert [f.time_ns for f in frames] == [0, 40_000_000, 80_000_000, 120_000_000, 160_000_000]
    assert (source.frame_count, source.width, source.height) == (5, 96, 64)
    assert [f.index for f in open_source(tmp_path / "scan", every=2, max_frames=2).frames()] == [0, 2]
    assert [f.index for f in source.sample(2)] == [0, 4]


def test_run_length_encoded_frames(tmp_path: Path) -> None:
    images = _images()
    header = _header(images)
    header.PixelData = images.tobytes()
    header.compress(RLELossless)
    frames = list(open_source(_save(header, tmp_path / "scan.dcm")).frames())
    assert np.array_equal([f.rgb for f in frames], images)


def test_jpeg_frames_and_one_that_is_damaged(tmp_path: Path) -> None:
    images = _images()
    packed = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=95)
        packed.append(file.getvalue())
    packed[3] = packed[3][:20] + b"\0" * (len(packed[3]) - 20)
    header = _header(images)
    header.PhotometricInterpretation = "YBR_FULL_422"
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.PixelData = encapsulate(packed)
    header["PixelData"].VR = "OB"
    source = open_source(_save(header, tmp_path / "scan.dcm"))
    frames = list(source.frames())
    assert [f.index for f in frames] == [0, 1, 2, 4]
    assert [index for index, _ in source.skipped] == [3]
    assert np.abs(frames[1].rgb.astype(int) - images[1]).mean() < 4  # JPEG's loss; a swap of channels gives 20


@pytest.mark.parametrize("fragments", [1, 3])
def test_mpeg4_inside(tmp_path: Path, fragments: int) -> None:
    images = _images(8)
    header = _header(images)
    header.file_meta.TransferSyntaxUID = MPEG4HP41
    header.PhotometricInterpretation = "YBR_PARTIAL_420"
    stream = _mp4(images)
    header.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)], fragments_per_frame=fragments, has_bot=False)
    header["PixelData"].VR = "OB"
    source = open_source(_save(header, tmp_path / "scan.dcm"))
    frames = list(source.frames())
    assert (len(frames), source.describe["kind"], source.describe["codec"]) == (8, "dicom", "h264")
    assert frames[1].time_ns == 40_000_000
    assert np.abs(frames[5].rgb.astype(int) - images[5]).mean() < 6
    assert [f.index for f in source.sample(3)] == [0, 4, 7]


def test_grey_frames_of_twelve_bits(tmp_path: Path) -> None:
    header = _header((2, 64, 96))
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    del header.PlanarConfiguration
    header.PixelData = np.full((2, 64, 96), 2048, "<u2").tobytes()
    frame = next(iter(open_source(_save(header, tmp_path / "scan.dcm")).frames()))
    assert frame.rgb.shape == (64, 96, 3)
    assert frame.rgb[0, 0].tolist() == [128, 128, 128]  # 2048 / 4095 * 255 = 127.53


def test_a_folder_of_slices_in_their_order(tmp_path: Path) -> None:
    images, series = _images(4), pydicom.uid.generate_uid()
    for number, name in zip((3, 1, 4, 2), "abcd", strict=True):
        header = _header((1, 64, 96))
        header.SeriesInstanceUID, header.InstanceNumber = series, number
        header.PixelData = images[number - 1].tobytes()
        _save(header, tmp_path / f"{name}.dcm")
    source = open_source(tmp_path)
    assert np.array_equal([f.rgb for f in source.frames()], images)
    other = _header((1, 64, 96))
    other.PixelData = images[0].tobytes()
    _save(other, tmp_path / "e.dcm")
    with pytest.raises(InputError, match="belong to 2 series"):
        open_source(tmp_path)


def test_nothing_of_the_patient_is_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    images = _images()
    header = _header(images)
    header.PixelData = images.tobytes()[:-100]  # a message that could quote the header
    source = open_source(_save(header, tmp_path / "scan.dcm"))
    frames = list(source.frames())
    told = json.dumps([source.describe, source.name, source.skipped, [str(f.index) for f in frames]])
    told += " ".join(str(w.message) for w in recwarn.list)
    for secret in ("Mustermann", "4711", "1964", "Elsewhere", header.SeriesInstanceUID):
        assert secret not in told


def test_dicom_that_is_no_clip(tmp_path: Path) -> None:
    header = _header((1, 64, 96))
    del header.Rows, header.Columns
    with pytest.raises(InputError, match="DICOM without pictures"):
        open_source(_save(header, tmp_path / "report.dcm"))
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "report.dcm").read_bytes()[:200])
    with pytest.raises(InputError, match=r"can't be read as DICOM|without pictures"):
        open_source(tmp_path / "cut.dcm")


def test_video_inside_that_is_cut_short(tmp_path: Path) -> None:
    images = _images(8)
    header = _header(images)
    header.file_meta.TransferSyntaxUID = MPEG4HP41
    header.PixelData = encapsulate([_mp4(images)], has_bot=False)
    header["PixelData"].VR = "OB"
    whole = _save(header, tmp_path / "scan.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"can't be found|can't be opened"):
        open_source(tmp_path / "cut.dcm")
