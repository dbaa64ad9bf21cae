"""Checks a records folder against its manifest, byte by byte."""

import collections
import dataclasses
import hashlib
import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.records import manifest, records_folder, tfrecord
from pcam_tfdata.system import files, workers


@dataclasses.dataclass(frozen=True)
class VerifyTask:
    """A shard file, what the manifest says of it, and its sidecar ids."""

    file: records_folder.ShardFile
    sha256: str
    ids: tuple[str, ...]


def verify(records_dir: str, *, num_workers: int = 0) -> list[str]:
    """Returns a line for each fault of a records folder; none if it is sound.

    Checks every file's size and SHA-256, every record's framing, CRCs and id
    against its pixels, the counts per class, the ids of the sidecar, and that
    there are no other files.

    Raises:
        FileNotFoundError, ValueError: it is no records folder at all.
    """
    records = records_folder.open_folder(records_dir)
    problems = _file_problems(records)
    tasks = _list_tasks(records)
    with workers.Workers(num_workers) as pool:
        parts = pool.map(
            verify_shard,
            tasks,
            num_patches=records.num_patches,
            description="verify",
        )
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for shard_problems, shard_counts in parts:
        problems += shard_problems
        counts += shard_counts
    return problems + _count_problems(records.content, counts)


def verify_shard(
    task: VerifyTask,
) -> tuple[list[str], collections.Counter[tuple[str, str]]]:
    """Returns the faults of a shard, and its sound patches by split and label."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    problems = []
    shard, layout = task.file, task.file.layout
    try:
        shard.check_size()
    except FileNotFoundError as error:
        return [str(error)], counts
    except ValueError as error:
        problems.append(str(error))
    digest = hashlib.sha256()
    with files.open_file(shard.path, "rb") as file:
        for number in range(shard.num_records):
            record = file.read(layout.record_bytes)
            digest.update(record)
            if fault := _record_fault(record, task, number):
                problems.append(shard.describe(number, fault))
            else:
                label = record[layout.label_offset] if shard.labeled else -1
                counts[shard.split, str(label)] += 1
            if len(record) < layout.record_bytes:
                break
        digest.update(file.read())
    workers.count_done(shard.num_records)
    if digest.hexdigest() != task.sha256:
        problems.append(
            _describe_hash(shard.path, digest.hexdigest(), task.sha256)
        )
    return problems, counts


def _list_tasks(records: records_folder.RecordsFolder) -> list[VerifyTask]:
    try:
        ids = records.read_sidecar(["id"])["id"].tolist()
    except (OSError, ValueError):
        ids = []  # What is wrong with it is said where files are checked.
    sha256 = [
        s.sha256 for split in records.content.splits for s in split.shards
    ]
    return [
        VerifyTask(shard, expected, tuple(ids[shard.first_row : shard.end_row]))
        for shard, expected in zip(records.list_shards(), sha256, strict=True)
    ]


def _file_problems(records: records_folder.RecordsFolder) -> list[str]:
    problems = []
    for name, expected in records.content.file_sha256.items():
        path = os.path.join(records.path, name)
        if not files.is_file(path):
            problems.append(f"{path}: not found. Convert again.")
        elif (found := manifest.hash_file(path)) != expected:
            problems.append(_describe_hash(path, found, expected))
    known = manifest.list_files(records.content)
    return problems + [
        f"{os.path.join(records.path, name)}: found a file that the manifest"
        " does not name. Remove it."
        for name in sorted(set(files.list_names(records.path)) - known)
    ]


def _describe_hash(path: str, found: str, expected: str) -> str:
    return (
        f"{path}: found SHA-256 {found}, expected {expected}. Copy the file"
        " again or convert again."
    )


def _record_fault(record: bytes, task: VerifyTask, number: int) -> str | None:
    """Returns what is wrong with a record, its id or its label, or None."""
    layout = task.file.layout
    if fault := tfrecord.find_frame_fault(record, layout):
        return fault
    if task.file.labeled and record[layout.label_offset] > schema.POSITIVE:
        return f"found label {record[layout.label_offset]}, expected 0 or 1"
    pixels = np.frombuffer(
        record, np.uint8, schema.IMAGE_BYTES, layout.image_offset
    )
    sha1 = schema.hash_pixels(pixels)
    start = layout.id_offset
    patch_id = record[start : start + schema.ID_BYTES].decode(
        "ascii", "replace"
    )
    if patch_id != sha1:
        return f"id {patch_id} is not the SHA-1 of the pixels, {sha1}"
    if number < len(task.ids) and patch_id != task.ids[number]:
        return f"found id {patch_id}, the sidecar says {task.ids[number]}"
    return None


def _count_problems(
    content: manifest.Manifest, counts: collections.Counter[tuple[str, str]]
) -> list[str]:
    return [
        f"{split.name}: found {counts[split.name, label]:,} sound patches of"
        f" label {label}, the manifest says {expected:,}."
        for split in content.splits
        for label, expected in split.class_counts.items()
        if counts[split.name, label] != expected
    ]
