"""How the scores of a network fall as patches are changed more and more."""

import functools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from pcam_tfdata.augmentation import color
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import batch_format

COLUMNS = ("shift", "strength", "auc", "nll")
# Returns all logits of a network that sees filled batches; with what to call it.
Predict = Callable[[inference.Fill, str], inference.Logits]
_Change = Callable[[tf.Tensor, float], tf.Tensor]


def _change_color(
    image: tf.Tensor, strength: float, stain: float, brightness: float
) -> tf.Tensor:
    """Returns patches whose stains or levels are changed.

    Args:
        image: uint8 [num_patches, 96, 96, 3].
        strength: Of the change.
        stain: Times the strength, a share of hematoxylin that is added, and of
            eosin that is taken away.
        brightness: Times the strength, a share of the range of levels.
    """
    ones = tf.ones([tf.shape(image)[0]])
    share = stain * strength
    factor = ones[:, None] * tf.constant([1 + share, 1 - share, 1.0])
    light = ones * brightness * strength
    return color.change_color(image, factor, 0 * factor, ones, light)


def _blur(image: tf.Tensor, strength: float) -> tf.Tensor:
    """Returns patches blurred by that variance, in square pixels."""
    for _ in range(round(2 * strength)):
        image = color.blur(image, tf.fill([tf.shape(image)[0]], 0.25))
    return image


def _compress(image: tf.Tensor, strength: float) -> tf.Tensor:
    """Returns patches as JPEG of that quality has them."""
    return tf.map_fn(
        lambda patch: tf.image.adjust_jpeg_quality(patch, int(strength)), image
    )


# In the order of `choices.STRESSES`.
_SHIFTS: dict[str, tuple[_Change, Sequence[float]]] = {
    "stain": (
        functools.partial(_change_color, stain=1, brightness=0),
        (-0.4, -0.2, 0.2, 0.4),
    ),
    "brightness": (
        functools.partial(_change_color, stain=0, brightness=1),
        (-0.2, -0.1, 0.1, 0.2),
    ),
    "blur": (_blur, (0.5, 1.0, 2.0, 4.0)),
    "jpeg": (_compress, (90.0, 70.0, 50.0, 30.0)),
}


def score_shifts(
    names: Sequence[str],
    predict: Predict,
    fill: inference.Fill,
) -> Iterator[tuple[str, float, float | None, float]]:
    """Yields a row of `COLUMNS` for each strength of each shift.

    Args:
        names: Of shifts, among `choices.STRESSES`.
        predict: Gives the logits.
        fill: Fills a batch with patches as they are.
    """

    def fill_changed(
        batch: batch_format.Batch, change: _Change, strength: float
    ) -> batch_format.Batch:
        batch = fill(batch)
        return batch | {"image": change(batch["image"], strength)}

    for name in names:
        change, strengths = _SHIFTS[name]
        for strength in strengths:
            predictions = predict(
                functools.partial(
                    fill_changed, change=change, strength=strength
                ),
                f"{name} {strength:g}",
            )
            label, logit = predictions["label"], predictions["logit"]
            auc, nll = metrics.auc(label, logit), metrics.nll(label, logit)
            yield name, strength, auc, nll
