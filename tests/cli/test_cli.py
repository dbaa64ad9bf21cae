"""The commands as a user runs them; whatever is wrong is told in one line."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import loaded
import pytest
import standing
import tables
from conftest import HALF_OF_FLOAT32, NUM_TEST, NUM_TRAIN, run_program

from pcam_tfdata.cli import main
from pcam_tfdata.evaluation import slides
from pcam_tfdata.records import tfrecord
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import csv_files

ROOT = pathlib.Path(__file__).parents[2]


def refused(code: int, found: str, *arguments: object, lines: int = 1) -> None:
    """Runs a command that must fail with `found` in its one line."""
    result = loaded.run(*arguments)
    told = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr
    assert found in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert len(told) == lines, result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def run_dir(records_dir, tmp_path_factory) -> pathlib.Path:
    """A run of one epoch of the small network."""
    path = tmp_path_factory.mktemp("runs") / "run"
    result = run_program(
        "train", f"--records_dir={records_dir}", f"--run_dir={path}",
        "--model=small_cnn", "--batch_size=16", "--epochs=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return path


# What every command shares.


def test_help_lists_every_command_and_imports_no_tensorflow():
    code = (
        "import sys\nfrom pcam_tfdata.cli import main\n"
        "try: main.run(['--help'])\n"
        "finally: assert 'tensorflow' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    for command in main.COMMANDS:
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_of_a_command_lists_its_flags(command):
    result = loaded.run(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    usage, *described = result.stdout.splitlines()
    required = re.fullmatch(
        rf"usage: pcam {command}( --.*)? \[--flag=value \.\.\.\]", usage
    )
    for flag in [*(required.group(1) or "").split(), "--flagfile=..."]:
        name = flag.removesuffix("=...")
        assert any(line.startswith(f"  {name}: ") for line in described)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["no_such"], "found command 'no_such'"),
        (["verify"], "--records_dir is missing"),
        (["verify", "--no_such=1"], "Unknown command line flag 'no_such'"),
        (["verify", "stray"], "found 'stray', expected only --flag=value"),
        (["synthesize", "--num_train=many"], "flag --num_train=many"),
        (["synthesize", "--num_train=0"], "flag --num_train=0"),
        (["convert_to_tfrecords", "--check_ids=maybe"], "--check_ids=maybe"),
        (["verify", "--flagfile=/no/such.flags"], "/no/such.flags"),
        (["verify", "--records_dir="], "--records_dir: found nothing"),
        (["train", "--learning_rate=nan"], "flag --learning_rate=nan"),
        (["train", "--seed=-1"], "flag --seed=-1"),
        (
            ["convert_to_tfrecords", "--shard_megabytes=-1"],
            "flag --shard_megabytes=-1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_wrong_usage_exits_2(arguments, found):
    refused(2, found, *arguments)


def test_no_command_shows_them_all_and_exits_2():
    result = run_program()
    assert result.returncode == 2
    assert "usage: pcam COMMAND" in result.stderr


@pytest.mark.parametrize("tool", ["convert_to_tfrecords", "train", "predict"])
def test_tools_run_from_a_checkout(tool, tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert f"usage: pcam {tool}" in result.stdout


# Conversion.


def labels_of(tree: pathlib.Path) -> list[list[str]]:
    path = str(tree / "train_labels.csv")
    return [list(row) for row in tables.read_csv(path, ("id", "label"))]


def write_labels(tree: pathlib.Path, rows) -> None:
    csv_files.write_csv(str(tree / "train_labels.csv"), ("id", "label"), rows)


def first_file(tree: pathlib.Path) -> pathlib.Path:
    return min((tree / "train").iterdir())


def mismatch(tree):
    data = bytearray(first_file(tree).read_bytes())
    data[5000] ^= 1
    first_file(tree).write_bytes(data)


def wrong_label(tree):
    rows = labels_of(tree)
    rows[3][1] = "2"
    write_labels(tree, rows)


def row_without_file(tree):
    first_file(tree).unlink()


def file_without_row(tree):
    write_labels(tree, labels_of(tree)[1:])


def contradicting_row(tree):
    (name, label), *rows = labels_of(tree)
    write_labels(tree, [*rows, [name, label], [name, 1 - int(label)]])


def second_file(tree):
    path = first_file(tree)
    shutil.copy(path, path.with_suffix(".png"))


def path_as_name(tree):
    write_labels(tree, [*labels_of(tree), ["../../etc/passwd", "0"]])


def undecodable(tree):
    first_file(tree).write_bytes(b"II*\0 and then nothing")


def no_column(tree):
    rows = labels_of(tree)
    path = str(tree / "train_labels.csv")
    csv_files.write_csv(path, ("id", "class"), rows)


def no_labels(tree):
    (tree / "train_labels.csv").unlink()


def no_folder(tree):
    shutil.rmtree(tree / "train")


def missing_test_file(tree):
    path = min((tree / "test").iterdir())
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (mismatch, "found pixels with SHA-1"),
        (wrong_label, "found label '2' for"),
        (row_without_file, "without a file, expected"),
        (file_without_row, "found a file without a row"),
        (contradicting_row, "expected one label. Find out which is right."),
        (second_file, "found a second file"),
        (path_as_name, "found id '../../etc/passwd', expected a plain name"),
        (undecodable, "found a TIFF that ends before its tags do"),
        (no_column, "found columns 'id,class', expected 'label'"),
        (no_labels, "train_labels.csv: not found, expected Kaggle's folder"),
        (no_folder, "train: not found, expected Kaggle's folder"),
        (missing_test_file, "sample_submission.csv: found id"),
    ],
    ids=lambda value: getattr(value, "__name__", " "),
)
def test_conversion_refuses_bad_input(kaggle_tree, tmp_path, spoil, found):
    spoil(kaggle_tree)
    refused(
        1, found, "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={tmp_path / 'records'}",
        f"--slide_csv={kaggle_tree / 'slides.csv'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["kaggle"]


def test_all_faults_are_told_together(kaggle_tree, tmp_path):
    mismatch(kaggle_tree)
    paths = sorted((kaggle_tree / "train").iterdir())
    for path in paths[5:35]:
        path.write_bytes(b"")
    rows = labels_of(kaggle_tree)
    wrong = [[name, "x" if name == paths[-1].stem else n] for name, n in rows]
    write_labels(kaggle_tree, wrong)
    refused(
        1,
        "32 faults: 1 bad labels, 30 patches that cannot be read, 1 ids that"
        " are not the SHA-1 of their pixels. --on_bad_patch=skip would leave"
        f" {NUM_TRAIN + NUM_TEST - 32} patches.\n",
        "convert_to_tfrecords",
        f"--input_dir={kaggle_tree}", f"--output_dir={tmp_path / 'records'}",
        lines=7,
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["kaggle"]


def test_slide_file_must_know_every_patch(kaggle_tree, tmp_path):
    path = str(kaggle_tree / "slides.csv")
    rows = tables.read_csv(path, ("id", "wsi"))
    csv_files.write_csv(path, ("id", "wsi"), rows[1:])
    refused(
        1, f"slides.csv: found no row for {rows[0][0]}",
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={tmp_path / 'records'}", f"--slide_csv={path}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["kaggle"]


def test_finished_output_is_not_overwritten(kaggle_tree, records_dir):
    before = sorted(os.listdir(records_dir))
    refused(
        1, "found finished records. Pass --overwrite",
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={records_dir}",
    )  # fmt: skip
    assert sorted(os.listdir(records_dir)) == before


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("", "found something other than finished records"),
        (".incomplete", "found something other than an unfinished conversion"),
    ],
)
def test_other_folder_is_not_overwritten(kaggle_tree, tmp_path, ending, told):
    precious = tmp_path / f"records{ending}"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    refused(
        1, told, "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={tmp_path / 'records'}", "--overwrite",
    )  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["kaggle", precious.name]
    assert os.listdir(precious) == ["thesis.tex"]


def test_killed_conversion_leaves_nothing_that_looks_finished(
    kaggle_tree, tmp_path
):
    output_dir = tmp_path / "records"
    command = [
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={output_dir}",
    ]  # fmt: skip
    incomplete = tmp_path / "records.incomplete"
    with standing.conversion(command, output_dir, 1) as killed:
        standing.end(killed, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not output_dir.exists()
    assert (incomplete / "records").is_dir()
    assert not (incomplete / "records" / "manifest.json").exists()
    assert loaded.run(*command).returncode == 0
    assert not incomplete.exists()
    assert loaded.run("verify", f"--records_dir={output_dir}").returncode == 0


def test_convert_and_verify_say_what_they_did(kaggle_tree, tmp_path):
    output_dir = tmp_path / "records"
    result = run_program(
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={output_dir}",
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stdout.endswith("test 7 patches in 6 shards.\n")
    assert "no --slide_csv" in result.stderr
    assert "optimistic" in result.stderr
    assert len(result.stderr.splitlines()) == 2  # With what comes next.
    result = run_program("verify", f"--records_dir={output_dir}")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{output_dir}: sound.\n"


def test_verify_names_the_bad_record(records_dir, tmp_path):
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))
    path = min(copy.glob("pcam-fold2*"))
    data = bytearray(path.read_bytes())
    data[30_000] ^= 1
    path.write_bytes(data)
    refused(
        1, f"{path}: record 1 (byte 27,787): CRC", "verify",
        f"--records_dir={copy}", lines=3,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_missing_records_are_refused(command, tmp_path):
    more = [] if command == "verify" else [f"--output_dir={tmp_path / 'o'}"]
    refused(
        1, "manifest.json: not found, expected a records folder", command,
        f"--records_dir={tmp_path / 'none'}", *more,
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_inspect_writes_counts_and_pictures(records_dir, tmp_path):
    output_dir = tmp_path / "overview"
    result = loaded.run(
        "inspect", f"--records_dir={records_dir}", f"--output_dir={output_dir}"
    )
    assert result.returncode == 0, result.stderr
    assert sorted(os.listdir(output_dir)) == [
        "labels.png", "labels.svg", "overview.json", "overview.txt",
        "patches.png", "patches.svg",
    ]  # fmt: skip
    assert f"{NUM_TRAIN + NUM_TEST} patches" in result.stdout


@pytest.mark.parametrize("place", [".", "made/here"])
def test_inspect_writes_nothing_into_records(records_dir, place):
    names = sorted(os.listdir(records_dir))
    output_dir = os.path.join(records_dir, place)
    refused(
        1, f"--output_dir={output_dir}: found a records folder", "inspect",
        f"--records_dir={records_dir}", f"--output_dir={output_dir}",
    )  # fmt: skip
    assert sorted(os.listdir(records_dir)) == names


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGINT, 130, "interrupted."),
        (signal.SIGTERM, 143, "terminated."),
    ],
    ids=["SIGINT", "SIGTERM"],
)
@pytest.mark.parametrize("delay", [0, 0.5])
def test_signal_ends_a_job_in_one_line(tmp_path, number, code, told, delay):
    tree = tmp_path / "tree"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pcam_tfdata", "synthesize",
            f"--output_dir={tree}", "--num_train=100000",
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not os.listdir(tmp_path):
        time.sleep(0.01)
    time.sleep(delay)
    os.killpg(process.pid, number)  # To the whole group, as a terminal does.
    _, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (code, f"pcam synthesize: {told}\n")
    assert os.listdir(tmp_path) == []


A_FINALIZER = """
class Deaf:
    def __del__(self):
        busy()

def run():
    Deaf()
"""
A_WEAK_REFERENCE = """
import weakref

class Deaf:
    pass

def run():
    deaf = Deaf()
    reference = weakref.ref(deaf, lambda _: busy())
    del deaf
"""
A_CLASS_STATEMENT = """
class Wrapping:
    def __set_name__(self, owner, name):
        busy()

def run():
    class Owner:
        attribute = Wrapping()
"""
COMMAND = """
import time
from pcam_tfdata.cli import main, verify

def busy():
    print("busy", flush=True)
    time.sleep(3)

{place}
    while True:
        time.sleep(0.1)

verify.run = run
main.run(["verify", "--records_dir=none"])
"""


def end_after(line: str, program: str, number: int) -> tuple[str, str]:
    """Ends a program by a signal after its first line; returns what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == f"{line}\n"
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + number, stderr
    return stdout, stderr


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, "interrupted."), (signal.SIGTERM, "terminated.")],
    ids=["SIGINT", "SIGTERM"],
)
@pytest.mark.parametrize(
    "place",
    [A_FINALIZER, A_WEAK_REFERENCE, A_CLASS_STATEMENT],
    ids=["finalizer", "weak reference", "class statement"],
)
def test_signal_where_python_drops_it_ends_a_job_in_one_line(
    place, number, told
):
    _, stderr = end_after("busy", COMMAND.format(place=place), number)
    assert stderr == f"pcam verify: {told}\n"


COMMAND_THAT_TIDIES_UP = """
import time
from pcam_tfdata.cli import main, verify

def run():
    try:
        print("busy", flush=True)
        time.sleep(100)
    finally:
        time.sleep(3)
        print("tidy", flush=True)

verify.run = run
main.run(["verify", "--records_dir=none"])
"""


def test_sigterm_leaves_time_to_tidy_up():
    stdout, stderr = end_after("busy", COMMAND_THAT_TIDIES_UP, signal.SIGTERM)
    assert stdout == "tidy\n"
    assert stderr == "pcam verify: terminated.\n"


def test_output_that_cannot_be_renamed_is_refused(kaggle_tree, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    result = run_program(
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}", "--output_dir=.",
        cwd=here,
    )  # fmt: skip
    assert result.returncode == 1
    assert "found a mount point or the working folder" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["here", "kaggle"]


def test_output_may_be_a_link(kaggle_tree, tmp_path):
    (tmp_path / "big").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "big")
    for more in ([], ["--overwrite"]):
        result = loaded.run(
            "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
            f"--output_dir={link}", *more,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "big" / "manifest.json").exists()
    assert sorted(os.listdir(tmp_path)) == ["big", "kaggle", "link"]


def test_overwriting_spares_what_is_not_records(kaggle_tree, tmp_path):
    command = [
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={tmp_path / 'records'}",
    ]  # fmt: skip
    assert loaded.run(*command).returncode == 0
    (tmp_path / "records" / "run").mkdir()
    refused(1, "something other than finished records", *command, "--overwrite")


# Training.


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--strategy=mirrored"], "or see why: pcam doctor."),
        (["--train_splits=fold0,fold1"], "found fold0 among --train_splits"),
        (["--validation_splits=test"], "found splits without labels, test"),
        (["--validation_splits=foldx"], "found no split 'foldx'"),
        (["--batch_size=999"], "found 999, expected a multiple of 1, "),
        (
            ["--strategy=mirrored", "--num_virtual_devices=2",
             "--batch_size=7"],
            "found 7, expected a multiple of 2, which replicas can share",
        ),
    ],
    ids=["no_gpu", "overlap", "unlabeled", "unknown", "large", "uneven"],
)  # fmt: skip
def test_training_refuses_what_cannot_work(
    records_dir, tmp_path, arguments, found
):
    refused(
        1, found, "train", f"--records_dir={records_dir}",
        f"--run_dir={tmp_path / 'run'}", "--model=small_cnn",
        *([] if "--batch_size" in str(arguments) else ["--batch_size=16"]),
        *arguments,
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_damaged_shard_is_refused_before_training(records_dir, tmp_path):
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))
    path = min(copy.glob("pcam-fold2*"))
    os.truncate(path, 1000)
    refused(
        1, f"{path}: found 1,000 bytes, expected", "train",
        f"--records_dir={copy}", f"--run_dir={tmp_path / 'run'}",
        "--model=small_cnn", "--batch_size=16",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["copy"]


@pytest.mark.long
def test_stream_trains_and_names_damage(records_dir, tmp_path):
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))
    command = [
        "train", f"--records_dir={copy}", "--model=small_cnn",
        "--batch_size=16", "--epochs=1", "--input=stream",
    ]  # fmt: skip
    result = loaded.run(*command, f"--run_dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    path = min(copy.glob("pcam-fold2*"))
    data = bytearray(path.read_bytes())
    data[2 * tfrecord.layout(labeled=True).record_bytes + 5000] ^= 1
    path.write_bytes(data)
    result = loaded.run(*command, f"--run_dir={tmp_path / 'other'}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"{path}: record 2 (byte 55,574): CRC of the data")


def test_training_without_records_is_refused(tmp_path):
    refused(
        1, "none/manifest.json: not found", "train",
        f"--records_dir={tmp_path / 'none'}", f"--run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_run_with_other_flags_is_refused(records_dir, run_dir):
    before = sorted(os.listdir(run_dir))
    refused(
        1, "found a run that differs in --epochs, --seed (it had --epochs=1"
        " --seed=0)", "train",
        f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        "--model=small_cnn", "--batch_size=16", "--epochs=2", "--seed=5",
    )  # fmt: skip
    assert sorted(os.listdir(run_dir)) == before


def test_training_in_a_folder_of_other_things_is_refused(records_dir, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    refused(
        1, "found something other than files of a run", "train",
        f"--records_dir={records_dir}", f"--run_dir={tmp_path}",
        "--model=small_cnn", "--batch_size=16",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_run_keeps_its_record(run_dir):
    assert {
        "best.keras", "calibration.json", "checkpoints", "environment.json",
        "flags.txt", "history.csv", "history.png", "history.svg", "timing.csv",
    } <= set(os.listdir(run_dir))  # fmt: skip
    header = (run_dir / "history.csv").read_text().splitlines()[0].split(",")
    assert header == [
        "epoch", "step", "learning_rate", "loss", "accuracy", "val_loss",
        "val_accuracy", "val_auc", "is_dead",
    ]  # fmt: skip


def test_flags_of_a_run_repeat_it(run_dir, tmp_path):
    again = tmp_path / "again"
    result = loaded.run(
        "train", f"--flagfile={run_dir / 'flags.txt'}", f"--run_dir={again}"
    )
    assert result.returncode == 0, result.stderr
    histories = [
        (path / "history.csv").read_bytes() for path in (run_dir, again)
    ]
    assert histories[0] == histories[1]


@pytest.mark.long
def test_restart_begins_anew_on_two_devices(records_dir, run_dir, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    result = loaded.run(
        "train", f"--records_dir={records_dir}", f"--run_dir={copy}",
        "--model=small_cnn", "--batch_size=16", "--epochs=1", "--restart",
        "--strategy=mirrored", "--num_virtual_devices=2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "on CPU:0, CPU:1" in result.stderr
    assert run_folder.read_flags(str(copy))["strategy"] == "mirrored"


# Evaluation and prediction.


def test_evaluate_writes_scores_and_pictures(records_dir, run_dir, tmp_path):
    result = run_program(
        "evaluate", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--output_dir={tmp_path}", "--splits=fold0,fold1,fold2",
    )  # fmt: skip
    assert result.returncode == 0
    assert re.fullmatch(
        r"Warning: .* trained on fold1, fold2: .*\nInput: mmap, .*\.\n",
        result.stderr,
    )
    assert sorted(os.listdir(tmp_path)) == [
        "confusion.png", "confusion.svg", "metrics.json", "metrics.txt",
        "predictions.csv", "roc.png", "roc.svg", "slides.csv",
    ]  # fmt: skip
    assert result.stdout == (tmp_path / "metrics.txt").read_text()
    scores = json.loads((tmp_path / "metrics.json").read_text())
    rows = tables.read_csv(str(tmp_path / "slides.csv"), ("num_patches", "nll"))
    assert len(rows) == scores["num_slides"] > 2
    assert sum(int(count) for count, _ in rows) == scores["num_patches"]
    total = sum(int(count) * float(nll) for count, nll in rows)
    assert total / scores["num_patches"] == pytest.approx(scores["nll"])
    assert scores["resampled"] == "slides"
    low, high = scores["intervals"]["nll"]
    assert low <= scores["nll"] <= high
    assert f"{scores['nll']:.4f} [{low:.4f}, {high:.4f}]\n" in result.stdout


def test_scores_without_slides_are_said_to_be_optimistic(
    run_dir, kaggle_tree, tmp_path
):
    records_dir, scores_dir = tmp_path / "records", tmp_path / "scores"
    loaded.run(
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={records_dir}",
    )  # fmt: skip
    scores_dir.mkdir()
    # Of an earlier evaluation.
    (scores_dir / "slides.csv").write_text(",".join(slides.COLUMNS) + "\n")

    def evaluate(num_resamples):
        result = loaded.run(
            "evaluate", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
            f"--output_dir={scores_dir}", f"--num_resamples={num_resamples}",
        )  # fmt: skip
        assert "Slides are unknown, so scores and" in result.stdout
        return json.loads((scores_dir / "metrics.json").read_text())

    scores = evaluate(50)
    assert (scores["resampled"], scores["num_slides"]) == ("patches", None)
    assert scores["num_resamples"] == 50
    assert len(scores["intervals"]["accuracy"]) == 2
    assert not (scores_dir / "slides.csv").exists()
    without = evaluate(0)
    assert not any(without["intervals"].values())
    assert without["auc"] == scores["auc"]


def test_table_of_slides_is_not_written_over(
    records_dir, run_dir, kaggle_tree, tmp_path
):
    table = tmp_path / "slides.csv"
    shutil.copy(kaggle_tree / "slides.csv", table)
    before = table.read_bytes()
    refused(
        1, f"{table}: found columns 'id,wsi'", "evaluate",
        f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--output_dir={tmp_path}",
    )  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["kaggle", "slides.csv"]
    assert table.read_bytes() == before


def test_damaged_sidecar_is_refused_before_the_network_runs(
    records_dir, run_dir, tmp_path
):
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))
    lines = (copy / "patches.csv").read_text().splitlines(keepends=True)
    (copy / "patches.csv").write_text("".join(lines[:9]))
    refused(
        1, "patches.csv: found SHA-256 ", "evaluate",
        f"--records_dir={copy}", f"--run_dir={run_dir}",
        f"--output_dir={tmp_path / 'scores'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["copy"]


def test_negative_number_of_resamples_is_refused(
    records_dir, run_dir, tmp_path
):
    refused(
        2, "--num_resamples", "evaluate", f"--records_dir={records_dir}",
        f"--run_dir={run_dir}", f"--output_dir={tmp_path / 'scores'}",
        "--num_resamples=-1",
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_missing_model_is_refused(command, records_dir, tmp_path):
    more = [f"--output_csv={tmp_path / 's.csv'}"] * (command == "predict")
    refused(
        1, "best.keras: not found, expected the folder of a run", command,
        f"--records_dir={records_dir}", f"--run_dir={tmp_path / 'none'}", *more,
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_unlabeled_split_is_not_evaluated(records_dir, run_dir, tmp_path):
    refused(
        1, "--splits: found test, without labels", "evaluate",
        f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        "--splits=test", f"--output_dir={tmp_path / 'scores'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_scores_that_say_little_come_with_a_warning(
    records_dir, run_dir, kaggle_tree, tmp_path
):
    def evaluate(records, split):
        result = loaded.run(
            "evaluate", f"--records_dir={records}", f"--run_dir={run_dir}",
            f"--output_dir={tmp_path / 'scores'}", f"--splits={split}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stderr

    assert "trained on fold1" in evaluate(records_dir, "fold1")
    other = tmp_path / "other"
    loaded.run(
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}",
        f"--output_dir={other}", "--seed=9",
    )  # fmt: skip
    assert "trained on other records than these" in evaluate(other, "fold0")


def test_file_that_is_no_network_is_refused(records_dir, run_dir, tmp_path):
    copy = pathlib.Path(shutil.copytree(run_dir, tmp_path / "run"))
    (copy / "best.keras").write_bytes(b"junk")
    refused(
        1, "best.keras: found no network that Keras can load", "predict",
        f"--records_dir={records_dir}", f"--run_dir={copy}",
        f"--output_csv={tmp_path / 's.csv'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["run"]


def submission(
    run_dir, path, *arguments, run=loaded.run
) -> list[tuple[str, ...]]:
    result = run(
        "predict", f"--run_dir={run_dir}", f"--output_csv={path}", *arguments
    )
    assert result.returncode == 0
    assert re.fullmatch(r"(Input: mmap, .*\.\n)?", result.stderr)
    return tables.read_csv(str(path), ("id", "label"))


def test_records_and_folder_give_one_submission(
    records_dir, run_dir, kaggle_tree, tmp_path
):
    sample = kaggle_tree / "sample_submission.csv"
    wanted = tables.read_csv(str(sample), ("id",))[::-1]
    csv_files.write_csv(str(tmp_path / "sample.csv"), ("id",), wanted)
    ordered = f"--sample_submission={tmp_path / 'sample.csv'}"
    one = submission(
        run_dir, tmp_path / "1.csv", f"--records_dir={records_dir}", ordered,
        run=run_program,
    )  # fmt: skip
    two = submission(
        run_dir, tmp_path / "2.csv", f"--input_dir={kaggle_tree}", ordered,
        "--batch_size=3",
    )  # fmt: skip
    assert [name for name, _ in one] == [name for (name,) in wanted]
    assert [name for name, _ in two] == [name for (name,) in wanted]
    for (_, a), (_, b) in zip(one, two, strict=True):
        assert 0 < float(a) < 1
        assert abs(float(a) - float(b)) < HALF_OF_FLOAT32
    rounded = submission(
        run_dir, tmp_path / "3.csv", f"--records_dir={records_dir}",
        "--threshold=0.5",
    )  # fmt: skip
    labels = {name: str(int(float(p) >= 0.5)) for name, p in one}
    assert dict(rounded) == labels


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda ids: ids[1:], "1 patches without a row"),
        (lambda ids: [*ids, "extra"], "1 not among the patches (as extra)"),
        (lambda ids: [f"{ids[0]}_", *ids[1:]], "1 not among the patches (as "),
    ],
    ids=["missing", "extra", "other"],
)
def test_sample_of_other_ids_is_refused(
    records_dir, run_dir, kaggle_tree, tmp_path, change, found
):
    sample = str(kaggle_tree / "sample_submission.csv")
    ids = [name for (name,) in tables.read_csv(sample, ("id",))]
    csv_files.write_csv(sample, ("id",), [(name,) for name in change(ids)])
    refused(
        1, found, "predict", f"--run_dir={run_dir}",
        f"--records_dir={records_dir}", f"--sample_submission={sample}",
        f"--output_csv={tmp_path / 'submission.csv'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["kaggle"]


def test_sample_as_people_have_them_keeps_its_spelling(
    records_dir, run_dir, kaggle_tree, tmp_path
):
    sample = kaggle_tree / "sample_submission.csv"
    ids = [name.upper() for (name,) in tables.read_csv(str(sample), ("id",))]
    ids[1] = f"{ids[1].lower()}.tif"
    lines = ["Id,Label", *(f"{name},0" for name in ids), ids[0], " , ", ","]
    sample.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    for place, source in enumerate(
        (f"--records_dir={records_dir}", f"--input_dir={kaggle_tree}")
    ):
        output = tmp_path / f"{place}.csv"
        result = loaded.run(
            "predict", f"--run_dir={run_dir}", f"--output_csv={output}", source,
            f"--sample_submission={sample}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "found 1 rows that repeat an id" in result.stderr
        assert f"{output}: {NUM_TEST} patches." in result.stdout
        header, *rows = output.read_text().splitlines()
        assert header == "id,label"
        assert [row.split(",")[0] for row in rows] == ids


def test_bad_file_of_a_folder_is_refused(run_dir, kaggle_tree, tmp_path):
    path = min((kaggle_tree / "test").iterdir())
    path.write_bytes(b"no image")
    refused(
        1, f"{path}: found 8 bytes that do not decode", "predict",
        f"--run_dir={run_dir}", f"--input_dir={kaggle_tree}",
        f"--output_csv={tmp_path / 'submission.csv'}",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["kaggle"]


@pytest.mark.parametrize("both", [True, False])
def test_prediction_has_one_source(run_dir, records_dir, tmp_path, both):
    given = [f"--records_dir={records_dir}", f"--input_dir={tmp_path}"]
    refused(
        2, "expected one of --records_dir and --input_dir", "predict",
        f"--run_dir={run_dir}", f"--output_csv={tmp_path / 's.csv'}",
        *(given if both else []),
    )  # fmt: skip
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["demo", "mirrored", "seed_cnn"])
def test_cross_validation_takes_each_configuration(name, tmp_path):
    result = run_program(
        "cross_validate",
        f"--flagfile={ROOT / 'configs' / name}.flags",
        f"--records_dir={tmp_path / 'none'}",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert result.returncode == 1, result.stderr
    assert f"{tmp_path / 'none'}" in result.stderr
