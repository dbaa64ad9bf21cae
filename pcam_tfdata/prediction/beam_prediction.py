"""Prediction on Apache Beam: a task is a range of shards."""

import dataclasses
import itertools
import os

from pcam_tfdata.beam import beam_pool
from pcam_tfdata.prediction import configuration, predict
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import versions

_SHARDS_PER_TASK = 8  # A task loads the network, which takes seconds.


def predict_records(
    options: configuration.PredictOptions, beam_options: str
) -> int:
    """Does what `predict.predict` does from records, on a runner's workers.

    Records, run and output must lie where all workers see them, on a file
    system. Killed, it goes on with the ranges that are missing.

    Args:
        options: What to predict.
        beam_options: Beam's flags, see `beam_job.parse_options`.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as in `predict.predict`, or
            Beam refuses the flags, or fails.
    """
    configuration.check_output(options, stays_in_parts=True)
    options = dataclasses.replace(
        options,
        run_dir=os.path.abspath(options.run_dir),
        records_dir=os.path.abspath(options.records_dir),
        output_csv=os.path.abspath(options.output_csv),
    )
    records = records_folder.open_folder(options.records_dir)
    shards = records.select_patches([options.split]).shards
    # What is not there, or does not fit, is told at once.
    predict.describe_job(options, records)
    predict.list_rows(options, records)
    folder = f"{options.output_csv}.beam"
    expected = versions.of_prediction()
    with beam_pool.BeamPool(folder, beam_options, expected) as pool:
        pool.map(
            predict.predict_range,
            _list_tasks(options, len(shards)),
            num_patches=sum(shard.num_records for shard in shards),
            description="predict",
        )
    return predict.merge(options)


def _list_tasks(
    options: configuration.PredictOptions, num_shards: int
) -> list[configuration.PredictOptions]:
    """Returns what to predict, for `predict.predict_range`."""
    ends = [*range(0, num_shards, _SHARDS_PER_TASK), num_shards]
    return [
        dataclasses.replace(options, shard_range=f"{start}:{end}")
        for start, end in itertools.pairwise(ends)
    ]
