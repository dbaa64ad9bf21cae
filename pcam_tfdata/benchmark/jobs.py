"""From options to a report: the benchmark that `what` names."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pcam_tfdata import schema
from pcam_tfdata.benchmark import (
    configuration,
    conversion_rates,
    harness,
    input_rates,
    limits,
    reporting,
    step_rates,
)
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import files, memory

Rows = Sequence[reporting.Row]
Outcomes = Sequence[harness.Outcome]

_EXPECTED_SHARE = 0.05
_GIGABYTE = 1_000_000_000
_SHARE_OF_MEMORY = 0.8
# Copies of the patches: the limit's, and without a GPU those of `device` and of
# what it reads; what peers and their writers hold.
_NUM_COPIES = {"input": 3, "peers": 10}
_TO_GPU = "mmap, to the GPU"
# What is timed in turn; the first is the limit.
_CONTENDERS: dict[str, dict[str, harness.Contender]] = {
    "convert": {
        "limit: cp -r": partial(
            conversion_rates.repeat, job=conversion_rates.copy_tree
        ),
        "convert_to_tfrecords, 1 worker": partial(
            conversion_rates.repeat,
            job=partial(conversion_rates.convert_tree, num_workers=1),
        ),
        "convert_to_tfrecords, 2 workers": partial(
            conversion_rates.repeat,
            job=partial(conversion_rates.convert_tree, num_workers=2),
        ),
        "Pillow, tf.train.Example, TFRecordWriter": partial(
            conversion_rates.repeat, job=conversion_rates.write_plainly
        ),
    },
    "data_service": {
        "limit: stream, no service": partial(input_rates.draw, mode="stream"),
        "stream, service with 1 worker(s)": partial(
            input_rates.draw_served, num_workers=1
        ),
        "stream, service with 2 worker(s)": partial(
            input_rates.draw_served, num_workers=2
        ),
    },
    "input": {
        limits.GATHER: limits.gather,
        "mmap": partial(input_rates.draw, mode="mmap"),
        "mmap, first epoch with CRCs": input_rates.draw_first_epochs,
        "stream": partial(input_rates.draw, mode="stream"),
        "device": input_rates.draw_on_device,
        _TO_GPU: input_rates.draw_to_device,
        "TFRecordDataset, read only": input_rates.read_only,
        "TFRecordDataset.map(parse_single_example)": input_rates.parse_single,
    },
    "loop": {
        "limit: steps in few calls": step_rates.call_steps,
        "steps of a training run": step_rates.run_epochs,
    },
    "predict": {
        "limit: prediction, one constant batch": partial(
            step_rates.predict, on_one_batch=True
        ),
        "prediction, mmap": step_rates.predict,
    },
    "start": {
        "limit: TFRecordDataset, one batch": partial(
            input_rates.open_anew, open_batches=input_rates.example_batches
        ),
        "mmap": partial(
            input_rates.open_anew, open_batches=input_rates.train_batches
        ),
    },
    "training": {
        "limit: training, one constant batch": partial(
            step_rates.train, on_one_batch=True
        ),
        "training, mmap": step_rates.train,
        "Keras fit, one constant batch": step_rates.fit_on_one_batch,
    },
}


def run_benchmark(
    options: configuration.Options,
    contenders: Mapping[str, harness.Contender] | None = None,
    prepare: Callable[[configuration.Options], object] | None = None,
    finish: Callable[[Rows, Outcomes], object] | None = None,
) -> reporting.Report:
    """Times what the options name; writes the JSON file if they name one.

    Args:
        options: What, on which data, how long.
        contenders: What to time by the names that the table has, the limit
            first; None for what `options.what` names. In the options that they
            get, `scratch_dir` is a new folder.
        prepare: Called first with these options.
        finish: Adds to the rows, from the outcomes.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: the data or an output
            are not usable.
    """
    if options.json_output is not None:
        outputs.check_file(
            options.json_output, "--json_output", suffixes=outputs.JSON
        )
    with tempfile.TemporaryDirectory(
        prefix="pcam-benchmark-", dir=options.scratch_dir or None
    ) as folder:
        settled = options.settle(folder)
        parameters = _describe_data(settled)
        if prepare:
            prepare(settled)
        named = dict(contenders or _CONTENDERS[options.what])
        if not reporting.list_gpus():
            named.pop(_TO_GPU, None)
        outcomes = harness.measure(named, settled)
    unit = "seconds" if options.what == "start" else "patches_per_second"
    rows = [reporting.make_row(o, outcomes[0], unit) for o in outcomes]
    if finish:
        finish(rows, outcomes)
    report = reporting.Report(
        reporting.describe_machine(),
        reporting.list_versions(),
        parameters,
        rows,
        _note_input_share(outcomes) if options.what == "training" else [],
    )
    if options.json_output is not None:
        files.write_json(options.json_output, dataclasses.asdict(report))
    return report


def _describe_data(options: configuration.Options) -> dict[str, object]:
    """Returns what a report says of what is measured.

    Raises:
        FileNotFoundError, ValueError: patches are not there, less than a batch,
            or do not fit in memory as often as they must.
    """
    lengths = {
        "repeats": options.num_repeats,
        "min_patches": options.min_patches,
        "min_seconds": options.min_seconds,
    }
    if options.what == "convert":
        splits = conversion_rates.list_splits(options.input_dir)
        num_patches = sum(map(len, splits))
        return {"what": options.what, "patches": num_patches} | lengths
    records = records_folder.open_folder(options.records_dir)
    num_patches = records.count_patches(options.splits)
    if options.batch_size > num_patches:
        raise ValueError(
            f"--batch_size: found {options.batch_size}, expected at most the"
            f" number of patches, {num_patches:,}."
        )
    num_copies = _NUM_COPIES.get(options.what, 0)
    needed = num_copies * num_patches * schema.IMAGE_BYTES
    available = memory.free_memory()
    if available is not None and needed > _SHARE_OF_MEMORY * available:
        raise ValueError(
            f"--records_dir: found {num_patches:,} patches, which would"
            f" take {needed / _GIGABYTE:.1f} GB of memory; {_SHARE_OF_MEMORY:.0%}"
            f" of the {available / _GIGABYTE:.1f} GB free is the most. Take fewer"
            " patches, as with fewer --splits."
        )
    trains = options.what in ("predict", "training")
    return {
        "what": options.what,
        **({"model": options.model} if trains else {}),
        "records": records.manifest_sha256[:12],
        "splits": options.splits,
        "patches": num_patches,
        "batch_size": options.batch_size,
        **lengths,
    }


def _note_input_share(outcomes: Outcomes) -> list[str]:
    """Returns a line with the share of time that training waits for input."""
    limit, real, *_ = outcomes
    ratio = real.ratio_to(limit)
    if ratio is None:
        return []
    # Time is patches by rate: (real - constant) / real = 1 - ratio of rates.
    return [
        f"input-bound share: {1 - ratio:.1%} (expected: at most"
        f" {_EXPECTED_SHARE:.0%})"
    ]
