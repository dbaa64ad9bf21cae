"""From a source of patches to a records folder: plan, write, publish.

The plan is pure. Each shard is written by one process, into a folder beside the
output that is renamed when all is done: a killed job leaves no records folder.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata

import numpy as np

import pcam_tfdata
from pcam_tfdata import (
    faults,
    identity,
    manifest,
    publish,
    records,
    sharding,
    shards,
    workers,
)
from pcam_tfdata.sources import kaggle, listing

MEGABYTE = 1_000_000
TEST_SPLIT = "test"
_PACKAGES = ("numpy", "pillow", "google-crc32c")

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
    # Of a link, what it points at is replaced, not the link.
    output_dir = os.path.realpath(options.output_dir)
    publish.check_output(output_dir, overwrite=options.overwrite)
    train, found = kaggle.list_train(options.input_dir, options.slide_csv)
    test, more = kaggle.list_test(options.input_dir)
    found += more
    with workers.Workers(options.num_workers) as pool:
        ids, more = _settle_ids(pool, [*train, *test], found, options)
        found += more
        _fail_or_go_on(found, options)
        splits = plan_splits(train, test, ids, options)
        with _incomplete(output_dir) as folder:
            made = _write(pool, splits, folder, found, options)
            publish.rename_into_place(folder, output_dir)
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
    if not 0 < options.shard_megabytes < float("inf"):
        raise ValueError(
            f"--shard_megabytes: found {options.shard_megabytes}, expected a"
            " positive size."
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
    """Returns the id of each patch, by path, and the faults seen on the way.

    Names that are hashes are checked when the pixels are read for writing. If
    they are none, if the job fails anyway and should name every fault, or if
    folds must be dealt without the bad patches, all pixels are read and hashed
    before.
    """
    trusted = identity.names_are_hashes(patches, options.check_ids)
    if trusted and not found and options.on_bad_patch == "fail":
        return {patch.path: patch.name for patch in patches}, []
    return identity.hash_all(pool, patches, options.check_ids)


@contextlib.contextmanager
def _incomplete(output_dir: str) -> Iterator[str]:
    """Makes a folder to write in, beside the output; removed on failure."""
    folder = f"{output_dir}.incomplete"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(
    pool: workers.Workers,
    splits: Sequence[SplitPlan],
    folder: str,
    found: list[faults.Fault],
    options: ConvertOptions,
) -> manifest.Manifest:
    tasks = [
        _plan_shards(split, folder, options.shard_megabytes) for split in splits
    ]
    results = iter(
        pool.map(
            shards.write_shard,
            [task for split_tasks in tasks for task in split_tasks],
            num_patches=sum(len(split.patches) for split in splits),
            description="convert",
        )
    )
    by_split = [[next(results) for _ in part] for part in tasks]
    late = [f for part in by_split for result in part for f in result.faults]
    _fail_or_go_on(late, options)
    made = manifest.Manifest(
        splits=tuple(
            publish.describe_split(
                split.name, labeled=split.labeled, results=part
            )
            for split, part in zip(splits, by_split, strict=True)
        ),
        options=_lasting(options),
        versions={"pcam_tfdata": pcam_tfdata.__version__}
        | {package: metadata.version(package) for package in _PACKAGES},
    )
    return publish.write_folder(folder, made, found + late)


def _lasting(options: ConvertOptions) -> dict[str, object]:
    """Returns the options that shape the data, without any path."""
    return {
        "source": options.source,
        "num_folds": options.num_folds,
        "grouped_by_slide": options.slide_csv is not None,
        "shard_megabytes": options.shard_megabytes,
        "seed": options.seed,
        "check_ids": options.check_ids,
        "on_bad_patch": options.on_bad_patch,
    }


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
