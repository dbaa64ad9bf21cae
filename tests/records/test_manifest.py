"""A manifest is believed by everything after it, so nonsense in it is refused."""

import copy
import json
import pathlib
from collections.abc import Iterator

import pytest

from pcam_tfdata.records import manifest, records_folder


@pytest.fixture(scope="module")
def content(records_dir) -> dict:
    path = pathlib.Path(records_dir, manifest.MANIFEST_FILE)
    return json.loads(path.read_text())


def list_places(node: object, place: tuple = ()) -> Iterator[tuple]:
    """Yields the keys and indices that lead to each value within a tree."""
    keys = ()
    if isinstance(node, dict):
        keys = node
    elif isinstance(node, list):
        keys = range(len(node))
    for key in keys:
        yield (*place, key)
        yield from list_places(node[key], (*place, key))


def find(content: dict, way: list) -> object:
    for key in way:
        content = content[key]
    return content


def refuse(folder: pathlib.Path, content: object) -> None:
    (folder / manifest.MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"manifest\.json: found"):
        records_folder.open_folder(str(folder))


@pytest.mark.parametrize(
    "value", [None, True, -1, 10**30, 1.5, "x", [], {}], ids=repr
)
def test_values_of_another_type_are_refused(content, tmp_path, value):
    num_tried = 0
    for *way, last in list_places(content):
        changed = copy.deepcopy(content)
        node = find(changed, way)
        is_alike = type(node[last]) is type(value) or node[last] == value
        if way != ["options"] and not is_alike:
            node[last] = value
            refuse(tmp_path, changed)
            num_tried += 1
    assert num_tried > 100


def test_missing_values_are_refused(content, tmp_path):
    tables = (["options"], ["versions"], ["file_sha256"], ["splits"])
    for *way, last in list_places(content):
        if way not in tables:
            changed = copy.deepcopy(content)
            del find(changed, way)[last]
            refuse(tmp_path, changed)


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (["splits", 0, "shards", 0, "name"], "../pcam-fold0.tfrecord"),
        (["splits", 0, "shards", 0, "name"], ""),
        (["splits", 0, "layout", "record_bytes"], 0),
        (["splits", 0, "class_counts", "0"], 0),
        (["splits", 0, "channel_mean", 0], 256),
        (["splits", 1, "name"], "fold0"),
    ],
    ids=["path", "no name", "layout", "sum", "pixel", "twice"],
)
def test_impossible_values_are_refused(content, tmp_path, way, value):
    changed = copy.deepcopy(content)
    *way, last = way
    node = find(changed, way)
    assert type(node[last]) in (type(value), float)
    node[last] = value
    refuse(tmp_path, changed)
