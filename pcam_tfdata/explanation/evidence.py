"""Maps of the evidence of tumor that a network finds in patches."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata import choices, schema

_SQUARE, _STEP = 16, 8  # Pixels: side of an occlusion, and to the next one.
# Of a map, each way: places of 4 pixels. The last map of efficientnet_lite0 has 3,
# too few to tell where; docs/measurements.md, "Explanations".
_LEAST_PLACES = 24

# Takes uint8 [B, 96, 96, 3]; gives float64 [B, 96, 96], see `spread`.
Explainer = Callable[[np.ndarray], np.ndarray]


def make_explainer(
    model: keras.Model, method: str, color: np.ndarray
) -> tuple[Explainer, str]:
    """Returns what explains patches by a network, and the method it takes.

    Explained is the logit: the evidence is of tumor, also in patches that are
    predicted 0, and what speaks against it counts as 0, as do places that the
    logit does not depend on. Maps of an ensemble's members are averaged. A network
    without a fine map of features is occluded.

    Args:
        model: Takes uint8 [B, 96, 96, 3], gives a logit [B, 1], and maybe more.
        method: `gradcam` weighs each channel of the last fine map of features by
            its mean gradient (Selvaraju et al. 2017), `hirescam` each place by its
            own (Draelos & Carin 2020; both took the very last map); `occlusion` takes
            what the logit falls by under a square (Zeiler & Fergus 2014).
        color: RGB of the square, uint8 [3].
    """
    members = [(member, find_map(member)) for member in _list_members(model)]
    if method == choices.OCCLUSION or None in (found for _, found in members):
        return lambda image: _occlude(model, color, image), choices.OCCLUSION
    return lambda image: spread(
        np.sum([_differentiate(*m, method, image) for m in members], axis=0)
    ), method


def find_map(model: keras.Model) -> keras.Operation | None:
    """Returns what computes the last fine map of features of a patch, if any.

    Such a map has at least 24 x 24 places, more channels than an image, and no crop
    of such a map before it.
    """
    found = None
    for operation in _list_operations(model):
        shape: tuple = getattr(operation.output, "shape", ())
        if found and isinstance(operation, keras.layers.Cropping2D):
            break
        is_map = len(shape) == 4 and shape[3] > 3
        if is_map and min(shape[1:3]) >= _LEAST_PLACES:
            found = operation
    return found


def spread(places: np.ndarray) -> np.ndarray:
    """Returns the evidence of places by pixel: each spread over its area.

    Places are taken to part the patch evenly, as if no layer had lost a border.

    Args:
        places: float [B, height, width], at least 0.

    Returns:
        float64 [B, 96, 96], whose sum is 1, or 0 where there is no evidence.
    """
    size = schema.PATCH_SIZE
    # The part of each place in each pixel, counted in pieces of a pixel.
    rows, columns = (
        np.repeat(np.eye(n), size, axis=0).reshape(size, n, n).sum(axis=1)
        / size
        for n in places.shape[1:]
    )
    total = places.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
    return rows @ (places / np.where(total > 0, total, 1)) @ columns.T


def _list_members(model: keras.Model) -> list[keras.Model]:
    """Returns the networks in one that give logits of patches, or itself."""
    form = (None, *schema.IMAGE_SHAPE), (None, 1)
    inner = [m for m in model.layers if isinstance(m, keras.Model)]
    inner = [
        m for m in inner if (m.inputs[0].shape, m.outputs[0].shape) == form
    ]
    return [found for m in inner for found in _list_members(m)] or [model]


def _list_operations(model: keras.Model) -> Iterator[keras.Operation]:
    """Yields operations in the order of computation, also of inner networks."""
    for operation in getattr(model, "operations", model.layers):
        is_model = isinstance(operation, keras.Model)
        yield from _list_operations(operation) if is_model else [operation]


def _differentiate(
    model: keras.Model,
    operation: keras.Operation,
    method: str,
    image: np.ndarray,
) -> np.ndarray:
    """Returns evidence by pixel, from the gradient at a map of features."""
    outputs: list[tf.Tensor] = []
    call = operation.call

    def record(*args: Any, **kwargs: Any) -> tf.Tensor:
        outputs.append(call(*args, **kwargs))
        tape.watch(outputs[-1])
        return outputs[-1]

    operation.call = record  # It may stand in a network within the network.
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            logit = _compute_logit(model, image)
    finally:
        del operation.call
    weight = tape.gradient(logit, outputs[-1])
    is_seen = tf.reduce_any(weight != 0, axis=-1)  # Not what is cropped.
    if method == choices.GRADCAM:
        weight = tf.reduce_mean(weight, axis=(1, 2), keepdims=True)
    places = tf.nn.relu(tf.reduce_sum(weight * outputs[-1], axis=-1))
    return spread(np.where(is_seen, places, 0))


def _occlude(
    model: keras.Model, color: np.ndarray, image: np.ndarray
) -> np.ndarray:
    """Returns evidence by pixel: the mean over the squares that cover it."""
    whole = _compute_logit(model, image)
    size, width = schema.PATCH_SIZE // _STEP, _SQUARE // _STEP
    drops, num_squares = np.zeros((2, len(image), size, size))
    for y, x in itertools.product(range(size + 1 - width), repeat=2):
        covered = image.copy()
        covered[:, y * _STEP :, x * _STEP :][:, :_SQUARE, :_SQUARE] = color
        part = np.s_[:, y : y + width, x : x + width]
        drops[part] += (whole - _compute_logit(model, covered))[..., None]
        num_squares[part] += 1
    return spread(np.maximum(drops / num_squares, 0))


def _compute_logit(model: keras.Model, image: np.ndarray) -> tf.Tensor:
    return keras.tree.flatten(model(image, training=False))[0]
