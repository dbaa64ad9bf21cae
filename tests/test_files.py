"""Files that appear whole or not at all."""

import errno
import os

import pytest
import tensorflow as tf

from pcam_tfdata import files, manifest, remote


def fail(path: str, error: Exception, **options) -> Exception:
    with pytest.raises(type(error)) as told, files.open_whole(path, **options):
        raise error
    return told.value


def test_full_disk_names_the_file(tmp_path):
    path = str(tmp_path / "file")
    told = fail(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert told.filename == path


@pytest.mark.parametrize("is_shared", [False, True])
def test_error_that_is_a_text_stays_one(tmp_path, is_shared):
    path = str(tmp_path / "file")
    told = fail(path, OSError("s3://b/k: no."), is_shared=is_shared)
    assert str(told) == "s3://b/k: no."
    assert list(tmp_path.iterdir()) == []


def test_writers_at_the_same_time_do_not_meet(tmp_path):
    path = str(tmp_path / "file")
    with (
        files.open_whole(path, is_shared=True) as first,
        files.open_whole(path, is_shared=True) as second,
    ):
        first.write("a" * 10)
        second.write("a" * 10)
    with open(path) as file:
        assert file.read() == "a" * 10
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/records//", "s3://bucket/records"),
        ("gs://bucket/", "gs://bucket"),
        ("gs://", "gs://"),
    ],
)
def test_remote_paths_end_without_a_slash(path, expected):
    assert files.resolve(path) == expected


def test_missing_package_of_a_store_is_named(monkeypatch):
    monkeypatch.setattr(remote, "knows", lambda scheme: False)
    with pytest.raises(RuntimeError, match=r"s3://b/r: .*'pcam_tfdata\[remote"):
        manifest.read("s3://b/r")
    files.require("gs://b/r")  # TensorFlow opens it.


def test_scheme_that_a_package_adds_to_tensorflow_is_known(monkeypatch):
    monkeypatch.setattr(remote, "knows", lambda scheme: False)
    monkeypatch.setattr(
        tf.io.gfile, "get_registered_schemes", lambda: ["", "s3"]
    )
    files.require("s3://b/r")


class Store:
    """A file system with one file, which it does not give out."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes

    def _strip_protocol(self, path: str) -> str:
        return path

    def cat_ranges(self, paths, start, end, on_error) -> list[Exception]:
        return [OSError(errno.EINVAL, "The token has expired")] * len(paths)

    def cat_file(self, path, start, end) -> bytes:
        raise self.cat_ranges([path], start, end, "return")[0]

    def info(self, path) -> dict[str, int]:
        return {"size": self.num_bytes}


@pytest.mark.parametrize("num_bytes", [0, 7])
def test_refusal_of_a_store_is_no_empty_file(monkeypatch, num_bytes):
    monkeypatch.setattr(
        remote, "_open_system", lambda path: (Store(num_bytes), path)
    )
    if not num_bytes:
        assert list(remote.read_many(["s3://b/k"], 10)) == [b""]
        assert remote.read_bytes("s3://b/k", 0, 10) == b""
        return
    with pytest.raises(OSError, match=r"s3://b/k: .*token has expired"):
        list(remote.read_many(["s3://b/k"], 10))
    with pytest.raises(OSError, match=r"s3://b/k: .*token has expired"):
        remote.read_bytes("s3://b/k", 0, 10)
