"""From patches to a CSV of `id,label`: Kaggle's submission."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import (
    faults,
    inference,
    manifest,
    metrics,
    pipeline,
    run_files,
    strategy,
    tables,
)
from pcam_tfdata.sources import kaggle


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What to predict.

    Attributes:
        run_dir: Folder of a run; its best model predicts.
        output_csv: Where to.
        records_dir: Records folder; or else
        input_dir: Kaggle's folder, read without records.
        split: Of the records; of a folder, `test` or `train`.
        batch_size: Patches of a forward pass.
        input: Way in to records, one of `choices.INPUTS`.
        threshold: None for probabilities; else labels 0 and 1, where a
            probability at or above it gives 1.
        sample_submission: A CSV whose ids, in order, the output must have.
    """

    run_dir: str
    output_csv: str
    records_dir: str | None = None
    input_dir: str | None = None
    split: str = "test"
    batch_size: int = 512
    input: str = "auto"
    threshold: float | None = None
    sample_submission: str | None = None


def predict(options: PredictOptions) -> int:
    """Writes a row `id,label` for every patch of a split; the ids are the
    source's own names.

    Returns:
        How many patches.

    Raises:
        FileNotFoundError, ValueError: model, patches or sample are not there or
            do not fit each other. Nothing is written then.
    """
    model_path = run_files.find_model(options.run_dir)
    _check_output(options.output_csv)
    distribution = strategy.make_strategy("one_device")
    if options.records_dir is not None:
        names, patches = _from_records(options, distribution)
    else:
        names, patches = _from_folder(options)
    # Before the network runs: it may take an hour.
    places = _order(names, options.sample_submission)
    found = inference.predict_all(
        patches, model_path, distribution, options.batch_size, "predict"
    )
    if options.records_dir is None and patches.faults:
        raise faults.BadInputError(patches.faults)
    probability = metrics.to_probability(found["logit"])
    labels = _to_labels(probability, options.threshold)
    tables.write_csv(
        options.output_csv,
        ("id", "label"),
        ((names[place], labels[place]) for place in places),
    )
    return len(places)


def _check_output(output_csv: str) -> None:
    folder = os.path.dirname(output_csv) or "."
    if os.path.isdir(output_csv):
        raise FileExistsError(
            f"{output_csv}: found a folder, expected a file to write. Check"
            " --output_csv."
        )
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise FileNotFoundError(
            f"{output_csv}: found no folder {folder} that can be written in."
            " Check --output_csv."
        )


def _from_records(
    options: PredictOptions, distribution: tf.distribute.Strategy
) -> tuple[list[str], pipeline.Patches]:
    content = manifest.read(options.records_dir)
    (split,) = content.select([options.split])
    path = os.path.join(options.records_dir, manifest.SIDECAR_FILE)
    names = [
        name
        for row_split, name in tables.read_csv(path, ("split", "source_name"))
        if row_split == options.split
    ]
    if len(names) != split.num_records:
        raise ValueError(
            f"{path}: found {len(names):,} rows of {options.split}, expected"
            f" {split.num_records:,}. Convert again."
        )
    source = pipeline.Source(
        options.records_dir, [options.split], options.input
    )
    devices = strategy.list_devices(distribution)
    return names, pipeline.open_patches(source, devices)


def _from_folder(
    options: PredictOptions,
) -> tuple[list[str], pipeline.ImageFiles]:
    if options.split == kaggle.TEST:
        patches, found = kaggle.list_test(options.input_dir)
    elif options.split == kaggle.TRAIN:
        patches, found = kaggle.list_train(options.input_dir, slide_csv=None)
    else:
        raise ValueError(
            f"--split: found {options.split!r}, expected {kaggle.TEST} or"
            f" {kaggle.TRAIN} with --input_dir."
        )
    if found:
        raise faults.BadInputError(found)
    if not patches:
        raise ValueError(
            f"{options.input_dir}: found no {options.split} patch, expected at"
            " least one. Check --input_dir."
        )
    names = [patch.name for patch in patches]
    return names, pipeline.ImageFiles([patch.path for patch in patches])


def _order(names: Sequence[str], sample_submission: str | None) -> list[int]:
    """Returns the places of `names` in the order of the sample's ids."""
    if sample_submission is None:
        return list(range(len(names)))
    wanted = [name for (name,) in tables.read_csv(sample_submission, ("id",))]
    place_of_name = {name: place for place, name in enumerate(names)}
    known = set(wanted)
    problems = [
        (len(wanted) - len(known), "repeated", _repeated(wanted)),
        (len(known - place_of_name.keys()), "not among the patches",
         known - place_of_name.keys()),
        (len(place_of_name.keys() - known), "patches without a row",
         place_of_name.keys() - known),
    ]  # fmt: skip
    wrong = [
        f"{count:,} {what} (as {min(examples)})"
        for count, what, examples in problems
        if count
    ]
    if wrong:
        raise ValueError(
            f"{sample_submission}: found ids {'; '.join(wrong)}, expected each"
            f" of the {len(names):,} patches once. Nothing was written."
        )
    return [place_of_name[name] for name in wanted]


def _repeated(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}


def _to_labels(
    probability: np.ndarray, threshold: float | None
) -> list[float] | list[int]:
    if threshold is None:
        return probability.tolist()
    return (probability >= threshold).astype(int).tolist()
