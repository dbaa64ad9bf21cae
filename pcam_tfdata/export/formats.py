"""The formats of other programs: a classifier written, and run as they run it."""

import functools
import importlib.util
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.export import classifier, encoded
from pcam_tfdata.system import files

METADATA = "metadata.json"
# Where TensorFlow leaves room for files of others.
_EXTRA = "assets.extra"
_SIGNATURE = "serving_default"

Metadata = Mapping[str, Any]


class Format(NamedTuple):
    """How a format is written and run.

    Attributes:
        suffix: Of its file; empty for a folder.
        packages: What it needs beside TensorFlow, by the names of imports.
        computes_in_float32: Whether a network of mixed precision has to be
            made one of float32, since runtimes lack other types.
        write: Writes a classifier and its metadata at a path.
        run: Returns the probabilities, float32 [B], that what is at a path
            gives for uint8 [B, 96, 96, 3], by its own runtime.
    """

    suffix: str
    packages: tuple[str, ...]
    computes_in_float32: bool
    write: Callable[[classifier.Classifier, Metadata, str], None]
    run: Callable[[str, np.ndarray], np.ndarray]


def require_packages(name: str) -> None:
    """Raises a RuntimeError where what a format needs is not installed."""
    packages = FORMATS[name].packages
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise RuntimeError(
            f"--format={name}: {', '.join(missing)} must be installed."
            f" pip install 'pcam_tfdata[{name}]'"
        )


def _write_saved_model(
    model: classifier.Classifier, metadata: Metadata, path: str
) -> None:
    """Writes signatures for patches and for image files.

    Serving programs take `serving_default`, which is `serve`, or `serve_encoded`.
    """

    def serve_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return model(encoded.decode_all(image_bytes))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        functools.partial(model.__call__, training=False),
        [classifier.SIGNATURE],
    )
    archive.add_endpoint(
        "serve_encoded",
        serve_encoded,
        [tf.TensorSpec([None], tf.string, "image_bytes")],
    )
    archive.write_out(path, verbose=False)
    extra = os.path.join(path, _EXTRA)
    os.mkdir(extra)
    files.write_json(os.path.join(extra, METADATA), metadata)


def _write_onnx(
    model: classifier.Classifier, metadata: Metadata, path: str
) -> None:
    """Writes metadata as properties; those that are no text are JSON."""
    import onnx

    with warnings.catch_warnings(action="ignore"):  # Of NumPy, about Keras.
        _export(model, path, "onnx")
    proto = onnx.load(path)
    (batch_size,) = (
        value.type.tensor_type.shape.dim[:1] for value in proto.graph.input
    )
    batch_size[0].dim_param = "N"
    properties = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata.items()
    }
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def _write_litert(
    model: classifier.Classifier, metadata: Metadata, path: str
) -> None:
    """Appends metadata as a ZIP archive, as LiteRT's associated files are."""
    _export(model, path, "litert")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, json.dumps(metadata, indent=1))


def _export(model: classifier.Classifier, path: str, name: str) -> None:
    model.export(
        path, name, verbose=False, input_signature=[classifier.SIGNATURE]
    )


def _run_saved_model(path: str, images: np.ndarray) -> np.ndarray:
    loaded = tf.saved_model.load(path)  # Which has to outlive the call.
    outputs = loaded.signatures[_SIGNATURE](image=tf.constant(images))
    return outputs[classifier.PROBABILITY].numpy()


def _run_onnx(path: str, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    (probability,) = session.run(None, {classifier.IMAGE: images})
    return probability


def _run_litert(path: str, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert import interpreter

    run = interpreter.Interpreter(path).get_signature_runner(_SIGNATURE)
    return run(image=images)[classifier.PROBABILITY]


FORMATS = {
    "saved_model": Format("", (), False, _write_saved_model, _run_saved_model),
    "onnx": Format(
        ".onnx",
        ("onnx", "onnxruntime", "tf2onnx"),
        True,
        _write_onnx,
        _run_onnx,
    ),
    "litert": Format(
        ".tflite", ("ai_edge_litert",), True, _write_litert, _run_litert
    ),
}
