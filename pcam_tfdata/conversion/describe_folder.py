"""The files beside the shards: manifest, sidecar, list of skipped patches."""

import itertools
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import journal, plan
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.system import csv_files, faults, files


def describe_split(
    split: plan.SplitPlan, results: Sequence[journal.ShardResult]
) -> manifest.Split:
    """Returns what the manifest says of a split, from its written shards.

    Raises:
        ValueError: all of its patches were left out.
    """
    labeled = split.patches.labeled
    label_counts = np.sum([result.label_counts for result in results], axis=0)
    if not label_counts.sum():
        raise ValueError(
            f"Split {split.name}: found no patch that can be used, expected at"
            " least one. Ask for fewer folds, or mend the source."
        )
    sums = np.sum([result.channel_sums for result in results], axis=0)
    num_pixels = int(label_counts.sum()) * schema.PATCH_SIZE**2
    mean, mean_square = sums / num_pixels
    labels = (
        (schema.NEGATIVE, schema.POSITIVE) if labeled else (schema.UNLABELED,)
    )
    return manifest.Split(
        name=split.name,
        labeled=labeled,
        layout=tfrecord.layout(labeled=labeled),
        shards=tuple(result.shard for result in results),
        class_counts={str(label): int(label_counts[label]) for label in labels},
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(np.sqrt(mean_square - mean**2).tolist()),
    )


def write_files(
    folder: str, content: manifest.Manifest, skipped: Sequence[faults.Fault]
) -> manifest.Manifest:
    """Joins the parts of the sidecar and writes all files but the shards.

    Returns:
        The manifest as it was written.
    """
    row = itertools.count()  # Each is a line: all names print.
    path = os.path.join(folder, manifest.SIDECAR_FILE)
    with files.open_whole(path, newline="") as sidecar:
        sidecar.write(",".join(manifest.SIDECAR_COLUMNS) + "\n")
        for split in content.splits:
            for shard in split.shards:
                part_path = os.path.join(folder, f"{shard.name}.csv")
                with files.open_file(part_path, newline="") as part:
                    sidecar.writelines(f"{next(row)},{line}" for line in part)
    path = os.path.join(folder, manifest.SKIPPED_FILE)
    files.remove(path)  # One may be there, of a killed job that skipped some.
    if skipped:
        rows = [(fault.name, fault.reason) for fault in skipped]
        csv_files.write_csv(path, ("name", "reason"), rows)
    return manifest.write(folder, content)
