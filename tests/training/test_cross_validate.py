"""Every fold is validated on by a network that did not see it."""

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import loaded
import numpy as np
import pandas
import pytest
import tables
from conftest import NUM_TRAIN, run_pcam

from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import locks
from pcam_tfdata.training import cross_validate

FOLDS = ("fold0", "fold1", "fold2")
FLAGS = ("--model=small_cnn", "--batch_size=8", "--epochs=1")


def command(records_dir, run_dir, *more) -> list[str]:
    return [
        "cross_validate", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--folds={','.join(FOLDS)}", *FLAGS, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(records_dir, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("cross") / "runs"
    result = run_pcam(*command(records_dir, run_dir))
    assert result.returncode == 0, result.stderr
    return run_dir, result


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.long
def test_each_patch_of_the_folds_is_predicted_once(records_dir, done):
    run_dir, _ = done
    content = records_folder.open_folder(records_dir).content
    with open(run_dir / cross_validate.OUT_OF_FOLD, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sidecar = tables.read_csv(
        os.path.join(records_dir, manifest.SIDECAR_FILE),
        ("split", "label", "source_name"),
    )
    for row in rows:
        expected = (row["fold"], row["label"], row["id"])
        assert sidecar[int(row["row"])] == expected
        assert 0 <= float(row["probability"]) <= 1
    wanted = sum(s.num_records for s in content.select(FOLDS))
    assert len({row["row"] for row in rows}) == len(rows) == wanted < NUM_TRAIN


@pytest.mark.long
def test_no_network_saw_its_own_fold(done):
    run_dir, _ = done
    for fold in FOLDS:
        flags = run_folder.read_flags(str(run_dir / fold))
        assert flags["validation_splits"] == fold
        assert set(flags["train_splits"].split(",")) == set(FOLDS) - {fold}


@pytest.mark.long
def test_mean_and_spread_are_those_of_the_folds(done):
    run_dir, result = done
    found = read_json(run_dir / run_folder.CROSS_VALIDATION)
    scores = [
        read_json(run_dir / fold / run_folder.METRICS_JSON)["auc"]
        for fold in FOLDS
    ]
    mean = sum(scores) / 3
    variance = sum((score - mean) ** 2 for score in scores) / 2
    assert found["mean"]["auc"] == pytest.approx(mean)
    assert found["std"]["auc"] == pytest.approx(variance**0.5)
    assert list(found["folds"]) == list(FOLDS)
    assert set(found["mean"]) == set(metrics.NAMES)
    assert f"{mean:.4f}" in result.stdout


@pytest.mark.long
def test_again_it_trains_nothing(records_dir, done):
    run_dir, result = done
    before = (run_dir / "fold1" / run_folder.BEST_MODEL).stat().st_mtime_ns
    again = run_pcam(*command(records_dir, run_dir))
    assert again.returncode == 0
    assert again.stderr.count("finished before, nothing to do") == 3
    assert again.stdout.splitlines()[-8:] == result.stdout.splitlines()[-8:]
    after = (run_dir / "fold1" / run_folder.BEST_MODEL).stat().st_mtime_ns
    assert before == after


@pytest.fixture
def copied(done, tmp_path):
    """The runs, for a test that spoils them."""
    return shutil.copytree(done[0], tmp_path / "runs")


@pytest.mark.long
def test_scores_of_patches_trained_on_are_not_counted(
    records_dir, done, copied
):
    """Whatever was evaluated in between, and wherever its files were put."""
    expected = read_json(copied / run_folder.CROSS_VALIDATION)
    probabilities = (copied / cross_validate.OUT_OF_FOLD).read_bytes()
    run_dir = copied / "fold0"
    result = loaded.run(
        "evaluate", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        "--splits=fold1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name in (run_folder.METRICS_JSON, run_folder.PREDICTIONS):
        shutil.copy(run_dir / run_folder.EVALUATIONS / "fold1" / name, run_dir)
    assert read_json(run_dir / run_folder.METRICS_JSON)["splits"] == ["fold1"]
    again = run_pcam(*command(records_dir, copied))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-8:] == done[1].stdout.splitlines()[-8:]
    assert read_json(copied / run_folder.CROSS_VALIDATION) == expected
    assert (copied / cross_validate.OUT_OF_FOLD).read_bytes() == probabilities


def is_free(lock) -> bool:
    """Returns whether no process holds the lock of a run."""
    with open(lock, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.long
def test_killed_command_takes_its_training_along(records_dir, tmp_path):
    run_dir = tmp_path / "runs"
    program = [sys.executable, "-m", "pcam_tfdata"]
    program += command(records_dir, run_dir, "--epochs=100000")
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    lock = run_dir / "fold0" / locks.LOCK
    folder = run_dir / "fold0" / run_folder.CHECKPOINTS
    wait_until(lambda: list(folder.glob("*.npz")), process)
    child = int(lock.read_text())
    assert not is_free(lock)
    process.kill()
    process.wait()
    try:
        wait_until(lambda: is_free(lock))
    finally:
        if not is_free(lock):
            os.kill(child, signal.SIGKILL)


def wait_until(condition, process=None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_signal_reaches_the_run_which_goes_on_later(records_dir, tmp_path):
    run_dir = tmp_path / "runs"
    program = [sys.executable, "-m", "pcam_tfdata"]
    program += command(records_dir, run_dir, "--epochs=1000")
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    folder = run_dir / "fold0" / run_folder.CHECKPOINTS
    wait_until(lambda: list(folder.glob("*.npz")), process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143, told
    assert "SIGTERM: there is a checkpoint after step" in told
    assert "Traceback" not in told
    assert not (run_dir / "fold1").exists()


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--validation_splits=fold0"], 2, "expected --folds"),
        (["--folds=fold0"], 1, "expected at least two different"),
        (["--folds=fold0,fold9"], 1, "fold9"),
        (["--folds=fold0,test"], 1, "without patches of both labels"),
        (["--batch_size=1000"], 1, "pcam train ended with exit code 1"),
    ],
    ids=["splits", "one", "unknown", "unlabeled", "run"],
)
def test_bad_flags_are_told(records_dir, tmp_path, flags, code, told):
    result = run_pcam(*command(records_dir, tmp_path / "runs"), *flags)
    assert result.returncode == code, result.stderr
    assert told in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_suspects_contradict_their_labels_most(records_dir, tmp_path):
    records = records_folder.open_folder(records_dir)
    sidecar = records.read_sidecar(["split", "label", "id"])
    row = np.flatnonzero(sidecar["split"].isin(FOLDS))
    label = sidecar["label"].to_numpy(int)[row]
    logit = np.random.default_rng(0).standard_normal(len(row))
    order = np.random.default_rng(1).permutation(len(row))
    table = pandas.DataFrame(
        {"row": row, "label": label, "logit": logit, "fold": "fold0"}
    ).iloc[order]
    named = cross_validate._name_rows(records, table)
    cross_validate._write_suspects(str(tmp_path), records, named)
    found = pandas.read_csv(tmp_path / run_folder.SUSPECTS)
    doubt = np.where(label == 1, -logit, logit)
    assert found["row"].tolist() == row[np.argsort(-doubt)].tolist()[:60]
    everything = records_folder.Selection(tuple(records.list_shards()))
    for image, number in zip(
        everything.read_images(found["row"].to_numpy()), found["row"],
        strict=True,
    ):  # fmt: skip
        assert schema.hash_pixels(image) == sidecar["id"][number]
    assert (tmp_path / cross_validate.SUSPECTS_PLOT).stat().st_size > 10_000
