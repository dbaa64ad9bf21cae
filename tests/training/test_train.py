"""The loop: overflow is skipped, callbacks are told, the best is kept."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, make_clouds, open_patches

from pcam_tfdata import choices
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import applications, efficientnet_lite, networks
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import checkpoint_files, run_folder
from pcam_tfdata.system import nested_options
from pcam_tfdata.training import (
    checkpoints,
    configuration,
    optimizers,
    steps,
    train,
)

# Networks that take a second or more to build.
LARGE = {*efficientnet_lite.VARIANTS, *applications.APPLICATIONS}
TRAIN_SPLITS = ("fold1", "fold2", "fold3", "fold4")


def mirrored(devices) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def options_for(records_dir, **changes) -> configuration.TrainOptions:
    defaults = {"model": "small_cnn", "batch_size": 16, "input": "mmap"}
    values = {"records_dir": records_dir} | defaults | changes
    return nested_options.fill(configuration.TrainOptions, values)


def make_trainer(distribution, **recipe) -> steps.Trainer:
    return steps.Trainer(
        distribution,
        functools.partial(networks.build, "small_cnn"),
        functools.partial(
            optimizers.make_optimizer, optimizers.OptimizerOptions()
        ),
        steps.Recipe(16, **recipe),
    )


def all_reduced(gradients) -> list[tf.Tensor]:
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)


def test_overflow_on_one_replica_skips_the_step(virtual_devices):
    distribution = mirrored(virtual_devices)
    machine = make_trainer(distribution, precision="mixed_float16")
    optimizer = machine.optimizer
    before = [np.asarray(v) for v in machine.model.trainable_variables]
    scale = float(np.asarray(optimizer.dynamic_scale))

    def step(value):
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.where(number == 1, value, 1.0)
        gradients = [
            tf.fill(v.shape, gradient)
            for v in machine.model.trainable_variables
        ]
        steps.apply_sums(optimizer, all_reduced(gradients))

    @tf.function
    def run(value):
        distribution.run(step, args=(value,))

    run(tf.constant(float("inf")))
    after = [np.asarray(v) for v in machine.model.trainable_variables]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(np.asarray(optimizer.dynamic_scale)) == scale / 2
    assert int(np.asarray(optimizer.iterations)) == 0

    run(tf.constant(1.0))
    assert int(np.asarray(optimizer.iterations)) == 1
    moved = np.asarray(machine.model.trainable_variables[0])
    assert np.isfinite(moved).all()
    assert (moved != before[0]).any()


def test_gradients_of_replicas_are_summed_once(virtual_devices):
    distribution = mirrored(virtual_devices)
    with distribution.scope():
        weight = keras.Variable(1.0)
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build([weight])

    @tf.function
    def run():
        def step():
            number = (
                tf.distribute.get_replica_context().replica_id_in_sync_group
            )
            gradient = tf.where(number == 1, 2.0, 3.0)
            steps.apply_sums(optimizer, all_reduced([gradient]))

        distribution.run(step)

    run()
    assert float(np.asarray(weight)) == 1.0 - (2.0 + 3.0)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_float32_weights_and_logits(
    records_dir, precision
):
    distribution = tf.distribute.OneDeviceStrategy("/CPU:0")
    machine = make_trainer(distribution, precision=precision)
    patches = open_patches(records_dir, "mmap", TRAIN_SPLITS)
    batches = patches.train_batches(
        batch_size=16, seed=0, first_step=0, num_steps=1
    )
    machine.run_steps(iter(batches), 0, 1, tf.zeros([3], tf.float64))
    kinds = {layer.compute_dtype for layer in machine.model.layers}
    assert precision.removeprefix("mixed_") in kinds
    assert machine.model.output.dtype == "float32"
    assert {v.dtype for v in machine.model.trainable_variables} == {"float32"}
    scaled = isinstance(machine.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


def test_weights_that_have_seen_the_validation_are_told(
    records_dir, tmp_path, caplog
):
    options = functools.partial(options_for, records_dir, epochs=1)
    (tmp_path / "a").mkdir()
    weights = str(tmp_path / "a" / "best.keras")
    networks.build("small_cnn").save(weights)
    splits = {"train_splits": "fold1,fold2", "validation_splits": "fold0"}
    run_folder.write_flags(str(tmp_path / "a"), {"model": "small_cnn"} | splits)
    for name, splits in (("b", ("fold1",)), ("c", ("fold0",))):
        caplog.clear()
        run_dir = str(tmp_path / name)
        train.train(
            options(run_dir=run_dir, weights=weights, validation_splits=splits)
        )
        told = [m for m in caplog.messages if "that network was trained" in m]
        assert len(told) == (name == "b"), told
        text = (tmp_path / name / "environment.json").read_text()
        assert '"source": "best.keras"' in text


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=pytest.mark.long) if name in LARGE else name
        for name in choices.MODELS
    ],
)
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("float32", "float32"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("float64", "float64"),
    ],
)
def test_logit_is_as_exact_as_the_weights(model, precision, dtype):
    with replicas.keras_settings(precision, 0):
        assert networks.build(model).output.dtype == dtype


def test_seed_cnn_has_the_notebooks_parameters():
    model = networks.build("seed_cnn")
    assert model.count_params() == 3_411_521
    assert model.input.dtype == "uint8"
    assert model.layers[-1].name == "logit"


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU"
)
def test_precision_is_float32_without_a_gpu():
    assert replicas.resolve_precision("auto") == "float32"
    assert replicas.resolve_precision("mixed_float16") == "mixed_float16"


def test_every_choice_exists():
    builders = networks._PLAIN | networks._FOR_PATCHES | networks._FOR_IMAGES
    assert set(choices.MODELS) == set(builders)
    assert set(choices.OPTIMIZERS) == set(optimizers._KINDS)


def test_small_cnn_is_small():
    assert networks.build("small_cnn").count_params() < 200_000


def test_patches_are_enlarged_in_the_trained_network(records_dir, tmp_path):
    run_dir = str(tmp_path / "run")
    enlarging = {"image_size": 100, "run_dir": run_dir, "epochs": 1}
    with pytest.raises(ValueError, match="found --model=small_cnn, which"):
        train.train(options_for(records_dir, **enlarging))
    assert not os.path.exists(run_dir)
    enlarging["model"] = "mobilenet_v3_small"
    train.train(options_for(records_dir, **enlarging))
    model = keras.models.load_model(run_folder.find_model(run_dir))
    sizes = [n.height for n in model.layers if "resizing" in n.name]
    assert sizes == [100]


@pytest.mark.parametrize("seed", range(3))
def test_no_hidden_unit_of_small_cnn_dies(seed):
    with replicas.keras_settings(seed=seed):
        model = networks.build("small_cnn")
    images = make_clouds(32)
    # Ten times the rate of the demo, from the first step on.
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    model.fit(images, np.arange(32) % 2, batch_size=32, epochs=20, verbose=0)
    hidden = keras.Model(model.input, model.layers[-2].output)
    assert (hidden(images, training=True).numpy().max(0) > 0).all()


class Recorder(keras.callbacks.Callback):
    """Notes the events that a callback of Keras receives."""

    def __init__(self):
        super().__init__()
        self.events = []

    def on_train_begin(self, logs=None):
        self.events.append("train")

    def on_epoch_end(self, epoch, logs=None):
        self.events.append((epoch, "val_auc" in logs))
        self.model.stop_training = epoch == 1

    def on_train_batch_end(self, batch, logs=None):
        self.events.append("batch")


def test_keras_callbacks_receive_events_and_can_stop(records_dir, tmp_path):
    recorder = Recorder()
    options = options_for(records_dir, run_dir=str(tmp_path / "run"), epochs=5)
    result = train.train(options, [recorder])
    assert result.epoch == 2
    assert recorder.events[:2] == ["train", "batch"]
    ends = [event for event in recorder.events if isinstance(event, tuple)]
    assert ends == [(0, True), (1, True)]


def test_best_model_takes_uint8_patches(records_dir, tmp_path):
    options = options_for(records_dir, run_dir=str(tmp_path / "run"), epochs=1)
    train.train(options)
    model = keras.models.load_model(run_folder.find_model(options.run_dir))
    assert model.layers[-1].name == "logit"
    logit = model(np.zeros((2, 96, 96, 3), np.uint8))
    assert (logit.shape, logit.dtype) == ((2, 1), tf.float32)


@pytest.mark.parametrize(
    ("steps_per_epoch", "told"),
    [
        (2, "not finite in step 1, at learning rate 1e.30"),
        (1, "logits that are no finite"),
    ],
)
def test_divergence_stops_the_run(records_dir, tmp_path, steps_per_epoch, told):
    records = records_folder.open_folder(records_dir)
    batch_size = records.count_patches(TRAIN_SPLITS) // steps_per_epoch
    options = options_for(
        records_dir,
        run_dir=str(tmp_path / "run"),
        optimizer="sgd",
        learning_rate=1e30,
        batch_size=batch_size,
    )
    with pytest.raises(FloatingPointError, match=told):
        train.train(options)
    assert not (tmp_path / "run" / run_folder.BEST_MODEL).exists()


def test_cut_checkpoint_is_passed_over(tmp_path, caplog):
    weight = keras.Variable(np.zeros(1000, np.float32))
    writer = checkpoints.Writer(str(tmp_path), keep=3)
    for step in (1, 2, 3, 4):
        weight.assign(np.full(1000, step, np.float32))
        writer.write(checkpoint_files.State(step=step), [weight])
    writer.wait()
    folder = tmp_path / run_folder.CHECKPOINTS
    names = sorted(os.listdir(folder))
    assert names == [f"step-00000000{n}.npz" for n in (2, 3, 4)]
    os.truncate(folder / names[-1], 2000)
    (value,), state = checkpoints.read_latest(str(tmp_path), [weight])
    assert state == checkpoint_files.State(step=3)
    assert set(value) == {3.0}
    assert "step-000000004.npz: damaged" in caplog.text


def test_one_fold_alone_leaves_nothing_to_train_on(kaggle_tree, tmp_path):
    convert_folder(kaggle_tree, tmp_path / "records", num_folds=1)
    options = options_for(str(tmp_path / "records"), run_dir="run")
    told = r"found no labelled split in .* beside fold0, which is validated"
    with pytest.raises(ValueError, match=told):
        configuration.settle_splits(
            options, records_folder.open_folder(options.records_dir)
        )


def test_each_flag_of_the_command_is_an_option_and_each_option_a_flag():
    program = (
        "from absl import flags\n"
        "from pcam_tfdata.cli import train\n"
        "for flag in flags.FLAGS.get_key_flags_for_module(train.__name__):\n"
        "    print(flag.name, flag.default)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    defaults = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    leaves = nested_options.list_leaves(configuration.TrainOptions("", ""))
    assert defaults.keys() == leaves.keys()
    for name in leaves.keys() - {"records_dir", "run_dir"}:
        value = leaves[name]
        shown = list(value) if isinstance(value, tuple) else value
        assert defaults[name] == str(shown), name
