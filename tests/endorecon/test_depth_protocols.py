"""The protocols for depth, against numbers worked out by hand, and the traps of each."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from made_case import case_of, figures, measured, trajectory, truth_of

from endorecon.evaluate.protocols import listing, names, protocol
from endorecon.evaluate.temporal import temporal_errors
from video_io.camera import Camera
from video_io.errors import InputError


def row(*values):
    return np.array([values], np.float32)


# d = 12, 18, 40 against t = 10, 20, 20; the fourth is beyond the cap
TRUTH, DEPTH = row(10, 20, 20, 200), row(12, 18, 40, 7)


def test_each_protocol_says_what_it_is():
    for name in names():
        module = protocol(name)
        assert module.ABOUT and module.SOURCE and set(module.NEEDS) <= {"depth", "path", "surface", "images"}
    assert names()[0] == "standard" and "snippet5" in listing()
    with pytest.raises(InputError, match="no protocol 'AF'; there are standard, af, c3vd"):
        protocol("AF")


def test_af_by_hand(tmp_path):
    found = measured("af", case_of(tmp_path, truth_of([TRUTH]), [DEPTH]))
    # medians 20 and 18: factor 1.1111; 13.333, 20, 44.444
    assert found["AbsRel"][0] == pytest.approx((1 / 3 + 0 + 1.22222) / 3, rel=1e-5)
    assert found["SqRel"][0] == pytest.approx((3.33333**2 / 10 + 24.44444**2 / 20) / 3, rel=1e-5)
    assert found["RMSE"][0] == pytest.approx(np.sqrt((3.33333**2 + 24.44444**2) / 3), rel=1e-5)
    # logs 0.287682, 0, 0.798508
    assert found["RMSE log"][0] == pytest.approx(np.sqrt((0.287682**2 + 0.798508**2) / 3), rel=1e-5)
    # ratios 1.3333, 1, 2.2222 against 1.25, 1.5625, 1.953
    assert [found[f"delta {k}"][0] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_a_scale_for_each_image_hides_that_the_scale_drifts(tmp_path):
    """The second frame is twice as large: as published both are the same, with one scale they are not."""
    outcome = protocol("af").measure(case_of(tmp_path, truth_of([TRUTH] * 2), [DEPTH, 2 * DEPTH]))
    published, corrected = figures(outcome)["AbsRel"]
    assert published == pytest.approx(0.518519, rel=1e-5)
    # ratios .8333 1.1111 .5, .4167 .5556 .25: median .527778; 6.333 9.5 21.111 and 12.667 19 42.222
    assert corrected == pytest.approx((0.315741 + 0.475926) / 2, rel=1e-5)
    assert "median scale for each image" in outcome.alignment and outcome.frames == 2


def test_af_clamps_what_is_too_far_and_the_corrected_figure_does_not(tmp_path):
    truth, depth = row(100, 100, 100, 100), row(100, 100, 100, 1000)
    found = measured("af", case_of(tmp_path, truth_of([truth]), [depth]))
    # 1000 becomes 150
    assert found["AbsRel"] == (pytest.approx(0.5 / 4), pytest.approx(9 / 4))


def test_af_resizes_disparity_not_depth(tmp_path):
    """Two pixels stretched to four: cv2.resize puts 3/4 and 1/4 of each into the two in the middle."""
    truth, depth = row(20, 20, 40, 40), row(20, 40)
    found = measured("af", case_of(tmp_path, truth_of([truth]), [depth]))
    # disparities 1/20, 3/4 of 1/20 + 1/4 of 1/40, ..., 1/40: depths 20, 22.857, 32, 40; median 27.4286 against 30
    d = np.array([20, 1 / (0.75 / 20 + 0.25 / 40), 1 / (0.25 / 20 + 0.75 / 40), 40])
    assert d[1] == pytest.approx(22.857, abs=1e-3) and d[2] == pytest.approx(32)
    d *= 30 / np.median(d)
    assert found["AbsRel"][0] == pytest.approx(np.mean(np.abs(d - truth[0]) / truth[0]), rel=1e-6)


def test_af_is_monodepths_code(tmp_path):
    """Against that code's steps, written down plainly, on random maps of another size."""
    rng = np.random.default_rng(0)
    truths = [rng.uniform(5, 170, (24, 32)).astype(np.float32) * (rng.random((24, 32)) > 0.2) for _ in range(3)]
    depths = [rng.uniform(2, 60, (12, 16)).astype(np.float32) for _ in range(3)]
    errors = []
    for depth, truth in zip(depths, truths, strict=True):
        predicted = 1 / cv2.resize(1 / depth, (32, 24))
        mask = np.logical_and(truth > 1e-3, truth < 150)
        predicted, gt = predicted[mask].astype(np.float64), truth[mask].astype(np.float64)
        predicted *= np.median(gt) / np.median(predicted)
        predicted[predicted < 1e-3], predicted[predicted > 150] = 1e-3, 150
        ratio = np.maximum(gt / predicted, predicted / gt)
        errors.append(
            [
                np.mean(np.abs(gt - predicted) / gt), np.mean((gt - predicted) ** 2 / gt),
                np.sqrt(np.mean((gt - predicted) ** 2)), np.sqrt(np.mean((np.log(gt) - np.log(predicted)) ** 2)),
                *((ratio < 1.25**k).mean() for k in (1, 2, 3)),
            ]
        )  # fmt: skip
    found = measured("af", case_of(tmp_path, truth_of(truths), depths))
    assert [published for published, _ in found.values()] == pytest.approx(np.mean(errors, 0).tolist(), rel=1e-6)


def test_what_has_no_prediction_is_said(tmp_path):
    outcome = protocol("af").measure(case_of(tmp_path, truth_of([TRUTH]), [row(12, 0, 40, 7)]))
    assert (
        outcome.valid_share == pytest.approx(2 / 3) and "33 % of the true pixels have no prediction" in outcome.notes[0]
    )


def test_caps_and_crops(tmp_path):
    # a pixel at 190 mm counts with a cap of 200 alone, one at 170 with 180 too, one at 160 not with 150
    truth, depth = row(100, 100, 100, 160, 170, 190), row(100, 100, 100, 320, 170, 380)
    case = case_of(tmp_path, truth_of([truth]), [depth])
    assert measured("servct", case)["AbsRel"][1] == pytest.approx(1 / 5)
    assert measured("servct200", case)["AbsRel"][1] == pytest.approx(2 / 6)
    assert measured("hamlyn", case)["AbsRel"] == (pytest.approx(0), pytest.approx(0))
    # medians 130 and 135: 96.296 three times and 163.70, off by 1 / 27 each; 308 and 366 are clamped to 300
    expected = (4 / 27 + 140 / 160 + 110 / 190) / 6
    assert measured("hamlyn300", case)["AbsRel"] == (pytest.approx(expected), pytest.approx(2 / 6))


def test_hamlyn_crops_the_later_sequences(tmp_path):
    truth = np.full((2, 640), 50, np.float32)
    depth = truth.copy()
    depth[:, :180] = 100  # wrong where rectified14 and later ones are cropped
    for name, expected in (("rectified05", 180 / 640), ("rectified14", 0.0), ("rectified27", 0.0)):
        case = case_of(tmp_path, truth_of([truth], name=name), [depth])
        assert measured("hamlyn", case)["AbsRel"][0] == pytest.approx(expected)


def test_c3vd_leaves_out_the_border_where_errors_are(tmp_path):
    truth = np.full((1080, 1350), 40, np.float32)
    depth = truth.copy()
    depth[:180] = 60  # the rows above the crop: 180 of 1080
    truth[900:, 1150:] = 0
    outcome = protocol("c3vd").measure(case_of(tmp_path, truth_of([truth]), [depth]))
    known = 1080 * 1350 - 180 * 200
    assert figures(outcome)["AbsRel"] == (pytest.approx(0, abs=1e-7), pytest.approx(0.5 * 180 * 1350 / known, rel=1e-4))
    with pytest.raises(InputError, match="crops images of 1350 x 1080, the truth made has 4 x 1"):
        measured("c3vd", case_of(tmp_path, truth_of([TRUTH]), [DEPTH]))


def test_simcol_by_hand(tmp_path):
    """Two frames of one depth each: 40 and 80 mm, predicted as 20 and 60."""
    truth, depth = [np.full((2, 2), v) for v in (40, 80)], [np.full((2, 2), v) for v in (20, 60)]
    found = measured("simcol", case_of(tmp_path, truth_of(truth), depth))
    # shares of 20 cm: p .1 and .3, g .2 and .4; scale (.02 + .12) / (.01 + .09) = 1.4; 2.8 and 8.4 cm
    assert found["L1"][0] == pytest.approx((1.2 + 0.4) / 2, rel=5e-3)  # float16 rounds to 5e-4
    assert found["median relative error"][0] == pytest.approx((30 + 5) / 2, rel=5e-3)
    assert found["RMSE"][0] == pytest.approx((1.2 + 0.4) / 2, rel=5e-3)
    # ratios 2 and 1.3333: median 1.66667; 3.333 and 10 cm
    assert found["L1"][1] == pytest.approx((0.66667 + 2) / 2, rel=1e-5)


def test_simcol_counts_pixels_without_truth(tmp_path):
    truth, depth = np.array([[40, 40], [40, 0.0]]), np.full((2, 2), 40)
    published, corrected = measured("simcol", case_of(tmp_path, truth_of([truth]), [depth]))["L1"]
    # scale .15 * .2 / .2^2 = .75: 3 cm; errors 1, 1, 1 and 3 cm where there is nothing
    assert published == pytest.approx(1.5, rel=5e-3) and corrected == pytest.approx(0, abs=1e-6)


def test_seq_scale_by_hand(tmp_path):
    truth, depth = [row(10, 10, 10), row(50, 50, 50)], [row(1, 1, 1), row(10, 10, 10)]
    found = measured("seq_scale", case_of(tmp_path, truth_of(truth), depth))
    # medians 30 and 5.5: 5.4545; 5.45 for 10, 54.5 for 50. Median of ratios 10 and 5: 7.5
    assert found["AbsRel"] == (pytest.approx((0.454545 + 0.090909) / 2, rel=1e-5), pytest.approx((0.25 + 0.5) / 2))


def test_a_constant_shift_of_disparity_is_hidden_by_scale_and_shift(tmp_path):
    # true disparities 20 and 10 / m; predicted (20 - 2) / 5 and (10 - 2) / 5
    case = case_of(tmp_path, truth_of([row(50, 100)]), [row(1 / 3.6, 1 / 1.6)])
    outcome = protocol("seq_affine").measure(case)
    published, corrected = figures(outcome)["AbsRel"]
    assert published == pytest.approx(0, abs=1e-6)
    # depths .27778 and .625; ratios 180 and 160: median 170; 47.222 for 50 and 106.25 for 100
    assert corrected == pytest.approx((0.055556 + 0.0625) / 2, rel=1e-4)
    assert "scale 5 and shift 2 / m" in outcome.alignment and "no TAE" in outcome.notes[0]
    # the same prediction, with a scale for each image, which is no better than one for the clip: there is one image
    assert measured("af", case)["AbsRel"][0] > 0.05


def test_seq_affine_is_least_squares_over_the_sequence(tmp_path):
    rng = np.random.default_rng(1)
    truths = [rng.uniform(5, 120, (6, 8)) for _ in range(3)]
    depths = [rng.uniform(1, 30, (6, 8)).astype(np.float32) for _ in range(3)]
    x = np.concatenate([1 / d.ravel().astype(float) for d in depths])
    y = np.concatenate([1 / (t.astype(np.float32).ravel().astype(float) / 1000 + 1e-8) for t in truths])
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    rel = []
    for d, t in zip(depths, truths, strict=True):
        aligned = 1000 / np.clip(scale / d.astype(float) + shift, 1e-3, None)
        rel.append(np.mean(np.abs(aligned - t) / t))
    found = measured("seq_affine", case_of(tmp_path, truth_of(truths), depths))
    assert found["AbsRel"][0] == pytest.approx(np.mean(rel), rel=1e-5)


def test_tae_by_hand(tmp_path):
    """A wall at 50 mm, then 10 mm nearer; the second prediction is 10 % too far."""
    camera = Camera.pinhole(9, 7, 20, 20, 4.5, 3.5)
    truth = truth_of(
        [np.full((7, 9), z) for z in (50, 40)], trajectory([[0, 0, 0], [0, 0, 10]]), camera
    )  # fmt: skip
    case = case_of(tmp_path, truth, [np.full((7, 9), z) for z in (50, 44)])
    ours, own = temporal_errors(case, lambda d: d)
    # forth: 50 - 10 = 40 against 44; back: 44 + 10 = 54 against 50
    assert ours == pytest.approx([(4 / 44 + 4 / 50) / 2]) and own == pytest.approx([0], abs=1e-7)
    assert "100 TAE" in measured("seq_affine", case)


def test_truth_that_is_up_to_scale_has_no_caps(tmp_path):
    with pytest.raises(InputError, match="caps depths in mm, but the truth made is up to scale"):
        measured("af", case_of(tmp_path, truth_of([TRUTH], unit="up to scale"), [DEPTH]))
    with pytest.raises(InputError, match="no frame has a pixel with a prediction"):
        measured("af", case_of(tmp_path, truth_of([row(400, 500)]), [row(1, 1)]))
