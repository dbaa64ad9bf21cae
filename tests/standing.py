"""Conversions that stand still once they are so far.

A test that looks how far a job is, and then sends it a signal, comes too late on
a busy machine. This job counts its finished shards itself, whenever its progress
is counted, and stops its whole process group.
"""

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator, Sequence

import loaded

DEADLINE = 180


@contextlib.contextmanager
def conversion(
    arguments: Sequence[str], output_dir: object, num_shards: int
) -> Iterator[loaded.Process]:
    """Yields a conversion that stands still; ends it if it is there yet.

    Its process group is its own. SIGCONT to that lets it go on to its end.

    Args:
        arguments: Of `pcam`.
        output_dir: The one among them.
        num_shards: Finished at least; few more are.
    """
    call = f"stand({str(output_dir)!r}, {num_shards}, {list(arguments)!r})"
    process = loaded.Process(
        f"import standing; standing.{call}",
        together=True,
        with_tensorflow=False,
    )
    try:
        loaded.wait_until(process.stands_still, process)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def end(process: loaded.Process, number: int) -> str:
    """Sends a signal to all of a job that stands still; returns its output."""
    os.killpg(process.pid, number)
    if number not in (signal.SIGKILL, signal.SIGCONT):
        os.killpg(process.pid, signal.SIGCONT)
    return process.communicate(timeout=DEADLINE)[0]


def stand(output_dir: str, num_shards: int, arguments: Sequence[str]) -> None:
    """Runs a command of which the progress bar stops the process group, once."""
    from pcam_tfdata.cli import main
    from pcam_tfdata.system import progress

    os.setsid()
    folder = pathlib.Path(f"{output_dir}.incomplete") / "records"
    advance_to = progress.Progress.advance_to

    def stop_or_advance(*given: object) -> None:
        if len(list(folder.glob("*.journal"))) >= num_shards:
            progress.Progress.advance_to = advance_to
            os.killpg(0, signal.SIGSTOP)
        advance_to(*given)

    progress.Progress.advance_to = stop_or_advance
    main.run(arguments)
