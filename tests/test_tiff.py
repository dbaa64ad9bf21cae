"""Kaggle's TIFF layout, and everything that is not it."""

import io

import numpy as np
import pytest
from PIL import Image

from pcam_tfdata import schema, tiff


def save(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_round_trip_restores_pixels(random_patch):
    data = tiff.encode(random_patch)
    assert len(data) == 27_935
    np.testing.assert_array_equal(tiff.decode(data, "p"), random_patch)


def test_layout_is_that_of_the_real_files(kaggle_sample):
    for path in sorted((kaggle_sample / "train").iterdir())[:50]:
        real = path.read_bytes()
        image = tiff.decode(real, str(path))
        ours = tiff.encode(image)
        assert (ours[:267], ours[287:]) == (real[:267], real[287:])
        assert schema.hash_pixels(image) == path.stem


def test_pillow_reads_our_files_alike(random_patch):
    with Image.open(io.BytesIO(tiff.encode(random_patch))) as image:
        np.testing.assert_array_equal(np.asarray(image), random_patch)


@pytest.mark.parametrize(
    ("format", "options"),
    [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {})],
    ids=["tiff", "lzw", "png"],
)
def test_slow_path_gives_the_same_pixels(random_patch, format, options):
    data = save(Image.fromarray(random_patch), format, **options)
    decoded = tiff.decode(data, "p")
    np.testing.assert_array_equal(decoded, random_patch)
    assert schema.hash_pixels(decoded) == schema.hash_pixels(random_patch)


def two_pages() -> bytes:
    page = Image.new("RGB", (96, 96))
    return save(page, "TIFF", save_all=True, append_images=[page])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes"),
        (b"no image at all", "15 bytes"),
        (tiff.encode(np.zeros((96, 96, 3), np.uint8))[:9000], "9000 bytes"),
        (save(Image.new("L", (96, 96)), "TIFF"), "L 96 x 96"),
        (save(Image.new("RGBA", (96, 96)), "PNG"), "RGBA 96 x 96"),
        (save(Image.new("RGB", (97, 96)), "PNG"), "RGB 97 x 96"),
        (two_pages(), "2 pages"),
    ],
    ids=["empty", "text", "truncated", "grey", "rgba", "wide", "pages"],
)
def test_anything_else_is_refused_in_one_line(data, found):
    with pytest.raises(ValueError, match=found) as caught:
        tiff.decode(data, "some/patch.tif")
    message = str(caught.value)
    assert message.startswith("some/patch.tif: found")
    assert "\n" not in message
