"""The rows of a submission CSV: their ids, and which patch each is of."""

import dataclasses
import logging
from collections.abc import Iterable

import numpy as np
import pandas

from pcam_tfdata.evaluation import dead_network, metrics
from pcam_tfdata.prediction import configuration
from pcam_tfdata.sources import csv_rows
from pcam_tfdata.system import csv_files, faults, name_arrays

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a submission, in order.

    Attributes:
        ids: What the CSV calls them.
        patches: int64 [num_rows], the index of each row's patch.
    """

    ids: pandas.Series
    patches: np.ndarray


def list_rows(path: str, names: pandas.Series, hashes: pandas.Series) -> Rows:
    """Returns a row for each name of patches, with a warning of repeated ones.

    Args:
        path: Where the patches are listed.
        names: Each patch's name, in order.
        hashes: Each patch's hash of its pixels.

    Raises:
        ValueError: patches of one name have unequal pixels.
    """
    patches = _find(names, names)
    pixels = hashes.to_numpy()
    differing = np.flatnonzero(pixels != pixels[patches])
    if len(differing):
        raise ValueError(
            f"{path}: found {len(differing):,} patches with the name of another"
            f" one whose pixels differ (as {names.iloc[differing[0]]}), expected one"
            " patch a name. Predict folders that were joined one by one."
        )
    return _list_once(path, names, patches)


def read_sample(path: str, names: Iterable[str]) -> Rows:
    """Returns the rows of a sample submission.

    An id that is not the name of a patch as it stands is compared as
    `name_arrays.normalize` has both. A repeated id is one row, with a warning.

    Args:
        path: A CSV with a column `id`, as `csv_rows.read` reads it.
        names: Each patch's name, in order; of equal ones the first counts.

    Raises:
        FileNotFoundError, ValueError: it is not there, or its ids are not the
            names of the patches.
    """
    ids = csv_rows.read(path, id=("id",))["id"]
    known = pandas.Series(list(names), dtype=object)
    patches = _locate(ids, known)
    has_row = known.isin(known[patches[patches >= 0]])
    problems = {
        "not among the patches": ids[patches < 0],
        "patches without a row": known[~has_row],
    }
    wrong = [
        f"{len(texts):,} {what} (as {faults.escape(min(texts))})"
        for what, texts in problems.items()
        if len(texts)
    ]
    if wrong:
        raise ValueError(
            f"{path}: found ids {'; '.join(wrong)}, expected each of the"
            f" {len(known):,} patches once. Nothing was written."
        )
    return _list_once(path, ids, patches)


def write(
    options: configuration.PredictOptions,
    rows: Rows,
    logits: Iterable[np.ndarray],
) -> int:
    """Writes a CSV of `id,label`, whole or not at all; returns its rows' number.

    A line warns of probabilities that are all equal, also where they become
    labels.

    Args:
        options: Where to, and what labels are.
        rows: Which rows.
        logits: float32, all patches' in parts.
    """
    logit = np.concatenate(list(logits))[rows.patches]
    label = probability = metrics.to_probability(logit)
    if options.threshold is not None:
        label = (probability >= options.threshold).astype(int)
    table = pandas.DataFrame({"id": rows.ids, "label": label})
    csv_files.write_frame(options.output_csv, table)
    if len(logit) < 2 or options.allow_equal_probabilities:
        return len(table)
    is_one_value = probability.min() == probability.max()
    if is_one_value or dead_network.are_equal(logit.min(), logit.max()):
        _logger.warning(
            "Warning: %s: found all %s probabilities equal, %.6g, which ranks no"
            " patch above another. %s Pass --allow_equal_probabilities where"
            " they may be.",
            options.output_csv, f"{len(logit):,}", probability.max(),
            dead_network.REMEDY,
        )  # fmt: skip
    return len(table)


def _locate(ids: pandas.Series, names: pandas.Series) -> np.ndarray:
    """Returns the index of the first patch of each id, int64; -1 for none.

    An id as it stands goes before one as ids are compared.
    """
    patches = _find(ids, names)
    # NumPy, which compares ids, drops a zero byte at an end.
    has_zero = ids.str.contains("\0", regex=False).to_numpy(bool)
    unknown = np.flatnonzero((patches < 0) & ~has_zero)
    if len(unknown):
        patches[unknown] = _find(
            _normalize(ids.iloc[unknown]), _normalize(names)
        )
    return patches


def _find(wanted: pandas.Series, known: pandas.Series) -> np.ndarray:
    """Returns the index of the first equal value, int64; -1 for none."""
    is_first = ~known.duplicated().to_numpy()
    firsts = pandas.Index(known[is_first]).get_indexer(pandas.Index(wanted))
    return np.append(np.flatnonzero(is_first), -1)[firsts]


def _normalize(names: pandas.Series) -> pandas.Series:
    normal = name_arrays.normalize(name_arrays.to_array(names.tolist()))
    return pandas.Series(normal.tolist(), dtype=object)


def _list_once(path: str, ids: pandas.Series, patches: np.ndarray) -> Rows:
    """Returns the first row of each patch; a warning counts the others."""
    again = pandas.Series(patches).duplicated().to_numpy()
    if again.any():
        _logger.warning(
            "Warning: %s: found %s rows that repeat an id (as %s). Each id gets"
            " one row.",
            path, f"{again.sum():,}", ids[again].iloc[0],
        )  # fmt: skip
    return Rows(ids[~again], patches[~again])
