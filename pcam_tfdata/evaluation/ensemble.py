"""Several runs as one, whose network gives the mean of their logits."""

import glob
import itertools
import os
from collections.abc import Sequence

import keras

from pcam_tfdata import schema
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import classifier_head, inference
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import (
    calibration_file,
    environment_file,
    outputs,
    run_folder,
)
from pcam_tfdata.system import files


@replicas.keras_settings()
def make_run(run_dirs: Sequence[str], output_dir: str) -> list[str]:
    """Makes the folder of a run whose network is the mean of other networks.

    Their logits are calibrated, where their calibrations are known, so that a
    network that is too sure of itself counts for no more. The run is scored and
    predicts as any other, without its members. It was trained on what any of them
    was, and is validated on what all are.

    Args:
        run_dirs: Folders of runs, or of cross-validations.
        output_dir: Folder to make.

    Returns:
        The folders of its members.

    Raises:
        FileNotFoundError, ValueError: a run has no network, there is only one,
            it is named twice, or they were trained on different records.
        FileExistsError: the folder is there.
    """
    outputs.check_new(output_dir, "--output_dir")
    if os.path.exists(output_dir):
        raise FileExistsError(
            f"--output_dir={output_dir}: found it, expected a folder to make."
            " Choose another."
        )
    members = [folder for run_dir in run_dirs for folder in _expand(run_dir)]
    paths = list(map(run_folder.find_model, members))
    starts = map(environment_file.read_starts, members)
    trained_on = set(map(environment_file.find_records, members))
    if len(members) < 2 or len(trained_on) > 1:
        raise ValueError(
            f"--run_dir={','.join(run_dirs)}: found {len(members)} runs, on"
            f" {len(trained_on)} sets of records, expected two runs or more, on"
            " one set."
        )
    hashes = list(map(manifest.hash_file, paths))
    if len(set(hashes)) < len(hashes):
        raise ValueError(
            f"--run_dir={','.join(run_dirs)}: found the same network twice,"
            " expected each once."
        )
    # Those of a network whose calibration is not known stay as they are.
    calibrations = [
        calibration_file.read(member, "none", sha256)
        or calibration_file.Calibration()
        for member, sha256 in zip(members, hashes, strict=True)
    ]
    model = _average(paths, calibrations)
    facts = {
        "manifest_sha256": trained_on.pop(),
        "members": hashes,
        "calibrations": [known._asdict() for known in calibrations],
        "member_starts": [*itertools.chain(*starts)],
    }
    with files.folder_whole(output_dir) as unfinished:
        environment_file.add_start(unfinished, facts)
        run_folder.write_flags(unfinished, _join_flags(members))
        model.save(os.path.join(unfinished, run_folder.BEST_MODEL))
    return members


def _expand(run_dir: str) -> list[str]:
    """Returns a run, or those of the folds of a cross-validation."""
    if not os.path.isfile(os.path.join(run_dir, run_folder.CROSS_VALIDATION)):
        return [run_dir]
    pattern = os.path.join(glob.escape(run_dir), "*", run_folder.BEST_MODEL)
    return sorted(map(os.path.dirname, glob.glob(pattern)))


def _average(
    paths: Sequence[str], calibrations: Sequence[calibration_file.Calibration]
) -> keras.Model:
    """Returns a network that runs saved ones beside each other."""
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    logits = []
    for number, (path, known) in enumerate(
        zip(paths, calibrations, strict=True)
    ):
        member = inference.load_network(path)
        member.name = f"member{number}"  # Those of one model share a name.
        logit, *_ = keras.tree.flatten(member(image))
        calibrate = keras.layers.Rescaling(
            1 / known.temperature, known.intercept
        )
        logits.append(calibrate(logit))
    mean = keras.layers.Average(name=classifier_head.LOGIT)(logits)
    return keras.Model(image, mean, name=run_folder.ENSEMBLE)


def _join_flags(run_dirs: Sequence[str]) -> dict[str, object]:
    """Returns the flags that tell what the ensemble was trained and scored on."""
    flags = list(map(run_folder.read_flags, run_dirs))
    seen, validated = (
        [set(run_folder.list_splits(f, name)) for f in flags]
        for name in ("train_splits", "validation_splits")
    )
    trained = set().union(*seen)
    common = set.intersection(*validated) - trained
    return {
        "model": run_folder.ENSEMBLE,
        "train_splits": sorted(trained),
        "validation_splits": sorted(common),
    }
