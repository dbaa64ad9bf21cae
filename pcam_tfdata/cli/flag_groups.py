"""From flags to the options of a library call."""

from collections.abc import Sequence
from typing import Any, TypeVar

from absl import flags

from pcam_tfdata import choices
from pcam_tfdata.system import nested_options

Options = TypeVar("Options")

flags.disclaim_key_flags()  # Flags defined here are those of the caller.


def define_scored_splits() -> None:
    """Defines which run, on which splits of which records, is looked at."""
    flags.DEFINE_string("records_dir", None, "Records folder.")
    flags.DEFINE_string("run_dir", None, "Folder of the run.")
    flags.DEFINE_list(
        "splits", [], "Labelled splits. Default: the run's validation splits."
    )


def define_inference() -> None:
    """Defines the flags of `inference.InferenceOptions`."""
    flags.DEFINE_integer(
        "batch_size",
        512,
        "Patches a pass, over all replicas; rounded up to share evenly.",
        lower_bound=1,
    )
    define_tta()
    define_input()
    define_devices()


def define_tta() -> None:
    """Defines --tta of the command that calls this."""
    flags.DEFINE_enum(
        "tta",
        "none",
        choices.TTA,
        "d4: the mean logit of each patch turned and flipped in all 8 ways, in 8"
        " times the time.",
    )


def define_input() -> None:
    """Defines --input and --input_threads of the command that calls this."""
    flags.DEFINE_enum(
        "input",
        "auto",
        choices.INPUTS,
        "mmap: gathered from shards on a disk; stream: read in order, from"
        " anywhere; device: held by each GPU; auto: mmap, and stream for a URL.",
    )
    flags.DEFINE_integer(
        "input_threads",
        0,
        "Threads that prepare batches. 0: as many as they can use.",
        lower_bound=0,
    )


class _ThresholdParser(flags.ArgumentParser):
    """Reads what `operating_point.parse_threshold` does."""

    def parse(self, argument: Any) -> Any:
        if not isinstance(argument, str):  # The default.
            return argument
        from pcam_tfdata.evaluation import operating_point  # Slow to import.

        return operating_point.parse_threshold(argument)


def define_threshold(default: float | None, meaning: str) -> None:
    """Defines --threshold of the command that calls this.

    Args:
        default: A probability, or None.
        meaning: What it does, a sentence.
    """
    flags.DEFINE(
        _ThresholdParser(),
        "threshold",
        default,
        f"{meaning} sensitivity:0.95 or specificity:0.9 takes the one that"
        " reaches it on the run's validation splits, which pcam evaluate must"
        " have scored.",
    )


def define_num_workers() -> None:
    """Defines --num_workers of the command that calls this."""
    flags.DEFINE_integer(
        "num_workers",
        0,
        "Processes; 0 for one a core, 1 for this one alone.",
        lower_bound=0,
    )


def define_overwrite() -> None:
    """Defines --overwrite of a command that makes a records folder."""
    flags.DEFINE_bool(
        "overwrite", False, "Replace a finished output, drop an unfinished one."
    )


def define_checks(skipping: str) -> None:
    """Defines what the files of a source must be, and what becomes of others.

    Args:
        skipping: What --on_bad_patch=skip does, a sentence.
    """
    flags.DEFINE_bool(
        "follow_symlinks", False, "Follow links among the files of the source."
    )
    flags.DEFINE_enum(
        "check_ids",
        "auto",
        ["auto", "always", "never"],
        "Whether an id must be the SHA-1 of its pixels; auto: if one of 64"
        " looked at is.",
    )
    flags.DEFINE_enum(
        "on_bad_patch",
        "fail",
        ["fail", "skip"],
        f"What to do with patches that cannot be used; {skipping}",
    )


def define_devices(
    strategies: Sequence[str] = choices.STRATEGIES,
    meaning: str = "One device, or a replica on each GPU.",
) -> None:
    """Defines the flags of `replicas.DeviceOptions`."""
    flags.DEFINE_enum("strategy", "one_device", strategies, meaning)
    flags.DEFINE_integer(
        "num_virtual_devices",
        0,
        "Splits the CPU into as many devices, to try several replicas.",
        lower_bound=0,
    )
    flags.DEFINE_bool("allow_cpu", False, "Let several replicas use the CPU.")


def define_runner(meaning: str) -> None:
    """Defines --runner and --beam_options of the command that calls this."""
    flags.DEFINE_enum("runner", "local", choices.RUNNERS, meaning)
    flags.DEFINE_string(
        "beam_options",
        "",
        "Beam's own flags, in quotes: '--runner=FlinkRunner"
        " --flink_master=HOST:PORT'.",
    )


def from_flags(kind: type[Options]) -> Options:
    """Returns a `kind`, each leaf from the flag of its name, if there is one."""
    return nested_options.fill(kind, flags.FLAGS.flag_values_dict())
