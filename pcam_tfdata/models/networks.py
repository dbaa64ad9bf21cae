"""Networks: uint8 patches in, a float32 logit out."""

import functools
from collections.abc import Callable

import keras

from pcam_tfdata.models import (
    applications,
    efficientnet_lite,
    p4m_cnn,
    resnet_small,
    seed_cnn,
    small_cnn,
)

_BUILDERS: dict[str, Callable[[str], keras.Model]] = {
    "resnet_small": resnet_small.build,
    "p4m_cnn": p4m_cnn.build,
    **{
        name: functools.partial(efficientnet_lite.build, name)
        for name in efficientnet_lite.VARIANTS
    },
    **{
        name: functools.partial(applications.build, name)
        for name in applications.APPLICATIONS
    },
}


# Their last features are no map.
_WITHOUT_HEADS = {"seed_cnn": seed_cnn.build, "small_cnn": small_cnn.build}


def build(name: str, head: str = "label") -> keras.Model:
    """Returns a new network, one of `choices.MODELS`, in the global policy.

    Its input is uint8 [B, 96, 96, 3]; its output [B, 1], the log odds of label
    1, in float32 as the weights are (in float64 under that policy). Weights and
    dropout follow from `keras.utils.set_random_seed`.

    Args:
        name: Of the network.
        head: How it ends, see `classifier_head.add_outputs`.

    Raises:
        ValueError: the network has no such head.
    """
    if name not in _WITHOUT_HEADS:
        return _BUILDERS[name](head)
    if head != "label":
        raise ValueError(
            f"--head={head}: found --model={name}, which has none but label."
            " Choose another --model."
        )
    return _WITHOUT_HEADS[name]()
