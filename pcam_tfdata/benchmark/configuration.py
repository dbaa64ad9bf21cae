"""What to time, and for how long."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pcam_tfdata.records import records_folder

# How long a repeat is where options do not say. Batches come out of buffers, which
# are emptied first; other pieces of work are long.
_PIECES = {"warm_up": 1, "min_patches": 0, "min_seconds": 0.0}
_BATCHES = {"warm_up": 10, "min_patches": 10_000, "min_seconds": 1.0}
_LENGTHS = {
    **dict.fromkeys(("data_service", "input", "peers"), _BATCHES),
    "predict": {"min_seconds": 2.0},
    "training": {"min_seconds": 5.0},
}


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
        num_repeats: Rounds; each contender is timed once in a round.
        min_patches: Least number of patches of a repeat; None for what suits
            the benchmark.
        min_seconds: Least length of a repeat; None for what suits the
            benchmark.
        scratch_dir: Where `convert` writes; empty for the system's folder of
            temporary files.
        json_output: File to write the report to, if any.
        warm_up: Pieces of work before the clock starts, to use up what was
            prefetched while others ran, or to make ready; None for what suits
            the benchmark.
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
    scratch_dir: str = ""
    json_output: str | None = None
    warm_up: int | None = None

    def settle(self, folder: str) -> "Options":
        """Returns options that leave nothing open, with a folder to write in."""
        splits = self.splits
        if self.records_dir and not splits:
            content = records_folder.open_folder(self.records_dir).content
            splits = [split.name for split in content.splits if split.labeled]
        lengths: dict[str, Any] = _PIECES | _LENGTHS.get(self.what, {})
        unsaid = {n: v for n, v in lengths.items() if getattr(self, n) is None}
        return dataclasses.replace(
            self, splits=splits, scratch_dir=folder, **unsaid
        )

    def select_patches(self) -> records_folder.Selection:
        """Returns the patches of `splits`.

        Raises:
            FileNotFoundError, ValueError: they are not there.
        """
        records = records_folder.open_folder(self.records_dir)
        return records.select_patches(self.splits)
