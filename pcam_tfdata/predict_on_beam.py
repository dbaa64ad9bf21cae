"""Prediction on Apache Beam: a task is a range of shards."""

import dataclasses
import os

from pcam_tfdata import beam_pool, merge, predict, predict_options, versions
from pcam_tfdata.pipeline import selection

_SHARDS_PER_TASK = 8  # A task loads the network, which takes seconds.


def predict_records(
    options: predict_options.PredictOptions, beam_options: str
) -> int:
    """Does what `predict.predict` does from records, on a runner's workers.

    Records, run and output must lie where all workers see them, on a file
    system. Killed, it goes on with the ranges that are missing.

    Args:
        options: What to predict.
        beam_options: Beam's flags, see `beam_pool.parse_options`.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as in `predict.predict`, or
            Beam refuses the flags, or fails.
    """
    predict_options.check_output(options.output_csv)
    merge.describe_job(options)  # Refuses what is not there before Beam starts.
    options = dataclasses.replace(
        options,
        run_dir=os.path.abspath(options.run_dir),
        records_dir=os.path.abspath(options.records_dir),
        output_csv=os.path.abspath(options.output_csv),
    )
    shards = selection.select(options.records_dir, [options.split]).shards
    starts = range(0, len(shards), _SHARDS_PER_TASK)
    tasks = [
        dataclasses.replace(
            options,
            shard_range=f"{start}:{min(start + _SHARDS_PER_TASK, len(shards))}",
        )
        for start in starts
    ]
    folder = f"{options.output_csv}.beam"
    expected = versions.of_prediction()
    with beam_pool.BeamPool(folder, beam_options, expected) as pool:
        pool.map(
            predict.predict_range,
            tasks,
            num_patches=sum(shard.num_records for shard in shards),
            description="predict",
        )
    return merge.merge(options)
