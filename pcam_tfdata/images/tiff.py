"""Kaggle's TIFF files: bytes in, pixels out, and back.

Every file of the Kaggle set has one layout: a 287-byte header, in which only
the DateTime string varies, then the pixels to the end of the file. Such a file
is read by comparing the header and slicing; any other file goes through Pillow.

The pixels are those that Pillow gives, never resized or converted: a TIFF's
Orientation is obeyed, that of a JPEG's EXIF is not.
"""

import io
import re
import struct
import threading
import warnings

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from pcam_tfdata import schema
from pcam_tfdata.system import faults, files

HEADER_BYTES = 287
FILE_BYTES = HEADER_BYTES + schema.IMAGE_BYTES
_DATE_TIME_OFFSET = 267
# 37 times the pixels: room for any colour profile, preview and notes, while
# nothing that a file of this size can hold takes long to look through.
MAX_FILE_BYTES = 1 << 20
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _NUM_CHANNELS, _STRIP_ROWS, _PLANES = 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES = _TILE_TAGS = 322, 323, 324
_LAYOUT_TAGS = (
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC),
    *(_STRIPS, _NUM_CHANNELS, _STRIP_ROWS, _PLANES, *_TILE_TAGS),
)
_SEPARATE_PLANES = 2
_MAX_TAGS = 1_000  # Real files have up to 40.
_MAX_CHANNELS = 6  # Pillow's own limit; beyond it, it writes to the log.
_MAX_TILE_SIZE = 1024
_TEXT, _SHORT, _LONG = 2, 3, 4  # TIFF's types.
_KAGGLE_TAGS = (
    (254, _LONG, 1, 0),  # NewSubfileType
    (_WIDTH, _LONG, 1, schema.PATCH_SIZE),
    (_HEIGHT, _LONG, 1, schema.PATCH_SIZE),
    (_BITS, _SHORT, 3, 194),  # At byte 194.
    (_COMPRESSION, _SHORT, 1, 1),  # None.
    (_PHOTOMETRIC, _SHORT, 1, 2),  # RGB.
    (270, _TEXT, 23, 200),  # ImageDescription, at byte 200.
    (_STRIPS, _LONG, 1, HEADER_BYTES),
    (_NUM_CHANNELS, _SHORT, 1, schema.NUM_CHANNELS),
    (_STRIP_ROWS, _LONG, 1, schema.PATCH_SIZE),
    (279, _LONG, 1, schema.IMAGE_BYTES),  # StripByteCounts
    (_PLANES, _SHORT, 1, 1),  # Chunky.
    (305, _TEXT, 12, 255),  # Software, at byte 255.
    (306, _TEXT, 20, _DATE_TIME_OFFSET),  # DateTime
    (339, _SHORT, 1, 1),  # SampleFormat: unsigned integer.
)
_HEADER = (
    struct.pack("<2sHIH", b"II", 42, 8, len(_KAGGLE_TAGS))
    + b"".join(struct.pack("<HHII", *tag) for tag in _KAGGLE_TAGS)
    + struct.pack("<I3H", 0, 8, 8, 8)  # No second page; bits a channel.
    + b'{"shape": [96, 96, 3]}'.ljust(55, b"\0")
    + b"tifffile.py\0"
    + b"2018:11:15 00:00:00\0"
)
_FIXED_HEADER = _HEADER[:_DATE_TIME_OFFSET]
_warnings_lock = threading.Lock()


class _UnfitError(Exception):
    """What makes a file no patch, as a text."""


def encode(image: np.ndarray) -> bytes:
    """Returns a patch as a TIFF laid out like Kaggle's, 27,935 bytes.

    Args:
        image: uint8 [96, 96, 3], RGB.
    """
    return _HEADER + image.tobytes()


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
            num_others = MAX_FILE_BYTES + 1 - len(data)
            data += io.BufferedReader(file).read(num_others)
    return decode(data, path)


def decode(data: bytes, path: str) -> np.ndarray:
    """Returns the pixels of an image file.

    Args:
        data: The whole file: a Kaggle TIFF (fast), or a TIFF, PNG, JPEG, BMP
            or WebP that Pillow opens as one 96 x 96 RGB image of 8 bits a
            channel (slow, same result).
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
    try:
        return _decode_with_pillow(data)
    except _UnfitError as error:
        size = schema.PATCH_SIZE
        raise ValueError(
            f"{path}: found {error}, expected a TIFF, PNG, JPEG, BMP or WebP of"
            f" {size} x {size} RGB pixels, 8 bits a channel. Re-export the patch"
            " or pass --on_bad_patch=skip."
        ) from error


def _decode_with_pillow(data: bytes) -> np.ndarray:
    """Returns the pixels; raises `_UnfitError` whatever is wrong."""
    if len(data) > MAX_FILE_BYTES:
        raise _UnfitError(f"more than {MAX_FILE_BYTES:,} bytes")
    kind = f"{len(data)} bytes"
    try:
        # Filters belong to the process: of two threads that change them at a
        # time, the later one would leave behind those of the other.
        with _warnings_lock, warnings.catch_warnings():
            # A size costs nothing until decoded; what Pillow says of its own
            # future is not about the image.
            warnings.filterwarnings("ignore", module=r"PIL\b")
            warnings.filterwarnings("error", "", UserWarning, r"PIL\b")
            if data.startswith(tuple(TiffImagePlugin.PREFIXES)):
                kind += f" of {_check_tiff(data)}"
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_image(image)
                pixels = np.asarray(image)
    except _UnfitError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on bad bytes.
        text = re.sub(r"<_io\.BytesIO[^>]*>", "it", faults.one_line(error))
        if " " not in text:
            text = f"{type(error).__name__} {text}".strip()
        raise _UnfitError(f"{kind} that do not decode ({text})") from error
    pixels.flags.writeable = False
    return pixels


def _check_tiff(data: bytes) -> str:
    """Returns what a TIFF says of itself; refuses one that is no patch.

    Pillow and libtiff do what its tags say: make room for a tile of a gigabyte,
    leave the rows black that no strip covers, keep 8 bits of 16. What remains
    open is for Pillow to find out.
    """
    directory = _read_directory(data)
    get = directory.get
    bits, num_channels = get(_BITS, (1,)), get(_NUM_CHANNELS, 1)
    text = (
        f"a TIFF of {get(_WIDTH)} x {get(_HEIGHT)}, {num_channels} channels,"
        f" {'/'.join(map(str, bits[:_MAX_CHANNELS]))} bits, compression"
        f" {get(_COMPRESSION, 1)}, photometric {get(_PHOTOMETRIC)}"
    )
    if set(bits) != {8} or not 1 <= num_channels <= _MAX_CHANNELS:
        raise _UnfitError(text)
    has_tiles = any(tag in directory for tag in _TILE_TAGS)
    # Of a file with both, Pillow reads the strips and libtiff the tiles.
    if has_tiles == (_STRIPS in directory):
        raise _UnfitError(f"{text}, not either strips or tiles")
    size = schema.PATCH_SIZE
    if has_tiles:
        kind, starts = "tiles", get(_TILES, ())
        width, height = get(_TILE_WIDTH, 0), get(_TILE_HEIGHT, 0)
    else:
        kind, starts = "strips", get(_STRIPS)
        width, height = size, min(size, get(_STRIP_ROWS, size))
    if not 1 <= min(width, height) <= max(width, height) <= _MAX_TILE_SIZE:
        raise _UnfitError(f"{text}, {kind} of {width:,} x {height:,}")
    num_parts = -(-size // width) * -(-size // height)
    if get(_PLANES) == _SEPARATE_PLANES:
        num_parts *= num_channels
    if len(starts) != num_parts:
        raise _UnfitError(f"{text}, {len(starts):,} {kind} for {num_parts:,}")
    return text


def _read_directory(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Returns the tags of the only page of a TIFF.

    Pillow would walk a million pages and hold values that lie over each other;
    of a tag that stands there twice it may take one and libtiff the other.
    """
    order = "<" if data.startswith(b"II") else ">"
    is_big = data[2:3] == b"+"  # As Pillow, which reads no big-endian ones.
    width, step = (8, 20) if is_big else (2, 12)
    header = data[: 16 if is_big else 8]
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    start = directory.next + width
    num_tags = int.from_bytes(
        data[directory.next : start], "little" if order == "<" else "big"
    )
    if num_tags > _MAX_TAGS:
        raise _UnfitError(f"a TIFF of {num_tags:,} tags")
    if start + num_tags * step > len(data):
        raise _UnfitError("a TIFF that ends before its tags do")
    parts = {"tag": "u2", "type": "u2", "count": "u8" if is_big else "u4"}
    entry = np.dtype([(part, order + kind) for part, kind in parts.items()])
    entries = np.ndarray(num_tags, entry, data, start, step)
    num_values = entries["count"].sum(dtype=float)  # An integer may run over.
    if num_values > len(data):
        raise _UnfitError(f"a TIFF of {num_values:,.0f} values")
    with io.BytesIO(data) as file:
        file.seek(directory.next)
        directory.load(file)
    if directory.next:
        raise _UnfitError("a TIFF of more pages than one")
    layout = entries[np.isin(entries["tag"], _LAYOUT_TAGS)]
    num_known = sum(tag in directory for tag in _LAYOUT_TAGS)
    if len(layout) != num_known:
        raise _UnfitError("a TIFF of tags that are there twice or say nothing")
    if _TEXT in layout["type"]:
        raise _UnfitError("a TIFF of a layout that is no numbers")
    return directory


def _check_image(image: ImageFile.ImageFile) -> None:
    """Refuses an image by what Pillow says of it, before it is decoded."""
    size = schema.PATCH_SIZE
    num_frames = getattr(image, "n_frames", 1)
    text = f"{image.mode} {image.width} x {image.height}"
    if num_frames > 1:
        text += f", {num_frames} pages"
    if image.format == "PNG" and ";16" in str(image.tile):
        text += ", more than 8 bits a channel"  # Pillow would keep 8.
    if text != f"RGB {size} x {size}":
        raise _UnfitError(text)
