"""Convolutions that turn and flip with their input, as layers of Keras.

Of the group p4m: moves of the plane by whole pixels, and the 8 symmetries of
the square. Cohen & Welling 2016, "Group equivariant convolutional networks";
on patches of lymph nodes Veeling et al. 2018, "Rotation equivariant CNNs for
digital pathology". Channels are last:

    x = LiftingConv2D(8, 6, strides=2)(image)
    x = GroupBatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = GroupConv2D(16, 3)(x)
    x = InvariantPooling2D("max")(x)

A map of the group is [batch, height, width, 8 * channels]: channel `c` of
element `g` lies at `g * channels + c`. Element `g` is the sum of bits that are
applied in this order: 1 transposes, 2 flips up and down, 4 flips left and right.

If an image is moved by `g`, all its maps are moved by `g`, and what was at
element `h` is then at element `PRODUCTS[g, h]`. This holds, but for rounding,
for layers that look at single places or do the same at each of them
(activations, sums, 2 x 2 pooling of even sizes), for the layers here
on maps that are square, and not for what has weights for each channel, such as
stock normalization.

A saved network opens where this module has been imported, for that registers
its layers. It needs nothing but Keras and NumPy, and can be copied:

    from pcam_tfdata.models import group_conv  # Registers the layers.
    model = keras.models.load_model("best.keras")
"""

from typing import Any

import keras
import numpy as np

ORDER = 8  # Elements of the group that leave the centre where it is.
_PACKAGE = "pcam_tfdata"


def _move(grid: np.ndarray, element: int) -> np.ndarray:
    """Returns a square grid after the move that an element stands for."""
    grid = grid.T if element & 1 else grid
    grid = grid[::-1] if element & 2 else grid
    return grid[:, ::-1] if element & 4 else grid


def _multiply(element: int, other: int) -> int:
    """Returns the element that does `other` first, then `element`."""
    corners = np.arange(4).reshape(2, 2)  # No two elements move all alike.
    moved = _move(_move(corners, other), element)
    return next(g for g in range(ORDER) if (_move(corners, g) == moved).all())


PRODUCTS = np.array(
    [[_multiply(g, h) for h in range(ORDER)] for g in range(ORDER)]
)
_INVERSES = np.argmin(PRODUCTS, axis=1)  # The neutral element is 0.


class _P4MConv2D(keras.layers.Layer):
    """A convolution by one kernel in 8 positions, padded with zeros.

    All 8 are written into the kernel of one plain convolution. It has no bias,
    as normalization follows. Weights are normally distributed, by the number of
    weights of an output (He et al. 2015).
    """

    _elements: tuple[int, ...]  # Axis of the kernel for those of the input.

    def __init__(
        self, filters: int, kernel_size: int, strides: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if kernel_size < strides or (kernel_size - strides) % 2:
            raise ValueError(
                f"{self.name}: found kernel_size={kernel_size} with"
                f" strides={strides}, expected both odd or both even, and a"
                " kernel no smaller than the stride. Choose another kernel_size."
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Makes the kernel, and the table that expands it."""
        _, height, width, maps = input_shape
        num_elements = int(np.prod(self._elements))
        if height != width or (height or 0) % self.strides:
            raise ValueError(
                f"{self.name}: found maps of {height} x {width}, expected square"
                f" ones whose side is a multiple of strides={self.strides}. Crop"
                " or pad them."
            )
        channels = _count_channels(self.name, maps, num_elements)
        size = self.kernel_size
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, *self._elements, channels, self.filters),
            initializer="he_normal",
        )
        self._rows = _expansion(size, num_elements, channels)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Returns [batch, height / strides, width / strides, 8 * filters]."""
        rows = keras.ops.reshape(self.kernel, (-1, self.filters))
        size, maps = self.kernel_size, inputs.shape[-1]
        kernel = keras.ops.reshape(
            keras.ops.take(rows, self._rows, axis=0),
            (size, size, maps, ORDER * self.filters),
        )
        return keras.ops.conv(
            inputs,
            kernel,
            self.strides,
            padding="same",
            data_format="channels_last",
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make such a layer."""
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable(package=_PACKAGE)
class LiftingConv2D(_P4MConv2D):
    """Takes an image [batch, height, width, channels] to a map of the group.

    At element `g` is the convolution by the kernel that was moved by `g`. The
    kernel is [kernel_size, kernel_size, channels, filters]; arguments are those
    of `GroupConv2D`.
    """

    _elements = ()


@keras.saving.register_keras_serializable(package=_PACKAGE)
class GroupConv2D(_P4MConv2D):
    """Takes a map of the group to another one.

    At element `g` is a sum over the elements `h` of the input, of convolutions
    by the kernel of the element that leads from `g` to `h`, moved by `g`. The
    kernel is [kernel_size, kernel_size, 8, channels, filters].

    Args:
        filters: Channels of the output at each of the 8 elements.
        kernel_size: Height and width of the kernel.
        strides: Step between places of the output.

    Raises:
        ValueError: places of the output would not be symmetric about the
            centre, or the input is no square map of the group.
    """

    _elements = (ORDER,)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class GroupBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization whose statistics and scale the 8 elements share.

    Arguments are those of Keras' layer, of which `axis` has to be the last.
    """

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Makes weights for one element's channels."""
        self._channels = _count_channels(self.name, input_shape[-1], ORDER)
        super().build((None, self._channels))
        self.input_spec = None  # That of the parent is for folded maps.

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None
    ) -> keras.KerasTensor:
        """Returns maps of the same shape; elements count as places do."""
        x = keras.ops.reshape(inputs, (-1, self._channels))
        x = super().call(x, training=training)
        return keras.ops.reshape(x, keras.ops.shape(inputs))


@keras.saving.register_keras_serializable(package=_PACKAGE)
class InvariantPooling2D(keras.layers.Layer):
    """Pools each channel over the 8 elements: a map that moves as an image.

    Args:
        mode: `max` or `mean`.
    """

    def __init__(self, mode: str = "max", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in ("max", "mean"):
            raise ValueError(
                f"{self.name}: found mode={mode!r}, expected max or mean."
            )
        self.mode = mode

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Returns [batch, height, width, channels]."""
        *places, maps = keras.ops.shape(inputs)
        channels = _count_channels(self.name, maps, ORDER)
        x = keras.ops.reshape(inputs, (*places, ORDER, channels))
        return getattr(keras.ops, self.mode)(x, axis=-2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make such a layer."""
        return super().get_config() | {"mode": self.mode}


def _expansion(size: int, num_elements: int, channels: int) -> np.ndarray:
    """Returns which row of a kernel is where in that of the plain convolution.

    A row is all filters of one place, element and channel.

    Args:
        size: Height and width of the kernel.
        num_elements: Of the input, 8 or 1.
        channels: Of the input, at each element.

    Returns:
        int32 [size, size, num_elements, channels, 8].
    """
    places = np.arange(size * size).reshape(size, size)
    place = np.stack([_move(places, g) for g in range(ORDER)], axis=-1)
    # From `g`, the last axis, to `h`; an image has but one element.
    element = PRODUCTS[_INVERSES].T[:num_elements] % num_elements
    row = place[:, :, None, :] * num_elements + element
    channel = np.arange(channels)[:, None]
    return (row[..., None, :] * channels + channel).astype(np.int32)


def _count_channels(name: str, maps: int, num_elements: int) -> int:
    """Returns the channels at each element."""
    channels, rest = divmod(maps, num_elements)
    if rest:
        raise ValueError(
            f"{name}: found {maps} maps, expected a multiple of {num_elements}."
            " Put LiftingConv2D before it."
        )
    return channels
