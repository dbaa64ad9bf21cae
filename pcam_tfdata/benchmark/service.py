"""How fast a tf.data service on this machine feeds, beside reading alone."""

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from pcam_tfdata.benchmark import (
    configuration,
    contender,
    feeds,
    input_modes,
    machine,
    measure,
    results,
)
from pcam_tfdata.data_service import served
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder

_ALONE = "limit: stream, no service"
_NUM_WORKERS = (1, 2)
_TIMEOUT_SECONDS = 300.0
_PLAN = contender.Plan()


def run(options: configuration.BenchmarkOptions) -> results.Report:
    """Times `stream` with one and two workers on this machine, and without."""
    data = configuration.find_data(options)
    plan = options.plan(_PLAN)
    contenders = [
        contender.Contender(
            _ALONE, input_modes.draw_train, {"data": data, "input": "stream"}
        )
    ]
    contenders += [
        contender.Contender(
            f"stream, service with {num_workers} worker(s)",
            draw_served,
            {"data": data, "num_workers": num_workers},
        )
        for num_workers in _NUM_WORKERS
    ]
    return results.build(
        machine.describe(),
        {"what": options.what} | data.parameters(),
        plan,
        results.summarize(measure.measure(contenders, plan), _ALONE),
    )


def draw_served(data: configuration.Data, num_workers: int) -> Iterator[int]:
    """Takes training batches from a service of as many workers."""
    feeds.hide_gpus()
    with _serving(num_workers) as address:
        records = records_folder.open_folder(data.records_dir)
        source = patch_source.Source(records, data.splits)
        patches = served.open_patches(source, address, _TIMEOUT_SECONDS)
        ds = feeds.train_batches(data, patches)
        yield from feeds.draw(ds, data.batch_size)


@contextlib.contextmanager
def _serving(num_workers: int) -> Iterator[str]:
    """Runs a dispatcher and workers; gives the address of the dispatcher."""
    with contextlib.ExitStack() as stack:
        work_dir = stack.enter_context(tempfile.TemporaryDirectory())

        def start(*flags: str) -> str:
            """Returns the port of a server that is ready."""
            command = [sys.executable, "-m", "pcam_tfdata", "data_service"]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, *flags], stderr=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            line = process.stderr.readline()
            found = re.search(r" ready on port (\d+)", line)
            if found is None:
                raise RuntimeError(line.strip())
            return found.group(1)

        port = start("--role=dispatcher", f"--work_dir={work_dir}")
        address = f"127.0.0.1:{port}"
        for _ in range(num_workers):
            start("--role=worker", f"--dispatcher={address}")
        yield address
