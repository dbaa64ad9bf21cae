"""Writes and restores what a run needs to go on where it stopped.

`runs.checkpoint_files` owns the format: variables, and how far the run has come.
"""

import concurrent.futures
import dataclasses
import glob
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import worker_group
from pcam_tfdata.runs import checkpoint_files, run_folder
from pcam_tfdata.system import files
from pcam_tfdata.training import steps

_logger = logging.getLogger(__name__)


class Writer:
    """Writes the checkpoints of a run in a thread, while training goes on.

    Args:
        run_dir: Folder of the run.
        keep: How many of the last ones are kept.
    """

    def __init__(self, run_dir: str, keep: int) -> None:
        self._run_dir, self._keep = run_dir, keep
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: concurrent.futures.Future | None = None

    def write(
        self, state: checkpoint_files.State, variables: Sequence[keras.Variable]
    ) -> None:
        """Begins to write what is now; a file is there whole or not at all.

        Args:
            state: How far the run is.
            variables: Those of the trainer.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        # What was read does not change: an update of the variable copies first.
        values = [tf.convert_to_tensor(v.value) for v in variables]
        text = json.dumps(dataclasses.asdict(state))
        self._pending = self._thread.submit(
            _write, self._run_dir, state.step, values, text, self._keep
        )

    def wait(self) -> None:
        """Returns when the last one is on the disk.

        Raises:
            OSError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def restore(
    run_dir: str, trainer: steps.Trainer, group: worker_group.WorkerGroup
) -> checkpoint_files.State:
    """Returns how far the chief's last checkpoint is, for all workers.

    The trainer takes what the checkpoint holds; without one it stays new.
    Errors as in `read_latest`.
    """
    latest = None
    if group.job.is_chief:
        latest = read_latest(run_dir, trainer.variables)
    latest = group.broadcast(latest)
    if latest is None:
        return checkpoint_files.State()
    values, state = latest
    trainer.restore(values)
    return state


def read_latest(
    run_dir: str, variables: Sequence[keras.Variable]
) -> tuple[list[np.ndarray], checkpoint_files.State] | None:
    """Returns values for variables, and the state, of the newest checkpoint.

    One whose content is damaged is passed over with a line. None where there is
    no checkpoint.

    Raises:
        OSError: a checkpoint cannot be read. It may be sound, so none before it
            is taken in its place.
        ValueError: all of them are damaged, or the variables are not those of
            this network.
    """
    checkpoints = checkpoint_files.list_checkpoints(run_dir)
    for _, path in reversed(checkpoints):
        try:
            values, state = checkpoint_files.read_checkpoint(path)
        except ValueError as error:
            _logger.warning("%s, passed over.", error)
            continue
        expected = [tuple(variable.shape) for variable in variables]
        if [value.shape for value in values] != expected:
            raise ValueError(
                f"{path}: found {len(values)} variables of another network,"
                f" expected {len(expected)} of this one. Pass --restart to begin"
                " anew."
            )
        return values, checkpoint_files.State(**state)
    if checkpoints:
        raise ValueError(
            f"{run_dir}: found {len(checkpoints)} checkpoints, all of them"
            " damaged, expected a sound one to go on from. Put one back from a"
            " copy, or pass --restart to begin anew."
        )
    return None


def _write(
    run_dir: str, step: int, values: Sequence[tf.Tensor], state: str, keep: int
) -> None:
    arrays: dict[str, Any] = {
        f"{index:04d}": value for index, value in enumerate(values)
    }
    arrays[checkpoint_files.STATE] = np.array(state)
    folder = os.path.join(run_dir, run_folder.CHECKPOINTS)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"step-{step:09d}.npz")
    with files.open_whole(path, "wb", sync=True) as file:
        np.savez(file, **arrays)
    # Later ones are damaged: the run went on from before them.
    checkpoints = checkpoint_files.list_checkpoints(run_dir)
    kept = [path for number, path in checkpoints if number <= step][-keep:]
    left = [path for _, path in checkpoints if path not in kept]
    # A process that was killed left half of one.
    left += glob.glob(os.path.join(glob.escape(folder), f"*{files.INCOMPLETE}"))
    for path in left:
        os.remove(path)
