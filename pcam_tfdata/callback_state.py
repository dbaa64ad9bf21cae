"""What callbacks of Keras remember, as a checkpoint can hold it."""

from collections.abc import Sequence

import keras
import numpy as np

_PLAIN = (bool, int, float, str, type(None))


def get(
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[dict[str, object]]:
    """Returns the plain attributes of each, such as `wait` and `best`.

    Only numbers, texts and None: whatever else a callback holds, a resumed run
    makes anew.
    """
    return [
        {"class": type(callback).__name__} | _plain_attributes(callback)
        for callback in callbacks
    ]


def set(
    callbacks: Sequence[keras.callbacks.Callback],
    states: Sequence[dict[str, object]],
) -> None:
    """Gives callbacks their attributes back, those of the same class and place."""
    for callback, state in zip(callbacks, states, strict=False):
        if state["class"] == type(callback).__name__:
            for name in state.keys() - {"class"}:
                setattr(callback, name, state[name])


def _plain_attributes(callback: keras.callbacks.Callback) -> dict[str, object]:
    found = {}
    for name, value in vars(callback).items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, _PLAIN) and not name.startswith("_"):
            found[name] = value
    return found
