"""Checks a records folder against its manifest, byte by byte."""

import dataclasses
import hashlib
import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.system import csv_files, files, workers

_COUNT_EVERY = 256


@dataclasses.dataclass(frozen=True)
class VerifyTask:
    """A shard file, what the manifest says of it, and its sidecar ids."""

    path: str
    split: manifest.Split
    shard: manifest.Shard
    ids: tuple[str, ...]


def verify(records_dir: str, *, num_workers: int = 0) -> list[str]:
    """Returns a line for each fault of a records folder; none if it is sound.

    Checks every file's size and SHA-256, every record's framing, CRCs and id
    against its pixels, the counts per class, the ids of the sidecar, and that
    there are no other files.

    Raises:
        FileNotFoundError, ValueError: it is no records folder at all.
    """
    content = manifest.read(records_dir)
    problems = _file_problems(records_dir, content)
    tasks = _plan(records_dir, content)
    with workers.Workers(num_workers) as pool:
        parts = pool.map(
            verify_shard,
            tasks,
            num_patches=sum(split.num_records for split in content.splits),
            description="verify",
        )
    counts: dict[str, np.ndarray] = {}
    for task, (shard_problems, label_counts) in zip(tasks, parts, strict=True):
        problems += shard_problems
        counts[task.split.name] = counts.get(task.split.name, 0) + label_counts
    return problems + _count_problems(content, counts)


def verify_shard(task: VerifyTask) -> tuple[list[str], np.ndarray]:
    """Returns the faults of one shard, and its patches of label 0, 1, -1."""
    label_counts = np.zeros(3, np.int64)
    size = files.size(task.path)
    if size is None:
        return [f"{task.path}: not found. Convert again."], label_counts
    problems = []
    if size != task.shard.num_bytes:
        problems.append(
            f"{task.path}: found {size:,} bytes, expected"
            f" {task.shard.num_bytes:,}. Copy the file again or convert again."
        )
    digest = hashlib.sha256()
    layout = task.split.layout
    with files.open_file(task.path, "rb") as file:
        for place in range(task.shard.num_records):
            record = file.read(layout.record_bytes)
            digest.update(record)
            fault = _record_fault(record, task, place)
            if fault:
                problems.append(
                    f"{task.path}: record {place} (byte"
                    f" {place * layout.record_bytes:,}): {fault}."
                )
                if len(record) < layout.record_bytes:
                    break
                continue
            labeled = task.split.labeled
            label_counts[record[layout.label_offset] if labeled else -1] += 1
            if place % _COUNT_EVERY == 0:
                workers.count_done(
                    min(_COUNT_EVERY, task.shard.num_records - place)
                )
        digest.update(file.read())
    if digest.hexdigest() != task.shard.sha256:
        problems.append(
            f"{task.path}: found SHA-256 {digest.hexdigest()}, expected"
            f" {task.shard.sha256}. Copy the file again or convert again."
        )
    return problems, label_counts


def _plan(records_dir: str, content: manifest.Manifest) -> list[VerifyTask]:
    path = os.path.join(records_dir, manifest.SIDECAR_FILE)
    try:
        rows = csv_files.read_csv(path, ("shard", "id"))
    except (OSError, ValueError):
        rows = []  # Its hash has told.
    ids: dict[str, list[str]] = {}
    for shard, patch_id in rows:
        ids.setdefault(shard, []).append(patch_id)
    return [
        VerifyTask(
            path=os.path.join(records_dir, shard.name),
            split=split,
            shard=shard,
            ids=tuple(ids.get(shard.name, ())),
        )
        for split in content.splits
        for shard in split.shards
    ]


def _file_problems(records_dir: str, content: manifest.Manifest) -> list[str]:
    problems = []
    for name, expected in content.file_sha256.items():
        path = os.path.join(records_dir, name)
        if not files.is_file(path):
            problems.append(f"{path}: not found. Convert again.")
            continue
        found = manifest.hash_file(path)
        if found != expected:
            problems.append(
                f"{path}: found SHA-256 {found}, expected {expected}. Copy the"
                " file again or convert again."
            )
    known = manifest.list_files(content)
    problems += [
        f"{os.path.join(records_dir, name)}: found a file that the manifest"
        " does not name. Remove it."
        for name in sorted(set(files.list_names(records_dir)) - known)
    ]
    return problems


def _record_fault(record: bytes, task: VerifyTask, place: int) -> str | None:
    layout = task.split.layout
    fault = tfrecord.find_fault(record, layout)
    if fault:
        return fault
    if task.split.labeled and record[layout.label_offset] > schema.POSITIVE:
        return f"found label {record[layout.label_offset]}, expected 0 or 1"
    start = layout.id_offset
    found = record[start : start + schema.ID_BYTES].decode("ascii")
    if place < len(task.ids) and found != task.ids[place]:
        return f"found id {found}, the sidecar says {task.ids[place]}"
    return None


def _count_problems(
    content: manifest.Manifest, counts: dict[str, np.ndarray]
) -> list[str]:
    problems = []
    for split in content.splits:
        for label, expected in split.class_counts.items():
            found = int(counts[split.name][int(label)])
            if found != expected:
                problems.append(
                    f"{split.name}: found {found:,} sound patches of label"
                    f" {label}, the manifest says {expected:,}."
                )
    return problems
