"""Processes that have imported what a command needs already.

Imports take most of the time of a short command. A server imports once and forks
when it is asked to; what runs then is the command itself, in a process of its
own, with its arguments and outputs. There are two servers: one has TensorFlow,
of which nothing has run, so that each command starts it afresh; the other does
without, and its processes begin and end in no time.
"""

import atexit
import contextlib
import functools
import gc
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import IO

DEADLINE = 180

# Commands that import TensorFlow, or the libraries of plots.
_HEAVY = {
    *("benchmark", "cross_validate", "data_service", "evaluate", "explain"),
    *("export", "inspect", "predict", "train"),
}


class Process:
    """A program that runs, with what tests use of `subprocess.Popen`.

    Args:
        program: Python.
        together: Whether stderr is a part of stdout.
        with_tensorflow: Whether TensorFlow has been imported in it.

    Attributes:
        pid: Of its process.
        returncode: None while it runs.
    """

    def __init__(
        self,
        program: str,
        *,
        together: bool = False,
        with_tensorflow: bool = True,
    ) -> None:
        self.returncode = None
        self._stdout = tempfile.TemporaryFile()
        self._stderr = self._stdout if together else tempfile.TemporaryFile()
        self._status, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        surroundings = (
            f"import os; os.chdir({os.getcwd()!r}); os.environ.clear();"
            f" os.environ.update({dict(os.environ)!r})\n"
        )
        with theirs:
            socket.send_fds(
                _server(with_tensorflow),
                [f"{surroundings}{program}".encode()],
                [self._stdout.fileno(), self._stderr.fileno(), theirs.fileno()],
            )
        self.pid = int(self._receive())

    def poll(self) -> int | None:
        """Returns the exit code, or None while it runs."""
        if self.returncode is None and _is_readable(self._status, 0):
            self.returncode = int(self._receive())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; returns the exit code."""
        if self.returncode is None and not _is_readable(self._status, timeout):
            raise subprocess.TimeoutExpired("program", timeout)
        return self.poll()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end; returns stdout and stderr, once."""
        self.wait(timeout)
        with self._status, self._stdout, self._stderr:
            return _read(self._stdout), _read(self._stderr)

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # It ends now.
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def stands_still(self) -> bool:
        """Returns whether it was stopped; not once it has ended."""
        try:
            stat = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def _receive(self) -> bytes:
        found = self._status.recv(32)
        assert found, "the server of tests/loaded.py has ended"
        return found


def start(*arguments: object, together: bool = False) -> Process:
    """Starts a command of `pcam`."""
    given = list(map(str, arguments))
    program = f"from pcam_tfdata.cli import main; main.run({given!r})"
    is_light = "--help" in given or given[0] not in _HEAVY
    return Process(program, together=together, with_tensorflow=not is_light)


def wait_until(condition: Callable[[], object], process: Process) -> None:
    """Waits for a condition that a process brings about before it ends."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(*arguments: object) -> subprocess.CompletedProcess:
    """Runs a command to its end, as `conftest.run_program`."""
    process = start(*arguments)
    try:
        outputs = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, *outputs)


def _is_readable(end: socket.socket, timeout: float | None) -> bool:
    return bool(select.select([end], [], [], timeout)[0])


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _server(with_tensorflow: bool) -> socket.socket:
    """Returns the way to a server, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        server = subprocess.Popen(
            [sys.executable, __file__, str(number), str(int(with_tensorflow))],
            stdin=subprocess.DEVNULL,
            pass_fds=[number],
        )
    atexit.register(server.wait)
    atexit.register(ours.close)  # The last is called first.
    return ours


def _serve(number: int, with_tensorflow: bool) -> None:
    """Forks for each request; returns in the forked processes only."""
    _import(with_tensorflow)
    gc.freeze()  # Else each process would copy what it only looks at.
    keepers = []
    requests = socket.socket(fileno=number)
    while True:
        request, files, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not request:
            os._exit(0)
        # Python 3.12 warns of threads; pandas brings one, which bears it.
        with warnings.catch_warnings(action="ignore"):
            keeper = os.fork()
        if not keeper:
            requests.close()
            break
        for file in files:
            os.close(file)
        keepers = [
            k for k in (*keepers, keeper) if not os.waitpid(k, os.WNOHANG)[0]
        ]
    *outputs, status = files
    _keep(status)
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)
    exec(request, {"__name__": "__main__"})


def _keep(status: int) -> None:
    """Forks; tells number and exit code of the child, in which it returns."""
    child = os.fork()
    if not child:
        os.close(status)
        return
    os.write(status, str(child).encode())
    _, code = os.waitpid(child, 0)
    os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
    os._exit(0)


def _import(with_tensorflow: bool) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # As the commands do.
    from pcam_tfdata.cli import main, quiet  # noqa: F401
    from pcam_tfdata.conversion import convert  # noqa: F401
    from pcam_tfdata.sources import label_table  # noqa: F401

    if with_tensorflow:
        with quiet.imports():
            from pcam_tfdata.evaluation import evaluate, plots  # noqa: F401
            from pcam_tfdata.explanation import explain  # noqa: F401
            from pcam_tfdata.prediction import predict  # noqa: F401
            from pcam_tfdata.training import train  # noqa: F401


if __name__ == "__main__":
    _serve(int(sys.argv[1]), bool(int(sys.argv[2])))
