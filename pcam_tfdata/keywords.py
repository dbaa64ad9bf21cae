"""From the keywords of a Python call to options, checked as flags are.

What values flags take stands in `cli`, of which one command is imported at a time;
a test holds this table against it.
"""

import dataclasses
import difflib
import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pcam_tfdata import choices
from pcam_tfdata.system import nested_options

Options = TypeVar("Options")

_CHOICES: dict[object, Sequence[str]] = {
    "augment": choices.AUGMENTATIONS, "cache": choices.CACHES,
    "check_crc": choices.CRC_CHECKS, "check_ids": ("auto", "always", "never"),
    "head": choices.HEADS, "input": choices.INPUTS, "model": choices.MODELS,
    "on_bad_patch": ("fail", "skip"),
    "on_label_mismatch": ("fail", "warn"), "on_nan": choices.ON_NAN,
    "optimizer": choices.OPTIMIZERS, "precision": choices.PRECISIONS,
    "runner": choices.RUNNERS, "schedule": choices.SCHEDULES,
    "source": choices.SOURCES, "strategy": choices.STRATEGIES,
    ("pcam.train", "strategy"): choices.TRAIN_STRATEGIES,
    "stress": choices.STRESSES, "tta": choices.TTA, "xla": choices.XLA,
}  # fmt: skip
_LEAST = {"data_service_timeout_seconds": 0.1, "shard_megabytes": 0.001} | {
    name: 1
    for name in (
        "batch_size", "epochs", "gradient_accumulation_steps", "num_folds",
        "keep_checkpoints", "shuffle_megabytes", "worker_wait_seconds",
    )
} | {"image_size": 96}  # fmt: skip
_MOST = {
    "ema_decay": 1 - 1e-9, "image_size": 512, "label_smoothing": 0.5,
    "learning_rate": 1e3, "seed": (1 << 32) - 1, "shard_megabytes": 1e6,
    "threshold": 1, "weight_decay": 1,
}  # fmt: skip


def build(
    call: str,
    kind: type[Options],
    given: Mapping[str, Any],
    *,
    only: Collection[str] = (),
    **fixed: Any,
) -> Options:
    """Returns the options of a call, whose name errors tell.

    Keywords are the leaves of `kind`, or `only` some, but for those that are
    `fixed`. A list may be a text with commas.

    Raises:
        TypeError: a keyword is unknown, or its value of another type.
        ValueError: a value is not one that the flag takes.
    """
    leaves = nested_options.list_fields(kind)
    names = sorted(set(only or leaves) - fixed.keys())
    for name in given.keys() - set(names):
        close = difflib.get_close_matches(name, names, 1)
        advice = f" Did you mean {close[0]!r}?" if close else ""
        raise TypeError(
            f"{call}() got an unexpected keyword argument {name!r}.{advice}"
            f" It takes {', '.join(names)}."
        )
    values = {
        # Defaults too: 256 is 256.0 where that is the flag's.
        name: _settle(call, name, given.get(name, leaf.default), leaf.type)
        for name, leaf in leaves.items()
        if name in given or leaf.default is not dataclasses.MISSING
    }
    return nested_options.fill(kind, values | fixed)


def _settle(call: str, name: str, value: Any, kind: Any) -> Any:
    """Returns the value of a keyword as its flag would give it."""
    where = f"{call}({name}={value!r})"
    try:
        if name == "threshold" and isinstance(value, str):
            from pcam_tfdata.evaluation import operating_point  # Slow.

            value = operating_point.parse_threshold(value)
        value = _convert(value, kind)
    except TypeError as error:
        expected = getattr(kind, "__name__", kind)
        raise TypeError(f"{where}: expected {expected}.") from error
    allowed = _CHOICES.get((call, name), _CHOICES.get(name, ()))
    for item in value if isinstance(value, tuple) else [value]:
        if allowed and item not in allowed:
            raise ValueError(f"{where}: expected {', '.join(allowed)}.")
    if isinstance(value, (int, float)):
        least, most = _LEAST.get(name, 0), _MOST.get(name, math.inf)
        if not (least <= value <= most and math.isfinite(value)):
            raise ValueError(
                f"{where}: expected a number from {least} to {most:g}."
            )
    return value


def _convert(value: Any, kind: Any) -> Any:
    """Returns a value in the type that options are annotated with."""
    kinds = typing.get_args(kind) or (kind,)
    is_text = isinstance(value, (str, os.PathLike))
    text = os.path.expanduser(os.fspath(value)) if is_text else ""
    if typing.get_origin(kind) is Sequence:
        return tuple(filter(None, text.split(",") if is_text else value))
    if value is None and types.NoneType in kinds:
        return None
    if is_text and str in kinds:
        return text
    if bool in kinds and value in (False, True):
        return bool(value)
    if int in kinds:
        return int(operator.index(value))
    if float in kinds and isinstance(value, numbers.Real):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError
    return value
