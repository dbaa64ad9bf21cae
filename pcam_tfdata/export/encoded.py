"""Image files to patches in TensorFlow's graph, as Pillow decodes them.

A program that loads a SavedModel has no Pillow, and TensorFlow decodes no TIFF.
"""

import contextlib

import tensorflow as tf

from pcam_tfdata import schema

_PNG, _JPEG, _TIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"
# Width and height, bits a channel, and RGB, at byte 16.
_PNG_HEADER = 2 * schema.PATCH_SIZE.to_bytes(4) + b"\x08\x02"
_STRIPS, _BITS = 273, 258
# What tags of a TIFF have to say, and what they say where they are not there.
_TIFF_TAGS = {
    256: (schema.PATCH_SIZE, 0),  # Width and height.
    257: (schema.PATCH_SIZE, 0),
    259: (1, 0),  # No compression.
    262: (2, 0),  # RGB.
    277: (schema.NUM_CHANNELS, 0),
    279: (schema.IMAGE_BYTES, 0),  # Of the strip.
    266: (1, 1), 274: (1, 1), 284: (1, 1), 339: (1, 1),  # Orders and signs.
}  # fmt: skip
_MAX_TAGS = 100


def decode(data: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of image files, uint8 [B, 96, 96, 3].

    Args:
        data: string [B], a whole file each.

    Raises:
        InvalidArgumentError: a file is damaged, or no PNG, JPEG or
            little-endian TIFF of one uncompressed strip that holds a patch.
    """
    spec = tf.TensorSpec(schema.IMAGE_SHAPE, tf.uint8)
    return tf.map_fn(_decode_one, data, fn_output_signature=spec)


def _decode_one(data: tf.Tensor) -> tf.Tensor:
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
    header = tf.strings.substr(data, 16, len(_PNG_HEADER))
    with _required(tf.equal(header, _PNG_HEADER)):
        image = tf.io.decode_png(data, schema.NUM_CHANNELS)
        return tf.ensure_shape(image, schema.IMAGE_SHAPE)


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(data)
    with _required(tf.reduce_all(shape == schema.IMAGE_SHAPE)):
        # As Pillow decodes; TensorFlow's default may round otherwise.
        image = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, schema.IMAGE_SHAPE)


def _decode_tiff(data: tf.Tensor) -> tf.Tensor:
    """Returns the pixels of a TIFF, whose tags may lie anywhere in it."""
    raw = tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int64)
    size = tf.size(raw, tf.int64)

    def read(start: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
        # Bytes beyond an end repeat the last one: what follows can be checked.
        index = start + tf.range(count, dtype=tf.int64)
        return tf.gather(raw, tf.clip_by_value(index, 0, size - 1))

    start = _join(read(4, 4))
    num_tags = tf.minimum(_join(read(start, 2)), _MAX_TAGS)
    entries = tf.reshape(read(start + 2, 12 * num_tags), [-1, 12])
    tags, counts = _join(entries[:, :2]), _join(entries[:, 4:8])
    values, end = _join(entries[:, 8:]), start + 2 + 12 * num_tags

    def find(tag: int, default: int = 0) -> tf.Tensor:
        return tf.concat([values[tags == tag], [default]], axis=0)[0]

    strip = find(_STRIPS)
    fits = [
        tf.reduce_all(tags[1:] > tags[:-1]),
        tf.reduce_all(counts[tags == _STRIPS] == 1),
        tf.reduce_all(read(find(_BITS), 6) == [8, 0] * schema.NUM_CHANNELS),
        _join(read(end, 4)) == 0,  # There is no other page.
        strip + schema.IMAGE_BYTES <= size,
        *(find(tag, other) == own for tag, (own, other) in _TIFF_TAGS.items()),
    ]
    with _required(tf.reduce_all(tf.stack(fits))):
        pixels = tf.cast(read(strip, schema.IMAGE_BYTES), tf.uint8)
        return tf.reshape(pixels, schema.IMAGE_SHAPE)


def _refuse() -> tf.Tensor:
    with _required(tf.constant(False)):
        return tf.zeros(schema.IMAGE_SHAPE, tf.uint8)


def _join(parts: tf.Tensor) -> tf.Tensor:
    """Returns the numbers that bytes along the last axis are, int64."""
    powers = [256**place for place in range(parts.shape[-1])]
    return tf.reduce_sum(parts * tf.constant(powers, tf.int64), axis=-1)


def _required(fits: tf.Tensor) -> contextlib.AbstractContextManager:
    """Has what is computed within wait until a file is known to fit."""
    told = (
        "found another image file, expected a PNG, a JPEG or a little-endian TIFF"
        " of one uncompressed strip, 96 x 96 RGB, 8 bits a channel"
    )
    return tf.control_dependencies([tf.debugging.Assert(fits, [told])])
