"""A residual network that trains from scratch: 679,905 parameters."""

import functools

import keras

from pcam_tfdata import schema
from pcam_tfdata.models import classifier_head

_WIDTHS = (32, 64, 64, 128, 128)
_DROPOUT = 0.3

_convolve = functools.partial(
    keras.layers.Conv2D, padding="same", use_bias=False,
    kernel_initializer="he_normal",
)  # fmt: skip


def build(head: str) -> keras.Model:
    """Returns the network; see `networks.build`.

    Blocks are pre-activated (He et al. 2016, "Identity Mappings in Deep
    Residual Networks"). The stem takes patches to a quarter of their size,
    because a layer at full resolution costs as much as all of the others. The
    last map, 6 x 6, is pooled without its border: the label is about the
    centre.
    """
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = _convolve(_WIDTHS[0], 5, strides=2)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    for width in _WIDTHS:
        x = _add_block(x, width)
    x = keras.layers.Cropping2D(1)(_normalize(x))
    outputs = classifier_head.add_outputs(x, head, dropout=_DROPOUT)
    return keras.Model(image, outputs, name="resnet_small")


def _add_block(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """Returns features after two convolutions that are added to them.

    Where the width grows, the map is halved.
    """
    grows = x.shape[-1] != width
    strides = 2 if grows else 1
    shortcut, x = x, _normalize(x)
    if grows:
        shortcut = _convolve(width, 1, strides=strides)(x)
    x = _convolve(width, 3, strides=strides)(x)
    x = _convolve(width, 3)(_normalize(x))
    return keras.layers.Add()([shortcut, x])


def _normalize(x: keras.KerasTensor) -> keras.KerasTensor:
    # The momentum is that of runs of a few thousand steps.
    x = keras.layers.BatchNormalization(momentum=0.95)(x)
    return keras.layers.Activation("relu")(x)
