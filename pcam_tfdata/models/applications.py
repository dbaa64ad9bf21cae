"""A few networks of `keras.applications`, for patches as they are."""

import os
from collections.abc import Callable
from typing import NamedTuple

import keras

from pcam_tfdata import schema
from pcam_tfdata.models import classifier_head
from pcam_tfdata.system import faults

_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_FOLDER = "models"
_DROPOUT = 0.2
# MobileNetV3's 0.999 is a mean over 1,000 steps: three epochs of 20,000 patches.
_MAX_MOMENTUM = 0.99


class _Application(NamedTuple):
    make: Callable[..., keras.Model]
    file: str  # ImageNet weights of the backbone, below `_URL`.
    # What pixels are multiplied by and what is added, where the network of Keras
    # does not do that.
    scale: float | list[float] = 1.0
    offset: float | list[float] = 0.0


APPLICATIONS = {
    "mobilenet_v3_small": _Application(
        keras.applications.MobileNetV3Small,
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    ),
    "efficientnet_v2_b0": _Application(
        keras.applications.EfficientNetV2B0,
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
    ),
    "densenet121": _Application(
        keras.applications.DenseNet121,
        "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        # Mean and deviation of ImageNet's colors.
        [1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225],
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
    ),
    "convnext_tiny": _Application(
        keras.applications.ConvNeXtTiny, "convnext/convnext_tiny_notop.h5"
    ),
    "resnet50_v2": _Application(
        keras.applications.ResNet50V2,
        "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        1 / 127.5,
        -1.0,
    ),
}


def build(name: str, head: str, image_size: int) -> keras.Model:
    """Returns one of `APPLICATIONS`; see `networks.build`."""
    backbone = build_backbone(name, image_size=image_size)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, _MAX_MOMENTUM)
    outputs = classifier_head.add_outputs(
        backbone.output, head, dropout=_DROPOUT
    )
    return keras.Model(backbone.inputs[0], outputs, name=name)


def build_backbone(
    name: str,
    weights: str | None = None,
    image_size: int = schema.PATCH_SIZE,
) -> keras.Model:
    """Returns a network of uint8 patches to its last map of features.

    Args:
        name: One of `APPLICATIONS`.
        weights: File of the backbone's weights, `.h5` or `.weights.h5`; None
            for random ones.
        image_size: Pixels of a side that patches are enlarged to.
    """
    application = APPLICATIONS[name]
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(application.scale, application.offset)(image)
    if image_size != schema.PATCH_SIZE:
        x = keras.layers.Resizing(image_size, image_size)(x)
    return application.make(include_top=False, weights=weights, input_tensor=x)


def fetch_imagenet(name: str) -> str:
    """Returns the path of Keras' ImageNet weights of a backbone.

    They are downloaded, unless they are in ~/.keras/models. KERAS_HOME may be
    set to no folder, so that Keras takes no settings of the user.

    Raises:
        ConnectionError: they cannot be downloaded.
    """
    url = f"{_URL}/{APPLICATIONS[name].file}"
    home = os.path.expanduser("~/.keras")
    try:
        return keras.utils.get_file(
            origin=url, cache_subdir=_FOLDER, cache_dir=home
        )
    except Exception as error:  # Keras raises one without a class of its own.
        _, _, reason = faults.one_line(error).rpartition(" -- ")
        raise ConnectionError(
            f"--weights=imagenet: could not fetch {url} ({reason}). Put the"
            f" file into {os.path.join(home, _FOLDER)}, or pass --weights=FILE."
        ) from error
