"""A patch as a `tf.train.Example` in TFRecord framing, of fixed width.

All records of a split have one size, because each feature has a fixed width and
the label is constant in size within a split. So record k of a shard starts at
byte k * record_bytes: a shard is a TFRecord file for any reader of TFRecords,
and a strided array for a memory map. The bytes are those of TensorFlow's own
deterministic serialisation, made here without TensorFlow.

Formats: the TFRecord framing of tensorflow/core/lib/io/record_writer.h, and the
protocol buffer encoding of tensorflow/core/example/{example,feature}.proto.
"""

import dataclasses
import functools
import struct

import google_crc32c
import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.system import files

LENGTH_BYTES = 8
CRC_BYTES = 4
HEADER_BYTES = LENGTH_BYTES + CRC_BYTES
_FRAME_BYTES = HEADER_BYTES + CRC_BYTES


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the parts of a record lie, in bytes from the start of the record.

    Attributes:
        record_bytes: Size of a whole record, framing included.
        id_offset: The 40 hex digits of the id.
        image_offset: The 27,648 bytes of row-major RGB.
        label_offset: The label, a varint: one byte for 0 or 1, ten for -1.
        tumor_fraction_offset: A little-endian float32.
    """

    record_bytes: int
    id_offset: int
    image_offset: int
    label_offset: int
    tumor_fraction_offset: int

    @property
    def example_bytes(self) -> int:
        """Size of the serialised Example: a record without its framing."""
        return self.record_bytes - _FRAME_BYTES


def encode(
    patch_id: str, image: np.ndarray, label: int, tumor_fraction: float
) -> bytes:
    """Returns a framed record.

    Args:
        patch_id: 40 hex digits.
        image: uint8 [96, 96, 3].
        label: 0, 1, or -1 for unlabelled.
        tumor_fraction: Share of tumor pixels in the centre, NaN if not known.
    """
    example = _example(
        patch_id.encode("ascii"), image.tobytes(), label, tumor_fraction
    )
    length = struct.pack("<Q", len(example))
    return b"".join(
        (length, _packed_crc(length), example, _packed_crc(example))
    )


def encode_block(
    ids: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    tumor_fractions: np.ndarray,
) -> np.ndarray:
    """Returns the framed records of patches of one split, as `encode` would.

    Args:
        ids: bytes [num_patches], 40 hex digits each.
        images: uint8 [num_patches, 96, 96, 3].
        labels: int [num_patches], 0 and 1; or -1 for all of them.
        tumor_fractions: float [num_patches], NaN where not known.

    Returns:
        uint8 [num_patches, record_bytes].
    """
    num_patches, labeled = len(ids), bool(labels[0] >= 0)
    offsets = layout(labeled=labeled)
    block = np.empty((num_patches, offsets.record_bytes), np.uint8)
    block[:] = _template(labeled=labeled)

    def put(offset: int, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values).view(np.uint8)
        values = values.reshape(num_patches, -1)
        block[:, offset : offset + values.shape[1]] = values

    put(offsets.id_offset, ids.astype(f"S{schema.ID_BYTES}"))
    put(offsets.image_offset, images)
    put(offsets.tumor_fraction_offset, tumor_fractions.astype("<f4"))
    if labeled:
        block[:, offsets.label_offset] = labels
    crcs = [masked_crc(row[HEADER_BYTES:-CRC_BYTES]) for row in block]
    put(offsets.record_bytes - CRC_BYTES, np.array(crcs, "<u4"))
    return block


@functools.cache
def _template(*, labeled: bool) -> np.ndarray:
    """Returns a record of a split, uint8 [record_bytes]."""
    label = schema.POSITIVE if labeled else schema.UNLABELED
    blank = np.zeros(schema.IMAGE_SHAPE, np.uint8)
    record = encode("0" * schema.ID_BYTES, blank, label, 0.0)
    return np.frombuffer(record, np.uint8)


@functools.cache
def layout(*, labeled: bool) -> Layout:
    """Returns the layout of the records of a labelled or unlabelled split."""
    probe = encode(
        "x" * schema.ID_BYTES,
        np.full(schema.IMAGE_SHAPE, 255, np.uint8),
        schema.POSITIVE if labeled else schema.UNLABELED,
        1.5,
    )
    return Layout(
        record_bytes=len(probe),
        id_offset=probe.index(b"x" * schema.ID_BYTES),
        image_offset=probe.index(b"\xff" * schema.IMAGE_BYTES),
        label_offset=_value_offset(probe, b"label"),
        tumor_fraction_offset=_value_offset(probe, b"tumor_fraction"),
    )


def check_size(
    path: str, num_bytes: int | None, num_records: int, layout: Layout
) -> None:
    """Refuses a shard file that does not hold its records.

    Args:
        path: Its file, for the message.
        num_bytes: Its size; None if there is no such file.
        num_records: How many it should hold.
        layout: Layout of each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its size is not num_records x record_bytes.
    """
    if num_bytes is None:
        raise FileNotFoundError(
            f"{path}: not found, expected a shard of {num_records:,} records."
            " Convert again."
        )
    expected = num_records * layout.record_bytes
    if num_bytes != expected:
        raise ValueError(
            f"{path}: found {num_bytes:,} bytes, expected {expected:,}"
            f" ({num_records:,} records of {layout.record_bytes:,})."
            " Convert again."
        )


def map_shard(path: str, num_records: int, layout: Layout) -> np.ndarray:
    """Returns the records of a shard file, memory-mapped.

    Returns:
        uint8 [num_records, record_bytes], read-only.

    Raises:
        FileNotFoundError, ValueError: see `check_size`; or it is on no disk.
    """
    if files.is_remote(path):
        raise ValueError(
            f"{path}: found a remote file, expected one on a disk, since its"
            " patches are wanted in any order. Copy the folder to a disk first."
        )
    check_size(path, files.size(path), num_records, layout)
    if not num_records:
        return np.zeros((0, layout.record_bytes), np.uint8)
    mapped = np.memmap(path, np.uint8, mode="r")
    return mapped.reshape(num_records, layout.record_bytes)


def view_images(records: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns the pixels of mapped records: uint8 [num_records, 96, 96, 3]."""
    start = layout.image_offset
    pixels = records[:, start : start + schema.IMAGE_BYTES]
    height, width, channels = schema.IMAGE_SHAPE
    return np.lib.stride_tricks.as_strided(
        pixels,
        (len(records), height, width, channels),
        (layout.record_bytes, width * channels, channels, 1),
        writeable=False,
    )


def length_crc(layout: Layout) -> int:
    """Returns the masked CRC of the length field of a record."""
    return masked_crc(struct.pack("<Q", layout.example_bytes))


def find_fault(record: bytes, layout: Layout) -> str | None:
    """Returns what is wrong with a framed record, or None.

    Checks its framing, and that the id is the SHA-1 of the pixels.
    """
    fault = find_frame_fault(record, layout)
    if fault:
        return fault
    patch_id = record[layout.id_offset : layout.id_offset + schema.ID_BYTES]
    start = layout.image_offset
    image = np.frombuffer(record, np.uint8, schema.IMAGE_BYTES, start)
    digest = schema.hash_pixels(image)
    if patch_id != digest.encode("ascii"):
        return f"id {patch_id!r} is not the SHA-1 of the pixels, {digest}"
    return None


def find_frame_fault(record: bytes | np.ndarray, layout: Layout) -> str | None:
    """Returns what is wrong with the framing of a record, or None.

    Checks its size, the length field, and both CRCs.

    Args:
        record: Its bytes; of an array, uint8 [n], none is copied.
        layout: That it should have.
    """
    if len(record) < layout.record_bytes:
        return f"found {len(record):,} bytes, expected {layout.record_bytes:,}"
    length = bytes(record[:LENGTH_BYTES])
    num_bytes = struct.unpack("<Q", length)[0]
    if num_bytes != layout.example_bytes:
        return f"length field says {num_bytes:,}, expected {layout.example_bytes:,}"
    if bytes(record[LENGTH_BYTES:HEADER_BYTES]) != _packed_crc(length):
        return "CRC of the length does not match"
    data = record[HEADER_BYTES:-CRC_BYTES]
    if bytes(record[-CRC_BYTES:]) != _packed_crc(data):
        return "CRC of the data does not match"
    return None


class DamagedRecordError(ValueError):
    """A record's framing is not right; the message names shard and record."""


def check_frame(
    record: bytes | np.ndarray, layout: Layout, path: str, number: int
) -> None:
    """Refuses a record whose framing is not right.

    Args:
        record: With framing.
        layout: That it should have.
        path: Its shard, for the message.
        number: Its number in the shard, for the message.

    Raises:
        DamagedRecordError: it is not.
    """
    fault = find_frame_fault(record, layout)
    if fault:
        raise DamagedRecordError(
            f"{path}: record {number} (byte {number * layout.record_bytes:,}):"
            f" {fault}. Copy the file again or convert again."
        )


def _value_offset(record: bytes, key: bytes) -> int:
    # Tag and length of the feature, of its list and of the value: six bytes.
    return record.rindex(key) + len(key) + 6


def _example(
    patch_id: bytes, image: bytes, label: int, tumor_fraction: float
) -> bytes:
    # Each list is field 1 of its kind: bytes_list 1, float_list 2, int64_list 3.
    # Keys sorted, as in deterministic serialisation.
    fraction = struct.pack("<f", tumor_fraction)
    features = (
        _feature(b"id", 1, patch_id)
        + _feature(b"image", 1, image)
        + _feature(b"label", 3, _varint(label))
        + _feature(b"tumor_fraction", 2, fraction)
    )
    return _field(1, features)


def _feature(key: bytes, kind: int, value: bytes) -> bytes:
    feature = _field(kind, _field(1, value))
    return _field(1, _field(1, key) + _field(2, feature))


def _field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # A negative int64 takes ten bytes.
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def masked_crc(data: bytes | np.ndarray) -> int:
    """Returns the CRC-32C of bytes as TFRecords hold it, an unsigned int32."""
    crc = google_crc32c.value(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return (rotated + 0xA282EAD8) & 0xFFFFFFFF


def _packed_crc(data: bytes | np.ndarray) -> bytes:
    return struct.pack("<I", masked_crc(data))
