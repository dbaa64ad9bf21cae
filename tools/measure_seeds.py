"""Trains a recipe with many seeds: on kinds of processor, or with other flags.

Rounding differs between processors, and a recipe that stands on an edge learns
on one of them and dies on another. oneDNN can be held to older instruction sets,
which imitates other machines on this one. TensorFlow uses it for whole layers only
where the processor has AVX-512, so that it is turned on for these:

    python tools/measure_seeds.py --records_dir=R --output_csv=seeds.csv \\
        --num_seeds=20 -- --flagfile=configs/demo.flags

What follows `--` is for `pcam train`. Runs that have a row in the CSV are done.

What an ingredient of a recipe brings is measured with `--variant`, given once for
each, beside the recipe as it is; differences are taken seed by seed:

    python tools/measure_seeds.py --records_dir=R --output_csv=variants.csv \\
        --num_seeds=3 --variant="no average: --ema_decay=0" \\
        --variant="no moves: --augment=none" -- --flagfile=configs/best_cpu.flags
"""

import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pandas as pd
from absl import app, flags
from scipy import stats

from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import run_folder

PROCESSORS = {
    "default": {},
    "AVX2": {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE4.1": {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "no oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}
_COLUMNS = ["setting", "seed", "auc", "epochs", "dead_units"]
_NUM_PATCHES = 256

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_OUTPUT_CSV = flags.DEFINE_string("output_csv", None, "A row for each run.")
_NUM_SEEDS = flags.DEFINE_integer("num_seeds", 20, "Seeds 0 to this less 1.")
_PROCESSORS = flags.DEFINE_list("processors", [*PROCESSORS], "Which ones.")
_VARIANTS = flags.DEFINE_multi_string(
    "variant", [], "NAME: more flags of pcam train. Instead of processors."
)


def main(arguments: list[str]) -> None:
    """Does the runs that are missing, and prints the table."""
    if unknown := set(_PROCESSORS.value) - set(PROCESSORS):
        sys.exit(
            f"--processors: found {', '.join(sorted(unknown))}, expected some of"
            f" {', '.join(PROCESSORS)}, with commas between them."
        )
    settings = {name: (PROCESSORS[name], []) for name in _PROCESSORS.value}
    if _VARIANTS.value:
        parts = [variant.partition(":") for variant in _VARIANTS.value]
        others = {name: ({}, text.split()) for name, _, text in parts}
        settings = {"as it is": ({}, [])} | others
    done = _read_rows()
    for seed in range(_NUM_SEEDS.value):
        for name, (env, more) in settings.items():
            if (name, seed) not in done.index:
                row = _measure(name, seed, env, [*arguments[1:], *more])
                with open(_OUTPUT_CSV.value, "a") as file:
                    print(*row, sep=",", file=file)
                print(*row, flush=True)
    print(_format_table(_read_rows(), list(settings)))


def _measure(
    name: str, seed: int, env: dict[str, str], train_flags: list[str]
) -> tuple:
    """Trains once; returns a row of `_COLUMNS`.

    Where training fails, the process ends with exit code 1, behind what
    training says of it.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        command = [sys.executable, "-m", "pcam_tfdata", "train", *train_flags]
        command += [f"--records_dir={_RECORDS_DIR.value}"]
        command += [f"--run_dir={run_dir}", f"--seed={seed}"]
        env = os.environ | env
        if code := subprocess.call(command, env=env, stdout=subprocess.DEVNULL):
            sys.exit(
                f"{name}, seed {seed}: found exit code {code} of pcam train,"
                " expected 0. Mend what it says above."
            )
        history = pd.read_csv(os.path.join(run_dir, run_folder.HISTORY))
        model = keras.models.load_model(run_folder.find_model(run_dir))
        splits = run_folder.read_flags(run_dir)["validation_splits"].split(",")
    aucs = history["val_auc"]
    epochs = " ".join(f"{auc:.3f}" for auc in aucs)
    records = records_folder.open_folder(_RECORDS_DIR.value)
    patches = records.select_patches(splits)
    looked_at = np.arange(min(_NUM_PATCHES, patches.num_patches))
    dead = _find_dead_share(model, patches.read_images(looked_at))
    return name, seed, f"{aucs.max():.4f}", epochs, f"{dead:.3f}"


def _find_dead_share(model: keras.Model, images: np.ndarray) -> float:
    """Returns the largest share of a layer's ReLUs that is 0 on all patches.

    A unit of a convolution is one of its channels, at every position. NaN where
    no layer has ReLU as its activation.
    """
    relu = keras.activations.relu
    layers = [n for n in model.layers if getattr(n, "activation", 0) is relu]
    if not layers:
        return np.nan
    network = keras.Model(model.input, [layer.output for layer in layers])
    outputs = network.predict(images, verbose=0)
    highest = [o.reshape(-1, o.shape[-1]).max(0) for o in outputs]
    return max(float(np.mean(h <= 0)) for h in highest)


def _read_rows() -> pd.DataFrame:
    """Returns the runs that were done, by setting and seed."""
    rows = pd.DataFrame(columns=_COLUMNS)
    if os.path.exists(_OUTPUT_CSV.value):
        rows = pd.read_csv(_OUTPUT_CSV.value, names=_COLUMNS)
    return rows.set_index(["setting", "seed"])


def _format_table(rows: pd.DataFrame, names: list[str]) -> str:
    """Returns Markdown: a row a seed, then what all seeds say together.

    The difference of each setting from the first one has a 95% interval of
    Student's t over seeds.
    """
    wanted = rows.unstack("setting").loc[range(_NUM_SEEDS.value)]
    aucs, dead = (wanted[n][names] for n in ("auc", "dead_units"))
    differences = aucs.sub(aucs[names[0]], axis=0)[names[1:]]
    aucs.loc["lowest"], aucs.loc["median"] = aucs.min(), aucs.median()
    table = aucs.map("{:.4f}".format)
    if len(differences) > 1:
        table.loc["difference from the first"] = "-"
        for name, values in differences.items():
            mean, quantile = values.mean(), stats.t.ppf(0.975, len(values) - 1)
            low, high = mean + stats.sem(values) * quantile * np.array([-1, 1])
            text = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            table.loc["difference from the first", name] = text
    table.loc["most dead units of a layer"] = dead.max().map("{:.0%}".format)
    cells = [["seed", *table], ["---"] * (1 + len(table.columns))]
    cells += [[str(index), *row] for index, *row in table.itertuples()]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


if __name__ == "__main__":
    if "--help" in sys.argv:
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flags_as_required(["records_dir", "output_csv"])
    app.run(main)
