"""How fast a tf.data service on this machine feeds."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

from pcam_tfdata.benchmark import configuration, input_modes
from pcam_tfdata.data_service import served
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder

_COMMAND = (sys.executable, "-m", "pcam_tfdata", "data_service")
_TIMEOUT_SECONDS = 300.0


def draw_served(
    options: configuration.Options, num_workers: int
) -> Iterator[int]:
    """Takes training batches from a service of as many workers."""
    input_modes.hide_gpus()
    with contextlib.ExitStack() as stack:
        work_dir = os.path.join(options.scratch_dir or "", f"{num_workers}")
        dispatcher = ("--role=dispatcher", f"--work_dir={work_dir}")
        address = f"127.0.0.1:{_start_server(stack, *dispatcher)}"
        for _ in range(num_workers):
            _start_server(stack, "--role=worker", f"--dispatcher={address}")
        records = records_folder.open_folder(options.records_dir)
        source = patch_source.Source(records, options.splits)
        patches = served.ServedPatches(source, address, _TIMEOUT_SECONDS)
        ds = input_modes.train_batches(options, patches)
        yield from input_modes.draw(ds, options.batch_size)


def _start_server(stack: contextlib.ExitStack, *flags: str) -> str:
    """Returns the port of a server that is ready; the stack's end ends it."""
    process = stack.enter_context(
        subprocess.Popen([*_COMMAND, *flags], stderr=subprocess.PIPE, text=True)
    )
    stack.callback(process.kill)
    line = process.stderr.readline() if process.stderr else ""
    ready = re.search(r" ready on port (\d+)", line)
    if ready is None:
        raise RuntimeError(line.strip())
    return ready.group(1)
