"""Networks: uint8 patches in, a float32 logit out."""

import functools
from collections.abc import Callable

import keras

from pcam_tfdata import choices, schema
from pcam_tfdata.models import (
    applications,
    efficientnet_lite,
    p4m_cnn,
    resnet_small,
    seed_cnn,
    small_cnn,
)

# Their last features are no map.
_PLAIN: dict[str, Callable[[], keras.Model]] = {
    "seed_cnn": seed_cnn.build,
    "small_cnn": small_cnn.build,
}
# Their last maps have places of 16 pixels, which the centre is parted into.
_FOR_PATCHES: dict[str, Callable[[str], keras.Model]] = {
    "resnet_small": resnet_small.build,
    "p4m_cnn": p4m_cnn.build,
}
# They may know ImageNet, whose pictures show things larger than cells.
_FOR_IMAGES: dict[str, Callable[[str, int], keras.Model]] = {
    **{
        name: functools.partial(efficientnet_lite.build, name)
        for name in efficientnet_lite.VARIANTS
    },
    **{
        name: functools.partial(applications.build, name)
        for name in applications.APPLICATIONS
    },
}


def build(
    name: str, head: str = "label", image_size: int = schema.PATCH_SIZE
) -> keras.Model:
    """Returns a new network, one of `choices.MODELS`, in the global policy.

    Its input is uint8 [B, 96, 96, 3]; its output [B, 1], the log odds of label
    1, in float32 as the weights are (in float64 under that policy). Weights and
    dropout follow from `keras.utils.set_random_seed`.

    Args:
        name: Of the network.
        head: How it ends, see `classifier_head.add_outputs`.
        image_size: Pixels of a side that the network enlarges patches to.

    Raises:
        ValueError: the network has no such head, or does not enlarge patches.
    """
    check(name, head, image_size)
    if name in _PLAIN:
        return _PLAIN[name]()
    if name in _FOR_PATCHES:
        return _FOR_PATCHES[name](head)
    return _FOR_IMAGES[name](head, image_size)


def check(name: str, head: str, image_size: int) -> None:
    """Raises a ValueError where `build` does."""
    is_enlarged = image_size != schema.PATCH_SIZE
    if is_enlarged and name not in _FOR_IMAGES:
        raise ValueError(
            f"pcam train --image_size={image_size}: found --model={name}, which"
            " takes patches as they are. Leave that out, or choose"
            f" --model={next(iter(_FOR_IMAGES))}."
        )
    suited = {"label": choices.MODELS, "noisy_or": tuple(_FOR_PATCHES)}
    expected = suited.get(head, (*_FOR_PATCHES, *_FOR_IMAGES))
    if name not in expected:
        raise ValueError(
            f"--head={head}: found --model={name}, whose last map suits none"
            f" such. Choose --model={expected[0]}."
        )
