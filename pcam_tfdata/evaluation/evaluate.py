"""Exact scores of a trained network, as files."""

import functools
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas

from pcam_tfdata.distribution import replicas
from pcam_tfdata.evaluation import (
    bootstrap,
    calibration,
    configuration,
    dead_network,
    metrics,
    model_card,
    operating_point,
    plots,
    score_page,
    slides,
    stress,
)
from pcam_tfdata.models import classifier_head, inference
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import (
    calibration_file,
    environment_file,
    predictions_file,
    reading,
    run_folder,
)
from pcam_tfdata.system import csv_files, files, pictures

# Files that not every evaluation writes.
_OPTIONAL = (
    *pictures.list_paths(run_folder.ROC_PLOT),
    run_folder.SLIDES,
    run_folder.STRESS,
    *pictures.list_paths(run_folder.STRESS_PLOT),
)
_logger = logging.getLogger(__name__)


class Subject(NamedTuple):
    """What is scored, before the network has run.

    Attributes:
        options: With `splits` and `output_dir` filled in.
        records: Opened.
        run: What training left.
        facts: What the scores are of, as `metrics.json` has it.
        is_validation: Whether it is the run's own validation.
        point: Of the run's validation, where others are scored.
        slide_of_row: Slide of each row of the records; "" if unknown.
    """

    options: configuration.EvaluateOptions
    records: records_folder.RecordsFolder
    run: reading.Run
    facts: metrics.Scores
    is_validation: bool
    point: operating_point.OperatingPoint
    slide_of_row: np.ndarray

    def warn(self, warning: str) -> None:
        """Tells a warning, and keeps it."""
        _logger.warning("Warning: %s", warning)
        self.facts["warnings"].append(warning)


@replicas.keras_settings()
def evaluate(options: configuration.EvaluateOptions) -> metrics.Scores:
    """Scores a run's best model on every patch of some splits, each once.

    Writes `predictions.csv` (row, label, logit, the tumor fraction of a network
    that gives it, and the slide where that of every patch is known),
    `metrics.json`, the same as text, pictures, where slides are known
    `slides.csv`, and under stress `stress.csv`. Calibration by the run's own
    validation goes to the run's folder; so does `model_card.md`, if all else does.

    Returns:
        What `metrics.json` has. `warnings` say why the scores may say little;
        `tta` is how patches were viewed; hashes are of the network's file and
        the manifest. `threshold` is one of calibrated probabilities;
        `temperature` and `intercept`, which calibrate logits, are None where
        they are not known, and all probabilities are as they come then.

    Raises:
        FileNotFoundError, ValueError: model, records or splits are not there.
        FileExistsError: the scores would take the place of other files.
    """
    subject = open_subject(options)
    options = subject.options
    predict, fill = _open_network(options, subject.records)
    os.makedirs(options.output_dir, exist_ok=True)
    predictions = predict(fill, "evaluate")
    known = subject.slide_of_row[predictions["row"]]
    slide = None if (known == "").any() else known
    evaluation, boundary = _score(subject, predictions, slide)
    if slide is not None:
        predictions[predictions_file.SLIDE] = slide
    _write(options, evaluation, predictions, boundary)
    if options.stress:
        # That of patches as they are: of no shift.
        unchanged = ("none", 0.0, evaluation["auc"], evaluation["nll"])
        shifted = stress.score_shifts(options.stress, predict, fill)
        rows = [unchanged, *shifted]
        path_of = functools.partial(os.path.join, options.output_dir)
        csv_files.write_csv(path_of(run_folder.STRESS), stress.COLUMNS, rows)
        table = pandas.DataFrame(rows, columns=stress.COLUMNS)
        path = path_of(run_folder.STRESS_PLOT)
        pictures.save(plots.draw_stress(table), path)
    folders = options.output_dir, options.run_dir
    if files.is_within(*map(files.resolve, folders)):
        model_card.write(options.run_dir)
    return evaluation


def open_subject(options: configuration.EvaluateOptions) -> Subject:
    """Returns what to score; all that can be refused is refused here."""
    model_path = run_folder.find_model(options.run_dir)
    records = records_folder.open_folder(options.records_dir)
    run = reading.read_training(options.run_dir)
    # Read once more: a damaged file is an error here, and not a note.
    flags = run_folder.read_flags(options.run_dir)
    trained_on = environment_file.find_records(options.run_dir)
    is_own = records.manifest_sha256 == trained_on
    own_splits = run_folder.list_splits(flags, "validation_splits")
    options = configuration.settle(options, records, own_splits, is_own)
    configuration.check_output(options)
    is_validation = is_own and set(options.splits) == set(own_splits)
    # First: a run that still trains may replace the model.
    facts: metrics.Scores = {
        "model": flags.get("model", "network"),
        "tta": options.forward.tta,
        "records_dir": options.records_dir,
        "splits": list(options.splits),
        "model_sha256": manifest.hash_file(model_path),
        "manifest_sha256": records.manifest_sha256,
        "warnings": [],
    }
    point = operating_point.OperatingPoint()
    if not is_validation:
        point = operating_point.read(
            options.run_dir,
            facts["model_sha256"],
            options.forward.tta,
            options.threshold,
        )
    # Before the network runs: it may take an hour.
    slide_of_row = records.read_sidecar(["slide"])["slide"].to_numpy(str)
    subject = Subject(
        options, records, run, facts, is_validation, point, slide_of_row
    )
    for warning in _list_warnings(options.splits, run, is_own):
        subject.warn(warning)
    return subject


def _score(
    subject: Subject, predictions: inference.Logits, slide: np.ndarray | None
) -> tuple[metrics.Scores, float]:
    """Returns all scores, and the least logit that predicts 1."""
    options, point = subject.options, subject.point
    label, logit = predictions["label"], predictions["logit"]
    is_learning = not subject.run.is_best_dead
    if death := _find_death(label, logit, is_learning=is_learning):
        subject.warn(death)
    calibrated = None
    own_splits = run_folder.list_splits(subject.run.flags, "validation_splits")
    if subject.is_validation:
        calibrated = calibration.cross_fit(label, logit, slide)
        sha256 = subject.facts["model_sha256"]
        point = _find_point(options, sha256, label, logit)
    elif point.calibration and set(own_splits).isdisjoint(options.splits):
        # Else it was fitted on some of what is scored.
        calibrated = point.calibration.apply(logit)
    assert point.threshold is not None
    is_positive = point.calibrate(logit) >= point.threshold
    boundary = float(logit[is_positive].min(initial=np.inf))
    evaluation = {
        **subject.facts,
        "threshold": point.threshold,
        **calibration.score(label, calibrated, point.calibration),
        **metrics.score_fractions(
            *_pair_fractions(subject.records, options.splits, predictions)
        ),
        **metrics.score(label, logit, boundary),
        **bootstrap.compute_intervals(
            label, logit, boundary, slide, num_resamples=options.num_resamples
        ),
    }
    return evaluation, boundary


def _open_network(
    options: configuration.EvaluateOptions,
    records: records_folder.RecordsFolder,
) -> tuple[stress.Predict, inference.Fill]:
    """Returns what gives the logits of all patches, and how a batch is filled."""
    strategy, patches = options.forward.open_records(records, options.splits)
    with strategy.scope():
        model = inference.load_network(run_folder.find_model(options.run_dir))

    def predict(fill: inference.Fill, description: str) -> inference.Logits:
        predictor = inference.Predictor(
            model, strategy, fill, options.forward.tta
        )
        batches = predictor.stream_patches(
            patches, options.forward.batch_size, description
        )
        return inference.join(batches)

    return predict, patches.fill


def _find_point(
    options: configuration.EvaluateOptions,
    model_sha256: str,
    label: np.ndarray,
    logit: np.ndarray,
) -> operating_point.OperatingPoint:
    """Returns the operating point of the run's own validation.

    Its calibration is kept in the run's folder where the scores go there.
    """
    fitted = calibration.fit(label, logit)
    point = operating_point.OperatingPoint(fitted)
    if files.resolve(options.output_dir) == files.resolve(options.run_dir):
        calibration_file.write(
            options.run_dir, options.forward.tta, model_sha256, fitted
        )
    threshold = options.threshold
    if isinstance(threshold, operating_point.Wanted):
        threshold = operating_point.choose_threshold(
            threshold, label, point.calibrate(logit)
        )
    return point._replace(threshold=threshold)


def _list_warnings(
    splits: Sequence[str], run: reading.Run, is_own: bool
) -> list[str]:
    """Returns why the scores of splits may say little, a sentence each."""
    warnings = []
    if not is_own:
        trained = "the network was trained on other records than these"
        if "dataset" not in run.columns:
            trained = (
                "no file of the run tells on which records the network was"
                " trained"
            )
        warnings.append(
            f"{trained}, so any split may hold patches that it was trained on."
        )
    train_splits = run_folder.list_splits(run.flags, "train_splits")
    if seen := sorted(set(splits) & set(train_splits)):
        warnings.append(
            f"the network was trained on {', '.join(seen)}: these scores say"
            " nothing of new patches."
        )
    state = run.columns["state"]
    if "epochs" in run.flags and state.startswith("epoch"):
        warnings.append(
            f"the run has not finished ({state}): its network may yet change."
        )
    return warnings


def _find_death(
    label: np.ndarray, logit: np.ndarray, *, is_learning: bool
) -> str | None:
    """Returns why the network is dead, a sentence; None where it is not.

    That its ranking is by chance here may be these patches' doing; only where
    training saw the same is it dead.
    """
    reason = dead_network.find_reason(
        label,
        logit,
        loss=metrics.nll(label, logit),
        entropy=dead_network.label_entropy(
            np.bincount(label, minlength=2).tolist()
        ),
        is_learning=is_learning,
    )
    return reason and f"found a dead network: {reason}. {dead_network.REMEDY}"


def _pair_fractions(
    records: records_folder.RecordsFolder,
    splits: Sequence[str],
    predictions: inference.Logits,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns known tumor fractions, and what the network says of them."""
    is_remote = files.is_remote(records.path)  # Where no record is mapped.
    if is_remote or classifier_head.FRACTION not in predictions:
        return np.empty(0), np.empty(0)
    known = records.read_tumor_fractions(splits)[predictions["row"]]
    is_known = ~np.isnan(known)
    return known[is_known], predictions[classifier_head.FRACTION][is_known]


def _write(
    options: configuration.EvaluateOptions,
    evaluation: metrics.Scores,
    predictions: inference.Logits,
    boundary: float,
) -> None:
    """Writes all files; a logit at or above the boundary predicts 1."""
    path_of = functools.partial(os.path.join, options.output_dir)
    label, logit = predictions["label"], predictions["logit"]
    rows = zip(
        *(column.tolist() for column in predictions.values()), strict=True
    )
    predictions_csv = path_of(run_folder.PREDICTIONS)
    csv_files.write_csv(predictions_csv, tuple(predictions), rows)
    # So that nobody takes the predictions of another evaluation for these.
    sha256 = manifest.hash_file(predictions_csv)
    files.write_json(
        path_of(run_folder.METRICS_JSON),
        evaluation | {"predictions_sha256": sha256},
    )
    files.write_text(
        path_of(run_folder.METRICS_TEXT), score_page.format_scores(evaluation)
    )
    # These may be of an earlier evaluation.
    for name in _OPTIONAL:
        files.remove(path_of(name))
    if evaluation["auc"] is not None:
        roc = plots.draw_roc(label, logit)
        pictures.save(roc, path_of(run_folder.ROC_PLOT))
    confusion = plots.draw_confusion(evaluation)
    pictures.save(confusion, path_of(run_folder.CONFUSION_PLOT))
    if predictions_file.SLIDE in predictions:
        slide = predictions[predictions_file.SLIDE]
        table = slides.score_slides(slide, label, logit, boundary)
        csv_files.write_csv(path_of(run_folder.SLIDES), slides.COLUMNS, table)
