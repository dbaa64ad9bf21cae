"""What a reader must know first: how good a network is, and whether to trust that."""

import csv
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pcam_tfdata.evaluation import bootstrap, metrics, score_page
from pcam_tfdata.report import scored_run

# From which AUC on a ranking is called so. The words are ours.
_GRADES = {0.95: "very well", 0.9: "well", 0.8: "fairly well", 0: "only poorly"}
_MOST_ECE = 0.05


def describe_scores(run: scored_run.ScoredRun) -> str:
    """Returns how good a network is, the end of a sentence about it."""
    _, _, label, logit, slide = run.predictions
    splits = ", ".join(run.predictions.facts["splits"])
    of = f"on {len(label):,} patches of {splits}"
    if slide is not None:
        of += f" from {len(np.unique(slide)):,} slides"
    auc, interval = metrics.auc(label, logit), run.interval("auc")
    if auc is None:
        return f"cannot be scored {of}: all have the same label."
    low, high = interval or (auc, auc)
    grade = next(name for least, name in _GRADES.items() if auc >= least)
    verdict = f"ranks tumor above normal patches {grade}"
    if low <= 0.5 <= high:
        verdict = "ranks patches no better than chance"
    elif high < 0.5:
        verdict = "ranks normal patches above tumor"
    shown = f" [{low:.3f}, {high:.3f}]" if interval else ""
    return f"{verdict}: AUC {auc:.3f}{shown} {of}."


def list_checks(
    facts: Mapping[str, Any], table: str
) -> Iterator[dict[str, str]]:
    """Yields the rows of `checks.csv` that hold, in their order.

    `facts` has what the rows name: a value, which the `text` of a row has a place
    for, or a list of them. One without a value does not hold.
    """
    for check in csv.DictReader(table.splitlines()):
        values = facts.get(check["fact"])
        for value in values if isinstance(values, list) else [values]:
            if value:
                yield check | {"text": check["text"].format(value)}


def judge_scores(run: scored_run.ScoredRun) -> dict[str, Any]:
    """Returns the facts of a run that a reader must not miss."""
    label, slide = run.predictions.label, run.predictions.slide
    warnings = run.predictions.facts.get("warnings", [])
    interval = run.interval("auc")
    probability = run.probability if run.fair is None else run.fair
    ece = f"{metrics.ece(label, probability):.3f}"
    is_off = float(ece) > _MOST_ECE
    num_slides = 0 if slide is None else len(np.unique(slide))
    epochs = run.training.columns.get("epoch", 0)
    return {
        "warning": [text[:1].upper() + text[1:] for text in warnings],
        "stale": not run.is_current,
        "chance": interval and interval[0] <= 0.5 <= interval[1],
        "inverted": interval and interval[1] < 0.5,
        "unseen": run.is_own and not warnings,
        "no_slides": slide is None,
        "few_slides": num_slides < score_page.FEW_SLIDES and num_slides,
        "slides": num_slides >= score_page.FEW_SLIDES and num_slides,
        "uncalibrated": run.fair is None and ece,
        "bad_ece": run.fair is not None and is_off and ece,
        "good_ece": run.fair is not None and not is_off and ece,
        "looks": epochs > 1 and run.folder == run.run_dir and epochs,
    }


def judge_audit(audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns whether `pcam audit` found leaks; None for no audit."""
    findings = audit["findings"] if audit else []
    leaks = ", ".join(f["title"] for f in findings if f["gravity"] == "leak")
    return {
        "leaks": leaks,
        "no_leaks": audit and not leaks,
        "no_audit": audit is None,
    }


def compare(runs: list[scored_run.ScoredRun]) -> list[list[str]]:
    """Returns AUC and NLL of runs less the first's, with paired 95% intervals.

    All are scored on the same resamples. A row for each score: its name, and a
    text for each run; none where runs were scored on different patches.
    """
    first, *others = (run.predictions for run in runs)
    patches = np.stack([first.row, first.label])
    if metrics.auc(first.label, first.logit) is None or not all(
        np.array_equal(patches, np.stack([p.row, p.label])) for p in others
    ):
        return []
    intervals = bootstrap.compute_difference_intervals(
        first.label, [p.logit for p in (first, *others)], first.slide
    )
    rows = []
    for name in bootstrap.COMPARED:
        base, *scores = (
            getattr(metrics, name)(p.label, p.logit) for p in (first, *others)
        )
        row = [f"{name.upper()}, difference", "-"]
        for score, found in zip(scores, intervals, strict=True):
            ends = " [{:+.4f}, {:+.4f}]".format(*found[name] or (0, 0))
            row.append(f"{score - base:+.4f}{ends if found[name] else ''}")
        rows.append(row)
    return rows
