"""Conversions that stand still once they are so far.

A test that looks how far a job is, and then sends it a signal, comes too late on
a busy machine. This job counts its finished shards itself, whenever it is about
to give its workers more, and stops its whole process group.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

DEADLINE = 180


@contextlib.contextmanager
def conversion(
    arguments: Sequence[str], output_dir: object, num_shards: int
) -> Iterator[subprocess.Popen]:
    """Yields a conversion that stands still; ends it if it is there yet.

    Its process group is its own. SIGCONT to that lets it go on to its end.

    Args:
        arguments: Of `pcam`.
        output_dir: The one among them.
        num_shards: Finished at least; few more are.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            __file__,
            str(output_dir),
            str(num_shards),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _wait(process)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def end(process: subprocess.Popen, number: int) -> str:
    """Sends a signal to all of a job that stands still; returns its output."""
    os.killpg(process.pid, number)
    if number not in (signal.SIGKILL, signal.SIGCONT):
        os.killpg(process.pid, signal.SIGCONT)
    return process.communicate(timeout=DEADLINE)[0]


def _wait(process: subprocess.Popen) -> None:
    kinds = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
    deadline = time.monotonic() + DEADLINE
    while not os.waitid(os.P_PID, process.pid, kinds):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def _stand(output_dir: str, num_shards: int) -> None:
    """Has the progress bar stop the job, once."""
    from pcam_tfdata.system import progress

    folder = pathlib.Path(f"{output_dir}.incomplete") / "records"
    advance_to = progress.Progress.advance_to

    def stop_or_advance(*given: object) -> None:
        if len(list(folder.glob("*.journal"))) >= num_shards:
            progress.Progress.advance_to = advance_to
            os.killpg(0, signal.SIGSTOP)
        advance_to(*given)

    progress.Progress.advance_to = stop_or_advance


if __name__ == "__main__":
    from pcam_tfdata.cli import main

    _stand(sys.argv[1], int(sys.argv[2]))
    main.run(sys.argv[3:])
