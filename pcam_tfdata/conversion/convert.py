"""From a source of patches to a records folder: plan, write, publish.

The plan is pure. Each shard is written by one process, here or on Apache Beam,
into a folder beside the output that is renamed when all is done: a killed job
leaves no records folder, and the next one goes on from the shards that it
finished.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.beam import beam_job, beam_pool
from pcam_tfdata.conversion import (
    duplicates,
    identity,
    plan,
    publish,
    workspace,
    write_shard,
)
from pcam_tfdata.records import manifest
from pcam_tfdata.sources import catalog, listing
from pcam_tfdata.system import faults, files, remote, versions, workers

MEGABYTE = 1_000_000
# Labels that may contradict the masks, as an annotator's slip; an exchanged or
# inverted file of labels has far more.
MAX_CONTRADICTIONS = 5
_BEAM = "beam"

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and how.

    Attributes:
        input_dir: The source, see `sources`.
        output_dir: The records folder to make.
        source: Kind of source, one of `choices.SOURCES`.
        slide_csv: Slide of each patch: columns `id` and `slide` or `wsi`.
        class_folders: Of `folder`: those of label 0 and of label 1.
        follow_symlinks: Whether links among the source's files are followed.
        num_folds: Splits that the labelled patches are dealt into, where the
            source does not say which patch is in which split.
        num_workers: Processes; 0 for one a core.
        shard_megabytes: Largest size of a shard, in 1,000,000 bytes.
        seed: Another one deals other folds.
        check_ids: `auto`, `always` or `never`: whether an id must be the SHA-1
            of its pixels. With `auto`, it must as soon as one id is.
        on_bad_patch: `fail`, or `skip` to leave out what cannot be used.
        on_label_mismatch: `fail`, or `warn` to keep any number of labels that
            contradict what the source says of tumor in the centre.
        overwrite: Replaces a finished output, and drops an unfinished one.
        runner: `local`, or `beam` for Apache Beam.
        beam_options: Of `beam`: flags of Beam's own, as on a command line.
    """

    input_dir: str
    output_dir: str
    source: str = "kaggle"
    slide_csv: str | None = None
    class_folders: Sequence[str] = ("0", "1")
    follow_symlinks: bool = False
    num_folds: int = 5
    num_workers: int = 0
    shard_megabytes: float = 256
    seed: int = 0
    check_ids: str = "auto"
    on_bad_patch: str = "fail"
    on_label_mismatch: str = "fail"
    overwrite: bool = False
    runner: str = "local"
    beam_options: str = ""


def convert(options: ConvertOptions) -> manifest.Manifest:
    """Writes the records folder of a source, or goes on with a killed job.

    Returns:
        The manifest of what was written.

    Raises:
        faults.BadInputError: patches are bad and `on_bad_patch` is `fail`.
        FileExistsError: the output is there already.
        FileNotFoundError, ValueError: the source or an option is not usable.
        RuntimeError: another process is at it, or a worker was killed.
        OSError: the disk is full, or the like. What is finished stays.
    """
    _check_options(options)
    # Of a link, what it points at is replaced, not the link.
    output_dir = files.resolve(options.output_dir)
    publish.check_output(output_dir, overwrite=options.overwrite)
    with workspace.open_folder(output_dir, restart=options.overwrite) as place:
        # Another process may have finished in between.
        publish.check_output(output_dir, overwrite=options.overwrite)
        folder, made = _fill(place, options)
        publish.put_into_place(folder, output_dir, made)
    return made


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
    if options.slide_csv is not None and options.source != "kaggle":
        raise ValueError(
            f"--slide_csv: found it with --source={options.source}, expected it"
            " with kaggle alone: no other source reads it. Leave it out."
        )
    _check_runner(options)
    paths = [options.output_dir, options.slide_csv]
    if options.source != "tfds":  # TensorFlow Datasets reads its own.
        paths.append(options.input_dir)
    for path in paths:
        if path is not None and files.is_remote(path):
            remote.require(path)


def _check_runner(options: ConvertOptions) -> None:
    if options.runner == _BEAM:
        if options.num_workers:
            raise ValueError(
                f"--num_workers: found {options.num_workers} with --runner=beam,"
                " expected it with local alone. Say it in --beam_options."
            )
        beam_job.parse_options(options.beam_options)
    elif options.beam_options:
        raise ValueError(
            f"--beam_options: found {options.beam_options!r} with"
            f" --runner={options.runner}, expected it with beam alone. Leave it"
            " out, or pass --runner=beam."
        )


def _fill(
    place: workspace.Workspace, options: ConvertOptions
) -> tuple[str, manifest.Manifest]:
    """Writes all that a records folder holds, and returns where."""
    with _open_pool(place, options) as pool:
        listings, found = catalog.list_patches(
            catalog.SourceOptions(
                options.source,
                _find_input(options),
                slide_csv=options.slide_csv,
                class_folders=tuple(options.class_folders),
                follow_symlinks=options.follow_symlinks,
                unpacked_dir=place.unpacked_dir,
            )
        )
        ids, more = _settle_ids(pool, listings, found, options)
        found += more
        _fail_or_go_on(found, options, _count_usable(listings, ids))
        _check_center_tumor(listings, options)
        splits = plan.plan_splits(
            listings,
            ids,
            num_folds=options.num_folds,
            seed=options.seed,
            shard_bytes=int(options.shard_megabytes * MEGABYTE),
        )
        if not any(split.patches.labeled for split in splits):
            raise ValueError(
                f"{options.input_dir}: found no labelled patch that can be"
                " used, expected at least one."
            )
        folder = place.records_dir
        if options.runner == _BEAM:
            folder = place.open_records_of(plan.fingerprint(splits))
        return folder, _write(pool, splits, folder, found, options)


def _find_input(options: ConvertOptions) -> str:
    """Returns the path of the source, for every process that may read it."""
    if options.runner == _BEAM and not files.is_remote(options.input_dir):
        return os.path.abspath(options.input_dir)
    return options.input_dir


def _open_pool(
    place: workspace.Workspace, options: ConvertOptions
) -> workers.Workers | beam_pool.BeamPool:
    if options.runner == _BEAM:
        return beam_pool.BeamPool(
            place.beam_dir, options.beam_options, versions.of_conversion()
        )
    return workers.Workers(
        options.num_workers, prepare_for=write_shard.write_shard
    )


def _settle_ids(
    pool: workers.Pool,
    listings: Sequence[listing.Listing],
    found: Sequence[faults.Fault],
    options: ConvertOptions,
) -> tuple[list[np.ndarray | None], list[faults.Fault]]:
    """Returns the id of each patch, and the faults seen on the way.

    Names that are hashes are checked when the pixels are read for writing. If
    the job fails anyway and should name every fault, or if folds must be dealt
    by the pixels or without the bad patches, all are read and hashed before.
    """
    trusted = identity.names_are_hashes(listings, options.check_ids)
    is_clean = not found and options.on_bad_patch == "fail"
    if trusted and is_clean:
        return [patches.names for patches in listings], []
    is_dealt = any(patches.is_dealt for patches in listings)
    if not trusted and not found and not is_dealt:
        return [None for _ in listings], []
    ids, bad = identity.hash_all(pool, listings, options.check_ids)
    if any(
        np.any((found_ids != patches.names) & (found_ids != b""))
        for patches, found_ids in zip(listings, ids, strict=True)
    ):
        _logger.info(
            "Records have hashes for ids, and the source's names in %s.",
            manifest.SIDECAR_FILE,
        )
    return ids, bad


def _count_usable(
    listings: Sequence[listing.Listing], ids: Sequence[np.ndarray | None]
) -> int:
    """Returns how many patches have an id, or will have one."""
    return sum(
        len(patches) if found is None else np.count_nonzero(found != b"")
        for patches, found in zip(listings, ids, strict=True)
    )


def _fail_or_go_on(
    found: Sequence[faults.Fault], options: ConvertOptions, num_usable: int
) -> None:
    if found and options.on_bad_patch == "fail":
        raise faults.BadInputError(found, num_usable)


def _check_center_tumor(
    listings: Sequence[listing.Listing], options: ConvertOptions
) -> None:
    """Judges labels by what the source says in a table beside them."""
    counts = {
        patches.split: schema.find_contradictions(
            patches.labels, patches.center_tumor
        ).sum()
        for patches in listings
        if patches.center_tumor is not None
    }
    _judge_labels(counts, "center_tumor_patch in the meta file", options)


def _judge_labels(
    counts: Mapping[str, int], what: str, options: ConvertOptions
) -> None:
    """Warns of labels that contradict something; refuses more than a few.

    Args:
        counts: Of these labels, by split.
        what: What they contradict.
        options: Of the conversion.
    """
    total = sum(counts.values())
    if not total:
        return
    places = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n)
    told = (
        f"{options.input_dir}: found {total:,} labels that contradict {what}"
        f" ({places})"
    )
    if total > MAX_CONTRADICTIONS and options.on_label_mismatch == "fail":
        raise ValueError(
            f"{told}, expected {MAX_CONTRADICTIONS} at most. Look whether the"
            " labels of two splits, or 0 and 1, are exchanged, and mend them; or"
            " pass --on_label_mismatch=warn to keep them."
        )
    _logger.warning(
        "Warning: %s. They are kept; pcam audit lists those against masks.",
        told,
    )


def _write(
    pool: workers.Pool,
    splits: Sequence[plan.SplitPlan],
    folder: str,
    found: list[faults.Fault],
    options: ConvertOptions,
) -> manifest.Manifest:
    results = pool.map(
        write_shard.write_shard,
        (task for split in splits for task in split.list_tasks(folder)),
        num_patches=sum(len(split.rows) for split in splits),
        description="convert",
    )
    late = [fault for result in results for fault in result.faults]
    num_usable = sum(result.shard.num_records for result in results)
    _fail_or_go_on(late, options, num_usable)
    ends = np.cumsum([split.num_shards for split in splits])
    of_split = {
        split.name: results[end - split.num_shards : end]
        for split, end in zip(splits, ends, strict=True)
    }
    counts = {
        name: sum(result.num_contradictions for result in parts)
        for name, parts in of_split.items()
    }
    _judge_labels(counts, "the masks", options)
    made = manifest.Manifest(
        splits=tuple(
            publish.describe_split(
                split.name,
                labeled=split.patches.labeled,
                results=of_split[split.name],
            )
            for split in splits
        ),
        options=_lasting(options, splits),
        versions=versions.of_conversion(),
    )
    skipped = found + late
    if skipped:
        _logger.warning("%s patches skipped.", f"{faults.count(skipped):,}")
    written = publish.write_folder(folder, made, skipped)
    _warn(folder, splits)
    return written


def _lasting(
    options: ConvertOptions, splits: Sequence[plan.SplitPlan]
) -> dict[str, object]:
    """Returns the options that shape the data, without any path."""
    return {
        "source": options.source,
        "num_folds": options.num_folds,
        "grouped_by_slide": any(
            split.patches.is_dealt and split.patches.slides is not None
            for split in splits
        ),
        "shard_megabytes": options.shard_megabytes,
        "seed": options.seed,
        "check_ids": options.check_ids,
        "on_bad_patch": options.on_bad_patch,
    }


def _warn(folder: str, splits: Sequence[plan.SplitPlan]) -> None:
    """Says what makes scores on these records optimistic."""
    for line in duplicates.describe(folder):
        _logger.warning("Warning: %s", line)
    if any(
        split.patches.is_dealt and split.patches.slides is None
        for split in splits
    ):
        _logger.warning(
            "Warning: no --slide_csv, so folds are by patch: a slide may be on"
            " both sides, and validation will be optimistic."
        )
