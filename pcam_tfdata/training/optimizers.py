"""Keras' optimizers, with a schedule, from plain options."""

import dataclasses
from typing import Any

import keras

_KINDS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
# Biases, and what normalises, are not pulled towards 0.
_NOT_DECAYED = ("bias", "gamma", "beta")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How gradients change weights.

    Attributes:
        optimizer: One of `choices.OPTIMIZERS`.
        learning_rate: For the mean of the loss over the whole batch; the
            highest one of a schedule.
        schedule: One of `choices.SCHEDULES`. `cosine` falls to 0 at the last
            step.
        warmup_steps: Steps in which the learning rate rises linearly from 0 to
            `learning_rate`, before the schedule begins (Goyal et al. 2017).
        weight_decay: Share of a weight, times the learning rate, that a step
            takes away (Loshchilov & Hutter 2019); None for the optimizer's own.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.001
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float | None = None


def make_optimizer(
    options: OptimizerOptions, num_steps: int = 1
) -> keras.Optimizer:
    """Returns the optimizer of a run of so many steps; it is not built yet."""
    settings: dict[str, Any] = {}
    if options.weight_decay is not None:
        settings["weight_decay"] = options.weight_decay
    rate = _learning_rate(options, num_steps)
    optimizer = _KINDS[options.optimizer](rate, **settings)
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer


def _learning_rate(
    options: OptimizerOptions, num_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    rate, warmup_steps = options.learning_rate, options.warmup_steps
    schedules = keras.optimizers.schedules
    if options.schedule == "cosine":
        return schedules.CosineDecay(
            0.0 if warmup_steps else rate,
            max(1, num_steps - warmup_steps),
            warmup_target=rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if warmup_steps:
        return schedules.PolynomialDecay(0.0, warmup_steps, rate)
    return rate
