"""Kaggle's folder: train/ID.tif, train_labels.csv, test/ID.tif and
sample_submission.csv."""

import logging
import os
from collections.abc import Iterable

from pcam_tfdata import faults, schema, tables
from pcam_tfdata.sources import listing

TRAIN, TEST = "train", "test"
LABELS_FILE = "train_labels.csv"
SAMPLE_FILE = "sample_submission.csv"
_LAYOUT = f"{TRAIN}/, {LABELS_FILE}, {TEST}/, {SAMPLE_FILE}"
_LABELS = {"0": schema.NEGATIVE, "1": schema.POSITIVE}

_logger = logging.getLogger(__name__)


def list_train(
    input_dir: str, slide_csv: str | None
) -> tuple[list[listing.Patch], list[faults.Fault]]:
    """Returns the labelled patches in the order of their labels' file.

    Args:
        input_dir: Kaggle's folder.
        slide_csv: A file with the columns `id` and `slide` or `wsi`.

    Returns:
        The patches that can be used, and what is wrong with the others: a label
        other than 0 and 1, a row without a file or a file without a row, a
        repeated name, a name with a path separator, no slide.

    Raises:
        FileNotFoundError, ValueError: a folder, file or column is missing.
    """
    labels_path = os.path.join(input_dir, LABELS_FILE)
    _require(os.path.isfile(labels_path), labels_path)
    rows = tables.read_csv(labels_path, ("id", "label"))
    patches, found = _join(input_dir, TRAIN, labels_path, rows)
    if slide_csv is None:
        return patches, found
    slides = _read_slides(slide_csv)
    missing = [
        faults.Fault(
            patch.name,
            f"{slide_csv}: found no row for {patch.name}, expected its slide."
            " Add the row or leave --slide_csv out.",
        )
        for patch in patches
        if patch.name not in slides
    ]
    placed = [
        listing.Patch(p.name, p.path, p.label, slides[p.name])
        for p in patches
        if p.name in slides
    ]
    return placed, found + missing


def list_test(
    input_dir: str,
) -> tuple[list[listing.Patch], list[faults.Fault]]:
    """Returns the unlabelled patches in the order of sample_submission.csv.

    Without that file they are in the order of their names; without a `test`
    folder there are none.

    Returns:
        The patches that can be used, and what is wrong with the others.
    """
    sample_path = os.path.join(input_dir, SAMPLE_FILE)
    has_sample = os.path.isfile(sample_path)
    if not has_sample and not os.path.isdir(os.path.join(input_dir, TEST)):
        _logger.info("%s: no %s/, so no test split.", input_dir, TEST)
        return [], []
    if has_sample:
        names = tables.read_csv(sample_path, ("id",))
    else:
        _logger.info("%s: not there, test is in order of name.", sample_path)
        names = [(name,) for name in sorted(_list_files(input_dir, TEST)[0])]
    rows = [(name, None) for (name,) in names]
    return _join(input_dir, TEST, sample_path, rows)


def _require(present: bool, path: str) -> None:
    if not present:
        raise FileNotFoundError(
            f"{path}: not found, expected Kaggle's folder ({_LAYOUT})."
            " Check --input_dir."
        )


def _list_files(
    input_dir: str, split: str
) -> tuple[dict[str, str], list[faults.Fault]]:
    """Returns name to path of a folder's files, and files of equal name."""
    folder = os.path.join(input_dir, split)
    _require(os.path.isdir(folder), folder)
    paths: dict[str, str] = {}
    found = []
    for file in sorted(os.listdir(folder)):
        name = os.path.splitext(file)[0]
        path = os.path.join(folder, file)
        if file.startswith("."):
            continue
        if name in paths:
            found.append(
                faults.Fault(
                    name,
                    f"{path}: found a second file for {name}, expected only"
                    f" {paths[name]}. Remove one.",
                )
            )
        paths.setdefault(name, path)
    return paths, found


def _join(
    input_dir: str,
    split: str,
    table_path: str,
    rows: Iterable[tuple[str, str | None]],
) -> tuple[list[listing.Patch], list[faults.Fault]]:
    """Joins the rows (name, label) of a table with the files of a folder."""
    paths, found = _list_files(input_dir, split)
    seen: set[str] = set()
    patches = []
    for name, label in rows:
        problem = _problem(name, label, seen, paths)
        seen.add(name)
        if problem:
            found.append(faults.Fault(name, f"{table_path}: {problem}"))
            continue
        number = schema.UNLABELED if label is None else _LABELS[label]
        patches.append(listing.Patch(name, paths[name], number))
    for name in sorted(paths.keys() - seen):
        reason = (
            f"{paths[name]}: found a file without a row, expected one in"
            f" {table_path}. Add the row or remove the file."
        )
        found.append(faults.Fault(name, reason))
    return patches, found


def _problem(
    name: str, label: str | None, seen: set[str], paths: dict[str, str]
) -> str | None:
    if not listing.is_plain(name):
        return (
            f"found id {name!r}, expected a plain name without path"
            " separators. Mend the row."
        )
    if name in seen:
        return f"found id {name} twice, expected it once. Remove a row."
    if label is not None and label not in _LABELS:
        return (
            f"found label {label!r} for {name}, expected 0 or 1. Mend the row."
        )
    if name not in paths:
        return (
            f"found id {name} without a file, expected {name}.tif in the"
            " folder beside it. Add the file or remove the row."
        )
    return None


def _read_slides(slide_csv: str) -> dict[str, str]:
    # The community's patch_id_wsi.csv calls the slide `wsi`.
    column = "wsi" if "wsi" in tables.read_header(slide_csv) else "slide"
    rows = tables.read_csv(slide_csv, ("id", column))
    slides: dict[str, str] = {}
    for name, slide in rows:
        if not listing.is_plain(slide):
            raise ValueError(
                f"{slide_csv}: found slide {slide!r} for {name}, expected a"
                " plain name. Mend the file."
            )
        if slides.setdefault(name, slide) != slide:
            raise ValueError(
                f"{slide_csv}: found {name} on slides {slides[name]} and"
                f" {slide}, expected one slide. Mend the file."
            )
    return slides
