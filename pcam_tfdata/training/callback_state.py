"""What callbacks of Keras remember, as a checkpoint can hold it."""

from collections.abc import Sequence

import keras
import numpy as np

_PLAIN = (bool, int, float, str, type(None))


def get(
    callbacks: Sequence[keras.callbacks.Callback],
    fresh: Sequence[dict[str, object]] | None = None,
) -> list[dict[str, object]]:
    """Returns the plain attributes of each, such as `wait` and `best`.

    Only numbers, texts and None: whatever else a callback holds, a resumed run
    makes anew.

    Args:
        callbacks: Whose.
        fresh: What this gave when they began. Only what has changed since is
            returned then: the rest is how they were made, which may differ when
            the run is resumed.
    """
    found = [_plain_attributes(callback) for callback in callbacks]
    if fresh is not None:
        found = [
            {n: v for n, v in now.items() if n not in then or then[n] != v}
            for now, then in zip(found, fresh, strict=True)
        ]
    return [
        {"class": type(callback).__name__} | attributes
        for callback, attributes in zip(callbacks, found, strict=True)
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
