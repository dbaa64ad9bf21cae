"""A temperature is that of a network and of a way to view patches."""

import dataclasses

import pytest

from pcam_tfdata.runs import calibration_file, run_folder

ONE = calibration_file.Calibration(
    temperature=1.25, splits=["fold0"], model_sha256="a"
)


def test_temperatures_of_a_network_stay_beside_each_other(tmp_path):
    run_dir = str(tmp_path)
    views = dataclasses.replace(ONE, temperature=0.8)
    calibration_file.write(run_dir, "none", ONE)
    calibration_file.write(run_dir, "d4", views)
    assert calibration_file.read(run_dir, "none", "a") == ONE
    assert calibration_file.read(run_dir, "d4", "a") == views
    # Another network leaves none of those of the one before.
    calibration_file.write(
        run_dir, "none", dataclasses.replace(ONE, model_sha256="b")
    )
    assert calibration_file.read(run_dir, "none", "a") is None
    assert calibration_file.read(run_dir, "d4", "a") is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"none": 1}', '{"none": {"temperature": 2}}'],
)
def test_damaged_temperatures_are_refused_and_replaced(tmp_path, text):
    (tmp_path / run_folder.CALIBRATION).write_text(text)
    with pytest.raises(ValueError, match=r"calibration.json: found no tempera"):
        calibration_file.read(str(tmp_path), "none", "a")
    calibration_file.write(str(tmp_path), "none", ONE)
    assert calibration_file.read(str(tmp_path), "none", "a") == ONE


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_what_is_no_temperature_is_refused(tmp_path, temperature):
    wrong = dataclasses.replace(ONE, temperature=temperature)
    calibration_file.write(str(tmp_path), "none", wrong)
    with pytest.raises(ValueError, match="a temperature that is not above 0"):
        calibration_file.read(str(tmp_path), "none", "a")
