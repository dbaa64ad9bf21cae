"""The table of runs: what it says of whole, unfinished and broken ones."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import loaded
import numpy as np
import pytest
import tables
from conftest import HALF_OF_FLOAT32, run_pcam

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import (
    environment_file,
    leaderboard,
    reading,
    resumption,
    run_folder,
)

RATES = ("0.002", "0.0005")
SHA256 = "0123456789abcdef" * 4
FACTS = {
    "manifest_sha256": SHA256, "order": "a permutation", "input": "mmap",
    "precision": "float32",
}  # fmt: skip
FLAGS = {
    "records_dir": "records",
    "run_dir": "run",
    "model": "small_cnn",
    "batch_size": "16",
    "epochs": "3",
    "learning_rate": "0.001",
    "train_splits": "fold1,fold2",
    "validation_splits": "fold0",
}
AUCS = (0.75, 0.875, 0.875)


@pytest.fixture(scope="module")
def trained(records_dir, tmp_path_factory) -> pathlib.Path:
    """A folder with two runs that differ in their learning rate."""
    folder = tmp_path_factory.mktemp("runs")
    for rate in RATES:
        result = loaded.run(
            "train", f"--records_dir={records_dir}",
            f"--run_dir={folder / f'rate {rate}'}", "--model=small_cnn",
            "--batch_size=16", "--epochs=1", f"--learning_rate={rate}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    return folder


def write_run(
    run_dir: pathlib.Path, aucs=AUCS, *, start=None, **flags
) -> pathlib.Path:
    """Writes the files of a run, as training leaves them after some epochs."""
    resumption.open_run(str(run_dir), FLAGS | flags, FACTS, restart=False)
    environment_file.add_start(str(run_dir), FACTS | (start or {}))
    rows = [
        {"epoch": epoch, "step": 2 * epoch, "learning_rate": 0.001,
         "loss": 0.5, "val_loss": epoch / 8, "val_auc": auc}
        for epoch, auc in enumerate(aucs, 1)
    ]  # fmt: skip
    run_folder.write_history(str(run_dir), rows)
    for epoch, speed in enumerate((100.0, 900.0, 300.0)[: len(rows)], 1):
        run_folder.append_timing(
            str(run_dir),
            {"epoch": epoch, "train_patches_per_second": speed},
        )
    return run_dir


def cells(stdout: str) -> list[list[str]]:
    return [line.split() for line in stdout.splitlines()]


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row_of(run_dir: pathlib.Path) -> dict[str, object]:
    """Returns the row of one run."""
    frame, _ = leaderboard.make_table([reading.read_run(str(run_dir), "r")])
    (row,) = frame.to_dict("records")
    return {name: value for name, value in row.items() if value is not None}


# The command, on runs that were trained.


@pytest.mark.tensorflow
def test_the_table_says_what_the_files_of_the_runs_say(trained, tmp_path):
    path = tmp_path / "runs.csv"
    result = run_pcam("runs", f"--runs_dir={trained}", f"--output_csv={path}")
    assert (result.returncode, result.stderr) == (0, "")
    header, *lines = result.stdout.splitlines()
    # Of all flags those two runs differ in one, and where they are.
    names = header.split()
    assert names[-1] == "learning_rate"
    assert not {"batch_size", "run_dir", "records_dir"} & set(names)
    assert len(lines) == len(RATES)
    assert max(map(len, lines)) <= len(header)
    rows = read_csv(path)
    assert [line.split("  ")[0] for line in lines] == [r["run"] for r in rows]
    aucs = [float(row["val_auc"]) for row in rows]
    assert aucs == sorted(aucs, reverse=True)
    for row in rows:
        folder = trained / row["run"]
        assert row["learning_rate"] == row["run"].removeprefix("rate ")
        (history,) = read_csv(folder / run_folder.HISTORY)
        for name in ("val_auc", "val_loss", "val_accuracy"):
            assert row[name] == history[name]
        assert row["train_loss"] == history["loss"]
        (timing,) = read_csv(folder / run_folder.TIMING)
        assert row["patches/s"] == timing["train_patches_per_second"]
        (start,) = json.loads((folder / run_folder.ENVIRONMENT).read_text())[
            "starts"
        ]
        assert row["dataset"] == start["manifest_sha256"]
        assert row["started_at"] == start["started_at"]
        assert row["commit"] == (start["git_commit"] or "")
        assert (row["state"], row["best_epoch"]) == ("finished", "1")
        assert (row["batch_size"], row["note"]) == ("16", "")
        assert not {"run_dir", "records_dir"} & row.keys()


def share_of_near_ties(run_dir: pathlib.Path) -> float:
    """Returns how far two AUCs of the evaluated patches may be apart.

    The AUC is the share of pairs of a patch of each label that are in order.
    Batches of another size move each probability by HALF_OF_FLOAT32 at most, so
    that only pairs turn which are nearer than twice that.
    """
    rows = tables.read_csv(
        str(run_dir / run_folder.PREDICTIONS), ("label", "logit")
    )
    label, logit = np.array(rows, float).T
    probability = 1 / (1 + np.exp(-logit))
    negative, positive = (probability[label == n] for n in (0, 1))
    distance = np.abs(negative[:, None] - positive)
    return float(np.mean(distance <= 2 * HALF_OF_FLOAT32))


@pytest.mark.tensorflow
def test_an_evaluated_run_has_its_scores(trained, records_dir, tmp_path):
    folder = tmp_path / "evaluated"
    shutil.copytree(trained / f"rate {RATES[0]}", folder)
    result = loaded.run(
        "evaluate", f"--records_dir={records_dir}", f"--run_dir={folder}"
    )
    assert result.returncode == 0, result.stderr
    scores = json.loads((folder / run_folder.METRICS_JSON).read_text())
    row = row_of(folder)
    assert row["eval_auc"] == scores["auc"]
    apart = share_of_near_ties(folder) + 1e-9  # Of sums of float64.
    assert row["val_auc"] == pytest.approx(scores["auc"], rel=0, abs=apart)
    assert row["eval_brier"] == scores["brier"]
    assert row["eval_splits"] == "fold0"
    result = run_pcam("runs", f"--runs_dir={folder}", "--columns=run,eval_auc")
    assert cells(result.stdout) == [
        ["run", "eval_auc"],
        [".", f"{scores['auc']:.4f}"],
    ]


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        ([], ["b", "c", "a", "new"]),
        (["--ascending"], ["a", "b", "c", "new"]),
        (["--sort_by=batch_size"], ["c", "b", "a", "new"]),
        (["--sort_by=run", "--ascending"], ["a", "b", "c", "new"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_rows_are_sorted_with_empty_ones_last(tmp_path, arguments, order):
    write_run(tmp_path / "a", (0.5,), batch_size="8")
    write_run(tmp_path / "c", batch_size="128")
    write_run(tmp_path / "b", batch_size="16")
    resumption.open_run(str(tmp_path / "new"), FLAGS, FACTS, restart=False)
    flags = tmp_path / "new" / run_folder.FLAGS
    flags.write_text(flags.read_text().replace("--batch_size=16\n", ""))
    result = run_pcam("runs", f"--runs_dir={tmp_path}", *arguments)
    _, *lines = cells(result.stdout)
    assert [line[0] for line in lines] == order


@pytest.mark.parametrize("flag", ["sort_by", "columns"])
def test_an_unknown_column_is_refused_with_those_there_are(tmp_path, flag):
    write_run(tmp_path / "runs" / "a")
    result = run_pcam(
        "runs", f"--runs_dir={tmp_path / 'runs'}", f"--{flag}=val_acu",
        f"--output_csv={tmp_path / 'runs.csv'}",
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert f"--{flag}: found 'val_acu', expected one of run, state" in line
    assert "val_auc" in line and "batch_size" in line
    assert os.listdir(tmp_path) == ["runs"]


@pytest.mark.parametrize("folder", ["empty", "none"])
def test_a_folder_without_runs_is_told_in_one_line(tmp_path, folder):
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    result = run_pcam("runs", f"--runs_dir={tmp_path / folder}")
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "found no run, expected folders" in line


def test_a_csv_that_cannot_be_written_is_told_in_one_line(tmp_path):
    write_run(tmp_path / "a")
    path = tmp_path / "nowhere" / "runs.csv"
    result = run_pcam("runs", f"--runs_dir={tmp_path}", f"--output_csv={path}")
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "found no folder" in line


def test_lesser_scores_and_equal_origins_are_shown_when_asked_for(tmp_path):
    scores = {"splits": ["fold0"], "auc": 0.5, "brier": 0.25}
    for name, batch_size in (("one", "8"), ("two", "16")):
        folder = write_run(tmp_path / name, batch_size=batch_size)
        path = folder / run_folder.METRICS_JSON
        path.write_text(json.dumps(scores))
    columns = ["run", "state", "best_epoch", "val_auc", "eval_auc", "eval_mark"]
    columns += ["patches/s", "batch_size"]
    result = run_pcam("runs", f"--runs_dir={tmp_path}")
    header, *lines = result.stdout.splitlines()
    assert header.split() == columns
    assert all(len(line) <= 80 for line in lines)
    result = run_pcam(
        "runs", f"--runs_dir={tmp_path}", "--columns=dataset,run,eval_brier"
    )
    assert cells(result.stdout) == [
        ["dataset", "run", "eval_brier"],
        [SHA256[:37] + "...", "one", "0.2500"],
        [SHA256[:37] + "...", "two", "0.2500"],
    ]
    other = FACTS | {"manifest_sha256": "b" * 64}
    environment = tmp_path / "two" / run_folder.ENVIRONMENT
    environment.unlink()
    environment_file.add_start(str(tmp_path / "two"), other)
    result = run_pcam("runs", f"--runs_dir={tmp_path}")
    header, *_ = result.stdout.splitlines()
    assert header.split() == [*columns[:-1], "dataset", columns[-1]]


def test_a_hundred_runs_are_shown_without_tensorflow(tmp_path):
    for number in range(100):
        write_run(tmp_path / f"{number:03d}", seed=number)
    code = (
        "import sys\nfrom pcam_tfdata.cli import main\n"
        f"try: main.run(['runs', '--runs_dir={tmp_path}'])\n"
        "finally: assert not {'tensorflow', 'keras'} & sys.modules.keys()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 101


# What a run's files say, and what they cannot.


def test_the_best_epoch_is_the_first_of_the_best_auc(tmp_path):
    row = row_of(write_run(tmp_path / "run"))
    assert (row["best_epoch"], row["val_auc"]) == (2, 0.875)
    # The other scores are of that epoch, not the best of each.
    assert (row["val_loss"], row["train_step"]) == (0.25, 4)
    assert row["patches/s"] == 300


@pytest.mark.parametrize(
    ("aucs", "state"),
    [((), "epoch 0 of 3"), ((0.5, 0.75), "epoch 2 of 3"), (AUCS, "finished")],
    ids=["begun", "unfinished", "finished"],
)
def test_state_says_how_far_a_run_came(tmp_path, aucs, state):
    assert row_of(write_run(tmp_path / "run", aucs))["state"] == state


@pytest.mark.parametrize(
    ("is_stopped", "state"),
    [(True, "finished"), (False, "epoch 2 of 3"), (None, "epoch 2 of 3")],
    ids=["stopped early", "interrupted", "damaged"],
)
def test_a_run_that_stopped_early_has_finished(tmp_path, is_stopped, state):
    run_dir = write_run(tmp_path / "run", (0.5, 0.75))
    folder = run_dir / run_folder.CHECKPOINTS
    folder.mkdir()
    np.savez(folder / "step-000000003.npz", state=json.dumps({"step": 3}))
    newest = folder / "step-000000004.npz"
    np.savez(newest, state=json.dumps({"is_stopped": bool(is_stopped)}))
    if is_stopped is None:
        cut(newest)
    row = row_of(run_dir)
    assert (row["state"], row["note"]) == (state, "")


def test_scores_without_hashes_are_shown_as_unverified(tmp_path):
    run_dir = write_run(tmp_path / "run")
    (run_dir / run_folder.BEST_MODEL).write_text("weights")
    path = run_dir / run_folder.METRICS_JSON
    path.write_text(json.dumps({"splits": ["fold0"], "auc": 0.5}))
    row = row_of(run_dir)
    assert (row["eval_auc"], row["eval_mark"]) == (0.5, "unverified")
    assert row["note"] == ""
    path.write_text(json.dumps({"splits": ["fold2"], "auc": 0.5}))
    assert row_of(run_dir)["eval_mark"] == "unverified, trained on"


def test_scores_of_a_run_whose_records_no_file_tells_are_unverified(tmp_path):
    run_dir = write_run(tmp_path / "run")
    (run_dir / run_folder.BEST_MODEL).write_text("weights")
    scores = {
        "splits": ["fold0"], "auc": 0.5, "manifest_sha256": SHA256,
        "model_sha256": manifest.hash_file(str(run_dir / run_folder.BEST_MODEL)),
    }  # fmt: skip
    (run_dir / run_folder.METRICS_JSON).write_text(json.dumps(scores))
    assert row_of(run_dir)["eval_mark"] == ""
    (run_dir / run_folder.ENVIRONMENT).unlink()
    assert row_of(run_dir)["eval_mark"] == "unverified"


def test_network_is_hashed_once_for_all_evaluations(tmp_path, monkeypatch):
    run_dir = write_run(tmp_path / "run")
    (run_dir / run_folder.BEST_MODEL).write_text("weights")
    for name in ("a", "b", "c"):
        folder = run_dir / run_folder.EVALUATIONS / name
        folder.mkdir(parents=True)
        (folder / run_folder.METRICS_JSON).write_text(
            json.dumps({"splits": ["fold0"], "model_sha256": SHA256})
        )
    hashed = []
    hash_file = manifest.hash_file
    monkeypatch.setattr(
        manifest, "hash_file", lambda p: hashed.append(p) or hash_file(p)
    )
    row = row_of(run_dir)
    assert {row[f"eval_mark:{name}"] for name in ("a", "b", "c")} == {"stale"}
    assert hashed == [str(run_dir / run_folder.BEST_MODEL)]


def test_a_run_of_flags_alone_has_not_begun(tmp_path):
    resumption.open_run(str(tmp_path / "run"), FLAGS, FACTS, restart=False)
    row = row_of(tmp_path / "run")
    assert (row["state"], row["note"]) == ("not begun", "")
    assert "val_auc" not in row


def test_epochs_whose_auc_is_not_defined_are_never_the_best(tmp_path):
    row = row_of(write_run(tmp_path / "run", (None, 0.25, float("nan"))))
    assert (row["best_epoch"], row["state"]) == (2, "finished")


def test_a_run_resumed_by_other_code_names_both_commits(tmp_path):
    run_dir = write_run(tmp_path / "run", start={"git_commit": "a" * 40})
    environment_file.add_start(str(run_dir), FACTS | {"git_commit": "b" * 40})
    row = row_of(run_dir)
    assert row["commit"] == f"{'a' * 40},{'b' * 40}"
    assert row["starts"] == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def lose_a_value(path):
    path.write_text(path.read_text().replace(",900.0", "").replace(",0.25", ""))


def overwrite(content):
    def write(path):
        path.write_bytes(content)

    return write


def make_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


HISTORY, TIMING, ENVIRONMENT, METRICS = (
    run_folder.HISTORY, run_folder.TIMING, run_folder.ENVIRONMENT,
    run_folder.METRICS_JSON,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spoil", "note"),
    [
        (HISTORY, cut, "it was cut short"),
        (HISTORY, overwrite(b""), "it was cut short"),
        (
            HISTORY,
            overwrite(b"epoch\n1\n"),
            "another form (KeyError: 'val_auc')",
        ),
        (HISTORY, lose_a_value, "could not convert"),
        (HISTORY, overwrite(b"epoch,val_auc\n1,high\n"), "'high'"),
        (HISTORY, overwrite(b"epoch,val_auc\n,0.5\n"), "found no epoch"),
        (HISTORY, overwrite(b"epoch,val_auc\n1,\xff\n"), "can't decode"),
        (HISTORY, make_folder, "Is a directory"),
        (TIMING, lose_a_value, "could not convert"),
        (ENVIRONMENT, cut, "Expecting"),
        (ENVIRONMENT, overwrite(b"[]"), "found no starts of a run"),
        (ENVIRONMENT, overwrite(b'{"starts": []}'), "found no starts"),
        (ENVIRONMENT, overwrite(b'{"starts": [5]}'), "found no starts"),
        (METRICS, overwrite(b'{"auc": 0.5'), "Expecting"),
        (METRICS, overwrite(b"7"), "found another form"),
        (METRICS, overwrite(b"[" * 100_000), "found another form"),
        (
            run_folder.FLAGS,
            overwrite(b"--model=a\n"),
            "found no --train_splits",
        ),
        (run_folder.FLAGS, overwrite(b"\xff\n"), "can't decode"),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_a_broken_file_is_noted_and_the_rest_is_shown(
    tmp_path, name, spoil, note
):
    sound = row_of(write_run(tmp_path / "sound"))
    broken = write_run(tmp_path / "broken")
    spoil(broken / name)
    row = row_of(broken)
    assert note in row["note"]
    assert row["note"].startswith(f"{name}: ")
    assert str(tmp_path) not in row["note"]
    if name == HISTORY:
        assert row["state"] == "unknown"
        assert "val_auc" not in row
    else:
        assert row["val_auc"] == sound["val_auc"]
    if name != ENVIRONMENT:
        assert row["dataset"] == SHA256


def test_runs_whose_names_are_no_text_are_sorted(tmp_path):
    for name in (b"b\xff", b"a"):
        write_run(tmp_path / os.fsdecode(name))
    runs = reading.read_runs(str(tmp_path))
    frame, _ = leaderboard.make_table(runs)
    frame = leaderboard.sort_rows(frame, "run", ascending=True)
    assert list(frame["run"]) == ["a", "b\udcff"]


def test_broken_runs_do_not_end_the_command(tmp_path):
    write_run(tmp_path / "good")
    cut(write_run(tmp_path / "bad") / HISTORY)
    odd = tmp_path / "deep" / os.fsdecode(b"\xffodd\nname")
    odd.mkdir(parents=True)
    shutil.copy(tmp_path / "good" / run_folder.FLAGS, odd)
    result = run_pcam("runs", f"--runs_dir={tmp_path}")
    assert (result.returncode, result.stderr) == (0, "")
    header, good, bad, strange, note = result.stdout.splitlines()
    assert good.startswith("good") and "0.8750" in good
    assert bad.startswith("bad") and "unknown" in bad
    assert strange.startswith("deep/\\udcffodd\\nname  not begun")
    assert note.startswith(f"bad: {HISTORY}: found no end of the last line")
    assert "learning_rate" not in header


def test_runs_are_found_below_runs_and_not_behind_links(tmp_path):
    outer = write_run(tmp_path / "outer")
    write_run(outer / "fold0")
    (tmp_path / "link").symlink_to(outer)
    runs = reading.read_runs(str(tmp_path))
    assert [run.columns["run"] for run in runs] == ["outer", "outer/fold0"]


def test_a_flag_that_a_run_lacks_differs(tmp_path):
    write_run(tmp_path / "a", dropout="0.5")
    write_run(tmp_path / "b")
    _, shown = leaderboard.make_table(reading.read_runs(str(tmp_path)))
    assert shown[-1] == "dropout"
    (tmp_path / "b" / run_folder.FLAGS).write_text("")
    frame, shown = leaderboard.make_table(reading.read_runs(str(tmp_path)))
    # One run is left of which the flags are known.
    assert "dropout" not in shown and "dropout" in frame
