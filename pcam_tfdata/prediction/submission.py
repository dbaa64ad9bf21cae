"""The rows of a submission CSV: which patch has which place."""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pcam_tfdata.evaluation import dead_network, metrics
from pcam_tfdata.sources import csv_rows
from pcam_tfdata.system import csv_files, faults, name_arrays

_CHUNK = 1 << 16

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sample:
    """The rows that a sample submission asks for.

    Names are UTF-8 bytes of one width: a million hashes took 100 MB more at the
    peak than a prediction without a sample, where names are never in memory.

    Attributes:
        names: S [num_rows], its ids in its order, as it writes them.
        places: int64 [num_rows], the place of each among the patches.
    """

    names: np.ndarray
    places: np.ndarray


def read_sample(
    path: str, patches: Iterable[str], left_out: Iterable[str] = ()
) -> Sample:
    """Returns the rows of a sample submission.

    An id that is not the name of a patch as it stands is compared as
    `name_columns.normalize` has both. A repeated id is one row, with a warning.

    Args:
        path: A CSV with a column `id`, as `csv_rows.read` reads it.
        patches: Names of the patches, in order; of equal ones the first counts.
        left_out: Names of patches that cannot be used, for the error.

    Raises:
        FileNotFoundError, ValueError: it is not there, or its ids are not the
            names of the patches.
    """
    table = csv_rows.read(path, ("id",))
    texts = table.texts[0]
    known, wanted = _to_array(patches), _to_array(texts)
    places = _find_places(wanted, known)
    # NumPy drops a zero byte at an end.
    has_zero = texts.str.contains("\0", regex=False).to_numpy(bool)
    is_known = (places >= 0) & ~has_zero
    is_used = np.zeros(len(known), bool)
    is_used[places[is_known]] = True
    is_missing = ~is_used[name_arrays.find_first(known)]
    is_left_out = ~is_known & (_find_places(wanted, _to_array(left_out)) >= 0)
    problems = {
        "of patches that are left out": texts[is_left_out],
        "not among the patches": texts[~is_known & ~is_left_out],
        "with text beyond the header": texts[table.is_long],
        "patches without a row": map(_to_text, known[is_missing]),
    }
    wrong = [
        f"{len(names):,} {what} (as {faults.escape(min(names))})"
        for what, found in problems.items()
        if (names := list(found))
    ]
    if wrong:
        advice = ""
        if is_left_out.any():
            advice = " Mend their files, or leave out --sample_submission."
        raise ValueError(
            f"{path}: found ids {'; '.join(wrong)}, expected each of the"
            f" {len(known):,} patches once.{advice} Nothing was written."
        )
    rows = _list_once(path, places, wanted)
    return Sample(wanted[rows], places[rows])


def _find_places(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the place of each id among names, int64; -1 where it is none.

    An id as it stands goes before one as ids are compared.
    """
    places = name_arrays.find(wanted, known)
    other = np.flatnonzero(places < 0)
    if len(other):
        places[other] = name_arrays.find(
            name_arrays.normalize(wanted[other]), name_arrays.normalize(known)
        )
    return places


def list_once(path: str, patches: Iterable[tuple[str, str]]) -> Sample:
    """Returns a row for each name of patches of which some share a name.

    A warning counts these.

    Args:
        path: Where they are listed.
        patches: Name and hash of the pixels of each, in order.

    Raises:
        ValueError: patches of one name have unequal pixels.
    """
    rows = list(patches)
    names, hashes = (_to_array(row[place] for row in rows) for place in (0, 1))
    first = name_arrays.find_first(names)
    differs = np.flatnonzero(hashes != hashes[first])
    if len(differs):
        raise ValueError(
            f"{path}: found {len(differs):,} patches with the name of another"
            f" one whose pixels differ (as {_to_text(names[differs[0]])}),"
            " expected one patch a name. Predict folders that were joined one by"
            " one."
        )
    rows = _list_once(path, first, names)
    return Sample(names[rows], rows)


def _list_once(path: str, keys: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Returns the first row of each key; a warning counts the others."""
    rows = np.sort(np.unique(keys, return_index=True)[1])
    if num_others := len(keys) - len(rows):
        again = np.setdiff1d(np.arange(len(keys)), rows)[0]
        _logger.warning(
            "Warning: %s: found %s rows that repeat an id (as %s). Each id gets"
            " one row.",
            path, f"{num_others:,}", _to_text(names[again]),
        )  # fmt: skip
    return rows


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
    csv_files.write_csv(path, ("id", "label"), rows)
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
