"""What stands around a process changes neither its work nor its result."""

import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys

import keras
import loaded
import numpy as np
import pytest
import tensorflow as tf
from conftest import open_patches, run_pcam

from pcam_tfdata.distribution import replicas
from pcam_tfdata.evaluation import configuration as evaluation_configuration
from pcam_tfdata.evaluation import evaluate
from pcam_tfdata.models import networks
from pcam_tfdata.records import verify
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import nested_options, progress
from pcam_tfdata.training import configuration, train

PCAM = (sys.executable, "-m", "pcam_tfdata")


def run_in_shell(arguments, redirection: str) -> subprocess.CompletedProcess:
    """Runs a command of `pcam` as a shell does that redirects its streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *PCAM, *arguments],
        capture_output=True,
        timeout=300,
    )


# Standard streams.


@pytest.mark.parametrize(
    "closed", ["2>&-", ">&-", "<&- >&- 2>&-"], ids=["stderr", "stdout", "all"]
)
def test_closed_streams_cost_no_work(kaggle_tree, tmp_path, closed):
    records_dir = tmp_path / "records"
    result = run_in_shell(
        [
            "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
            f"--output_dir={records_dir}", "--num_workers=2",
        ],
        closed,
    )  # fmt: skip
    assert result.returncode == 0
    assert verify.verify(str(records_dir), num_workers=1) == []


@pytest.mark.parametrize(
    ("flag", "code"), [("--records_dir=none", 1), ("--no_such=1", 2)]
)
@pytest.mark.parametrize("stderr", ["closed", "left"])
def test_exit_code_says_what_nobody_reads(flag, code, stderr):
    if stderr == "closed":
        result = run_in_shell(["verify", flag], "2>&-")
    else:
        result = run_for_nobody("verify", flag, stderr=subprocess.STDOUT)
    assert result.returncode == code


def run_for_nobody(*arguments, **options) -> subprocess.CompletedProcess:
    """Runs a command whose stdout is a pipe that its reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        return subprocess.run(
            [*PCAM, *arguments], stdout=stdout, timeout=300, **options
        )


@pytest.mark.parametrize(
    "arguments", [["audit"], ["audit", "--help"], ["--help"]], ids=" ".join
)
def test_reader_that_leaves_is_no_failure(records_dir, arguments):
    if arguments == ["audit"]:
        arguments = [*arguments, f"--records_dir={records_dir}"]
    result = run_for_nobody(*arguments, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, b"")


def test_output_without_room_is_told_in_one_line(tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    with open(tmp_path / "out", "wb") as stdout:
        result = subprocess.run(
            [*PCAM, "verify", "--help"], stdout=stdout, stderr=subprocess.PIPE,
            preexec_fn=limit, text=True,
            # Python may leave files of bytecode cut short.
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("standard output: File too large.")


def test_progress_needs_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.Progress(10, "test") as bar:
        bar.advance_to(10)


# Signals before there is anything to tidy up.

INTERRUPTED = """
import importlib.abc, os, runpy, signal, sys

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = ["audit", "--records_dir=none"]
runpy.run_module("pcam_tfdata", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "name", ["absl", "pcam_tfdata.cli.audit", "pcam_tfdata.audit.job"]
)
def test_signal_during_imports_ends_the_process_at_once(name, number):
    code = INTERRUPTED.format(name=name, number=int(number))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (-number, "")


def test_signal_waits_until_the_network_is_made(
    records_dir, tmp_path, monkeypatch
):
    build, made = networks.build, []

    def build_interrupted(*choice):
        signal.raise_signal(signal.SIGINT)
        made.append(build(*choice))
        return made[0]

    monkeypatch.setattr(networks, "build", build_interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(options_of(records_dir, tmp_path / "run"))
    assert made


# Programs that use the package.

PROGRAM = """
import sys
from pcam_tfdata.conversion import convert
from pcam_tfdata.sources import listing
source = listing.SourceOptions("kaggle", {tree!r})
convert.convert(convert.ConvertOptions(source, {records!r}, num_workers=2))
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


def read_settings() -> tuple[object, ...]:
    """Returns what programs share with the package."""
    return (
        keras.config.dtype_policy().name,
        keras.config.floatx(),
        keras.config.image_data_format(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        tf.compat.v1.get_seed(0),
    )


@pytest.fixture
def odd_keras():
    """Keras as a program may have set it for work of its own."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_dtype_policy(before)
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def options_of(records_dir, run_dir, **more) -> configuration.TrainOptions:
    values = {
        "records_dir": records_dir, "run_dir": str(run_dir),
        "model": "small_cnn", "batch_size": 16, "epochs": 1,
        "schedule": "cosine", "input": "stream",
    }  # fmt: skip
    return nested_options.fill(configuration.TrainOptions, values | more)


def read_history(run_dir: pathlib.Path) -> bytes:
    return (run_dir / run_folder.HISTORY).read_bytes()


@pytest.mark.long
def test_settings_of_a_program_and_of_its_runs_are_apart(
    records_dir, tmp_path, odd_keras
):
    before = read_settings()
    run_dir = tmp_path / "run"
    train.train(options_of(records_dir, run_dir, precision="mixed_bfloat16"))
    assert read_settings() == before
    evaluate.evaluate(
        evaluation_configuration.EvaluateOptions(
            records_dir, str(run_dir), num_resamples=0
        )
    )
    assert read_settings() == before
    with pytest.raises(FloatingPointError):
        train.train(
            options_of(records_dir, tmp_path / "bad", learning_rate=1e30)
        )
    assert read_settings() == before
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    tf.random.set_seed(5)
    again = tmp_path / "again"
    train.train(options_of(records_dir, again, precision="mixed_bfloat16"))
    assert read_history(again) == read_history(run_dir)


@pytest.mark.long
def test_settings_of_the_user_change_no_run(records_dir, tmp_path):
    settings = {
        "floatx": "float16", "epsilon": 0.5, "backend": "jax",
        "image_data_format": "channels_first", "nnx_enabled": True,
    }  # fmt: skip
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    odd = {"KERAS_HOME": str(tmp_path), "KERAS_NNX_ENABLED": "true"}
    command = [
        "train", f"--records_dir={records_dir}", "--model=small_cnn",
        "--batch_size=16", "--epochs=1", "--schedule=cosine",
    ]  # fmt: skip
    first = tmp_path / "first"
    result = run_pcam(
        *command, f"--run_dir={first}",
        env=os.environ | odd | {"KERAS_BACKEND": "torch"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    second = tmp_path / "second"
    assert loaded.run(*command, f"--run_dir={second}").returncode == 0
    assert read_history(first) == read_history(second)


def test_other_backend_of_keras_is_refused(records_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="found the backend 'jax'"):
        train.train(options_of(records_dir, tmp_path / "run"))
    assert os.listdir(tmp_path) == []


def test_devices_cannot_be_split_once_tensorflow_has_started():
    with pytest.raises(RuntimeError, match="--num_virtual_devices=3: found"):
        replicas.make_strategy(replicas.DeviceOptions("mirrored", 3))


def test_order_follows_from_its_own_seed_alone(records_dir):
    def read_rows(global_seed: int) -> tuple[list[int], float]:
        tf.random.set_seed(global_seed)
        tf.random.uniform([])
        patches = open_patches(records_dir, "stream")
        ds = patches.train_batches(
            batch_size=60, seed=3, first_step=0, num_steps=1
        )
        (batch,) = ds.as_numpy_iterator()
        return batch["row"].tolist(), float(tf.random.uniform([]))

    (rows, drawn), (other_rows, other_drawn) = read_rows(1), read_rows(2)
    assert rows == other_rows
    tf.random.set_seed(1)
    assert drawn == [float(tf.random.uniform([])) for _ in range(2)][1]
    assert other_drawn != drawn
