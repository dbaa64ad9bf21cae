"""PatchCamelyon patches to a trained classifier on TensorFlow.

`import pcam_tfdata as pcam` brings what `interface` defines, once it is asked for.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from pcam_tfdata.interface import (
        Records,
        Run,
        convert,
        load_run,
        open_records,
        train,
    )

__version__ = "0.1.0"
__all__ = (
    "Records", "Run", "convert", "load_run", "open_records", "train",
)  # fmt: skip


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.interface"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
