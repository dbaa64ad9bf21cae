"""A network that says the same of a patch however it lies: 191,041 parameters."""

import keras

from pcam_tfdata import schema
from pcam_tfdata.models import classifier_head, group_conv

_STEM = 8  # Channels, each of which is 8 maps.
_STAGES = ((8,), (16, 16), (32,))  # Blocks at 24, 12 and 6 places a side.
_DROPOUT = 0.3


def build(head: str) -> keras.Model:
    """Returns the network; see `networks.build`.

    A residual network with normalization before each convolution (He et al.
    2016), whose convolutions are of the group p4m (Veeling et al. 2018). Tissue
    has no up and no left: the logit is the same for all 8 moves of
    `augmentation.square`, but for rounding, so that it learns from each patch what
    a plain network learns from 8.

    The outer ring of the last map is left out, because the label is about the
    centre of the patch.
    """
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    # An even kernel, as the stride is: the places stay symmetric.
    x = group_conv.LiftingConv2D(_STEM, 6, strides=2)(x)
    for blocks in _STAGES:
        x = keras.layers.MaxPooling2D(2)(x)
        for filters in blocks:
            x = _add_block(x, filters)
    x = keras.layers.Cropping2D(1)(_activate(x))
    x = keras.layers.Concatenate()(
        [group_conv.InvariantPooling2D(mode)(x) for mode in ("max", "mean")]
    )
    outputs = classifier_head.add_outputs(x, head, dropout=_DROPOUT)
    return keras.Model(image, outputs, name="p4m_cnn")


def _add_block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Returns what two convolutions make of a map, added to it."""
    y = _activate(x)
    if x.shape[-1] != group_conv.ORDER * filters:
        x = group_conv.GroupConv2D(filters, 1)(y)
    y = group_conv.GroupConv2D(filters, 3)(y)
    y = group_conv.GroupConv2D(filters, 3)(_activate(y))
    return keras.layers.Add()([x, y])


def _activate(x: keras.KerasTensor) -> keras.KerasTensor:
    """Returns a map, normalized and rectified; the momentum is for few steps."""
    x = group_conv.GroupBatchNormalization(momentum=0.95)(x)
    return keras.layers.Activation("relu")(x)
