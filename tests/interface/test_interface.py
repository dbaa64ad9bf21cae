"""`import pcam_tfdata as pcam`: what commands do, from Python."""

import doctest
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pandas
import pytest
from conftest import FOLDS, NUM_TEST, ROOT, run_pcam

import pcam_tfdata as pcam
from pcam_tfdata import interface
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.runs import checkpoint_files, run_folder

SMALL = {"model": "small_cnn", "batch_size": 16}


@pytest.fixture(scope="module")
def records(records_dir) -> pcam.Records:
    return pcam.open_records(records_dir)


@pytest.fixture(scope="module")
def run(records, tmp_path_factory) -> pcam.Run:
    run_dir = tmp_path_factory.mktemp("interface") / "run"
    return pcam.train(records, run_dir=run_dir, epochs=1, **SMALL)


def run_python(code: str, *arguments: object, **options) -> list[str]:
    """Returns the lines that a program of its own process prints."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, **options,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


# Imports, and what they leave alone.

IMPORTS = """
import sys
before = set(sys.modules)
import pcam_tfdata as pcam
print(*sorted(m for m in set(sys.modules) - before if m.startswith("pcam")))
assert set(pcam.__all__) <= set(dir(pcam))
for name in pcam.__all__:
    getattr(pcam, name)
heavy = {"absl", "keras", "matplotlib", "pandas", "scipy", "sklearn", "tensorflow"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_importing_it_imports_next_to_nothing():
    assert run_python(IMPORTS) == ["pcam_tfdata", ""]


def test_what_it_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        pcam.trian  # noqa: B018


SURROUNDINGS = """
import logging, os, random, signal, sys, threading, warnings

def look():
    names = ["", "pcam_tfdata", "absl", "tensorflow", "matplotlib", "keras"]
    loggers = [logging.getLogger(name) for name in names]
    state = {
        "signals": [signal.getsignal(number) for number in (2, 14, 15)],
        "loggers": [(l.level, l.propagate, l.disabled, *l.handlers) for l in loggers],
        "logging": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "random": random.getstate(),
        "streams": [sys.stdout, sys.stderr, os.fstat(1), os.fstat(2)],
        "timer": signal.getitimer(signal.ITIMER_REAL),
    }
    if "matplotlib" in sys.modules:
        import matplotlib
        state["style"] = matplotlib.rcParams.copy()
        state["pyplot"] = "matplotlib.pyplot" in sys.modules
    if "keras" in sys.modules:
        import keras
        state["keras"] = [keras.config.dtype_policy().name, keras.config.floatx()]
    return state

def compare(before, when):
    after = look()
    for name in before:
        if name == "streams":
            same = before[name][:2] == after[name][:2] and all(
                os.path.samestat(*pair)
                for pair in zip(before[name][2:], after[name][2:])
            )
        else:
            same = before[name] == after[name]
        if not same:
            print(when, name, before[name], after[name])

before = look()
import pcam_tfdata as pcam
compare(before, "import")
import numpy  # What libraries set when they are imported is theirs.
before = look()
for name in pcam.__all__:
    getattr(pcam, name)
compare(before, "use")
import keras, matplotlib, pandas, sklearn.metrics, tensorflow
before = look()
assert "style" in before and "keras" in before
kaggle, folder = sys.argv[1:]
records = pcam.convert(
    kaggle, f"{folder}/records", slide_csv=f"{kaggle}/slides.csv", num_workers=2
)
compare(before, "convert")
run = pcam.train(
    records, run_dir=f"{folder}/run", model="small_cnn", batch_size=16, epochs=1
)
compare(before, "train")
run.evaluate()
compare(before, "evaluate")
run.predict(records)
run.predict(records.images("test"))
compare(before, "predict")
try:
    pcam.train(
        records, run_dir=f"{folder}/bad", batch_size=16, learning_rate=1e3,
        model="seed_cnn", epochs=1,
    )
except FloatingPointError:
    pass
compare(before, "failure")
print(len(run.history))
"""


def test_nothing_that_is_global_changes(shared_tree, tmp_path):
    assert run_python(SURROUNDINGS, shared_tree, tmp_path) == ["1"]


# Records.


def test_splits_and_counts_are_those_of_the_sidecar(records):
    table = records.read_table()
    assert records.splits == (*FOLDS, "test")
    counted = table.groupby("split").label.value_counts().to_dict()
    assert counted == {
        (split, label): count
        for split, counts in records.counts.items()
        for label, count in counts.items()
        if count
    }


def test_images_of_one_shard_are_a_view(shared_tree, tmp_path):
    records = pcam.convert(shared_tree, tmp_path / "records", num_workers=1)
    images = records.images("test")
    assert type(images) is np.ndarray
    assert images.base is not None and not images.flags.writeable
    patches = records_folder.open_folder(records.path).select_patches(["test"])
    expected = patches.read_images(np.arange(NUM_TEST))
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("split", ["fold0", "test"])
def test_images_of_several_shards_are_in_order(records, split):
    shards = records_folder.open_folder(records.path).list_shards([split])
    assert split == "test" or len(shards) > 1
    images = records.images(split)
    assert not images.flags.writeable
    views = [tfrecord.view_images(s.map(), s.layout) for s in shards]
    np.testing.assert_array_equal(images, np.concatenate(views))


def test_unknown_split_is_refused(records):
    with pytest.raises(ValueError, match="fold9"):
        records.images("fold9")


def test_batches_are_those_of_the_training_loop(records):
    batches = records.train_batches(batch_size=16, seed=3, epochs=2)
    source = patch_source.Source(
        records_folder.open_folder(records.path), FOLDS[1:]
    )
    patches = input_choice.open_patches(source)
    num_steps = -(-2 * patches.num_patches // 16)
    expected = patches.train_batches(
        batch_size=16, seed=3, first_step=0, num_steps=num_steps
    )
    pairs = zip(
        batches.as_numpy_iterator(), expected.as_numpy_iterator(), strict=True
    )
    for own, other in pairs:
        for name in ("image", "label", "row"):
            np.testing.assert_array_equal(own[name], other[name])


def test_batches_of_chosen_splits_hold_no_others(records):
    batches = records.train_batches(
        batch_size=4, train_splits="fold2", validation_splits=["fold1"]
    )
    rows = {row for b in batches.as_numpy_iterator() for row in b["row"]}
    table = records.read_table()
    assert rows == set(table.index[table["split"] == "fold2"])


def test_a_plain_keras_model_fits_them(records):
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((96, 96, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 5, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    batches = records.train_batches(batch_size=16, seed=0)
    pairs = batches.map(lambda batch: (batch["image"], batch["label"]))
    table = records.read_table().query("split == 'fold0'")
    validation = records.images("fold0"), table["label"].to_numpy()
    history = model.fit(
        pairs, epochs=5, validation_data=validation, verbose=0
    ).history
    assert len(history["val_loss"]) == 5
    assert min(history["loss"][1:]) < history["loss"][0]


# Conversion.


def test_finished_records_of_the_same_patches_are_opened(kaggle_tree, tmp_path):
    options = {"slide_csv": kaggle_tree / "slides.csv", "num_workers": 1}
    first = pcam.convert(kaggle_tree, tmp_path / "records", **options)
    manifest = pathlib.Path(first.path, "manifest.json")
    stamp = manifest.stat().st_mtime_ns
    again = pcam.convert(kaggle_tree, tmp_path / "records", **options)
    assert again.counts == first.counts
    assert manifest.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("change", ["patch", "label", "slides", "option"])
def test_finished_records_of_others_are_refused(kaggle_tree, tmp_path, change):
    options = {"slide_csv": kaggle_tree / "slides.csv", "num_workers": 1}
    pcam.convert(kaggle_tree, tmp_path / "records", **options)
    labels = kaggle_tree / "train_labels.csv"
    lines = labels.read_text().splitlines()
    if change == "patch":
        (kaggle_tree / "train" / f"{lines.pop().split(',')[0]}.tif").unlink()
    if change == "label":
        lines[-1] = f"{lines[-1][:-1]}{1 - int(lines[-1][-1])}"
    labels.write_text("\n".join(lines) + "\n")
    if change == "slides":
        slides = pandas.read_csv(options["slide_csv"])
        slides["wsi"] += "b"
        slides.to_csv(options["slide_csv"], index=False)
    if change == "option":
        options["num_folds"] = 4
    with pytest.raises(FileExistsError, match="found finished records"):
        pcam.convert(kaggle_tree, tmp_path / "records", **options)
    made = pcam.convert(
        kaggle_tree, tmp_path / "records", **options, overwrite=True
    )
    assert made.counts == pcam.open_records(made.path).counts


def test_records_are_those_of_the_command(shared_tree, tmp_path):
    ours = pcam.convert(shared_tree, tmp_path / "ours", num_workers=1)
    theirs = tmp_path / "theirs"
    result = run_pcam(
        "convert_to_tfrecords", f"--input_dir={shared_tree}",
        f"--output_dir={theirs}", "--num_workers=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    names = sorted(os.listdir(theirs))
    assert names == sorted(os.listdir(ours.path))
    for name in names:
        own = pathlib.Path(ours.path, name).read_bytes()
        assert own == (theirs / name).read_bytes(), name


# Training.


def read_variables(run_dir: str | pathlib.Path) -> list[np.ndarray]:
    _, path = checkpoint_files.list_checkpoints(str(run_dir))[-1]
    return checkpoint_files.read_checkpoint(path)[0]


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    for own, other in zip(
        read_variables(ours), read_variables(theirs), strict=True
    ):
        np.testing.assert_array_equal(own, other)
    best = [
        inference.load_network(str(run_dir / run_folder.BEST_MODEL))
        for run_dir in (ours, theirs)
    ]
    for own, other in zip(*(m.get_weights() for m in best), strict=True):
        np.testing.assert_array_equal(own, other)
    history = run_folder.HISTORY
    assert (ours / history).read_bytes() == (theirs / history).read_bytes()
    flags = [run_folder.read_flags(str(folder)) for folder in (ours, theirs)]
    assert flags[0] | {"run_dir": ""} == flags[1] | {"run_dir": ""}


FIVE_LINES = """\
import pcam_tfdata as pcam
records = pcam.open_records("records")
run = pcam.train(records, run_dir="ours", model="small_cnn", batch_size=32,
                 epochs=5, learning_rate=0.002)
print(run.evaluate()["auc"])
"""


@pytest.mark.long
def test_five_lines_train_the_weights_of_the_command(tmp_path):
    for command in (
        ["synthesize", "--output_dir=kaggle", "--num_train=800", "--num_test=20"],
        ["convert_to_tfrecords", "--input_dir=kaggle", "--output_dir=records",
         "--slide_csv=kaggle/truth.csv"],
        ["train", f"--flagfile={ROOT}/configs/demo.flags",
         "--records_dir=records", "--run_dir=theirs"],
    ):  # fmt: skip
        result = run_pcam(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert FIVE_LINES.count("\n") == 5
    (auc,) = run_python(FIVE_LINES, cwd=tmp_path)
    assert 0.5 < float(auc) <= 1
    assert_same_run(tmp_path / "ours", tmp_path / "theirs")


def test_finished_run_is_opened(records, run):
    before = pathlib.Path(run.run_dir, run_folder.BEST_MODEL).read_bytes()
    again = pcam.train(records, run_dir=run.run_dir, epochs=1, **SMALL)
    assert again.history.equals(run.history)
    after = pathlib.Path(run.run_dir, run_folder.BEST_MODEL).read_bytes()
    assert after == before
    assert pcam.load_run(run.run_dir).history.equals(run.history)


def test_other_options_in_the_same_folder_are_refused(records, run):
    with pytest.raises(ValueError, match="differs in --learning_rate"):
        pcam.train(
            records, run_dir=run.run_dir, epochs=1, learning_rate=0.1, **SMALL
        )


def test_the_command_goes_on_with_a_run(records, tmp_path):
    run_dir = tmp_path / "run"
    options = {"learning_rate": 1, "class_weights": (1, 1.5), **SMALL}
    pcam.train(records, run_dir=run_dir, epochs=1, **options)
    result = run_pcam(
        "train", f"--records_dir={records.path}", f"--run_dir={run_dir}",
        "--epochs=2", "--learning_rate=1", "--class_weights=1,1.5",
        "--model=small_cnn", "--batch_size=16",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(pcam.load_run(run_dir).history) == 2


INTERRUPTED = """
import sys
import pcam_tfdata as pcam
records_dir, run_dir = sys.argv[1:]
try:
    pcam.train(
        records_dir, run_dir=run_dir, model="small_cnn", batch_size=16,
        epochs=100_000, checkpoint_every_seconds=1e6,
    )
except KeyboardInterrupt as error:
    print(type(error).__name__, flush=True)
    raise
"""


def test_ctrl_c_leaves_a_run_that_goes_on(records, tmp_path):
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, records.path, run_dir],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    history = run_dir / run_folder.HISTORY
    try:
        while not history.exists():
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert stdout == "KeyboardInterrupt\n", stderr
    assert process.returncode == -signal.SIGINT
    ((step, _),) = checkpoint_files.list_checkpoints(str(run_dir))[-1:]
    assert step > 0
    flags = run_folder.read_flags(str(run_dir))
    num_epochs = len(pcam.load_run(run_dir).history) + 1
    (run_dir / run_folder.FLAGS).write_text(
        (run_dir / run_folder.FLAGS)
        .read_text()
        .replace(f"--epochs={flags['epochs']}", f"--epochs={num_epochs - 1}")
    )
    run = pcam.train(records, run_dir=run_dir, epochs=num_epochs, **SMALL)
    assert len(run.history) == num_epochs


# Runs.


def test_scores_are_those_of_the_command(records, run, tmp_path):
    scores = run.evaluate(splits="fold1", output_dir=tmp_path / "ours")
    result = run_pcam(
        "evaluate", f"--records_dir={records.path}",
        f"--run_dir={run.run_dir}", "--splits=fold1",
        f"--output_dir={tmp_path / 'theirs'}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "theirs" / "metrics.json").read_text())
    scores = json.loads(json.dumps(scores))
    assert {name: written[name] for name in scores} == scores


def test_probabilities_are_those_of_the_submission(records, run, tmp_path):
    path = tmp_path / "submission.csv"
    result = run_pcam(
        "predict", f"--records_dir={records.path}", f"--run_dir={run.run_dir}",
        f"--output_csv={path}", "--tta=d4",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    table = pandas.read_csv(path)
    tests = records.read_table().query("split == 'test'")
    assert table["id"].tolist() == tests["source_name"].tolist()
    of_records = run.predict(records, tta="d4")
    of_images = run.predict(records.images("test"), tta="d4")
    assert of_records.dtype == np.float64
    np.testing.assert_allclose(of_records, table["label"], rtol=1e-9)
    np.testing.assert_array_equal(of_images, of_records)


def test_no_images_have_no_probabilities(run):
    assert run.predict(np.empty((0, 96, 96, 3), np.uint8)).shape == (0,)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 96, 96, 3)), np.zeros((96, 96, 3), np.uint8)],
    ids=["float", "one patch"],
)
def test_other_images_are_refused(run, images):
    with pytest.raises(ValueError, match=r"expected uint8\[n, 96, 96, 3\]"):
        run.predict(images)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best\.keras: not found"):
        pcam.load_run(tmp_path)


# Documentation and types.


def test_examples_are_true(shared_tree, records, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(shared_tree, "kaggle")
    found = doctest.testmod(
        interface,
        extraglobs={"pcam": pcam, "records": records, "run": run},
    )
    assert found.attempted >= 15
    assert found.failed == 0


def check_types(script: pathlib.Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent",
         "--cache-dir", script.parent / "cache", script],
        capture_output=True, text=True, cwd=script.parent,
        env=os.environ | {"MYPYPATH": str(ROOT)},
    ).stdout  # fmt: skip


@pytest.mark.long
def test_types_are_known_to_users(tmp_path):
    assert (ROOT / "pcam_tfdata" / "py.typed").is_file()
    script = tmp_path / "script.py"
    script.write_text(FIVE_LINES)
    assert check_types(script) == "Success: no issues found in 1 source file\n"
    script.write_text(FIVE_LINES + "run.predict('test')\npcam.trian()\n")
    errors = check_types(script)
    assert 'to "predict" of "Run" has incompatible type "str"' in errors
    assert '"trian"' in errors
