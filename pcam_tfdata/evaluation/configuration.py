"""What to score, and where the scores may go."""

import dataclasses
import logging
import os
from collections.abc import Sequence

from pcam_tfdata.evaluation import operating_point, slides
from pcam_tfdata.models import inference
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import outputs, run_folder
from pcam_tfdata.system import files

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to score.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of a run; its best model is scored.
        splits: Labelled splits; none for the run's validation splits.
        threshold: A calibrated probability at or above it predicts 1; or what
            it has to reach on the run's validation splits.
        forward: How the network runs.
        output_dir: Where the files go; empty for `run_dir`, where the run's
            validation splits of its own records are scored, and else for a
            folder of these splits in its `evaluations`.
        num_resamples: Bootstrap resamples behind the intervals; 0 for none.
        stress: Changes of patches to score under too, of `choices.STRESSES`.
    """

    records_dir: str
    run_dir: str
    splits: Sequence[str] = ()
    threshold: float | operating_point.Wanted = 0.5
    forward: inference.InferenceOptions = dataclasses.field(
        default_factory=inference.InferenceOptions
    )
    output_dir: str = ""
    num_resamples: int = 1000
    stress: Sequence[str] = ()


def settle(
    options: EvaluateOptions,
    records: records_folder.RecordsFolder,
    own_splits: Sequence[str],
    is_own: bool,
) -> EvaluateOptions:
    """Returns options with `splits` and `output_dir` filled in.

    Args:
        options: What to score.
        records: Opened.
        own_splits: The run's validation splits.
        is_own: Whether the run was trained on these records.

    Raises:
        ValueError: a split is unknown or without labels, or none is known.
        FileExistsError: these scores do not belong into the run's folder.
    """
    run_dir, output_dir = options.run_dir, options.output_dir
    other = "" if is_own else records.manifest_sha256
    splits = [name for name in options.splits or own_splits if name]
    if not splits:
        raise ValueError(
            f"--splits: found none, and no {run_folder.FLAGS} in {run_dir} that"
            " tells the run's validation splits, expected labelled splits of the"
            " records. Pass --splits."
        )
    selected = records.content.select(splits)
    unlabeled = [split.name for split in selected if not split.labeled]
    if unlabeled:
        raise ValueError(
            f"--splits: found {', '.join(unlabeled)}, without labels, expected"
            " labelled splits."
        )
    folder = run_folder.name_evaluation(run_dir, splits, own_splits, other)
    if folder == run_dir:
        output_dir = output_dir or run_dir
    elif not output_dir:
        output_dir = folder
        _logger.info("Files of %s go to %s.", ", ".join(splits), output_dir)
    elif files.resolve(output_dir) == files.resolve(run_dir):
        raise FileExistsError(
            f"--output_dir={output_dir}: found the run's folder, which keeps the"
            " scores of its own validation splits and records, expected another."
            " Leave --output_dir out, or choose another."
        )
    return dataclasses.replace(
        options, splits=tuple(splits), output_dir=output_dir
    )


def check_output(options: EvaluateOptions) -> None:
    """Refuses a folder where the scores would take the place of others.

    Raises:
        FileExistsError: it is such a folder.
    """
    chosen = files.resolve(options.output_dir)
    run_dir = files.resolve(options.run_dir)
    own = os.path.join(run_dir, run_folder.EVALUATIONS)
    if chosen == run_dir or files.is_within(chosen, own):
        return
    outputs.check_folder(
        options.output_dir, "--output_dir", file=run_folder.METRICS_JSON
    )
    path = os.path.join(chosen, run_folder.SLIDES)
    if not os.path.isfile(path):
        return
    with files.open_file(path, errors="replace") as file:
        header = file.readline().rstrip("\n")
    if header != ",".join(slides.COLUMNS):  # As that of --slide_csv.
        raise FileExistsError(
            f"{path}: found columns {header[:80]!r}, expected no file"
            " or that of an earlier evaluation. Choose another --output_dir."
        )
