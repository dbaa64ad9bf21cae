"""Slides that patches were cut from: who comes from where, scores of each."""

import os
from collections.abc import Iterator

import numpy as np

from pcam_tfdata.evaluation import metrics
from pcam_tfdata.records import manifest
from pcam_tfdata.system import csv_files

COLUMNS = (
    "slide", "num_patches", "num_positive", "auc", "accuracy",
    "mean_probability", "nll",
)  # fmt: skip


def read_slides(records_dir: str) -> np.ndarray:
    """Reads the slide of every record of a folder.

    Returns:
        str [num_records], by the sidecar's row; "" where it is unknown.

    Raises:
        FileNotFoundError, ValueError: the sidecar is not there, or is not that
            of these records.
    """
    path = os.path.join(records_dir, manifest.SIDECAR_FILE)
    rows = csv_files.read_csv(path, ("row", "slide"))
    content = manifest.read(records_dir)
    num_records = sum(split.num_records for split in content.splits)
    if [row for row, _ in rows] != [str(row) for row in range(num_records)]:
        raise ValueError(
            f"{path}: found {len(rows):,} rows, expected rows 0 to"
            f" {num_records - 1:,} in order, one for each record. Copy the file"
            " again or convert again."
        )
    manifest.check_sidecar(records_dir)
    return np.array([slide for _, slide in rows])


def score_slides(
    slide: np.ndarray, label: np.ndarray, logit: np.ndarray, threshold: float
) -> list[tuple[object, ...]]:
    """Returns the scores of each slide, a row of `COLUMNS`, by name.

    Args:
        slide: str [num_patches].
        label: int [num_patches], 0 or 1.
        logit: float [num_patches].
        threshold: A probability at or above it predicts 1.

    Returns:
        Rows; the AUC is None on a slide whose labels are all equal.
    """
    return [
        (name, *_score(label[patches], logit[patches], threshold))
        for name, patches in _group(slide)
    ]


def _group(slide: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each slide, by name, and the places of its patches."""
    names, counts = np.unique(slide, return_counts=True)
    order = np.argsort(slide, kind="stable")
    places = np.split(order, np.cumsum(counts)[:-1])
    return zip(names.tolist(), places, strict=True)


def _score(
    label: np.ndarray, logit: np.ndarray, threshold: float
) -> tuple[object, ...]:
    probability = metrics.to_probability(logit)
    return (
        len(label),
        int(label.sum()),
        metrics.auc(label, logit),
        float(np.mean((probability >= threshold) == label)),
        float(probability.mean()),
        metrics.nll(label, logit),
    )
