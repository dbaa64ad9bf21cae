"""Exact scores of a trained network, as files."""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import (
    bootstrap,
    dead_network,
    files,
    inference,
    manifest,
    metrics,
    pipeline,
    run_files,
    scores_text,
    slides,
    strategy,
    tables,
)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What to score.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of a run; its best model is scored.
        splits: Labelled splits; none for the run's validation splits.
        threshold: A probability at or above it predicts 1.
        batch_size: Patches of a forward pass, over all replicas; rounded up to
            what these can share evenly.
        input: Way in, one of `choices.INPUTS`.
        input_threads: See `pipeline.Source`.
        strategy: One of `choices.STRATEGIES`.
        num_virtual_devices: See `strategy.make_strategy`.
        allow_cpu: See `strategy.make_strategy`.
        output_dir: Where the files go; None for `run_dir`.
        num_resamples: Bootstrap resamples behind the intervals; 0 for none.
    """

    records_dir: str
    run_dir: str
    splits: Sequence[str] = ()
    threshold: float = 0.5
    batch_size: int = 512
    input: str = "auto"
    input_threads: int = 0
    strategy: str = "one_device"
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    output_dir: str | None = None
    num_resamples: int = 1000


def evaluate(options: EvaluateOptions) -> dict[str, object]:
    """Scores a run's best model on every patch of some splits, each once.

    Writes `metrics.json`, the same as text, `predictions.csv` (row, label,
    logit) and, where the slide of every patch is known, `slides.csv`.

    Returns:
        The scores, see `metrics.score`, with `splits` and `model`; and
        `intervals`, `resampled`, `num_resamples` and
        `num_one_class_resamples` of `bootstrap.Intervals`, with `num_slides`
        (None where a slide is unknown); and `warnings`, a list of sentences.

    Raises:
        FileNotFoundError, ValueError: model, records or splits are not there.
    """
    model_path = run_files.find_model(options.run_dir)
    flags = run_files.read_flags(options.run_dir)
    splits = options.splits or flags["validation_splits"].split(",")
    _check_splits(options, splits, flags["train_splits"].split(","))
    # Before the network runs: it may take an hour.
    slide_of_row = slides.read_slides(options.records_dir)
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    patches = inference.open_patches(
        pipeline.Source(
            options.records_dir,
            splits,
            options.input,
            input_threads=options.input_threads,
        ),
        strategy.list_devices(distribution),
    )
    output_dir = options.output_dir or options.run_dir
    os.makedirs(output_dir, exist_ok=True)
    found = inference.predict_all(
        patches, model_path, distribution, options.batch_size, "evaluate"
    )
    slide = slide_of_row[found["row"]]
    if (slide == "").any():
        slide = None
    scores = {"splits": list(splits), "model": flags["model"]} | _score(
        options, found, slide
    )
    scores["warnings"] = _list_warnings(found)
    for warning in scores["warnings"]:
        _logger.warning("Warning: %s", warning)
    _write(output_dir, scores, found)
    _write_slides(output_dir, found, slide, options.threshold)
    return scores


def _score(
    options: EvaluateOptions,
    found: dict[str, np.ndarray],
    slide: np.ndarray | None,
) -> dict[str, object]:
    label, logit = found["label"], found["logit"]
    intervals = bootstrap.compute_intervals(
        label,
        logit,
        options.threshold,
        slide,
        num_resamples=options.num_resamples,
    )
    return metrics.score(label, logit, options.threshold) | {
        "num_slides": None if slide is None else intervals.num_units,
        "intervals": intervals.ranges,
        "resampled": intervals.resampled,
        "num_resamples": intervals.num_resamples,
        "num_one_class_resamples": intervals.num_one_class,
    }


def _list_warnings(found: dict[str, np.ndarray]) -> list[str]:
    label, logit = found["label"], found["logit"]
    death = dead_network.find_reason(
        label,
        logit,
        loss=metrics.nll(label, logit),
        entropy=dead_network.label_entropy(np.bincount(label, minlength=2)),
    )
    if death is None:
        return []
    return [f"found a dead network: {death}. {dead_network.REMEDY}"]


def _check_splits(
    options: EvaluateOptions, splits: Sequence[str], train_splits: Sequence[str]
) -> None:
    selected = manifest.read(options.records_dir).select(splits)
    unlabeled = [split.name for split in selected if not split.labeled]
    if unlabeled:
        raise ValueError(
            f"--splits: found {', '.join(unlabeled)}, without labels, expected"
            " labelled splits."
        )
    if manifest.hash_manifest(
        options.records_dir
    ) != run_files.read_manifest_sha256(options.run_dir):
        _logger.warning(
            "Warning: the network was trained on other records than these, so"
            " any split may hold patches that it was trained on."
        )
    seen = sorted(set(splits) & set(train_splits))
    if seen:
        _logger.warning(
            "Warning: the network was trained on %s: these scores say nothing"
            " of new patches.",
            ", ".join(seen),
        )


def _write(
    output_dir: str, scores: dict[str, object], found: dict[str, np.ndarray]
) -> None:
    columns = ("row", "label", "logit")
    tables.write_csv(
        os.path.join(output_dir, run_files.PREDICTIONS),
        columns,
        zip(*(found[name].tolist() for name in columns), strict=True),
    )
    for name, text in (
        (run_files.METRICS_JSON, json.dumps(scores, indent=1) + "\n"),
        (run_files.METRICS_TEXT, scores_text.format_scores(scores)),
    ):
        files.write_text(os.path.join(output_dir, name), text)


def _write_slides(
    output_dir: str,
    found: dict[str, np.ndarray],
    slide: np.ndarray | None,
    threshold: float,
) -> None:
    path = os.path.join(output_dir, run_files.SLIDES)
    if slide is not None:
        rows = slides.score_slides(
            slide, found["label"], found["logit"], threshold
        )
        tables.write_csv(path, slides.COLUMNS, rows)
    elif os.path.exists(path):
        os.remove(path)  # Of an earlier evaluation.
