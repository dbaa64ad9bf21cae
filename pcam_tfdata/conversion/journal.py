"""What a conversion that was killed leaves behind, and goes on from.

Beside each shard that is finished lies a small file, JSON, with what came of it: its
size and SHA-256, its counts, and a hash of all that it depends on. A shard is
kept if all of that is still true; any other is written again.
"""

import dataclasses
import json

from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults, files

ENDING = ".journal"


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A written shard.

    Attributes:
        shard: Name, records, size, hash.
        label_counts: Patches of label 0, 1 and -1.
        channel_sums: Over all pixels, the sums of the values of each channel,
            and those of their squares. Integers, so that they add up to the
            same in any order.
        num_contradictions: Labels that `schema.find_contradictions` finds.
        faults: Patches left out.
    """

    shard: manifest.Shard
    label_counts: list[int]
    channel_sums: list[list[int]]
    num_contradictions: int
    faults: list[faults.Fault]


def write(path: str, fingerprint: str, result: ShardResult) -> None:
    """Notes that a shard and its part of the sidecar are finished.

    Args:
        path: Where the shard is.
        fingerprint: A hash of what it depends on.
        result: What came of it.
    """
    content = {
        "fingerprint": fingerprint,
        "sidecar_sha256": manifest.hash_file(f"{path}.csv"),
        "result": dataclasses.asdict(result),
    }
    files.write_text(f"{path}{ENDING}", json.dumps(content), is_shared=True)


def read(path: str, fingerprint: str) -> ShardResult | None:
    """Returns what came of a finished shard; None if it must be written.

    The shard and its part of the sidecar are read and hashed.

    Args:
        path: Where the shard is.
        fingerprint: A hash of what it depends on now.
    """
    try:
        with files.open_file(f"{path}{ENDING}") as file:
            content = json.load(file)
        noted = content["result"]
        shard = manifest.Shard(**noted.pop("shard"))
        bad = [faults.Fault(**fault) for fault in noted.pop("faults")]
        result = ShardResult(shard=shard, faults=bad, **noted)
        is_sound = (
            content["fingerprint"] == fingerprint
            and manifest.hash_file(path) == result.shard.sha256
            and manifest.hash_file(f"{path}.csv") == content["sidecar_sha256"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return result if is_sound else None
