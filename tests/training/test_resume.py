"""Runs that are killed, interrupted or damaged end as undisturbed ones."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import time
from collections.abc import Iterator

import conftest
import keras
import loaded
import numpy as np
import pytest
import steep

from pcam_tfdata.models import inference, networks
from pcam_tfdata.runs import checkpoint_files, run_folder
from pcam_tfdata.system import locks, nested_options
from pcam_tfdata.training import (
    checkpoints,
    configuration,
    loop,
    train,
)

DEADLINE = 180
# Everything that a checkpoint has to keep: averages, schedule, augmentation,
# dropout, a callback's memory. A checkpoint as often as it may be.
FLAGS = (
    "--model=small_cnn", "--batch_size=8", "--epochs=12", "--augment=d4",
    "--optimizer=adamw", "--schedule=cosine", "--warmup_steps=5",
    "--ema_decay=0.9", "--early_stopping_patience=50",
    "--checkpoint_every_seconds=0", "--steps_per_loop=1",
    "--input=mmap",
)  # fmt: skip


def arguments_of(records_dir, run_dir, flags) -> list[str]:
    places = [f"--records_dir={records_dir}", f"--run_dir={run_dir}"]
    return ["train", *places, *flags]


def start_training(records_dir, run_dir, *flags) -> loaded.Process:
    return loaded.start(
        *arguments_of(records_dir, run_dir, flags), together=True
    )


# Stops before a step, the whole process or the loop alone: the thread that
# writes checkpoints then ends what it does.
STAND = {
    "process": "os.kill(os.getpid(), signal.SIGSTOP)",
    "loop": "time.sleep(3600)",
}
STANDING = """
import os, signal, time
from pcam_tfdata.cli import main
from pcam_tfdata.training import steps

left = iter(range({num_steps}, -1, -1))
run_steps = steps.Trainer.run_steps

def stand_or_run(*given):
    if next(left, None) == 0:
        {stand}
    return run_steps(*given)

steps.Trainer.run_steps = stand_or_run
main.run({arguments!r})
"""


@contextlib.contextmanager
def standing_after(
    num_steps, records_dir, run_dir, flags, stand="loop"
) -> Iterator[loaded.Process]:
    """Yields training that goes no further than so many steps from its start.

    However late a test on a busy machine looks, it is not done by then.
    """
    program = STANDING.format(
        num_steps=num_steps,
        stand=STAND[stand],
        arguments=arguments_of(records_dir, run_dir, flags),
    )
    process = loaded.Process(program, together=True)
    try:
        yield process
    finally:
        process.kill()


def list_checkpoints(run_dir) -> list[str]:
    folder = run_dir / run_folder.CHECKPOINTS
    return sorted(map(str, folder.glob("*.npz")))


def last_arrays(run_dir) -> dict[str, np.ndarray]:
    with np.load(list_checkpoints(run_dir)[-1]) as arrays:
        return {name: arrays[name] for name in arrays.files}


def check_same_end(one, other) -> None:
    expected, found = last_arrays(one), last_arrays(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
    for name in (run_folder.HISTORY,):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    weights = [
        keras.models.load_model(
            run_folder.find_model(str(run_dir))
        ).get_weights()
        for run_dir in (one, other)
    ]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def undisturbed(records_dir, tmp_path_factory):
    """A run of `FLAGS`, left alone, in a process that is nothing but a user's."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    result = conftest.run_pcam(
        "train", f"--records_dir={records_dir}", f"--run_dir={run_dir}", *FLAGS
    )
    assert result.returncode == 0, result.stderr
    return run_dir


def finish(records_dir, run_dir, *flags) -> str:
    """Trains to the end; returns what was printed."""
    process = start_training(records_dir, run_dir, *flags)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    return output


@pytest.mark.long
def test_killed_run_ends_as_an_undisturbed_one(
    records_dir, tmp_path, undisturbed
):
    kill_five_times(records_dir, tmp_path / "run", FLAGS)
    check_same_end(undisturbed, tmp_path / "run")
    again = finish(records_dir, tmp_path / "run", *FLAGS)
    assert "finished before, nothing to do" in again


@pytest.mark.long
def test_killed_seed_cnn_ends_as_an_undisturbed_one(records_dir, tmp_path):
    flags = (*FLAGS, "--model=seed_cnn")
    finish(records_dir, tmp_path / "a", *flags)
    kill_five_times(records_dir, tmp_path / "b", flags)
    check_same_end(tmp_path / "a", tmp_path / "b")


def kill_five_times(records_dir, run_dir, flags) -> None:
    """Kills a run of 72 steps at random moments, then lets it end."""
    draw = random.Random(0)
    places = []
    for _ in range(5):
        before = list_checkpoints(run_dir)
        with standing_after(13, records_dir, run_dir, flags) as process:
            loaded.wait_until(
                lambda before=before: list_checkpoints(run_dir) != before,
                process,
            )
            time.sleep(draw.uniform(0, 1.5))
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        state = json.loads(str(last_arrays(run_dir)["state"]))
        places.append((state["step"], state["sums"][2]))
    finish(records_dir, run_dir, *flags)
    assert any(seen for _, seen in places), places  # In mid-epoch too.


# None but at the ends of epochs; so the signal's own is seen.
SELDOM = (*FLAGS, "--checkpoint_every_seconds=1000")


def end_by_signal(records_dir, run_dir, number) -> str:
    """Sends a signal in mid-epoch; checks what is left; returns the last line."""
    with standing_after(9, records_dir, run_dir, SELDOM, "process") as process:
        loaded.wait_until(process.stands_still, process)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + number, output
    *_, told, last_line = output.splitlines()
    name = signal.Signals(number).name
    assert told.startswith(f"{name}: there is a checkpoint after step 10;")
    assert json.loads(str(last_arrays(run_dir)["state"]))["step"] == 10
    return last_line


def test_ctrl_c_leaves_a_checkpoint_in_mid_epoch(records_dir, tmp_path):
    told = end_by_signal(records_dir, tmp_path / "run", signal.SIGINT)
    assert told == "pcam train: interrupted."


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGTERM, "terminated."), (signal.SIGINT, "interrupted.")],
    ids=["SIGTERM", "SIGINT"],
)
def test_run_that_was_signalled_ends_as_an_undisturbed_one(
    records_dir, tmp_path, undisturbed, number, told
):
    run_dir = tmp_path / "run"
    last_line = end_by_signal(records_dir, run_dir, number)
    assert last_line == f"pcam train: {told}"
    finish(records_dir, run_dir, *SELDOM)
    check_same_end(undisturbed, run_dir)


def test_damaged_checkpoints_are_passed_over_and_later_ones_dropped(tmp_path):
    variable = keras.Variable(np.zeros(100, np.float32))
    writer = checkpoints.Writer(str(tmp_path), keep=1)
    writer.write(checkpoint_files.State(step=80), [variable])
    writer.wait()
    path = tmp_path / "checkpoints" / "step-000000080.npz"
    sound = path.read_bytes()
    draw = random.Random(0)
    num_passed_over = 0
    for _ in range(300):
        damaged = bytearray(sound)
        place = draw.randrange(len(damaged))
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:  # Some bits say nothing.
            _, state = checkpoints.read_latest(str(tmp_path), [variable])
            assert state == checkpoint_files.State(step=80)
        except ValueError as error:
            assert "found 1 checkpoints, all of them damaged" in str(error)
            num_passed_over += 1
    assert num_passed_over > 200
    (tmp_path / "checkpoints" / "step-000000079.npz.incomplete").write_text("x")
    path.write_bytes(sound[:500])
    writer = checkpoints.Writer(str(tmp_path), keep=1)
    writer.write(checkpoint_files.State(step=3), [variable])
    writer.wait()
    assert os.listdir(tmp_path / "checkpoints") == ["step-000000003.npz"]


@pytest.mark.long
def test_cut_checkpoint_makes_the_run_go_on_from_the_one_before(
    records_dir, tmp_path, undisturbed
):
    run_dir = tmp_path / "run"
    with standing_after(30, records_dir, run_dir, FLAGS) as process:
        loaded.wait_until(lambda: len(list_checkpoints(run_dir)) >= 3, process)
    process.communicate()
    newest = list_checkpoints(run_dir)[-1]
    os.truncate(newest, os.path.getsize(newest) // 2)
    output = finish(records_dir, run_dir, *FLAGS)
    assert output.count(f"{newest}: damaged") == 1
    check_same_end(undisturbed, run_dir)


@pytest.mark.long
def test_second_process_is_refused_while_the_first_trains(
    records_dir, tmp_path
):
    run_dir = tmp_path / "run"
    first = start_training(records_dir, run_dir, *FLAGS, "--epochs=1000")
    loaded.wait_until(lambda: list_checkpoints(run_dir), first)
    for more in ((), ("--restart",)):
        second = start_training(records_dir, run_dir, *FLAGS, *more)
        output, _ = second.communicate(timeout=DEADLINE)
        assert second.returncode == 1
        assert f"found that process {first.pid} is training there" in output
        assert len(output.splitlines()) == 1
    assert first.poll() is None
    first.kill()  # The lock goes with its holder.
    first.communicate()
    finish(records_dir, run_dir, *FLAGS, "--epochs=1", "--restart")


def options_for(records_dir, run_dir, **changes) -> configuration.TrainOptions:
    defaults = {
        "model": "small_cnn", "batch_size": 8, "epochs": 2, "input": "mmap",
    }  # fmt: skip
    values = {"records_dir": records_dir, "run_dir": str(run_dir)}
    return nested_options.fill(
        configuration.TrainOptions, values | defaults | changes
    )


@pytest.mark.numeric
def test_more_epochs_go_on_from_a_finished_run(records_dir, tmp_path):
    train.train(options_for(records_dir, tmp_path / "a", epochs=4))
    train.train(options_for(records_dir, tmp_path / "b", epochs=2))
    train.train(options_for(records_dir, tmp_path / "b", epochs=4))
    check_same_end(tmp_path / "a", tmp_path / "b")
    assert "--epochs=4\n" in (tmp_path / "b" / "flags.txt").read_text()
    with pytest.raises(ValueError, match="differs in --epochs"):
        train.train(options_for(records_dir, tmp_path / "b", epochs=3))


def test_run_that_auto_once_streamed_is_told_how_to_go_on(
    records_dir, tmp_path
):
    train.train(options_for(records_dir, tmp_path, epochs=1, input="stream"))
    flags = tmp_path / "flags.txt"
    flags.write_text(flags.read_text().replace("input=stream", "input=auto"))
    with pytest.raises(ValueError, match=r"other order.* Pass --input=stream"):
        train.train(options_for(records_dir, tmp_path, input="auto"))
    found = train.train(options_for(records_dir, tmp_path, input="stream"))
    assert found.epoch == 2


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("resnet_small", "noisy_or"),  # The weights have another head.
        pytest.param("p4m_cnn", "label", marks=pytest.mark.long),
        pytest.param("efficientnet_lite0", "label", marks=pytest.mark.long),
    ],
)
def test_fine_tuning_that_was_stopped_ends_as_if_it_was_not(
    records_dir, tmp_path, model, head
):
    weights = str(tmp_path / "weights.keras")
    networks.build(model).save(weights)
    recipe = {
        "weights": weights, "freeze_epochs": 1, "ema_decay": 0.9,
        "backbone_learning_rate_factor": 0.5, "augment": "strong",
        "optimizer": "adamw", "schedule": "cosine", "steps_per_loop": 1,
    }  # fmt: skip
    whole, stopped = (
        options_for(
            records_dir, tmp_path / name, model=model, head=head, **recipe
        )
        for name in "ab"
    )
    train.train(whole)
    for step in (4, 8):  # While the backbone is frozen, and after.
        with pytest.raises(KeyboardInterrupt):
            train.train(stopped, [StopAfter(step)])
    train.train(stopped)
    check_same_end(tmp_path / "a", tmp_path / "b")
    os.rename(weights, f"{weights}.gone")  # Whoever goes on needs it no more.
    assert train.train(stopped).epoch == 2
    os.rename(f"{weights}.gone", weights)
    start, end = (
        keras.models.load_model(path)
        for path in (weights, run_folder.find_model(whole.run_dir))
    )
    assert (start.layers[2].kernel != end.layers[2].kernel).numpy().any()


@pytest.fixture(scope="module")
def stopped_once(records_dir, tmp_path_factory):
    """A run that was interrupted in its second epoch."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        train.train(
            options_for(records_dir, run_dir, steps_per_loop=1), [StopAfter(8)]
        )
    assert len(list_checkpoints(run_dir)) == 2
    return run_dir


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The same, for a test that spoils it."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def go_on(records_dir, run_dir, *more):
    return loaded.run(
        *arguments_of(records_dir, run_dir, ("--model=small_cnn",)),
        "--batch_size=8", "--epochs=2", "--input=mmap", *more,
    )  # fmt: skip


def content_of(run_dir) -> dict[str, object]:
    """Returns what a run holds, beside the lock."""
    return {
        str(path.relative_to(run_dir)): os.readlink(path)
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in run_dir.rglob("*")
        if path.name != locks.LOCK
    }


def refuse_to_go_on(records_dir, run_dir) -> str:
    """Checks that a run is refused and left as it is; returns the one line."""
    before = content_of(run_dir)
    result = go_on(records_dir, run_dir)
    assert result.returncode == 1
    (told,) = result.stderr.splitlines()
    assert content_of(run_dir) == before
    return told


def make_folder(path) -> None:
    path.mkdir()


def link_to_itself(path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path) -> None:
    path.symlink_to("nothing")


def link_to_unreadable_memory(path) -> None:
    path.symlink_to("/proc/self/mem")  # It opens; its first byte is an EIO.


@pytest.mark.parametrize(
    ("spoil", "num_spoiled"),
    [
        (make_folder, 2),
        (link_to_itself, 2),
        (link_to_nothing, 2),
        (link_to_unreadable_memory, 2),
        (link_to_unreadable_memory, 1),  # The one before could be read.
    ],
)
def test_checkpoint_that_cannot_be_read_ends_the_job(
    records_dir, stopped, spoil, num_spoiled
):
    spoiled = list(map(pathlib.Path, list_checkpoints(stopped)))[-num_spoiled:]
    for path in spoiled:
        path.unlink()
        spoil(path)
    assert refuse_to_go_on(records_dir, stopped).startswith(f"{spoiled[-1]}: ")


def test_folder_of_checkpoints_that_cannot_be_read_ends_the_job(
    records_dir, stopped
):
    folder = stopped / run_folder.CHECKPOINTS
    folder.rename(stopped / "kept")
    link_to_itself(folder)
    told = refuse_to_go_on(records_dir, stopped)
    assert told.startswith(f"{folder}: Too many levels of symbolic links")


def cut_all(folder) -> None:
    for path in folder.iterdir():
        os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (cut_all, "found 2 checkpoints, all of them damaged"),
        (shutil.rmtree, "found no checkpoint, expected those of the run"),
    ],
    ids=["damaged", "lost"],
)
def test_run_that_had_checkpoints_begins_anew_only_when_told(
    records_dir, stopped, spoil, found
):
    spoil(stopped / run_folder.CHECKPOINTS)
    before = content_of(stopped)
    result = go_on(records_dir, stopped)
    assert result.returncode == 1
    told = result.stderr.splitlines()[-1]
    assert found in told and "--restart to begin anew" in told
    assert "Traceback" not in result.stderr
    assert content_of(stopped) == before
    assert go_on(records_dir, stopped, "--restart").returncode == 0


def test_history_tells_of_epochs_that_have_a_checkpoint(
    records_dir, tmp_path, monkeypatch
):
    write, write_history = checkpoints._write, run_folder.write_history

    def write_slowly(*given):
        time.sleep(1)
        write(*given)

    def check_and_write(run_dir, rows):
        assert not rows or list_checkpoints(tmp_path)
        write_history(run_dir, rows)

    monkeypatch.setattr(checkpoints, "_write", write_slowly)
    monkeypatch.setattr(run_folder, "write_history", check_and_write)
    train.train(options_for(records_dir, tmp_path))


def test_flag_that_came_later_is_taken_to_have_had_its_default(
    records_dir, stopped
):
    path = stopped / run_folder.FLAGS
    lines = path.read_text().splitlines(keepends=True)
    assert "--clip_norm=0.0\n" in lines
    path.write_text("".join(n for n in lines if "--clip_norm" not in n))
    refused = go_on(records_dir, stopped, "--clip_norm=1")
    assert refused.returncode == 1
    assert "differs in --clip_norm (it had --clip_norm=0.0)" in refused.stderr
    result = go_on(records_dir, stopped)
    assert result.returncode == 0, result.stderr
    assert "Resuming after epoch 1, at step 8." in result.stderr


def test_schedule_takes_no_more_epochs(records_dir, tmp_path):
    options = {"schedule": "cosine", "epochs": 1}
    train.train(options_for(records_dir, tmp_path, **options))
    with pytest.raises(ValueError, match="differs in --epochs"):
        train.train(options_for(records_dir, tmp_path, schedule="cosine"))


class StopAfter(keras.callbacks.Callback):
    """Ends the process' run in the middle of an epoch."""

    def __init__(self, step):
        super().__init__()
        self._step = step
        self.num_seen = 0

    def on_train_batch_end(self, batch, logs=None):
        self.num_seen += 1
        if self.num_seen == self._step:
            signal.raise_signal(signal.SIGINT)


def test_callbacks_keep_what_they_remember(records_dir, tmp_path):
    def callbacks(stop):
        return [
            StopAfter(stop),
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_auc", mode="max", factor=0.5, patience=1,
                min_delta=1.0,
            ),
        ]  # fmt: skip

    options = options_for(
        records_dir, tmp_path / "b", epochs=5, steps_per_loop=1
    )
    for stop in (8, 17):
        with pytest.raises(KeyboardInterrupt):
            train.train(options, callbacks(stop))
    train.train(options, callbacks(0))
    train.train(
        options_for(records_dir, tmp_path / "a", epochs=5, steps_per_loop=1),
        callbacks(0),
    )
    check_same_end(tmp_path / "a", tmp_path / "b")
    rows = (tmp_path / "a" / run_folder.HISTORY).read_text().splitlines()
    rates = {line.split(",")[2] for line in rows[1:]}
    assert len(rates) > 2


def test_signal_ends_a_validation_after_its_batch(
    records_dir, tmp_path, monkeypatch
):
    train.train(options_for(records_dir, tmp_path / "a"))
    check, batches = inference._check_finite, []

    def check_and_count(logit, description):
        if description == "validation" and not batches:
            signal.raise_signal(signal.SIGINT)
        batches.append(len(logit))
        check(logit, description)

    monkeypatch.setattr(inference, "_check_finite", check_and_count)
    options = options_for(records_dir, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        train.train(options)
    assert len(batches) == 1
    train.train(options)
    assert len(batches) > 3  # There are several of them.
    check_same_end(tmp_path / "a", tmp_path / "b")


class StopTraining(keras.callbacks.Callback):
    """Ends training with a batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 1


def test_callback_ends_training_with_a_batch(records_dir, tmp_path):
    options = options_for(records_dir, tmp_path, steps_per_loop=1)
    result = train.train(options, [StopTraining()])
    assert (result.step, result.epoch) == (2, 1)


def test_callbacks_keep_how_they_were_made(records_dir, tmp_path):
    options = options_for(records_dir, tmp_path, early_stopping_patience=9)
    train.train(options)
    state = json.loads(str(last_arrays(tmp_path)["state"]))
    (stopping,) = state["callbacks"]
    assert "best" in stopping
    assert not {"patience", "monitor", "mode"} & stopping.keys()


def test_finished_run_refuses_other_records(
    records_dir, real_records_dir, tmp_path
):
    train.train(options_for(records_dir, tmp_path, epochs=1))
    with pytest.raises(ValueError, match="began with other records"):
        train.train(options_for(real_records_dir, tmp_path, epochs=1))


def test_early_stopping_ends_the_run_for_good(records_dir, tmp_path):
    # It has no moving statistics, which a rate of 0 would not stop.
    options = options_for(
        records_dir, tmp_path, model="seed_cnn", epochs=50, learning_rate=0.0,
        early_stopping_patience=2,
    )  # fmt: skip
    assert train.train(options).epoch == 3
    assert train.train(options).epoch == 3


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_loss_that_is_no_number(records_dir, tmp_path, caplog, on_nan):
    options = options_for(
        records_dir, tmp_path, optimizer="sgd", learning_rate=1e30, seed=3,
        on_nan=on_nan,
    )  # fmt: skip
    with pytest.raises(FloatingPointError) as error:
        train.train(options)
    told = str(error.value)
    limit = loop.MOST_SKIPPED if on_nan == "skip" else 0
    skipped = [r for r in caplog.records if "the step is skipped" in r.message]
    assert len(skipped) <= limit
    if "no finite numbers" in told:  # Validation came first.
        assert on_nan == "skip"
        assert skipped
        return
    assert "at learning rate 1e+30" in told


@pytest.mark.parametrize(
    ("on_nan", "told"),
    [
        (
            "stop",
            "in step 16, .* and loss scale 0.5. Lower .* --on_nan=skip",
        ),
        ("skip", "in step 36, .* leaves out such steps, 20 of a run at most"),
    ],
)
def test_gradients_that_overflow_for_ever_end_the_run(
    records_dir, tmp_path, monkeypatch, on_nan, told
):
    monkeypatch.setattr(
        networks, "build", lambda *_: steep.steep(float("inf"), 96)
    )
    options = options_for(
        records_dir, tmp_path, precision="mixed_float16", on_nan=on_nan,
        epochs=50,
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=told):
        train.train(options)
