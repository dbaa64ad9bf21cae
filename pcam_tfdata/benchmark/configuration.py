"""What to time, and for how long."""

import dataclasses
from collections.abc import Sequence

from pcam_tfdata.benchmark import timed_process
from pcam_tfdata.records import records_folder


@dataclasses.dataclass(frozen=True)
class Options:
    """A benchmark.

    Attributes:
        what: One of `choices.BENCHMARKS`.
        records_dir: Records folder; for all but `convert`.
        input_dir: Kaggle's folder, for `convert`.
        splits: Names; none for all labelled splits.
        model: Network of `training` and `predict`.
        batch_size: Patches of a batch.
        num_repeats: Interleaved repeats.
        min_patches: Least number of patches of a repeat; None for what suits
            the benchmark.
        min_seconds: Least length of a repeat; None for what suits the
            benchmark.
        scratch_dir: Where `convert` writes; None for the system's folder of
            temporary files.
        json_output: File to write the report to, if any.
    """

    what: str
    records_dir: str = ""
    input_dir: str = ""
    splits: Sequence[str] = ()
    model: str = "small_cnn"
    batch_size: int = 512
    num_repeats: int = 7
    min_patches: int | None = None
    min_seconds: float | None = None
    scratch_dir: str | None = None
    json_output: str | None = None

    def settle(self, folder: str) -> "Options":
        """Returns the options with splits, and with a folder to write in."""
        splits = self.splits
        if self.records_dir and not splits:
            content = records_folder.open_folder(self.records_dir).content
            splits = [split.name for split in content.splits if split.labeled]
        return dataclasses.replace(self, splits=splits, scratch_dir=folder)

    def plan(self, default: timed_process.Plan) -> timed_process.Plan:
        """Returns `default`, with what the options say instead."""
        names = ("num_repeats", "min_patches", "min_seconds")
        values = {name: getattr(self, name) for name in names}
        given = {name: v for name, v in values.items() if v is not None}
        return dataclasses.replace(default, **given)

    def select_patches(self) -> records_folder.Selection:
        """Returns the patches of `splits`, or of all labelled splits.

        Raises:
            FileNotFoundError, ValueError: they are not there.
        """
        records = records_folder.open_folder(self.records_dir)
        return records.select_patches(self.splits)
