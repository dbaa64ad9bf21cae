"""From patches to a CSV of `id,label`: Kaggle's submission.

Records are predicted as one stream of batches. Its results are cut at the ends
of shards, and each shard's are a part on disk at once, so a killed job goes on
with the shards that are missing.
"""

import logging
from collections.abc import Iterator

import numpy as np
import pandas
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import image_files, patch_source
from pcam_tfdata.prediction import (
    configuration,
    part_files,
    submission,
    usable_files,
)
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import run_folder
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, name_arrays

_logger = logging.getLogger(__name__)


@replicas.keras_settings()
def predict(options: configuration.PredictOptions) -> int:
    """Writes a row `id,label` for every patch of a split; the ids are the
    source's own names.

    From records it makes a folder `OUTPUT.parts` while it runs. With a range of
    shards it writes their parts alone, which stay for `merge`: any number of
    processes may do so at once, on hosts that share a folder.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError: model, patches, range or sample are not
            there or do not fit each other, or the parts there are of another
            job. No CSV is written then.
        RuntimeError: another process writes this output.
    """
    configuration.check_output(
        options, stays_in_parts=bool(options.shard_range)
    )
    if options.input_dir:
        return _predict_folder(options)
    records = records_folder.open_folder(options.records_dir)
    job = describe_job(options, records)
    strategy, patches = options.forward.open_records(records, [options.split])
    shards = patches.selection.shards
    if options.shard_range:
        chosen = part_files.parse_range(options.shard_range, len(shards))
        with part_files.open_folder(
            options.parts_dir, job, is_shared=True
        ) as parts:
            _write_missing(options, strategy, patches, chosen, parts)
        return sum(shard.num_records for shard in shards[chosen])
    # First: the network may run for an hour.
    rows = submission.list_rows(options, records)
    point = options.read_point()
    # Nothing can lie beside a pipe, and parts have no fractions.
    if files.is_stream(options.output_csv) or options.with_fraction:
        predictions = inference.join(_stream(options, strategy, patches))
        return submission.write(options, point, rows, predictions)
    with part_files.open_folder(
        options.parts_dir, job, restart=options.restart
    ) as parts:
        _write_missing(options, strategy, patches, slice(None), parts)
        return submission.write(options, point, rows, parts.join(shards))


@replicas.keras_settings()
def predict_array(
    options: configuration.PredictOptions, images: np.ndarray | None = None
) -> np.ndarray:
    """Returns the probability of each patch in order: float64 [num_patches].

    The patches are images, uint8 [num_patches, 96, 96, 3], or a split of records.

    Raises:
        FileNotFoundError, ValueError: model or patches do not fit.
    """
    point = options.read_point()
    patches: patch_source.Patches | image_files.ImageFiles
    if images is None:
        records = records_folder.open_folder(options.records_dir)
        strategy, patches = options.forward.open_records(
            records, [options.split]
        )
    else:
        if images.dtype != np.uint8 or images.shape[1:] != schema.IMAGE_SHAPE:
            raise ValueError(
                f"found images {images.dtype}{list(images.shape)}, expected"
                f" uint8[n, {', '.join(map(str, schema.IMAGE_SHAPE))}]."
            )
        patches = image_files.ImageFiles(images, np.asarray)
        strategy = replicas.make_strategy(options.forward.devices)
    if not patches.num_patches:
        return np.empty(0)
    logits = inference.join(_stream(options, strategy, patches))
    return point.calibrate(logits["logit"])


def merge(options: configuration.PredictOptions) -> int:
    """Writes the CSV of a prediction whose parts are all there.

    They are removed then.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError: a part is not there, or the parts are of
            another model or other records, or the sample does not fit them.
        RuntimeError: a process is writing parts.
    """
    configuration.check_output(options, stays_in_parts=True)
    records = records_folder.open_folder(options.records_dir)
    shards = records.select_patches([options.split]).shards
    job = describe_job(options, records)
    with part_files.open_folder(options.parts_dir, job) as parts:
        parts.require(shards)
        rows = submission.list_rows(options, records)
        point = options.read_point()
        return submission.write(options, point, rows, parts.join(shards))


def describe_job(
    options: configuration.PredictOptions, records: records_folder.RecordsFolder
) -> dict[str, str]:
    """Returns what parts belong to.

    Raises:
        FileNotFoundError: there is no model.
    """
    model_path = run_folder.find_model(options.run_dir)
    job = {
        "model_sha256": manifest.hash_file(model_path),
        "manifest_sha256": records.manifest_sha256,
        "split": options.split,
    }
    if options.forward.tta != "none":
        job["tta"] = options.forward.tta
    return job


def _write_missing(
    options: configuration.PredictOptions,
    strategy: tf.distribute.Strategy,
    patches: patch_source.Patches,
    chosen: slice,
    parts: part_files.Parts,
) -> None:
    """Writes the parts of chosen shards that are not there."""
    shards = patches.selection.shards[chosen]
    starts = patches.selection.starts[chosen.start or 0 :].tolist()
    missing = parts.list_missing(shards)
    num_there = len(shards) - sum(gap.stop - gap.start for gap in missing)
    if num_there:
        _logger.info(
            "%s: %d of %d shards were there.",
            options.output_csv, num_there, len(shards),
        )  # fmt: skip
    if not missing:
        return
    model_path = run_folder.find_model(options.run_dir)
    predictor = inference.load(
        model_path, strategy, patches.fill, options.forward.tta
    )
    for gap in missing:
        results = predictor.stream_patches(
            patches,
            options.forward.batch_size,
            "predict",
            first_patch=starts[gap.start],
            end_patch=starts[gap.stop],
        )
        for shard, logit in part_files.cut(results, shards[gap]):
            parts.write(shard, logit)


def _predict_folder(options: configuration.PredictOptions) -> int:
    run_folder.find_model(options.run_dir)  # Before all files are read.
    point = options.read_point()
    strategy = replicas.make_strategy(options.forward.devices)
    usable = usable_files.list_usable(options)
    rows = pandas.Series(name_arrays.to_text(usable.names), dtype=object)
    if options.sample_submission:
        rows = submission.read_sample(options.sample_submission, rows)
    patches = image_files.ImageFiles(listing.list_paths(usable.images))
    batches = []
    for batch in _stream(options, strategy, patches):
        if patches.faults:  # A file has changed since it was checked.
            raise faults.BadInputError(patches.faults)
        batches.append(batch)
    return submission.write(options, point, rows, inference.join(batches))


def _stream(
    options: configuration.PredictOptions,
    strategy: tf.distribute.Strategy,
    patches: patch_source.Patches | image_files.ImageFiles,
) -> Iterator[inference.Logits]:
    """Yields the results of all patches, batch by batch and in order."""
    model_path = run_folder.find_model(options.run_dir)
    predictor = inference.load(
        model_path, strategy, patches.fill, options.forward.tta
    )
    if options.with_fraction and not predictor.has_fraction:
        raise ValueError(
            f"--with_fraction: found {model_path}, which gives no tumor fraction,"
            " expected a network of pcam train --head=fraction or"
            " pcam train --head=noisy_or. Leave it out."
        )
    return predictor.stream_patches(
        patches, options.forward.batch_size, "predict"
    )
