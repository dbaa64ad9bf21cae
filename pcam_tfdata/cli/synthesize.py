"""Writes a folder of made-up H&E patches, laid out like Kaggle's.

Beside Kaggle's files there is truth.csv: label, tumor fraction of the centre and
slide of every patch; it serves as --slide_csv of convert_to_tfrecords.
"""

from absl import flags

from pcam_tfdata.cli import flag_groups
from pcam_tfdata.synthetic import kaggle_folder

REQUIRED_FLAGS = ("output_dir",)

flags.DEFINE_string("output_dir", None, "Folder to make, in Kaggle's layout.")
_NUM_TRAIN = flags.DEFINE_integer(
    "num_train", 4096, "Labelled patches.", lower_bound=1
)
_NUM_TEST = flags.DEFINE_integer(
    "num_test", 1024, "Unlabelled patches.", lower_bound=0
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Another seed, other patches.", lower_bound=0
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", 0, "Processes; 0 for one a core.", lower_bound=0
)


def run() -> None:
    """Writes the folder that the flags ask for."""
    output_dir = flag_groups.value("output_dir")
    kaggle_folder.write_kaggle_tree(
        output_dir,
        num_train=_NUM_TRAIN.value,
        num_test=_NUM_TEST.value,
        seed=_SEED.value,
        num_workers=_NUM_WORKERS.value,
    )
    print(
        f"{flag_groups.value('output_dir')}: {_NUM_TRAIN.value:,} train and"
        f" {_NUM_TEST.value:,} test patches."
    )
