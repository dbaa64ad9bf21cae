"""Two runs, scored on the same validation patches: which one is better."""

from typing import Any

import numpy as np

from pcam_tfdata.evaluation import bootstrap, metrics, score_page
from pcam_tfdata.runs import predictions_file

Comparison = dict[str, Any]


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

    Returns:
        `scores`, by name: the `first` and the `second` run's, None where all
        labels are equal, their `difference`, second less first, its `interval`,
        and whether that `excludes_0`; and what was compared.

    Raises:
        FileNotFoundError, ValueError: predictions are not there, stale, or of
            other patches than those of the other run.
    """
    run_dirs = first_dir, second_dir
    first, second = map(predictions_file.read, run_dirs)
    _check_same(run_dirs, first, second)
    intervals = bootstrap.compute_difference_intervals(
        first.label,
        (first.logit, second.logit),
        first.slide,
        num_resamples=num_resamples,
    )
    scores: dict[str, dict[str, Any]] = {}
    for name, interval in intervals.items():
        values = [
            getattr(metrics, name)(p.label, p.logit) for p in (first, second)
        ]
        scores[name] = {
            "first": values[0],
            "second": values[1],
            "difference": None if None in values else values[1] - values[0],
            "interval": interval,
            "excludes_0": interval and not interval[0] <= 0 <= interval[1],
        }
    return {
        "run_dirs": list(run_dirs),
        "model_sha256": [p.facts["model_sha256"] for p in (first, second)],
        "tta": [p.facts["tta"] for p in (first, second)],
        "splits": first.facts["splits"],
        "manifest_sha256": first.facts["manifest_sha256"],
        "num_patches": len(first.label),
        "num_slides": first.facts["num_slides"],
        "num_resamples": num_resamples,
        "scores": scores,
    }


def format_comparison(found: Comparison) -> str:
    """Returns a comparison as a page of text."""
    slides = found["num_slides"]
    unit = (
        f"whole slides, of {slides:,}" if slides else "patches (slides unknown)"
    )
    lines = [
        *(
            f"{name}: {run_dir}, network {sha256[:8]}, test-time augmentation"
            f" {tta}"
            for name, run_dir, sha256, tta in zip(
                "ab",
                found["run_dirs"],
                found["model_sha256"],
                found["tta"],
                strict=True,
            )
        ),
        f"{', '.join(found['splits'])}: {found['num_patches']:,} patches, records"
        f" {found['manifest_sha256'][:8]}",
        f"{found['num_resamples']:,} paired bootstrap resamples of {unit}",
        "",
        f"{'':<12}{'a':>9}{'b':>9}{'b - a':>10}  95% interval of b - a",
    ]
    for name, row in found["scores"].items():
        title = f"{score_page.TITLES[name]:<12}"
        if row["difference"] is None:
            lines.append(f"{title}not defined: all labels are equal")
            continue
        line = f"{title}{row['first']:>9.4f}{row['second']:>9.4f}"
        line += f"{row['difference']:>+10.4f}"
        if row["interval"]:
            line += "  [{:+.4f}, {:+.4f}]".format(*row["interval"])
            line += f" {'excludes' if row['excludes_0'] else 'includes'} 0"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _check_same(
    run_dirs: tuple[str, str],
    first: predictions_file.Predictions,
    second: predictions_file.Predictions,
) -> None:
    """Refuses predictions of other patches than the first ones."""
    text = f"--run_dir={','.join(run_dirs)}: found predictions of"
    remedy = "Compare runs on the same records and validation splits."
    records, others = (p.facts["manifest_sha256"][:8] for p in (first, second))
    if records != others:
        raise ValueError(
            f"{text} records {records} and {others}, expected the same."
            f" {remedy}"
        )
    splits, others = (",".join(p.facts["splits"]) for p in (first, second))
    if not (
        np.array_equal(first.row, second.row)
        and np.array_equal(first.label, second.label)
    ):
        raise ValueError(
            f"{text} {splits} and {others}, expected the same patches. {remedy}"
        )
