"""Reading clips: order, times, sizes, damage."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import picture

from video_io.errors import InputError
from video_io.sources import Source, kinds, open_source
from video_io.sources.images import is_companion, natural_key

MOVING = [picture(i) for i in range(12)]


def test_the_slot_lists_its_files() -> None:
    assert {"video", "images"} <= set(kinds())


def test_every_source_keeps_the_protocol(write_video, write_images) -> None:
    for path in (write_video(MOVING), write_images([f"{i}.png" for i in range(12)])):
        source = open_source(path, every=2, max_frames=4)
        assert isinstance(source, Source)
        assert (source.width, source.height, source.frame_count) == (96, 64, 4)
        frames = list(source.frames())
        assert [f.index for f in frames] == [0, 2, 4, 6]
        assert [f.index for f in source.frames()] == [0, 2, 4, 6], "a second iteration starts again"
        assert frames[0].rgb.shape == (64, 96, 3)
        assert frames[0].rgb.dtype == np.uint8
        assert frames[0].use_mask.all()
        assert not frames[0].specular_mask.any()
        assert frames[0].camera is None
        sample = source.sample(3)
        assert len(sample) == 3
        assert sample[0].index == 0
        assert sample[-1].index <= 7
        assert source.skipped == []


def test_video_times_are_the_files_own(write_video) -> None:
    times_ms = [0, 40, 80, 200, 210, 220, 500, 1000]  # a variable frame rate
    source = open_source(write_video(MOVING[:8], times_ms=times_ms))
    assert [f.time_ns for f in source.frames()] == [t * 1_000_000 for t in times_ms]


def test_video_times_count_from_the_start_of_the_stream(write_video) -> None:
    path = write_video(MOVING[:4], name="clip.mkv", times_ms=[5000, 5040, 5080, 5120])
    assert [f.time_ns for f in open_source(path).frames()] == [0, 40_000_000, 80_000_000, 120_000_000]


def test_video_keeps_order_and_colour(write_video) -> None:
    path = write_video(MOVING, options={"crf": "4", "bf": "2", "g": "6"})
    for expected, frame in zip(MOVING, open_source(path).frames(), strict=True):
        assert np.abs(expected.astype(int) - frame.rgb).mean() < 6


def test_rotation_flag_turns_the_picture_upright(write_video) -> None:
    image = np.full((64, 96, 3), 30, np.uint8)
    image[:32, :48] = (220, 30, 30)  # red: upper left as stored
    path = write_video([image] * 3, rotation=90)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
        assert stored.rotation == 90
    frame = next(open_source(path).frames())
    assert (frame.width, frame.height) == (64, 96)
    # 90 degrees counter-clockwise: upper left goes to lower left.
    assert frame.rgb[72, 16].argmax() == 0
    assert frame.rgb[72, 16, 0] > 150
    assert frame.rgb[24, 16, 0] < 80


def test_sampling_a_video_gives_the_frames_of_a_full_reading(write_video) -> None:
    path = write_video([picture(i) for i in range(90)], options={"g": "10", "bf": "2"})
    whole = {f.index: f for f in open_source(path).frames()}
    sample = open_source(path).sample(5)
    assert [f.index for f in sample] == [0, 22, 44, 67, 89]
    for frame in sample:
        assert frame.time_ns == whole[frame.index].time_ns
        assert np.array_equal(frame.rgb, whole[frame.index].rgb)


def test_sampling_without_key_frames_goes_forward_once(write_video) -> None:
    path = write_video([picture(i) for i in range(90)], options={"g": "1000"})
    assert [f.index for f in open_source(path).sample(4)] == [0, 30, 59, 89]


def _spoil(path: Path, packets: range) -> None:
    """Overwrite the data of some packets in a video file."""
    with av.open(str(path)) as container:
        found = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for i in packets:
        at, size = found[i]
        data[at : at + size] = bytes(size)
    path.write_bytes(data)


def test_damaged_frames_are_skipped_and_listed(write_video) -> None:
    path = write_video(MOVING, name="clip.avi", codec="mjpeg")
    _spoil(path, range(5, 7))
    source = open_source(path)
    frames = list(source.frames())
    assert [f.index for f in frames] == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert [index for index, _ in source.skipped] == [5, 6]
    assert all("damaged" in reason for _, reason in source.skipped)
    assert frames[5].time_ns == 280_000_000, "the frames after the damage keep their times"


def test_damaged_h264_never_gives_a_wrong_picture(write_video) -> None:
    path = write_video([picture(i) for i in range(30)], options={"g": "10", "bf": "0", "crf": "10"})
    _spoil(path, range(13, 15))
    source = open_source(path)
    frames = {f.index: f for f in source.frames()}
    lost = {index for index, _ in source.skipped}
    assert {13, 14} <= lost
    assert lost.isdisjoint(frames)
    assert lost | set(frames) == set(range(30))
    assert {*range(13), *range(20, 30)} <= set(frames), "from the next key frame on all is well"
    for index, frame in frames.items():
        assert np.abs(picture(index).astype(int) - frame.rgb).mean() < 6, f"frame {index}"


def test_a_file_that_ends_early_gives_what_it_has(write_video) -> None:
    path = write_video([picture(i) for i in range(40)], options={"movflags": "faststart", "g": "5"})
    with av.open(str(path), "r") as container, av.open(str(path.with_name("f.mkv")), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = path.with_name("f.mkv").read_bytes()
    path.with_name("f.mkv").write_bytes(data[: len(data) // 2])
    source = open_source(path.with_name("f.mkv"))
    frames = list(source.frames())
    assert 5 < len(frames) < 40
    assert "ends early" in source.skipped[-1][1]


def test_natural_order(write_images) -> None:
    folder = write_images(["img10.png", "img2.png", "img1.png"])
    assert [p.name for p in open_source(folder).files] == ["img1.png", "img2.png", "img10.png"]
    assert natural_key(Path("a2b10")) < natural_key(Path("a2b11"))


def test_image_times_follow_the_rate(write_images) -> None:
    folder = write_images([f"{i}.png" for i in range(4)])
    assert [f.time_ns for f in open_source(folder).frames()] == [0, 33_333_333, 66_666_667, 100_000_000]
    assert [f.time_ns for f in open_source(folder, fps=10).frames()] == [0, 100_000_000, 200_000_000, 300_000_000]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_image_formats(write_images, suffix: str) -> None:
    frame = next(open_source(write_images([f"0.{suffix}"])).frames())
    assert np.abs(frame.rgb.astype(int) - picture(0)).mean() < 3, "RGB, not BGR"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001_depth.tiff", True),
        ("Depth_0000.png", True),
        ("undistorted_mask.bmp", True),
        ("f7_dynamic_deint_mask_0100.png", True),
        ("FrameBuffer_0000.png", False),
        ("0001_color.png", False),
        ("unmasked_0001.png", False),
        ("00004584.jpg", False),
    ],
)
def test_companions_are_known_by_name(name: str, expected: bool) -> None:
    assert is_companion(name) is expected


def test_companions_are_left_out(write_images) -> None:
    sizes = [(96, 64), (5, 5), (7, 7), (96, 64)]
    folder = write_images(["0001_color.png", "0001_depth.png", "mask.png", "0002_color.png"], sizes=sizes)
    assert [p.name for p in open_source(folder).files] == ["0001_color.png", "0002_color.png"]


def test_the_colour_folder_below_is_taken(write_images) -> None:
    folder = write_images(["rgb/0.png", "rgb/1.png", "depth/0.png", "other/0.png"])
    assert open_source(folder).files[0].parent.name == "rgb"


def test_the_only_folder_below_is_taken(write_images) -> None:
    folder = write_images(["bag/segment/0.png", "bag/segment/mask.png", "bag/depth/0.png"])
    assert [str(p.relative_to(folder)) for p in open_source(folder).files] == ["bag/segment/0.png"]


def test_a_damaged_image_is_skipped_and_listed(write_images) -> None:
    folder = write_images([f"{i}.png" for i in range(4)] + ["4.jpg", "5.png"])
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:500])
    (folder / "3.png").write_bytes(b"")
    (folder / "4.jpg").write_bytes((folder / "4.jpg").read_bytes()[:700])
    source = open_source(folder)
    assert [f.index for f in source.frames()] == [0, 2, 5]
    assert [index for index, _ in source.skipped] == [1, 3, 4]
    assert "cut short" in source.skipped[0][1]
    assert "empty" in source.skipped[1][1]


def test_sizes_that_differ_by_rounding_are_cut_to_the_common_part(write_images) -> None:
    folder = write_images(["0.png", "1.png"], sizes=[(96, 64), (95, 64)])
    source = open_source(folder)
    assert (source.width, source.height) == (95, 64)
    assert all(f.rgb.shape == (64, 95, 3) for f in source.frames())


def test_grey_and_16_bit_colour_images_are_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((8, 9), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "1.png"), np.dstack([np.full((8, 9), v, np.uint16) for v in (1 << 8, 2 << 8, 3 << 8)]))
    first, second = open_source(tmp_path).frames()
    assert first.rgb[0, 0].tolist() == [77, 77, 77]
    assert second.rgb[0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("name", "size", "frames"),
    [
        ("c3vd_trans_t1_a", (1350, 1080), 10),
        ("simcol_synthetic_colon", (475, 475), 10),
        ("sinus_jhu", (1920, 1080), 35),
        ("hamlyn_23", (418, 288), 66),
        ("traced_colon", (320, 256), 80),
        ("traced_colon/video.mp4", (320, 256), 80),
        ("laparoscopy_liver.mp4", (1280, 720), 250),
        ("bronchoscopy_phantom/clip_0.mp4", (800, 400), 348),
    ],
)
def test_sample_clips(sample_data: Path, name: str, size: tuple[int, int], frames: int) -> None:
    source = open_source(sample_data / name)
    assert (source.width, source.height) == size
    assert source.frame_count == frames
    assert len(source.sample(3)) == 3


def test_video_and_images_of_one_clip_agree(sample_data: Path) -> None:
    video = open_source(sample_data / "traced_colon" / "video.mp4", max_frames=3)
    images = open_source(sample_data / "traced_colon", max_frames=3)
    for a, b in zip(video.frames(), images.frames(), strict=True):
        assert a.time_ns == b.time_ns
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every": 0}, "--every 1"), ({"max_frames": 0}, "--max-frames"), ({"fps": 0.0}, "frames a second")],
)
def test_senseless_choices(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(tmp_path, **arguments)
