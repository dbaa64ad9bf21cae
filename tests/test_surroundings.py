"""What stands around a process changes neither its work nor its result."""

import subprocess
import sys

import pytest

from pcam_tfdata import (
    verify,
)

# Programs that use the package.

PROGRAM = """
import sys
from pcam_tfdata import convert
convert.convert(convert.ConvertOptions({tree!r}, {records!r}, num_workers=1))
print("__file__" in globals())
"""


@pytest.mark.parametrize("way", ["script", "stdin", "-c"])
def test_program_without_a_main_guard_converts(kaggle_tree, tmp_path, way):
    records_dir = str(tmp_path / "records")
    program = PROGRAM.format(tree=str(kaggle_tree), records=records_dir)
    script = tmp_path / "script.py"
    script.write_text(program)
    command = {"script": [script], "stdin": ["-"], "-c": ["-c", program]}
    result = subprocess.run(
        [sys.executable, *command[way]], input=program, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{way != '-c'}\n"
    assert verify.verify(records_dir, num_workers=1) == []
