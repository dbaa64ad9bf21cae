"""Thresholds of probabilities that reach a sensitivity or specificity. No I/O."""

import math
import re
from typing import NamedTuple

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics

_WANTED = re.compile(r"(sensitivity|specificity):(.+)")


class Wanted(NamedTuple):
    """What a threshold has to reach.

    Attributes:
        name: `sensitivity` or `specificity`.
        rate: Above 0, at most 1.
    """

    name: str
    rate: float


def parse(text: str) -> float | Wanted:
    """Returns a probability, or what `sensitivity:0.95` means.

    Raises:
        ValueError: the text is neither.
    """
    wanted = _WANTED.fullmatch(text)
    try:
        number = float(wanted[2] if wanted else text)
    except ValueError:
        number = math.nan
    if wanted and 0 < number <= 1:
        return Wanted(wanted[1], number)
    if not wanted and 0 <= number <= 1:
        return number
    raise ValueError(
        f"found {text!r}, expected a probability, sensitivity:RATE or"
        " specificity:RATE, with numbers up to 1."
    )


def choose(wanted: Wanted, label: np.ndarray, probability: np.ndarray) -> float:
    """Returns the threshold at or above which patches are predicted 1.

    The largest one that reaches a sensitivity, the smallest that reaches a
    specificity; equal probabilities are on one side of it.

    Args:
        wanted: What to reach.
        label: int [num_patches], 0 or 1.
        probability: float64 [num_patches].

    Raises:
        ValueError: no patch has the label whose rate is wanted.
    """
    by_sensitivity = wanted.name == "sensitivity"
    own = schema.POSITIVE if by_sensitivity else schema.NEGATIVE
    ordered = np.sort(probability[label == own])
    if not len(ordered):
        raise ValueError(
            f"--threshold={wanted.name}:{wanted.rate:g}: found no validation"
            f" patch of label {own}, expected one. Pass a probability."
        )
    rate = 1 - metrics.max_false_rate(wanted.rate)
    num_right = max(1, math.ceil(rate * len(ordered)))
    if by_sensitivity:
        return float(ordered[-num_right])
    # Just above the last patch that has to be below it.
    return float(np.nextafter(ordered[num_right - 1], np.inf))
