"""Image files decoded in TensorFlow's graph have Pillow's pixels, or are refused."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tiff_files
from PIL import Image

from pcam_tfdata.export import encoded
from pcam_tfdata.images import tiff

NUM_FILES = 100


@pytest.fixture(scope="module")
def decode():
    spec = tf.TensorSpec([None], tf.string)
    return tf.function(encoded.decode, [spec], autograph=False)


def encode(image: np.ndarray, format: str, mode: str = "RGB", **options):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, format, **options)
    return file.getvalue()


def test_tiffs_of_kaggle_have_the_pixels_of_pillow(decode, kaggle_sample):
    paths = sorted((kaggle_sample / "train").iterdir())[-NUM_FILES:]
    found = decode([path.read_bytes() for path in paths]).numpy()
    expected = [np.asarray(Image.open(path)) for path in paths]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {}),
    ],
)
def test_other_files_have_the_pixels_of_pillow(
    decode, kaggle_sample, format, options
):
    path = min((kaggle_sample / "train").iterdir())
    data = encode(tiff.read(str(path)), format, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode([data, data])[1], expected)


def test_tags_may_lie_behind_the_pixels(decode, random_patch):
    data = tiff_files.make_tiff(random_patch)
    start, end = 8, len(data) - random_patch.nbytes
    body = data[:4] + (8 + random_patch.nbytes).to_bytes(4, "little")
    # Offsets of the bits and of the strip, in the entries of their tags.
    tags = bytearray(data[start:end])
    for entry in range(2, 2 + 12 * tags[0], 12):
        tag = int.from_bytes(tags[entry : entry + 2], "little")
        place = slice(entry + 8, entry + 12)
        offset = int.from_bytes(tags[place], "little")
        if tag == 258:
            tags[place] = (offset + random_patch.nbytes).to_bytes(4, "little")
        if tag == 273:
            tags[place] = (8).to_bytes(4, "little")
    data = body + random_patch.tobytes() + bytes(tags)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(expected, random_patch)
    np.testing.assert_array_equal(decode([data])[0], random_patch)


SHORT, LONG = tiff_files.SHORT, tiff_files.LONG
HALVES = [bytes(13_824), bytes(13_824)]
OTHERS = {
    "nothing": lambda p: b"",
    "a text": lambda p: b"id,label\n",
    "BMP": lambda p: encode(p, "BMP"),
    "grey PNG": lambda p: encode(p, "PNG", "L"),
    "PNG with alpha": lambda p: encode(p, "PNG", "RGBA"),
    "PNG of 95 rows": lambda p: encode(p[1:], "PNG"),
    "grey JPEG": lambda p: encode(p, "JPEG", "L"),
    "CMYK JPEG": lambda p: encode(p, "JPEG", "CMYK"),
    "JPEG of 95 columns": lambda p: encode(p[:, 1:], "JPEG"),
    "LZW": lambda p: encode(p, "TIFF", compression="tiff_lzw"),
    "TIFF of 95 rows": lambda p: encode(p[1:], "TIFF"),
    "cut short": lambda p: tiff.encode(p)[:-1],
    "cut in its tags": lambda p: tiff.encode(p)[:99],
    "cut in its header": lambda p: tiff.encode(p)[:5],
    "big-endian": lambda p: tiff_files.make_tiff(p, order=">"),
    "BigTIFF": lambda p: tiff_files.make_tiff(p, big=True),
    "two strips": lambda p: tiff_files.make_tiff(
        p, {278: (LONG, [48])}, parts=HALVES
    ),
    "two pages": lambda p: tiff_files.make_tiff(p, next_page=8),
    "16 bits": lambda p: tiff_files.make_tiff(p, {258: (SHORT, [16] * 3)}),
    "planes": lambda p: tiff_files.make_tiff(p, {284: (SHORT, [2])}),
    "turned": lambda p: tiff_files.make_tiff(p, {274: (SHORT, [6])}),
    "strip beyond the end": lambda p: tiff_files.make_tiff(
        p, {273: (LONG, [500])}
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused(decode, random_patch, name):
    good, other = tiff.encode(random_patch), OTHERS[name](random_patch)
    np.testing.assert_array_equal(decode([good])[0], random_patch)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a PNG"):
        decode([good, other])


def test_a_damaged_png_is_refused(decode, random_patch):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):
        decode([encode(random_patch, "PNG")[:2_000]])
