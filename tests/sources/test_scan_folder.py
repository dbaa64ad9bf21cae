"""Folders of image files: listed once, whatever is in them."""

import os
import pathlib
import random

import conftest
import numpy as np
import pytest

from pcam_tfdata.sources import scan_folder

HASH = "0123456789abcdef0123456789abcdef01234567"


def fill(folder: pathlib.Path, *files: str | bytes) -> pathlib.Path:
    """Makes empty files, and the folders that they are in."""
    for file in files:
        path = os.path.join(os.fsencode(folder), os.fsencode(file))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x"):
            pass
    return folder


def listed(
    folder: pathlib.Path, *, follow_symlinks: bool = False
) -> scan_folder.FolderListing:
    return scan_folder.list_files(str(folder), follow_symlinks)


def texts(column: np.ndarray) -> list[str]:
    return [name.decode() for name in column]


def reasons(found: scan_folder.FolderListing) -> list[str]:
    return [fault.reason for fault in found.faults]


def test_files_are_sorted_and_named_without_their_suffix(tmp_path):
    folder = fill(tmp_path, "b.tif", "a.b.png", "ü", "a-.tif", ".hidden.tif")
    found = listed(folder)
    assert texts(found.images.files) == ["a-.tif", "a.b.png", "b.tif", "ü"]
    assert texts(found.names) == ["a-", "a.b", "b", "ü"]
    assert found.images.locate(2) == str(tmp_path / "b.tif")
    assert found.faults == []
    assert (found.images.files.dtype, len(found.bad_names)) == ("S7", 0)


def test_empty_folder_has_no_files(tmp_path):
    found = listed(tmp_path)
    assert (len(found.images), len(found.names), found.faults) == (0, 0, [])


def test_hash_in_capitals_is_the_same_name(tmp_path):
    found = listed(fill(tmp_path, f"{HASH.upper()}.tif", "A.tif", "a.tif"))
    assert texts(found.names) == [HASH, "A", "a"]
    assert found.images.locate(0) == str(tmp_path / f"{HASH.upper()}.tif")
    assert found.faults == []


def test_second_file_of_a_name_is_a_fault(tmp_path):
    fill(tmp_path, "a.tif", "a.png", "a-b.tif", f"{HASH}.tif")
    found = listed(fill(tmp_path, f"{HASH.upper()}.tif", "a.jpg"))
    assert texts(found.images.files) == [
        f"{HASH.upper()}.tif",
        "a-b.tif",
        "a.jpg",
    ]
    assert [fault.name for fault in found.faults] == [HASH, "a", "a"]
    assert reasons(found)[1] == (
        f"{tmp_path}/a.png: found a second file for a, expected only"
        f" {tmp_path}/a.jpg. Remove one."
    )


def test_names_that_differ_by_a_second_suffix_are_two(tmp_path):
    for name in ("z.png", "z.tif.png"):
        (tmp_path / name).touch()
    found = listed(tmp_path)
    assert texts(found.names) == ["z", "z.tif"]
    assert not reasons(found)


def test_folders_are_faults(tmp_path):
    fill(tmp_path, "a.tif", "x/a.tif", "x/y.z/b", "x/.git/c", ".d/e")
    found = listed(tmp_path)
    assert texts(found.images.files) == ["a.tif"]
    (reason,) = reasons(found)
    assert reason.startswith(f"{tmp_path}/x: found a folder, a link or")


@pytest.fixture
def linked(tmp_path) -> pathlib.Path:
    """A folder with links to a file and a folder outside of it."""
    fill(tmp_path, "outside/o.tif", "tree/a.tif")
    tree = tmp_path / "tree"
    (tree / "file.tif").symlink_to(tmp_path / "outside" / "o.tif")
    (tree / "folder").symlink_to("../outside")
    return tree


def test_links_are_never_followed_unasked(linked):
    found = listed(linked)
    assert texts(found.images.files) == ["a.tif"]
    assert texts(found.bad_names) == ["file", "folder"]
    for reason, name in zip(
        reasons(found), ("file.tif", "folder"), strict=True
    ):
        assert reason.startswith(f"{linked}/{name}: found a folder, a link or")
        assert "--follow_symlinks" in reason


def test_links_are_followed_if_so_told(linked):
    found = listed(linked, follow_symlinks=True)
    assert texts(found.images.files) == ["a.tif", "file.tif"]
    assert f"{linked}/folder: found a folder, a link" in reasons(found)[0]


def test_the_folder_itself_may_be_a_link(linked):
    found = listed(linked / "folder")
    assert texts(found.images.files) == ["o.tif"]


def test_what_is_no_file_is_a_fault(tmp_path):
    fill(tmp_path, "a.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "null.tif").symlink_to("/dev/null")
    (tmp_path / "gone.tif").symlink_to("nowhere")
    found = listed(tmp_path, follow_symlinks=True)
    assert texts(found.images.files) == ["a.tif"]
    assert texts(found.bad_names) == ["gone", "null", "pipe"]
    told = reasons(found)
    for name, reason in zip(("gone", "null", "pipe"), told, strict=True):
        assert f"{name}.tif: found a folder, a link or" in reason


def test_loops_of_links_are_faults(tmp_path):
    fill(tmp_path, "f.tif")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "l.tif").symlink_to("l.tif")
    found = listed(tmp_path, follow_symlinks=True)
    assert texts(found.images.files) == ["f.tif"]
    assert len(reasons(found)) == 2


def test_names_that_do_not_print_are_faults_of_one_line(tmp_path):
    fill(tmp_path, "ok.tif", b"caf\xe9.tif", "a\nb.tif", "c\\d.tif", "\x1b.tif")
    fill(tmp_path, b"f\xff/x.tif")
    found = listed(tmp_path)
    assert texts(found.images.files) == ["ok.tif"]
    names = [fault.name for fault in found.faults]
    assert names == ["\\x1b", "a\\nb", "c\\d", "caf\\udce9", "f\\udcff"]
    for reason in reasons(found):
        assert reason.isprintable()
        assert ": found a name that is no UTF-8, does not print" in reason


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: cannot be listed"):
        listed(tmp_path / "none")
    fill(tmp_path, "file")
    with pytest.raises(NotADirectoryError, match="file: cannot be listed"):
        listed(tmp_path / "file")


def test_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    expected = rf"{tmp_path}: cannot be listed \(Permission denied\)"
    with pytest.raises(PermissionError, match=expected):
        listed(tmp_path)


class Entries:
    """What os.scandir returns, in another order."""

    def __init__(self, path: str, seed: int) -> None:
        with self._scan(path) as entries:
            self._entries = list(entries)
        random.Random(seed).shuffle(self._entries)

    _scan = staticmethod(os.scandir)

    def __iter__(self):
        return iter(self._entries)

    def __enter__(self):
        return iter(self._entries)

    def __exit__(self, *_: object) -> None:
        pass


def test_order_of_the_file_system_changes_nothing(tmp_path, monkeypatch):
    for number in range(30):
        fill(tmp_path, f"{number}.tif", f"x{number}/f")
        (tmp_path / f"l{number}").symlink_to(f"x{number % 5}")
    fill(tmp_path, *(f"{number}.png" for number in range(7)))
    found = []
    for seed in range(5):
        monkeypatch.setattr(
            os, "scandir", lambda path, seed=seed: Entries(path, seed)
        )
        found.append(listed(tmp_path, follow_symlinks=True))
    for other in found[1:]:
        assert texts(other.images.files) == texts(found[0].images.files)
        assert reasons(other) == reasons(found[0])
    assert len(found[0].images) == 30
    assert len(found[0].faults) == 67


def test_a_folder_is_listed_once_and_no_file_is_asked_for(
    tmp_path, monkeypatch
):
    fill(tmp_path, *(f"{number}.tif" for number in range(50)))
    scans = []
    scan = os.scandir
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda p: scans.append(p) or scan(p))
        for name in ("stat", "lstat", "open", "listdir"):
            patch.setattr(os, name, None)
        found = listed(tmp_path)
    assert len(found.images) == 50
    assert scans == [str(tmp_path)]


LIST_AND_MEASURE = """
import resource, sys
from pcam_tfdata.sources import scan_folder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = scan_folder.list_files(sys.argv[1], False)
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(found.images), len(found.faults), more // 1024)
"""


@pytest.mark.long
def test_list_of_a_folder_of_kaggles_size_fits_into_memory(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(220_025):
        os.close(os.open(tmp_path / f"{rng.bytes(20).hex()}.tif", os.O_CREAT))
    num_files, num_faults, megabytes = conftest.measure_alone(
        LIST_AND_MEASURE, tmp_path
    )
    assert (num_files, num_faults) == ("220025", "0")
    assert float(megabytes) < 150
