"""Prediction on Apache Beam: a task is a range of shards."""

import dataclasses
import itertools
import os

from pcam_tfdata.beam import beam_job
from pcam_tfdata.prediction import configuration, predict, submission
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
    beam_job.parse_options(beam_options)
    configuration.check_output(options, stays_in_parts=True)
    paths = ("run_dir", "records_dir", "output_csv")
    options = dataclasses.replace(
        options, **{p: os.path.abspath(getattr(options, p)) for p in paths}
    )
    records = records_folder.open_folder(options.records_dir)
    shards = records.select_patches([options.split]).shards
    # What is not there, or does not fit, is told at once.
    predict.describe_job(options, records)
    submission.list_rows(options, records)
    options.read_point()
    ends = [*range(0, len(shards), _SHARDS_PER_TASK), len(shards)]
    spans = [f"{start}:{end}" for start, end in itertools.pairwise(ends)]
    beam_job.map_tasks(
        predict.predict,
        [dataclasses.replace(options, shard_range=span) for span in spans],
        num_patches=sum(shard.num_records for shard in shards),
        description="predict",
        folder=f"{options.output_csv}.beam",
        beam_options=beam_options,
        expected=versions.of_prediction(),
    )
    return predict.merge(options)
