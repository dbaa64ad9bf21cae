"""PatchCamelyon patches to a trained classifier on TensorFlow.

`import pcam_tfdata as pcam` brings what `interface` defines, once it is asked for.
"""

import importlib
import typing

__version__ = "0.1.0"
__all__ = (
    "Records", "Run", "convert", "load_run", "open_records", "train",
)  # fmt: skip

if typing.TYPE_CHECKING:
    from pcam_tfdata.interface import (
        Records,
        Run,
        convert,
        load_run,
        open_records,
        train,
    )
else:  # Else any name would pass for one of an unknown type.

    def __getattr__(name: str) -> object:
        if name in __all__:
            module = importlib.import_module(f"{__name__}.interface")
            return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
