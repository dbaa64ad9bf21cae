"""From runs to a file that other programs load."""

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.distribution import private_interfaces, replicas
from pcam_tfdata.evaluation import ensemble, operating_point
from pcam_tfdata.export import classifier, formats, metadata
from pcam_tfdata.models import inference
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, outputs, run_folder
from pcam_tfdata.system import faults, files, held_output, interruption

_TOLERANCE = 1e-4  # Of a probability that a runtime computes.
_NUM_TRIED = 8
_logger = logging.getLogger(__name__)


@replicas.keras_settings()
def export(
    run_dirs: Sequence[str],
    *,
    format: str,
    output: str,
    tta: str = "none",
    threshold: float | operating_point.Wanted = 0.5,
) -> dict[str, Any]:
    """Writes the best model of a run, or of several, in another format.

    It takes uint8 patches [N, 96, 96, 3] of any number, and gives the
    probabilities that `pcam predict` does. Its runtime tries a few patches
    before it is put in its place, whole.

    Args:
        run_dirs: Folders of runs, or of a cross-validation; several become one
            as `pcam ensemble` makes it.
        format: One of `choices.EXPORTS`.
        output: The file to write; for a SavedModel a folder to make.
        tta: Test-time augmentation that is a part of it, one of `choices.TTA`.
        threshold: A probability that its metadata note, or what it has to reach
            on the run's validation splits.

    Returns:
        Its metadata, as `metadata.describe` has them.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: a run has no network, or
            the output must not be written there.
        RuntimeError: a package is missing, or its runtime gives other
            probabilities.
    """
    target = formats.FORMATS[format]
    _check_output(output, target.suffix)
    formats.require_packages(format)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = _open_run(run_dirs, folder)
        path = run_folder.find_model(run_dir)
        sha256 = manifest.hash_file(path)
        point = operating_point.read(run_dir, sha256, tta, threshold)
        point.tell_uncalibrated(output, tta)
        facts = metadata.describe(run_dir, sha256, tta, point)
        made = os.path.join(folder, f"exported{target.suffix}")
        with interruption.SignalsDeferred():
            with tf.device("/CPU:0"):
                network = inference.load_network(path)
            if target.packages:  # Runtimes that lack other types.
                _compute_in_float32(network, output)
            known = point.calibration or calibration_file.Calibration()
            model = classifier.Classifier(network, tta, known)
            _convert(format, model, facts, made)
        _publish(made, output)
    return facts


def _check_output(output: str, suffix: str) -> None:
    """Refuses an output that cannot be written, or must not be."""
    if suffix:
        outputs.check_file(output, "--output", suffixes=(suffix,))
        return
    if files.is_remote(output):
        raise ValueError(
            f"--output={output}: found a bucket, expected a folder on a disk."
            " Export there, and copy it."
        )
    outputs.check_new(output, "--output")
    files.refuse_others(output, lambda _: False, "an empty folder", "--output")


def _open_run(run_dirs: Sequence[str], folder: str) -> str:
    """Returns a run as it is; of several, that of their ensemble in a folder."""
    run_dir, *others = run_dirs
    validated = os.path.join(run_dir, run_folder.CROSS_VALIDATION)
    if others or os.path.isfile(validated):
        run_dir = os.path.join(folder, run_folder.ENSEMBLE)
        ensemble.make_run(run_dirs, run_dir)
    return run_dir


def _compute_in_float32(network: keras.Model, output: str) -> None:
    """Has a network of mixed precision compute in the type of its weights."""
    layers = private_interfaces.list_layers(network)
    mixed = [x for x in layers if x.compute_dtype != x.variable_dtype]
    if mixed:
        _logger.info(
            "%s: computes in %s, and pcam predict in %s for this run:"
            " probabilities differ by what that rounds.",
            output, mixed[0].variable_dtype, mixed[0].compute_dtype,
        )  # fmt: skip
    for layer in mixed:
        layer.dtype_policy = layer.variable_dtype


def _convert(
    name: str, model: classifier.Classifier, facts: dict[str, Any], path: str
) -> None:
    """Writes a format, and has its runtime compute what the classifier does."""
    target = formats.FORMATS[name]
    images, expected = _try(model)
    try:
        with held_output.stderr():  # Converters write to it from C++.
            target.write(model, facts, path)
            found = target.run(path, images)
    except Exception as error:  # Converters raise anything.
        raise _fail(name, faults.one_line(error, 300)) from error
    difference = np.abs(found - expected).max()
    if not difference <= _TOLERANCE:  # NaN is not.
        raise _fail(name, f"probabilities off by {difference:.2g}")


def _try(model: classifier.Classifier) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few patches, dark to bright, and their probabilities."""
    levels = np.linspace(32, 256, _NUM_TRIED)[:, None, None, None]
    shape = (_NUM_TRIED, *schema.IMAGE_SHAPE)
    images = (np.random.default_rng(0).random(shape) * levels).astype(np.uint8)
    with tf.device("/CPU:0"):  # As the runtimes compute, without TF32.
        return images, model(images)[classifier.PROBABILITY].numpy()


def _fail(name: str, found: str) -> RuntimeError:
    return RuntimeError(
        f"--format={name}: expected a network that can be converted, and run by"
        f" its own runtime with the same probabilities, found {found}. Nothing"
        " was written. Choose another --format."
    )


def _publish(made: str, output: str) -> None:
    """Puts a file or a folder in its place."""
    if os.path.isfile(made):
        with open(made, "rb") as source, files.open_whole(output, "wb") as file:
            shutil.copyfileobj(source, file)
        return
    with files.folder_whole(os.path.realpath(output)) as unfinished:
        shutil.copytree(made, unfinished, dirs_exist_ok=True)
