"""What a run needs to go on where it stopped, in one file a checkpoint.

`run_state` says what is in it. The list of variables is explicit because a Keras
or tf.train checkpoint of a model leaves out the state of Dropout's seed
generators.
"""

import concurrent.futures
import json
import logging
import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.runs import checkpoint_files
from pcam_tfdata.system import files

_logger = logging.getLogger(__name__)


def variables_of(
    model: keras.Model, optimizer: keras.Optimizer
) -> list[keras.Variable]:
    """Returns what a checkpoint holds: weights, dropout seeds, optimizer."""
    return [*model.variables, *optimizer.variables]


class Writer:
    """Writes the checkpoints of a run in a thread, while training goes on.

    Args:
        folder: Made if it is not there; None for a process that is to write
            nothing.
        keep: How many of the last ones are kept.
    """

    def __init__(self, folder: str | None, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        if folder is not None:
            _remove_incomplete(folder)
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: concurrent.futures.Future | None = None

    def write(
        self,
        step: int,
        variables: Sequence[keras.Variable],
        state: dict[str, object],
    ) -> None:
        """Begins to write the values of now; a file is there whole or not at all.

        Args:
            step: Steps done.
            variables: See `variables_of`.
            state: Anything that JSON can hold.

        Raises:
            OSError: the one before could not be written.
        """
        if self._folder is None:
            return
        self.wait()
        # What was read does not change: an update of the variable copies first.
        values = [
            tf.convert_to_tensor(variable.value) for variable in variables
        ]
        self._pending = self._thread.submit(
            _write, self._folder, step, values, json.dumps(state), self._keep
        )

    def poll(self) -> None:
        """Raises what `wait` would, as soon as it is known."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last one is on the disk.

        Raises:
            OSError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def restore_latest(
    folder: str, variables: Sequence[keras.Variable]
) -> dict[str, object] | None:
    """Assigns the newest sound checkpoint; returns its state.

    One whose content is damaged is passed over with a line. None where there is
    no checkpoint.

    Raises:
        OSError: a checkpoint cannot be read. It may be sound, so none before it
            is taken in its place.
        ValueError: all of them are damaged, or the variables are not those of
            this network.
    """
    found = checkpoint_files.list_checkpoints(folder)
    for _, path in reversed(found):
        try:
            values, state = checkpoint_files.read_checkpoint(path)
        except ValueError as error:
            _logger.warning("%s, passed over.", error)
            continue
        _assign(path, values, variables)
        return state
    if found:
        raise ValueError(
            f"{folder}: found {len(found)} checkpoints, all of them damaged,"
            " expected a sound one to go on from. Put one back from a copy, or"
            " pass --restart to begin anew."
        )
    return None


def _write(
    folder: str, step: int, values: Sequence[tf.Tensor], state: str, keep: int
) -> None:
    arrays = {f"{place:04d}": value for place, value in enumerate(values)}
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"step-{step:09d}.npz")
    with files.open_whole(path, "wb", sync=True) as file:
        np.savez(file, **arrays, **{checkpoint_files.STATE: np.array(state)})
    # Later ones are damaged: the run went on from before them.
    there = checkpoint_files.list_checkpoints(folder)
    kept = [path for number, path in there if number <= step][-keep:]
    for _, old in there:
        if old not in kept:
            os.remove(old)


def _remove_incomplete(folder: str) -> None:
    """Removes what a killed process was writing."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.endswith(files.INCOMPLETE):
            os.remove(os.path.join(folder, name))


def _assign(
    path: str,
    values: Sequence[np.ndarray],
    variables: Sequence[keras.Variable],
) -> None:
    found = [value.shape for value in values]
    expected = [tuple(variable.shape) for variable in variables]
    if found != expected:
        raise ValueError(
            f"{path}: found {len(found)} variables of another network, expected"
            f" {len(expected)} of this one. Pass --restart to begin anew."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
