"""Exact scores of a trained network, as files."""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import (
    inference,
    manifest,
    metrics,
    pipeline,
    run_files,
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
        strategy: One of `choices.STRATEGIES`.
        num_virtual_devices: See `strategy.make_strategy`.
        allow_cpu: See `strategy.make_strategy`.
        output_dir: Where the files go; None for `run_dir`.
    """

    records_dir: str
    run_dir: str
    splits: Sequence[str] = ()
    threshold: float = 0.5
    batch_size: int = 512
    input: str = "auto"
    strategy: str = "one_device"
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    output_dir: str | None = None


def evaluate(options: EvaluateOptions) -> dict[str, object]:
    """Scores a run's best model on every patch of some splits, each once.

    Writes `metrics.json`, the same as text, and `predictions.csv` (row, label,
    logit).

    Returns:
        The scores, see `metrics.score`, with `splits` and `model`.

    Raises:
        FileNotFoundError, ValueError: model, records or splits are not there.
    """
    model_path = run_files.find_model(options.run_dir)
    flags = run_files.read_flags(options.run_dir)
    splits = options.splits or flags["validation_splits"].split(",")
    _check_splits(options, splits, flags["train_splits"].split(","))
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    output_dir = options.output_dir or options.run_dir
    os.makedirs(output_dir, exist_ok=True)
    patches = inference.open_patches(
        pipeline.Source(options.records_dir, splits, options.input),
        strategy.list_devices(distribution),
    )
    found = inference.predict_all(
        patches, model_path, distribution, options.batch_size, "evaluate"
    )
    scores = metrics.score(found["label"], found["logit"], options.threshold)
    scores = {"splits": list(splits), "model": flags["model"]} | scores
    _write(output_dir, scores, found)
    return scores


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
        (run_files.METRICS_TEXT, format_scores(scores)),
    ):
        path = os.path.join(output_dir, name)
        with open(f"{path}.incomplete", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.incomplete", path)


def format_scores(scores: dict[str, object]) -> str:
    """Returns the scores as a page of text."""
    lines = [
        f"{scores['model']} on {', '.join(scores['splits'])}:"
        f" {scores['num_patches']:,} patches, threshold {scores['threshold']}",
        "",
    ]
    for name in ("auc", "average_precision", "accuracy", "nll", "brier"):
        value = scores[name]
        shown = "not defined" if value is None else f"{value:.4f}"
        lines.append(f"{name:<20}{shown:>12}")
    lines += ["", f"{'':<20}{'predicted 0':>12}{'predicted 1':>12}"]
    for label, row in enumerate(scores["confusion_matrix"]):
        counts = "".join(f"{count:>12,}" for count in row)
        lines.append(f"{f'true {label}':<20}{counts}")
    columns = ("precision", "recall", "f1-score", "support")
    lines += ["", " " * 20 + "".join(f"{name:>12}" for name in columns)]
    for name, row in scores["classification_report"].items():
        if isinstance(row, dict):
            values = "".join(f"{row[key]:>12.4f}" for key in columns[:-1])
            lines.append(f"{name:<20}{values}{row['support']:>12,.0f}")
    return "\n".join(lines) + "\n"
