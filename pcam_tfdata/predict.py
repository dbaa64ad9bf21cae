"""From patches to a CSV of `id,label`: Kaggle's submission.

Records are predicted as one stream of batches. Its results are cut at the ends
of shards, and each shard's are a part on disk at once, so a killed job goes on
with the shards that are missing. Memory holds the logits of a shard, whatever
the number of patches; names are read when the CSV is written.
"""

import dataclasses
import itertools
import logging
import os
from collections.abc import Iterable, Iterator

import tensorflow as tf

from pcam_tfdata import (
    faults,
    inference,
    manifest,
    name_columns,
    parts,
    pipeline,
    run_files,
    strategy,
    submission,
    tables,
)
from pcam_tfdata.sources import kaggle, listing

_logger = logging.getLogger(__name__)
_PARTS_ENDING = ".parts"


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What to predict.

    Attributes:
        run_dir: Folder of a run; its best model predicts.
        output_csv: Where to.
        records_dir: Records folder; or else
        input_dir: Kaggle's folder, read without records.
        split: Of the records; of a folder, `test` or `train`.
        batch_size: Patches of a forward pass, over all replicas; rounded up to
            what these can share evenly.
        input: Way in to records, one of `choices.INPUTS`.
        input_threads: See `pipeline.Source`.
        strategy: One of `choices.STRATEGIES`.
        num_virtual_devices: See `strategy.make_strategy`.
        allow_cpu: See `strategy.make_strategy`.
        threshold: None for probabilities; else labels 0 and 1, where a
            probability at or above it gives 1.
        sample_submission: A CSV whose ids, in order, the output must have.
        restart: Drops the parts that a killed job left.
    """

    run_dir: str
    output_csv: str
    records_dir: str | None = None
    input_dir: str | None = None
    split: str = "test"
    batch_size: int = 512
    input: str = "auto"
    input_threads: int = 0
    strategy: str = "one_device"
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    threshold: float | None = None
    sample_submission: str | None = None
    restart: bool = False


def predict(options: PredictOptions) -> int:
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
    model_path = run_files.find_model(options.run_dir)
    _check_output(options.output_csv)
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    if options.records_dir is None:
        return _predict_folder(options, model_path, distribution)
    return _predict_records(options, model_path, distribution)


def _check_output(output_csv: str) -> None:
    folder = os.path.dirname(output_csv) or "."
    if os.path.isdir(output_csv):
        raise FileExistsError(
            f"{output_csv}: found a folder, expected a file to write. Check"
            " --output_csv."
        )
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise FileNotFoundError(
            f"{output_csv}: found no folder {folder} that can be written in."
            " Check --output_csv."
        )


def _predict_records(
    options: PredictOptions,
    model_path: str,
    distribution: tf.distribute.Strategy,
) -> int:
    patches = inference.open_patches(
        pipeline.Source(
            options.records_dir,
            [options.split],
            options.input,
            input_threads=options.input_threads,
        ),
        strategy.list_devices(distribution),
    )
    job = {
        "model_sha256": manifest.hash_file(model_path),
        "manifest_sha256": manifest.hash_manifest(options.records_dir),
        "split": options.split,
    }
    folder = f"{options.output_csv}{_PARTS_ENDING}"
    with parts.open_folder(folder, job, restart=options.restart) as done:
        # Before the network runs: it may take an hour.
        _check_sidecar(options, patches.num_patches)
        sample = _read_sample(options, _read_names(options))
        _predict_missing(options, model_path, distribution, patches, done)
        submission.write(
            options.output_csv,
            _read_names(options),
            map(done.read, patches.selection.shards),
            sample=sample,
            threshold=options.threshold,
        )
    return patches.num_patches


def _predict_missing(
    options: PredictOptions,
    model_path: str,
    distribution: tf.distribute.Strategy,
    patches: pipeline.Patches,
    done: parts.Parts,
) -> None:
    """Writes the parts from the first on that is not there."""
    shards = patches.selection.shards
    # Parts are written in order, so no later one is there.
    missing = list(itertools.dropwhile(done.has, shards))
    num_there = len(shards) - len(missing)
    if num_there:
        _logger.info(
            "%s: %d of %d shards were there.",
            options.output_csv, num_there, len(shards),
        )  # fmt: skip
    if not missing:
        return
    results = inference.stream_all(
        patches,
        model_path,
        distribution,
        options.batch_size,
        "predict",
        first_patch=missing[0].first_row - shards[0].first_row,
    )
    for shard, logit in parts.cut(results, missing):
        done.write(shard, logit)


def _read_names(options: PredictOptions) -> Iterator[str]:
    """Yields the names of a split's patches; memory holds one at a time."""
    path = os.path.join(options.records_dir, manifest.SIDECAR_FILE)
    for split, name in tables.iterate_csv(path, ("split", "source_name")):
        if split == options.split:
            yield name


def _check_sidecar(options: PredictOptions, num_patches: int) -> None:
    num_names = sum(1 for _ in _read_names(options))
    if num_names != num_patches:
        path = os.path.join(options.records_dir, manifest.SIDECAR_FILE)
        raise ValueError(
            f"{path}: found {num_names:,} rows of {options.split}, expected"
            f" {num_patches:,}. Convert again."
        )


def _read_sample(
    options: PredictOptions, names: Iterable[str]
) -> submission.Sample | None:
    if options.sample_submission is None:
        return None
    return submission.read_sample(options.sample_submission, names)


def _predict_folder(
    options: PredictOptions,
    model_path: str,
    distribution: tf.distribute.Strategy,
) -> int:
    listed = _list_folder(options)
    names = name_columns.to_text(listed.names)
    sample = _read_sample(options, names)
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
    )
    return len(names)


def _list_folder(options: PredictOptions) -> listing.Listing:
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
