"""Columns of names: UTF-8 bytes of one width, so that millions of them fit.

Ten million hashes are 400 MB so, and 970 MB as Python's strings in a list. All
arrays of names here are bytes [num_names].
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import schema

MAX_BYTES = 255  # Longer names no file system in use can hold.
PLAIN = f"a plain name without path separators, of at most {MAX_BYTES} bytes"
_NO_NAMES = frozenset(("", ".", ".."))
_IMAGE_SUFFIX = re.compile(rb"(?<=.)(\.(tiff?|png|jpe?g))+\Z", re.IGNORECASE)
_HEX_DIGITS = b"0123456789abcdef"


def to_array(values: Sequence[str] | Sequence[bytes]) -> np.ndarray:
    """Returns names as an array."""
    try:
        return np.array(values, np.bytes_)
    except UnicodeEncodeError:  # NumPy encodes ASCII alone.
        names = [v if isinstance(v, bytes) else v.encode() for v in values]
        return np.array(names, np.bytes_)


def to_text(names: np.ndarray | Sequence[bytes]) -> list[str]:
    """Returns names as text."""
    return [name.decode() for name in names]


def shuffle(names: np.ndarray, seed: int) -> np.ndarray:
    """Returns an order of names that follows from them and the seed alone.

    It is int64 [num_names], indices of `names`; another seed, another order.
    """
    prefix = f"{seed}:".encode()
    digests = (
        hashlib.sha1(prefix + name, usedforsecurity=False).digest()
        for name in names.tolist()
    )
    hashes = np.fromiter(digests, "S20", len(names))
    return np.argsort(hashes, kind="stable")


def find_first(names: np.ndarray) -> np.ndarray:
    """Returns for each name the index where it comes first: int64 [num_names]."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    return first[inverse]


def find(names: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the first index of each name among others: int64 [num_names].

    It is -1 for a name that is not there.
    """
    first = find_first(np.concatenate([known, names]))[len(known) :]
    return np.where(first < len(known), first, -1)


def are_hashes(names: np.ndarray) -> np.ndarray:
    """Returns which names are a SHA-1 as text, 40 lower-case hex digits: bool."""
    is_hex = np.strings.strip(names, _HEX_DIGITS) == b""
    return is_hex & (np.strings.str_len(names) == schema.ID_BYTES)


def is_plain(name: str) -> bool:
    """Returns whether a name is printable, no path, and none too long."""
    return (
        name.isprintable()
        and "/" not in name
        and "\\" not in name
        and name not in _NO_NAMES
        and len(name.encode()) <= MAX_BYTES
    )


def normalize(names: np.ndarray) -> np.ndarray:
    """Returns ids as they are compared, whoever wrote them.

    The suffix of an image is no part of them, and hashes are in lower case.
    """
    if (np.strings.find(names, b".") >= 0).any():
        names = np.array([_IMAGE_SUFFIX.sub(b"", name) for name in names])
    return lower_hashes(names)


def lower_hashes(names: np.ndarray) -> np.ndarray:
    """Returns names, those lower-cased that are 40 hex digits.

    A SHA-1 is a number, and some tools write it in capitals. Any other name
    stays: files may differ by case alone.
    """
    lowered = np.strings.lower(names)
    return np.where(are_hashes(lowered), lowered, names)
