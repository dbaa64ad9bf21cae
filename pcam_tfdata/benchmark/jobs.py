"""From options to a report: the benchmark that `what` names."""

import dataclasses
import gc
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pcam_tfdata.benchmark import (
    configuration,
    conversion_rates,
    harness,
    input_modes,
    limits,
    loop_rates,
    reporting,
    service_rates,
    step_rates,
    timed_process,
)
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import files

_TO_GPU = "mmap, to the GPU"


def check_records(
    options: configuration.Options, num_copies: int = 0
) -> dict[str, object]:
    """Returns what a report says of the records.

    Raises:
        FileNotFoundError, ValueError: they are not there, less than a batch, or
            as many copies of them do not fit in memory.
    """
    records = records_folder.open_folder(options.records_dir)
    num_patches = records.count_patches(options.splits)
    if options.batch_size > num_patches:
        raise ValueError(
            f"--batch_size: found {options.batch_size}, expected at most the"
            f" number of patches, {num_patches:,}."
        )
    limits.check_memory(num_patches, num_copies)
    return {
        "records": records.manifest_sha256[:12],
        "splits": options.splits,
        "patches": num_patches,
        "batch_size": options.batch_size,
    }


def _take_no_notes(*_: object) -> list[str]:
    return []


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is timed in turn, and what is said of it.

    Attributes:
        contenders: By the names that the table has; the first is the limit. In
            the options that they get, `scratch_dir` is a new folder.
        plan: How often and how long, where the options do not say.
        check_data: Called first with these options. Refuses what cannot be
            measured, and returns what a report says of the rest.
        prepare: Called with these options before each repeat, untimed.
        unit: What a row tells, see `reporting.make_row`.
        finish: Adds to the rows, from the outcomes; returns lines for below.
    """

    contenders: Mapping[str, harness.Contender]
    plan: timed_process.Plan
    check_data: Callable[[configuration.Options], dict[str, object]] = (
        check_records
    )
    prepare: Callable[[configuration.Options], object] = harness.do_nothing
    unit: str = "patches_per_second"
    finish: Callable[
        [Sequence[reporting.Row], Sequence[harness.Outcome]], list[str]
    ] = _take_no_notes


def run_benchmark(
    options: configuration.Options, benchmark: Benchmark | None = None
) -> reporting.Report:
    """Times what the options name; writes the JSON file if they name one.

    Args:
        options: What, on which data, how long.
        benchmark: What to time; None for what `options.what` names.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: the data or an output
            are not usable.
    """
    benchmark = benchmark or _BENCHMARKS[options.what]
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
    with tempfile.TemporaryDirectory(
        prefix="pcam-benchmark-", dir=scratch_dir
    ) as folder:
        report = _measure(benchmark, options.settle(folder))
    if options.json_output is not None:
        files.write_json(options.json_output, dataclasses.asdict(report))
    return report


def _measure(
    benchmark: Benchmark, options: configuration.Options
) -> reporting.Report:
    parameters = {"what": options.what} | benchmark.check_data(options)
    contenders = dict(benchmark.contenders)
    if not reporting.list_gpus():
        contenders.pop(_TO_GPU, None)
    plan = options.plan(benchmark.plan)
    outcomes = harness.measure(contenders, options, plan, benchmark.prepare)
    limit = outcomes[0]
    rows = [reporting.make_row(o, limit, benchmark.unit) for o in outcomes]
    planned = {
        "repeats": plan.num_repeats,
        "min_patches": plan.min_patches,
        "min_seconds": plan.min_seconds,
    }
    notes = benchmark.finish(rows, outcomes)
    return reporting.Report(
        reporting.describe_machine(),
        reporting.list_versions(),
        parameters | planned,
        rows,
        notes,
    )


def _collect_garbage(_: object) -> None:
    gc.collect()


def _check_kaggle_folder(options: configuration.Options) -> dict[str, object]:
    return {"patches": conversion_rates.count_patches(options.input_dir)}


def _check_network(options: configuration.Options) -> dict[str, object]:
    return {"model": options.model} | check_records(options)


# A piece is the whole job, and a job has nothing to warm up.
_WHOLE_JOB = timed_process.Plan(warm_up=0, min_patches=0, min_seconds=0)
_BENCHMARKS = {
    "convert": Benchmark(
        {
            "limit: cp -r": conversion_rates.copy_tree,
            "convert_to_tfrecords, 1 worker": conversion_rates.convert_tree,
            "convert_to_tfrecords, 2 workers": partial(
                conversion_rates.convert_tree, num_workers=2
            ),
            "Pillow, tf.train.Example, TFRecordWriter": (
                conversion_rates.write_plainly
            ),
        },
        _WHOLE_JOB,
        check_data=_check_kaggle_folder,
        prepare=conversion_rates.remove_output,
    ),
    "data_service": Benchmark(
        {
            "limit: stream, no service": input_modes.draw_stream,
            "stream, service with 1 worker(s)": partial(
                service_rates.draw_served, num_workers=1
            ),
            "stream, service with 2 worker(s)": partial(
                service_rates.draw_served, num_workers=2
            ),
        },
        timed_process.Plan(),
    ),
    "input": Benchmark(
        {
            limits.GATHER: limits.gather,
            "memcpy": limits.copy,
            "mmap": input_modes.draw_mmap,
            "mmap, first epoch with CRCs": input_modes.draw_first_epochs,
            "stream": input_modes.draw_stream,
            "device": input_modes.draw_on_device,
            _TO_GPU: input_modes.draw_to_device,
            "TFRecordDataset, read only": input_modes.read_only,
            "TFRecordDataset.map(parse_single_example)": (
                input_modes.parse_single
            ),
        },
        timed_process.Plan(),
        # The limit's, and without a GPU those of `device` and what it reads.
        check_data=partial(check_records, num_copies=3),
    ),
    "loop": Benchmark(
        {
            "limit: steps in few calls": loop_rates.call_steps,
            "steps of a training run": loop_rates.run_epochs,
        },
        timed_process.Plan(warm_up=1, min_patches=0, min_seconds=0),
    ),
    "predict": Benchmark(
        {
            "limit: prediction, one constant batch": (
                step_rates.predict_one_batch
            ),
            "prediction, mmap": step_rates.predict_records,
        },
        timed_process.Plan(warm_up=1, min_patches=0, min_seconds=2),
        check_data=_check_network,
    ),
    "start": Benchmark(
        {
            "limit: TFRecordDataset, one batch": input_modes.open_plainly,
            "mmap": input_modes.open_mmap,
        },
        _WHOLE_JOB,
        prepare=_collect_garbage,  # Nothing of the last dataset goes on.
        unit="seconds",
    ),
    "training": Benchmark(
        {
            "limit: training, one constant batch": (
                step_rates.train_on_one_batch
            ),
            "training, mmap": step_rates.train_on_records,
            "Keras fit, one constant batch": step_rates.fit_on_one_batch,
        },
        timed_process.Plan(warm_up=1, min_patches=0, min_seconds=5),
        check_data=_check_network,
        finish=step_rates.note_input_share,
    ),
}
