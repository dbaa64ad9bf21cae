"""The formats of other programs: a classifier written, and run as they run it.

What writes puts a classifier and its metadata at a path. What runs returns the
probabilities, float32 [B], that it gives there for uint8 [B, 96, 96, 3].
"""

import importlib.util
import json
import os
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import private_interfaces
from pcam_tfdata.export import classifier, encoded
from pcam_tfdata.system import files

METADATA = "metadata.json"
_SERVING = "serving_default"


class Format(NamedTuple):
    """A format; its file's suffix, if it is one, and the packages it imports."""

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[classifier.Classifier, dict[str, Any], str], None]
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
    model: classifier.Classifier, facts: dict[str, Any], path: str
) -> None:
    def serve_encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return model(encoded.decode(image_bytes))

    images = tf.TensorSpec([None], tf.string, "image_bytes")
    serve = tf.function(model.call, [classifier.SPEC], autograph=False)
    # Keras' own archive would hold all weights twice.
    module = tf.Module()
    module.weights = [weight.value for weight in model.variables]
    signatures = {
        _SERVING: serve,
        "serve": serve,
        "serve_encoded": tf.function(serve_encoded, [images], autograph=False),
    }
    tf.saved_model.save(module, path, signatures)
    # Where TensorFlow leaves room for files of others.
    folder = os.path.join(path, "assets.extra")
    os.mkdir(folder)
    files.write_json(os.path.join(folder, METADATA), facts)


def _run_saved_model(path: str, images: np.ndarray) -> np.ndarray:
    loaded = tf.saved_model.load(path)  # It has to outlive the call.
    outputs = loaded.signatures[_SERVING](image=tf.constant(images))
    return outputs[classifier.PROBABILITY].numpy()


def _write_onnx(
    model: classifier.Classifier, facts: dict[str, Any], path: str
) -> None:
    import onnx
    import tf2onnx

    for layer in private_interfaces.list_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            # What a function captures would become an input.
            layer.mean = np.asarray(layer.mean)
            layer.variance = np.asarray(layer.variance)
    # Keras compiles convolutions of groups with XLA, which has no counterpart.
    tf.config.run_functions_eagerly(True)
    try:
        content, _ = tf2onnx.convert.from_function(
            tf.function(model.call, [classifier.SPEC], autograph=False),
            [classifier.SPEC],
            custom_op_handlers={"Erfc": (_convert_erfc, [])},
        )
    finally:
        tf.config.run_functions_eagerly(False)
    for tensor in (*content.graph.input, *content.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "N"
    for name, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        content.metadata_props.add(key=name, value=text)
    onnx.save(content, path)


def _convert_erfc(context: Any, node: Any, name: str, _: Any) -> None:
    """Has 1 - Erf in place of Erfc, which ONNX lacks: the Gelu's of ConvNeXt."""
    output = node.output[0]
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    one = context.make_const(f"{name}_one", np.ones([], np.float32)).output
    erf = context.make_node("Erf", node.input).output
    context.remove_node(node.name)
    context.make_node(
        "Sub", [*one, *erf], outputs=[output], shapes=[shape], dtypes=[dtype]
    )


def _run_onnx(path: str, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, providers=providers)
    return session.run(None, {classifier.IMAGE: images})[0]


def _write_litert(
    model: classifier.Classifier, facts: dict[str, Any], path: str
) -> None:
    model.export(path, "litert", False, input_signature=[classifier.SPEC])
    # At its end, as LiteRT's associated files are.
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA, json.dumps(facts, indent=1))


def _run_litert(path: str, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert import interpreter

    run = interpreter.Interpreter(path).get_signature_runner(_SERVING)
    return run(image=images)[classifier.PROBABILITY]


FORMATS = {
    "saved_model": Format("", (), _write_saved_model, _run_saved_model),
    "onnx": Format(
        ".onnx", ("onnx", "onnxruntime", "tf2onnx"), _write_onnx, _run_onnx
    ),
    "litert": Format(
        ".tflite", ("ai_edge_litert",), _write_litert, _run_litert
    ),
}
