"""Devices and precision."""

import keras
import tensorflow as tf

_TENSOR_CORES = (7, 0)  # Compute capability from which float16 is faster.
_BFLOAT16 = (8, 0)


def make_strategy(
    name: str, *, num_virtual_devices: int = 0, allow_cpu: bool = False
) -> tf.distribute.Strategy:
    """Returns how training is spread over the devices of this machine.

    Call it before any TensorFlow operation: it configures the devices.

    Args:
        name: `one_device`, the first GPU or else the CPU; or `mirrored`, a
            replica on each GPU.
        num_virtual_devices: If not 0, the CPU is split into as many devices and
            GPUs are left alone; to try several replicas anywhere.
        allow_cpu: Lets `mirrored` run without a GPU.

    Raises:
        ValueError: `mirrored` finds no GPU and was not allowed the CPU.
    """
    if num_virtual_devices:
        _split_cpu(num_virtual_devices)
    gpus = tf.config.get_visible_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/GPU:0" if gpus else "/CPU:0")
    if gpus:
        return tf.distribute.MirroredStrategy(
            [f"/GPU:{number}" for number in range(len(gpus))]
        )
    if not num_virtual_devices and not allow_cpu:
        raise ValueError(
            "--strategy=mirrored: found no GPU that TensorFlow can use."
            " Install its GPU support with `pip install 'tensorflow[and-cuda]'`,"
            " or pass --allow_cpu or --num_virtual_devices=2."
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
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get(
            "compute_capability", (0, 0)
        )
        for gpu in tf.config.get_visible_devices("GPU")
    ]
    if not capabilities or min(capabilities) < _TENSOR_CORES:
        return "float32"
    least = min(capabilities)
    return "mixed_bfloat16" if least >= _BFLOAT16 else "mixed_float16"


def scales_loss(precision: str) -> bool:
    """Returns whether gradients of this policy underflow without a scale."""
    return precision == "mixed_float16"


def list_devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the devices of the replicas, in their order."""
    return list(strategy.extended.worker_devices)


def describe_devices(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns a line for each device that the strategy computes on."""
    gpus = tf.config.get_visible_devices("GPU")
    lines = []
    for device in list_devices(strategy):
        spec = tf.DeviceSpec.from_string(device)
        details = ""
        if spec.device_type == "GPU":
            found = tf.config.experimental.get_device_details(
                gpus[spec.device_index]
            )
            details = " " + found.get("device_name", "")
        lines.append(f"{spec.device_type}:{spec.device_index}{details}")
    return lines


def reset_keras(precision: str, seed: int) -> None:
    """Sets Keras' global precision policy and its seeds."""
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)


def _split_cpu(num_devices: int) -> None:
    tf.config.set_visible_devices([], "GPU")
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices
    )
