"""What a conversion that was killed leaves behind, and goes on from.

Beside each shard that is finished lies a small file, JSON, with what came of it: its
size and SHA-256, its counts, and a hash of all that it depends on. A shard is
kept if all of that is still true; any other is written again.
"""

import dataclasses
import json
import os
from collections.abc import Iterable

import numpy as np

from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults, files

ENDING = ".journal"


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A written shard.

    Attributes:
        shard: Name, records, size, hash.
        label_counts: int64 [3]: patches of label 0, 1 and -1.
        channel_sums: int64 [2, 3]: over all pixels, of the values of each
            channel and of their squares. Integers, so that they add up to the
            same in any order.
        num_contradictions: Labels that `schema.find_contradictions` finds.
        faults: Patches left out.
    """

    shard: manifest.Shard
    label_counts: np.ndarray
    channel_sums: np.ndarray
    num_contradictions: int
    faults: list[faults.Fault]


def write(path: str, fingerprint: str, result: ShardResult) -> None:
    """Notes that a shard and its part of the sidecar are finished.

    Args:
        path: Of the shard.
        fingerprint: Of what it depends on.
        result: What came of it.
    """
    content = {
        "fingerprint": fingerprint,
        "sidecar_sha256": manifest.hash_file(f"{path}.csv"),
        "shard": dataclasses.asdict(result.shard),
        "label_counts": result.label_counts.tolist(),
        "channel_sums": result.channel_sums.tolist(),
        "num_contradictions": result.num_contradictions,
        "faults": [dataclasses.astuple(fault) for fault in result.faults],
    }
    text = json.dumps(content)
    files.write_text(f"{path}{ENDING}", text, is_shared=True)


def read(path: str, fingerprint: str) -> ShardResult | None:
    """Returns what came of a finished shard; None if it must be written.

    The shard and its part of the sidecar are read and hashed.

    Args:
        path: Of the shard.
        fingerprint: Of what it depends on now.
    """
    try:
        with files.open_file(f"{path}{ENDING}", encoding="utf-8") as file:
            content = json.load(file)
        if content["fingerprint"] != fingerprint:
            return None
        result = ShardResult(
            shard=manifest.Shard(**content["shard"]),
            label_counts=np.array(content["label_counts"], np.int64),
            channel_sums=np.array(content["channel_sums"], np.int64),
            num_contradictions=int(content["num_contradictions"]),
            faults=[faults.Fault(*fault) for fault in content["faults"]],
        )
        is_sound = (
            files.size(path) == result.shard.num_bytes
            and manifest.hash_file(path) == result.shard.sha256
            and manifest.hash_file(f"{path}.csv") == content["sidecar_sha256"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return result if is_sound else None


def list_finished(folder: str) -> list[str]:
    """Returns the names of the shards that were noted as finished."""
    return [
        name.removesuffix(ENDING)
        for name in files.list_names(folder)
        if name.endswith(ENDING)
    ]


def remove_unfinished(folder: str) -> None:
    """Removes what killed processes were writing."""
    if files.is_remote(folder):
        return  # A file appears there whole or not at all.
    for name in os.listdir(folder):
        if name.endswith(files.INCOMPLETE):
            files.remove(os.path.join(folder, name))


def remove_others(folder: str, kept: Iterable[str]) -> None:
    """Removes every file but some."""
    for name in set(os.listdir(folder)) - set(kept):
        os.remove(os.path.join(folder, name))
