"""From patches to a CSV of `id,label`: Kaggle's submission.

Records are predicted as one stream of batches. Its results are cut at the ends
of shards, and each shard's are a part on disk at once, so a killed job goes on
with the shards that are missing. Memory holds the logits of a shard, whatever
the number of patches; names are read when the CSV is written.
"""

import logging

import tensorflow as tf

from pcam_tfdata import (
    faults,
    inference,
    merge,
    name_columns,
    parts,
    pipeline,
    predict_options,
    run_files,
    strategy,
    submission,
)
from pcam_tfdata.sources import kaggle, listing

_logger = logging.getLogger(__name__)


def predict(options: predict_options.PredictOptions) -> int:
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


def predict_range(options: predict_options.PredictOptions) -> int:
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
    chosen = predict_options.parse_range(options.shard_range, len(shards))
    job = merge.describe_job(options)
    with parts.share_folder(options.parts_dir, job) as done:
        _predict_missing(options, distribution, patches, chosen, done)
    return sum(shard.num_records for shard in shards[chosen])


def _open(
    options: predict_options.PredictOptions,
) -> tuple[tf.distribute.Strategy, pipeline.Patches]:
    """Returns what computes, and the patches of a split of the records."""
    run_files.find_model(options.run_dir)
    predict_options.check_output(options.output_csv)
    distribution = _make_strategy(options)
    patches = inference.open_patches(
        pipeline.Source(
            options.records_dir,
            [options.split],
            options.input,
            input_threads=options.input_threads,
        ),
        strategy.list_devices(distribution),
    )
    return distribution, patches


def _make_strategy(
    options: predict_options.PredictOptions,
) -> tf.distribute.Strategy:
    return strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )


def _predict_records(options: predict_options.PredictOptions) -> int:
    distribution, patches = _open(options)
    shards = patches.selection.shards
    job = merge.describe_job(options)
    with parts.open_folder(
        options.parts_dir, job, restart=options.restart
    ) as done:
        writer = merge.Writer(options, shards)
        every = slice(0, len(shards))
        _predict_missing(options, distribution, patches, every, done)
        return writer.write(done)


def _predict_missing(
    options: predict_options.PredictOptions,
    distribution: tf.distribute.Strategy,
    patches: pipeline.Patches,
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
    for run in missing:
        results = inference.stream_all(
            patches,
            run_files.find_model(options.run_dir),
            distribution,
            options.batch_size,
            "predict",
            first_patch=int(patches.selection.starts[run.start]),
            end_patch=int(patches.selection.starts[run.stop]),
        )
        for shard, logit in parts.cut(results, shards[run]):
            done.write(shard, logit)


def _predict_folder(options: predict_options.PredictOptions) -> int:
    model_path = run_files.find_model(options.run_dir)
    predict_options.check_output(options.output_csv)
    distribution = _make_strategy(options)
    listed = _list_folder(options)
    names = name_columns.to_text(listed.names)
    sample = merge.read_sample(options, names)
    patches = pipeline.ImageFiles(listing.list_paths(listed.images))
    found = inference.predict_all(
        patches, model_path, distribution, options.batch_size, "predict"
    )
    if patches.faults:
        raise faults.BadInputError(patches.faults)
    submission.write(
        options.output_csv,
        names,
        [found["logit"]],
        sample=sample,
        threshold=options.threshold,
        allow_equal=options.allow_equal_probabilities,
    )
    return len(names)


def _list_folder(options: predict_options.PredictOptions) -> listing.Listing:
    if options.split == kaggle.TEST:
        patches, found = kaggle.list_test(options.input_dir)
    elif options.split == kaggle.TRAIN:
        patches, found = kaggle.list_train(options.input_dir)
    else:
        raise ValueError(
            f"--split: found {options.split!r}, expected {kaggle.TEST} or"
            f" {kaggle.TRAIN} with --input_dir."
        )
    if found:
        raise faults.BadInputError(found)
    if not len(patches):
        raise ValueError(
            f"{options.input_dir}: found no {options.split} patch, expected at"
            " least one. Check --input_dir."
        )
    return patches
