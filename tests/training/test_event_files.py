"""A run's history as TensorBoard reads it back, also after a killed run."""

import importlib.util

import pytest

from pcam_tfdata.runs import run_folder
from pcam_tfdata.training import event_files

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="the package tensorboard is not installed",
)

HISTORY = [
    {
        "epoch": epoch,
        "step": 3 * epoch,
        "learning_rate": 0.001,
        "loss_scale": 2.0**15,
        "loss": 0.75 / epoch,
        "accuracy": 0.5,
        "val_loss": 0.5 / epoch,
        "val_auc": 0.75,
    }
    for epoch in range(1, 6)
]


def watch(run_dir):
    """Returns TensorBoard's reader of a run."""
    from tensorboard.backend.event_processing import event_accumulator

    folder = str(run_dir / run_folder.TENSORBOARD)
    return event_accumulator.EventAccumulator(folder)


def points(accumulator) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, value) of each point of each tag."""
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def write(run_dir, first, added) -> None:
    writer = event_files.EventWriter(str(run_dir), first)
    for row in added:
        writer.add(row)


def expected(rows) -> dict[str, list[tuple[int, float]]]:
    return {
        event_files.tag_of(name): [
            (row["step"], pytest.approx(row[name], rel=1e-7)) for row in rows
        ]
        for name in rows[0]
        if name != "step"
    }


@needs_tensorboard
def test_every_score_is_read_back_once(tmp_path):
    write(tmp_path, [], HISTORY)
    found = points(watch(tmp_path))
    assert found == expected(HISTORY)
    assert found["validation/loss"][1] == (6, 0.25)
    assert {"train/loss", "train/loss_scale", "train/epoch"} < found.keys()


@needs_tensorboard
def test_a_resumed_run_has_the_rows_of_its_last_checkpoint(tmp_path):
    other = [row | {"loss": 9.0} for row in HISTORY[2:]]
    write(tmp_path, [], [*HISTORY[:2], *other])
    write(tmp_path, HISTORY[:2], HISTORY[2:])
    assert points(watch(tmp_path)) == expected(HISTORY)
    assert len(list((tmp_path / run_folder.TENSORBOARD).iterdir())) == 1


@needs_tensorboard
def test_rows_are_there_before_the_file_is_closed(tmp_path):
    writer = event_files.EventWriter(str(tmp_path), HISTORY[:1])
    assert points(watch(tmp_path)) == expected(HISTORY[:1])
    writer.add(HISTORY[1])
    assert points(watch(tmp_path)) == expected(HISTORY[:2])


@needs_tensorboard
def test_a_watching_tensorboard_drops_the_rows_of_a_killed_run(tmp_path):
    write(tmp_path, [], [row | {"loss": 9.0} for row in HISTORY])
    watching = watch(tmp_path)
    assert points(watching)["train/loss"][-1] == (15, 9.0)
    write(tmp_path, HISTORY[:2], HISTORY[2:4])
    assert points(watching) == expected(HISTORY[:4])


@needs_tensorboard
def test_files_of_others_stay(tmp_path):
    folder = tmp_path / run_folder.TENSORBOARD
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    write(tmp_path, [], HISTORY)
    assert (folder / "notes.txt").read_text() == "mine"
    assert points(watch(tmp_path)) == expected(HISTORY)
