"""The last steps of a conversion: describe what was written, and rename it."""

import itertools
import logging
import os
import shutil
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import faults, manifest, records, schema, shards, tables

_logger = logging.getLogger(__name__)


def check_output(output_dir: str, *, overwrite: bool) -> None:
    """Refuses a place where a records folder cannot be put.

    Raises:
        FileExistsError: finished records are there and `overwrite` is false, or
            other things are.
    """
    if not os.path.lexists(output_dir):
        return
    if not os.path.isdir(output_dir):
        raise FileExistsError(
            f"{output_dir}: found a file, expected a folder to be made there."
            " Choose another --output_dir."
        )
    content = os.listdir(output_dir)
    finished = manifest.MANIFEST_FILE in content
    if finished and not overwrite:
        raise FileExistsError(
            f"{output_dir}: found finished records. Pass --overwrite to replace"
            " them, or choose another --output_dir."
        )
    if content and not finished:
        raise FileExistsError(
            f"{output_dir}: found a folder with other files in it, expected"
            " none or an empty one. Choose another --output_dir."
        )


def describe_split(
    name: str, *, labeled: bool, results: Sequence[shards.ShardResult]
) -> manifest.Split:
    """Returns what the manifest says of a split, from its written shards.

    Raises:
        ValueError: all of its patches were left out.
    """
    label_counts = sum(result.label_counts for result in results)
    values, squares = sum(result.channel_sums for result in results)
    num_records = int(label_counts.sum())
    if not num_records:
        raise ValueError(
            f"Split {name}: found no patch that can be used, expected at least"
            " one. Ask for fewer folds, or mend the source."
        )
    num_pixels = num_records * schema.PATCH_SIZE**2
    mean = values / num_pixels
    std = np.sqrt(squares / num_pixels - mean**2)
    labels = (
        (schema.NEGATIVE, schema.POSITIVE) if labeled else (schema.UNLABELED,)
    )
    return manifest.Split(
        name=name,
        labeled=labeled,
        layout=records.layout(labeled=labeled),
        shards=tuple(result.shard for result in results),
        class_counts={str(n): int(label_counts[n]) for n in labels},
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(std.tolist()),
    )


def write_folder(
    folder: str, made: manifest.Manifest, skipped: Sequence[faults.Fault]
) -> None:
    """Joins the parts of the sidecar and writes all files but the shards."""
    rows = itertools.count()
    path = os.path.join(folder, manifest.SIDECAR_FILE)
    with open(path, "w", encoding="utf-8") as sidecar:
        sidecar.write(",".join(manifest.SIDECAR_COLUMNS) + "\n")
        for split in made.splits:
            for shard in split.shards:
                part_path = os.path.join(folder, f"{shard.name}.csv")
                with open(part_path, encoding="utf-8") as part:
                    sidecar.writelines(f"{next(rows)},{line}" for line in part)
                os.remove(part_path)
    if skipped:
        _logger.warning("%s patches skipped.", f"{len(skipped):,}")
        tables.write_csv(
            os.path.join(folder, manifest.SKIPPED_FILE),
            ("name", "reason"),
            [(fault.name, fault.reason) for fault in skipped],
        )
    manifest.write(folder, made)


def rename_into_place(folder: str, output_dir: str) -> None:
    """Renames the finished folder, replacing what `check_output` allowed."""
    replaced = f"{output_dir}.replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if os.path.isdir(output_dir):
        os.rename(output_dir, replaced)
    os.rename(folder, output_dir)
    shutil.rmtree(replaced, ignore_errors=True)
