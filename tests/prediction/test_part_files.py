"""Parts of a prediction: whole, of one job, and cut where shards end."""

import os
import pathlib
import threading
import time

import numpy as np
import pytest

from pcam_tfdata.prediction import part_files
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import locks

PARTS = "submission.csv.parts"
NUM_TEST = 299
SHARDS = tuple(
    records_folder.ShardFile(
        path=f"records/test-{row:03}",
        split="test",
        num_records=min(14, NUM_TEST - row),
        first_row=60 + row,
        labeled=False,
    )
    for row in range(0, NUM_TEST, 14)
)


@pytest.mark.parametrize("text", ["3", "4:4", "5:3", "0:8", "-1:2", "a:b", ":"])
def test_range_of_no_shards_is_refused(text):
    with pytest.raises(ValueError, match="expected a:b"):
        part_files.parse_range(text, 7)


def share(folder, job):
    return part_files.open_folder(folder, job, is_shared=True)


def test_parts_are_shared_but_not_while_they_are_joined(folder):
    same = {"model": "a", "split": "test"}
    with share(folder, same), share(folder, same):
        with pytest.raises(RuntimeError, match="is at work on this output"):
            with part_files.open_folder(folder, same):
                pass
    with pytest.raises(RuntimeError, match="is at work on this output"):
        with part_files.open_folder(folder, same):
            with share(folder, same):
                pass
    with pytest.raises(ValueError, match="parts of another prediction"):
        with share(folder, same | {"model": "b"}):
            pass


def test_shared_folder_without_parts_takes_another_job(tmp_path):
    path = str(tmp_path / PARTS)
    for job in ({"model": "a"}, {"model": "b"}):
        with share(path, job), share(path, job):
            assert os.listdir(path) == ["lock"]


def test_parts_of_two_jobs_are_not_merged(tmp_path):
    path = str(tmp_path / PARTS)
    jobs = {"model": "a"}, {"model": "b"}
    with share(path, jobs[0]) as one, share(path, jobs[1]) as other:
        for parts, shard in zip((one, other), SHARDS[:2], strict=True):
            parts.write(shard, np.zeros(shard.num_records))
    for job in jobs:
        with pytest.raises(ValueError, match="parts of another prediction"):
            with part_files.open_folder(path, job):
                pass
    assert len(os.listdir(path)) == 3


def test_parts_need_no_links(tmp_path, monkeypatch):
    def refuse(*_, **__) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    shard = SHARDS[0]
    with share(str(tmp_path / PARTS), {"model": "a"}) as parts:
        parts.write(shard, np.zeros(shard.num_records))
        assert parts.list_missing([shard]) == []


@pytest.fixture
def sleeps(monkeypatch) -> threading.Event:
    """Set once something waits for another process, for two minutes at most."""
    has_slept = threading.Event()
    sleep = time.sleep
    monkeypatch.setattr(
        time, "sleep", lambda seconds: (has_slept.set(), sleep(seconds))
    )
    monkeypatch.setattr(part_files, "_WAIT_SECONDS", 120)
    return has_slept


def test_sharing_waits_for_a_process_that_looks_into_the_folder(
    tmp_path, sleeps
):
    path = str(tmp_path / PARTS)
    is_held = threading.Event()

    def hold() -> None:
        with locks.hold(os.path.join(path, "lock"), "looks", "Wait."):
            is_held.set()
            sleeps.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_held.wait(60)
    try:
        with share(path, {"model": "a"}):
            assert sleeps.is_set()
    finally:
        sleeps.set()  # Also if nothing has waited.
        thread.join()


def test_folder_with_parts_takes_no_other_job(folder):
    with pytest.raises(ValueError, match="remove this folder to begin anew"):
        with share(folder, {"model": "b", "split": "test"}):
            pass


@pytest.fixture
def folder(tmp_path) -> str:
    """A folder with a part of the job `{"model": "a", "split": "test"}`."""
    path = str(tmp_path / PARTS)
    with pytest.raises(KeyboardInterrupt):
        with part_files.open_folder(
            path, {"model": "a", "split": "test"}
        ) as parts:
            shard = SHARDS[0]
            parts.write(shard, np.zeros(shard.num_records))
            raise KeyboardInterrupt
    return path


@pytest.mark.parametrize(
    "other",
    [
        {"model": "b", "split": "test"},
        {"model": "a", "split": "fold0"},
        {"model": "b", "split": "fold0"},
    ],
    ids=["model", "split", "both"],
)
def test_parts_belong_to_one_job(folder, other):
    before = sorted(os.listdir(folder))
    with pytest.raises(ValueError, match="parts of another prediction"):
        with part_files.open_folder(folder, other):
            pass
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("num_bytes", [0, 3, 52, 60])
def test_a_part_that_is_not_whole_is_not_used(folder, num_bytes):
    shard = SHARDS[0]
    with share(folder, {"model": "a", "split": "test"}) as parts:
        assert parts.list_missing([shard]) == []
        (path,) = pathlib.Path(folder).glob("*.logits")
        os.truncate(path, num_bytes)
        assert parts.list_missing([shard]) == [slice(0, 1)]


def test_error_before_a_part_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with part_files.open_folder(str(tmp_path / PARTS), {"model": "a"}):
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "name", ["thesis.tex", "weights.logits", "weights.logits.npy"]
)
def test_folder_of_other_things_is_left_alone(tmp_path, name, restart):
    (tmp_path / name).write_text("x")
    with pytest.raises(FileExistsError, match="other than parts"):
        with part_files.open_folder(str(tmp_path), {}, restart=restart):
            pass
    assert os.listdir(tmp_path) == [name]


def results_of(rows, batch_size):
    """Yields batches of logits that are the rows."""
    for start in range(0, len(rows), batch_size):
        row = np.array(rows[start : start + batch_size], np.int64)
        yield {"row": row, "logit": row.astype(np.float32)}


@pytest.mark.parametrize("batch_size", [1, 4, 50, 1000])
@pytest.mark.parametrize("first_shard", [0, 3])
def test_cutting_gives_each_shard_its_patches(batch_size, first_shard):
    first_row = SHARDS[0].first_row
    skipped = SHARDS[first_shard].first_row - first_row
    rows = range(
        first_row + skipped // batch_size * batch_size, first_row + NUM_TEST
    )
    found = list(
        part_files.cut(results_of(rows, batch_size), SHARDS[first_shard:])
    )
    assert [shard for shard, _ in found] == list(SHARDS[first_shard:])
    for shard, logit in found:
        expected = shard.first_row + np.arange(shard.num_records)
        np.testing.assert_array_equal(logit, expected)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[:5] + rows[6:],
        lambda rows: rows[:5] + rows[4:],
        lambda rows: [*rows[:5], rows[6], rows[5], *rows[7:]],
    ],
    ids=["short", "missing", "twice", "swapped"],
)
def test_cutting_finds_that_a_patch_is_not_there_once(spoil):
    rows = list(range(SHARDS[0].first_row, SHARDS[0].first_row + NUM_TEST))
    with pytest.raises(RuntimeError, match="each once and in order"):
        list(part_files.cut(results_of(spoil(rows), 4), SHARDS))


def test_parts_are_found_again_below_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard, job = SHARDS[0], {"model": "a"}
    with share(PARTS, job) as parts:
        parts.write(shard, np.zeros(shard.num_records, np.float32))
    with share(PARTS, job) as parts:
        assert parts.list_missing([shard]) == []
