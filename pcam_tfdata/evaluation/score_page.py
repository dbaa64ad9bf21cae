"""Scores as a page of text."""

import textwrap
from collections.abc import Iterator

from pcam_tfdata.evaluation import bootstrap, metrics

TITLES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity_at_95_specificity": "sensitivity at 95% specificity",
    "accuracy": "accuracy",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": f"ECE ({metrics.NUM_BINS} bins)",
}
# Of what not every network and not every evaluation has.
_OPTIONAL_TITLES = {
    "nll_calibrated": "NLL, calibrated",
    "ece_calibrated": "ECE, calibrated",
    "fraction_mae": "tumor fraction, mean error",
    "fraction_correlation": "tumor fraction, correlation",
}
_LINE_WIDTH, _TITLE_WIDTH = 80, 32
FEW_SLIDES = 30  # Cameron & Miller 2015: few are less than 20 to 50.
_CLASS_COLUMNS = ("precision", "recall", "f1-score", "support")


def format_scores(scores: metrics.Scores) -> str:
    """Returns an evaluation as a page of text."""
    parts = (
        _subject(scores),
        [
            textwrap.fill(f"Warning: {warning}", _LINE_WIDTH)
            for warning in scores["warnings"]
        ],
        _table(scores),
        [textwrap.fill(note, _LINE_WIDTH) for note in _notes(scores)],
        _confusion_matrix(scores),
        _class_report(scores),
    )
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _subject(scores: metrics.Scores) -> list[str]:
    """Returns which network was scored, and on which records."""
    slides = ""
    if num_slides := scores["num_slides"]:
        slides = f" of {num_slides:,} slide{'s' * (num_slides > 1)}"
    return [
        f"{scores['model']} on {', '.join(scores['splits'])}:"
        f" {scores['num_patches']:,} patches{slides}, threshold"
        f" {scores['threshold']:.6g}",
        f"Network {scores['model_sha256'][:8]}, records"
        f" {scores['manifest_sha256'][:8]} of {scores['records_dir']}",
    ]


def _table(scores: metrics.Scores) -> list[str]:
    lines = []
    if any(scores["intervals"].values()):
        lines.append(f"{'':<{_TITLE_WIDTH}}{'score':>12} 95% interval")
    for name in metrics.NAMES:
        value = scores[name]
        interval = scores["intervals"][name]
        shown = "not defined" if value is None else f"{value:.4f}"
        beside = " [{:.4f}, {:.4f}]".format(*interval) if interval else ""
        lines.append(f"{TITLES[name]:<{_TITLE_WIDTH}}{shown:>12}{beside}")
    for name, title in _OPTIONAL_TITLES.items():
        value = scores[name]
        if value is not None:
            lines.append(f"{title:<{_TITLE_WIDTH}}{value:>12.4f}")
    return lines


def _notes(scores: metrics.Scores) -> Iterator[str]:
    """Yields how the scores are to be read, a paragraph each."""
    if scores["num_slides"] is None:
        yield (
            "Slides are unknown, so scores and intervals are optimistic: patches"
            " of one slide are alike, and others of it may have been trained on."
        )
    if scores["nll_calibrated"] is not None:
        yield (
            "Calibrated: logits divided by a temperature, and an intercept added,"
            " that were fitted on other patches. Those of the run, fitted on all"
            " of its validation, which labels follow here and in pcam predict,"
            f" are {scores['temperature']:.4f} and {scores['intercept']:.4f}."
        )
    if scores["num_resamples"]:
        yield from _interval_notes(scores)
    elif 1 in (scores["num_slides"], scores["num_patches"]):
        yield (
            f"No intervals: these are of one {scores['resampled'][:-1]},"
            " expected at least 2."
        )


def _interval_notes(scores: metrics.Scores) -> Iterator[str]:
    by_slide = scores["resampled"] == bootstrap.SLIDES
    yield (
        f"Intervals: percentiles of {scores['num_resamples']:,} bootstrap"
        f" resamples of {'whole ' * by_slide}{scores['resampled']}."
    )
    if by_slide and (scores["num_slides"] or 0) < FEW_SLIDES:
        yield (
            f"With fewer than {FEW_SLIDES} slides intervals are rough, and"
            " rather too narrow."
        )
    if scores["intervals"]["ece"] and (
        scores["ece"] < scores["intervals"]["ece"][0]
    ):
        yield (
            "The ECE is below its interval: drawing again adds noise to every"
            " bin, so that of a resample is higher."
        )
    num_one_class = scores["num_one_class_resamples"]
    if num_one_class and scores["auc"] is not None:
        has_interval = scores["intervals"]["auc"] is not None
        then = "left out there" if has_interval else "too many for an interval"
        yield (
            f"In {num_one_class:,} of them all labels are equal, and AUC,"
            f" average precision and sensitivity not defined: {then}."
        )


def _confusion_matrix(scores: metrics.Scores) -> list[str]:
    lines = [" " * _TITLE_WIDTH + f"{'predicted 0':>12}{'predicted 1':>12}"]
    for label, row in enumerate(scores["confusion_matrix"]):
        counts = "".join(f"{count:>12,}" for count in row)
        lines.append(f"{f'true {label}':<{_TITLE_WIDTH}}{counts}")
    return lines


def _class_report(scores: metrics.Scores) -> list[str]:
    heads = "".join(f"{name:>12}" for name in _CLASS_COLUMNS)
    lines = [" " * _TITLE_WIDTH + heads]
    for name, row in scores["classification_report"].items():
        if isinstance(row, dict):
            values = "".join(f"{row[key]:>12.4f}" for key in _CLASS_COLUMNS[:3])
            lines.append(
                f"{name:<{_TITLE_WIDTH}}{values}{row['support']:>12,.0f}"
            )
    return lines
