"""Columns of names: UTF-8 bytes of one width, so that millions of them fit.

Ten million hashes are 400 MB so, and 970 MB as Python's strings in a list.
"""

from collections.abc import Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import listing

MAX_BYTES = 255  # Longer names no file system in use can hold.
_NO_NAMES = frozenset(("", ".", ".."))
_BLOCK_ROWS = 1 << 18
_MAX_SHOWN = 60
_IS_HEX = np.isin(np.arange(256), list(b"0123456789abcdefABCDEF"))
_LOWER_CASE = 0x20  # The bit that is set in a-f and 0-9, and not in A-F.


def to_array(texts: Sequence[str]) -> np.ndarray:
    """Returns names as an array of bytes S [num_names], UTF-8."""
    return np.array([text.encode() for text in texts] or [], np.bytes_)


def to_text(name: bytes) -> str:
    """Returns one name of an array as Python's string."""
    return name.decode()


def show(text: str) -> str:
    """Returns a quoted text for an error, cut if it is long."""
    cut = repr(text[:_MAX_SHOWN])
    return cut if len(text) <= _MAX_SHOWN else f"{cut} and more"


def escape(text: str) -> str:
    """Returns a text that prints in one line; a plain one as it is."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def join(blocks: list[np.ndarray]) -> np.ndarray:
    """Returns arrays as one, as wide as the widest; `blocks` is emptied.

    Each block is freed once it is copied, so that the peak is one copy.
    """
    width = max((block.dtype.itemsize for block in blocks), default=1)
    end = sum(map(len, blocks))
    joined = np.empty(end, f"S{width}")
    while blocks:
        block = blocks.pop()
        joined[end - len(block) : end] = block
        end -= len(block)
    return joined


def find_unfit(texts: Sequence[str]) -> list[int]:
    """Returns the places of names that are no plain names of a file.

    These are the paths, the empty, those with characters that do not print,
    and those of more than 255 bytes.
    """
    joined = "".join(texts)
    if (
        joined.isascii()
        and joined.isprintable()
        and "/" not in joined
        and "\\" not in joined
        and _NO_NAMES.isdisjoint(texts)
        and max(map(len, texts), default=0) <= MAX_BYTES
    ):
        return []  # The rule: 9 times faster than one by one.
    return [
        place
        for place, text in enumerate(texts)
        if not listing.is_plain(text) or len(text.encode()) > MAX_BYTES
    ]


def lower_hashes(names: np.ndarray) -> np.ndarray:
    """Returns names, those lower-cased that are 40 hex digits.

    A SHA-1 is a number, and some tools write it in capitals. Any other name
    stays: files may differ by case alone.

    Args:
        names: S [num_names].
    """
    blocks = [
        _lower_block(names[start : start + _BLOCK_ROWS])
        for start in range(0, len(names), _BLOCK_ROWS)
    ]
    return blocks[0] if len(blocks) == 1 else join(blocks or [names])


def _lower_block(names: np.ndarray) -> np.ndarray:
    width = names.dtype.itemsize
    if width < schema.ID_BYTES:
        return names
    letters = np.ascontiguousarray(names).view(np.uint8).reshape(-1, width)
    is_capital = (letters >= ord("A")) & (letters <= ord("F"))
    places = np.flatnonzero(is_capital.any(1))
    digits, rest = np.split(letters[places], [schema.ID_BYTES], axis=1)
    is_hash = _IS_HEX[digits].all(1) & ~rest.any(1)
    if not is_hash.any():
        return names
    lowered = letters.copy()
    lowered[places[is_hash], : schema.ID_BYTES] |= _LOWER_CASE
    return lowered.view(names.dtype)[:, 0]


def find_repeated(names: np.ndarray) -> np.ndarray:
    """Returns the places of names that occur more than once.

    Sorting 64-bit hashes of the names finds the few that may be equal, and
    those are compared in full: 6 times faster than sorting a million names.

    Args:
        names: S [num_names].

    Returns:
        int64, equal names side by side, in their order.
    """
    hashes = _hash(names)
    ordered = np.sort(hashes)
    equal = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(equal):
        return np.array([], np.int64)
    places = np.flatnonzero(np.isin(hashes, equal))
    places = places[np.argsort(names[places], kind="stable")]
    same = names[places[1:]] == names[places[:-1]]
    repeated = np.zeros(len(places), bool)
    repeated[1:] |= same
    repeated[:-1] |= same
    return places[repeated]


def _hash(names: np.ndarray) -> np.ndarray:
    """Returns a hash of each name, uint64; unequal names may share one."""
    num_words = -(-names.dtype.itemsize // 8)
    hashes = np.zeros(len(names), np.uint64)
    for start in range(0, len(names), _BLOCK_ROWS):
        block = names[start : start + _BLOCK_ROWS].astype(f"S{8 * num_words}")
        value = hashes[start : start + _BLOCK_ROWS]
        for word in block.view(np.uint64).reshape(-1, num_words).T:
            value ^= word
            value *= np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(29)
    return hashes
