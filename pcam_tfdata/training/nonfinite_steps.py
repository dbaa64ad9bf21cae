"""Steps whose loss or gradient is not finite: left out, or the end of a run."""

import dataclasses
import logging
import os

import numpy as np

from pcam_tfdata.pipeline import input_choice
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import files
from pcam_tfdata.training import prepared_run

MOST_SKIPPED = 20

_logger = logging.getLogger(__name__)


def handle_nonfinite_step(run: prepared_run.PreparedRun, step: int) -> None:
    """Logs that a step is left out, or stops the run.

    Args:
        run: The run, whose state counts the step among those skipped; its chief
            writes the step's batch where the run stops.
        step: Number of the step.

    Raises:
        FloatingPointError: as the options say, or there were too many.
    """
    options, trainer = run.options, run.trainer
    fault = (
        f"found a loss or gradient that is not finite in step {step}, at"
        f" learning rate {trainer.learning_rate:g}"
    )
    if trainer.loss_scale is not None:
        fault += f" and loss scale {trainer.loss_scale:g}"
    if options.on_nan == "skip" and run.state.num_skipped <= MOST_SKIPPED:
        _logger.warning("%s; the step is skipped.", fault)
        return
    kept = "its batch is not kept, since no service gives it twice"
    if not options.service.data_service:
        path = os.path.join(options.run_dir, run_folder.BAD_BATCH)
        if run.group.is_chief:
            _write_batch(run, step, path)
        kept = f"its batch is in {path}"
    advice = "--on_nan=skip leaves out such steps"
    if options.on_nan == "skip":
        advice = f"{MOST_SKIPPED} such steps were left out before"
    raise FloatingPointError(
        f"{options.run_dir}: {fault}; {kept}. Lower --learning_rate and pass"
        f" --restart; {advice}."
    )


def _write_batch(run: prepared_run.PreparedRun, step: int, path: str) -> None:
    # In the same order, and nothing needs to go to a device.
    source = run.training.source
    options = dataclasses.replace(
        source.options,
        input="stream" if run.training.input == "stream" else "mmap",
        cache="none" if run.options.input.cache == "none" else "memory",
    )
    patches = input_choice.open_patches(
        dataclasses.replace(source, options=options)
    )
    batches = patches.train_batches(
        batch_size=run.options.recipe.batch_size,
        seed=run.options.recipe.seed,
        first_step=step,
        num_steps=step + 1,
    )
    batch = next(batches.as_numpy_iterator())
    with files.open_whole(path, "wb", sync=True) as file:
        np.savez(file, step=step, **batch)
