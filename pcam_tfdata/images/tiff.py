"""Kaggle's TIFF files: bytes in, pixels out, and back.

Every file of the Kaggle set has one layout: a 287-byte header, in which only the
DateTime string varies, then the pixels to the end of the file. Such a file is
read by comparing the header and slicing; any other file goes through Pillow.

The pixels are those that Pillow gives, never resized or converted: a TIFF's
Orientation is obeyed, that of a JPEG's EXIF is not.
"""

import io
import os
import re
import struct

import numpy as np
from PIL import Image

from pcam_tfdata import schema
from pcam_tfdata.images import pillow_warnings, tiff_tags
from pcam_tfdata.system import files

HEADER_BYTES = 287
FILE_BYTES = HEADER_BYTES + schema.IMAGE_BYTES
_DATE_TIME_OFFSET = 267
_DATE_TIME = b"2018:11:15 00:00:00\0"
# 37 times the pixels: room for any colour profile, preview and notes, while
# nothing that a file of this size can hold takes long to look through.
MAX_FILE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
# How Pillow calls pixels of 16 bits a channel, which it reduces to 8.
_DEEP = re.compile(r";16[BLN]|SGI16")
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JPEG_2000_DEPTH = 42  # Bytes from there.
_PROGRAMS = ("EPS",)  # Pillow runs Ghostscript on it.


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
            as one 96 x 96 RGB image of 8 bits a channel (slow, same result).
        path: Named in errors only.

    Returns:
        uint8 [96, 96, 3], RGB, C-contiguous, read-only.

    Raises:
        ValueError: the file is no such image, is damaged, or Pillow warns of
            it; or it has more than 1 MiB.
    """
    if len(data) == FILE_BYTES and data.startswith(_FIXED_HEADER):
        return np.frombuffer(data, np.uint8, offset=HEADER_BYTES).reshape(
            schema.IMAGE_SHAPE
        )
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(_describe_size(path, len(data)))
    try:
        return _decode_with_pillow(data)
    except _UnfitError as unfit:
        found = str(unfit)
    except Exception as error:  # Pillow's plugins raise anything on bad bytes.
        found = f"{_name(data)} that do not decode ({_one_line(error)})"
    size = schema.PATCH_SIZE
    raise ValueError(
        f"{path}: found {found}, expected an RGB image of {size} x {size} pixels,"
        " 8 bits a channel. Re-export the patch or pass --on_bad_patch=skip."
    )


def read(path: str) -> np.ndarray:
    """Returns the pixels of the image file at `path`; see `decode`.

    Of a file of more than 1 MiB no more is read.
    """
    if files.is_remote(path):
        return decode(files.read_bytes(path, 0, MAX_FILE_BYTES + 1), path)
    # One system call reads a whole file of Kaggle's.
    with open(path, "rb", buffering=0) as file:
        data = file.read(FILE_BYTES + 1)
        if len(data) != FILE_BYTES:
            while len(data) <= MAX_FILE_BYTES and (
                more := file.read(_CHUNK_BYTES)
            ):
                data += more
        if len(data) > MAX_FILE_BYTES:
            num_bytes = max(len(data), os.fstat(file.fileno()).st_size)
            raise ValueError(_describe_size(path, num_bytes))
    return decode(data, path)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    claims = tiff_tags.read(data)
    problem = claims and claims.find_problem(len(data))
    if problem:
        raise _UnfitError(f"{claims}: {problem}")
    with pillow_warnings.as_errors(), Image.open(io.BytesIO(data)) as image:
        _check(image, data)
        pixels = np.asarray(image)
    pixels.flags.writeable = False
    return pixels


def _check(image: Image.Image, data: bytes) -> None:
    """Refuses an image by what Pillow says of it, before it is decoded."""
    size = schema.PATCH_SIZE
    num_frames = getattr(image, "n_frames", 1)
    found = f"{image.mode} {image.width} x {image.height}"
    found += f", {num_frames} pages" * (num_frames > 1)
    found += ", more than 8 bits a channel" * _is_deep(image, data)
    found += f", {image.format}" * (image.format in _PROGRAMS)
    if found != f"RGB {size} x {size}":
        raise _UnfitError(found)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Returns whether Pillow would drop bits; of a TIFF the claims tell."""
    if image.format == "PPM":
        (tile,) = image.tile
        return isinstance(tile.args, tuple) and tile.args[1] > 255
    if image.format == "JPEG2000":
        depth = data.find(_JPEG_2000) + _JPEG_2000_DEPTH
        return (data[depth] & 0x7F) + 1 > 8
    return _DEEP.search(str(image.tile)) is not None


def _name(data: bytes) -> str:
    """Returns how long a file is, and what it claims to be."""
    try:
        claims = tiff_tags.read(data)
    except ValueError:
        claims = None
    return f"{len(data)} bytes" + (f" of {claims}" if claims else "")


def _one_line(error: Exception) -> str:
    text = re.sub(r"<_io\.BytesIO[^>]*>", "it", " ".join(str(error).split()))
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def _describe_size(path: str, num_bytes: int) -> str:
    return (
        f"{path}: found {num_bytes:,} bytes, expected at most"
        f" {MAX_FILE_BYTES:,}: the pixels of a patch are"
        f" {schema.IMAGE_BYTES:,}. Re-export the patch or pass"
        " --on_bad_patch=skip."
    )


class _UnfitError(Exception):
    """An image that opens and is not a patch."""
