"""The history of a run as TensorBoard's event files, in RUN/tensorboard.

The package `tensorboard` is imported when events are to be written, so that
training without them does not need it.
"""

import importlib
import os
import time
from collections.abc import Iterable, Mapping
from types import ModuleType

from pcam_tfdata.runs import run_folder

# TensorBoard's own beginning of the names of its files.
_PREFIX = "events.out.tfevents."

HistoryRow = Mapping[str, float | None]


def check_installed() -> None:
    """Checks that events can be written, before anything else is begun.

    Raises:
        ValueError: the package `tensorboard` is missing.
    """
    _import("tensorboard.summary.writer.event_file_writer")


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

    Use it as a context manager, or close it.

    Args:
        run_dir: Folder of the run.
        history: Rows so far: `epoch`, `step`, and scores by name.

    Raises:
        ValueError: the package `tensorboard` is missing.
    """

    def __init__(self, run_dir: str, history: Iterable[HistoryRow]) -> None:
        writer = _import("tensorboard.summary.writer.event_file_writer")
        self._events = _import("tensorboard.compat.proto.event_pb2")
        folder = os.path.join(run_dir, run_folder.TENSORBOARD)
        _remove_events(folder)
        self._writer = writer.EventFileWriter(folder)
        # This is what makes one that is watching drop what it has read.
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._writer.add_event(
            self._events.Event(wall_time=time.time(), session_log=start)
        )
        for row in history:
            self._write_row(row)
        self._writer.flush()

    def add(self, row: HistoryRow) -> None:
        """Writes a row, which can be seen at once."""
        self._write_row(row)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file; after that nothing can be written."""
        self._writer.close()

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_row(self, row: HistoryRow) -> None:
        event = self._events.Event(
            step=int(row["step"] or 0), wall_time=time.time()
        )
        for column, value in row.items():
            if column != "step" and value is not None:
                event.summary.value.add(
                    tag=tag_of(column), simple_value=float(value)
                )
        self._writer.add_event(event)


def _remove_events(folder: str) -> None:
    """Removes TensorBoard's files of a folder, and no other."""
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            os.remove(os.path.join(folder, name))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"TensorBoard's files cannot be written: found no package"
            f" {str(error.name).partition('.')[0]}. Install it (pip install"
            " 'pcam_tfdata[tensorboard]'), or do without --tensorboard."
        ) from error
