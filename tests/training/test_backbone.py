"""The backbone of a network: frozen first, then slower than the last layer."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.distribution import replicas
from pcam_tfdata.training import backbone, optimizers, steps

BATCH_SIZE = 8
NUM_FROZEN = 3
RATE = 0.01
# Sums in another order, in float64, after a few steps.
SAME = 1e-9
ONE = functools.partial(tf.distribute.OneDeviceStrategy, "/CPU:0")


def build() -> keras.Model:
    image = keras.Input((6, 6, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(image, keras.layers.Dense(1, name="logit")(x))


def make(strategy, *, name="adamw", decay=0.5, xla="off", **recipe):
    options = optimizers.OptimizerOptions(name, RATE, weight_decay=decay)
    return steps.Trainer(
        strategy,
        build,
        functools.partial(optimizers.make_optimizer, options),
        steps.Recipe(BATCH_SIZE, precision="float64", xla=xla, **recipe),
        num_frozen_steps=NUM_FROZEN,
    )


def run(trainer, strategy, num_steps, first=0) -> int:
    """Runs steps in as few calls as can be; returns how many calls."""
    draw = np.random.default_rng(0)
    size = 10 * BATCH_SIZE
    ds = tf.data.Dataset.from_tensor_slices(
        {
            "image": draw.integers(0, 256, (size, 6, 6, 3), np.uint8),
            "label": draw.integers(0, 2, size),
            "row": np.arange(size),
        }
    )
    ds = ds.batch(BATCH_SIZE, drop_remainder=True).skip(first)
    batches = iter(replicas.distribute(ds, strategy))
    step, num_calls = first, 0
    while step < first + num_steps:
        left = first + num_steps - step
        sums = tf.zeros([3], tf.float64)
        _, step, is_finite = trainer.run_steps(batches, step, left, sums)
        assert is_finite
        num_calls += 1
    return num_calls


def values_of(trainer) -> dict[str, list[np.ndarray]]:
    """Weights of backbone and head, and statistics, by what they are of."""
    model = trainer.model
    head = model.get_layer("logit").weights
    ids = {id(weight) for weight in head}
    others = [w for w in model.trainable_weights if id(w) not in ids]
    return {
        "head": [np.array(w) for w in head],
        "backbone": [np.array(w) for w in others],
        "statistics": [np.array(w) for w in model.non_trainable_weights],
    }


def differences(before, after) -> dict[str, float]:
    return {
        name: max(
            np.abs(a - b).max()
            for a, b in zip(before[name], after[name], strict=True)
        )
        for name in before
    }


@pytest.mark.parametrize("xla", ["off", "on"])
def test_while_frozen_only_the_head_changes_and_then_all(xla):
    trainer = make(ONE(), xla=xla)
    first = values_of(trainer)
    assert run(trainer, ONE(), NUM_FROZEN) == 1
    frozen = differences(first, values_of(trainer))
    assert frozen["backbone"] == frozen["statistics"] == 0 < frozen["head"]
    run(trainer, ONE(), 1, first=NUM_FROZEN)
    assert min(differences(first, values_of(trainer)).values()) > 0
    assert all(weight.trainable for weight in trainer.model.trainable_weights)


def test_a_call_ends_where_the_backbone_is_free():
    assert run(make(ONE()), ONE(), NUM_FROZEN + 4) == 2


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_first_free_step_is_as_long_as_that_of_new_weights(factor):
    trainer = make(
        ONE(), name="adam", decay=0.0, backbone_learning_rate_factor=factor
    )
    run(trainer, ONE(), NUM_FROZEN)
    before = values_of(trainer)
    run(trainer, ONE(), 1, first=NUM_FROZEN)
    # Adam's first step moves every weight by the learning rate.
    change = differences(before, values_of(trainer))
    assert change["backbone"] == pytest.approx(factor * RATE, rel=1e-3)


@pytest.mark.parametrize("num_frozen", [1, 50])
def test_adam_goes_on_as_if_it_had_just_begun(num_frozen):
    """After zeros, against a new Adam on the same gradients."""
    gradients = np.random.default_rng(1).standard_normal((30, 2, 1, 1))

    def step(num_frozen: int) -> np.ndarray:
        with replicas.keras_settings("float64", seed=0):
            model = keras.Sequential(
                [
                    keras.Input((1,)),
                    keras.layers.Dense(1, use_bias=False, name="inner"),
                    keras.layers.Dense(1, use_bias=False, name="logit"),
                ]
            )
            optimizer = keras.optimizers.Adam(RATE, epsilon=1e-14)
            optimizer.build(model.trainable_variables)
        part = backbone.Backbone(model, optimizer, num_frozen)

        @tf.function
        def apply(values, is_frozen):
            with part.slowed(is_frozen):
                optimizer.apply(tf.unstack(values))

        for _ in range(num_frozen):
            apply(tf.zeros([2, 1, 1], tf.float64), True)
        for values in gradients:
            apply(tf.constant(values), False)
        return model.get_layer("inner").kernel.numpy()

    # Keras takes its betas from float32.
    np.testing.assert_allclose(step(num_frozen), step(0), rtol=1e-6)


def test_replicas_train_frozen_and_free_as_one_does(virtual_devices):
    two = tf.distribute.MirroredStrategy(
        virtual_devices,
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    found = []
    for strategy in (ONE(), two):
        # SGD: Adam divides what differs by rounding alone.
        trainer = make(
            strategy,
            name="sgd",
            ema_decay=0.5,
            backbone_learning_rate_factor=0.3,
        )
        run(trainer, strategy, NUM_FROZEN + 3)
        values = [np.array(variable.numpy()) for variable in trainer.variables]
        found.append({"all": [value.astype(float) for value in values]})
    assert differences(*found)["all"] < SAME
