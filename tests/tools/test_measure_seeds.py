"""The tool that trains with many seeds: what it says where it cannot."""

import os
import pathlib

import loaded
import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import runpy, sys
sys.argv = {argv}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_tool(tmp_path: pathlib.Path, *arguments: str) -> tuple:
    """Returns the exit code, and the lines of stderr and stdout."""
    argv = [
        str(ROOT / "tools" / "measure_seeds.py"),
        f"--records_dir={tmp_path / 'none'}",
        f"--output_csv={tmp_path / 'seeds.csv'}",
        *arguments,
    ]
    process = loaded.Process(PROGRAM.format(argv=argv))
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stderr.splitlines(), stdout.splitlines()


@pytest.mark.long
def test_training_that_fails_says_why(tmp_path):
    returncode, lines, _ = run_tool(tmp_path, "--num_seeds=1")
    assert returncode == 1
    *told, last = [line for line in lines if line]
    assert any(f"{tmp_path / 'none'}" in line for line in told)
    assert last.startswith("default, seed 0: found exit code 1 of pcam train")
    assert not any("Traceback" in line for line in lines)
    assert not os.path.exists(tmp_path / "seeds.csv")


def test_variants_are_compared_seed_by_seed(tmp_path):
    rows = [
        f"{name},{seed},{0.9 + 0.01 * seed + better},0.9,0.0"
        for name, better in (("as it is", 0.0), ("wide", 0.02))
        for seed in range(3)
    ]
    (tmp_path / "seeds.csv").write_text("\n".join(rows) + "\n")
    argv = ["--num_seeds=3", "--variant=wide: --augment=d4 --epochs=2"]
    returncode, lines, table = run_tool(tmp_path, *argv)
    assert (returncode, lines) == (0, [])
    assert table[0] == "| seed | as it is | wide |"
    assert table[2] == "| 0 | 0.9000 | 0.9200 |"
    assert table[-2].startswith(
        "| difference from the first | - | +0.0200 [+0."
    )


@pytest.mark.parametrize("names", ["AVX3", "default,AVX3"])
def test_unknown_processor_is_refused_in_one_line(tmp_path, names):
    returncode, lines, _ = run_tool(tmp_path, f"--processors={names}")
    assert returncode == 1
    assert lines == [
        "--processors: found AVX3, expected some of default, AVX2, SSE4.1, no"
        " oneDNN, with commas between them."
    ]
