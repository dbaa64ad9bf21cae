"""README.md and docs/: what they say can be run, and their links lead somewhere."""

import importlib.util
import pathlib
import re

import conftest
import numpy as np
import pandas as pd
import pytest

from pcam_tfdata import schema

ROOT = conftest.ROOT
TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LINK = re.compile(r"\]\(([^)]*)\)")
# Indented code, which the tool would not see.
UNFENCED = re.compile(r"\n\n    (?:\$ )?(?:make|pcam|pip|python3?|sbatch) .*")


def load(name: str):
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "tools" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run_docs, draw_diagrams = load("run_docs"), load("draw_diagrams")


def write_page(folder: pathlib.Path, text: str) -> pathlib.Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_have_a_target(path):
    for target in LINK.findall(path.read_text()):
        if "://" in target:
            assert re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/[^\s]*)?", target)
        elif not target.startswith("#"):
            assert (path.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_is_in_a_fence(path):
    assert not UNFENCED.findall(path.read_text())


def test_every_diagram_is_drawn_as_it_is_now():
    diagrams = draw_diagrams.list_diagrams()
    assert diagrams
    assert {draw_diagrams.find_image(source) for source in diagrams} == set(
        draw_diagrams.DOCS.glob("images/diagram-*.svg")
    )


def test_blocks_run_in_their_order_in_one_folder(tmp_path, capfd):
    page = write_page(
        tmp_path,
        "<!-- run first: echo made > file -->\n\n```sh\ncat file\n"
        "ls configs/demo.flags\n```\n\n```python\nraise Exception\n```\n"
        "<!-- run with: sys, json -->\n```python\nopen('file', 'w').write('2')\n"
        "```\n\n```console\n$ test $(cat file) = 2\n```\n",
    )
    assert run_docs.run_page(page)
    assert [line.split(" in ")[0].split(":", 1)[1] for line in
            capfd.readouterr().out.splitlines()] == [
        "1: done", "3: done", "11: done", "16: done",
    ]  # fmt: skip


def test_block_that_fails_ends_its_page_with_what_it_said(tmp_path, capfd):
    page = write_page(
        tmp_path,
        "```sh\necho said; false; echo on\n```\n\n```sh\necho 2\n```\n",
    )
    assert not run_docs.run_page(page)
    out = capfd.readouterr().out
    assert "page.md:1: exit code 1 in " in out
    assert out.endswith("echo said; false; echo on\n\nsaid\n\n")


def test_block_that_is_not_run_is_named(tmp_path, capfd):
    page = write_page(
        tmp_path,
        "<!-- not run: needs a GPU -->\n```sh\nfalse\n```\n\n"
        "<!-- run with: no_such_module -->\n```python\nexit(1)\n```\n",
    )
    assert run_docs.run_page(page)
    first, second = capfd.readouterr().out.splitlines()
    assert first.endswith("page.md:1: not run, needs a GPU: false")
    assert second.endswith("not run, no_such_module is not installed: exit(1)")


def test_code_for_numpy_reads_the_pixels(records_dir):
    page = ROOT / "docs" / "data_format.md"
    (code,) = [
        block.code
        for block in run_docs.list_blocks(page)
        if block.modules == ("numpy",)
    ]
    names = {}
    exec(code[: code.index("for images, labels in")], names)
    rows = pd.read_csv(f"{records_dir}/patches.csv").query("split == 'fold0'")
    shards = names["open_split"](records_dir, "fold0")
    images = np.concatenate([images for images, _ in shards])
    labels = np.concatenate([labels for _, labels in shards])
    assert list(labels) == list(rows["label"])
    assert [schema.hash_pixels(one) for one in images] == list(rows["id"])


@pytest.mark.long
@pytest.mark.parametrize(
    "page", run_docs.list_pages(), ids=lambda page: page.stem
)
def test_page_runs(page, capfd):
    succeeded = run_docs.run_page(page)
    assert succeeded, capfd.readouterr().out
