"""Steps whose loss or gradient is not finite: left out, or the end of a run."""

import dataclasses
import logging
import os

import numpy as np

from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import files
from pcam_tfdata.training import configuration, replica_step

MOST_SKIPPED = 20

_logger = logging.getLogger(__name__)


def meet(
    step: int,
    num_skipped: int,
    options: configuration.TrainOptions,
    stepped: replica_step.Trainer,
    training: patch_source.Patches,
    *,
    is_chief: bool,
) -> None:
    """Logs that a step is left out, or stops the run.

    Args:
        step: Its number.
        num_skipped: Such steps of the run, with this one.
        options: Of the run.
        stepped: The network.
        training: What it is trained on.
        is_chief: Whether this process writes what is kept: the step's batch.

    Raises:
        FloatingPointError: as the options say, or there were too many.
    """
    what = (
        f"found a loss or gradient that is not finite in step {step}, at"
        f" learning rate {stepped.learning_rate:g}"
    )
    if stepped.loss_scale is not None:
        what += f" and loss scale {stepped.loss_scale:g}"
    if options.on_nan == "skip" and num_skipped <= MOST_SKIPPED:
        _logger.warning("%s; the step is skipped.", what)
        return
    kept = "its batch is not kept, since no service gives it twice"
    if not options.data_service:
        path = os.path.join(options.run_dir, run_folder.BAD_BATCH)
        if is_chief:
            _write_batch(path, step, options, training)
        kept = f"its batch is in {path}"
    advice = "--on_nan=skip leaves out such steps"
    if options.on_nan == "skip":
        advice = f"{MOST_SKIPPED} such steps were left out before"
    raise FloatingPointError(
        f"{options.run_dir}: {what}; {kept}. Lower --learning_rate and pass"
        f" --restart; {advice}."
    )


def _write_batch(
    path: str,
    step: int,
    options: configuration.TrainOptions,
    training: patch_source.Patches,
) -> None:
    # In the same order, and nothing needs to go to a device.
    source = dataclasses.replace(
        training.source,
        data_service=None,
        input="stream" if training.input == "stream" else "mmap",
        cache="none" if options.cache == "none" else "memory",
    )
    batches = patch_source.train_batches(
        source,
        batch_size=options.batch_size,
        seed=options.seed,
        first_step=step,
        num_steps=step + 1,
    )
    batch = next(batches.as_numpy_iterator())
    with files.open_whole(path, "wb", sync=True) as file:
        np.savez(file, step=step, **batch)
