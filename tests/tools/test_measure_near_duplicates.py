"""The tool that measures the audit runs, on a handful of patches."""

import os
import pathlib
import subprocess
import sys

import pytest
from conftest import make_clouds, write_patches

ROOT = pathlib.Path(__file__).parents[2]


def run_tool(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "tools" / "measure_near_duplicates.py"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )


@pytest.mark.long
def test_prints_what_is_missed_and_what_is_mistaken(tmp_path):
    images = make_clouds(14)
    images[13] = images[0][::-1]
    write_patches(tmp_path / "a", images)
    result = run_tool(
        f"--input_dir={tmp_path / 'a'}",
        f"--output_dir={tmp_path / 'sheets'}",
        "--num_altered=4",
    )
    assert result.returncode == 0, result.stderr
    assert "14 different patches, 0 of them nearly blank" in result.stdout
    assert "| none | 0.00% | 0.00% | 0.00% |" in result.stdout
    assert "| move 5 of the square | 0.00% | 0.00% | 0.00% |" in result.stdout
    # The one pair that was planted, of 91.
    assert "| 0.95 - 1.00 | 1 | 10989.01 | 1 | 0 |" in result.stdout
    assert len(list((tmp_path / "sheets").iterdir())) == 3


def test_folder_without_images_is_refused(tmp_path):
    result = run_tool(f"--input_dir={tmp_path}")
    assert result.returncode != 0
    assert "found no image" in result.stderr
