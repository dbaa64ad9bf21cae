"""Files that appear whole or not at all."""

import errno
import os
import pathlib
import stat
import subprocess
import sys

import pytest
from conftest import make_device

from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files, remote


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


def test_redirected_stdout_has_one_position(tmp_path):
    program = (
        "from pcam_tfdata.system import files; print('first', flush=True);"
        "files.write_text('/dev/stdout', 'second\\n'); print('third')"
    )
    with open(tmp_path / "out", "w") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout)
    assert (tmp_path / "out").read_text() == "first\nsecond\nthird\n"


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


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("is_shared", [True, False])
def test_link_is_written_through_whole_or_not_at_all(
    tmp_path, is_there, is_shared
):
    target, link = tmp_path / "data" / "target", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to("data/target")
    if is_there:
        target.write_text("before")
    fail(str(link), ValueError("halfway"), is_shared=is_shared)
    assert os.listdir(target.parent) == ["target"] * is_there
    with files.open_whole(str(link), is_shared=is_shared) as file:
        file.write("after")
    assert os.readlink(link) == "data/target"
    assert target.read_text() == "after"
    assert sorted(os.listdir(tmp_path)) == ["data", "link"]
    assert os.listdir(target.parent) == ["target"]


def test_existing_file_keeps_its_mode(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o640)
    files.write_text(str(path), "after")
    assert path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_text(str(pipe), "a,b\n")
    assert os.read(reader, 100) == b"a,b\n"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_device_is_written_to_and_stays(tmp_path):
    device = make_device(tmp_path / "device", stat.S_IFCHR, 1, 3)
    files.write_text(str(device), "lost")
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert os.listdir(tmp_path) == ["device"]


def test_redirected_file_keeps_what_it_has(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("precious\n")
    program = "from pcam_tfdata.system import files; files.write_text('/dev/stdout', 'a\\n')"
    for _ in range(2):
        with path.open("a") as file:
            subprocess.run(
                [sys.executable, "-c", program], stdout=file, check=True
            )
    assert path.read_text() == "precious\na\na\n"


def test_file_that_is_open_without_a_name_is_written_to(tmp_path):
    path = tmp_path / "file"
    with open(path, "w+") as opened:
        path.unlink()
        files.write_text(f"/proc/self/fd/{opened.fileno()}", "text")
        assert opened.read() == "text"
    assert os.listdir(tmp_path) == []


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
    monkeypatch.setitem(sys.modules, "fsspec", None)  # As if not installed.
    told = r"s3://b/r/manifest.json: .*'pcam_tfdata\[remote"
    with pytest.raises(RuntimeError, match=told):
        records_folder.open_folder("s3://b/r")


class Store:
    """A file system with one file, which it does not give out."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes

    def cat_ranges(self, paths, start, end, on_error) -> list[Exception]:
        return [OSError(errno.EINVAL, "The token has expired")] * len(paths)

    def cat_file(self, path, start, end) -> bytes:
        raise self.cat_ranges([path], start, end, "return")[0]

    def info(self, path) -> dict[str, int]:
        return {"size": self.num_bytes}


@pytest.mark.parametrize("num_bytes", [0, 7])
def test_refusal_of_a_store_is_no_empty_file(monkeypatch, num_bytes):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda scheme: Store)
    monkeypatch.setattr(fsspec.core, "strip_protocol", lambda path: path)
    monkeypatch.setattr(
        fsspec, "url_to_fs", lambda path, **_: (Store(num_bytes), path)
    )
    if not num_bytes:
        assert list(remote.read_many(["s3://b/k"], 10)) == [b""]
        assert remote.read_bytes("s3://b/k", 0, 10) == b""
        return
    with pytest.raises(OSError, match=r"s3://b/k: .*token has expired"):
        list(remote.read_many(["s3://b/k"], 10))
    with pytest.raises(OSError, match=r"s3://b/k: .*token has expired"):
        remote.read_bytes("s3://b/k", 0, 10)


def test_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    left = tmp_path / f"folder{files.INCOMPLETE}"
    left.mkdir()
    (left / "of_a_killed_one").touch()
    with pytest.raises(ValueError, match="early"):
        with files.folder_whole(str(path)) as unfinished:
            pathlib.Path(unfinished, "part").touch()
            raise ValueError("early")
    assert list(tmp_path.iterdir()) == []
    with files.folder_whole(str(path)) as unfinished:
        pathlib.Path(unfinished, "whole").touch()
        assert not path.exists()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "whole"]
