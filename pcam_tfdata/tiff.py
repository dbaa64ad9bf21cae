"""Kaggle's TIFF files: bytes in, pixels out, and back.

Every file of the Kaggle set has one layout: a 287-byte header, in which only the
DateTime string varies, then the pixels to the end of the file. Such a file is
read by comparing the header and slicing; any other file goes through Pillow.
"""

import io
import re
import struct
import warnings

import numpy as np
from PIL import Image

from pcam_tfdata import schema

HEADER_BYTES = 287
FILE_BYTES = HEADER_BYTES + schema.IMAGE_BYTES
_DATE_TIME_OFFSET = 267
_DATE_TIME = b"2018:11:15 00:00:00\0"


def _kaggle_header() -> bytes:
    """Returns the header of Kaggle's files: TIFF 6.0, one IFD of 15 tags."""
    text, short, long = 2, 3, 4
    tags = (
        (254, long, 1, 0),  # NewSubfileType
        (256, long, 1, schema.PATCH_SIZE),  # ImageWidth
        (257, long, 1, schema.PATCH_SIZE),  # ImageLength
        (258, short, 3, 194),  # BitsPerSample, at byte 194
        (259, short, 1, 1),  # Compression: none
        (262, short, 1, 2),  # PhotometricInterpretation: RGB
        (270, text, 23, 200),  # ImageDescription, at byte 200
        (273, long, 1, HEADER_BYTES),  # StripOffsets
        (277, short, 1, schema.NUM_CHANNELS),  # SamplesPerPixel
        (278, long, 1, schema.PATCH_SIZE),  # RowsPerStrip
        (279, long, 1, schema.IMAGE_BYTES),  # StripByteCounts
        (284, short, 1, 1),  # PlanarConfiguration: chunky
        (305, text, 12, 255),  # Software, at byte 255
        (306, text, 20, _DATE_TIME_OFFSET),  # DateTime
        (339, short, 1, 1),  # SampleFormat: unsigned integer
    )
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"".join(
        (
            struct.pack("<2sHIH", b"II", 42, 8, len(tags)),
            directory,
            struct.pack("<I", 0),  # No second IFD.
            struct.pack("<3H", 8, 8, 8),
            b'{"shape": [96, 96, 3]}'.ljust(55, b"\0"),
            b"tifffile.py\0",
            _DATE_TIME,
        )
    )


_HEADER = _kaggle_header()
_FIXED_HEADER = _HEADER[:_DATE_TIME_OFFSET]


def encode(image: np.ndarray) -> bytes:
    """Returns a patch as a TIFF laid out like Kaggle's, 27,935 bytes.

    Args:
        image: uint8 [96, 96, 3], RGB.
    """
    return _HEADER + image.tobytes()


def decode(data: bytes, path: str) -> np.ndarray:
    """Returns the pixels of an image file.

    Args:
        data: The whole file: a Kaggle TIFF (fast) or anything that Pillow opens
            as one 96 x 96 RGB image of 8 bits (slow, same result).
        path: Named in errors only.

    Returns:
        uint8 [96, 96, 3], RGB, C-contiguous, read-only.

    Raises:
        ValueError: the file is no such image.
    """
    if len(data) == FILE_BYTES and data.startswith(_FIXED_HEADER):
        return np.frombuffer(data, np.uint8, offset=HEADER_BYTES).reshape(
            schema.IMAGE_SHAPE
        )
    return _decode_with_pillow(data, path)


def read(path: str) -> np.ndarray:
    """Returns the pixels of the image file at `path`; see `decode`."""
    with open(path, "rb") as file:
        return decode(file.read(), path)


def _decode_with_pillow(data: bytes, path: str) -> np.ndarray:
    size = schema.PATCH_SIZE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                num_frames = getattr(image, "n_frames", 1)
                found = f"{image.mode} {image.width} x {image.height}"
                found += f", {num_frames} pages" * (num_frames > 1)
                # Before any pixel is decoded: a huge claimed size costs nothing.
                if found != f"RGB {size} x {size}":
                    raise _UnfitError(found)
                pixels = np.asarray(image)
    except _UnfitError as unfit:
        found = str(unfit)
    except Exception as error:  # Pillow's plugins raise anything on bad bytes.
        found = f"{len(data)} bytes that do not decode ({error})"
    else:
        pixels.flags.writeable = False
        return pixels
    found = re.sub(r"<_io\.BytesIO[^>]*>", "it", " ".join(found.split()))
    raise ValueError(
        f"{path}: found {found}, expected an RGB image of {size} x {size} pixels,"
        " 8 bits a channel. Re-export the patch or pass --on_bad_patch=skip."
    )


class _UnfitError(Exception):
    """An image that opens and is not a patch."""
