"""Whether a run goes on in its folder: the same flags, on the same data."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from pcam_tfdata.runs import checkpoint_files, environment_file, run_folder
from pcam_tfdata.system import files, locks

# What may change between a run and its resumption: where things are, and how
# they get to the network if in the same order, which is looked at by itself.
_FREE = (
    "records_dir", "run_dir", "input", "input_threads", "check_crc",
    "steps_per_loop", "on_nan", "checkpoint_every_seconds", "keep_checkpoints",
    "tensorboard", "data_service", "data_service_timeout_seconds",
    "worker_wait_seconds",
)  # fmt: skip


@contextlib.contextmanager
def lock_run(run_dir: str) -> Iterator[None]:
    """Holds the folder of a run, and makes it if it is not there.

    The system lets go of the lock when its holder ends, however it ends.

    Raises:
        RuntimeError: another process holds it.
        FileExistsError: the folder holds other things than a run.
    """
    if not os.path.isfile(os.path.join(run_dir, run_folder.FLAGS)):
        own = (*run_folder.OWNED, locks.LOCK)
        files.refuse_others(
            run_dir, own.__contains__, "files of a run", "--run_dir"
        )
    with locks.hold(
        os.path.join(run_dir, locks.LOCK),
        "is training there",
        "Wait for it, or choose another --run_dir.",
    ):
        yield


def open_run(
    run_dir: str,
    flags: Mapping[str, object],
    facts: Mapping[str, object],
    *,
    restart: bool,
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Writes the flags of a new run, or checks that it is the same run.

    Of a run that goes on nothing is changed: its checkpoint is yet to be read.

    Args:
        run_dir: Its folder, locked.
        flags: Name and value of every flag that makes the run what it is.
        facts: What flags do not tell: `manifest_sha256`, `order`, `input` and
            `precision`.
        restart: Removes what an earlier run left there.
        defaults: What a run had whose file lacks one of these flags,
            because it is older than the flag.

    Raises:
        OSError: the folder cannot be read.
        ValueError: the folder is that of a run with other flags, on other data,
            in another order or precision, or of one that is damaged or has lost
            its checkpoints. Nothing is changed then.
    """
    os.makedirs(run_dir, exist_ok=True)
    names = os.listdir(run_dir)
    has_checkpoint = bool(checkpoint_files.list_checkpoints(run_dir))
    has_scores = run_folder.HISTORY in names
    has_begun = has_checkpoint or has_scores or run_folder.BEST_MODEL in names
    if restart or not has_begun:
        _remove_run(run_dir)
        run_folder.write_flags(run_dir, flags)
        return
    _refuse_other_flags(run_dir, flags, defaults or {})
    if has_scores and not has_checkpoint:
        raise ValueError(
            f"{run_dir}: found no checkpoint, expected those of the run that"
            f" {run_folder.HISTORY} tells of. Put them back from a copy, or pass"
            " --restart to begin anew."
        )
    _refuse_other_facts(run_dir, facts)


def _refuse_other_flags(
    run_dir: str, flags: Mapping[str, object], defaults: Mapping[str, object]
) -> None:
    path = os.path.join(run_dir, run_folder.FLAGS)
    own = run_folder.read_flags(run_dir)
    if not own:
        raise ValueError(
            f"{path}: not found, expected it beside the checkpoints of a run."
            " Pass --restart to begin anew."
        )
    before = run_folder.to_text(defaults) | own
    now = run_folder.to_text(flags)
    names = sorted((before.keys() | now.keys()) - set(_FREE))
    differing = [name for name in names if before.get(name) != now.get(name)]
    if differing == ["epochs"] and now.get("schedule") == "constant":
        # Steps go on without end under it: more epochs are the same run.
        if int(now["epochs"]) > int(before["epochs"]):
            return
    if differing:
        had = [
            f"--{name}={before[name]}" for name in differing if name in before
        ]
        raise ValueError(
            f"{path}: found a run that differs in"
            f" {', '.join(f'--{name}' for name in differing)} (it had"
            f" {' '.join(had) or 'the default'}). Give the same flags to"
            " resume it, another --run_dir, or --restart to begin anew."
        )


def _refuse_other_facts(run_dir: str, facts: Mapping[str, Any]) -> None:
    starts = environment_file.read_starts(run_dir)
    if not starts:
        return
    first = {name: starts[0].get(name) for name in facts}
    service = "and" if "service" in str(first["order"]) else "without"
    for name, what, remedy in (
        ("manifest_sha256", "other records, of manifest SHA-256",
         "Check --records_dir"),
        ("order", "patches in another order,",
         f"Pass --input={first['input']} {service} --data_service"),
        ("precision", "another precision,",
         f"Pass --precision={first['precision']}"),
    ):  # fmt: skip
        if first[name] != facts[name]:
            path = os.path.join(run_dir, run_folder.ENVIRONMENT)
            advice = f"{remedy}, or pass" if first[name] else "Pass"
            raise ValueError(
                f"{path}: found that the run began with {what}"
                f" {first[name] or 'not told'}, expected {facts[name]}."
                f" {advice} --restart to begin anew."
            )


def _remove_run(run_dir: str) -> None:
    # The flags at last: without them this is no run.
    for name in (*run_folder.OWNED, run_folder.FLAGS):
        path = os.path.join(run_dir, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            files.remove(path)
