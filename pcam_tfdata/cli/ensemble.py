"""Makes one run of several, whose network gives the mean of their logits.

The runs may be folds of a cross-validation, whose folder names all of them. The
new run is scored and predicts as any other:

    pcam ensemble --run_dir=runs/1,runs/2 --output_dir=runs/both
    pcam evaluate --records_dir=records --run_dir=runs/both --tta=d4
"""

from absl import flags

from pcam_tfdata.cli import quiet

REQUIRED_FLAGS = ("run_dir", "output_dir")

flags.DEFINE_list("run_dir", None, "Folders of runs or of cross-validations.")
flags.DEFINE_string("output_dir", None, "Folder of the new run, to make.")


def run() -> None:
    """Makes the run."""
    with quiet.imports():
        from pcam_tfdata.evaluation import ensemble
    output_dir = flags.FLAGS.output_dir
    members = ensemble.make_run(flags.FLAGS.run_dir, output_dir)
    print(f"{output_dir}: the mean of {len(members)} networks.")
