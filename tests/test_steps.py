"""What a step does: the same on one replica as on two, and nothing on NaN."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata import models, optimizers, strategy, trainer

BATCH_SIZE = 16
ONE = functools.partial(tf.distribute.OneDeviceStrategy, "/CPU:0")


RECIPES = pytest.mark.parametrize(
    "recipe",
    [
        {"num_accumulated": 2},
        {"num_accumulated": 4},
        {"xla": True},
        {"xla": True, "num_accumulated": 2},
    ],
    ids=str,
)


def mirror(devices) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


@pytest.fixture
def two(virtual_devices) -> tf.distribute.Strategy:
    return mirror(virtual_devices)


@pytest.fixture(params=[2, 4])
def several(four_virtual_devices, request) -> tf.distribute.Strategy:
    return mirror(four_virtual_devices[: request.param])


@pytest.fixture(autouse=True)
def _float32_again():
    yield
    strategy.reset_keras("float32", 0)


class Recorder(keras.layers.Layer):
    """Keeps what comes by, of each replica."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, x):
        context = tf.distribute.get_replica_context()
        if context is None:  # While the network is built.
            return tf.identity(x)
        with tf.control_dependencies(
            [
                tf.numpy_function(
                    lambda replica, value: self.seen.append(
                        (int(replica), value.copy())
                    ),
                    [context.replica_id_in_sync_group, x],
                    [],
                )
            ]
        ):
            return tf.identity(x)


def linear(*layers) -> keras.Model:
    """A tiny network; `layers` come first."""
    image = x = keras.Input((6, 6, 3), dtype="uint8")
    for layer in layers:
        x = layer(x)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x))
    return keras.Model(image, keras.layers.Dense(1)(x))


def deep() -> keras.Model:
    """A small network with what replicas might do differently."""
    image = keras.Input((6, 6, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(x)))


def make_batches(num_steps, seed=0) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    size = num_steps * BATCH_SIZE
    image = draw.integers(0, 256, (size, 6, 6, 3), np.uint8)
    label = draw.integers(0, 2, size)
    return [
        {
            "image": image[start : start + BATCH_SIZE],
            "label": label[start : start + BATCH_SIZE],
            "row": np.arange(start, start + BATCH_SIZE),
        }
        for start in range(0, size, BATCH_SIZE)
    ]


def make(distribution, build, *, name="sgd", rate=0.1, more=None, **recipe):
    options = optimizers.OptimizerOptions(name, rate, **(more or {}))
    made = trainer.Recipe(BATCH_SIZE, optimizer=options, **recipe)
    return trainer.Trainer(distribution, build, made)


def run(machine, distribution, batches, first=0, together=False):
    """Runs steps one by one; returns the loss sums, and whether all are finite."""
    parts = {name: [b[name] for b in batches] for name in batches[0]}
    ds = tf.data.Dataset.from_tensor_slices(parts)
    iterator = iter(strategy.distribute(ds, distribution))
    losses, all_finite = [], True
    step, last = first, first + len(batches)
    while step < last:
        count = last - step if together else 1
        sums, step, is_finite = machine.run_steps(
            iterator, step, count, tf.zeros([3], tf.float64)
        )
        losses.append(float(sums[0]))
        all_finite &= is_finite
    return np.array(losses), all_finite


def weights_of(machine) -> list[np.ndarray]:
    return [v.numpy() for v in machine.model.trainable_variables]


def largest_difference(some, others) -> float:
    pairs = zip(some, others, strict=True)
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def test_replicas_see_the_same_augmented_patches(several):
    batches = make_batches(3)
    images = []
    for distribution in (ONE(), several):
        recorder = Recorder()
        machine = make(
            distribution, lambda r=recorder: linear(r), augment="d4", seed=5
        )
        run(machine, distribution, batches, first=7)
        recorder.seen.sort(key=lambda pair: pair[0])
        shares = {}
        for replica, value in recorder.seen:
            shares.setdefault(replica, []).append(value)
        images.append(np.concatenate(list(shares.values()), axis=1))
    one, other = images
    assert one.shape == (3, BATCH_SIZE, 6, 6, 3)
    np.testing.assert_array_equal(one, other)
    plain = np.stack([batch["image"] for batch in batches])
    assert (one != plain).any()


def test_losses_of_replicas_are_those_of_one(several):
    batches = make_batches(20)
    losses = [
        run(make(distribution, deep), distribution, batches)[0]
        for distribution in (ONE(), several)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("share", [False, True], ids=["each", "sync"])
def test_batch_norm_looks_at_all_replicas_if_told_to(two, share):
    batches = make_batches(5)
    losses = [
        run(
            make(distribution, deep, sync_batch_norm=share),
            distribution,
            batches,
        )[0]
        for distribution in (ONE(), two)
    ]
    assert np.allclose(*losses, rtol=1e-4) == share


def test_first_gradients_of_two_replicas_are_those_of_one(two):
    batches = make_batches(1)
    gradients = []
    for distribution in (ONE(), two):
        # With SGD at rate 1 a step is the gradient.
        machine = make(distribution, deep, rate=1.0)
        before = weights_of(machine)
        run(machine, distribution, batches)
        after = weights_of(machine)
        gradients.append([a - b for a, b in zip(before, after, strict=True)])
    assert largest_difference(*gradients) < 1e-5
    assert max(np.abs(g).max() for g in gradients[0]) > 1e-2


def test_dropout_differs_between_replicas_and_not_between_runs(two):
    batches = make_batches(4)
    for batch in batches:  # Both halves alike.
        batch["image"][8:] = batch["image"][:8] = 255
        batch["label"][8:] = batch["label"][:8]
    seen = []
    for _ in range(2):
        recorder = Recorder()
        layers = (
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dropout(0.5, seed=11),
            recorder,
        )
        machine = make(two, lambda layers=layers: linear(*layers))
        losses, _ = run(machine, two, batches)
        by_replica = [
            np.stack([value for found, value in recorder.seen if found == n])
            for n in (0, 1)
        ]
        seen.append((losses, *by_replica))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    for replica in (1, 2):
        np.testing.assert_array_equal(seen[0][replica], seen[1][replica])
    _, first, second = seen[0]
    assert first.shape == second.shape == (4, 8, 6, 6, 3)
    assert 0.4 < np.mean((first == 0) == (second == 0)) < 0.6


@RECIPES
def test_replicas_agree_with_batch_norm_in(two, recipe):
    batches = make_batches(3)
    one, other = (
        run(make(distribution, deep, **recipe), distribution, batches)[0]
        for distribution in (ONE(), two)
    )
    if "num_accumulated" not in recipe:  # Statistics are those of a part.
        np.testing.assert_allclose(other, one, rtol=1e-4)
    assert np.isfinite(other).all()
    assert other[-1] < other[0] * 1.5


@RECIPES
def test_parts_and_xla_change_no_step(two, recipe):
    batches = make_batches(5)
    plain = make(ONE(), linear, augment="d4")
    expected, _ = run(plain, ONE(), batches)
    for distribution in (ONE(), two):
        machine = make(distribution, linear, augment="d4", **recipe)
        losses, _ = run(machine, distribution, batches)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        found = weights_of(machine)
        assert largest_difference(found, weights_of(plain)) < 1e-5


def test_many_steps_in_a_call_are_those_of_single_calls():
    batches = make_batches(6)
    one, other = make(ONE(), deep), make(ONE(), deep)
    run(one, ONE(), batches)
    run(other, ONE(), batches, together=True)
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradient_is_clipped_once_on_the_sum(two):
    batches = make_batches(1)
    for distribution in (ONE(), two):
        machine = make(distribution, linear, rate=1.0, clip_norm=0.01)
        before = weights_of(machine)
        run(machine, distribution, batches)
        after = weights_of(machine)
        moved = [a - b for a, b in zip(after, before, strict=True)]
        norm = np.sqrt(sum(np.sum(m.astype(np.float64) ** 2) for m in moved))
        assert norm == pytest.approx(0.01, rel=1e-3)


def test_clipping_knows_the_loss_scale():
    batches = make_batches(1)
    machine = make(
        ONE(), linear, rate=1.0, clip_norm=0.01, precision="mixed_float16"
    )
    before = weights_of(machine)
    run(machine, ONE(), batches)
    moved = [a - b for a, b in zip(weights_of(machine), before, strict=True)]
    norm = np.sqrt(sum(np.sum(m.astype(np.float64) ** 2) for m in moved))
    assert norm == pytest.approx(0.01, rel=1e-2)


def test_class_weights_weigh_the_loss():
    (batch,) = make_batches(1)
    losses = []
    for label in (0, 1):
        some = batch | {"label": np.full(BATCH_SIZE, label)}
        for weights in ((1.0, 1.0), (0.5, 3.0)):
            machine = make(ONE(), linear, class_weights=weights)
            losses += run(machine, ONE(), [some])[0].tolist()
    assert losses[1] == pytest.approx(0.5 * losses[0])
    assert losses[3] == pytest.approx(3 * losses[2])


def test_average_of_weights_is_that_of_its_definition(two):
    batches = make_batches(3)
    for distribution in (ONE(), two):
        machine = make(distribution, linear, more={"ema_decay": 0.75})
        average = None
        for step, batch in enumerate(batches):
            run(machine, distribution, [batch], first=step)
            now = weights_of(machine)
            average = now if average is None else [
                0.75 * a + 0.25 * b for a, b in zip(average, now, strict=True)
            ]  # fmt: skip
        with machine.averaged():
            assert largest_difference(weights_of(machine), average) < 1e-6
        assert largest_difference(weights_of(machine), now) == 0
        assert largest_difference(now, average) > 1e-4


def test_learning_rate_warms_up_and_falls_to_zero():
    schedule = {"schedule": "cosine", "warmup_steps": 4, "num_steps": 12}
    machine = make(ONE(), linear, name="adamw", rate=0.5, more=schedule)
    rates = []
    for step, batch in enumerate(make_batches(12)):
        rates.append(machine.learning_rate)
        run(machine, ONE(), [batch], first=step)
    np.testing.assert_allclose(rates[:5], [0, 0.125, 0.25, 0.375, 0.5])
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(rates[4:], cosine, rtol=1e-5)
    assert machine.learning_rate == pytest.approx(0, abs=1e-7)


def test_warm_up_needs_no_schedule():
    machine = make(ONE(), linear, rate=0.5, more={"warmup_steps": 4})
    rates = []
    for step, batch in enumerate(make_batches(7)):
        rates.append(machine.learning_rate)
        run(machine, ONE(), [batch], first=step)
    np.testing.assert_allclose(rates, [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_weight_decay_spares_biases():
    machine = make(ONE(), linear, name="sgd", more={"weight_decay": 0.5})
    kernel, bias = machine.model.trainable_variables
    bias.assign([2.0])
    plain = make(ONE(), linear)
    plain.model.trainable_variables[1].assign([2.0])
    before = kernel.numpy()
    batches = make_batches(1)
    run(machine, ONE(), batches)
    run(plain, ONE(), batches)
    decayed, spared = weights_of(machine)
    expected, same = weights_of(plain)
    np.testing.assert_array_equal(spared, same)
    np.testing.assert_allclose(
        decayed, expected - 0.1 * 0.5 * before, rtol=1e-5, atol=1e-7
    )


def poison(machine, value) -> None:
    machine.model.trainable_variables[-1].assign([value])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_step_that_is_not_finite_changes_nothing(two, value):
    for distribution in (ONE(), two):
        machine = make(distribution, linear, name="adam")
        batches = make_batches(3)
        run(machine, distribution, batches[:1])
        poison(machine, value)
        before = [v.numpy() for v in machine.variables]
        losses, all_finite = run(
            machine, distribution, batches[1:], first=1, together=True
        )
        # The first of two ends the call, and each has its own.
        assert (len(losses), all_finite) == (2, False)
        assert losses.tolist() == [0.0, 0.0]
        for old, new in zip(before, machine.variables, strict=True):
            np.testing.assert_array_equal(old, new.numpy())


def test_both_networks_step_augmented_in_parts():
    image = np.zeros((4, 96, 96, 3), np.uint8)
    batch = {"image": image, "label": np.arange(4) % 2, "row": np.arange(4)}
    for name in ("seed_cnn", "small_cnn"):
        recipe = trainer.Recipe(4, augment="d4", num_accumulated=2)
        build = functools.partial(models.build, name)
        machine = trainer.Trainer(ONE(), build, recipe)
        _, is_finite = run(machine, ONE(), [batch])
        assert is_finite
