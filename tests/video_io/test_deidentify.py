"""Burnt-in text, file metadata and DICOM attributes: what is taken out, and what stays."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import picture

from rendering.phantom.burn import Burnt, burn
from rendering.phantom.damage import write_video
from video_io.deidentify import deidentify, text_by_segment
from video_io.errors import InputError
from video_io.frame import Frame
from video_io.sources import open_source
from video_io.stripping import stripped_jpeg, stripped_png
from video_io.text import find_overlays

NAME = Burnt(("DOE JANE 4711",), "top left", 14, (255, 255, 255), "stroke", 1.0)


def _moving(count: int = 30) -> list[np.ndarray]:
    """A texture that moves two pixels a frame, in the colours of tissue."""
    tint = np.array([1.0, 0.6, 0.5])
    return [(picture(2 * n, 240, 160) * tint).astype(np.uint8) for n in range(count)]


def _frames(images: list[np.ndarray]) -> list[Frame]:
    return [Frame.of(np.ascontiguousarray(image), n, n * 33_000_000) for n, image in enumerate(images)]


def test_text_is_found_where_it_is() -> None:
    images, [(x, y, w, h)] = burn(_moving(), NAME)
    found = find_overlays(_frames(images))
    covered = np.zeros((160, 240), bool)
    for u, v, s, t in found.text:
        covered[v : v + t, u : u + s] = True
    assert covered[y : y + h, x : x + w].all()
    # Not much more than the line: half its height all around.
    assert covered.sum() < 1.2 * (w + h) * (2 * h)


def test_no_text_in_a_picture_without() -> None:
    found = find_overlays(_frames(_moving()))
    assert found.moving and found.text == () and found.graphics == ()


def test_text_that_comes_late_is_found_in_its_frames() -> None:
    late = Burnt(NAME.lines, "top left", 14, (255, 255, 255), "stroke", 1.0, shown=(0.5, 1.0))
    images, [(x, y, w, h)] = burn(_moving(96), late)
    text = text_by_segment(_frames(images))
    assert [(a, b) for a, b, _ in text][:2] == [(0, 11), (12, 23)]
    for first, last, boxes in text:
        covered = any(u <= x and v <= y and u + s >= x + w and v + t >= y + h for u, v, s, t in boxes)
        assert covered or last < 48
        assert not boxes or last >= 12, (first, boxes)


def test_a_video_loses_text_and_tags_and_nothing_else(tmp_path: Path) -> None:
    images, [(x, y, w, h)] = burn(_moving(), NAME)
    recorded = write_video(tmp_path / "DOE.mp4", images, metadata={"title": "DOE JANE", "comment": "ward 3"})
    clean = deidentify(recorded, tmp_path / "out")
    assert any("title" in what for what in clean.removed) and any("burnt-in" in what for what in clean.removed)
    data = clean.path.read_bytes()
    assert b"DOE" not in data and b"ward 3" not in data
    before, after = (list(open_source(path).frames()) for path in (recorded, clean.path))
    assert [f.time_ns for f in after] == [f.time_ns for f in before]
    assert after[9].rgb[y + 2 : y + h - 2, x + 2 : x + w - 2].max() < 25
    far = np.ones((160, 240), bool)
    far[max(0, y - h) : y + 2 * h, max(0, x - h) : x + w + h] = False
    assert np.abs(after[9].rgb.astype(int) - before[9].rgb)[far].max() < 20
    assert json.loads((tmp_path / "out/removed.json").read_text())["path"].endswith("clip.mp4")


def test_a_video_without_text_keeps_its_pictures_bit_for_bit(tmp_path: Path) -> None:
    recorded = write_video(tmp_path / "clip.mp4", _moving(), metadata={"title": "DOE JANE"})
    clean = deidentify(recorded, tmp_path / "out")
    assert b"DOE" not in clean.path.read_bytes() and clean.boxes == ()
    for a, b in zip(open_source(recorded).frames(), open_source(clean.path).frames(), strict=True):
        assert np.array_equal(a.rgb, b.rgb) and a.time_ns == b.time_ns


def test_images_lose_exif_comments_and_names(tmp_path: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "DOE JANE"  # ImageDescription
    note = PngInfo()
    note.add_text("Patient", "DOE JANE")
    for n, image in enumerate(_moving(4)):
        Image.fromarray(image).save(folder / f"doe_jane_{n}.jpg", exif=exif, comment=b"DOE JANE", quality=92)
    Image.fromarray(_moving(1)[0]).save(folder / "doe_jane_9.png", pnginfo=note)
    (folder / "letter to Dr Doe.txt").write_text("DOE JANE")
    clean = deidentify(folder, tmp_path / "out")
    files = sorted((tmp_path / "out/rgb").iterdir())
    assert [f.name for f in files] == ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg", "000004.png"]
    assert not any(b"DOE" in p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    original = cv2.imread(str(folder / "doe_jane_2.jpg"))
    assert np.array_equal(cv2.imread(str(files[2])), original)
    assert "EXIF or XMP, in 4 files" in clean.removed and "comment, in 4 files" in clean.removed
    assert "tEXt, in 1 files" in clean.removed and "1 other files and folders: not copied" in clean.removed


def test_data_behind_a_picture_is_dropped() -> None:
    ok, data = cv2.imencode(".jpg", _moving(1)[0])
    clean, gone = stripped_jpeg(data.tobytes() + b"DOE JANE")
    assert ok and clean == data.tobytes() and gone == ["data behind the picture"]
    ok, data = cv2.imencode(".png", _moving(1)[0])
    clean, gone = stripped_png(data.tobytes() + b"DOE JANE")
    assert ok and clean == data.tobytes() and gone == ["data behind the picture"]
    for bad in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"no picture"):
        with pytest.raises(ValueError):
            stripped_jpeg(bad)


def test_outputs_that_are_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_text("x")
    with pytest.raises(InputError, match="is there already"):
        deidentify(tmp_path / "clip.mp4", tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        deidentify(tmp_path / "clip.mp4", tmp_path / "new")


# -- DICOM --------------------------------------------------------------------------------------------------------


def _dicom(path: Path, images: list[np.ndarray]) -> Path:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("dicomanonymizer")
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.SourceApplicationEntityTitle = "DOE_AE"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.1.1"  # video endoscopic
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "Q4711", "19610312", "F"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20260714", "101500", "ACC9"
    ds.InstitutionName, ds.ReferringPhysicianName = "St Mary", "Petrov^A"
    ds.StudyDescription, ds.SeriesDescription, ds.Modality = "colonoscopy of Jane Doe", "x", "ES"
    ds.ProtocolName, ds.DeviceSerialNumber, ds.Manufacturer = "Doe protocol", "SN1", "Maker"
    step = pydicom.Dataset()
    step.ScheduledProcedureStepDescription, step.RequestedProcedureID = "for Doe", "R1"
    ds.RequestAttributesSequence = [step]
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.ReferencedImageSequence = [source]
    block = ds.private_block(0x0011, "DOE PRIVATE", create=True)
    block.add_new(0x01, "LO", "Doe")
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.NumberOfFrames = len(images)
    ds.set_pixel_data(np.stack(images), "RGB", 8, generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)
    return path


def test_dicom_attributes_by_the_profile(tmp_path: Path) -> None:
    """Actions as table E.1-1 of PS3.15 has them, read there by hand."""
    pydicom = pytest.importorskip("pydicom")
    images, [(x, y, w, h)] = burn(_moving(), NAME)
    made = _dicom(tmp_path / "in.dcm", images)
    old = pydicom.dcmread(made)
    clean = deidentify(made, tmp_path / "out")
    new = pydicom.dcmread(clean.path)
    assert new.PatientName == "" and not new.PatientBirthDate and not new.PatientSex  # Z
    assert new.PatientID in ("", "ANONYMOUS")  # Z/D
    assert not new.AccessionNumber and not new.ReferringPhysicianName and not new.StudyDate  # Z
    for gone in ("StudyDescription", "SeriesDescription", "RequestAttributesSequence"):
        assert gone not in new  # X
    assert new.get("InstitutionName", "") in ("", "ANONYMOUS") and new.get("DeviceSerialNumber", "") != "SN1"
    assert new.Manufacturer == "Maker" and new.Modality == "ES"  # not in the table
    assert new.SOPInstanceUID != old.SOPInstanceUID and new.StudyInstanceUID != old.StudyInstanceUID  # U
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    if "ReferencedImageSequence" in new:  # the same new UID wherever the old one stood
        assert new.ReferencedImageSequence[0].ReferencedSOPInstanceUID == new.SOPInstanceUID
    assert not any(element.tag.is_private for element in new)
    assert new.PatientIdentityRemoved == "YES" and new.BurnedInAnnotation == "NO"
    assert new.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    pixels = new.pixel_array
    del new.PixelData
    told = f"{new.file_meta}{new}".lower()
    for word in ("doe", "q4711", "petrov", "st mary", "acc9", "sn1"):
        assert word not in told, word
    assert pixels[9][y : y + h, x : x + w].max() == 0
    assert np.array_equal(pixels[9][100:], images[9][100:])


def test_dicom_video_is_cleaned_too(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate, generate_fragments

    images, [(x, y, w, h)] = burn(_moving(), NAME)
    stream = write_video(tmp_path / "s.mp4", images, metadata={"title": "DOE JANE"}).read_bytes()
    made = _dicom(tmp_path / "in.dcm", images[:1])
    ds = pydicom.dcmread(made)
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)], has_bot=False)
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    ds.NumberOfFrames = len(images)
    ds.save_as(made, enforce_file_format=True)
    clean = deidentify(made, tmp_path / "out")
    assert not any(word in clean.path.read_bytes() for word in (b"DOE", b"Doe", b"JANE"))
    inside = tmp_path / "inside.mp4"
    inside.write_bytes(b"".join(generate_fragments(pydicom.dcmread(clean.path).PixelData)))
    frames = list(open_source(inside).frames())
    assert len(frames) == len(images)
    assert frames[9].rgb[y + 2 : y + h - 2, x + 2 : x + w - 2].max() < 25
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name != "removed.json"] == ["clip.dcm"]


def test_the_table_has_the_standards_rows() -> None:
    """Rows read in PS3.15 table E.1-1 by hand: tag, action."""
    pytest.importorskip("dicomanonymizer")
    from video_io.dicom_profile import action_of, table

    assert len(table()[0]) > 600
    for tag, action in {
        0x00100010: "Z", 0x00100030: "Z", 0x00081030: "X", 0x0020000D: "U", 0x00080018: "U", 0x00104000: "X",
        0x00080090: "Z", 0x00102160: "X", 0x00080060: "", 0x00280010: "", 0x50003000: "X", 0x60023000: "X",
    }.items():  # fmt: skip
        assert action_of(tag) == action, hex(tag)
    assert action_of(0x00110101, private=True) == "X"
