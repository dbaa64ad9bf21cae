"""The flags of all commands as data, held against what `--help` says of them."""

import collections
import os
import re
import subprocess
import sys

import loaded
import pytest

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_tables, main

# Of flags that are text, those that name no file.
NO_PATHS = {
    *("beam_options", "class_folders", "class_weights", "columns"),
    *("data_service", "dispatcher", "folds", "ids", "shard_range", "sort_by"),
    *("split", "splits", "stress", "threshold", "train_splits"),
    *("validation_splits", "worker_address"),
}


@pytest.fixture(scope="module")
def commands() -> dict[str, flag_tables.Command]:
    return {found.name: found for found in flag_tables.read_commands()}


def run_module(tmp_path, **env: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", flag_tables.__name__],
        cwd=tmp_path, env=os.environ | env, check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("name", main.COMMANDS)
def test_flags_are_those_of_the_help(commands, name):
    told = loaded.run(name, "--help").stdout
    expected = re.findall(r"^  --(?:\[no\])?(\w+): ", told, re.M)
    found = [flag.name for flag in commands[name].flags]
    assert sorted(found) == sorted(expected)
    assert commands[name].text in told
    required = re.findall(r" --(\w+)=\.\.\.", told.splitlines()[0])
    assert {f.name for f in commands[name].flags if f.is_required} == set(
        required
    )


def test_commands_come_in_the_order_of_the_help(commands):
    assert list(commands) == list(main.COMMANDS)


def test_flag_has_all_that_is_known_of_it(commands):
    found = {flag.name: flag for flag in commands["train"].flags}
    model = found["model"]
    assert (model.choices, model.default) == (choices.MODELS, "resnet_small")
    assert model.help == "Network."
    assert (found["model"].takes, found["restart"].takes) == (
        "choice",
        "switch",
    )
    assert found["validation_splits"].default == "fold0"
    assert found["weight_decay"].default is None
    assert found["batch_size"].takes == "a positive integer"


def test_flags_of_one_name_are_those_of_their_command(commands):
    defaults = {
        name: flag.default
        for name in ("train", "predict", "benchmark")
        for flag in commands[name].flags
        if flag.name == "batch_size"
    }
    assert defaults == {"train": "1024", "predict": "512", "benchmark": "512"}


def test_path_or_not_is_decided_for_each_flag(commands):
    """A new flag that takes text belongs to `NO_PATHS`, or is named as a path."""
    found = collections.defaultdict(set)
    for command in commands.values():
        for flag in command.flags:
            found[flag.takes].add(flag.name)
    assert found["text"] | found["texts"] <= NO_PATHS
    assert not (found["file"] | found["folder"] | found["folders"]) & NO_PATHS
    assert {"output_csv", "weights", "flagfile", "output"} <= found["file"]
    assert {"records_dirs", "run_dir"} <= found["folders"]
    assert "files" not in found, "no script completes them"


def test_page_has_a_table_for_each_command(commands):
    page = flag_tables.to_markdown(list(commands.values()))
    assert re.findall(r"^## pcam (\w+)$", page, re.M) == list(main.COMMANDS)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    num_flags = sum(len(command.flags) for command in commands.values())
    assert len(rows) == num_flags + 2 * len(commands)
    assert "| `--records_dir` | folder | required | Records folder. |" in page
    prose = re.sub(r"`[^`]*`", "", page)
    assert not re.search(r"--\w|(?<!\\)[<*]", prose), "it would be typeset"


@pytest.mark.long
def test_page_depends_neither_on_the_machine_nor_on_tensorflow(tmp_path):
    first = run_module(tmp_path)
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    second = run_module(
        "/", PYTHONPATH=path, HOME=str(tmp_path), TMPDIR=str(tmp_path),
        COLUMNS="40", PYTHONHASHSEED="1", LC_ALL="C", TZ="Asia/Tokyo",
    )  # fmt: skip
    assert first == second
