"""What may crash, hang or print: `python -m pcam_tfdata.doctor.trials [RECORDS]`.

JSON lines tell when a trial begins and how it ends, so that one that takes the
process down with it is known by its name.
"""

import importlib
import importlib.metadata
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from pcam_tfdata.doctor import check_packages
from pcam_tfdata.system import faults

IMPORT = "import of "
TENSORFLOW, NCCL = "TensorFlow", "NCCL"
RECORDS, DISK = "records", "disk of records"
FLOAT32, FLOAT16, XLA = "float32", "mixed_float16", "float32 with XLA"
_LOSS_SCALE = 1024.0  # float16 has no digits for gradients as small as these.
_BLOCK_BYTES, _MAX_BYTES, _MAX_SECONDS = 1 << 20, 1 << 28, 1.5
_VARIABLES = {
    "NCCL_DEBUG": "WARN",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "TF_CPP_VMODULE": "dso_loader=1",  # Names libraries that are not found.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # Others may use the GPUs.
}
Trials = Iterator[tuple[str, Callable[[], Any]]]


def main() -> None:
    """Tries records, or all else; what else is printed goes to stderr."""
    os.environ |= _VARIABLES
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name, call in try_records(*sys.argv[1:]) if sys.argv[1:] else try_all():
        print(json.dumps({"trial": name}), file=stdout, flush=True)
        try:
            found = call()
            facts = {"error": "", **(found if isinstance(found, dict) else {})}
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            facts = {"error": faults.one_line(text, 300)}
        print(json.dumps({"trial": name, **facts}), file=stdout, flush=True)
        if facts["error"] and name in (TENSORFLOW, RECORDS):
            break  # What follows needs it.


def try_all() -> Trials:
    """Imports packages, TensorFlow last, and trains a little on each device."""
    owners = importlib.metadata.packages_distributions()
    for one in check_packages.list_requirements(check_packages.PACKAGE):
        plain = one.name.replace("-", "_")
        held = [module for module, names in owners.items() if one.name in names]
        module = plain if plain in held or not held else held[0]
        if one.name not in ("keras", "tensorflow"):
            yield IMPORT + one.name, partial(importlib.import_module, module)
    gpus: list[str] = []
    yield TENSORFLOW, partial(_import_tensorflow, gpus)
    for name in list_steps(gpus):
        yield name, partial(_train, *name.split(maxsplit=1))
    if len(gpus) > 1:
        yield NCCL, partial(_sum_over, gpus)


def list_steps(gpus: Iterable[str]) -> list[str]:
    """Returns the names of trials of training steps: device and precision."""
    hows = (FLOAT32, FLOAT16, XLA)
    on_gpus = [f"{gpu} {how}" for gpu in gpus for how in hows]
    return [f"CPU:0 {FLOAT32}", *on_gpus]


def _import_tensorflow(gpus: list[str]) -> dict:
    import keras
    import tensorflow as tf

    build = dict(tf.sysconfig.get_build_info())
    for number, _ in enumerate(tf.config.list_physical_devices("GPU")):
        gpus.append(f"GPU:{number}")
    text = f"{tf.__version__}, Keras {keras.__version__}"
    return {"text": text, "build": build, "gpus": gpus}


def _train(device: str, how: str) -> dict:
    """Convolves ones, whose sums are known, and takes steps of training."""
    import tensorflow as tf

    dtype = tf.float16 if how == FLOAT16 else tf.float32
    with tf.device(device):
        kernel = tf.Variable(tf.ones([3, 3, 3, 32]))
        images = tf.ones([64, 96, 96, 3], dtype)

        @tf.function(jit_compile=how == XLA)
        def step() -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                sums = tf.nn.conv2d(images, tf.cast(kernel, dtype), 1, "VALID")
                squares = tf.square(tf.cast(sums, tf.float32))
                loss = _LOSS_SCALE * tf.reduce_mean(squares)
            kernel.assign_sub(1e-3 / _LOSS_SCALE * tape.gradient(loss, kernel))
            return sums, loss

        sums, first = step()
        start = time.perf_counter()
        loss = float(step()[1])
        time_ms = 1000 * (time.perf_counter() - start)
    if (sums.numpy() != 27).any() or not 0 <= loss < float(first):
        raise ArithmeticError("a convolution or its gradient is wrong")
    return {"text": f"convolution and step of 64 patches in {time_ms:.0f} ms"}


def _sum_over(gpus: list[str]) -> dict:
    import tensorflow as tf

    def add() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        return context.all_reduce("SUM", tf.ones([1 << 20]))

    strategy = tf.distribute.MirroredStrategy(gpus)
    sums = strategy.experimental_local_results(strategy.run(tf.function(add)))
    if any((part.numpy() != len(gpus)).any() for part in sums):
        raise ArithmeticError("GPUs do not get the sum of what they have")
    return {"text": f"{len(gpus)} GPUs sum what they have"}


def try_records(records_dir: str) -> Trials:
    """Looks at a records folder, and reads from its disk."""
    paths: list[str] = []
    yield RECORDS, partial(_open, records_dir, paths)
    yield DISK, partial(_read, paths)


def _open(records_dir: str, paths: list[str]) -> dict:
    from pcam_tfdata.records import records_folder

    records = records_folder.open_folder(records_dir)
    os.stat(records.sidecar_path)
    shards = records.list_shards()
    for shard in shards:
        shard.check()  # Its size, its first and its last record.
    paths += [shard.path for shard in shards if shard.num_records]
    num_bytes = sum(shard.num_bytes for shard in shards)
    return {"text": records.content.summarize(), "num_bytes": num_bytes}


def _read(paths: list[str]) -> dict:
    """Times blocks at random, past the page cache, which keeps what it has."""
    buffer = mmap.mmap(-1, _BLOCK_BYTES)  # Aligned, as the kernel wants it.
    num_bytes, seconds, start = 0, 0.0, time.perf_counter()
    while num_bytes < _MAX_BYTES and seconds < _MAX_SECONDS:
        path = random.choice(paths)
        offset = random.randrange(0, os.path.getsize(path), _BLOCK_BYTES)
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        num_bytes += os.preadv(file, [buffer], offset)
        os.close(file)
        seconds = time.perf_counter() - start
    speed = num_bytes / seconds / 1e6
    return {"text": f"{speed:,.0f} MB/s at random", "speed": speed}


if __name__ == "__main__":
    main()
