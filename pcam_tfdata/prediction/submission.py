"""The rows of a submission CSV, and the CSV.

Rows are a Series: what the CSV calls each patch, in order. Its index has the
index of each row's patch.
"""

import logging
from collections.abc import Iterable, Mapping

import numpy as np
import pandas

from pcam_tfdata.evaluation import dead_network, operating_point
from pcam_tfdata.prediction import configuration
from pcam_tfdata.records import records_folder
from pcam_tfdata.sources import csv_rows
from pcam_tfdata.system import csv_files, faults, name_arrays

_logger = logging.getLogger(__name__)


def list_rows(
    options: configuration.PredictOptions, records: records_folder.RecordsFolder
) -> pandas.Series:
    """Returns the rows of a split of records: one a name, or the sample's.

    A line warns of patches that have the name of another one.

    Raises:
        FileNotFoundError, ValueError: sidecar or sample do not fit the patches,
            or patches of one name have unequal pixels.
    """
    sidecar = records.read_sidecar(["split", "source_name", "id"])
    patches = sidecar[sidecar["split"] == options.split]
    names, pixels = patches["source_name"], patches["id"].to_numpy()
    first = _find(names, names)
    differing = np.flatnonzero(pixels != pixels[first])
    if len(differing):
        raise ValueError(
            f"{records.sidecar_path}: found {len(differing):,} patches with the"
            f" name of another one whose pixels differ (as"
            f" {names.iloc[differing[0]]}), expected one patch a name. Predict"
            " folders that were joined one by one."
        )
    rows = _list_once(records.sidecar_path, names, first)
    if options.sample_submission:
        return read_sample(options.sample_submission, names)
    return rows


def read_sample(path: str, names: Iterable[str]) -> pandas.Series:
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
    patches = _find(ids, known)
    # NumPy drops NULs at the end of what is compared below.
    has_nul = ids.str.contains("\0", regex=False).to_numpy(bool)
    unknown = (patches < 0) & ~has_nul
    if unknown.any():
        patches[unknown] = _find(_normalize(ids[unknown]), _normalize(known))
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
    point: operating_point.OperatingPoint,
    rows: pandas.Series,
    results: Mapping[str, np.ndarray],
) -> int:
    """Writes a CSV of `id,label`, whole or not at all; returns its rows' number.

    A line warns of probabilities that are all equal, also where they become
    labels.

    Args:
        options: Where to.
        point: What labels are.
        rows: Which rows, as this module has them.
        results: `logit` of all patches, float32, and their `fraction` where that
            is wanted.
    """
    logit = results["logit"][rows.index]
    if options.calibrated:
        point.tell_uncalibrated(options.output_csv, options.forward.tta)
    probability = point.calibrate(logit)
    label = probability
    if point.threshold is not None:
        label = (probability >= point.threshold).astype(int)
    table = pandas.DataFrame({"id": rows, "label": label})
    if options.with_fraction:
        table["fraction"] = results["fraction"][rows.index]
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


def _find(wanted: pandas.Series, known: pandas.Series) -> np.ndarray:
    """Returns the index of the first equal value, int64; -1 for none."""
    is_first = ~known.duplicated().to_numpy()
    firsts = pandas.Index(known[is_first]).get_indexer(pandas.Index(wanted))
    return np.append(np.flatnonzero(is_first), -1)[firsts]


def _normalize(names: pandas.Series) -> pandas.Series:
    normal = name_arrays.normalize(name_arrays.to_array(names.tolist()))
    return pandas.Series(normal.tolist(), dtype=object)


def _list_once(
    path: str, ids: pandas.Series, patches: np.ndarray
) -> pandas.Series:
    """Returns the first row of each patch; a warning counts the others."""
    rows = ids.set_axis(patches)
    again = rows[rows.index.duplicated()]
    if len(again):
        _logger.warning(
            "Warning: %s: found %s rows that repeat an id (as %s). Each id gets"
            " one row.",
            path, f"{len(again):,}", again.iloc[0],
        )  # fmt: skip
    return rows[~rows.index.duplicated()]
