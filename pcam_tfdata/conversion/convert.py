"""From a source of patches to a records folder: plan, write, publish.

The plan is pure. Each shard is written by one process, here or on Apache Beam,
into a folder beside the output that is renamed when all is done: a killed job
leaves no records folder, and the next one goes on from the shards that it
finished.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
from collections.abc import Iterator, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.beam import beam_job
from pcam_tfdata.conversion import (
    contradictions,
    describe_folder,
    identity,
    journal,
    leaks,
    plan,
    publish,
    workspace,
    write_shard,
)
from pcam_tfdata.records import manifest
from pcam_tfdata.sources import catalog, listing
from pcam_tfdata.system import faults, files, versions, workers

_BEAM = "beam"

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and how.

    Attributes:
        input: Which patches.
        output_dir: The records folder to make.
        num_folds: Splits that the labelled patches are dealt into, where the
            source does not say which patch is in which split.
        num_workers: Processes; 0 for one a core, 1 for this one alone.
        shard_megabytes: Largest size of a shard, in 1,000,000 bytes.
        seed: Another one deals other folds.
        check_ids: `auto`, `always` or `never`: whether an id must be the SHA-1
            of its pixels. With `auto`, it must if one of 64 ids looked at is.
        on_bad_patch: `fail`, or `skip` to leave out what cannot be used.
        on_label_mismatch: `fail`, or `warn` to keep any number of labels that
            contradict what the source says of tumor in the centre.
        overwrite: Replaces a finished output, and drops an unfinished one.
        runner: `local`, or `beam` for Apache Beam.
        beam_options: With `beam`, flags of Beam's own, as on a command line.
    """

    input: listing.SourceOptions
    output_dir: str
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
    options = dataclasses.replace(options, output_dir=output_dir)
    overwrite = options.overwrite
    with workspace.open_folder(output_dir, overwrite=overwrite) as records_dir:
        return _fill_and_publish(records_dir, options)


def _check_options(options: ConvertOptions) -> None:
    source = options.input.source
    if options.input.slide_csv is not None and source != "kaggle":
        raise ValueError(
            f"--slide_csv: found it with --source={source}, expected it with"
            " kaggle alone: no other source reads it. Leave it out."
        )
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


def _fill_and_publish(
    records_dir: str, options: ConvertOptions
) -> manifest.Manifest:
    """Writes a records folder and puts it into place; returns its manifest."""
    with _open_workers(options) as map_tasks:
        splits, bad = _plan(map_tasks, options)
        if options.runner == _BEAM:
            tasks = (task for split in splits for task in split.list_tasks(""))
            records_dir = workspace.take_records_of(
                options.output_dir, write_shard.fingerprint_all(tasks)
            )
        results = map_tasks(
            write_shard.write_shard,
            (task for s in splits for task in s.list_tasks(records_dir)),
            num_patches=sum(len(split.rows) for split in splits),
            description="convert",
        )
    late = [fault for result in results for fault in result.faults]
    num_usable = sum(result.shard.num_records for result in results)
    _refuse_bad(late, options, num_usable)
    if skipped := bad + late:
        _logger.warning("%s patches skipped.", f"{len(skipped):,}")
    content = _describe(splits, results, options)
    written = describe_folder.write_files(records_dir, content, skipped)
    for line in leaks.describe_copies(records_dir):
        _logger.warning("Warning: %s", line)
    if any(s.patches.is_dealt and s.patches.slides is None for s in splits):
        _logger.warning(
            "Warning: slides are unknown%s, so folds are by patch: a slide may"
            " be on both sides, and validation will be optimistic.",
            " (no --slide_csv)" if options.input.source == "kaggle" else "",
        )
    publish.put_into_place(records_dir, options.output_dir, written)
    return written


@contextlib.contextmanager
def _open_workers(options: ConvertOptions) -> Iterator[identity.MapTasks]:
    """Yields what calls a function for many tasks, such as `Workers.map`."""
    if options.runner == _BEAM:
        yield functools.partial(
            beam_job.map_tasks,
            folder=workspace.locate(options.output_dir, workspace.BEAM),
            beam_options=options.beam_options,
            expected=versions.of_conversion(),
        )
        return
    with workers.Workers(
        options.num_workers, prepare_for=write_shard.write_shard
    ) as pool:
        yield pool.map


def _plan(
    map_tasks: identity.MapTasks, options: ConvertOptions
) -> tuple[list[plan.SplitPlan], list[faults.Fault]]:
    """Returns the splits to write, and the faults of patches left out."""
    input_dir = options.input.input_dir
    if options.runner == _BEAM and not files.is_remote(input_dir):
        input_dir = os.path.abspath(input_dir)  # Workers are elsewhere.
    unpacked_dir = workspace.locate(options.output_dir, workspace.UNPACKED)
    listings, bad = catalog.list_patches(
        dataclasses.replace(
            options.input, input_dir=input_dir, unpacked_dir=unpacked_dir
        )
    )
    ids, unfit = identity.settle_ids(
        map_tasks,
        listings,
        options.check_ids,
        has_faults=bool(bad),
        skips_bad=options.on_bad_patch == "skip",
    )
    bad += unfit
    num_usable = sum(int(np.sum(own != b"")) for own in ids if own is not None)
    _refuse_bad(bad, options, num_usable)
    contradictions.judge(
        {
            p.split: schema.find_contradictions(p.labels, p.center_tumor).sum()
            for p in listings
            if p.center_tumor is not None
        },
        "center_tumor_patch in the meta file",
        options.input.input_dir,
        options.on_label_mismatch,
    )
    splits = plan.plan_splits(
        listings,
        ids,
        num_folds=options.num_folds,
        seed=options.seed,
        shard_bytes=int(options.shard_megabytes * 1_000_000),
    )
    if not any(split.patches.labeled for split in splits):
        raise ValueError(
            f"{options.input.input_dir}: found no labelled patch that can be"
            " used, expected at least one."
        )
    return splits, bad


def _refuse_bad(
    bad: Sequence[faults.Fault], options: ConvertOptions, num_usable: int
) -> None:
    if bad and options.on_bad_patch == "fail":
        raise faults.BadInputError(bad, num_usable)


def _describe(
    splits: Sequence[plan.SplitPlan],
    results: Sequence[journal.ShardResult],
    options: ConvertOptions,
) -> manifest.Manifest:
    """Returns the manifest; judges labels by the masks."""
    rest = iter(results)
    results_of = {
        split.name: list(itertools.islice(rest, split.num_shards))
        for split in splits
    }
    contradictions.judge(
        {
            name: sum(result.num_contradictions for result in own)
            for name, own in results_of.items()
        },
        "the masks",
        options.input.input_dir,
        options.on_label_mismatch,
    )
    return manifest.Manifest(
        tuple(
            describe_folder.describe_split(split, results_of[split.name])
            for split in splits
        ),
        {  # What shapes the data, without any path.
            "source": options.input.source,
            "num_folds": options.num_folds,
            "grouped_by_slide": any(
                split.patches.is_dealt and split.patches.slides is not None
                for split in splits
            ),
            "shard_megabytes": options.shard_megabytes,
            "seed": options.seed,
            "check_ids": options.check_ids,
            "on_bad_patch": options.on_bad_patch,
        },
        versions.of_conversion(),
    )
