"""Trains on all folds but one and scores that one, for each fold in turn.

Takes the flags of pcam train. Each run has a folder of its own in --run_dir,
beside cross_validation.json and out_of_fold.csv. The same command again goes on.
"""

from absl import app, flags

from pcam_tfdata.cli import train as train_command

REQUIRED_FLAGS = train_command.REQUIRED_FLAGS
_OF_THE_RUN = ("records_dir", "run_dir", "train_splits", "validation_splits")

flags.adopt_module_key_flags(train_command)
flags.DEFINE_list("folds", [], "Labelled splits. Default: all.")


def run() -> None:
    """Cross-validates as the flags say."""
    for name in _OF_THE_RUN[2:]:
        if flags.FLAGS[name].present:
            raise app.UsageError(
                f"--{name}: found it, expected --folds: every fold is validated"
                " on in turn."
            )
    if flags.FLAGS.strategy == "multi_worker":
        raise app.UsageError(
            "--strategy=multi_worker: expected a strategy of one machine. Train"
            " each fold with pcam train on all workers."
        )
    from pcam_tfdata.training import cross_validate

    chosen = flags.FLAGS.get_key_flags_for_module(train_command.__name__)
    summary = cross_validate.cross_validate(
        records_dir=flags.FLAGS.records_dir,
        run_dir=flags.FLAGS.run_dir,
        folds=flags.FLAGS.folds,
        train_flags=[
            flag.serialize()
            for flag in chosen
            if flag.present and flag.name not in _OF_THE_RUN
        ],
    )
    print(cross_validate.format_summary(summary), end="")
