"""Prediction: each patch once whatever the replicas, and a killed job goes on."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import time

import loaded
import numpy as np
import pytest
import tables
from conftest import HALF_OF_FLOAT32, convert_folder, run_pcam

from pcam_tfdata.conversion import join
from pcam_tfdata.pipeline import batch_format
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import calibration_file
from pcam_tfdata.system import csv_files

NUM_TEST = 299
PARTS = "submission.csv.parts"


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory) -> str:
    """Records with a test split of many shards."""
    root = tmp_path_factory.mktemp("predict")
    for command in (
        ["synthesize", f"--output_dir={root / 'kaggle'}", "--num_train=60",
         f"--num_test={NUM_TEST}"],
        ["convert_to_tfrecords", f"--input_dir={root / 'kaggle'}",
         f"--output_dir={root / 'records'}", "--shard_megabytes=0.4"],
    ):  # fmt: skip
        result = run_pcam(*command)
        assert result.returncode == 0, result.stderr
    return str(root / "records")


def train(records_dir, run_dir, seed) -> pathlib.Path:
    result = loaded.run(
        "train", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        "--model=small_cnn", "--batch_size=16", "--epochs=1",
        f"--seed={seed}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return run_dir


@pytest.fixture(scope="module")
def run_dir(records_dir, tmp_path_factory) -> pathlib.Path:
    """A run of one epoch."""
    return train(records_dir, tmp_path_factory.mktemp("runs") / "one", 0)


def job(records_dir, run_dir, folder, *more) -> list[str]:
    """Returns the command of a job that takes long enough to be stopped."""
    return [
        "predict", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--output_csv={folder / 'submission.csv'}", "--input=mmap",
        "--batch_size=1", *more,
    ]  # fmt: skip


def predict(
    records_dir, run_dir, folder, *more, run=loaded.run
) -> tuple[bytes, str]:
    """Runs a job that must succeed; returns its CSV and its stderr."""
    folder.mkdir(exist_ok=True)
    result = run(*job(records_dir, run_dir, folder, *more))
    assert result.returncode == 0, result.stderr
    assert os.listdir(folder) == ["submission.csv"]
    return (folder / "submission.csv").read_bytes(), result.stderr


@pytest.fixture(scope="module")
def undisturbed(records_dir, run_dir, tmp_path_factory) -> bytes:
    """The CSV of the job when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return predict(records_dir, run_dir, folder, run=run_pcam)[0]


@pytest.fixture(scope="module", params=[1, 32], ids=lambda size: f"by {size}")
def batches(
    records_dir, run_dir, undisturbed, tmp_path_factory, request
) -> tuple[str, bytes]:
    """A flag, and the CSV with it. No shard of 14 patches ends with its batch."""
    flag = f"--batch_size={request.param}"
    if request.param == 1:
        return flag, undisturbed
    folder = tmp_path_factory.mktemp("batches")
    return flag, predict(records_dir, run_dir, folder, flag)[0]


def stop(records_dir, run_dir, folder, number) -> loaded.Process:
    """Starts the job and sends it a signal once a few shards are done.

    It is made to stand still first. If it was too far by then, another begins.
    """
    for _ in range(9):
        process = loaded.start(*job(records_dir, run_dir, folder))
        while process.poll() is None and len(list_parts(folder)) < 3:
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        while process.poll() is None and not process.stands_still():
            time.sleep(0.001)
        if 3 <= len(list_parts(folder)) < num_shards(records_dir) - 3:
            process.send_signal(number)
            if number not in (signal.SIGSTOP, signal.SIGKILL):
                process.send_signal(signal.SIGCONT)
            return process
        process.send_signal(signal.SIGCONT)
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
        (folder / "submission.csv").unlink()
    pytest.fail("the job was always done before the signal")


def list_parts(folder) -> list[pathlib.Path]:
    return sorted((folder / PARTS).glob("*.logits"))


@pytest.fixture(scope="module")
def killed(records_dir, run_dir, tmp_path_factory) -> pathlib.Path:
    """What a job that was killed leaves."""
    folder = tmp_path_factory.mktemp("killed")
    process = stop(records_dir, run_dir, folder, signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(folder) == [PARTS]
    return folder


@pytest.fixture
def killed_copy(killed, tmp_path) -> pathlib.Path:
    """The same for a test that changes it."""
    return pathlib.Path(shutil.copytree(killed, tmp_path / "killed"))


def list_shards(records_dir) -> tuple[records_folder.ShardFile, ...]:
    return (
        records_folder.open_folder(records_dir).select_patches(["test"]).shards
    )


def num_shards(records_dir) -> int:
    return len(list_shards(records_dir))


@pytest.mark.parametrize(
    ("num_replicas", "batch_size"), [(1, 40), (2, 33), (3, 50)]
)
def test_replicas_and_remainders_change_nothing(
    records_dir, run_dir, undisturbed, tmp_path, num_replicas, batch_size
):
    predict(
        records_dir, run_dir, tmp_path, f"--batch_size={batch_size}",
        "--strategy=mirrored", f"--num_virtual_devices={num_replicas}",
    )  # fmt: skip
    found = tables.read_csv(str(tmp_path / "submission.csv"), ("id", "label"))
    sidecar = tables.read_csv(
        os.path.join(records_dir, "patches.csv"), ("split", "source_name")
    )
    names = [name for split, name in sidecar if split == "test"]
    assert len(set(names)) == NUM_TEST
    assert [name for name, _ in found] == names
    rows = [line.split(",") for line in undisturbed.decode().split()[1:]]
    np.testing.assert_allclose(
        [float(label) for _, label in found],
        [float(label) for _, label in rows],
        rtol=0,
        atol=HALF_OF_FLOAT32,
    )


def test_replicas_evaluate_alike(records_dir, run_dir, tmp_path):
    def evaluate(output_dir, *more):
        result = loaded.run(
            "evaluate", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
            f"--output_dir={output_dir}", *more,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return np.loadtxt(
            output_dir / "predictions.csv", delimiter=",", skiprows=1
        )

    one = evaluate(tmp_path / "one")
    three = evaluate(
        tmp_path / "three", "--strategy=mirrored", "--num_virtual_devices=3",
        "--batch_size=7",
    )  # fmt: skip
    assert len(one) > 0
    np.testing.assert_allclose(
        three, one, rtol=HALF_OF_FLOAT32, atol=HALF_OF_FLOAT32
    )


def test_killed_job_goes_on(records_dir, run_dir, killed_copy, undisturbed):
    num_parts, num_all = len(list_parts(killed_copy)), num_shards(records_dir)
    assert 3 <= num_parts < num_all
    found, told = predict(records_dir, run_dir, killed_copy)
    assert f"{num_parts} of {num_all} shards were there.\n" in told
    assert found == undisturbed


def test_other_ways_of_going_on_give_the_same(
    records_dir, run_dir, killed_copy, undisturbed
):
    sample = killed_copy.parent / "sample.csv"
    rows = [line.split(",") for line in undisturbed.decode().split()[1:]][::-1]
    csv_files.write_csv(str(sample), ("id",), [(name,) for name, _ in rows])
    found, _ = predict(
        records_dir, run_dir, killed_copy, "--input=stream",
        f"--sample_submission={sample}",
    )  # fmt: skip
    lines = undisturbed.decode().split()
    assert found.decode().split() == [lines[0], *lines[:0:-1]]


def test_parts_are_of_logits_before_calibration(
    records_dir, run_dir, killed_copy, undisturbed
):
    num_parts = len(list_parts(killed_copy))
    found, told = predict(records_dir, run_dir, killed_copy, "--nocalibrated")
    assert f"{num_parts} of {num_shards(records_dir)} shards were" in told
    kept = json.loads((run_dir / "calibration.json").read_text())
    known = calibration_file.Calibration(**kept["calibrations"]["none"])
    assert abs(np.log(known.temperature)) > 0.01

    def logits(csv):
        rows = [line.split(",") for line in csv.decode().split()[1:]]
        probability = np.array([float(label) for _, label in rows])
        return np.log(probability / (1 - probability))

    np.testing.assert_allclose(
        known.apply(logits(found)), logits(undisturbed), rtol=1e-9
    )


def test_terminated_job_leaves_its_parts(records_dir, run_dir, tmp_path):
    process = stop(records_dir, run_dir, tmp_path, signal.SIGTERM)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 143, told
    assert told.endswith("pcam predict: terminated.\n")
    assert os.listdir(tmp_path) == [PARTS]
    assert 3 <= len(list_parts(tmp_path)) < num_shards(records_dir)


def test_damaged_part_is_predicted_again(
    records_dir, run_dir, killed_copy, undisturbed
):
    num_sound = len(list_parts(killed_copy)) - 1
    os.truncate(list_parts(killed_copy)[1], 3)
    found, told = predict(records_dir, run_dir, killed_copy)
    num_all = num_shards(records_dir)
    assert f"{num_sound} of {num_all} shards were there.\n" in told
    assert found == undisturbed


def test_parts_of_another_model_are_not_used(
    records_dir, run_dir, killed_copy, undisturbed, tmp_path
):
    before = sorted(os.listdir(killed_copy / PARTS))
    other = train(records_dir, tmp_path / "other", seed=1)
    result = loaded.run(*job(records_dir, other, killed_copy))
    assert result.returncode == 1
    (told,) = result.stderr.splitlines()
    assert "found parts of another prediction, by another model" in told
    assert sorted(os.listdir(killed_copy / PARTS)) == before
    found, told = predict(records_dir, other, killed_copy, "--restart")
    assert "were there" not in told
    pairs = zip(found.split()[1:], undisturbed.split()[1:], strict=True)
    assert all(one != two for one, two in pairs)


def test_second_process_is_refused(records_dir, run_dir, undisturbed, tmp_path):
    first = stop(records_dir, run_dir, tmp_path, signal.SIGSTOP)
    try:
        assert os.listdir(tmp_path) == [PARTS]
        second = loaded.run(*job(records_dir, run_dir, tmp_path, "--restart"))
    finally:
        first.send_signal(signal.SIGCONT)
    first.communicate(timeout=300)
    assert second.returncode == 1
    (told,) = second.stderr.splitlines()
    assert "is at work on this output" in told
    assert first.returncode == 0
    assert (tmp_path / "submission.csv").read_bytes() == undisturbed
    assert os.listdir(tmp_path) == ["submission.csv"]


def test_ranges_at_once_then_merged_give_the_same(
    records_dir, run_dir, batches, tmp_path
):
    by_batch, undisturbed = batches
    num_all = num_shards(records_dir)
    assert num_all > 9
    jobs = [
        loaded.start(*job(records_dir, run_dir, tmp_path, by_batch, chosen))
        for chosen in ("--shard_range=5:9", "--shard_range=2:7")
    ]
    for process in jobs:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    assert len(list_parts(tmp_path)) == 7
    early = loaded.run(*job(records_dir, run_dir, tmp_path, "--merge"))
    assert early.returncode == 1
    (told,) = early.stderr.splitlines()
    missing = num_all - 7
    assert f"no part of {missing} of {num_all} shards" in told
    assert told.endswith(f"--shard_range: 0:2, 9:{num_all}.")
    assert len(list_parts(tmp_path)) == 7
    last = loaded.run(
        *job(
            records_dir, run_dir, tmp_path, by_batch,
            f"--shard_range=0:{num_all}",
        )
    )  # fmt: skip
    assert last.returncode == 0, last.stderr
    assert f"7 of {num_all} shards were there.\n" in last.stderr
    found, _ = predict(records_dir, run_dir, tmp_path, "--merge")
    assert found == undisturbed


def test_job_goes_on_around_parts_that_are_there(
    records_dir, run_dir, batches, tmp_path
):
    by_batch, undisturbed = batches
    result = loaded.run(
        *job(records_dir, run_dir, tmp_path, by_batch, "--shard_range=3:6")
    )
    assert result.returncode == 0, result.stderr
    found, told = predict(records_dir, run_dir, tmp_path, by_batch)
    assert f"3 of {num_shards(records_dir)} shards were there.\n" in told
    assert found == undisturbed


def test_merge_without_parts_makes_nothing(records_dir, run_dir, tmp_path):
    result = loaded.run(*job(records_dir, run_dir, tmp_path, "--merge"))
    assert result.returncode == 1
    assert "found no part of" in result.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "flags",
    [
        ("--shard_range=0:1", "--merge"),
        ("--shard_range=0:1", "--threshold=0.5"),
        ("--shard_range=0:1", "--threshold=0"),
        ("--shard_range=0:1", "--sample_submission=a.csv"),
        ("--shard_range=0:1", "--restart"),
        ("--merge", "--restart"),
    ],
    ids=" ".join,
)
def test_flags_of_parts_that_exclude_each_other(flags, tmp_path):
    result = loaded.run(*job("records", "run", tmp_path, *flags))
    assert result.returncode == 2
    assert "expected one of them alone" in result.stderr


def test_flags_of_a_folder_are_refused_with_records(tmp_path):
    for flag in ("on_bad_patch=fail", "check_ids=auto", "follow_symlinks"):
        result = loaded.run(*job("records", "run", tmp_path, f"--{flag}"))
        assert result.returncode == 2
        assert "expected one of them alone" in result.stderr


def test_csv_goes_where_a_link_leads(
    records_dir, run_dir, undisturbed, tmp_path
):
    target, link = tmp_path / "target", tmp_path / "submission.csv"
    target.mkdir()
    link.symlink_to("target/s.csv")
    result = loaded.run(*job(records_dir, run_dir, tmp_path))
    assert result.returncode == 0, result.stderr
    assert os.readlink(link) == "target/s.csv"
    assert (target / "s.csv").read_bytes() == undisturbed
    assert sorted(os.listdir(tmp_path)) == ["submission.csv", "target"]


def test_csv_goes_into_a_pipe(records_dir, run_dir, undisturbed, tmp_path):
    pipe = tmp_path / "submission.csv"
    os.mkfifo(pipe)
    process = loaded.start(*job(records_dir, run_dir, tmp_path))
    # Not open: a job that fails would leave its reader waiting.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    read = b""
    while process.poll() is None:
        read += read_some(reader)
        time.sleep(0.01)
    read += read_some(reader)
    os.close(reader)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert read == undisturbed
    assert os.listdir(tmp_path) == ["submission.csv"]
    assert pipe.is_fifo()


def read_some(reader: int) -> bytes:
    read = b""
    with contextlib.suppress(BlockingIOError):  # There is a writer, at work.
        while more := os.read(reader, 1 << 16):
            read += more
    return read


def test_csv_goes_to_stdout_alone(records_dir, run_dir, undisturbed, tmp_path):
    arguments = job(records_dir, run_dir, tmp_path)
    result = run_pcam(*arguments, "--output_csv=/dev/stdout")
    assert result.returncode == 0, result.stderr
    assert result.stdout.encode() == undisturbed
    assert f"/dev/stdout: {NUM_TEST} patches.\n" in result.stderr


@pytest.mark.parametrize("flag", ["--shard_range=0:1", "--merge"])
def test_parts_need_a_file_to_lie_beside(records_dir, run_dir, tmp_path, flag):
    os.mkfifo(tmp_path / "submission.csv")
    result = loaded.run(*job(records_dir, run_dir, tmp_path, flag))
    assert result.returncode == 1
    assert "found no plain file, expected one or none" in result.stderr
    assert os.listdir(tmp_path) == ["submission.csv"]


def test_sample_is_not_written_over(records_dir, run_dir, tmp_path):
    sample = tmp_path / "submission.csv"
    sample.write_text("id\n")
    result = loaded.run(
        *job(records_dir, run_dir, tmp_path, f"--sample_submission={sample}")
    )
    assert result.returncode == 1
    assert f"found what this command reads ({sample})" in result.stderr
    assert sample.read_text() == "id\n"


def edit_sidecar(records_dir, tmp_path, change) -> str:
    """Returns a copy of the records whose sidecar has rows in another order."""
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "edited"))
    lines = (copy / "patches.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    change(rows)
    text = "".join(",".join(row) + "\n" for row in rows)
    (copy / "patches.csv").write_text(text)
    return str(copy)


def exchange_names(rows) -> None:
    rows[-1][6], rows[-2][6] = rows[-2][6], rows[-1][6]


def change_slides(rows) -> None:
    for row in rows[1:]:
        row[5] = "all of one"


@pytest.mark.parametrize("flag", ["--restart", "--merge"])
def test_names_of_an_edited_sidecar_are_not_believed(
    records_dir, run_dir, tmp_path, flag
):
    edited = edit_sidecar(records_dir, tmp_path, exchange_names)
    output = tmp_path / "output"
    output.mkdir()
    if flag == "--merge":
        every = f"--shard_range=0:{num_shards(edited)}"
        result = loaded.run(*job(edited, run_dir, output, every))
        assert result.returncode == 0, result.stderr
    result = loaded.run(*job(edited, run_dir, output, flag))
    assert result.returncode == 1
    assert "patches.csv: found SHA-256" in result.stderr
    assert "submission.csv" not in os.listdir(output)


def test_slides_of_an_edited_sidecar_are_not_believed(
    records_dir, run_dir, tmp_path
):
    edited = edit_sidecar(records_dir, tmp_path, change_slides)
    result = loaded.run(
        "evaluate", f"--records_dir={edited}", f"--run_dir={run_dir}",
        f"--output_dir={tmp_path / 'scores'}",
    )  # fmt: skip
    assert result.returncode == 1
    assert "patches.csv: found SHA-256" in result.stderr
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("with_sample", [False, True])
def test_patch_that_records_hold_twice_gets_one_row(
    records_dir, run_dir, undisturbed, tmp_path, with_sample
):
    tree, again = f"{records_dir}/../kaggle", str(tmp_path / "again")
    convert_folder(tree, again, seed=1)
    joined = str(tmp_path / "joined")
    join.join([records_dir, again], joined)
    more = []
    if with_sample:
        sample = tmp_path / "sample.csv"
        sample.write_bytes(undisturbed)
        more = [f"--sample_submission={sample}"]
    found, told = predict(joined, run_dir, tmp_path / "out", *more)
    assert f"found {NUM_TEST} rows that repeat an id (as " in told
    rows, expected = (
        [line.split(",") for line in data.decode().splitlines()]
        for data in (found, undisturbed)
    )
    assert [name for name, _ in rows] == [name for name, _ in expected]
    for (_, one), (_, other) in zip(rows[1:], expected[1:], strict=True):
        assert abs(float(one) - float(other)) < HALF_OF_FLOAT32


@pytest.mark.parametrize(
    ("batch_size", "num_patches", "num_replicas", "expected"),
    [(512, 300, 1, 300), (512, 299, 3, 300), (1, 9, 3, 3), (64, 900, 2, 64)],
)
def test_batch_fits_patches_and_replicas(
    batch_size, num_patches, num_replicas, expected
):
    found = batch_format.fit_batch_size(batch_size, num_patches, num_replicas)
    assert found == expected
