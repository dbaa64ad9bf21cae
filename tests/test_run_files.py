"""The folder of a run: resumed, refused, or begun anew."""

import json

import pytest

from pcam_tfdata import run_files

FLAGS = {"model": "small_cnn", "epochs": 3, "records_dir": "r", "splits": ["a"]}


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    run_files.open_run(str(path), FLAGS, restart=False)
    return path


def begin(run_dir) -> None:
    (run_dir / run_files.BEST_MODEL).write_text("weights")


def open_with(run_dir, restart=False, **changes) -> None:
    run_files.open_run(str(run_dir), FLAGS | changes, restart=restart)


def test_same_flags_resume(run_dir):
    begin(run_dir)
    open_with(run_dir)
    assert (run_dir / run_files.BEST_MODEL).exists()


def test_moved_records_resume(run_dir):
    begin(run_dir)
    open_with(run_dir, records_dir="elsewhere")


def test_other_flags_are_refused_and_named(run_dir):
    begin(run_dir)
    with pytest.raises(ValueError, match=r"differs in --epochs \(it had --epo"):
        open_with(run_dir, epochs=4)


def test_run_that_never_began_takes_other_flags(run_dir):
    open_with(run_dir, epochs=4)
    assert "--epochs=4" in (run_dir / run_files.FLAGS).read_text()


def test_restart_drops_the_run_and_spares_the_rest(run_dir):
    begin(run_dir)
    (run_dir / "notes.txt").write_text("mine")
    open_with(run_dir, restart=True, epochs=4)
    assert sorted(path.name for path in run_dir.iterdir()) == [
        run_files.FLAGS,
        "notes.txt",
    ]


def test_resuming_on_other_records_is_refused(run_dir):
    facts = {"manifest_sha256": "a", "order": "a permutation", "input": "mmap"}
    run_files.write_environment(str(run_dir), facts)
    run_files.write_environment(str(run_dir), facts)
    content = json.loads((run_dir / run_files.ENVIRONMENT).read_text())
    assert len(content["starts"]) == 2
    assert {"versions", "git_commit", "python"} <= content["starts"][0].keys()
    with pytest.raises(ValueError, match="began on other records"):
        run_files.write_environment(
            str(run_dir), facts | {"manifest_sha256": "b"}
        )
    with pytest.raises(ValueError, match="Pass --input=mmap"):
        run_files.write_environment(
            str(run_dir), facts | {"order": "a shuffle buffer", "input": "mmap"}
        )
