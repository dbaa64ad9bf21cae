"""Exact scores of a trained network, as files."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.distribution import strategy
from pcam_tfdata.evaluation import (
    bootstrap,
    dead_network,
    metrics,
    score_page,
    slides,
)
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import (
    environment_file,
    outputs,
    reading,
    run_folder,
)
from pcam_tfdata.system import csv_files, files

_LONGEST_NAME = 100  # Of the 255 bytes that a file's name may have.

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
        output_dir: Where the files go; None for `run_dir`, where the run's
            validation splits of its own records are scored, and else for a
            folder of these splits in its `evaluations`.
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


def settle(options: EvaluateOptions) -> EvaluateOptions:
    """Returns options with `splits` and `output_dir` filled in.

    Raises:
        FileNotFoundError, ValueError: model, records or splits are not there.
    """
    run_folder.find_model(options.run_dir)
    own_splits = _read_splits(options.run_dir, "validation_splits")
    splits = options.splits or own_splits
    if not splits:
        raise ValueError(
            f"--splits: found none, and no {run_folder.FLAGS} in"
            f" {options.run_dir} that tells the run's validation splits,"
            " expected labelled splits of the records. Pass --splits."
        )
    records = records_folder.open_folder(options.records_dir)
    _check_splits(records, splits)
    output_dir = options.output_dir
    sha256 = records.manifest_sha256
    is_own = sha256 == environment_file.read_manifest_sha256(options.run_dir)
    if is_own and set(splits) == set(own_splits):
        output_dir = output_dir or options.run_dir
    elif not output_dir:
        name = _shorten("+".join(sorted(splits))) + f"@{sha256[:8]}" * (
            not is_own
        )
        output_dir = os.path.join(options.run_dir, run_folder.EVALUATIONS, name)
        _logger.info("Scores of %s go to %s.", ", ".join(splits), output_dir)
    elif files.resolve(output_dir) == files.resolve(options.run_dir):
        raise FileExistsError(
            f"--output_dir={output_dir}: found the run's folder, which keeps the"
            " scores of its own validation splits and records, expected another."
            " Leave --output_dir out, or choose another."
        )
    return dataclasses.replace(
        options, splits=tuple(splits), output_dir=output_dir
    )


def _shorten(name: str) -> str:
    """Returns a name that a file may have, its own if it is not too long."""
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{name[:_LONGEST_NAME]}-{digest[:8]}"


@strategy.keras_settings()
def evaluate(options: EvaluateOptions) -> dict[str, object]:
    """Scores a run's best model on every patch of some splits, each once.

    Writes `predictions.csv` (row, label, logit), `metrics.json`, the same as
    text, and, where the slide of every patch is known, `slides.csv`.

    Returns:
        `model`, `splits`, `records_dir`; `model_sha256` and `manifest_sha256`,
        of the network's file and the records'; `warnings`, why the scores may
        say little. The scores, see `metrics.score`; and `intervals`,
        `resampled`, `num_resamples` and `num_one_class_resamples` of
        `bootstrap.Intervals`, with `num_slides` (None where a slide is
        unknown).

    Raises:
        FileNotFoundError, ValueError: model, records or splits are not there.
    """
    options = settle(options)
    records = records_folder.open_folder(options.records_dir)
    subject = _describe_subject(options, records)
    for warning in subject["warnings"]:
        _logger.warning("Warning: %s", warning)
    _check_output(options)
    # Before the network runs: it may take an hour.
    slide_of_row = records.read_slides()
    found = _predict(options, records)
    slide = slide_of_row[found["row"]]
    if (slide == "").any():
        slide = None
    scores = subject | _score(options, found, slide)
    death = _find_death(options.run_dir, found)
    if death is not None:
        _logger.warning("Warning: %s", death)
        scores["warnings"].append(death)
    _write(options.output_dir, scores, found)
    _write_slides(options.output_dir, found, slide, options.threshold)
    return scores


def _describe_subject(
    options: EvaluateOptions, records: records_folder.RecordsFolder
) -> dict[str, object]:
    """Returns which network is scored, on what, and why that may say little."""
    run_dir, sha256 = options.run_dir, records.manifest_sha256
    flags = run_folder.read_flags(run_dir)
    return {
        "model": flags.get("model", "network"),
        "splits": list(options.splits),
        "records_dir": options.records_dir,
        "model_sha256": manifest.hash_file(run_folder.find_model(run_dir)),
        "manifest_sha256": sha256,
        "warnings": _list_warnings(run_dir, options.splits, sha256),
    }


def _predict(
    options: EvaluateOptions, records: records_folder.RecordsFolder
) -> dict[str, np.ndarray]:
    """Makes the folder of the scores; returns `row`, `label` and `logit`."""
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    patches = inference.open_patches(
        patch_source.Source(
            records,
            options.splits,
            options.input,
            input_threads=options.input_threads,
        ),
        strategy.list_devices(distribution),
    )
    os.makedirs(options.output_dir, exist_ok=True)
    model_path = run_folder.find_model(options.run_dir)
    predictor = inference.load(model_path, distribution, patches.fill)
    return inference.join(
        predictor.stream_patches(patches, options.batch_size, "evaluate")
    )


def _check_output(options: EvaluateOptions) -> None:
    """Refuses a folder where the scores would take the place of others."""
    chosen = files.resolve(options.output_dir)
    run_dir = files.resolve(options.run_dir)
    own = os.path.join(run_dir, run_folder.EVALUATIONS)
    if chosen != run_dir and not files.is_within(chosen, own):
        outputs.check_folder(
            options.output_dir, "--output_dir", file=run_folder.METRICS_JSON
        )
        _refuse_table_of_slides(os.path.join(chosen, run_folder.SLIDES))


def _refuse_table_of_slides(path: str) -> None:
    """Refuses a file that has the name of an output and is none."""
    if not os.path.isfile(path):
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        header = file.readline().strip()
    if header != ",".join(slides.COLUMNS):
        raise FileExistsError(
            f"{path}: found columns {header[:80]!r}, expected no file or that of"
            " an earlier evaluation. Choose another --output_dir."
        )


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


def _find_death(run_dir: str, found: dict[str, np.ndarray]) -> str | None:
    """Returns why the network is dead, a sentence; None where it is not.

    That its ranking is by chance here may be these patches' doing; only where
    training saw the same is it dead.
    """
    label, logit = found["label"], found["logit"]
    reason = dead_network.find_reason(
        label,
        logit,
        loss=metrics.nll(label, logit),
        entropy=dead_network.label_entropy(np.bincount(label, minlength=2)),
        is_learning=not reading.read_training(run_dir).is_best_dead,
    )
    if reason is None:
        return None
    return f"found a dead network: {reason}. {dead_network.REMEDY}"


def _read_splits(run_dir: str, name: str) -> list[str]:
    text = run_folder.read_flags(run_dir).get(name, "")
    return text.split(",") if text else []


def _check_splits(
    records: records_folder.RecordsFolder, splits: Sequence[str]
) -> None:
    selected = records.content.select(splits)
    unlabeled = [split.name for split in selected if not split.labeled]
    if unlabeled:
        raise ValueError(
            f"--splits: found {', '.join(unlabeled)}, without labels, expected"
            " labelled splits."
        )


def _list_warnings(
    run_dir: str, splits: Sequence[str], sha256: str
) -> list[str]:
    """Returns why the scores may say little of new patches, a sentence each.

    Args:
        run_dir: Folder of the run.
        splits: To be scored.
        sha256: Of the manifest of their records.
    """
    warnings = []
    trained = environment_file.read_manifest_sha256(run_dir)
    if trained is None:
        warnings.append(
            "no file of the run tells on which records the network was trained,"
            " so any split may hold patches that it was trained on."
        )
    elif trained != sha256:
        warnings.append(
            "the network was trained on other records than these, so any split"
            " may hold patches that it was trained on."
        )
    train_splits = _read_splits(run_dir, "train_splits")
    if seen := sorted(set(splits) & set(train_splits)):
        warnings.append(
            f"the network was trained on {', '.join(seen)}: these scores say"
            " nothing of new patches."
        )
    if state := reading.read_training(run_dir).unfinished_state:
        warnings.append(
            f"the run has not finished ({state}): its network may yet change."
        )
    return warnings


def _write(
    output_dir: str, scores: dict[str, object], found: dict[str, np.ndarray]
) -> None:
    columns = ("row", "label", "logit")
    path = os.path.join(output_dir, run_folder.PREDICTIONS)
    csv_files.write_csv(
        path,
        columns,
        zip(*(found[name].tolist() for name in columns), strict=True),
    )
    # So that nobody takes the predictions of another evaluation for these.
    content = scores | {"predictions_sha256": manifest.hash_file(path)}
    for name, text in (
        (run_folder.METRICS_JSON, json.dumps(content, indent=1) + "\n"),
        (run_folder.METRICS_TEXT, score_page.format_scores(scores)),
    ):
        files.write_text(os.path.join(output_dir, name), text)


def _write_slides(
    output_dir: str,
    found: dict[str, np.ndarray],
    slide: np.ndarray | None,
    threshold: float,
) -> None:
    path = os.path.join(output_dir, run_folder.SLIDES)
    if slide is not None:
        rows = slides.score_slides(
            slide, found["label"], found["logit"], threshold
        )
        csv_files.write_csv(path, slides.COLUMNS, rows)
    elif os.path.exists(path):
        os.remove(path)  # Of an earlier evaluation.
