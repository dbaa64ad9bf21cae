"""Two runs, scored on the same validation patches: which one is better."""

from typing import NamedTuple

import numpy as np

from pcam_tfdata.evaluation import bootstrap, metrics, score_page
from pcam_tfdata.runs import predictions_file


class Comparison(NamedTuple):
    """How a second run differs from a first one.

    Attributes:
        run_dirs: Folders of both.
        predictions: Of both, for the same patches.
        scores: Of both, by name; None where all labels are equal.
        intervals: Of their differences, second less first, by the same names;
            None for none.
        num_resamples: Bootstrap resamples behind the intervals.
    """

    run_dirs: tuple[str, str]
    predictions: tuple[predictions_file.Predictions, ...]
    scores: dict[str, list[float | None]]
    intervals: dict[str, tuple[float, float] | None]
    num_resamples: int


def compare(
    first_dir: str, second_dir: str, *, num_resamples: int = 1000
) -> Comparison:
    """Returns how the second run differs from the first, with 95% intervals.

    Patches are resampled as `bootstrap` does, in pairs: by whole slides where
    `pcam evaluate` knew the slide of each.

    Args:
        first_dir: Folder of a run that `pcam evaluate` has scored.
        second_dir: Of another one, of the same validation splits and records.
        num_resamples: Bootstrap resamples behind the intervals.

    Raises:
        FileNotFoundError, ValueError: predictions are not there, stale, or of
            other patches than those of the other run.
    """
    run_dirs = first_dir, second_dir
    first, second = predictions = tuple(map(predictions_file.read, run_dirs))
    _check_same(run_dirs, first, second)
    (intervals,) = bootstrap.compute_difference_intervals(
        first.label,
        (first.logit, second.logit),
        first.slide,
        num_resamples=num_resamples,
    )
    scores = {
        name: [getattr(metrics, name)(p.label, p.logit) for p in predictions]
        for name in intervals
    }
    return Comparison(run_dirs, predictions, scores, intervals, num_resamples)


def format_comparison(comparison: Comparison) -> str:
    """Returns a comparison as a page of text."""
    facts = [predictions.facts for predictions in comparison.predictions]
    slides = facts[0]["num_slides"]
    unit = (
        f"whole slides, of {slides:,}" if slides else "patches (slides unknown)"
    )
    lines = [
        f"{name}: {run_dir}, network {own['model_sha256'][:8]}, test-time"
        f" augmentation {own['tta']}"
        for name, run_dir, own in zip(
            "ab", comparison.run_dirs, facts, strict=True
        )
    ]
    lines += [
        f"{', '.join(facts[0]['splits'])}: {len(comparison.predictions[0].row):,}"
        f" patches, records {facts[0]['manifest_sha256'][:8]}",
        f"{comparison.num_resamples:,} paired bootstrap resamples of {unit}",
        "",
        f"{'':<12}{'a':>9}{'b':>9}{'b - a':>10}  95% interval of b - a",
    ]
    for name, (first, second) in comparison.scores.items():
        line = f"{score_page.TITLES[name]:<12}"
        if first is None or second is None:
            line += "not defined: all labels are equal"
        else:
            line += f"{first:>9.4f}{second:>9.4f}{second - first:>+10.4f}"
        if interval := comparison.intervals[name]:
            low, high = interval
            verb = "includes" if low <= 0 <= high else "excludes"
            line += f"  [{low:+.4f}, {high:+.4f}] {verb} 0"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _check_same(
    run_dirs: tuple[str, str],
    first: predictions_file.Predictions,
    second: predictions_file.Predictions,
) -> None:
    """Refuses predictions of other patches than the first ones."""
    hashes = [p.facts["manifest_sha256"][:8] for p in (first, second)]
    splits = [",".join(p.facts["splits"]) for p in (first, second)]
    is_same = np.array_equal(first.row, second.row) and np.array_equal(
        first.label, second.label
    )
    if hashes[0] != hashes[1] or not is_same:
        raise ValueError(
            f"--run_dir={','.join(run_dirs)}: found predictions of"
            f" {' and '.join(splits)} of records {' and '.join(hashes)}, expected"
            " the same patches. Compare runs on the same records and validation"
            " splits."
        )
