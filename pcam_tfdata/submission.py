"""The rows of a submission CSV: which patch has which place."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pcam_tfdata import dead_network, metrics, tables

_CHUNK = 1 << 16

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sample:
    """The rows that a sample submission asks for.

    Names are UTF-8 bytes of one width: a million hashes took 100 MB more at the
    peak than a prediction without a sample, where names are never in memory.

    Attributes:
        names: S [num_patches], its ids in its order.
        places: int64 [num_patches], the place of each among the patches.
    """

    names: np.ndarray
    places: np.ndarray


def read_sample(path: str, patches: Iterable[str]) -> Sample:
    """Returns the rows of a sample submission.

    Args:
        path: A CSV with a column `id`.
        patches: Names of the patches, in order.

    Raises:
        FileNotFoundError, ValueError: it is not there, or its ids are not the
            names of the patches, each once.
    """
    known = _to_array(patches)
    wanted = _to_array(name for (name,) in tables.iterate_csv(path, ("id",)))
    sorter = np.argsort(known)
    found = np.searchsorted(known, wanted, sorter=sorter)
    places = sorter[np.minimum(found, len(known) - 1)]
    is_known = known[places] == wanted
    is_used = np.zeros(len(known), bool)
    is_used[places[is_known]] = True
    ordered = np.sort(wanted)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    problems = (
        (repeated, "repeated"),
        (np.unique(wanted[~is_known]), "not among the patches"),
        (known[~is_used], "patches without a row"),
    )
    wrong = [
        f"{len(names):,} {what} (as {_to_text(min(names))})"
        for names, what in problems
        if len(names)
    ]
    if wrong:
        raise ValueError(
            f"{path}: found ids {'; '.join(wrong)}, expected each of the"
            f" {len(known):,} patches once. Nothing was written."
        )
    return Sample(wanted, places)


def write(
    path: str,
    patches: Iterable[str],
    logits: Iterable[np.ndarray],
    *,
    sample: Sample | None,
    threshold: float | None,
    allow_equal: bool = False,
) -> None:
    """Writes a CSV of `id,label`, whole or not at all.

    A line warns of probabilities that are all equal, also where they become
    labels.

    Args:
        path: Where to.
        patches: Names of the patches, in order.
        logits: float32, of some patches after the other.
        sample: Which rows; None for those of the patches.
        threshold: None for probabilities; else labels 0 and 1, where a
            probability at or above it gives 1.
        allow_equal: No line warns of equal probabilities.
    """
    if sample is not None:
        patches = map(_to_text, sample.names)
        logits = [np.concatenate(list(logits))[sample.places]]
    ranges = []
    labels = (
        _to_labels(part, threshold) for part in _note_ranges(logits, ranges)
    )
    rows = zip(patches, itertools.chain.from_iterable(labels), strict=True)
    tables.write_csv(path, ("id", "label"), rows)
    if not allow_equal:
        _warn_if_equal(path, ranges)


def _note_ranges(
    parts: Iterable[np.ndarray], ranges: list[tuple[float, float, int]]
) -> Iterator[np.ndarray]:
    """Yields parts, and notes least and largest logit and the length of each."""
    for part in parts:
        if len(part):
            ranges.append((float(part.min()), float(part.max()), len(part)))
        yield part


def _warn_if_equal(
    path: str, ranges: Sequence[tuple[float, float, int]]
) -> None:
    lows, highs, sizes = zip(*ranges, strict=True) if ranges else ((), (), ())
    if sum(sizes) < 2:
        return
    low, high = metrics.to_probability([min(lows), max(highs)]).tolist()
    if low == high or dead_network.are_equal(min(lows), max(highs)):
        _logger.warning(
            "Warning: %s: found all %s probabilities equal, %.6g, which ranks no"
            " patch above another. %s Pass --allow_equal_probabilities where"
            " they may be.",
            path, f"{sum(sizes):,}", high, dead_network.REMEDY,
        )  # fmt: skip


def _to_array(names: Iterable[str]) -> np.ndarray:
    """Returns names as bytes of one width; not all are Python's at a time."""
    names = iter(names)
    chunks = [np.array([], "S1")]
    while chunk := list(itertools.islice(names, _CHUNK)):
        chunks.append(np.array([_to_bytes(name) for name in chunk]))
    return np.concatenate(chunks)


def _to_bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")  # Files may have any name.


def _to_text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _to_labels(
    logit: np.ndarray, threshold: float | None
) -> Iterator[float] | Iterator[int]:
    probability = metrics.to_probability(logit)
    if threshold is None:
        return iter(probability.tolist())
    return iter((probability >= threshold).astype(int).tolist())
