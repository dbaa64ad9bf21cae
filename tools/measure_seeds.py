"""Trains one recipe with many seeds on the kinds of processor that oneDNN knows.

Rounding differs between processors, and a recipe that stands on an edge learns
on one of them and dies on another. oneDNN can be held to older instruction sets,
which imitates other machines on this one. TensorFlow uses it for whole layers only
where the processor has AVX-512, so that it is turned on for these:

    python tools/measure_seeds.py --records_dir=R --output_csv=seeds.csv \\
        --num_seeds=20 -- --flagfile=configs/demo.flags

What follows `--` is for `pcam train`. Runs whose row is in the CSV are not done
again.
"""

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from absl import app, flags

from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import run_folder

PROCESSORS = {
    "default": {},
    "AVX2": {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}
_COLUMNS = ("processor", "seed", "auc", "epochs", "dead_units")
_NUM_PATCHES = 256

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_OUTPUT_CSV = flags.DEFINE_string("output_csv", None, "A row for each run.")
_NUM_SEEDS = flags.DEFINE_integer("num_seeds", 20, "Seeds 0 to this less 1.")
_PROCESSORS = flags.DEFINE_list("processors", [*PROCESSORS], "Which ones.")


def main(arguments: Sequence[str]) -> None:
    """Does the runs that are missing, and prints the table."""
    if unknown := set(_PROCESSORS.value) - set(PROCESSORS):
        sys.exit(
            f"--processors: found {', '.join(sorted(unknown))}, expected some of"
            f" {', '.join(PROCESSORS)}, with commas between them."
        )
    done = _read_rows()
    for seed in range(_NUM_SEEDS.value):
        for processor in _PROCESSORS.value:
            if (processor, str(seed)) in done:
                continue
            row = _measure(processor, seed, arguments[1:])
            done[processor, str(seed)] = row
            _append_row(row)
            print(*row, flush=True)
    print(_format_table(done))


def _measure(
    processor: str, seed: int, train_flags: Sequence[str]
) -> tuple[str, ...]:
    """Trains once; returns a row of `_COLUMNS`.

    Where training fails, the process ends with exit code 1, behind what
    training says of it.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        result = subprocess.run(
            [
                *(sys.executable, "-m", "pcam_tfdata", "train", *train_flags),
                f"--records_dir={_RECORDS_DIR.value}",
                f"--run_dir={run_dir}",
                f"--seed={seed}",
            ],
            env=os.environ | PROCESSORS[processor],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if result.returncode:
            sys.exit(
                f"{result.stderr}{processor}, seed {seed}: found exit code"
                f" {result.returncode} of pcam train, expected 0. Mend what it"
                " says above."
            )
        with open(os.path.join(run_dir, run_folder.HISTORY)) as file:
            aucs = [float(row["val_auc"]) for row in csv.DictReader(file)]
        model = keras.models.load_model(run_folder.find_model(run_dir))
        splits = run_folder.read_flags(run_dir)["validation_splits"].split(",")
    dead = max(_dead_shares(model, _read_images(splits)), default=0.0)
    epochs = " ".join(f"{auc:.3f}" for auc in aucs)
    return processor, str(seed), f"{max(aucs):.4f}", epochs, f"{dead:.3f}"


def _read_images(splits: Sequence[str]) -> np.ndarray:
    """Returns some validation patches, uint8 [num_patches, 96, 96, 3]."""
    source = patch_source.Source(
        records_folder.open_folder(_RECORDS_DIR.value), splits
    )
    patches = inference.open_patches(source)
    batches = patches.eval_batches(batch_size=_NUM_PATCHES)
    batch = next(iter(batches))
    return batch["image"].numpy()[batch["mask"].numpy() > 0]


def _dead_shares(model: keras.Model, images: np.ndarray) -> Iterator[float]:
    """Yields of each layer with ReLUs the share that is 0 on all patches.

    A unit of a convolution is one of its channels, at every position.
    """
    layers = [
        layer
        for layer in model.layers
        if getattr(layer, "activation", None) is keras.activations.relu
    ]
    outputs = keras.Model(model.input, [layer.output for layer in layers])
    for output in outputs.predict(images, verbose=0):
        highest = output.reshape(-1, output.shape[-1]).max(0)
        yield float(np.mean(highest <= 0))


def _read_rows() -> dict[tuple[str, str], tuple[str, ...]]:
    if not os.path.exists(_OUTPUT_CSV.value):
        return {}
    with open(_OUTPUT_CSV.value, newline="") as file:
        return {tuple(row[:2]): tuple(row) for row in csv.reader(file)}


def _append_row(row: Sequence[str]) -> None:
    with open(_OUTPUT_CSV.value, "a", newline="") as file:
        csv.writer(file).writerow(row)


def _format_table(done: dict[tuple[str, str], tuple[str, ...]]) -> str:
    """Returns Markdown: a row a seed, then the lowest and the middle AUC."""
    rows = [
        ["seed", *_PROCESSORS.value],
        ["---"] * (1 + len(_PROCESSORS.value)),
    ]
    seeds = list(map(str, range(_NUM_SEEDS.value)))
    aucs, dead = (
        [[done[name, seed][column] for seed in seeds] for name in rows[0][1:]]
        for column in map(_COLUMNS.index, ("auc", "dead_units"))
    )
    rows += [
        [seed, *column]
        for seed, column in zip(seeds, zip(*aucs, strict=True), strict=True)
    ]
    for title, pick in (("lowest", min), ("median", statistics.median)):
        picked = [pick(map(float, column)) for column in aucs]
        rows.append([title, *(f"{auc:.4f}" for auc in picked)])
    shares = [max(map(float, column)) for column in dead]
    rows.append(
        ["most dead units of a layer", *(f"{share:.0%}" for share in shares)]
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    flags.mark_flags_as_required(["records_dir", "output_csv"])
    app.run(main)
