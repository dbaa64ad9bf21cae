"""Other processes, asked with a time limit."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from pcam_tfdata.doctor import finding

TRIALS = (sys.executable, "-P", "-m", f"{__package__}.trials")
_KILL_SECONDS, _MAX_TEXT = 1.0, 400


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a process ended, empty for exit status 0; its stdout and stderr."""

    end: str
    output: str = ""
    errors: str = ""

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """What `trials` came to, by name; `error` is empty where it is done."""
        found = {}
        for line in self.output.splitlines():
            with contextlib.suppress(ValueError, LookupError, TypeError):
                facts = {"error": self.end or "ended early"} | json.loads(line)
                found[facts["trial"]] = facts
        return found

    def judge(
        self, trial: str, default: str, state: str = finding.FAILURE
    ) -> finding.Finding:
        """Returns what a trial came to; `default` is what is not recognized."""
        if not (facts := self.trials.get(trial)):
            why = f"not begun, {self.end or 'what it needs is not there'}"
            return finding.judge(trial, why, state=finding.NOT_CHECKED)
        if not (text := facts["error"]):
            return finding.judge(trial, facts.get("text", ""))
        key, line = finding.recognize(f"{text}\n{self.errors}", default)
        text += "" if line in text else f" ({line})"
        return finding.judge(trial, text[:_MAX_TEXT], key, state)


@contextlib.contextmanager
def start(*command: str) -> Iterator[Callable[[float], Answer]]:
    """Starts a process; gives what returns its answer after so many seconds.

    It has the import path of this one, and a session of its own: all that it
    starts is killed with it, on leaving. Files take what it prints: a pipe would
    keep one waiting that hangs in a driver, where even SIGKILL does not reach it.
    """
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    files = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=files[0],
        stderr=files[1],
        env=variables,
        start_new_session=True,
    )
    try:
        yield lambda s: Answer(_wait(process, s), *map(_read, files))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            _wait(process, _KILL_SECONDS)


def _wait(process: subprocess.Popen, seconds: float) -> str:
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"no end within {seconds:.0f} s"
    if status < 0:
        return f"crashed with {signal.Signals(-status).name}"
    return f"exit status {status}" if status else ""


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(1 << 20).decode(errors="replace")
