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

CRC_BYTES = 4
HEADER_BYTES = 8 + CRC_BYTES  # The length, and its CRC.


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

    @functools.cached_property
    def header(self) -> bytes:
        """What each record begins with: the size of its Example, and its CRC."""
        length = struct.pack("<Q", self.record_bytes - HEADER_BYTES - CRC_BYTES)
        return length + _packed_crc(length)


def encode(
    ids: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    tumor_fractions: np.ndarray,
) -> np.ndarray:
    """Returns the framed records of patches of one split.

    Args:
        ids: bytes [num_patches], 40 hex digits each.
        images: uint8 [num_patches, 96, 96, 3].
        labels: int [num_patches], 0 and 1; or -1 for all of them.
        tumor_fractions: float [num_patches], the share of tumor pixels in the
            centre, NaN where not known.

    Returns:
        uint8 [num_patches, record_bytes].
    """
    num_patches, labeled = len(ids), bool(labels[0] >= 0)
    offsets = layout(labeled=labeled)
    block = np.empty((num_patches, offsets.record_bytes), np.uint8)
    block[:] = np.frombuffer(_template(labeled=labeled), np.uint8)

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
def layout(*, labeled: bool) -> Layout:
    """Returns the layout of the records of a labelled or unlabelled split."""
    record = _template(labeled=labeled)

    def find_value(key: bytes) -> int:
        # Tag and length of the feature, of its list and of the value: six bytes.
        return record.rindex(key) + len(key) + 6

    return Layout(
        record_bytes=len(record),
        id_offset=record.index(b"x" * schema.ID_BYTES),
        image_offset=record.index(b"\xff" * schema.IMAGE_BYTES),
        label_offset=find_value(b"label"),
        tumor_fraction_offset=find_value(b"tumor_fraction"),
    )


def view_images(records: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns the pixels of mapped records: uint8 [num_records, 96, 96, 3]."""
    start = layout.image_offset
    pixels = records[:, start : start + schema.IMAGE_BYTES]
    return pixels.reshape(-1, *schema.IMAGE_SHAPE)  # A view, too.


def read_tumor_fractions(records: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns those of mapped records: float32 [num_records], NaN: not known."""
    start = layout.tumor_fraction_offset
    values = np.ascontiguousarray(records[:, start : start + 4])
    return values.view("<f4").ravel()


def find_frame_fault(record: bytes | np.ndarray, layout: Layout) -> str | None:
    """Returns what is wrong with the framing of a record, or None.

    Checks its size, the length field, and both CRCs.

    Args:
        record: Its bytes; of an array, uint8 [n], none is copied.
        layout: That it should have.
    """
    if len(record) < layout.record_bytes:
        return f"found {len(record):,} bytes, expected {layout.record_bytes:,}"
    if bytes(record[:HEADER_BYTES]) != layout.header:
        return "length field or its CRC does not match"
    crc = _packed_crc(record[HEADER_BYTES:-CRC_BYTES])
    if bytes(record[-CRC_BYTES:]) != crc:
        return "CRC of the data does not match"
    return None


class DamagedRecordError(ValueError):
    """A record's framing is not right; the message names shard and record."""


@functools.cache
def _template(*, labeled: bool) -> bytes:
    """Returns a record of a split, but for the CRC of its data.

    Each list is field 1 of its kind: bytes_list 1, float_list 2, int64_list 3.
    Keys are sorted, as in deterministic serialisation.
    """
    label = schema.POSITIVE if labeled else schema.UNLABELED
    example = _field(
        1,
        _feature(b"id", 1, b"x" * schema.ID_BYTES)
        + _feature(b"image", 1, b"\xff" * schema.IMAGE_BYTES)
        + _feature(b"label", 3, _varint(label))
        + _feature(b"tumor_fraction", 2, bytes(4)),
    )
    length = struct.pack("<Q", len(example))
    return length + _packed_crc(length) + example + bytes(CRC_BYTES)


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
