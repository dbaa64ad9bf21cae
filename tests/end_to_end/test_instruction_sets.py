"""What depends on rounding holds with the instructions of other processors.

oneDNN, which computes for TensorFlow on x86, takes other kernels for each set of
instructions. Told to leave out the newer ones, it rounds like an older processor.
TensorFlow uses it for whole layers only where the processor has AVX-512, unless told.
"""

import os
import pathlib
import subprocess
import sys

import pytest


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"TF_ENABLE_ONEDNN_OPTS": "0"},
    ],
    ids=["AVX2", "SSE4.1", "no oneDNN"],
)
def test_numeric_tests_pass_with_other_instructions(settings, tmp_path):
    tests = pathlib.Path(__file__).parents[1]
    # Not all: importing what the others need takes longer than these.
    files = [
        f for f in tests.rglob("test_*.py") if "mark.numeric" in f.read_text()
    ]
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-m", "numeric", "-p", "no:xdist",
            "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}",
            *files,
        ],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
