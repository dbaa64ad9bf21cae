"""Tensors of files that torch.save wrote before torch 1.6, read without torch.

Such a file is five pickles and then values: a magic number, a version, facts of
the machine, the state dict, whose tensors name their storages, and the keys of
the storages. For each key follow its number of values, int64, and the values
(`_legacy_save` in torch/serialization.py).
"""

import collections
import io
import pickle
import pickletools
from typing import Any, NamedTuple

import numpy as np

from pcam_tfdata.system import faults, files

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2",
    "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    num_values: int


class _Tensor(NamedTuple):
    """A tensor without values; the fields are torch's, in its order."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: object
    metadata: object = None


def read_tensors(path: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict, by name.

    They are views of the file's bytes, which cannot be written. Nothing that
    the file names is imported or called, but for an ordered dictionary.

    Raises:
        ValueError: the file is damaged, or has something else than tensors.
    """
    with files.open_file(path, "rb") as file:
        data = file.read()
    try:
        return _parse(data)
    except Exception as error:  # A pickle raises anything on bad bytes.
        reason = faults.one_line(error, 200) or type(error).__name__
        raise ValueError(
            f"{path}: found no tensors ({reason}), expected a state dict that"
            " torch saved before 1.6. Get the file again."
        ) from error


def _parse(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _load(stream) != _MAGIC or _load(stream) != _PROTOCOL:
        raise ValueError("another magic number or version")
    if not _load(stream)["little_endian"]:
        raise ValueError("values with the highest byte first")
    state, keys = _load(stream), _load(stream)
    if not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise ValueError("something else than tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    values = {key: _read_values(stream, storages[key]) for key in keys}
    if stream.read(1):
        raise ValueError("bytes behind the last storage")
    return {
        name: _view(tensor, values[tensor.storage.key])
        for name, tensor in state.items()
    }


def _load(stream: io.BytesIO) -> Any:
    """Returns the next object of a stream of pickles."""
    start = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        # The memo has room up to the largest index, and so for no more than
        # could have been stored.
        if opcode.name.endswith("PUT") and (argument or 0) > stream.tell():
            raise ValueError(f"{opcode.name} {argument}")
    stream.seek(start)
    return _Unpickler(stream).load()


class _Unpickler(pickle.Unpickler):
    """Makes tensors without values, and nothing else that has a class."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise ValueError(f"the class {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, num_values, view = pid
        if kind != "storage" or view is not None:
            raise ValueError(f"the persistent id {kind!r}, or a storage's view")
        return _Storage(key, dtype, num_values)


def _read_values(stream: io.BytesIO, storage: _Storage) -> np.ndarray:
    num_values = int.from_bytes(stream.read(8), "little", signed=True)
    if num_values != storage.num_values or num_values < 0:
        raise ValueError(f"a storage of {num_values} values")
    data = stream.read(num_values * storage.dtype.itemsize)
    return np.frombuffer(data, storage.dtype, num_values)


def _view(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """Returns a tensor of the values of its storage.

    Raises:
        ValueError: it reaches beyond its storage.
    """
    steps = [
        (size - 1) * stride
        for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    ]
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or (
        0 not in tensor.shape and tensor.offset + sum(steps) >= len(values)
    ):
        raise ValueError(f"a tensor beyond its {len(values)} values")
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :],
        tensor.shape,
        [stride * values.itemsize for stride in tensor.strides],
        writeable=False,
    )
