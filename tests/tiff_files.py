"""TIFF files with any claim, true or not."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

BYTE, SHORT, LONG, LONG8 = 1, 3, 4, 16
_CODES = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q"}


def make_tiff(
    image: np.ndarray,
    changes: Mapping[int, tuple[int, Sequence[int]] | None] | None = None,
    *,
    order: str = "<",
    big: bool = False,
    parts: Sequence[bytes] | None = None,
    next_page: int = 0,
) -> bytes:
    """Returns an uncompressed TIFF of one page, or what it is changed to.

    Args:
        image: uint8 [height, width, 3].
        changes: Type and values of tags, by tag; None for a tag to leave out.
        order: `<` or `>`.
        big: Makes a BigTIFF.
        parts: Data of strips or tiles; one strip by default. Their offsets go
            to tag 324 if `changes` has a tile's width, else to 273.
        next_page: Offset of another page.
    """
    changes = dict(changes or {})
    parts = [image.tobytes()] if parts is None else parts
    offset_code = "Q" if big else "I"
    header = struct.pack(order + ("2sHHHQ" if big else "2sHI"), *(
        (b"II" if order == "<" else b"MM", 43, 8, 0, 16)
        if big
        else (b"II" if order == "<" else b"MM", 42, 8)
    ))  # fmt: skip
    offsets, counts = (324, 325) if 322 in changes else (273, 279)
    tags = {
        256: (LONG, [image.shape[1]]),
        257: (LONG, [image.shape[0]]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [1]),
        262: (SHORT, [2]),
        offsets: (LONG, [0] * len(parts)),
        277: (SHORT, [3]),
        counts: (LONG, [len(part) for part in parts]),
        284: (SHORT, [1]),
    } | changes
    tags = {tag: value for tag, value in sorted(tags.items()) if value}
    width = struct.calcsize(order + offset_code)
    count_code = "Q" if big else "H"
    extra_start = (
        len(header)
        + struct.calcsize(order + count_code)
        + len(tags) * (4 + 2 * width)
        + width
    )

    def pack() -> tuple[bytes, bytes]:
        entries, extra = b"", b""
        for tag, (kind, values) in tags.items():
            packed = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
            if len(packed) > width:
                place = struct.pack(
                    order + offset_code, extra_start + len(extra)
                )
                extra += packed
            else:
                place = packed.ljust(width, b"\0")
            entries += struct.pack(order + "HH", tag, kind)
            entries += struct.pack(order + offset_code, len(values)) + place
        return entries, extra

    if offsets not in changes:
        start = extra_start + len(pack()[1])
        places = np.cumsum([start, *map(len, parts)])[:-1].tolist()
        tags[offsets] = (LONG, places)
    entries, extra = pack()
    directory = struct.pack(order + count_code, len(tags)) + entries
    directory += struct.pack(order + offset_code, next_page)
    return header + directory + extra + b"".join(parts)
