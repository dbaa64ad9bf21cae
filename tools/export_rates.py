"""Patches a second of what `pcam export` writes, beside `pcam predict`.

Each runtime computes the same made-up patches, in turn with the others, so that their
ratios hold where the rates of a busy machine do not:

    python tools/export_rates.py --run_dir=D
"""

import importlib.metadata
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import app, flags

from pcam_tfdata import choices, schema
from pcam_tfdata.export import classifier, export, formats
from pcam_tfdata.models import inference
from pcam_tfdata.runs import run_folder

_PACKAGES = ("tensorflow", "onnxruntime", "ai-edge-litert")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
_TTA = flags.DEFINE_enum("tta", "none", choices.TTA, "Views of a patch.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Patches of a call.")
_NUM_BATCHES = flags.DEFINE_integer("num_batches", 8, "Calls of a round.")
_NUM_ROUNDS = flags.DEFINE_integer("num_rounds", 5, "Rounds; medians count.")

Run = Callable[[np.ndarray], object]


def open_predictor(run_dir: str) -> Run:
    """Returns the way that `pcam predict` computes batches of patches."""
    path = run_folder.find_model(run_dir)
    strategy = tf.distribute.OneDeviceStrategy("/CPU:0")
    predictor = inference.load(path, strategy, tta=_TTA.value)

    def run(images: np.ndarray) -> object:
        row = np.arange(len(images))
        columns = {"image": images, "row": row, "label": row, "mask": row >= 0}
        size = (-1, _BATCH_SIZE.value)
        batches = tf.data.Dataset.from_tensor_slices(
            {n: v.reshape(*size, *v.shape[1:]) for n, v in columns.items()}
        )
        return inference.join(predictor.stream(batches, len(images), "predict"))

    return run


def open_saved_model(path: str) -> Run:
    """Returns a call of the signature for patches."""
    serve = tf.saved_model.load(path).signatures["serving_default"]
    return lambda images: serve(image=tf.constant(images))


def open_onnx(path: str) -> Run:
    """Returns a call of onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(None, {classifier.IMAGE: images})


def open_litert(path: str) -> Run:
    """Returns a call of LiteRT, which has as many threads as it is told."""
    from ai_edge_litert import interpreter

    loaded = interpreter.Interpreter(path, num_threads=os.cpu_count())
    run = loaded.get_signature_runner("serving_default")
    return lambda images: run(image=images)


def main(_: list[str]) -> None:
    """Prints the table."""
    openers = {
        "saved_model": open_saved_model,
        "onnx": open_onnx,
        "litert": open_litert,
    }
    size = _BATCH_SIZE.value
    num_patches = size * _NUM_BATCHES.value
    images = np.random.default_rng(0).integers(
        0, 256, (num_patches, *schema.IMAGE_SHAPE), np.uint8
    )
    batches = np.split(images, _NUM_BATCHES.value)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {"predict": open_predictor(_RUN_DIR.value)}
        for name, opener in openers.items():
            path = os.path.join(folder, f"m{formats.FORMATS[name].suffix}")
            export.export(
                [_RUN_DIR.value], format=name, output=path, tta=_TTA.value
            )
            runs[name] = opener(path)
        for number in range(_NUM_ROUNDS.value + 1):  # The first warms up.
            for name, run in runs.items():
                start = time.perf_counter()
                for part in [images] if name == "predict" else batches:
                    run(part)
                taken = time.perf_counter() - start
                seconds.setdefault(name, []).extend([taken] * (number > 0))
    versions = (f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES)
    load, _, _ = os.getloadavg()
    print(f"{os.cpu_count()} cores, load {load:.1f}; {', '.join(versions)}")
    for name, taken in seconds.items():
        pairs = zip(seconds["predict"], taken, strict=True)
        ratio = statistics.median(own / other for own, other in pairs)
        rate = num_patches / statistics.median(taken)
        print(f"{name:<12}{rate:>8,.0f} patches/s{ratio:>8.2f} x predict")


if __name__ == "__main__":
    flags.mark_flag_as_required("run_dir")
    app.run(main)
