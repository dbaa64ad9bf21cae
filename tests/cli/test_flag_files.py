"""Files of flags are found in the current folder, then among the package's."""

import os
import pathlib
import re

import loaded
import pytest
from absl import flags

from pcam_tfdata.cli import flag_files

ROOT = pathlib.Path(__file__).parents[2]
DEMO = "configs/demo.flags"


def locate(*arguments: str) -> list[str]:
    return list(flag_files.locate(arguments))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [[f"--flagfile={DEMO}"], ["--flagfile", DEMO]],
    ids=["one word", "two words"],
)
def test_files_of_the_package_are_found_from_any_folder(arguments):
    before, found, after = locate("--seed=1", *arguments, "--epochs=2")
    assert (before, after) == ("--seed=1", "--epochs=2")
    path = pathlib.Path(found.removeprefix("--flagfile="))
    assert path.read_text() == (ROOT / DEMO).read_text()


def test_file_in_the_current_folder_comes_first(empty_folder):
    (empty_folder / "configs").mkdir()
    (empty_folder / DEMO).write_text("--epochs=1\n")
    assert locate(f"--flagfile={DEMO}") == [f"--flagfile={DEMO}"]


def test_home_folder_is_known(empty_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(empty_folder))
    (empty_folder / "my.flags").write_text("")
    assert locate("--flagfile=~/my.flags") == ["--flagfile=~/my.flags"]


@pytest.mark.parametrize("name", ["configs/no_such.flags", "demo.flags", ""])
def test_unknown_file_is_refused_with_those_there_are(name):
    with pytest.raises(flags.Error) as refused:
        locate(f"--flagfile={name}")
    told = str(refused.value)
    assert told.startswith(f"--flagfile={name}: found no such file")
    known = sorted(p.name for p in (ROOT / "configs").glob("*.flags"))
    assert re.findall(r"configs/(\w+\.flags)[,.]", told.split("expected")[1]) \
        == known  # fmt: skip


def test_commands_read_the_flags_of_the_package():
    assert os.listdir() == []
    result = loaded.run("verify", f"--flagfile={DEMO}", "--records_dir=none")
    assert "Unknown command line flag 'model'" in result.stderr
