"""Writes a submission CSV, `id,label`, with the best model of a run.

Labels are probabilities, which is what an AUC wants, unless --threshold is given.
From records a killed job leaves the shards that it finished in OUTPUT_CSV.parts;
the same command again goes on with the others.
"""

from absl import app, flags

from pcam_tfdata.cli import options, quiet

REQUIRED_FLAGS = ("run_dir", "output_csv")

flags.DEFINE_string("run_dir", None, "Folder of the run.")
flags.DEFINE_string("output_csv", None, "File to write, whole or not at all.")
flags.DEFINE_string("records_dir", None, "Records folder.")
flags.DEFINE_string(
    "input_dir", None, "Instead of records: Kaggle's folder, read as it is."
)
flags.DEFINE_string("split", "test", "Split of the records or of the folder.")
flags.DEFINE_integer(
    "batch_size",
    512,
    "Patches a pass, over all replicas; rounded up to share evenly.",
    lower_bound=1,
)
options.define_input()
options.define_devices()
flags.DEFINE_float(
    "threshold",
    None,
    "Write 1 for a probability at or above it, else 0.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_string(
    "sample_submission",
    None,
    "CSV whose ids, in its order, the output must have.",
)
flags.DEFINE_bool(
    "restart", False, "Begin anew, dropping what a killed job left."
)


def run() -> None:
    """Predicts what the flags name."""
    if (options.value("records_dir") is None) == (
        options.value("input_dir") is None
    ):
        raise app.UsageError(
            "expected one of --records_dir and --input_dir, found both or none."
        )
    with quiet.imports():
        from pcam_tfdata import predict
    predicted = options.from_flags(predict.PredictOptions)
    num_patches = predict.predict(predicted)
    print(f"{predicted.output_csv}: {num_patches:,} patches.")
