"""Files of torch are read without torch, and nothing in them is run."""

import collections
import io
import pickle
import random
import sys
import types

import numpy as np
import pytest
import searches

from pcam_tfdata.models import torch_file

DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2",
    "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
FACTS = {"protocol_version": 1001, "little_endian": True}
MAGIC = 0x1950A86A20F9469CFC6C


class Global:
    """Pickled as a name of torch."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name

    def __reduce__(self) -> str:
        return self.__qualname__

    def __call__(self) -> None:
        raise AssertionError


class Pickled:
    """A tensor: `_rebuild_tensor_v2` of these arguments."""

    def __init__(self, *arguments) -> None:
        self.arguments = arguments

    def __reduce__(self):
        hooks = collections.OrderedDict()
        return REBUILD, (*self.arguments, False, hooks)


class Storage(tuple):
    """Pickled by its persistent id."""


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return tuple(obj) if isinstance(obj, Storage) else None


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
TYPES = {name: Global("torch", name) for name in DTYPES}


@pytest.fixture
def dump(monkeypatch):
    """Returns the pickle of an object, while there is a torch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name, kind in TYPES.items():
        setattr(torch, name, kind)
    utils._rebuild_tensor_v2 = REBUILD

    def dump(content) -> bytes:
        file = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch", torch)
            patch.setitem(sys.modules, "torch._utils", utils)
            Pickler(file, protocol=2).dump(content)
        return file.getvalue()

    return dump


def storage(key, num_values, kind="FloatStorage", view=None) -> Storage:
    return Storage(("storage", TYPES[kind], key, "cpu", num_values, view))


def pack(values: np.ndarray) -> bytes:
    return len(values).to_bytes(8, "little") + values.tobytes()


def write_file(dump, state, keys, *values, magic=MAGIC, facts=FACTS) -> bytes:
    pickles = [dump(part) for part in (magic, 1001, facts, state, keys)]
    return b"".join([*pickles, *map(pack, values)])


def one_tensor(dump, shape=(2, 3), strides=(3, 1), offset=0, **options):
    """Returns the file of a tensor of [0, 1, 2, 3, 4, 5]."""
    tensor = Pickled(storage("7", 6), offset, shape, strides)
    values = np.arange(6, dtype="<f4")
    return write_file(dump, {"a": tensor}, ["7"], values, **options)


def read(tmp_path, data: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    return torch_file.read_tensors(str(path))


@pytest.mark.parametrize(("kind", "dtype"), DTYPES.items())
def test_values_of_each_type_are_read(dump, tmp_path, kind, dtype):
    values = np.arange(6).astype(dtype)
    state = collections.OrderedDict(
        a=Pickled(storage("7", 6, kind), 0, (2, 3), (3, 1)),
        empty=Pickled(storage("8", 0, kind), 0, (0, 4), (4, 1)),
    )
    found = read(
        tmp_path, write_file(dump, state, ["8", "7"], values[:0], values)
    )
    np.testing.assert_array_equal(found["a"], values.reshape(2, 3))
    assert found["a"].dtype == dtype
    assert found["empty"].shape == (0, 4)


def test_views_of_a_storage_are_read(dump, tmp_path):
    values = np.arange(24, dtype="<f4")
    whole = values.reshape(2, 3, 4)
    views = {
        "whole": whole,
        "transposed": whole.transpose(2, 0, 1),
        "part": whole[1:, ::2, 1],
        "one": whole[1, 2, 3, ...],
        "repeated": np.broadcast_to(whole[0, 0], (5, 4)),
    }
    start = values.__array_interface__["data"][0]
    state = {
        name: Pickled(
            storage("0", 24),
            (view.__array_interface__["data"][0] - start) // 4,
            view.shape,
            tuple(stride // 4 for stride in view.strides),
        )
        for name, view in views.items()
    }
    found = read(tmp_path, write_file(dump, state, ["0"], values))
    assert found.keys() == views.keys()
    for name, view in views.items():
        np.testing.assert_array_equal(found[name], view, strict=True)


def hostile(dump) -> bytes:
    """A state dict that would end the process."""
    pickles = [dump(part) for part in (MAGIC, 1001, FACTS)]
    return b"".join([*pickles, b"cos\n_exit\n(K\x01tR."])


def greedy(dump) -> bytes:
    """A pickle that has its value remembered as the one of number 2^32 - 1."""
    return b"\x80\x02K\x01r\xff\xff\xff\xff."


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda dump: b"", "exhausted"),
        (lambda dump: b"PK\x03\x04" + bytes(60), "newline"),
        (hostile, "the class os._exit"),
        (greedy, "LONG_BINPUT 4294967295"),
        (lambda dump: one_tensor(dump, magic=1), "another magic number"),
        (
            lambda dump: one_tensor(dump, facts={"little_endian": False}),
            "highest byte first",
        ),
        (lambda dump: one_tensor(dump)[:-1], "buffer"),
        (lambda dump: one_tensor(dump) + b"\0", "bytes behind"),
        (lambda dump: one_tensor(dump, (2, 4), (3, 1)), "beyond its 6 values"),
        (lambda dump: one_tensor(dump, offset=1), "beyond its 6 values"),
        (lambda dump: one_tensor(dump, offset=-1), "beyond its 6 values"),
        (lambda dump: one_tensor(dump, strides=(-3, 1)), "beyond its 6 values"),
        (lambda dump: one_tensor(dump, strides=(1,)), "shorter"),
        (
            lambda dump: write_file(dump, {"a": 1}, []),
            "something else than tensors",
        ),
        (
            lambda dump: write_file(
                dump,
                {"a": Pickled(storage("7", 6), 0, (6,), (1,))},
                ["7"],
                np.arange(5, dtype="<f4"),
            ),
            "a storage of 5 values",
        ),
        (
            lambda dump: write_file(
                dump,
                {"a": Pickled(storage("7", 6, view=("8", 0, 3)), 0, (), ())},
                ["7"],
            ),
            "a storage's view",
        ),
    ],
    ids=[
        "empty", "zip", "another class", "memory", "magic number", "byte order",
        "cut", "longer", "shape", "offset", "negative offset",
        "negative stride", "strides", "number", "count", "view",
    ],
)  # fmt: skip
def test_another_file_is_refused(dump, tmp_path, make, reason):
    told = rf"file.pth: found no tensors \(.*{reason}.*\), expected a state"
    with pytest.raises(ValueError, match=told) as error:
        read(tmp_path, make(dump))
    assert "\n" not in str(error.value)


def test_damage_is_told_in_one_line_or_leaves_tensors(dump, tmp_path):
    whole = one_tensor(dump)

    def draw(numbers: random.Random) -> bytes:
        data = bytearray(whole)
        for _ in range(numbers.randint(1, 3)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        return bytes(data[: numbers.randint(0, 2 * len(data))])

    num_refused = 0

    def check(data: bytes) -> None:
        nonlocal num_refused
        try:
            for tensor in read(tmp_path, data).values():
                assert isinstance(tensor, np.ndarray)
        except ValueError as error:
            num_refused += 1
            assert "\n" not in str(error)

    searches.hold(check, draw, range(1000))
    assert 500 < num_refused < 1000
