"""From runs to a file that other programs load."""

import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.distribution import private_interfaces, replicas
from pcam_tfdata.evaluation import ensemble, operating_point
from pcam_tfdata.export import classifier, formats, metadata
from pcam_tfdata.models import inference
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, outputs, run_folder
from pcam_tfdata.system import files, interruption

# Of a probability, between what is exported and what a runtime computes.
TOLERANCE = 1e-4
_NUM_TRIED = 8
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What to export. Each leaf is a flag of `pcam export`.

    Attributes:
        run_dir: Folders of runs, or of a cross-validation; the best models of
            several are exported as one, as `pcam ensemble` joins them.
        format: One of `choices.EXPORTS`.
        output: The file to write; for a SavedModel a folder to make.
        tta: Test-time augmentation that is a part of what is exported, one of
            `choices.TTA`.
        threshold: A probability that metadata note, or what it has to reach on
            the run's validation splits.
    """

    run_dir: Sequence[str]
    format: str
    output: str
    tta: str = "none"
    threshold: float | operating_point.Wanted = 0.5


@replicas.keras_settings()
def export(options: ExportOptions) -> dict[str, Any]:
    """Writes the best model of a run, or of several, in another format.

    What is written takes uint8 patches [N, 96, 96, 3] of any number and gives
    the probability that `pcam predict` does. Its own runtime tries it on a few
    patches first; it is there whole or not at all.

    Returns:
        The metadata in it, as `metadata.describe` has them.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: a run has no network, or
            the output must not be written there.
        RuntimeError: a package is missing, or its runtime gives other
            probabilities.
    """
    target = formats.FORMATS[options.format]
    _check_output(options)
    formats.require_packages(options.format)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = _open_run(options.run_dir, folder)
        path = run_folder.find_model(run_dir)
        sha256 = manifest.hash_file(path)
        point = operating_point.read(
            run_dir, sha256, options.tta, options.threshold
        )
        if point.calibration is None:
            _logger.info(
                "%s: probabilities are not calibrated: the run has no"
                " calibration for --tta=%s. Run pcam evaluate --tta=%s on the"
                " run's validation splits.",
                options.output, options.tta, options.tta,
            )  # fmt: skip
        facts = metadata.describe(run_dir, sha256, options.tta, point)
        made = os.path.join(folder, f"exported{target.suffix}")
        with interruption.SignalsDeferred():
            model = _load(path, options, point)
            images, expected = _try(model)
            target.write(model, facts, made)
            _compare(options.format, target.run(made, images), expected)
        _publish(made, options.output)
    return facts


def _check_output(options: ExportOptions) -> None:
    """Refuses an output that cannot be written, or must not be."""
    output, suffix = options.output, formats.FORMATS[options.format].suffix
    if suffix:
        outputs.check_file(output, "--output", suffixes=(suffix,))
        return
    if files.is_remote(output):
        raise ValueError(
            f"--output={output}: found a bucket, expected a folder on a disk."
            " Export there, and copy it."
        )
    outputs.check_new(output, "--output")
    files.refuse_others(
        output, lambda _: False, "an empty folder", output="--output"
    )


def _open_run(run_dirs: Sequence[str], folder: str) -> str:
    """Returns a run as it is; of several, that of their ensemble in a folder."""
    run_dir, *others = run_dirs
    is_several = os.path.isfile(
        os.path.join(run_dir, run_folder.CROSS_VALIDATION)
    )
    if not others and not is_several:
        return run_dir
    run_dir = os.path.join(folder, run_folder.ENSEMBLE)
    ensemble.make_run(run_dirs, run_dir)
    return run_dir


def _load(
    path: str, options: ExportOptions, point: operating_point.OperatingPoint
) -> classifier.Classifier:
    with tf.device("/CPU:0"):
        network = inference.load_network(path)
    mixed = [
        layer
        for layer in private_interfaces.list_layers(network)
        if layer.compute_dtype != layer.variable_dtype
    ]
    if mixed and formats.FORMATS[options.format].computes_in_float32:
        _logger.info(
            "%s: computes in %s, where the run has %s: probabilities differ"
            " from those of pcam predict by what that rounds.",
            options.output, mixed[0].variable_dtype, mixed[0].compute_dtype,
        )  # fmt: skip
        for layer in mixed:
            layer.dtype_policy = layer.variable_dtype
    return classifier.Classifier(
        network,
        options.tta,
        point.calibration or calibration_file.Calibration(),
    )


def _try(model: classifier.Classifier) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few patches, dark to bright, and their probabilities."""
    levels = np.linspace(32, 256, _NUM_TRIED)[:, None, None, None]
    images = np.random.default_rng(0).integers(
        0, levels, (_NUM_TRIED, *schema.IMAGE_SHAPE), np.uint8
    )
    with tf.device("/CPU:0"):  # As the runtimes compute, without TF32.
        return images, model(images)[classifier.PROBABILITY].numpy()


def _compare(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Refuses what gives other probabilities than the classifier."""
    difference = np.abs(found - expected).max()
    if not difference <= TOLERANCE:  # NaN is not.
        raise RuntimeError(
            f"--format={name}: found probabilities that are off by"
            f" {difference:.2g} in its own runtime, expected at most"
            f" {TOLERANCE:g}. Nothing was written. Choose another --format."
        )


def _publish(made: str, output: str) -> None:
    """Puts a file or a folder in its place."""
    if os.path.isfile(made):
        with open(made, "rb") as source, files.open_whole(output, "wb") as file:
            shutil.copyfileobj(source, file)
        return
    output = os.path.realpath(output)
    unfinished = f"{output}{files.INCOMPLETE}"
    shutil.rmtree(unfinished, ignore_errors=True)  # Of a job that was killed.
    os.makedirs(os.path.dirname(output), exist_ok=True)
    try:
        shutil.copytree(made, unfinished)
        os.rename(unfinished, output)
    except BaseException:
        files.remove_folder(unfinished)
        raise
