"""Image files to patches, by operations of TensorFlow's graph alone.

A program that loads a SavedModel has no Pillow, and TensorFlow decodes no TIFF. What
is taken here has the pixels that Pillow gives; all else is refused.
"""

import contextlib

import tensorflow as tf

from pcam_tfdata import schema

_PNG, _JPEG, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"
# Width and height, bits a channel, and RGB, at byte 16.
_PNG_HEADER = 2 * schema.PATCH_SIZE.to_bytes(4) + b"\x08\x02"
_EXPECTED = (
    f"expected a PNG, a JPEG or a little-endian TIFF of one uncompressed strip,"
    f" {schema.PATCH_SIZE} x {schema.PATCH_SIZE} RGB pixels of 8 bits a channel"
)
_BITS, _STRIPS, _SHORT = 258, 273, 3
_ONE_VALUE = {
    256: schema.PATCH_SIZE,  # Width and height.
    257: schema.PATCH_SIZE,
    259: 1,  # No compression.
    262: 2,  # RGB.
    277: schema.NUM_CHANNELS,
    279: schema.IMAGE_BYTES,  # Of the strip.
}
_OPTIONAL = {266: 1, 274: 1, 284: 1, 339: 1}  # Orders, planes, integers.
_MAX_TAGS = 100


def decode_all(data: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of image files, uint8 [B, 96, 96, 3].

    Args:
        data: string [B], a whole file each.

    Raises:
        InvalidArgumentError: a file is damaged, or none of those above.
    """
    spec = tf.TensorSpec(schema.IMAGE_SHAPE, tf.uint8)
    return tf.map_fn(_decode, data, fn_output_signature=spec)


def _decode(data: tf.Tensor) -> tf.Tensor:
    def begins(magic: bytes) -> tf.Tensor:
        return tf.equal(tf.strings.substr(data, 0, len(magic)), magic)

    return tf.case(
        [
            (begins(_PNG), lambda: _decode_png(data)),
            (begins(_JPEG), lambda: _decode_jpeg(data)),
            (begins(_TIFF), lambda: _decode_tiff(data)),
        ],
        default=_refuse,
    )


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    header = tf.strings.substr(data, len(_PNG) + 8, len(_PNG_HEADER))
    with _required(tf.equal(header, _PNG_HEADER)):
        image = tf.io.decode_png(data, schema.NUM_CHANNELS)
        return tf.ensure_shape(image, schema.IMAGE_SHAPE)


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(data)
    with _required(tf.reduce_all(shape == schema.IMAGE_SHAPE)):
        # As Pillow decodes; TensorFlow's default may round otherwise.
        image = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, schema.IMAGE_SHAPE)


def _refuse() -> tf.Tensor:
    with _required(tf.constant(False)):
        return tf.zeros(schema.IMAGE_SHAPE, tf.uint8)


def _decode_tiff(data: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a TIFF, whose tags may lie anywhere in it."""
    raw = tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int64)

    def read(start: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
        # Bytes beyond an end repeat the last one: what follows can be checked.
        index = tf.cast(start, tf.int64) + tf.range(count, dtype=tf.int64)
        return tf.gather(raw, tf.clip_by_value(index, 0, len_raw - 1))

    len_raw = tf.size(raw, tf.int64)
    start = _join(read(4, 4))
    num_tags = _join(read(start, 2))
    fits = [num_tags <= _MAX_TAGS]
    num_tags = tf.minimum(num_tags, _MAX_TAGS)
    end = start + 2 + 12 * num_tags
    fits += [end + 4 <= len_raw, _join(read(end, 4)) == 0]  # One page.
    entries = tf.reshape(read(start + 2, 12 * num_tags), [-1, 12])
    tags, counts = _join(entries[:, :2]), _join(entries[:, 4:8])
    is_short = _join(entries[:, 2:4]) == _SHORT
    values = tf.where(
        is_short & (counts == 1), _join(entries[:, 8:10]), _join(entries[:, 8:])
    )

    def find(tag: int, count: int = 1, default: int = -1) -> tf.Tensor:
        here = tags == tag
        fits.append(tf.reduce_all(counts[here] == count))
        fits.append(tf.size(values[here]) <= 1)
        return tf.concat([values[here], [default]], axis=0)[0]

    fits += [find(tag) == value for tag, value in _ONE_VALUE.items()]
    fits += [find(tag, 1, value) == value for tag, value in _OPTIONAL.items()]
    bits, strip = find(_BITS, schema.NUM_CHANNELS), find(_STRIPS)
    fits += [tf.reduce_all(read(bits, 6) == [8, 0] * schema.NUM_CHANNELS)]
    fits += [bits >= 0, strip >= 0, strip + schema.IMAGE_BYTES <= len_raw]
    pixels = read(strip, schema.IMAGE_BYTES)
    with _required(tf.reduce_all(tf.stack(fits))):
        return tf.reshape(tf.cast(pixels, tf.uint8), schema.IMAGE_SHAPE)


def _join(numbers: tf.Tensor) -> tf.Tensor:
    """Returns the numbers that bytes are, the last axis of int64."""
    size = numbers.shape[-1]
    powers = tf.constant([256**place for place in range(size)], tf.int64)
    return tf.reduce_sum(numbers * powers, axis=-1)


def _required(fits: tf.Tensor) -> contextlib.AbstractContextManager:
    """Has what is computed within wait until a file is known to fit."""
    told = ["found another image file,", _EXPECTED]
    return tf.control_dependencies([tf.debugging.Assert(fits, told)])
