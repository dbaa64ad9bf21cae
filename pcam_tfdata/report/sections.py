"""What stands in the sections of a page: figures, tables, facts."""

import os
import shlex
from typing import Any

import numpy as np
import pandas
from matplotlib import figure

from pcam_tfdata.evaluation import curves, metrics, plots, score_page, slides
from pcam_tfdata.records import overview, records_folder
from pcam_tfdata.report import patches, scored_run
from pcam_tfdata.runs import environment_file, reading, run_folder

_NUM_STAINED, _MOST_GROUPS = 1000, 20
_NUM_SAMPLED = 24
_NUM_EXAMPLES = 4  # Of a finding of the audit.
_THRESHOLD = 0.5


Picture = tuple[figure.Figure, str]  # And what it shows.


def describe_data(
    records: records_folder.RecordsFolder,
    cards: patches.Cards,
    audit: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns counts, pictures and patches of records, and audit findings."""
    labels = plots.draw_label_histogram(records.content)
    return {
        "name": os.path.basename(os.path.normpath(records.path)),
        "overview": overview.summarize(records),
        "pictures": [
            (labels, "Patches by label."),
            _draw_stain(records),
        ],
        "sample": cards.sample(_NUM_SAMPLED),
        "audit": audit,
    }


def describe_training(run: scored_run.ScoredRun) -> dict[str, Any]:
    """Returns curves, speed and flags of a run, and what repeats it."""
    training, shown, start = run.training, list[Picture](), dict[str, Any]()
    history = pandas.DataFrame()
    with reading.noted(training, run.run_dir, run_folder.HISTORY) as path:
        history = pandas.read_csv(path)
        for panel in plots.HISTORY_CURVES:
            drawing = plots.draw_history(history, [panel])
            shown.append((drawing, f"{panel[2]} by epoch."))
    names = ("state", "epoch", "best_epoch", "dead_epochs", reading.SPEED)
    facts = [("model", training.flags.get("model"))]
    facts += [(name, training.columns.get(name)) for name in names]
    with reading.noted(training, run.run_dir, run_folder.ENVIRONMENT):
        start = dict((environment_file.read_starts(run.run_dir) or [{}])[-1])
        start |= start.pop("versions", {})
        start["devices"] = ", ".join(start.get("devices", ()))
    flagfile = os.path.join(run.run_dir, run_folder.FLAGS)
    return {
        "pictures": shown,
        "history": history,
        "facts": facts,
        "environment": list(start.items()),
        "flags": list(training.flags.items()),
        "flagfile": shlex.quote(flagfile),
    }


def describe_scores(run: scored_run.ScoredRun) -> dict[str, Any]:
    """Returns curves, tables and thresholds of a run's predictions."""
    _, _, label, logit, slide = run.predictions
    is_positive = run.probability >= _THRESHOLD
    boundary = float(logit[is_positive].min(initial=np.inf))
    scores = metrics.score(label, logit, boundary)
    titles = [(name, score_page.TITLES[name]) for name in metrics.NAMES]
    if run.fair is not None:
        titles.append(("fair", "ECE, calibrated on other patches"))
        scores["fair"] = metrics.ece(label, run.fair)
    counts = curves.count_by_threshold(label, run.probability)
    return {
        "rows": [
            (title, scores[name], *(run.interval(name) or (None, None)))
            for name, title in titles
        ],
        "pictures": _draw_scores(run),
        "counts": counts,
        "start": counts["thresholds"].index(_THRESHOLD),
        "slides": slide is not None
        and slides.score_slides(slide, label, run.logit, 0.0),
        "stress": _draw_stress(run),
    }


def add_cards(
    audit: dict[str, Any], cards: patches.Cards, notes: reading.Run
) -> None:
    """Adds `cards` of some patches to each finding of an audit."""
    own, *others = audit["folders"]
    cards_of = {own["records_dir"]: cards}
    for folder in others:
        with reading.noted(notes, "", folder["records_dir"]) as path:
            records = records_folder.open_folder(path)
            if records.manifest_sha256 != folder["manifest_sha256"]:
                raise ValueError("found other records than the audit")
            cards_of[path] = patches.Cards(records)
    for finding in audit["findings"]:
        step = -(-len(finding["examples"]) // _NUM_EXAMPLES) or 1
        finding["cards"] = [
            cards_of[patch["records_dir"]].make(
                patch["row"], "" if place else example["note"]
            )
            for example in finding["examples"][::step]
            for place, patch in enumerate(example["patches"][:2])
            if patch["records_dir"] in cards_of
        ]


def _draw_scores(run: scored_run.ScoredRun) -> list[Picture]:
    _, _, label, logit, slide = run.predictions
    shown, by_name = [], {"uncalibrated": metrics.to_probability(logit)}
    if run.fair is not None:
        by_name["calibrated"] = run.fair
    if len(np.unique(label)) > 1:
        grid, roc, precision = curves.compute_bands(label, logit, slide)
        band = (
            f"95% of resamples of {'patches' if slide is None else 'slides'}."
        )
        drawing = plots.draw_roc(label, logit, (grid, *roc))
        shown.append((drawing, f"ROC; band: {band}"))
        drawing = plots.draw_precision_recall(label, logit, (grid, *precision))
        shown.append((drawing, f"Precision by recall; band: {band}"))
    drawing = plots.draw_reliability(label, by_name)
    caption = (
        "Observed share of tumor by probability; calibrated on other patches."
    )
    shown.append((drawing, caption))
    drawing = plots.draw_score_histogram(label, run.probability)
    return [
        *shown,
        (
            drawing,
            "Patches of either label by probability, calibrated where that is known.",
        ),
    ]


def _draw_stress(run: scored_run.ScoredRun) -> list[Picture]:
    shown = []
    with reading.noted(run.training, run.folder, run_folder.STRESS) as path:
        table = pandas.read_csv(path)
        for name, part in table[1:].groupby("shift", sort=False):
            drawing = plots.draw_stress(pandas.concat([table[:1], part]))
            shown.append((drawing, f"AUC by strength of {name}."))
    return shown


def _draw_stain(records: records_folder.RecordsFolder) -> Picture:
    """Draws the stain by slide where slides are known, else by split."""
    everything = records_folder.Selection(tuple(records.list_shards()))
    table = records.read_sidecar(["split", "slide"])
    unit = "slide" if table["slide"].ne("").any() else "split"
    group = table[unit].to_numpy(str)
    rng = np.random.default_rng(0)
    names = rng.permutation(np.unique(group[group != ""]))[:_MOST_GROUPS]
    rows = rng.permutation(np.flatnonzero(np.isin(group, names)))[:_NUM_STAINED]
    images = everything.read_images(rows)
    density = -np.log(np.maximum(images, 1) / 255).mean(axis=(1, 2))
    caption = (
        f"Optical density by {unit}: median, and from 10% to 90% of patches."
    )
    return (plots.draw_stain(density, group[rows], unit), caption)
