"""The history of a run as TensorBoard's event files, in RUN/tensorboard.

Such a file is a TFRecord file of `Event` messages. TensorFlow writes it; only to
look at it takes the package `tensorboard`.
"""

import os
import time
from collections.abc import Iterable, Mapping

import tensorflow as tf

from pcam_tfdata.runs import run_folder

# TensorBoard's own beginning of the names of its files.
_PREFIX = "events.out.tfevents."
_VERSION = "brain.Event:2"


def tag_of(column: str) -> str:
    """Returns the name in TensorBoard, which shows a section for each prefix.

    `val_auc` is `validation/auc`, and `loss` is `train/loss`.
    """
    name = column.removeprefix("val_")
    return f"{'train' if name == column else 'validation'}/{name}"


class EventWriter:
    """Writes every row of a run's history once, also if the run was killed.

    What an earlier process wrote is written anew: its last rows may be of after
    the checkpoint that training goes on from. The wall times of those rows are
    then that of the resumption. A TensorBoard that is watching drops what it has
    read of them.

    Args:
        run_dir: Folder of the run.
        history: Rows so far: `epoch`, `step`, and scores by name.
    """

    def __init__(
        self, run_dir: str, history: Iterable[Mapping[str, float]]
    ) -> None:
        folder = os.path.join(run_dir, run_folder.TENSORBOARD)
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if name.startswith(_PREFIX):
                os.remove(os.path.join(folder, name))
        path = os.path.join(folder, f"{_PREFIX}{time.time():.6f}")
        self._file = tf.io.TFRecordWriter(path)
        self._write(file_version=_VERSION)
        # This is what makes one that is watching drop what it has read.
        start = tf.compat.v1.SessionLog.START
        self._write(session_log=tf.compat.v1.SessionLog(status=start))
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, float]) -> None:
        """Writes a row, which can be seen at once."""
        summary = tf.compat.v1.Summary()
        for column, value in row.items():
            if column != "step":
                summary.value.add(tag=tag_of(column), simple_value=value)
        self._write(step=int(row["step"]), summary=summary)
        self._file.flush()

    def _write(self, **fields: object) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        self._file.write(event.SerializeToString())
