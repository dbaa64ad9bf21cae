"""From a source of patches to a records folder: plan, write, publish.

The plan is pure. Each shard is written by one process, into a folder beside the
output that is renamed when all is done: a killed job leaves no records folder.
"""

import dataclasses
import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from importlib import metadata

import numpy as np

import pcam_tfdata
from pcam_tfdata import (
    faults,
    manifest,
    records,
    schema,
    sharding,
    shards,
    tables,
    workers,
)
from pcam_tfdata.sources import kaggle, listing

MEGABYTE = 1_000_000
TEST_SPLIT = "test"
_NUM_PROBES = 64
_HASH_TASK_PATCHES = 1024

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and how.

    Attributes:
        input_dir: The source: Kaggle's folder.
        output_dir: The records folder to make.
        source: Kind of source: `kaggle`.
        slide_csv: Slide of each patch: columns `id` and `slide` or `wsi`.
        num_folds: Splits that the labelled patches are dealt into.
        num_workers: Processes; 0 for one a core.
        shard_megabytes: Largest size of a shard, in 1,000,000 bytes.
        seed: Another one deals other folds.
        check_ids: `auto`, `always` or `never`: whether an id must be the SHA-1
            of its pixels. With `auto`, it must as soon as one id is.
        on_bad_patch: `fail`, or `skip` to leave out what cannot be used.
        overwrite: Replaces a finished output.
    """

    input_dir: str
    output_dir: str
    source: str = "kaggle"
    slide_csv: str | None = None
    num_folds: int = 5
    num_workers: int = 0
    shard_megabytes: float = 256
    seed: int = 0
    check_ids: str = "auto"
    on_bad_patch: str = "fail"
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """The patches of a split and their ids, in the order of its records."""

    name: str
    labeled: bool
    patches: Sequence[listing.Patch]
    ids: Sequence[str]


def convert(options: ConvertOptions) -> manifest.Manifest:
    """Writes the records folder of a source.

    Returns:
        The manifest of what was written.

    Raises:
        faults.BadInputError: patches are bad and `on_bad_patch` is `fail`.
        FileExistsError: the output is there already.
        FileNotFoundError, ValueError: the source or an option is not usable.
        OSError: the disk is full, or the like. Nothing is published.
    """
    _check_options(options)
    _check_output(options)
    train, train_faults = kaggle.list_train(
        options.input_dir, options.slide_csv
    )
    test, test_faults = kaggle.list_test(options.input_dir)
    found = train_faults + test_faults
    with workers.Workers(options.num_workers) as pool:
        ids, more_faults = _settle_ids(pool, train + test, found, options)
        _fail_or_go_on(found + more_faults, options)
        splits = plan_splits(train, test, ids, options)
        incomplete_dir = f"{options.output_dir.rstrip(os.sep)}.incomplete"
        shutil.rmtree(incomplete_dir, ignore_errors=True)
        os.makedirs(incomplete_dir)
        try:
            results = _write_shards(pool, splits, incomplete_dir, options)
            late_faults = [f for result in results for f in result.faults]
            _fail_or_go_on(late_faults, options)
            made = _describe(splits, results, options)
            skipped = found + more_faults + late_faults
            _write_folder(incomplete_dir, made, skipped)
        except BaseException:
            shutil.rmtree(incomplete_dir, ignore_errors=True)
            raise
    _publish(incomplete_dir, options.output_dir)
    return made


def plan_splits(
    train: Sequence[listing.Patch],
    test: Sequence[listing.Patch],
    ids: dict[str, str],
    options: ConvertOptions,
) -> list[SplitPlan]:
    """Returns the splits in the order of the sidecar: folds, then test.

    Args:
        train: Labelled patches, in any order.
        test: Unlabelled patches, whose order is kept.
        ids: Record id of each patch, by path; patches without one are left out.
        options: Of the conversion.
    """
    train = sorted(
        (patch for patch in train if patch.path in ids),
        key=lambda patch: (ids[patch.path], patch.name),
    )
    test = [patch for patch in test if patch.path in ids]
    if not train:
        raise ValueError(
            f"{options.input_dir}: found no labelled patch that can be used,"
            " expected at least one."
        )
    train_ids = [ids[patch.path] for patch in train]
    test_ids = [ids[patch.path] for patch in test]
    _warn_of_leaks(train, train_ids, test_ids)
    slides = [patch.slide for patch in train] if options.slide_csv else None
    fold_of_patch = sharding.assign_folds(
        sharding.group_patches(train_ids, slides),
        [patch.label for patch in train],
        num_folds=options.num_folds,
        seed=options.seed,
    )
    splits = []
    for fold in range(options.num_folds):
        places = np.flatnonzero(fold_of_patch == fold)
        patches = [train[place] for place in places]
        fold_ids = [train_ids[place] for place in places]
        splits.append(SplitPlan(f"fold{fold}", True, patches, fold_ids))
    if test:
        splits.append(SplitPlan(TEST_SPLIT, False, test, test_ids))
    return splits


def _check_options(options: ConvertOptions) -> None:
    if options.num_folds < 1:
        raise ValueError(
            f"--num_folds: found {options.num_folds}, expected 1 or more."
        )
    if options.shard_megabytes <= 0:
        raise ValueError(
            f"--shard_megabytes: found {options.shard_megabytes}, expected a"
            " positive size."
        )


def _check_output(options: ConvertOptions) -> None:
    output_dir = options.output_dir
    if not os.path.lexists(output_dir):
        return
    if not os.path.isdir(output_dir):
        raise FileExistsError(
            f"{output_dir}: found a file, expected a folder to be made there."
            " Choose another --output_dir."
        )
    content = os.listdir(output_dir)
    finished = manifest.MANIFEST_FILE in content
    if finished and not options.overwrite:
        raise FileExistsError(
            f"{output_dir}: found finished records. Pass --overwrite to replace"
            " them, or choose another --output_dir."
        )
    if content and not finished:
        raise FileExistsError(
            f"{output_dir}: found a folder with other files in it, expected"
            " none or an empty one. Choose another --output_dir."
        )


def _fail_or_go_on(
    found: Sequence[faults.Fault], options: ConvertOptions
) -> None:
    if found and options.on_bad_patch == "fail":
        raise faults.BadInputError(found)


def _settle_ids(
    pool: workers.Workers,
    patches: Sequence[listing.Patch],
    found: Sequence[faults.Fault],
    options: ConvertOptions,
) -> tuple[dict[str, str], list[faults.Fault]]:
    """Returns the record id of each patch, by path, and the faults seen.

    Where names are hashes they are the ids, and are checked when the pixels are
    read for writing. Else all pixels are read and hashed once before, as they
    are when the job is to fail and should name all the faults there are.
    """
    trusted = _are_names_hashes(patches, options.check_ids)
    names = [patch.name for patch in patches]
    if trusted and (not found or options.on_bad_patch == "skip"):
        return {patch.path: patch.name for patch in patches}, []
    tasks = [
        shards.HashTask(
            patches[start : start + _HASH_TASK_PATCHES],
            names[start : start + _HASH_TASK_PATCHES] if trusted else None,
        )
        for start in range(0, len(patches), _HASH_TASK_PATCHES)
    ]
    parts = pool.map(
        shards.hash_patches,
        tasks,
        num_patches=len(patches),
        description="hash",
    )
    hashes = [digest for part, _ in parts for digest in part]
    bad = [fault for _, part in parts for fault in part]
    if not trusted and options.check_ids == "auto":
        mismatches = _find_mismatches(patches, hashes)
        bad += mismatches
        wrong = {fault.name for fault in mismatches}
        hashes = [
            None if patch.name in wrong else digest
            for patch, digest in zip(patches, hashes, strict=True)
        ]
    ids = {
        patch.path: digest
        for patch, digest in zip(patches, hashes, strict=True)
        if digest is not None
    }
    return ids, bad


def _are_names_hashes(patches: Sequence[listing.Patch], check_ids: str) -> bool:
    """Returns whether names are to be the hashes of their pixels.

    With `auto`, 64 patches spread over the source decide: one hit is enough.
    """
    if check_ids != "auto":
        return check_ids == "always"
    named = sorted(
        (patch for patch in patches if schema.is_hash(patch.name)),
        key=lambda patch: patch.name,
    )
    bounds = sharding.shard_bounds(
        len(named), min(_NUM_PROBES, len(named)) or 1
    )
    probes = [named[place] for place in bounds[:-1] if place < len(named)]
    hashes, _ = shards.hash_patches(shards.HashTask(probes, None))
    return any(
        patch.name == digest
        for patch, digest in zip(probes, hashes, strict=True)
    )


def _find_mismatches(
    patches: Sequence[listing.Patch], hashes: Sequence[str | None]
) -> list[faults.Fault]:
    """Returns the names that are no hashes in a source where some are."""
    read = [
        (patch, digest)
        for patch, digest in zip(patches, hashes, strict=True)
        if digest is not None
    ]
    if not any(patch.name == digest for patch, digest in read):
        _logger.info(
            "No id is the SHA-1 of its pixels: the records get hashes for ids,"
            " %s keeps the source's names.",
            manifest.SIDECAR_FILE,
        )
        return []
    return [
        faults.Fault(patch.name, shards.mismatch(patch, digest, patch.name))
        for patch, digest in read
        if patch.name != digest
    ]


def _warn_of_leaks(
    train: Sequence[listing.Patch],
    train_ids: Sequence[str],
    test_ids: Sequence[str],
) -> None:
    num_shared = len(set(train_ids) & set(test_ids))
    if num_shared:
        _logger.warning(
            "Warning: the pixels of %s test patches are in train too.",
            f"{num_shared:,}",
        )
    if train[0].slide is None:
        _logger.warning(
            "Warning: no --slide_csv, so folds are by patch: a slide may be on"
            " both sides, and validation will be optimistic."
        )


def _write_shards(
    pool: workers.Workers,
    splits: Sequence[SplitPlan],
    folder: str,
    options: ConvertOptions,
) -> list[shards.ShardResult]:
    tasks = [
        task
        for split in splits
        for task in _plan_shards(split, folder, options.shard_megabytes)
    ]
    return pool.map(
        shards.write_shard,
        tasks,
        num_patches=sum(len(split.patches) for split in splits),
        description="convert",
    )


def _plan_shards(
    split: SplitPlan, folder: str, shard_megabytes: float
) -> list[shards.ShardTask]:
    layout = records.layout(labeled=split.labeled)
    num_shards = sharding.count_shards(
        len(split.patches),
        record_bytes=layout.record_bytes,
        shard_bytes=int(shard_megabytes * MEGABYTE),
    )
    bounds = sharding.shard_bounds(len(split.patches), num_shards)
    return [
        shards.ShardTask(
            path=os.path.join(
                folder, sharding.shard_name(split.name, shard, num_shards)
            ),
            split=split.name,
            labeled=split.labeled,
            patches=split.patches[bounds[shard] : bounds[shard + 1]],
            ids=split.ids[bounds[shard] : bounds[shard + 1]],
        )
        for shard in range(num_shards)
    ]


def _describe(
    splits: Sequence[SplitPlan],
    results: Sequence[shards.ShardResult],
    options: ConvertOptions,
) -> manifest.Manifest:
    described = []
    for split in splits:
        prefix = f"pcam-{split.name}."
        mine = [r for r in results if r.shard.name.startswith(prefix)]
        described.append(_describe_split(split, mine))
    packages = ("numpy", "pillow", "google-crc32c")
    return manifest.Manifest(
        splits=tuple(described),
        options={
            "source": options.source,
            "num_folds": options.num_folds,
            "grouped_by_slide": options.slide_csv is not None,
            "shard_megabytes": options.shard_megabytes,
            "seed": options.seed,
            "check_ids": options.check_ids,
            "on_bad_patch": options.on_bad_patch,
        },
        versions={"pcam_tfdata": pcam_tfdata.__version__}
        | {package: metadata.version(package) for package in packages},
    )


def _describe_split(
    split: SplitPlan, results: Sequence[shards.ShardResult]
) -> manifest.Split:
    label_counts = sum(result.label_counts for result in results)
    values, squares = sum(result.channel_sums for result in results)
    num_records = int(label_counts.sum())
    if not num_records:
        raise ValueError(
            f"Split {split.name}: found no patch that can be used, expected at"
            " least one. Ask for fewer folds, or mend the source."
        )
    num_pixels = num_records * schema.PATCH_SIZE**2
    mean = values / num_pixels
    std = np.sqrt(squares / num_pixels - mean**2)
    labels = (0, 1) if split.labeled else (-1,)
    return manifest.Split(
        name=split.name,
        labeled=split.labeled,
        layout=records.layout(labeled=split.labeled),
        shards=tuple(result.shard for result in results),
        class_counts={str(n): int(label_counts[n]) for n in labels},
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(std.tolist()),
    )


def _write_folder(
    folder: str, made: manifest.Manifest, skipped: Sequence[faults.Fault]
) -> None:
    """Joins the parts of the sidecar and writes all files but the shards."""
    path = os.path.join(folder, manifest.SIDECAR_FILE)
    rows = itertools.count()
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


def _publish(folder: str, output_dir: str) -> None:
    """Renames the finished folder to its place."""
    replaced = f"{output_dir.rstrip(os.sep)}.replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if os.path.isdir(output_dir):
        os.rename(output_dir, replaced)
    os.rename(folder, output_dir)
    shutil.rmtree(replaced, ignore_errors=True)
