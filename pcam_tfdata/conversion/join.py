"""Several records folders become one: of a site each, or of a year.

A conversion plans all of its patches in memory. Parts are joined shard by shard:
memory holds some rows, and at the end eight bytes of each patch's id.
"""

import collections
import csv
import dataclasses
import itertools
import logging
import os
import shutil
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.conversion import describe_folder, leaks, publish, workspace
from pcam_tfdata.records import manifest, records_folder, sharding
from pcam_tfdata.system import files, progress, versions

_logger = logging.getLogger(__name__)


def join(
    records_dirs: Sequence[str], output_dir: str, *, overwrite: bool = False
) -> manifest.Manifest:
    """Makes one records folder of several, and returns its manifest.

    Splits of the same name are joined. Shards are linked (hard links), or
    copied where that cannot be. Their bytes are not read: `verify` does that.

    Args:
        records_dirs: Finished records folders on a disk, in the order that
            patches of a split will have.
        output_dir: Folder to make.
        overwrite: Replaces finished records there, drops unfinished ones.

    Raises:
        FileExistsError: the output is there already, or a conversion to it is
            not finished.
        FileNotFoundError, ValueError: a part is no records folder, or parts do
            not fit each other.
        RuntimeError: another process is at it.
        OSError: the disk is full, or the like. Nothing is left then.
    """
    paths = (*records_dirs, output_dir)
    if len(paths) < 3 or not all(paths) or any(map(files.is_remote, paths)):
        raise ValueError(
            f"--records_dirs: found {','.join(records_dirs)!r} for {output_dir},"
            " expected folders on a disk, two or more, with a comma between."
        )
    parts = _open_parts(records_dirs)
    content = _merge(parts)
    output_dir = files.resolve(output_dir)
    with workspace.open_folder(
        output_dir, overwrite=overwrite, resumes=False
    ) as folder:
        num_patches = sum(part.num_patches for part in parts)
        with progress.Progress(num_patches, "join") as bar:
            splits_of_slide = _write_shards(parts, content, folder, bar)
        warnings = leaks.describe_slides(splits_of_slide)
        if warnings:
            content.options["grouped_by_slide"] = False
        content = describe_folder.write_files(folder, content, [])
        warnings += leaks.describe_copies(folder)
        publish.put_into_place(folder, output_dir, content)
    warnings += [
        f"patches were left out of {part.path}; {manifest.SKIPPED_FILE} there"
        " lists them."
        for part in parts
        if files.is_file(os.path.join(part.path, manifest.SKIPPED_FILE))
    ]
    for line in warnings:
        _logger.warning("Warning: %s", line)
    return content


def _open_parts(
    records_dirs: Sequence[str],
) -> list[records_folder.RecordsFolder]:
    """Opens the parts; refuses one twice, or not as its manifest says."""
    parts = [records_folder.open_folder(folder) for folder in records_dirs]
    if len({part.manifest_sha256 for part in parts}) < len(parts):
        raise ValueError(
            f"--records_dirs: found the same records twice among"
            f" {', '.join(records_dirs)}, expected each once."
        )
    for shard in itertools.chain(*(part.list_shards() for part in parts)):
        shard.check()
    return parts


def _merge(parts: Sequence[records_folder.RecordsFolder]) -> manifest.Manifest:
    """Returns what parts are together."""
    splits = [split for part in parts for split in part.content.splits]
    merged = tuple(
        merge_splits([split for split in splits if split.name == name])
        for name in dict.fromkeys(split.name for split in splits)
    )
    first, *others = (part.content.options for part in parts)
    options = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
    options["manifest_sha256_of_parts"] = [p.manifest_sha256 for p in parts]
    return manifest.Manifest(merged, options, versions.of_conversion())


def merge_splits(splits: Sequence[manifest.Split]) -> manifest.Split:
    """Returns splits of the same name as one; their shards get new names."""
    first = splits[0]
    if len({split.labeled for split in splits}) > 1:
        raise ValueError(
            f"Split {first.name}: found it with labels in some parts and"
            " without in others, expected the same in all. Leave those without"
            " out, and predict them by themselves."
        )
    shards = [shard for split in splits for shard in split.shards]
    weights = np.array([split.num_records for split in splits], float)[:, None]
    weights /= weights.sum()
    means = np.array([split.channel_mean for split in splits])
    squares = np.square([split.channel_std for split in splits]) + means**2
    mean = (weights * means).sum(0)
    variance = (weights * squares).sum(0) - mean**2
    std = np.sqrt(np.maximum(variance, 0))  # Rounding may leave less.
    return dataclasses.replace(
        first,
        shards=tuple(
            dataclasses.replace(
                shard, name=sharding.shard_name(first.name, number, len(shards))
            )
            for number, shard in enumerate(shards)
        ),
        class_counts={
            label: sum(split.class_counts[label] for split in splits)
            for label in first.class_counts
        },
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(std.tolist()),
    )


def _write_shards(
    parts: Sequence[records_folder.RecordsFolder],
    content: manifest.Manifest,
    folder: str,
    bar: progress.Progress,
) -> dict[str, set[str]]:
    """Writes shards and rows of the sidecar; returns the splits of each slide."""
    splits_of_slide: dict[str, set[str]] = collections.defaultdict(set)
    # In each split the shards of parts follow each other.
    shards = {split.name: iter(split.shards) for split in content.splits}
    columns = manifest.SIDECAR_COLUMNS[3:]
    slide = columns.index("slide")
    for part in parts:
        rows = itertools.chain.from_iterable(
            zip(*(block[name].tolist() for name in columns), strict=True)
            for block in part.iterate_sidecar(columns)
        )
        for shard in part.list_shards():
            name = next(shards[shard.split]).name
            path = os.path.join(folder, name)
            try:
                os.link(os.path.realpath(shard.path), path)
            except OSError:  # Another disk, one without links, and so on.
                shutil.copyfile(shard.path, path)
            with open(f"{path}.csv", "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                for row in itertools.islice(rows, shard.num_records):
                    writer.writerow((shard.split, name, *row))
                    splits_of_slide[row[slide]].add(shard.split)
            bar.advance_to(int(bar.n) + shard.num_records)
    return splits_of_slide
