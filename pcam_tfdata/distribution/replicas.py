"""Devices, precision, and how Keras is set."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import random
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import private_interfaces, rendezvous, tf_config

_logger = logging.getLogger(__name__)
_TENSOR_CORES = (7, 0)  # Compute capability from which float16 is faster.
_BFLOAT16 = (8, 0)
_DRIVER, _VISIBLE = pathlib.Path("/dev/nvidiactl"), "CUDA_VISIBLE_DEVICES"
_SEED_STRIDE = 0x9E3779B9  # Odd: as many multiples as there are seeds.


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """What a command computes on.

    Attributes:
        strategy: `one_device`, the first GPU or else the CPU; `mirrored`, a
            replica on each GPU; or `multi_worker`, the same on several machines.
        num_virtual_devices: If not 0, the CPU is split into as many devices and
            GPUs are left alone; to try several replicas on one machine.
        allow_cpu: Lets `mirrored` and `multi_worker` run without a GPU.
        worker_wait_seconds: How long `multi_worker` waits for all workers.
    """

    strategy: str = "one_device"
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    worker_wait_seconds: float = 600.0


def make_strategy(
    options: DeviceOptions | None = None, job: tf_config.Job = tf_config.ALONE
) -> tf.distribute.Strategy:
    """Returns how the work is spread over devices.

    Call it before any TensorFlow operation: it configures the devices.

    Args:
        options: Which devices; None for the first GPU, or else the CPU.
        job: The workers of `multi_worker`.

    Raises:
        ValueError: several replicas find no GPU and were not allowed the CPU.
        RuntimeError: the CPU is to be split, and TensorFlow has started.
        LostWorkerError: see `rendezvous.join`.
    """
    options = options or DeviceOptions()
    name, num_virtual_devices = options.strategy, options.num_virtual_devices
    if num_virtual_devices and name == "multi_worker":
        raise ValueError(
            "--num_virtual_devices: found it with --strategy=multi_worker,"
            " expected none: each worker uses its GPUs, or its CPU as one."
        )
    if num_virtual_devices:
        _split_cpu(num_virtual_devices)
    gpus = tf.config.get_visible_devices("GPU")
    for gpu in gpus:
        # A program that has used its GPUs has chosen how their memory grows.
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)
    if name == "one_device":
        if not gpus and _DRIVER.exists() and _VISIBLE not in os.environ:
            _logger.warning(
                "found NVIDIA's driver, and no GPU that TensorFlow can use: it"
                " computes on the CPU. pcam doctor tells why."
            )
        return tf.distribute.OneDeviceStrategy("/GPU:0" if gpus else "/CPU:0")
    if not gpus and not num_virtual_devices and not options.allow_cpu:
        raise ValueError(
            f"--strategy={name}: found no GPU that TensorFlow can use. Pass"
            " --allow_cpu or --num_virtual_devices=2, or see why: pcam doctor."
        )
    if name == "multi_worker":
        return rendezvous.join(job, options.worker_wait_seconds)
    if gpus:
        return tf.distribute.MirroredStrategy(
            [f"/GPU:{number}" for number in range(len(gpus))]
        )
    return tf.distribute.MirroredStrategy(
        [f"/CPU:{number}" for number in range(num_virtual_devices or 1)],
        # NCCL, the default, is for GPUs.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def resolve_precision(name: str) -> str:
    """Returns the Keras policy for `name`.

    `auto` is float16 or bfloat16 where every GPU has units for it (tensor cores;
    bfloat16 has the range of float32 and needs no loss scale), else float32.
    """
    if name != "auto":
        return name
    details = tf.config.experimental.get_device_details
    least = min(
        (
            details(gpu).get("compute_capability", (0, 0))
            for gpu in tf.config.get_visible_devices("GPU")
        ),
        default=(0, 0),
    )
    if least < _TENSOR_CORES:
        return "float32"
    return "mixed_bfloat16" if least >= _BFLOAT16 else "mixed_float16"


def resolve_xla(name: str) -> bool:
    """Returns whether to compile with XLA: `on`, `off`, or `auto`.

    `auto` is on where there are GPUs and it compiles a convolution for them; on
    a CPU it is slower than without (BUILD_NOTES.md).
    """
    if name != "auto":
        return name == "on"
    if not tf.config.get_visible_devices("GPU"):
        return False
    image, kernel = tf.zeros([1, 8, 8, 3]), tf.zeros([3, 3, 3, 8])
    try:
        tf.function(tf.nn.conv2d, jit_compile=True)(image, kernel, 1, "SAME")
    except tf.errors.OpError as error:
        first_line = str(error.message).splitlines()[0]
        _logger.warning("XLA does not work here, done without: %s", first_line)
        return False
    return True


def sync_batch_norm(
    model: keras.Model, strategy: tf.distribute.Strategy
) -> bool:
    """Lets batch normalization take its statistics over all replicas.

    Returns whether there is any, and more than one replica.
    """
    if strategy.num_replicas_in_sync == 1:
        return False
    kind = keras.layers.BatchNormalization
    layers = private_interfaces.list_layers(model)
    normalizing = [layer for layer in layers if isinstance(layer, kind)]
    for layer in normalizing:
        layer.synchronized = True
    return bool(normalizing)


def vary_dropout(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Gives each replica dropout masks of its own.

    They follow from the first replica's seeds, which a checkpoint holds; so
    call it again after those were assigned, to the replicas of all machines.
    """
    local_results = strategy.experimental_local_results
    numbers = local_results(
        strategy.experimental_distribute_values_from_function(
            lambda context: context.replica_id_in_sync_group
        )
    )
    for layer in private_interfaces.list_layers(model):
        generator = getattr(layer, "seed_generator", None)
        if generator is None:
            continue
        copies = local_results(generator.state.value)
        seed, counter = np.asarray(copies[0]).tolist()
        # A layer that was made outside the strategy has one copy.
        for number, copy in zip(numbers, copies, strict=False):
            other = (seed + number * _SEED_STRIDE) % (1 << 32)
            copy.assign(np.array([other, counter], np.uint32))


def distribute(
    batches: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> Iterable:
    """Returns this machine's batches in parts, one for each of its replicas.

    A lone CPU gets them as they are: the iterator of a distributed dataset
    would slow down the steps themselves (BUILD_NOTES.md).
    """
    (first, *others) = list_devices(strategy)
    if not others and tf.DeviceSpec.from_string(first).device_type == "CPU":
        return batches
    # Given whole batches, TensorFlow cuts them for the replicas of all machines.
    parts = split(batches, 1 + len(others)) if others else batches
    return strategy.distribute_datasets_from_function(lambda _: parts)


def split(batches: tf.data.Dataset, num_parts: int) -> tf.data.Dataset:
    """Returns each batch as so many smaller ones, in order."""
    first, *_ = batches.element_spec.values()
    return batches.rebatch(first.shape[0] // num_parts, drop_remainder=True)


def list_devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the devices of this machine's replicas, in their order."""
    return list(strategy.extended.worker_devices)


def describe_devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns a line for each device that the strategy computes on."""
    gpus = tf.config.get_visible_devices("GPU")
    lines = []
    for device in list_devices(strategy):
        spec = tf.DeviceSpec.from_string(device)
        line = f"{spec.device_type}:{spec.device_index}"
        if spec.device_type == "GPU":
            gpu = gpus[spec.device_index]
            details = tf.config.experimental.get_device_details(gpu)
            line += f" {details.get('device_name', '')}"
        lines.append(line)
    return lines


@contextlib.contextmanager
def keras_settings(
    precision: str = "float32", seed: int | None = None
) -> Iterator[None]:
    """Gives Keras the settings that networks are made and run with here.

    A context manager, and so a decorator. Neither the user's `keras.json` nor
    what the program has set changes what is computed within; afterwards all is
    as the program had it.

    Args:
        precision: Policy of layers that are made within.
        seed: Of their weights and of dropout; None for any.

    Raises:
        RuntimeError: Keras computes with something other than TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras: found the backend {keras.config.backend()!r}, expected"
            " 'tensorflow'. Set KERAS_BACKEND=tensorflow in the environment"
            " before Keras is imported."
        )
    with contextlib.ExitStack() as stack:
        for name, value in (
            ("dtype_policy", precision),
            ("floatx", "float32"),
            ("image_data_format", "channels_last"),
        ):
            set_ = getattr(keras.config, f"set_{name}")
            stack.callback(set_, getattr(keras.config, name)())
            set_(value)
        if seed is not None:
            stack.callback(random.setstate, random.getstate())
            random.seed(seed)  # From here Keras draws the seeds of layers.
        yield


def _split_cpu(num_devices: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * num_devices
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise RuntimeError(
            f"--num_virtual_devices={num_devices}: found TensorFlow started"
            " with other devices, expected to split the CPU before its first"
            " operation. Do this first in the program, or in another one."
        ) from error
