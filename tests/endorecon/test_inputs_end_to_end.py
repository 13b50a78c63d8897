"""Whole runs from a data set's folder and from DICOM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from endorecon.evaluate.protocol import evaluate_run
from endorecon.job import reconstruct_video
from rendering.phantom.clip import prepare
from video_io.camera import Camera
from video_io.trajectory import Trajectory

FRAMES = 14


def _frames(camera: Camera) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    clip = prepare("colon", 3, FRAMES, camera, fps=15.0)
    frames = list(clip.frames())
    return [f.rgb for f in frames], [f.depth for f in frames], np.array(clip.poses)


@pytest.mark.slow
def test_a_data_set_needs_no_option(tmp_path: Path) -> None:
    """A fisheye C3VD folder: its camera is used, and its truth is compared frame by frame."""
    import cv2

    camera = Camera("fisheye", 320, 256, (180.0, 182.0, 162.0, 126.0, -0.05, 0.01, 0.0, 0.0))
    folder = tmp_path / "trans_t1_a"
    folder.mkdir()
    rgb, depth, poses = _frames(camera)
    for i in range(FRAMES):
        cv2.imwrite(str(folder / f"{i:04d}_color.png"), rgb[i][..., ::-1])
        stored = np.minimum(np.round(depth[i] * 655.35), 65535)  # further than 100 mm is invalid
        cv2.imwrite(str(folder / f"{i:04d}_depth.tiff"), stored.astype(np.uint16))
    (folder / "pose.txt").write_text("\n".join(",".join(f"{v:.6f}" for v in p.T.ravel()) for p in poses))
    (folder / "intrinsics.json").write_text(json.dumps(camera.to_dict()))
    run = reconstruct_video(folder, tmp_path / "run")
    told = json.loads((run / "camera.json").read_text())
    assert told["source"]["model"] == "fisheye"
    assert told["source"]["fx"] == pytest.approx(180.0, abs=1e-6)  # given, so not refined
    result = evaluate_run(run, folder)
    assert result.frames_main_segment == FRAMES
    assert result.trajectory.ate_sim3_percent < 1.0  # 0.14 on the clip of 24 frames
    assert result.depth[2].abs_rel < 0.09  # 0.043 there


@pytest.mark.slow
def test_a_run_of_dicom_holds_nothing_of_the_patient(tmp_path: Path) -> None:
    import pydicom

    rgb, _, _ = _frames(Camera.from_fov(320, 256, np.radians(95)))
    header = pydicom.Dataset()
    secrets = ("Mustermann", "Z4711Z", "19640812", "St Elsewhere", "SN0815")
    header.PatientName, header.PatientID, header.PatientBirthDate = "Mustermann^Erika", "Z4711Z", "19640812"
    header.InstitutionName, header.DeviceSerialNumber, header.StudyDate = "St Elsewhere", "SN0815", "20240229"
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.1.1", pydicom.uid.generate_uid()
    header.Rows, header.Columns, header.NumberOfFrames, header.SamplesPerPixel = 256, 320, FRAMES, 3
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.PlanarConfiguration, header.PhotometricInterpretation, header.FrameTime = 0, "RGB", "66.6667"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.PixelData = np.stack(rgb).tobytes()
    header.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    run = reconstruct_video(tmp_path / "scan.dcm", tmp_path / "run")
    assert len(Trajectory.read_tum(run / "trajectory.tum")) == FRAMES
    for path in run.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [s for s in (*secrets, "20240229", str(header.SOPInstanceUID)) if s.encode() in content], path
