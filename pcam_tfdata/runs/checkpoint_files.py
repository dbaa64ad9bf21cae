"""How far a run has come, and the checkpoints that say so, without TensorFlow.

A checkpoint is a NumPy .npz archive: the variables of model and optimizer in
their order, and a JSON text with the state. The archive holds CRCs, so a file
that was cut short is found out.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import zipfile
import zlib
from typing import Any

import numpy as np

from pcam_tfdata.runs import run_folder

STATE = "state"  # The name of the JSON text among the variables.
_NAME = re.compile(r"step-(\d{9})\.npz")
# What an archive with flipped bits, or cut short, raises once its bytes are
# read. No OSError: that a file cannot be read now says nothing of its content.
_DAMAGES = (
    EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclasses.dataclass
class State:
    """How far a run has come: what a checkpoint holds beside variables.

    Attributes:
        epoch: Epochs completed, with their validation.
        step: Steps done.
        sums: Loss, right answers and patches, summed over the epoch under way.
        num_skipped: Steps of the run that were skipped.
        best_epoch: The epoch of best validation AUC; 0 for none yet.
        best_auc: The validation AUC after that epoch.
        is_stopped: Whether a callback ended the run before its last epoch.
        history: A row an epoch.
        callbacks: The state of each callback, as `callback_state` gives it.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 3)
    num_skipped: int = 0
    best_epoch: int = 0
    best_auc: float = -1.0
    is_stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    callbacks: list[dict[str, object]] = dataclasses.field(default_factory=list)


def list_checkpoints(run_dir: str) -> list[tuple[int, str]]:
    """Returns (step, path) of the checkpoints of a run, oldest first.

    None where it has no folder of them.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = os.path.join(run_dir, run_folder.CHECKPOINTS)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = [_NAME.fullmatch(name) for name in names]
    return sorted(
        (int(match.group(1)), os.path.join(folder, match.group()))
        for match in matches
        if match
    )


def read_checkpoint(path: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Returns the variables of a checkpoint, in their order, and its state.

    Raises:
        OSError: the file cannot be read; `filename` is its path.
        ValueError: its content is damaged.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:  # One of reading names no file.
        error.filename = path
        raise
    try:
        with np.load(io.BytesIO(content)) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        state = json.loads(str(values.pop(STATE)))
    except _DAMAGES as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    return list(values.values()), state


def is_stopped(run_dir: str) -> bool:
    """Returns whether a callback ended a run before its last epoch.

    The newest checkpoint that can be read says so; False where none can.
    """
    unreadable = (OSError, TypeError, *_DAMAGES)
    with contextlib.suppress(OSError):
        for _, path in reversed(list_checkpoints(run_dir)):
            # Of its arrays, only the state is read.
            with contextlib.suppress(*unreadable), np.load(path) as arrays:
                return json.loads(str(arrays[STATE]))["is_stopped"]
    return False
