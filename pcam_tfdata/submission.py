"""The rows of a submission CSV: which patch has which place."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from pcam_tfdata import metrics, tables

_CHUNK = 1 << 16


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
) -> None:
    """Writes a CSV of `id,label`, whole or not at all.

    Args:
        path: Where to.
        patches: Names of the patches, in order.
        logits: float32, of some patches after the other.
        sample: Which rows; None for those of the patches.
        threshold: None for probabilities; else labels 0 and 1, where a
            probability at or above it gives 1.
    """
    if sample is not None:
        patches = map(_to_text, sample.names)
        logits = [np.concatenate(list(logits))[sample.places]]
    labels = (_to_labels(part, threshold) for part in logits)
    rows = zip(patches, itertools.chain.from_iterable(labels), strict=True)
    tables.write_csv(path, ("id", "label"), rows)


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
