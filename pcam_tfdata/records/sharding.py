"""Arithmetic of shards: how many, where each begins, and their names."""

import re


def count_shards(
    num_records: int, *, record_bytes: int, shard_bytes: int
) -> int:
    """Returns how many shards keep each at or under `shard_bytes`, at least 1.

    A shard holds at least one record, however small `shard_bytes` is.
    """
    records_per_shard = max(1, shard_bytes // record_bytes)
    return max(1, -(-num_records // records_per_shard))


def shard_bounds(num_records: int, num_shards: int) -> list[int]:
    """Returns num_shards + 1 row numbers: shard k is rows [k]:[k + 1].

    Shard sizes differ by one record at most.
    """
    return [k * num_records // num_shards for k in range(num_shards + 1)]


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """Returns the file name of a shard, as TFDS expects it."""
    return f"pcam-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"


def is_shard_name(name: str) -> bool:
    """Returns whether `shard_name` gives such a name."""
    return re.fullmatch(r"pcam-.+\.tfrecord-\d{5,}-of-\d{5,}", name) is not None
