"""What callbacks of Keras remember, as a checkpoint can hold it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

_PLAIN = (bool, int, float, str, type(None))
_CLASS = "class"


class CallbackState:
    """The plain attributes of callbacks, such as `wait` and `best`.

    Only numbers, texts and None, and only those that change after this is made:
    the rest is how the callbacks were made, which may differ when the run is
    resumed. Whatever else a callback holds, a resumed run makes anew.

    Args:
        callbacks: Callbacks that have heard of the beginning of the training,
            which makes them forget everything.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self._callbacks = callbacks
        self._initial = list(map(_plain_attributes, callbacks))

    def list_changed(self) -> list[dict[str, Any]]:
        """Returns class and changed attributes of each callback."""
        changed = []
        for callback, initial in zip(
            self._callbacks, self._initial, strict=True
        ):
            attributes = {_CLASS: type(callback).__name__}
            for name, value in _plain_attributes(callback).items():
                if name not in initial or initial[name] != value:
                    attributes[name] = value
            changed.append(attributes)
        return changed

    def restore(self, changed: Sequence[dict[str, Any]]) -> None:
        """Gives callbacks of the same class and index their attributes back."""
        for callback, attributes in zip(self._callbacks, changed, strict=False):
            if attributes[_CLASS] == type(callback).__name__:
                for name in attributes.keys() - {_CLASS}:
                    setattr(callback, name, attributes[name])


def _plain_attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    attributes = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in vars(callback).items()
        if not name.startswith("_")
    }
    return {n: v for n, v in attributes.items() if isinstance(v, _PLAIN)}
