"""Networks: uint8 patches in, a float32 logit out."""

import functools
from collections.abc import Callable

import keras

from pcam_tfdata.models import (
    applications,
    efficientnet_lite,
    seed_cnn,
    small_cnn,
)

_BUILDERS: dict[str, Callable[[], keras.Model]] = {
    "seed_cnn": seed_cnn.build,
    "small_cnn": small_cnn.build,
    **{
        name: functools.partial(efficientnet_lite.build, name)
        for name in efficientnet_lite.VARIANTS
    },
    **{
        name: functools.partial(applications.build, name)
        for name in applications.APPLICATIONS
    },
}


def build(name: str) -> keras.Model:
    """Returns a new network, one of `choices.MODELS`, in the global policy.

    Its input is uint8 [B, 96, 96, 3]; its output, of a layer called `logit`, is
    [B, 1], the log odds of label 1, in float32 as the weights are (in float64
    under that policy). Weights and dropout follow from
    `keras.utils.set_random_seed`.
    """
    return _BUILDERS[name]()
