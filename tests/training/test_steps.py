"""What a step does: the same on one replica as on two, and nothing on NaN."""

import functools
import os
import pathlib

import keras
import numpy as np
import pytest
import steep
import tensorflow as tf

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import group_conv, networks
from pcam_tfdata.synthetic import kaggle_folder
from pcam_tfdata.training import optimizers, steps

BATCH_SIZE = 16
ONE = functools.partial(tf.distribute.OneDeviceStrategy, "/CPU:0")

# That two ways compute the same is shown in float64. They sum in another order,
# a sum of n products is then off by n * eps of them at most, and training
# amplifies that: in float32 until a ReLU turns over, from where it is anything.
# Here it is 8 * 94 * 94 * 2.2e-16 = 2e-11 a step at most, in seed_cnn's first
# layer, while a patch left out or taken twice shows in the third digit.
SAME = 1e-9
FLOAT64 = {"precision": "float64"}
PLAIN = {"precision": "float32", "xla": "off"}

RECIPES = pytest.mark.parametrize(
    "recipe",
    [
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 4},
        {"xla": "on"},
        {"xla": "on", "gradient_accumulation_steps": 2},
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


def symmetric() -> keras.Model:
    """A small network of the group p4m."""
    image = keras.Input((6, 6, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = group_conv.LiftingConv2D(2, 2, strides=2)(x)
    x = group_conv.GroupBatchNormalization()(x)
    x = group_conv.GroupConv2D(2, 3)(keras.layers.ReLU()(x))
    x = group_conv.InvariantPooling2D()(x)
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(x)))


def make_batches(num_steps, seed=0) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(seed)
    size = num_steps * BATCH_SIZE
    image = draw.integers(0, 256, (size, 6, 6, 3), np.uint8)
    return batches_of(image, draw.integers(0, 2, size), BATCH_SIZE)


def batches_of(image, label, batch_size) -> list[dict[str, np.ndarray]]:
    parts = {"image": image, "label": label, "row": np.arange(len(label))}
    return [
        {name: part[i : i + batch_size] for name, part in parts.items()}
        for i in range(0, len(label), batch_size)
    ]


def make(
    distribution,
    build,
    *,
    name="sgd",
    rate=0.1,
    more=None,
    num_steps=1,
    batch_size=BATCH_SIZE,
    class_weights=(1.0, 1.0),
    **recipe,
):
    options = optimizers.OptimizerOptions(name, rate, **(more or {}))
    return steps.Trainer(
        distribution,
        build,
        functools.partial(optimizers.make_optimizer, options, num_steps),
        steps.Recipe(batch_size, **(PLAIN | recipe)),
        class_weights,
    )


def run(machine, distribution, batches, first=0, together=False):
    """Runs steps one by one; returns the loss sums, and whether all are finite."""
    parts = {name: [b[name] for b in batches] for name in batches[0]}
    ds = tf.data.Dataset.from_tensor_slices(parts)
    iterator = iter(replicas.distribute(ds, distribution))
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


def variables_of(machine) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in machine.model.variables]


def normalizes(model) -> bool:
    kind = keras.layers.BatchNormalization
    return any(isinstance(layer, kind) for layer in model.layers)


def build_without_dropout(name) -> keras.Model:
    """A network whose replicas may be compared: their masks would differ."""
    model = networks.build(name)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


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


def check_replicas_train_as_one(distributions, build, batches, **recipe):
    """Compares all weights, and statistics of batch normalization."""
    found = []
    for distribution in distributions:
        machine = make(distribution, build, **FLOAT64, **recipe)
        start = variables_of(machine)
        losses, _ = run(machine, distribution, batches)
        found.append([losses, *variables_of(machine)])
    for other in found[1:]:
        assert largest_difference(other, found[0]) < SAME
    # They differ by what they learned, not by nothing.
    assert largest_difference(start, found[0][1:]) > 1e5 * SAME


@pytest.mark.parametrize(
    ("build", "name", "rate"),
    [
        (deep, "sgd", 0.1),
        (deep, "adam", 0.001),
        (symmetric, "adam", 0.001),
    ],
)
def test_replicas_train_a_normalized_network_as_one(several, build, name, rate):
    check_replicas_train_as_one(
        (ONE(), several),
        build,
        make_batches(20),
        name=name,
        rate=rate,
        clip_norm=0.1,
        class_weights=(0.3, 1.7),
        augment="d4",
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "num_steps", "name", "rate", "counts"),
    [
        ("small_cnn", 20, "sgd", 0.1, (2, 4)),
        ("small_cnn", 20, "adam", 0.001, (2, 4)),
        ("seed_cnn", 20, "sgd", 0.1, (2, 4)),
        ("seed_cnn", 5, "adam", 0.001, (2, 4)),
        # Graphs of minutes: one more replica is one more copy of them.
        ("resnet_small", 5, "adam", 0.001, (2,)),
        ("p4m_cnn", 5, "adam", 0.001, (2,)),
        ("efficientnet_lite0", 2, "adam", 0.001, (2,)),
    ],
)
def test_replicas_train_a_network_as_one(
    four_virtual_devices, model, num_steps, name, rate, counts
):
    build = functools.partial(build_without_dropout, model)
    made = kaggle_folder.make_patches(8 * num_steps)
    check_replicas_train_as_one(
        (ONE(), *(mirror(four_virtual_devices[:count]) for count in counts)),
        build,
        batches_of(made.image, made.label, 8),
        name=name,
        rate=rate,
        batch_size=8,
        clip_norm=0.5,
        augment="strong",
        # Batch normalization of a part is not that of the batch.
        gradient_accumulation_steps=1 if normalizes(build()) else 2,
    )


@pytest.mark.numeric
@pytest.mark.parametrize("model", ["small_cnn", "seed_cnn"])
def test_first_gradient_of_two_replicas_is_that_of_one_in_float32(two, model):
    made = kaggle_folder.make_patches(8)
    batches = batches_of(made.image, made.label, 8)
    build = functools.partial(build_without_dropout, model)
    gradients = []
    for distribution in (ONE(), two):
        # With SGD at rate 1 a step is the gradient.
        machine = make(distribution, build, rate=1.0, batch_size=8)
        before = weights_of(machine)
        run(machine, distribution, batches)
        gradients.append(np.concatenate([
            (a - b).ravel()
            for a, b in zip(before, weights_of(machine), strict=True)
        ]))  # fmt: skip
    difference = np.linalg.norm(gradients[1] - gradients[0])
    # The longest sum is that of a filter's gradient, over each place of each
    # patch: of n products, so that rounding is n * eps of it at most. A patch
    # left out or taken twice would be an eighth.
    most = 8 * 94 * 94 * np.finfo(np.float32).eps
    assert difference < most * np.linalg.norm(gradients[0])


@pytest.mark.parametrize("share", [False, True], ids=["each", "sync"])
def test_batch_norm_looks_at_all_replicas_if_told_to(two, share):
    batches = make_batches(5)
    losses = [
        run(
            make(distribution, deep, sync_batch_norm=share, **FLOAT64),
            distribution,
            batches,
        )[0]
        for distribution in (ONE(), two)
    ]
    assert np.allclose(*losses, rtol=SAME) == share


def test_parts_of_a_batch_are_normalized_like_shares_of_replicas(two):
    batches = make_batches(5)
    parts = make(ONE(), deep, gradient_accumulation_steps=2, **FLOAT64)
    shares = make(two, deep, sync_batch_norm=False, **FLOAT64)
    expected, _ = run(parts, ONE(), batches)
    losses, _ = run(shares, two, batches)
    np.testing.assert_allclose(losses, expected, rtol=SAME)
    assert largest_difference(weights_of(parts), weights_of(shares)) < SAME


@pytest.mark.numeric
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


@pytest.mark.long
@RECIPES
def test_replicas_agree_with_batch_norm_in(two, recipe):
    batches = make_batches(3)
    one, other = (
        run(
            make(distribution, deep, **recipe, **FLOAT64), distribution, batches
        )
        for distribution in (ONE(), two)
    )
    assert one[1] and other[1]  # All is finite.
    if (
        "gradient_accumulation_steps" not in recipe
    ):  # Statistics are those of a part.
        np.testing.assert_allclose(other[0], one[0], rtol=SAME)


@pytest.mark.long
@RECIPES
def test_parts_and_xla_change_no_step(two, recipe):
    batches = make_batches(5)
    build = functools.partial(make, build=linear, augment="d4", **FLOAT64)
    plain = build(ONE())
    expected, _ = run(plain, ONE(), batches)
    for distribution in (ONE(), two):
        machine = build(distribution, **recipe)
        losses, _ = run(machine, distribution, batches)
        np.testing.assert_allclose(losses, expected, rtol=SAME)
        found = weights_of(machine)
        assert largest_difference(found, weights_of(plain)) < SAME


@pytest.mark.numeric
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
        machine = make(
            distribution, linear, rate=1.0, clip_norm=0.01, **FLOAT64
        )
        before = weights_of(machine)
        run(machine, distribution, batches)
        after = weights_of(machine)
        moved = [a - b for a, b in zip(after, before, strict=True)]
        norm = np.sqrt(sum(np.sum(m**2) for m in moved))
        assert norm == pytest.approx(0.01, rel=SAME)


# TensorFlow asks the processor, not oneDNN, whether oneDNN can do float16 (its pull
# request 62648), and aborts where oneDNN was told to leave those instructions out. A
# processor that lacks them takes the kernels of "no oneDNN".
@pytest.mark.skipif(
    "ONEDNN_MAX_CPU_ISA" in os.environ
    and "avx512_fp16" in pathlib.Path("/proc/cpuinfo").read_text(),
    reason="TensorFlow has no float16 where oneDNN leaves out what is there",
)
@pytest.mark.numeric
def test_clipping_knows_the_loss_scale():
    batches = make_batches(1)
    machine = make(
        ONE(), linear, rate=1.0, clip_norm=0.01, precision="mixed_float16"
    )
    before = weights_of(machine)
    run(machine, ONE(), batches)
    moved = [a - b for a, b in zip(weights_of(machine), before, strict=True)]
    norm = np.sqrt(sum(np.sum(m.astype(np.float64) ** 2) for m in moved))
    # A step of 1e-2 from weights below 1 rounds by 6e-8 in each of 109; the
    # scale, at which the gradient is clipped if it is not known, is 32,768.
    assert norm == pytest.approx(0.01, rel=1e-2)


def test_class_weights_weigh_the_loss():
    (batch,) = make_batches(1)
    losses = []
    for label in (0, 1):
        some = batch | {"label": np.full(BATCH_SIZE, label)}
        for weights in ((1.0, 1.0), (0.5, 3.0)):
            machine = make(ONE(), linear, class_weights=weights, **FLOAT64)
            losses += run(machine, ONE(), [some])[0].tolist()
    assert losses[1] == pytest.approx(0.5 * losses[0])
    assert losses[3] == pytest.approx(3 * losses[2])


def test_smoothed_labels_are_partly_the_other_class():
    (batch,) = make_batches(1)
    losses = []
    for label, smoothing in ((0, 0.0), (1, 0.0), (0, 0.2), (1, 0.2)):
        some = batch | {"label": np.full(BATCH_SIZE, label)}
        machine = make(ONE(), linear, label_smoothing=smoothing, **FLOAT64)
        losses += run(machine, ONE(), [some])[0].tolist()
    negative, positive, *smoothed = losses
    assert smoothed[0] == pytest.approx(0.9 * negative + 0.1 * positive)
    assert smoothed[1] == pytest.approx(0.1 * negative + 0.9 * positive)


def test_average_of_weights_is_that_of_its_definition(two):
    batches = make_batches(3)
    for distribution in (ONE(), two):
        machine = make(distribution, deep, ema_decay=0.75, **FLOAT64)
        seen = []  # Statistics of batch normalization among them.
        for step, batch in enumerate(batches):
            run(machine, distribution, [batch], first=step)
            seen.append(variables_of(machine))
        shares = np.array([0.75**2, 0.75, 1]) / (0.75**2 + 0.75 + 1)
        average = [
            sum(
                share * value
                for share, value in zip(shares, values, strict=True)
            )
            for values in zip(*seen, strict=True)
        ]
        with machine.averaged():
            assert largest_difference(variables_of(machine), average) < SAME
        assert largest_difference(variables_of(machine), seen[-1]) == 0
        differs = [
            np.abs(now - mean).max() > 1e5 * SAME
            for now, mean in zip(seen[-1], average, strict=True)
        ]
        # A bias before batch normalization has no gradient.
        assert differs.count(False) == 1


def test_learning_rate_warms_up_and_falls_to_zero():
    schedule = {"schedule": "cosine", "warmup_steps": 4}
    machine = make(
        ONE(), linear, name="adamw", rate=0.5, more=schedule, num_steps=12
    )
    rates = []
    for step, batch in enumerate(make_batches(12)):
        rates.append(machine.factors["learning_rate"])
        run(machine, ONE(), [batch], first=step)
    np.testing.assert_allclose(rates[:5], [0, 0.125, 0.25, 0.375, 0.5])
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(rates[4:], cosine, rtol=1e-5)
    assert machine.factors["learning_rate"] == pytest.approx(0, abs=1e-7)


def test_warm_up_needs_no_schedule():
    machine = make(ONE(), linear, rate=0.5, more={"warmup_steps": 4})
    rates = []
    for step, batch in enumerate(make_batches(7)):
        rates.append(machine.factors["learning_rate"])
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


@pytest.mark.parametrize("build", [linear, deep])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_step_that_is_not_finite_changes_nothing(two, value, build):
    for distribution in (ONE(), two):
        machine = make(distribution, build, name="adam")
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


@pytest.mark.long
def test_both_networks_step_augmented_in_parts():
    image = np.zeros((4, 96, 96, 3), np.uint8)
    batch = {"image": image, "label": np.arange(4) % 2, "row": np.arange(4)}
    for name in ("seed_cnn", "small_cnn"):
        machine = make(
            ONE(),
            functools.partial(networks.build, name),
            batch_size=4,
            augment="d4",
            gradient_accumulation_steps=2,
        )
        _, is_finite = run(machine, ONE(), [batch])
        assert is_finite


def test_a_gradient_that_overflows_at_any_scale_is_a_fault(two):
    for distribution in (ONE(), two):
        machine = make(
            distribution,
            lambda: steep.steep(float("inf")),
            precision="mixed_float16",
        )
        before = weights_of(machine)
        batches = make_batches(17)
        # From 2^15 the scale is halved 16 times, the last time below 1.
        losses, all_finite = run(machine, distribution, batches[:16])
        assert (len(losses), all_finite) == (16, True)
        assert machine.factors["loss_scale"] == 0.5
        _, is_finite = run(machine, distribution, batches[16:], first=16)
        assert not is_finite
        assert machine.factors["loss_scale"] == 0.5
        for old, new in zip(before, weights_of(machine), strict=True):
            np.testing.assert_array_equal(old, new)


def test_a_gradient_that_a_lower_scale_bears_is_none():
    # A logit's gradient is 1 / (2 * 16) or so: times 2^8 it is 8.
    machine = make(
        ONE(), lambda: steep.steep(2.0**8), precision="mixed_float16"
    )
    before = weights_of(machine)
    _, all_finite = run(machine, ONE(), make_batches(17))
    assert all_finite
    assert 1 <= machine.factors["loss_scale"] < 2**15
    assert largest_difference(before, weights_of(machine)) > 0
