"""Writes patches as shards of TFRecords, with every patch checked.

Killed and started again, it goes on from the shards that are finished. The
folder also loads with tfds.builder_from_directory.
"""

from absl import flags

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_groups, next_step, quiet
from pcam_tfdata.conversion import convert

REQUIRED_FLAGS = ("input_dir", "output_dir")

flags.DEFINE_enum(
    "source",
    "kaggle",
    choices.SOURCES,
    "Kaggle's TIFFs; the official PCam files (hdf5); class folders of images; a"
    " prepared TensorFlow dataset.",
)
flags.DEFINE_string(
    "input_dir",
    None,
    "Folder of the source. Kaggle's has train/, train_labels.csv, test/,"
    " sample_submission.csv.",
)
flags.DEFINE_string("output_dir", None, "Records folder to make.")
flags.DEFINE_integer(
    "num_folds",
    5,
    "Splits to deal the labelled patches into, where the source has none.",
    lower_bound=1,
)
flags.DEFINE_string(
    "slide_csv",
    None,
    "Slide of each patch (columns id, and slide or wsi): folds then keep slides"
    " together. And the share of its centre that is tumor (tumor_fraction), if"
    " it is known.",
)
flags.DEFINE_list(
    "class_folders",
    ["0", "1"],
    "Of --source=folder: the folders of label 0 and of label 1.",
)
flag_groups.define_num_workers()
flags.DEFINE_float(
    "shard_megabytes",
    256,
    "Largest size of a shard, in 1,000,000 bytes.",
    lower_bound=0.001,
    upper_bound=1e6,
)
flags.DEFINE_integer("seed", 0, "Another seed deals other folds.")
flag_groups.define_checks("skip lists them in skipped.csv.")
flags.DEFINE_enum(
    "on_label_mismatch",
    "fail",
    ["fail", "warn"],
    "What to do where more than 5 labels contradict the masks or the meta file"
    " of hdf5; warn keeps them.",
)
flag_groups.define_overwrite()
flag_groups.define_runner(
    "Where shards are written: by processes here, or on Apache Beam; the bytes"
    " are the same. See docs/beam.md."
)


def run() -> None:
    """Converts what the flags name."""
    if flags.FLAGS.source == "tfds":
        with quiet.imports():
            import tensorflow_datasets  # noqa: F401
    made = convert.convert(flag_groups.from_flags(convert.ConvertOptions))
    print(f"{flags.FLAGS.output_dir}: {made.summarize()}.")
    next_step.tell_training(flags.FLAGS.output_dir, made)
