"""A temperature is that of a network and of a way to view patches."""

import pytest

from pcam_tfdata.runs import calibration_file, run_folder


def test_temperatures_of_a_network_stay_beside_each_other(tmp_path):
    run_dir = str(tmp_path)
    calibration_file.write(run_dir, "none", "a", 1.25)
    calibration_file.write(run_dir, "d4", "a", 0.8)
    assert calibration_file.read(run_dir, "none", "a") == 1.25
    assert calibration_file.read(run_dir, "d4", "a") == 0.8
    # Another network leaves none of those of the one before.
    calibration_file.write(run_dir, "none", "b", 1.0)
    assert calibration_file.read(run_dir, "none", "a") is None
    assert calibration_file.read(run_dir, "d4", "a") is None
    assert calibration_file.read(run_dir, "d4", "b") is None
    assert calibration_file.read(run_dir, "none", "b") == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"none": 1}', '{"temperatures": {"none": 1}}',
     '{"temperatures": 1, "model_sha256": "a"}'],
)  # fmt: skip
def test_damaged_temperatures_are_refused_and_replaced(tmp_path, text):
    (tmp_path / run_folder.CALIBRATION).write_text(text)
    with pytest.raises(ValueError, match=r"calibration.json: found no tempera"):
        calibration_file.read(str(tmp_path), "none", "a")
    calibration_file.write(str(tmp_path), "none", "a", 1.25)
    assert calibration_file.read(str(tmp_path), "none", "a") == 1.25


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_what_is_no_temperature_is_refused(tmp_path, temperature):
    calibration_file.write(str(tmp_path), "none", "a", temperature)
    with pytest.raises(
        ValueError, match=r"found no temperatures .*not above 0"
    ):
        calibration_file.read(str(tmp_path), "none", "a")
