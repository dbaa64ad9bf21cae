"""The comparison with other ways to feed patches."""

import json
import os
import pathlib
import subprocess
import sys

import conftest
import pytest

_TOOL = pathlib.Path(__file__).parents[2] / "tools" / "compare_peers.py"


def compare(tree, records_dir, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable, _TOOL, f"--input_dir={tree}",
            f"--records_dir={records_dir}", "--batch_size=8",
            "--num_repeats=1", "--min_patches=1", "--min_seconds=0",
            *arguments,
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_peer_that_cannot_run_has_its_reason(
    kaggle_tree, records_dir, tmp_path
):
    path, scratch = tmp_path / "peers.json", tmp_path / "scratch"
    scratch.mkdir()
    result = compare(
        kaggle_tree, records_dir, f"--json_output={path}",
        f"--scratch_dir={scratch}", "--only=memmap gather,ffcv",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(path.read_text())
    assert found["parameters"]["patches"] == conftest.NUM_TRAIN
    limit, own, gather, absent = found["rows"]
    assert limit["ratio_to_limit"] == own["ratio_of_mmap"] == 1
    assert own["patches_per_second"] > 0
    assert ".npy" in gather["setting"]
    if "error" in absent:  # Where `make peers` was not run, it must be.
        assert "ffcv" in absent["error"]
        assert f"FFCV: failed: {absent['error']}" in result.stdout
    assert os.listdir(scratch) == []


def test_other_records_are_refused(kaggle_tree, records_dir):
    rows = (kaggle_tree / "train_labels.csv").read_text().splitlines()
    (kaggle_tree / "train_labels.csv").write_text("\n".join(rows[:-1]) + "\n")
    last = rows[-1].split(",")[0]
    (kaggle_tree / "train" / f"{last}.tif").unlink()
    result = compare(kaggle_tree, records_dir)
    assert result.returncode == 1
    assert "found 60 labelled patches, expected the 59" in result.stderr
    assert len(result.stderr.splitlines()) == 1
