"""What to time, and for how long."""

import dataclasses
from collections.abc import Sequence

from pcam_tfdata.benchmark import contender
from pcam_tfdata.records import records_folder


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions:
    """A benchmark.

    Attributes:
        what: One of `choices.BENCHMARKS`.
        records_dir: Records folder; for all but `convert`.
        input_dir: Kaggle's folder, for `convert`.
        splits: Names; none for all labelled splits.
        model: Network of `training` and `predict`.
        batch_size: Patches of a batch.
        num_repeats: Interleaved repeats.
        min_patches: Least of a repeat; None for what suits the benchmark.
        min_seconds: Likewise.
        scratch_dir: Where `convert` writes; None for the system's place for
            temporary files.
        json_output: File to write the report to, if any.
    """

    what: str
    records_dir: str | None = None
    input_dir: str | None = None
    splits: Sequence[str] = ()
    model: str = "small_cnn"
    batch_size: int = 512
    num_repeats: int = 7
    min_patches: int | None = None
    min_seconds: float | None = None
    scratch_dir: str | None = None
    json_output: str | None = None

    def plan(self, default: contender.Plan) -> contender.Plan:
        """Returns `default`, with what the options say instead."""
        changes = {
            "num_repeats": self.num_repeats,
            "min_patches": self.min_patches,
            "min_seconds": self.min_seconds,
        }
        given = {name: v for name, v in changes.items() if v is not None}
        return dataclasses.replace(default, **given)


@dataclasses.dataclass(frozen=True)
class Data:
    """The patches that a benchmark reads.

    Attributes:
        records_dir: Records folder.
        splits: Names.
        batch_size: Patches of a batch.
        num_patches: Of all splits.
        manifest_sha256: Names the data.
    """

    records_dir: str
    splits: tuple[str, ...]
    batch_size: int
    num_patches: int
    manifest_sha256: str

    def parameters(self) -> dict[str, object]:
        """Returns what a report says of the data."""
        return {
            "records": self.manifest_sha256[:12],
            "splits": self.splits,
            "patches": self.num_patches,
            "batch_size": self.batch_size,
        }


def find_data(options: BenchmarkOptions) -> Data:
    """Returns the patches that the options name.

    Raises:
        FileNotFoundError, ValueError: they are not there, or less than a batch.
    """
    records = records_folder.open_folder(options.records_dir)
    names = options.splits or [
        split.name for split in records.content.splits if split.labeled
    ]
    num_patches = records.count_patches(names)
    if options.batch_size > num_patches:
        raise ValueError(
            f"--batch_size: found {options.batch_size}, expected at most the"
            f" number of patches, {num_patches:,}."
        )
    return Data(
        options.records_dir,
        tuple(names),
        options.batch_size,
        num_patches,
        records.manifest_sha256,
    )
