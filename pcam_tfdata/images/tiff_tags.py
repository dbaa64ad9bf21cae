"""What a TIFF says of itself, read without believing it.

Pillow and libtiff do what a file's tags say: they walk a million pages, make
room for a tile of a gigabyte, leave the rows black that no strip covers, and
keep 8 bits of 16. So the tags are looked at first, in 40 microseconds, and a
file that asks for such things is refused.
"""

import dataclasses
import struct
from collections.abc import Iterator

from pcam_tfdata import schema

_PREFIXES = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"II\0*", b"MM*\0",  # Wrong, and yet read by Pillow.
)  # fmt: skip
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _NUM_CHANNELS, _STRIP_ROWS, _PLANES = 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES = 322, 323, 324
_TILE_TAGS = frozenset((_TILE_WIDTH, _TILE_HEIGHT, _TILES))
_LAYOUT_TAGS = _TILE_TAGS | {
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _NUM_CHANNELS,
    _STRIP_ROWS, _PLANES,
}  # fmt: skip
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # By TIFF's number of a type.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8,
               11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_MAX_PAGES = 1_000
_MAX_TAGS = 1_000  # Real files have up to 40.
_MAX_CHANNELS = 6  # Pillow's own limit; beyond it, it writes to the log.
_MAX_TILE_SIZE = 1024
_SEPARATE_PLANES = 2


@dataclasses.dataclass(frozen=True)
class Claims:
    """The claims of a TIFF.

    Attributes:
        num_pages: Its directories, 1,000 at most; one that is reached again
            ends their chain.
        num_tags: Of the first page.
        num_value_bytes: What the values of all its tags would take.
        values: The first values of the tags that tell the layout, by tag.
        num_values: How many values each of them has, by tag.
        unclear: Those that stand there twice, or hold no integers.
    """

    num_pages: int
    num_tags: int
    num_value_bytes: int
    values: dict[int, tuple[int, ...]]
    num_values: dict[int, int]
    unclear: frozenset[int]

    def __str__(self) -> str:
        bits = "/".join(map(str, self.values.get(_BITS, (1,))))
        return (
            f"a TIFF of {self._get(_WIDTH)} x {self._get(_HEIGHT)},"
            f" {self._get(_NUM_CHANNELS, 1)} channels, {bits} bits, compression"
            f" {self._get(_COMPRESSION, 1)}, photometric"
            f" {self._get(_PHOTOMETRIC)}"
        )

    def find_problem(self, num_bytes: int) -> str | None:
        """Returns why a file of so many bytes is no patch, None if it may be.

        What remains open is for Pillow to find out.
        """
        size = self._get(_WIDTH), self._get(_HEIGHT)
        if self.num_pages > 1:
            more = " or more" * (self.num_pages == _MAX_PAGES)
            return f"{self.num_pages:,} pages{more}"
        if self.num_tags > _MAX_TAGS:
            return f"{self.num_tags:,} tags"
        if self.num_value_bytes > num_bytes:
            return f"tags of {self.num_value_bytes:,} bytes in {num_bytes:,}"
        if self.unclear:
            return f"tag {min(self.unclear)} not once as an integer"
        if size != (schema.PATCH_SIZE, schema.PATCH_SIZE):
            return "another size"
        if not 1 <= self._get(_NUM_CHANNELS, 1) <= _MAX_CHANNELS:
            return "another number of channels"
        if set(self.values.get(_BITS, (1,))) != {8}:
            return "another depth"
        return self._find_gap()

    def _find_gap(self) -> str | None:
        """Returns how strips or tiles differ from those that fill the image."""
        # Of a file with both, Pillow reads the strips and libtiff the tiles.
        has_tiles = not _TILE_TAGS.isdisjoint(self.values)
        if (_STRIPS in self.values) == has_tiles:
            return "not either strips or tiles"
        size = schema.PATCH_SIZE
        if not has_tiles:
            tag, kind = _STRIPS, "strips"
            width, height = size, min(size, self._get(_STRIP_ROWS, size))
        else:
            tag, kind = _TILES, "tiles"
            width, height = (
                self._get(_TILE_WIDTH, 0),
                self._get(_TILE_HEIGHT, 0),
            )
        if not (1 <= width <= _MAX_TILE_SIZE and 1 <= height <= _MAX_TILE_SIZE):
            return f"{kind} of {width:,} x {height:,}"
        expected = -(-size // width) * -(-size // height)
        if self._get(_PLANES, 1) == _SEPARATE_PLANES:
            expected *= self._get(_NUM_CHANNELS, 1)
        found = self.num_values.get(tag, 0)
        if found != expected:
            return f"{found:,} {kind} for {expected:,}"
        return None

    def _get(self, tag: int, default: int | None = None) -> int | None:
        return self.values.get(tag, (default,))[0]


@dataclasses.dataclass(frozen=True)
class _Format:
    """Codes of `struct` for the numbers of a file, and where the first is."""

    order: str
    offset: str
    num_tags: str
    tag: str
    first_offset: int

    @property
    def byte_order(self) -> str:
        return "little" if self.order == "<" else "big"

    def unpack(self, codes: str, data: bytes, start: int) -> tuple:
        if start > len(data):  # It may be more than `struct` can count.
            raise struct.error(f"byte {start:,} of {len(data):,}")
        return struct.unpack_from(self.order + codes, data, start)

    def size(self, codes: str) -> int:
        return struct.calcsize(self.order + codes)


def read(data: bytes) -> Claims | None:
    """Returns the claims of a TIFF, classic or BigTIFF, of either byte order.

    Args:
        data: The whole file.

    Returns:
        None if it does not begin like a TIFF.

    Raises:
        ValueError: it ends before its first page does.
    """
    if not data.startswith(_PREFIXES):
        return None
    try:
        return _read(data)
    except struct.error as error:
        raise ValueError("a TIFF that ends before its tags do") from error


def _read(data: bytes) -> Claims:
    order = "<" if data.startswith(b"II") else ">"
    layout = _Format(order, "I", "H", "HHI4s", first_offset=4)
    if data[2:3] == b"+":  # Pillow looks here too: it reads no big-endian ones.
        layout = _Format(order, "Q", "Q", "HHQ8s", first_offset=8)
    (start,) = layout.unpack(layout.offset, data, layout.first_offset)
    (num_tags,) = layout.unpack(layout.num_tags, data, start)
    tags = list(_iterate_tags(data, start, min(num_tags, _MAX_TAGS), layout))
    values, num_values, unclear = {}, {}, set()
    for tag, kind, count, place in tags:
        if tag not in _LAYOUT_TAGS:
            continue
        if tag in values or kind not in _INTEGERS or not count:
            unclear.add(tag)
            continue
        codes = _INTEGERS[kind] * min(count, _MAX_CHANNELS)
        values[tag] = layout.unpack(codes, data, place)
        num_values[tag] = count
    return Claims(
        num_pages=_count_pages(data, start, layout),
        num_tags=num_tags,
        num_value_bytes=sum(
            count * _TYPE_BYTES.get(kind, 0) for _, kind, count, _ in tags
        ),
        values=values,
        num_values=num_values,
        unclear=frozenset(unclear),
    )


def _iterate_tags(
    data: bytes, start: int, num_tags: int, layout: _Format
) -> Iterator[tuple[int, int, int, int]]:
    """Yields tag, type, number of values and their place, of each tag."""
    start += layout.size(layout.num_tags)
    width, step = layout.size(layout.offset), layout.size(layout.tag)
    entries = data[start : start + num_tags * step]
    if len(entries) < num_tags * step:
        raise struct.error(f"{len(entries)} bytes of {num_tags} tags")
    for tag, kind, count, value in struct.iter_unpack(
        layout.order + layout.tag, entries
    ):
        start += step
        place = start - width
        if count * _TYPE_BYTES.get(kind, 0) > width:
            place = int.from_bytes(value, layout.byte_order)
        yield tag, kind, count, place


def _count_pages(data: bytes, start: int, layout: _Format) -> int:
    """Returns how many pages the file says to have, there or not."""
    pages: set[int] = set()
    while start and start not in pages and len(pages) < _MAX_PAGES:
        pages.add(start)
        try:
            (num_tags,) = layout.unpack(layout.num_tags, data, start)
            start += layout.size(layout.num_tags)
            start += num_tags * layout.size(layout.tag)
            (start,) = layout.unpack(layout.offset, data, start)
        except struct.error:
            break
    return len(pages)
