"""The folder of a run: resumed, refused, or begun anew."""

import json
import re

import pytest

from pcam_tfdata.runs import environment_file, resumption, run_folder

FACTS = {
    "manifest_sha256": "a", "order": "a permutation", "input": "mmap",
    "precision": "float32",
}  # fmt: skip
FLAGS = {
    "model": "small_cnn", "epochs": 3, "records_dir": "r",
    "train_splits": ["a", "b"], "validation_splits": ["c"],
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "run"
    resumption.open_run(str(path), FLAGS, FACTS, restart=False)
    return path


def begin(run_dir) -> None:
    (run_dir / run_folder.BEST_MODEL).write_text("weights")


def open_with(run_dir, restart=False, facts=FACTS, **changes) -> None:
    resumption.open_run(str(run_dir), FLAGS | changes, facts, restart=restart)


def test_same_flags_resume(run_dir):
    begin(run_dir)
    open_with(run_dir)
    assert (run_dir / run_folder.BEST_MODEL).exists()


def test_moved_records_resume(run_dir):
    begin(run_dir)
    open_with(run_dir, records_dir="elsewhere")


def test_other_flags_are_refused_and_named(run_dir):
    begin(run_dir)
    with pytest.raises(ValueError, match=r"differs in --epochs \(it had --epo"):
        open_with(run_dir, epochs=4)


def test_run_that_never_began_takes_other_flags(run_dir):
    open_with(run_dir, epochs=4)
    assert "--epochs=4" in (run_dir / run_folder.FLAGS).read_text()


def test_restart_drops_the_run_and_spares_the_rest(run_dir):
    begin(run_dir)
    (run_dir / "notes.txt").write_text("mine")
    open_with(run_dir, restart=True, epochs=4)
    assert sorted(path.name for path in run_dir.iterdir()) == [
        run_folder.FLAGS,
        "notes.txt",
    ]


def test_resuming_on_other_records_is_refused(run_dir):
    begin(run_dir)
    for _ in range(2):
        environment_file.add_start(str(run_dir), FACTS)
    content = json.loads((run_dir / run_folder.ENVIRONMENT).read_text())
    assert len(content["starts"]) == 2
    assert {"versions", "git_commit", "python"} <= content["starts"][0].keys()
    before = (run_dir / run_folder.FLAGS).read_text()
    for changed, told in (
        ({"manifest_sha256": "b"}, "began with other records.* a, expected b"),
        ({"order": "a shuffle buffer"}, "Pass --input=mmap"),
        ({"precision": "mixed_float16"}, "Pass --precision=float32"),
    ):
        with pytest.raises(ValueError, match=told):
            open_with(run_dir, facts=FACTS | changed, records_dir="elsewhere")
    assert (run_dir / run_folder.FLAGS).read_text() == before


def test_restart_that_was_killed_begins_anew(run_dir):
    begin(run_dir)
    (run_dir / run_folder.HISTORY).write_text("old scores")
    (run_dir / run_folder.FLAGS).unlink()
    with pytest.raises(ValueError, match="expected it beside the checkpoints"):
        open_with(run_dir)
    open_with(run_dir, restart=True)
    assert [p.name for p in run_dir.iterdir()] == [run_folder.FLAGS]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"starts": x', b"\xff", b"5", b"{}", b'{"starts": []}',
     b'{"starts": [5]}', b'{"starts": [{"input": "mmap"}]}'],
)  # fmt: skip
def test_damaged_environment_is_named_and_restarted(run_dir, content):
    begin(run_dir)
    path = run_dir / run_folder.ENVIRONMENT
    path.write_bytes(content)
    for read in (
        lambda: open_with(run_dir),
        lambda: environment_file.read_starts(str(run_dir)),
        lambda: environment_file.add_start(str(run_dir), FACTS),
    ):
        told = f"^{re.escape(str(path))}: found no .*, expected the JSON"
        with pytest.raises(ValueError, match=told):
            read()
    assert path.read_bytes() == content
    open_with(run_dir, restart=True)
    environment_file.add_start(str(run_dir), FACTS)
    open_with(run_dir)


def test_half_a_checkpoint_is_none(run_dir):
    folder = run_dir / run_folder.CHECKPOINTS
    folder.mkdir()
    (folder / "step-000000033.npz.incomplete").write_text("half")
    open_with(run_dir, epochs=7)
    assert not folder.exists()


def test_a_history_that_older_code_began_gets_new_columns(run_dir):
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "new": 1}]
    run_folder.write_history(str(run_dir), rows)
    text = (run_dir / run_folder.HISTORY).read_text()
    assert text == "epoch,loss,new\n1,0.5,\n2,0.25,1\n"
