"""From patches to a CSV of `id,label`: Kaggle's submission.

Records are predicted as one stream of batches. Its results are cut at the ends
of shards, and each shard's are a part on disk at once, so a killed job goes on
with the shards that are missing. Memory holds the logits of a shard, whatever
the number of patches; names are read when the CSV is written.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from pcam_tfdata.conversion import identity
from pcam_tfdata.distribution import strategy
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.prediction import configuration, merge, parts, submission
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import run_folder
from pcam_tfdata.sources import kaggle, listing
from pcam_tfdata.system import faults, files, name_arrays, workers

_logger = logging.getLogger(__name__)


@strategy.keras_settings()
def predict(options: configuration.PredictOptions) -> int:
    """Writes a row `id,label` for every patch of a split; the ids are the
    source's own names.

    From records it makes a folder `OUTPUT.parts` while it runs.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError: model, patches or sample are not there or
            do not fit each other, or another process writes this output, or
            the parts there are of another job. No CSV is written then.
    """
    if options.records_dir is None:
        return _predict_folder(options)
    return _predict_records(options)


@strategy.keras_settings()
def predict_range(options: configuration.PredictOptions) -> int:
    """Writes the parts of some shards, which stay for `merge.merge`.

    Any number of processes may do so at once, on hosts that share a folder.
    Shards that have a part are passed over.

    Args:
        options: With `records_dir` and `shard_range`.

    Returns:
        How many patches the shards have.

    Raises:
        FileNotFoundError, ValueError: as in `predict`, or there are no such
            shards.
        RuntimeError: a process is writing the CSV from the parts.
    """
    distribution, patches = _open(options)
    shards = patches.selection.shards
    chosen = configuration.parse_range(options.shard_range, len(shards))
    job = merge.describe_job(options)
    with parts.share_folder(options.parts_dir, job) as done:
        _predict_missing(options, distribution, patches, chosen, done)
    return sum(shard.num_records for shard in shards[chosen])


def _open(
    options: configuration.PredictOptions,
) -> tuple[tf.distribute.Strategy, patch_source.Patches]:
    """Returns what computes, and the patches of a split of the records."""
    run_folder.find_model(options.run_dir)
    configuration.check_output(
        options, stays_in_parts=options.shard_range is not None
    )
    distribution = _make_strategy(options)
    patches = inference.open_patches(
        patch_source.Source(
            records_folder.open_folder(options.records_dir),
            [options.split],
            options.input,
            input_threads=options.input_threads,
        ),
        strategy.list_devices(distribution),
    )
    return distribution, patches


def _make_strategy(
    options: configuration.PredictOptions,
) -> tf.distribute.Strategy:
    return strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )


def _predict_records(options: configuration.PredictOptions) -> int:
    distribution, patches = _open(options)
    shards = patches.selection.shards
    job = merge.describe_job(options)
    with _open_parts(options, job) as done:
        writer = merge.Writer(options, shards)
        every = slice(0, len(shards))
        _predict_missing(options, distribution, patches, every, done)
        return writer.write(done)


@contextlib.contextmanager
def _open_parts(
    options: configuration.PredictOptions, job: Mapping[str, str]
) -> Iterator[parts.Parts]:
    """Opens the folder of the parts; of a pipe or a device, one of no name."""
    folder = options.parts_dir
    with contextlib.ExitStack() as stack:
        if files.is_stream(options.output_csv):
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            folder = os.path.join(temporary, "parts")
        yield stack.enter_context(
            parts.open_folder(folder, job, restart=options.restart)
        )


def _predict_missing(
    options: configuration.PredictOptions,
    distribution: tf.distribute.Strategy,
    patches: patch_source.Patches,
    chosen: slice,
    done: parts.Parts,
) -> None:
    """Writes the parts of some shards that are not there."""
    shards = patches.selection.shards
    missing = merge.list_missing(shards, chosen, done)
    num_chosen = chosen.stop - chosen.start
    num_there = num_chosen - sum(run.stop - run.start for run in missing)
    if num_there:
        _logger.info(
            "%s: %d of %d shards were there.",
            options.output_csv, num_there, num_chosen,
        )  # fmt: skip
    if not missing:
        return
    model_path = run_folder.find_model(options.run_dir)
    predictor = inference.load(model_path, distribution, patches.fill)
    for run in missing:
        results = predictor.stream_patches(
            patches,
            options.batch_size,
            "predict",
            first_patch=int(patches.selection.starts[run.start]),
            end_patch=int(patches.selection.starts[run.stop]),
        )
        for shard, logit in parts.cut(results, shards[run]):
            done.write(shard, logit)


def _predict_folder(options: configuration.PredictOptions) -> int:
    model_path = run_folder.find_model(options.run_dir)
    configuration.check_output(options)
    distribution = _make_strategy(options)
    listed, left_out = _list_usable(options)
    names = name_arrays.to_text(listed.names)
    sample = merge.read_sample(options, names, left_out)
    patches = patch_source.ImageFiles(listing.list_paths(listed.images))
    predictor = inference.load(model_path, distribution, patches.fill)
    logits = []
    for batch in predictor.stream_patches(
        patches, options.batch_size, "predict"
    ):
        if patches.faults:  # A file has changed since it was checked.
            raise faults.BadInputError(patches.faults)
        logits.append(batch["logit"])
    submission.write(
        options.output_csv,
        names,
        logits,
        sample=sample,
        threshold=options.threshold,
        allow_equal=options.allow_equal_probabilities,
    )
    return len(names)


def _list_usable(
    options: configuration.PredictOptions,
) -> tuple[listing.Listing, set[str]]:
    """Returns the patches of a folder that can be used; all files are read.

    Beside them it returns the names of the others.
    """
    patches, found = _list_folder(options)
    check_ids = options.check_ids
    if check_ids == "auto" and _others_are_hashed(options):
        check_ids = "always"
    (hashes,), bad = identity.hash_all(workers.Threads(), [patches], check_ids)
    found += bad
    if found and options.on_bad_patch == "fail":
        raise faults.BadInputError(found, np.count_nonzero(hashes != b""))
    if found:
        _logger.warning(
            "%s\nWarning: patches with these faults are left out of %s.",
            faults.BadInputError(found), options.output_csv,
        )  # fmt: skip
    usable = patches.take(np.flatnonzero(hashes != b""))
    if not len(usable):
        raise ValueError(
            f"{options.input_dir}: found no {options.split} patch that can be"
            " used, expected at least one. Check --input_dir."
        )
    return usable, {fault.name for fault in found}


def _list_folder(
    options: configuration.PredictOptions,
) -> tuple[listing.Listing, list[faults.Fault]]:
    if options.split not in (kaggle.TEST, kaggle.TRAIN):
        raise ValueError(
            f"--split: found {options.split!r}, expected {kaggle.TEST} or"
            f" {kaggle.TRAIN} with --input_dir."
        )
    is_test = options.split == kaggle.TEST
    list_split = kaggle.list_test if is_test else kaggle.list_train
    return list_split(
        options.input_dir, follow_symlinks=options.follow_symlinks
    )


def _others_are_hashed(options: configuration.PredictOptions) -> bool:
    """Returns whether names of the other split are the SHA-1 of the pixels.

    A conversion of the folder would then ask it of both splits.
    """
    is_test = options.split == kaggle.TEST
    others = kaggle.list_files(
        options.input_dir,
        kaggle.TRAIN if is_test else kaggle.TEST,
        follow_symlinks=options.follow_symlinks,
    )
    return identity.names_are_hashes([others], "auto")
