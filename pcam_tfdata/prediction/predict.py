"""From patches to a CSV of `id,label`: Kaggle's submission.

Records are predicted as one stream of batches. Its results are cut at the ends
of shards, and each shard's are a part on disk at once, so a killed job goes on
with the shards that are missing.
"""

import contextlib
import logging
import os
import tempfile

import numpy as np
import pandas

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import image_files
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

    From records it makes a folder `OUTPUT.parts` while it runs.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError: model, patches or sample are not there or
            do not fit each other, or another process writes this output, or
            the parts there are of another job. No CSV is written then.
    """
    configuration.check_output(options)
    if options.input_dir:
        return _predict_folder(options)
    records = records_folder.open_folder(options.records_dir)
    selection = records.select_patches([options.split])
    job = describe_job(options, records)
    with contextlib.ExitStack() as stack:
        folder = options.parts_dir
        if files.is_stream(options.output_csv):  # Nothing can lie beside it.
            temporary = stack.enter_context(tempfile.TemporaryDirectory())
            folder = os.path.join(temporary, "parts")
        parts = stack.enter_context(
            part_files.open_folder(folder, job, restart=options.restart)
        )
        rows = list_rows(options, records)  # First: it may take an hour.
        _write_missing(options, records, selection, slice(None), parts)
        return submission.write(
            options, rows, map(parts.read, selection.shards)
        )


@replicas.keras_settings()
def predict_range(options: configuration.PredictOptions) -> int:
    """Writes the parts of some shards, which stay for `merge`.

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
    configuration.check_output(options, stays_in_parts=True)
    records = records_folder.open_folder(options.records_dir)
    selection = records.select_patches([options.split])
    shards = selection.shards
    chosen = part_files.parse_range(options.shard_range, len(shards))
    job = describe_job(options, records)
    with part_files.open_folder(
        options.parts_dir, job, is_shared=True
    ) as parts:
        _write_missing(options, records, selection, chosen, parts)
    return sum(shard.num_records for shard in shards[chosen])


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
        rows = list_rows(options, records)
        return submission.write(options, rows, map(parts.read, shards))


def describe_job(
    options: configuration.PredictOptions, records: records_folder.RecordsFolder
) -> dict[str, str]:
    """Returns what parts belong to.

    Raises:
        FileNotFoundError: there is no model.
    """
    model_path = run_folder.find_model(options.run_dir)
    return {
        "model_sha256": manifest.hash_file(model_path),
        "manifest_sha256": records.manifest_sha256,
        "split": options.split,
    }


def list_rows(
    options: configuration.PredictOptions, records: records_folder.RecordsFolder
) -> submission.Rows:
    """Returns the rows of the CSV of a split of records.

    Raises:
        FileNotFoundError, ValueError: sidecar or sample do not fit the patches.
    """
    sidecar = records.read_sidecar(["split", "source_name", "id"])
    patches = sidecar[sidecar["split"] == options.split]
    names = patches["source_name"]
    rows = submission.list_rows(records.sidecar_path, names, patches["id"])
    if options.sample_submission:
        return submission.read_sample(options.sample_submission, names)
    return rows


def _write_missing(
    options: configuration.PredictOptions,
    records: records_folder.RecordsFolder,
    selection: records_folder.Selection,
    chosen: slice,
    parts: part_files.Parts,
) -> None:
    """Writes the parts of chosen shards that are not there."""
    shards = selection.shards[chosen]
    starts = selection.starts[chosen.start or 0 :].tolist()
    missing = parts.list_missing(shards)
    num_there = len(shards) - sum(gap.stop - gap.start for gap in missing)
    if num_there:
        _logger.info(
            "%s: %d of %d shards were there.",
            options.output_csv, num_there, len(shards),
        )  # fmt: skip
    if not missing:
        return
    forward = options.forward
    strategy, patches = forward.open_records(records, [options.split])
    model_path = run_folder.find_model(options.run_dir)
    predictor = inference.load(model_path, strategy, patches.fill)
    for gap in missing:
        results = predictor.stream_patches(
            patches,
            forward.batch_size,
            "predict",
            first_patch=starts[gap.start],
            end_patch=starts[gap.stop],
        )
        for shard, logit in part_files.cut(results, shards[gap]):
            parts.write(shard, logit)


def _predict_folder(options: configuration.PredictOptions) -> int:
    model_path = run_folder.find_model(options.run_dir)
    strategy = replicas.make_strategy(options.forward.devices)
    usable = usable_files.list_usable(options)
    names = name_arrays.to_text(usable.names)
    ids = pandas.Series(names, dtype=object)
    rows = submission.Rows(ids, np.arange(len(ids)))
    if options.sample_submission:
        rows = submission.read_sample(options.sample_submission, names)
    patches = image_files.ImageFiles(listing.list_paths(usable.images))
    predictor = inference.load(model_path, strategy, patches.fill)
    logits = []
    for batch in predictor.stream_patches(
        patches, options.forward.batch_size, "predict"
    ):
        if patches.faults:  # A file has changed since it was checked.
            raise faults.BadInputError(patches.faults)
        logits.append(batch["logit"])
    return submission.write(options, rows, logits)
