"""A calibration is that of a network and of a way to view patches."""

import pytest

from pcam_tfdata.runs import calibration_file, run_folder

ONE = calibration_file.Calibration(1.25, -0.5)


def test_calibrations_of_a_network_stay_beside_each_other(tmp_path):
    run_dir, other = str(tmp_path), calibration_file.Calibration(0.8)
    calibration_file.write(run_dir, "none", "a", ONE)
    calibration_file.write(run_dir, "d4", "a", other)
    assert calibration_file.read(run_dir, "none", "a") == ONE
    assert calibration_file.read(run_dir, "d4", "a") == other
    # Another network leaves none of those of the one before.
    calibration_file.write(run_dir, "none", "b", other)
    assert calibration_file.read(run_dir, "none", "a") is None
    assert calibration_file.read(run_dir, "d4", "a") is None
    assert calibration_file.read(run_dir, "d4", "b") is None
    assert calibration_file.read(run_dir, "none", "b") == other


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"none": 1}', '{"calibrations": {"none": 1}}',
     '{"calibrations": 1, "model_sha256": "a"}',
     '{"calibrations": {"none": {"slope": 1}}, "model_sha256": "a"}',
     '{"calibrations": {"none": {"temperature": 1}}, "model_sha256": "a"}',
     '{"temperatures": {"none": 1}, "model_sha256": "a"}'],
)  # fmt: skip
def test_damaged_calibrations_are_refused_and_replaced(tmp_path, text):
    (tmp_path / run_folder.CALIBRATION).write_text(text)
    with pytest.raises(ValueError, match=r"calibration.json: found no calibra"):
        calibration_file.read(str(tmp_path), "none", "a")
    calibration_file.write(str(tmp_path), "none", "a", ONE)
    assert calibration_file.read(str(tmp_path), "none", "a") == ONE


@pytest.mark.parametrize(
    ("temperature", "intercept"),
    [(0, 0), (-1.0, 0), (float("nan"), 0), (float("inf"), 0),
     (1, float("nan")), (1, float("-inf"))],
)  # fmt: skip
def test_what_calibrates_nothing_is_refused(tmp_path, temperature, intercept):
    found = calibration_file.Calibration(temperature, intercept)
    calibration_file.write(str(tmp_path), "none", "a", found)
    with pytest.raises(
        ValueError, match=r"found no calibration .*calibrate nothing"
    ):
        calibration_file.read(str(tmp_path), "none", "a")
