"""The manifest of several records folders as one."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.records import manifest, records_folder, sharding
from pcam_tfdata.system import versions


def merge(
    parts: Sequence[records_folder.RecordsFolder],
) -> tuple[manifest.Manifest, list[dict[str, str]]]:
    """Returns what parts are together, and the new names of their shards."""
    pieces: dict[str, list[tuple[int, manifest.Split]]] = {}
    for number, part in enumerate(parts):
        for split in part.content.splits:
            pieces.setdefault(split.name, []).append((number, split))
    splits = []
    new_names: list[dict[str, str]] = [{} for _ in parts]
    for name, same in pieces.items():
        num_shards = sum(len(split.shards) for _, split in same)
        shards: list[manifest.Shard] = []
        for number, split in same:
            for shard in split.shards:
                new = sharding.shard_name(name, len(shards), num_shards)
                new_names[number][shard.name] = new
                shards.append(dataclasses.replace(shard, name=new))
        splits.append(merge_splits([split for _, split in same], shards))
    first, *others = (part.content.options for part in parts)
    options = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
    options["manifest_sha256_of_parts"] = [p.manifest_sha256 for p in parts]
    content = manifest.Manifest(
        tuple(splits), options, versions.of_conversion()
    )
    return content, new_names


def merge_splits(
    splits: Sequence[manifest.Split], shards: Sequence[manifest.Shard]
) -> manifest.Split:
    """Returns the description of splits of the same name as one."""
    first = splits[0]
    if len({split.labeled for split in splits}) > 1:
        raise ValueError(
            f"Split {first.name}: found it with labels in some parts and"
            " without in others, expected the same in all. Leave those without"
            " out, and predict them by themselves."
        )
    weight = np.array([split.num_records for split in splits], float)[:, None]
    weight /= weight.sum()
    mean = np.array([split.channel_mean for split in splits])
    squares = np.square([split.channel_std for split in splits]) + mean**2
    whole_mean = (weight * mean).sum(0)
    variance = (weight * squares).sum(0) - whole_mean**2
    whole_std = np.sqrt(np.maximum(variance, 0))  # Rounding may leave less.
    return dataclasses.replace(
        first,
        shards=tuple(shards),
        class_counts={
            label: sum(split.class_counts[label] for split in splits)
            for label in first.class_counts
        },
        channel_mean=tuple(whole_mean.tolist()),
        channel_std=tuple(whole_std.tolist()),
    )
