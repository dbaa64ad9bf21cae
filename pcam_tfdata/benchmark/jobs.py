"""From options to a report: the benchmark that `what` names."""

import os

from pcam_tfdata.benchmark import (
    configuration,
    conversion,
    input_modes,
    results,
    service,
    start,
    steps,
)
from pcam_tfdata.runs import outputs

_JOBS = {
    "convert": conversion.run,
    "data_service": service.run,
    "input": input_modes.run,
    "predict": steps.run_prediction,
    "start": start.run,
    "training": steps.run_training,
}


def run(options: configuration.BenchmarkOptions) -> results.Report:
    """Times what the options name; writes the JSON file if they name one.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: the data or an output
            are not usable.
    """
    if options.json_output is not None:
        outputs.check_file(
            options.json_output, "--json_output", suffixes=outputs.JSON
        )
    scratch_dir = options.scratch_dir
    if scratch_dir is not None and not os.path.isdir(scratch_dir):
        raise FileNotFoundError(
            f"{scratch_dir}: not found, expected a folder to write in. Check"
            " --scratch_dir."
        )
    report = _JOBS[options.what](options)
    if options.json_output is not None:
        results.write_json(options.json_output, report)
    return report
