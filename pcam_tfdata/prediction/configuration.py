"""What to predict, and where to."""

import dataclasses
import os

from pcam_tfdata.evaluation import operating_point
from pcam_tfdata.models import inference
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import outputs, run_folder
from pcam_tfdata.system import files


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What to predict. Each leaf is a flag of `pcam predict`.

    Attributes:
        run_dir: Folder of a run; its best model predicts.
        output_csv: The file to write.
        records_dir: Records folder; empty where `input_dir` is read.
        input_dir: Kaggle's folder, read without records; empty for records.
        split: Name of a split of the records; of a folder, `test` or `train`.
        forward: How the network runs.
        threshold: None for probabilities; else labels 0 and 1, where a
            probability at or above it gives 1, or what it has to reach on the
            run's validation splits.
        calibrated: Calibrates logits as the run's validation splits say, if
            they do.
        with_fraction: Adds a column `fraction`, the share of tumor in the centre
            that the network estimates. No parts are kept then.
        allow_equal_probabilities: No line warns where all are equal.
        sample_submission: A CSV whose ids, in order, the output must have.
        restart: Drops the parts that a killed job left.
        follow_symlinks: Whether links among the files of a folder are followed.
        check_ids: Whether ids of files must be hashes of their pixels: `auto`,
            `always` or `never`.
        on_bad_patch: `fail`, or `skip` to leave out files that cannot be used.
        shard_range: `a:b`: only shards a to b - 1 of the split, whose parts
            stay until all are there and are merged; empty for all.
    """

    run_dir: str
    output_csv: str
    records_dir: str = ""
    input_dir: str = ""
    split: str = "test"
    forward: inference.InferenceOptions = dataclasses.field(
        default_factory=inference.InferenceOptions
    )
    threshold: float | operating_point.Wanted | None = None
    calibrated: bool = True
    with_fraction: bool = False
    allow_equal_probabilities: bool = False
    sample_submission: str = ""
    restart: bool = False
    follow_symlinks: bool = False
    check_ids: str = "auto"
    on_bad_patch: str = "fail"
    shard_range: str = ""

    @property
    def parts_dir(self) -> str:
        """The folder of the parts."""
        return f"{self.output_csv}.parts"

    def read_point(self) -> operating_point.OperatingPoint:
        """Returns what the run says of its logits."""
        return operating_point.read(
            self.run_dir,
            manifest.hash_file(run_folder.find_model(self.run_dir)),
            self.forward.tta,
            self.threshold,
            is_calibrated=self.calibrated,
        )


def check_output(
    options: PredictOptions, *, stays_in_parts: bool = False
) -> None:
    """Refuses a path where the CSV cannot be written, or must not be.

    Args:
        options: What to predict.
        stays_in_parts: Whether the parts outlive this process, beside the CSV.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: it is such a path.
    """
    inputs = [options.sample_submission] if options.sample_submission else []
    if options.input_dir:
        inputs.append(os.path.join(options.input_dir, options.split))
    outputs.check_file(
        options.output_csv, "--output_csv", suffixes=outputs.CSV, inputs=inputs
    )
    if stays_in_parts and files.is_stream(options.output_csv):
        raise FileExistsError(
            f"--output_csv={options.output_csv}: found no plain file, expected"
            " one or none: the parts of a prediction lie beside it. Choose"
            " another --output_csv."
        )
