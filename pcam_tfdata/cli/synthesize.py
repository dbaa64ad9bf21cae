"""Writes a folder of made-up H&E patches, laid out like Kaggle's.

Beside Kaggle's files there is truth.csv: label, tumor fraction of the centre and
slide of every patch; it serves as --slide_csv of convert_to_tfrecords.
"""

from absl import flags

from pcam_tfdata.cli import flag_groups, next_step
from pcam_tfdata.synthetic import kaggle_folder

REQUIRED_FLAGS = ("output_dir",)

flags.DEFINE_string("output_dir", None, "Folder to make, in Kaggle's layout.")
flags.DEFINE_integer("num_train", 4096, "Labelled patches.", lower_bound=1)
flags.DEFINE_integer("num_test", 1024, "Unlabelled patches.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Another seed, other patches.", lower_bound=0)
flags.DEFINE_bool(
    "masks", False, "Also write masks/ID.png, 255 where a patch is tumor."
)
flag_groups.define_num_workers()


def run() -> None:
    """Writes the folder that the flags ask for."""
    output_dir = flags.FLAGS.output_dir
    num_train = flags.FLAGS.num_train
    num_test = flags.FLAGS.num_test
    kaggle_folder.write_kaggle_tree(
        output_dir,
        num_train=num_train,
        num_test=num_test,
        seed=flags.FLAGS.seed,
        num_workers=flags.FLAGS.num_workers,
        has_masks=flags.FLAGS.masks,
    )
    print(f"{output_dir}: {num_train:,} train and {num_test:,} test patches.")
    next_step.tell(
        "convert_to_tfrecords",
        f"--input_dir={output_dir}",
        f"--output_dir={next_step.beside(output_dir, 'records')}",
        f"--slide_csv={output_dir}/truth.csv",
    )
