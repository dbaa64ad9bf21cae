"""`pcam COMMAND --flag=value`: finds the command, parses its flags, runs it.

Only the module of the command that runs is imported. What goes wrong ends in
one line on stderr: exit code 2 for usage, 1 for bad data.
"""

import contextlib
import errno
import importlib
import logging
import math
import os
import signal
import sys
import types
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import app, flags

from pcam_tfdata.cli import flag_files, standard_streams
from pcam_tfdata.system import faults, interruption

COMMANDS = {
    "synthesize": "Write a folder of made-up patches, laid out like Kaggle's.",
    "convert_to_tfrecords": "Write patches as TFRecord shards, checking each.",
    "join": "Make one records folder of several.",
    "verify": "Check every byte of a records folder.",
    "audit": "Find leaks, duplicates, conflicts, blanks and stain shifts.",
    "inspect": "Count what a records folder holds, and draw patches of it.",
    "train": "Train a network; the same command again resumes.",
    "data_service": "Serve records to pcam train from other hosts.",
    "cross_validate": "Train and score on each fold in turn.",
    "evaluate": "Score a trained network exactly.",
    "explain": "Show where a trained network finds tumor.",
    "predict": "Write a submission CSV.",
    "export": "Write a trained network for other programs.",
    "ensemble": "Make one run of several.",
    "compare": "Tell whether one run is better than another.",
    "report": "Write one page about runs: how good, and whether to trust it.",
    "runs": "Show what was tried, and how it scored.",
    "doctor": "Tell what keeps this machine from training.",
    "benchmark": "Time conversion, input, training or prediction.",
    "completion": "Print what has a shell complete commands, flags and choices.",
}
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Set, it shows where an error came from.
_TRACEBACK_VARIABLE = "PCAM_TRACEBACK"
_HELP_FLAGS = ("--help", "-help", "-h")


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command of `argv` (default: of the process) and exits."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = " ".join(["pcam", *argv[:1]])
    standard_streams.prepare()
    try:
        code = _run_command(*argv)
        standard_streams.flush()
        sys.exit(code)
    except (flags.Error, app.UsageError) as error:
        _end(2, f"{command}: {faults.one_line(error)}")
    except (Exception, KeyboardInterrupt) as error:
        if number := interruption.find_signal(error):
            how = "interrupted" if number == signal.SIGINT else "terminated"
            _end(128 + number, f"{command}: {how}.")
        if isinstance(error, BrokenPipeError) and standard_streams.is_left():
            os._exit(0)  # It has seen what it wants to.
        message = _message(error)
        if os.environ.get(_TRACEBACK_VARIABLE) or message is None:
            raise
        _end(1, message)


def _run_command(command: str = "", *arguments: str) -> int | None:
    if command in ("", *_HELP_FLAGS, "help"):
        print(_list_commands(), file=sys.stdout if command else sys.stderr)
        return 0 if command else 2
    if command not in COMMANDS:
        raise app.UsageError(
            f"found command {command!r}, expected one of {', '.join(COMMANDS)}."
        )
    _prepare_process()
    module = import_command(command)
    if set(arguments) & set(_HELP_FLAGS):
        print(_describe_flags(command, module))
        return 0
    _parse(command, module, arguments)
    if flags.FLAGS.quiet:
        logging.getLogger("pcam_tfdata").setLevel(logging.WARNING)
    interruption.raise_on_signals()  # From now on there may be things to tidy up.
    return module.run()


def import_command(command: str) -> types.ModuleType:
    """Returns the module of a command; its flags are those of this process then."""
    module = importlib.import_module(f"pcam_tfdata.cli.{command}")
    flags.DEFINE_bool(
        "quiet",
        False,
        "Show no progress and no notes, only warnings, errors and the result.",
        module_name=module.__name__,
    )
    return module


def _parse(
    command: str, module: types.ModuleType, arguments: Sequence[str]
) -> None:
    arguments = list(flag_files.locate(arguments))
    if name := getattr(module, "POSITIONAL_FLAG", ""):
        arguments = [
            argument if argument.startswith("-") else f"--{name}={argument}"
            for argument in arguments
        ]
    rest = flags.FLAGS([f"pcam {command}", *arguments])[1:]
    if rest:
        raise app.UsageError(
            f"found {rest[0]!r}, expected only --flag=value. See pcam"
            f" {command} --help."
        )
    for flag in flags.FLAGS.get_key_flags_for_module(module.__name__):
        if flag.present and flag.value == "":
            raise app.UsageError(f"--{flag.name}: found nothing after it.")
        if isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise app.UsageError(
                f"flag --{flag.name}={flag.value}: expected a finite number."
            )
        flag.value = _expand_home(flag.value)
    for name in module.REQUIRED_FLAGS:
        if flags.FLAGS[name].value is None:
            raise app.UsageError(
                f"--{name} is missing: {flags.FLAGS[name].help} See pcam"
                f" {command} --help."
            )


def _expand_home(value: Any) -> Any:
    """Returns a flag's value; `~` is the home folder, also after `=`."""
    if isinstance(value, list):
        return list(map(os.path.expanduser, value))
    return os.path.expanduser(value) if isinstance(value, str) else value


def _prepare_process() -> None:
    # Before TensorFlow is imported: its start-up notes are not the user's.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Keras as it comes, not as the user has set it for other work: `keras.json`
    # is looked for where no file can be.
    os.environ |= {
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": os.devnull,
        "KERAS_NNX_ENABLED": "false",
    }
    # A command that a signal ends leaves semaphores to multiprocessing's tracker,
    # which removes them, and would say so.
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"
    )
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pcam_tfdata")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # What TensorFlow says in Python, of functions that it traces again.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _list_commands() -> str:
    commands = "".join(
        f"  {name:<22}{description}\n" for name, description in COMMANDS.items()
    )
    return (
        f"usage: pcam COMMAND --flag=value ...\n\n{commands}\n"
        "pcam COMMAND --help shows the flags of a command."
    )


def _describe_flags(command: str, module: types.ModuleType) -> str:
    required = "".join(f" --{name}=..." for name in module.REQUIRED_FLAGS)
    _, _, described = flags.FLAGS.module_help(module).partition(":\n")
    described = described.replace("\n    (default: '')", "")
    return (
        f"usage: pcam {command}{required} [--flag=value ...]\n\n"
        f"{(module.__doc__ or '').strip()}\n\n{described}\n\n"
        "  --flagfile: A file with flags, one a line."
    )


def _message(error: BaseException) -> str | None:
    """Returns what to print for an error; None if it is not for the user."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        if error.errno in _FULL_DISK:  # Files are told by their names.
            name = name or "standard output"
        if name:
            return (
                f"{name}: {error.strerror}. Check the path, its rights and the"
                " room on its disk."
            )
    # Errors of TensorFlow have a base of their own; it may not be imported.
    if type(error).__module__.startswith("tensorflow"):
        return f"TensorFlow: {faults.one_line(error, 500)}"
    return str(error) if isinstance(error, faults.FOR_USERS) else None


def _end(code: int, message: str) -> NoReturn:
    """Exits at once: what had to be tidied up is, and threads may be stuck.

    A pool whose workers were killed raises now and then while Python shuts down.
    """
    with contextlib.suppress(OSError):  # Nobody may read it.
        print(message, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # It may be what the message is of.
        sys.stdout.flush()
    os._exit(code)
