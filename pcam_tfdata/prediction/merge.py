"""From the parts of a prediction to its CSV."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pcam_tfdata.prediction import configuration, parts, submission
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import csv_files

_MAX_NAMED = 8


def merge(options: configuration.PredictOptions) -> int:
    """Writes the CSV of a prediction whose parts are all there.

    They are removed then.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError: a part is not there, or the parts are of
            another model or other records, or the sample does not fit them.
        RuntimeError: a process is writing parts.
    """
    configuration.check_output(options, stays_in_parts=True)
    records = records_folder.open_folder(options.records_dir)
    shards = records.select_patches([options.split]).shards
    with open_parts(options, shards) as done:
        return Writer(options, shards).write(done)


@contextlib.contextmanager
def open_parts(
    options: configuration.PredictOptions,
    shards: Sequence[records_folder.ShardFile],
) -> Iterator[parts.Parts]:
    """Opens the parts of all shards of a split; at the end they are removed.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as in `merge`.
    """
    job = describe_job(options)
    if not os.path.isdir(options.parts_dir):
        raise FileNotFoundError(
            f"{options.parts_dir}: not found, expected the parts of a"
            " prediction. Predict with --shard_range first."
        )
    with parts.open_folder(options.parts_dir, job) as done:
        missing = list_missing(shards, slice(0, len(shards)), done)
        if missing:
            raise ValueError(_describe_missing(options, shards, missing))
        yield done


def describe_job(options: configuration.PredictOptions) -> dict[str, str]:
    """Returns what parts belong to.

    Raises:
        FileNotFoundError: there is no model, or no records.
    """
    return {
        "model_sha256": manifest.hash_file(
            run_folder.find_model(options.run_dir)
        ),
        "manifest_sha256": records_folder.open_folder(
            options.records_dir
        ).manifest_sha256,
        "split": options.split,
    }


def list_missing(
    shards: Sequence[records_folder.ShardFile], chosen: slice, done: parts.Parts
) -> list[slice]:
    """Returns the runs of shards, of those chosen, that have no sound part."""
    places = itertools.groupby(
        range(chosen.start, chosen.stop),
        lambda place: done.has(shards[place]),
    )
    runs = [list(run) for has, run in places if not has]
    return [slice(run[0], run[-1] + 1) for run in runs]


class Writer:
    """Writes the CSV of all patches of a split.

    What it needs beside the parts is looked at when it is made: predicting may
    take an hour.

    Args:
        options: Of the prediction.
        shards: All of the split.

    Raises:
        ValueError: sidecar or sample do not fit the patches.
    """

    def __init__(
        self,
        options: configuration.PredictOptions,
        shards: Sequence[records_folder.ShardFile],
    ) -> None:
        self._options = options
        self._shards = shards
        self._num_patches = sum(shard.num_records for shard in shards)
        once = None
        if _check_names(options, self._num_patches):
            once = _list_once(options)
        self._sample = read_sample(options, _read_names(options)) or once

    def write(self, done: parts.Parts) -> int:
        """Returns how many patches; memory holds the logits of a shard."""
        submission.write(
            self._options.output_csv,
            _read_names(self._options),
            map(done.read, self._shards),
            sample=self._sample,
            threshold=self._options.threshold,
            allow_equal=self._options.allow_equal_probabilities,
        )
        if self._sample is not None:
            return len(self._sample.names)
        return self._num_patches


def _read_names(options: configuration.PredictOptions) -> Iterator[str]:
    """Yields the names of a split's patches; memory holds one at a time."""
    path = os.path.join(options.records_dir, manifest.SIDECAR_FILE)
    for split, name in csv_files.iterate_csv(path, ("split", "source_name")):
        if split == options.split:
            yield name


def _check_names(
    options: configuration.PredictOptions, num_patches: int
) -> bool:
    """Returns whether patches of the split share a name.

    Raises:
        ValueError: the sidecar has not a name for each patch.
    """
    # Memory holds eight bytes a name.
    hashes = np.fromiter(map(hash, _read_names(options)), np.int64)
    if len(hashes) != num_patches:
        path = os.path.join(options.records_dir, manifest.SIDECAR_FILE)
        raise ValueError(
            f"{path}: found {len(hashes):,} rows of {options.split}, expected"
            f" {num_patches:,}. Convert again."
        )
    records_folder.open_folder(options.records_dir).check_sidecar()
    hashes.sort()
    return bool((hashes[1:] == hashes[:-1]).any())


def _list_once(options: configuration.PredictOptions) -> submission.Sample:
    """Returns a row for each name of a split where patches share some."""
    path = os.path.join(options.records_dir, manifest.SIDECAR_FILE)
    rows = csv_files.iterate_csv(path, ("split", "source_name", "id"))
    patches = (row[1:] for row in rows if row[0] == options.split)
    return submission.list_once(path, patches)


def read_sample(
    options: configuration.PredictOptions,
    names: Iterable[str],
    left_out: Iterable[str] = (),
) -> submission.Sample | None:
    """Returns the rows that the sample asks for; None where there is none.

    Args:
        options: Of the prediction.
        names: Of the patches, in order.
        left_out: Names of patches that cannot be used, for the error.
    """
    if options.sample_submission is None:
        return None
    return submission.read_sample(options.sample_submission, names, left_out)


def _describe_missing(
    options: configuration.PredictOptions,
    shards: Sequence[records_folder.ShardFile],
    missing: Sequence[slice],
) -> str:
    num_missing = sum(run.stop - run.start for run in missing)
    ranges = [f"{run.start}:{run.stop}" for run in missing]
    named = ", ".join(ranges[:_MAX_NAMED])
    if len(ranges) > _MAX_NAMED:
        named += f" and {len(ranges) - _MAX_NAMED:,} more"
    return (
        f"{options.parts_dir}: found no part of {num_missing:,} of"
        f" {len(shards):,} shards, expected all. Predict with --shard_range:"
        f" {named}."
    )
